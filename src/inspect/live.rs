//! `verify SET --live`: does the running member's history contain the backup's data?
//!
//! Compares the member's HashKV at the snapshot's revision with the one computed from the snapshot.
//! The two compare only if both were made with the same compaction; the snapshot's is computed
//! again with the member's where that has moved on.

use std::path::Path;

use serde::Serialize;

use crate::cluster::connect;
use crate::cluster::connect::Target;
use crate::context::Context;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::FileSource;
use crate::etcd::client::{Connection, HashKv, HashKvAnswer};
use crate::etcd::hashkv::{At, HashKv as Computed};
use crate::etcd::snapshot;

/// The result of the comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Live {
    /// The member's history holds the snapshot.
    Same {
        /// In a sentence.
        detail: String,
    },
    /// It does not.
    Differs {
        /// In a sentence.
        detail: String,
    },
    /// It could not be found out.
    NotChecked {
        /// Why.
        detail: String,
    },
}

/// Compares a snapshot, of which `known` is the HashKV at its own revision, with the local member.
pub async fn compare(
    context: &Context,
    target: &Target,
    snapshot: &Path,
    known: Computed,
    cluster_id: Option<&str>,
) -> Result<Live> {
    let access = target.access(context, &target.detect(context)?)?;
    let work = async {
        let connection = connect::connect(&access, &connect::options(&access)?).await?;
        ask(&connection, snapshot, known, cluster_id).await
    };
    match context.cancel.guard(work).await {
        Err(failure) if failure.kind() == Kind::Unreachable => Ok(Live::NotChecked {
            detail: failure.to_string(),
        }),
        other => other,
    }
}

/// Asks one member whether its history holds a snapshot.
///
/// # Errors
/// [`Kind::Unreachable`]; [`Kind::NotChecked`] if the snapshot cannot be read.
pub(crate) async fn ask(
    connection: &Connection,
    snapshot: &Path,
    known: Computed,
    cluster_id: Option<&str>,
) -> Result<Live> {
    let status = connection.status().await?;
    let live = status.header.cluster_id.to_string();
    if let Some(recorded) = cluster_id.filter(|recorded| *recorded != live) {
        let detail =
            format!("the backup belongs to cluster {recorded}, the member to cluster {live}");
        return Ok(Live::Differs { detail });
    }
    let revision = known.revision;
    let answer = match connection.hash_kv(revision).await? {
        HashKvAnswer::Hash(answer) => answer,
        // Up to 3.5.4 also where the store is compacted at its newest revision.
        HashKvAnswer::Compacted => match hashed_now(connection, revision).await? {
            Some(answer) => answer,
            None => {
                let detail = format!("the member has compacted revision {revision}");
                return Ok(Live::NotChecked { detail });
            }
        },
        HashKvAnswer::Future => {
            let now = status.header.revision;
            let detail =
                format!("the backup is at revision {revision}, but the member is only at {now}");
            return Ok(Live::Differs { detail });
        }
    };
    let answer = match answer.compact_revision < known.compact_revision {
        true => hashed_now(connection, revision).await?.unwrap_or(answer),
        false => answer,
    };
    let own = match recomputed(snapshot, known, answer.compact_revision)? {
        Ok(own) => own,
        Err(detail) => return Ok(Live::NotChecked { detail }),
    };
    // Older servers count differently where no key is alive.
    if own.hash == answer.hash || own.hash_before_3_4_34 == answer.hash {
        let detail = format!("HashKV {} at revision {revision}", answer.hash);
        return Ok(Live::Same { detail });
    }
    let detail = format!(
        "HashKV at revision {revision} is {} in the backup and {} on the member",
        own.hash, answer.hash
    );
    Ok(Live::Differs { detail })
}

/// The member's hash of what it has now, where that is still the revision asked for.
///
/// From 3.5.5 on a hash that was made during a compaction is remembered with the compaction before,
/// and is the answer for that very revision. Asked for no revision, a member computes it.
async fn hashed_now(connection: &Connection, revision: i64) -> Result<Option<HashKv>> {
    let HashKvAnswer::Hash(answer) = connection.hash_kv(0).await? else {
        return Ok(None);
    };
    let hashed = answer.hash_revision.filter(|hashed| *hashed > 0);
    // The header tells the newest revision, which a write in the meantime has raised.
    let unchanged =
        hashed.is_none_or(|hashed| hashed == revision) && answer.header.revision == revision;
    Ok(unchanged.then_some(answer))
}

/// The snapshot's hash with the member's compaction, or why it has none.
fn recomputed(
    snapshot: &Path,
    known: Computed,
    compact: i64,
) -> Result<std::result::Result<Computed, String>> {
    if compact == known.compact_revision {
        return Ok(Ok(known));
    }
    if compact < known.compact_revision {
        // From 3.5.5 on a hash made during a compaction is remembered with the one before.
        let detail = format!(
            "the member hashed with compaction {compact}, before the backup's {}",
            known.compact_revision
        );
        return Ok(Err(detail));
    }
    let doing = || format!("reading {}", snapshot.display());
    let source = FileSource::open(snapshot).doing(Kind::NotChecked, doing)?;
    let at = At {
        revision: Some(known.revision),
        compacted_at: Some(compact),
    };
    let hash = snapshot::hash_kv(&source, at)?;
    hash.map(Ok)
        .or_else(|why| Ok::<_, Failure>(Err(why.to_string())))
}
