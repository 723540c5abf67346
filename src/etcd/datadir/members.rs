//! Whether the members in the database are those of raft.
//!
//! Up to 3.5 etcd knows its members from the v2 store, of which the `.snap` file and the WAL are
//! the record, and from 3.6 on from the database. So a fault in the database shows only after an
//! upgrade: a removed member counts again, or a voting member is a learner again (etcd, pull
//! requests 19563 and 20995).
//!
//! Ordinary differences are left out: releases from 3.5.1 to 3.5.19 write a member's name and client
//! URLs to the database once and never again, and every release publishes them at its start.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::facts::DbFacts;
use super::raft_members::RaftMembers;
use super::report::doubt;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::write::small_bucket;
use crate::etcd::bbolt::{FileSource, Meta, Metas, ReadAt};
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::etcd::raftsnap::RaftSnap;
use crate::etcd::snapshot::Downgrade;
use crate::etcd::wal::Summary;
use crate::finding::Finding;

/// The database's members are not raft's.
pub const MEMBERSHIP_DIFFERS: &str = "membership-differs";

/// How often a database that is written to in the meantime is read again.
const ATTEMPTS: u32 = 50;

/// The peer URLs of each member, by `.snap` file and WAL up to an index.
pub(super) fn peer_urls(
    summary: &Summary,
    snap: Option<&RaftSnap>,
    index: u64,
) -> BTreeMap<MemberId, Vec<String>> {
    let store = snap.and_then(|snap| snap.store.as_ref());
    let known = store.into_iter().flat_map(|store| &store.members);
    let mut urls: BTreeMap<MemberId, Vec<String>> = known
        .map(|member| (member.id, member.peer_urls.clone()))
        .collect();
    for logged in summary.log.changes.iter().filter(|c| c.index <= index) {
        if let Some(change) = &logged.change
            && let Ok(member) = Member::from_json(&change.context)
            && !member.peer_urls.is_empty()
            // etcd panics if they differ (`applyConfChange`, server/etcdserver/server.go).
            && member.id.0 == change.node
        {
            urls.insert(member.id, member.peer_urls);
        }
    }
    urls
}

fn list<'a>(ids: impl IntoIterator<Item = &'a MemberId>, db: &DbFacts) -> String {
    let shown = |id: &MemberId| {
        let named = db.members.iter().find(|member| member.id == *id);
        match named.map(|member| member.name.as_str()) {
            Some(name) if !name.is_empty() => format!("{id} ({name})"),
            _ => id.to_string(),
        }
    };
    let ids: Vec<String> = ids.into_iter().map(shown).collect();
    ids.join(", ")
}

/// All that differs and matters.
pub(super) fn differences(
    raft: &RaftMembers,
    urls: &BTreeMap<MemberId, Vec<String>>,
    db: &DbFacts,
) -> Vec<Finding> {
    let in_db: BTreeSet<MemberId> = db.members.iter().map(|member| member.id).collect();
    let in_raft = raft.ids();
    let removed: BTreeSet<MemberId> = db.removed.iter().copied().collect();
    let learns = |member: &&Member| member.is_learner && raft.voters.contains(&member.id);
    let unpromoted: Vec<&MemberId> = db.members.iter().filter(learns).map(|m| &m.id).collect();
    let votes = |member: &&Member| !member.is_learner && raft.learners.contains(&member.id);
    let promoted: Vec<&MemberId> = db.members.iter().filter(votes).map(|m| &m.id).collect();
    let mut found = Vec::new();
    let mut tell = |ids: Vec<&MemberId>,
                    expected: &dyn Fn(String) -> String,
                    what: &dyn Fn(String) -> String| {
        if !ids.is_empty() {
            let shown = list(ids, db);
            let finding = doubt(expected(shown.clone()), what(shown));
            found.push(finding.named(MEMBERSHIP_DIFFERS));
        }
    };
    tell(
        in_db.difference(&in_raft).collect(),
        &|_| "only raft's members in the database".to_owned(),
        &|ids| format!("also {ids}, which etcd 3.6 and later count as members"),
    );
    tell(
        in_raft.difference(&in_db).collect(),
        &|ids| format!("raft's member {ids} in the database"),
        &|_| "none, and etcd 3.6 and later do not start".to_owned(),
    );
    tell(
        in_db.intersection(&removed).collect(),
        &|_| "no removed member among the members".to_owned(),
        &|ids| format!("{ids} in both lists of the database"),
    );
    tell(
        unpromoted,
        &|ids| format!("{ids} as a voting member in the database"),
        &|_| "a learner, and etcd 3.6 and later treat it as one".to_owned(),
    );
    tell(
        promoted,
        &|ids| format!("{ids} as a learner in the database"),
        &|_| "a voting member".to_owned(),
    );
    found.extend(other_urls(raft, urls, db));
    found
}

