//! What etcd starts from: a `.snap` file and the WAL after it or, since 3.7, the WAL's own record
//! of the snapshot and the database.
//!
//! etcd writes a `.snap` file in place, and records it in the WAL once it is durable (etcd,
//! `server/storage/storage.go`, `SaveSnap`). So a kill in between leaves an empty or short file
//! that the WAL does not mention. Up to 3.6 a server renames such a file and uses the one before;
//! 3.7 reads no `.snap` files; later releases write none.

use super::facts::DbFacts;
use super::raft_members::RaftMembers;
use super::report::doubt;
use crate::etcd::ids::MemberId;
use crate::etcd::raftsnap::{RaftSnap, SnapFile};
use crate::etcd::wal::{Scan, SnapshotId, Summary, Wal};
use crate::finding::{Finding, Layer, Severity};

/// What a directory's WAL begins with.
pub(super) struct Start<'a> {
    /// The `.snap` file, if one is taken.
    pub(super) chosen: Option<&'a RaftSnap>,
    /// The newest snapshot that the WAL knows to be committed.
    newest: SnapshotId,
    /// Whether etcd reads no `.snap` file.
    without: bool,
}

impl<'a> Start<'a> {
    /// Chooses as etcd does: the newest readable file that the WAL mentions; since 3.7 the newest
    /// snapshot that it mentions, with or without a file.
    pub(super) fn choose(scan: &Scan, snaps: &'a [SnapFile], db: Option<&DbFacts>) -> Self {
        let usable = scan.usable_snapshots();
        let newest = usable.last().copied().unwrap_or_default();
        let without = db.is_some_and(DbFacts::reads_no_snap);
        let mut readable = snaps.iter().filter_map(|file| file.snap.as_ref());
        let known = |snap: &&RaftSnap| match without {
            true => snap.id == newest,
            false => usable.contains(&snap.id),
        };
        let chosen = readable.find(known);
        Self {
            chosen,
            newest,
            without,
        }
    }

    pub(super) fn id(&self) -> Option<SnapshotId> {
        self.chosen.map(|snap| snap.id)
    }

    /// Problems of the `.snap` files. An unreadable one is not damage if the WAL does not mention
    /// it, or if etcd reads none.
    pub(super) fn findings_of(&self, snaps: &[SnapFile], scan: &Scan) -> Vec<Finding> {
        let mut findings = Vec::new();
        for file in snaps {
            let interrupted =
                file.snap.is_none() && !scan.snapshots.contains(&file.name.snapshot());
            for finding in &file.findings {
                let mut finding = finding.clone();
                if finding.severity == Severity::Error && (interrupted || self.without) {
                    finding.severity = Severity::Warning;
                    finding.found.push_str(match self.without {
                        true => "; etcd 3.7 and later do not read it",
                        false => "; the WAL has no record of it: etcd was stopped while it wrote the file, and starts from the previous one",
                    });
                }
                findings.push(finding);
            }
        }
        findings
    }

    /// Up to 3.6 etcd starts from the newest `.snap` file that the WAL knows; without any, from the
    /// WAL's beginning, which is there in young members only.
    pub(super) fn check(&self, wal: &Wal, findings: &mut Vec<Finding>) {
        let newest = self.newest;
        if self.without || self.id().unwrap_or_default() == newest {
            return;
        }
        let expected = format!(
            "a .snap file for the WAL's snapshot {} at term {}",
            newest.index, newest.term
        );
        findings.push(match self.id() {
            Some(older) => doubt(expected, format!("one for {} at most", older.index)),
            None if from_the_beginning(wal) => {
                doubt(expected, "none; the WAL is complete from its first entry")
            }
            None => Finding::error(
                Layer::RaftSnap,
                expected,
                "none that etcd up to 3.6 could start from",
            ),
        });
    }

    /// The members at an index. A mark in the WAL says so since 3.5 only; otherwise the database
    /// tells, which has all changes up to its own index.
    pub(super) fn members_at(
        &self,
        summary: &Summary,
        db: Option<&DbFacts>,
        index: u64,
    ) -> Option<RaftMembers> {
        let base = self
            .chosen
            .map(|snap| &snap.conf_state)
            .or(summary.log.conf_state.as_ref());
        let (mut members, from) = match base {
            Some(state) => (RaftMembers::of(state), 0),
            None if summary.log.start.index == 0 => (RaftMembers::default(), 0),
            None => {
                let db = db.filter(|db| !db.members.is_empty())?;
                (RaftMembers::of_database(db), db.consistent_index)
            }
        };
        let later = summary.log.changes.iter().filter(|c| c.index > from);
        for change in later.filter(|c| c.index <= index) {
            if let Some(change) = &change.change {
                members.apply(change.kind, MemberId(change.node));
            }
        }
        Some(members)
    }
}

/// Whether nothing of the WAL was purged.
pub(super) fn from_the_beginning(wal: &Wal) -> bool {
    wal.segments().first().is_some_and(|s| s.name.index == 0)
}
