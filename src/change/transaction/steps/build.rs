//! etcd's new data, from a snapshot or from a member's own disk.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::change::datadir::Outcome;
use crate::change::dir_options::DirOptions;
use crate::change::transaction::context::StepContext;
use crate::change::transaction::files::{label_as, own_as, remove_if_there};
use crate::change::transaction::info::NodeFacts;
use crate::change::transaction::served::LOG_INDEX;
use crate::change::{datadir, survivor};
use crate::error::{Doing, Kind, Result};
use crate::etcd::datadir::Layout;
use crate::etcd::history::Moment;
use crate::etcd::restore::{Bump, Evidence};
use crate::keep::database;
use crate::keep::ranges::Recorded;
use crate::sys::owner::Owner;

/// The data to be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Building {
    /// The snapshot, as the process finds it.
    pub snapshot: PathBuf,
    /// The directory to be made.
    pub into: PathBuf,
    /// The token that the new ids are made from.
    pub token: String,
    /// Added to the highest revision known; none: `bump_by`.
    pub slack: Option<i64>,
    /// Added to the snapshot's revision.
    pub bump_by: i64,
    /// Revisions known to have been served, and who says so.
    pub evidence: Vec<(String, i64)>,
    /// The revision to restore to; none: the snapshot's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Moment>,
    /// The WAL that is applied to the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roll_forward: Option<datadir::RollForward>,
    /// Whether its directory is a node path.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wal_on_node: bool,
    /// Recorded changes that are applied to the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
    /// Refusals that are allowed.
    #[serde(deserialize_with = "crate::error::names::list")]
    pub allow: Vec<String>,
    /// Whose the new data is to be, and with which modes; none: as this program makes it.
    #[serde(default)]
    pub owner: Option<Owner>,
}

/// The data to be built from a member's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Surviving {
    /// The member's files: a node path, or a path of the process.
    pub from: PathBuf,
    /// Whether `from` is a node path.
    pub on_node: bool,
    /// The directory to be made.
    pub into: PathBuf,
    /// The member's peer URLs, if they changed.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Option<String>,
    /// Added to the highest revision known; none: `bump_by`.
    pub slack: Option<i64>,
    /// Added to the revision.
    pub bump_by: i64,
    /// Revisions known to have been served, and who says so.
    pub evidence: Vec<(String, i64)>,
    /// Refusals that are allowed.
    #[serde(deserialize_with = "crate::error::names::list")]
    pub allow: Vec<String>,
    /// Randomness for the new cluster's id, in hexadecimal.
    pub random: String,
    /// Whose the new data is to be, and with which modes; none: as this program makes it.
    #[serde(default)]
    pub owner: Option<Owner>,
}

pub(crate) async fn build(node: &StepContext, building: &Building) -> Result<Option<Value>> {
    let into = node.host(&building.into);
    let mut request = request(&node.facts, building, into.clone())?;
    if let Some(forward) = request
        .roll_forward
        .as_mut()
        .filter(|_| building.wal_on_node)
    {
        forward.dir = node.host(&forward.dir);
    }
    let context = node.context.clone();
    let place = node.host(&node.facts.etcd.data_dir);
    let owner = building.owner;
    let outcome = node
        .blocking(move || {
            // Left by an attempt that was killed before its record.
            remove_if_there(&into)?;
            let outcome = datadir::run(&context, &request)?;
            own_as(owner, &into)?;
            label_as(&place, &into)?;
            Ok(outcome)
        })
        .await?;
    Ok(Some(facts(&outcome)))
}

