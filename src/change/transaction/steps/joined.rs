//! The proof at the end of a join: the member votes, and has the same data as another member.

use std::time::Duration;

use serde_json::{Value, json};

use crate::change::transaction::context::StepContext;
use crate::change::transaction::proof;
use crate::cluster::survey::{Survey, pause};
use crate::error::{Failure, Kind, Result};
use crate::etcd::client::{Connection, HashKvAnswer};
use crate::etcd::ids::MemberId;

/// How often the hashes are compared: a compaction between two answers makes them differ.
const ATTEMPTS: u32 = 3;
/// How long between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Requires that the member votes and is healthy, that its pod runs, and that its HashKV equals
/// another member's at one revision. If there are no two hashes to compare, reports a note, not a
/// failure.
pub(super) async fn prove(node: &StepContext, survey: &Survey, id: MemberId) -> Result<Value> {
    let wrong = |what: String| Failure::new(Kind::Unexpected, what).doing("proving the new member");
    let Some(state) = survey.find(id) else {
        return Err(wrong(format!("member {id} is no longer in the cluster")));
    };
    if state.member.is_learner || !state.is_healthy() {
        let why = state.trouble.as_deref().unwrap_or("it is a learner");
        return Err(wrong(format!("member {id} does not vote: {why}")));
    }
    let own = survey.connect_to(state).await?;
    let version = state.status.as_ref().map(|status| status.version.clone());
    let other = survey.connect_to_other_than(id).await?;
    proof::pods(node).await?;
    let mut compared = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            pause(&node.context, PAUSE).await?;
        }
        let (revision, same) = match node.context.cancel.guard(hashes(&own, &other)).await {
            Ok(Some(answer)) => answer,
            Ok(None) => continue,
            Err(failure) if failure.kind() == Kind::Unreachable => continue,
            Err(failure) => return Err(failure),
        };
        compared = Some((revision, same));
        if same {
            break;
        }
    }
    match compared {
        Some((revision, false)) => Err(wrong(format!(
            "its data at revision {revision} differs from that of the member at {}",
            other.endpoint()
        ))),
        Some((revision, true)) => Ok(json!({ "etcdVersion": version, "hashRevision": revision })),
        None => {
            let what =
                "no two hashes at the same revision could be obtained: its data is not compared";
            node.context.warn("not-compared", what);
            Ok(json!({ "etcdVersion": version }))
        }
    }
}

/// The revision, and whether both members have the same hash at it; `None` if either has no hash.
async fn hashes(own: &Connection, other: &Connection) -> Result<Option<(i64, bool)>> {
    let (ours, theirs) = (own.status().await?, other.status().await?);
    let revision = ours.header.revision.min(theirs.header.revision);
    let (ours, theirs) = (own.hash_kv(revision).await?, other.hash_kv(revision).await?);
    Ok(match (ours, theirs) {
        (HashKvAnswer::Hash(ours), HashKvAnswer::Hash(theirs))
            // A HashKV depends on the compaction: with different ones equal data has different
            // hashes.
            if ours.compact_revision == theirs.compact_revision =>
        {
            Some((revision, ours.hash == theirs.hash))
        }
        _ => None,
    })
}
