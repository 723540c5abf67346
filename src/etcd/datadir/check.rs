//! Checks each file of a data directory, and whether all agree.

use std::collections::BTreeMap;
use std::fs;

use super::facts::DbFacts;
use super::layout::Layout;
use super::members;
use super::raft_members::RaftMembers;
use super::report::{Beyond, Report, agreement, doubt};
use super::start::Start;
use crate::error::{Doing, Kind, Result};
use crate::etcd::ids::MemberId;
use crate::etcd::proto::raft::EntryKind;
use crate::etcd::proto::request::Request;
use crate::etcd::raftsnap::{self, SnapFile};
use crate::etcd::wal::{Summary, Wal};
use crate::finding::Finding;

/// Checks the files of a data directory and, with the database's facts, whether all agree. Changes
/// nothing.
pub fn check(layout: &Layout, db: Option<&DbFacts>) -> Result<Report> {
    let wal = Wal::list(&layout.wal)?;
    let locks = layout.locks_with(&wal);
    let scan = wal.scan()?;
    let snaps = raftsnap::list(&layout.snap)?
        .into_iter()
        .map(|name| SnapFile::read(&layout.snap, name))
        .collect::<Result<Vec<_>>>()?;
    let begun = Start::choose(&scan, &snaps, db);
    let start = begun.id();
    let summary = wal.summary_of(scan, start)?;

    let mut findings = summary.findings.clone();
    findings.extend(begun.findings_of(&snaps, &summary.scan));
    if summary.scan.end.is_some() {
        begun.check(&wal, &mut findings);
    }
    let up_to = db.map_or(u64::MAX, |db| db.consistent_index);
    let raft_members = begun.members_at(&summary, db, up_to);
    let committed_members = begun.members_at(&summary, db, summary.hard_state().commit);
    let last_members = begun.members_at(&summary, db, u64::MAX);
    let nobody = |members: &RaftMembers| members.voters.is_empty();
    if committed_members.as_ref().is_some_and(nobody) && !summary.is_corrupt() {
        findings.push(doubt(
            "a committed membership in the WAL",
            "none: the member has only just joined, and etcd waits for a leader to send it",
        ));
    }
    let leftovers = leftovers(layout, &wal)?;
    let mut beyond = None;
    if let Some(db) = db {
        check_indexes(&summary, db, &leftovers, &mut findings);
        if let Some(raft_members) = &raft_members {
            let urls = members::peer_urls(&summary, begun.chosen, db.consistent_index);
            findings.extend(members::differences(raft_members, &urls, db));
        }
        beyond = Some(beyond_database(&wal, &summary, db)?);
    }
    if let Some(raft_members) = &raft_members {
        check_self(&summary, raft_members, &mut findings);
    }
    Ok(Report {
        locks,
        start,
        last_members,
        raft_members,
        committed_members,
        beyond,
        leftovers,
        findings,
        snaps,
        wal: summary,
    })
}

/// Files that etcd leaves behind: databases from a leader, interrupted defragmentations, repaired
/// or refused files.
fn leftovers(layout: &Layout, wal: &Wal) -> Result<Vec<String>> {
    let doing = || format!("listing {}", layout.snap.display());
    let mut left: Vec<String> = wal
        .others()
        .iter()
        .filter(|name| name.ends_with(".broken"))
        .cloned()
        .collect();
    for entry in fs::read_dir(&layout.snap).doing(Kind::NotChecked, doing)? {
        let name = entry.doing(Kind::NotChecked, doing)?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".snap.db") || name.ends_with(".broken") || name.starts_with("db.tmp.") {
            left.push(name.into_owned());
        }
    }
    left.sort();
    Ok(left)
}

fn check_indexes(
    summary: &Summary,
    db: &DbFacts,
    leftovers: &[String],
    findings: &mut Vec<Finding>,
) {
    let applied = db.consistent_index;
    let start = summary.log.start.index;
    let last = summary.last_entry();
    if applied < start {
        let received = format!("{start:016x}.snap.db");
        let expected = format!("a consistent index of at least {start}, the WAL's snapshot");
        findings.push(if leftovers.contains(&received) {
            doubt(expected, format!("{applied}; etcd uses {received} instead"))
        } else {
            agreement(expected, applied.to_string())
        });
    }
    // Of a damaged WAL the end is not known.
    let log_is_whole = !summary.is_corrupt() && summary.log.findings.is_empty();
    if applied > last.index && log_is_whole {
        findings.push(agreement(
            format!("a WAL that reaches the consistent index {applied}"),
            format!(
                "its last entry at {}; etcd would treat the next {} writes as already applied",
                last.index,
                applied.saturating_sub(last.index)
            ),
        ));
    }
    let Some(term) = db.term else { return };
    // A restore by etcdctl 3.4 leaves the old cluster's term in the database.
    let state = summary.hard_state();
    if term > state.term && log_is_whole {
        findings.push(doubt(
            format!("a database of at most term {}", state.term),
            format!("term {term}"),
        ));
    } else if let Some(expected) = summary.log.term_of(applied)
        && expected != term
    {
        findings.push(doubt(
            format!("term {expected}, as in the WAL at the consistent index {applied}"),
            format!("term {term} in the database"),
        ));
    }
}

fn check_self(summary: &Summary, raft: &RaftMembers, findings: &mut Vec<Finding>) {
    let Some(metadata) = summary.scan.metadata else {
        return;
    };
    let me = MemberId(metadata.node);
    if !raft.ids().is_empty() && !raft.contains(me) {
        findings.push(doubt(
            format!("the WAL's own member {me} in the membership"),
            "only other members: it was removed, or has not joined yet",
        ));
    }
}

fn beyond_database(wal: &Wal, summary: &Summary, db: &DbFacts) -> Result<Beyond> {
    let mut beyond = Beyond {
        tail: summary.tail_after(db.consistent_index),
        kinds: BTreeMap::new(),
        key_writes: 0,
    };
    wal.entries(&summary.log, db.consistent_index, |logged| {
        let kind = match logged.entry.kind {
            EntryKind::Normal => match Request::decode(logged.entry.data) {
                Ok(request) => {
                    if let Request::V3(request) = request
                        && request.kind.writes_keys()
                    {
                        beyond.key_writes = beyond.key_writes.saturating_add(1);
                    }
                    request.name()
                }
                Err(_) => "undecodable",
            },
            EntryKind::ConfChange | EntryKind::ConfChangeV2 => "membership change",
            EntryKind::Other(_) => "undecodable",
        };
        let count = beyond.kinds.entry(kind).or_default();
        *count = count.saturating_add(1);
        Ok(())
    })?;
    Ok(beyond)
}