pub(crate) async fn survive(node: &StepContext, surviving: &Surviving) -> Result<Option<Value>> {
    let into = node.host(&surviving.into);
    let from = if surviving.on_node {
        node.host(&surviving.from)
    } else {
        surviving.from.clone()
    };
    let request = surviving_request(surviving, &node.facts.etcd.member, from, into.clone())?;
    let context = node.context.clone();
    let place = node.host(&node.facts.etcd.data_dir);
    let owner = surviving.owner;
    let (outcome, keys) = node
        .blocking(move || {
            remove_if_there(&into)?;
            let outcome = survivor::run(&context, &request)?;
            own_as(owner, &into)?;
            label_as(&place, &into)?;
            let built = Layout::new(&into, None).db();
            let report = database::read(&context, &built, database::KeyFilter::default())?;
            Ok((outcome, report.and_then(|report| Some(report.facts?.keys))))
        })
        .await?;
    // If etcd itself applies the WAL's end, the number of keys is not known yet.
    let keys = outcome.applied.and(keys);
    Ok(Some(json!({
        "clusterId": outcome.cluster_id,
        "memberId": outcome.member.id,
        "revision": outcome.revision,
        "snapshotRevision": outcome.applied_revision,
        "keys": keys,
        "databaseSize": outcome.database_size,
        LOG_INDEX: outcome.index,
        "tailCommitted": outcome.tail_committed,
        "tailUncommitted": outcome.tail_uncommitted,
    })))
}

/// The step's request, for the member's data at `from`.
pub(crate) fn surviving_request(
    surviving: &Surviving,
    member: &str,
    from: PathBuf,
    into: PathBuf,
) -> Result<survivor::Request> {
    let random = u128::from_str_radix(&surviving.random, 16)
        .doing(Kind::Unexpected, || "reading the plan's randomness")?;
    Ok(survivor::Request {
        options: DirOptions {
            evidence: evidence(&surviving.evidence),
            allow: surviving.allow.clone(),
            random,
            ..options(into, surviving.slack, surviving.bump_by)
        },
        from,
        from_wal: None,
        name: Some(member.to_owned()),
        peer_urls: surviving.peer_urls.clone(),
        cluster_id: None,
    })
}

/// A directory on the node, whose revision is bumped as a step says.
fn options(data_dir: PathBuf, slack: Option<i64>, bump_by: i64) -> DirOptions {
    let bump = match slack {
        Some(slack) => Bump::Auto { slack },
        None => Bump::By(bump_by),
    };
    DirOptions {
        data_dir,
        wal_dir: None,
        bump: Some(bump),
        mark_compacted: bump != Bump::By(0),
        evidence: Vec::new(),
        allow: Vec::new(),
        random: 0,
    }
}

fn evidence(known: &[(String, i64)]) -> Vec<Evidence> {
    known
        .iter()
        .map(|(source, revision)| Evidence {
            source: source.clone(),
            revision: *revision,
        })
        .collect()
}

fn request(facts: &NodeFacts, building: &Building, data_dir: PathBuf) -> Result<datadir::Request> {
    let urls = &facts.etcd.peer_urls;
    let name = &facts.etcd.member;
    let cluster: Vec<String> = urls.iter().map(|url| format!("{name}={url}")).collect();
    Ok(datadir::Request {
        options: DirOptions {
            evidence: evidence(&building.evidence),
            allow: building.allow.clone(),
            random: u128::from_ne_bytes(crate::sys::random::bytes::<16>()?),
            ..options(data_dir, building.slack, building.bump_by)
        },
        snapshot: building.snapshot.clone(),
        name: name.clone(),
        initial_cluster: cluster.join(","),
        advertise_peer_urls: urls.join(","),
        token: Some(building.token.clone()),
        skip_hash_check: false,
        target: None,
        compact: false,
        authentication_off: false,
        to: building.to.clone(),
        roll_forward: building.roll_forward.clone(),
        recorded: building.recorded.clone(),
    })
}

/// What the proof at the end holds etcd against.
fn facts(outcome: &Outcome) -> Value {
    json!({
        "clusterId": outcome.cluster_id,
        "memberId": outcome.member_id,
        "revision": outcome.revision,
        "snapshotRevision": outcome.snapshot_revision,
        "keys": outcome.keys,
        "databaseSize": outcome.database_size,
        LOG_INDEX: outcome.log_index,
    })
}
