//! etcd's new data, from a snapshot or from a member's own disk.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::about::About;
use super::super::data::MEMBER;
use super::super::served::LOG_INDEX;
use super::super::world::World;
use super::{Building, Surviving, remove_if_there};
use crate::change::datadir::Outcome;
use crate::change::{datadir, survivor};
use crate::error::{Doing, Kind, Result};
use crate::etcd::datadir::Layout;
use crate::etcd::restore::{Bump, Evidence};
use crate::keep::database;
use crate::sys::label::{label, relabel};
use crate::sys::owner::Owner;

pub(super) async fn build(world: &World, building: &Building) -> Result<Option<Value>> {
    let into = world.host(&building.into);
    let request = request(&world.about, building, into.clone())?;
    let context = world.context.clone();
    let place = world.host(&world.about.etcd.data_dir);
    let owner = building.owner;
    let outcome = world
        .blocking(move || {
            // Built by an attempt that was killed before it could say so.
            remove_if_there(&into)?;
            let outcome = datadir::run(&context, &request)?;
            own_as(owner, &into)?;
            label_as(&place, &into)?;
            Ok(outcome)
        })
        .await?;
    Ok(Some(facts(&outcome)))
}

pub(super) async fn survive(world: &World, surviving: &Surviving) -> Result<Option<Value>> {
    let into = world.host(&surviving.into);
    let from = if surviving.on_node {
        world.host(&surviving.from)
    } else {
        surviving.from.clone()
    };
    let request = surviving_request(surviving, &world.about.etcd.member, from, into.clone())?;
    let context = world.context.clone();
    let place = world.host(&world.about.etcd.data_dir);
    let owner = surviving.owner;
    let (outcome, keys) = world
        .blocking(move || {
            remove_if_there(&into)?;
            let outcome = survivor::run(&context, &request)?;
            own_as(owner, &into)?;
            label_as(&place, &into)?;
            let built = Layout::new(&into, None).db();
            let report = database::read(&context, &built, database::Wanted::default())?;
            Ok((outcome, report.and_then(|report| Some(report.facts?.keys))))
        })
        .await?;
    // Where etcd itself applies the end of the log, how many keys there will be is not known.
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

/// Gives what was built to whom etcd's data belongs.
fn own_as(owner: Option<Owner>, built: &Path) -> Result<()> {
    match owner {
        Some(owner) => owner.give(&built.join(MEMBER)),
        None => Ok(()),
    }
}

/// What the step asks for, of the member's data where it is now.
pub(in crate::change::restore) fn surviving_request(
    surviving: &Surviving,
    member: &str,
    from: PathBuf,
    into: PathBuf,
) -> Result<survivor::Request> {
    let random = u128::from_str_radix(&surviving.random, 16)
        .doing(Kind::Unexpected, || "reading the plan's randomness")?;
    let bump = bump(surviving.slack, surviving.bump_by);
    Ok(survivor::Request {
        from,
        from_wal: None,
        data_dir: into,
        wal_dir: None,
        name: Some(member.to_owned()),
        peer_urls: surviving.peer_urls.clone(),
        bump: Some(bump),
        mark_compacted: bump != Bump::By(0),
        evidence: evidence(&surviving.evidence),
        allow: surviving.allow.clone(),
        cluster_id: None,
        random,
    })
}

/// Gives what was built the label of the directory that it goes to, where that has one.
pub(in crate::change::restore) fn label_as(place: &Path, built: &Path) -> Result<()> {
    match label(place)? {
        Some(wanted) if label(built)?.as_ref() != Some(&wanted) => relabel(built, &wanted),
        _ => Ok(()),
    }
}

fn bump(slack: Option<i64>, by: i64) -> Bump {
    match slack {
        Some(slack) => Bump::Auto { slack },
        None => Bump::By(by),
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

fn request(about: &About, building: &Building, data_dir: PathBuf) -> Result<datadir::Request> {
    let urls = &about.etcd.peer_urls;
    let name = &about.etcd.member;
    let cluster: Vec<String> = urls.iter().map(|url| format!("{name}={url}")).collect();
    let bump = bump(building.slack, building.bump_by);
    Ok(datadir::Request {
        snapshot: building.snapshot.clone(),
        data_dir,
        wal_dir: None,
        name: name.clone(),
        initial_cluster: cluster.join(","),
        advertise_peer_urls: urls.join(","),
        token: Some(building.token.clone()),
        skip_hash_check: false,
        bump: Some(bump),
        mark_compacted: building.slack.is_some() || building.bump_by > 0,
        evidence: evidence(&building.evidence),
        target: None,
        compact: false,
        allow: building.allow.clone(),
        random: u128::from_ne_bytes(crate::sys::random::bytes::<16>()?),
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