/// Members whose peer URLs in the database differ from raft's record.
fn other_urls(
    raft: &RaftMembers,
    urls: &BTreeMap<MemberId, Vec<String>>,
    db: &DbFacts,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for member in db.members.iter().filter(|m| raft.contains(m.id)) {
        let recorded = urls.get(&member.id);
        if let Some(recorded) = recorded.filter(|urls| **urls != member.peer_urls) {
            let id = list([&member.id], db);
            let finding = doubt(
                format!(
                    "the peer URLs {} of {id} in the database",
                    recorded.join(",")
                ),
                format!(
                    "{}, which etcd 3.6 and later use",
                    member.peer_urls.join(",")
                ),
            );
            found.push(finding.named(MEMBERSHIP_DIFFERS));
        }
    }
    found
}

/// The members in a database, even if a running etcd writes to it: the pages that a meta page leads
/// to do not change until the next transaction but one, and a meta that is the same afterwards
/// proves that there was none.
///
/// # Errors
/// [`Kind::NotChecked`] if it cannot be read, or changes too often.
pub fn stored(path: &Path) -> Result<DbFacts> {
    let doing = || format!("reading {}", path.display());
    let file = FileSource::open(path).doing(Kind::NotChecked, doing)?;
    for _ in 0..ATTEMPTS {
        let Some(before) = meta(&file, path)? else {
            break;
        };
        let read = facts_of(&file, file.size(), &before);
        if meta(&file, path)?.is_some_and(|after| after.txid == before.txid) {
            return read.map_err(|failure| failure.as_kind(Kind::NotChecked).doing(doing()));
        }
    }
    Err(Failure::new(
        Kind::NotChecked,
        "it changes too fast, or is not a database",
    )
    .doing(doing()))
}

fn meta(file: &FileSource, path: &Path) -> Result<Option<Meta>> {
    let metas = Metas::of_file(file, file.size());
    let metas = metas.doing(Kind::NotChecked, || format!("reading {}", path.display()))?;
    Ok(metas.map(|metas| metas.chosen))
}

/// The members in a database, in the state that a meta page leads to.
///
/// # Errors
/// As of [`small_bucket`], and for a member that is no JSON.
pub fn facts_of(source: &dyn ReadAt, size: u64, meta: &Meta) -> Result<DbFacts> {
    let bucket = |name: &str| small_bucket(source, size, meta, name.as_bytes());
    let entries = bucket("meta")?;
    let value = |name: &str| {
        let mut entries = entries.iter();
        entries
            .find(|(key, _)| key == name.as_bytes())
            .map(|(_, value)| value.as_slice())
    };
    let number = |name: &str| value(name).and_then(|v| v.try_into().ok().map(u64::from_be_bytes));
    let members = bucket("members")?;
    let members = members
        .iter()
        .map(|(_, json)| Member::from_json(json))
        .collect::<std::result::Result<_, _>>();
    let removed = bucket("members_removed")?;
    let removed = removed
        .iter()
        .filter_map(|(key, _)| MemberId::from_hex(std::str::from_utf8(key).ok()?));
    let cluster = bucket("cluster")?;
    let downgrade = cluster.iter().find(|(key, _)| key == b"downgrade");
    let downgrade = downgrade.and_then(|(_, json)| serde_json::from_slice::<Downgrade>(json).ok());
    let downgrade = downgrade.filter(|downgrade| downgrade.enabled);
    Ok(DbFacts {
        downgrade: downgrade.map(|downgrade| downgrade.target_version),
        consistent_index: number("consistent_index").unwrap_or(0),
        term: number("term"),
        members: members.doing(Kind::Unexpected, || "reading the members")?,
        removed: removed.collect(),
        storage_version: value("storageVersion")
            .map(|version| String::from_utf8_lossy(version).into_owned()),
    })
}
