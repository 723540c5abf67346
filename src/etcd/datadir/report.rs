//! What a look at a data directory tells.

use std::collections::BTreeMap;

use super::facts::DbFacts;
use super::locks::Locks;
use super::raft_members::RaftMembers;
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::etcd::raftsnap::SnapFile;
use crate::etcd::wal::{SnapshotId, Summary, Tail};
use crate::finding::{Finding, Layer};

/// What the WAL holds beyond the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    /// How many entries.
    pub tail: Tail,
    /// How many of each kind of request.
    pub kinds: BTreeMap<&'static str, u64>,
    /// How many of them can make a new key-value revision.
    pub key_writes: u64,
}

/// What a look at a data directory tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether etcd runs on it; then all else is a moment's view.
    pub locks: Locks,
    /// The WAL.
    pub wal: Summary,
    /// The `.snap` files, newest first.
    pub snaps: Vec<SnapFile>,
    /// The snapshot that etcd up to 3.6 would start from, if any `.snap` file is usable.
    pub start: Option<SnapshotId>,
    /// The members as raft knows them at the database's consistent index, or at the end of the
    /// WAL without database facts; `None` if nothing tells whom it began with.
    pub raft_members: Option<RaftMembers>,
    /// The same at the last index known to be committed.
    pub committed_members: Option<RaftMembers>,
    /// The same at the end of the WAL, whether committed or not.
    pub last_members: Option<RaftMembers>,
    /// WAL entries beyond the database; `None` without database facts.
    pub beyond: Option<Beyond>,
    /// Other files next to the database: `*.snap.db`, `db.tmp.*`, `*.broken`.
    pub leftovers: Vec<String>,
    /// Everything that is wrong, in the layers WAL, `.snap` and agreement.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Where a WAL that is written from this one begins: with the `.snap` file, or at the WAL's own
    /// beginning, or with the snapshot that the WAL has a record of.
    pub fn log_begins(&self) -> SnapshotId {
        let whole = self.wal.scan.segments.first();
        match self.start {
            Some(start) => start,
            None if whole.is_some_and(|segment| segment.name.index == 0) => SnapshotId::default(),
            None => self.wal.log.start,
        }
    }

    /// Whether there is no `.snap` file to go with [`Report::log_begins`], so that members and the
    /// rest are known from the database alone.
    pub fn lacks_snap(&self) -> bool {
        self.start.is_none() && self.log_begins().index > 0
    }

    /// The members at the end of the WAL, with what database, `.snap` file and WAL tell of each;
    /// `None` if the members that the WAL began with are unknown.
    pub fn membership(&self, db: Option<&DbFacts>) -> Option<Vec<Member>> {
        let last = self.last_members.as_ref()?;
        let mut known: BTreeMap<MemberId, Member> = BTreeMap::new();
        let start = self.snaps.iter().filter_map(|file| file.snap.as_ref());
        let start = start.filter(|snap| Some(snap.id) == self.start);
        let stored = start.filter_map(|snap| snap.store.as_ref());
        let stored = stored.flat_map(|store| &store.members);
        for member in stored.chain(db.iter().flat_map(|db| &db.members)) {
            known.insert(member.id, member.clone());
        }
        let applied = db.map_or(0, |db| db.consistent_index);
        for logged in self.wal.log.changes.iter().filter(|c| c.index > applied) {
            // A promotion or a removal tells less than is known already.
            if let Some(change) = &logged.change
                && let Ok(member) = Member::from_json(&change.context)
                && !member.peer_urls.is_empty()
                && member.id.0 == change.node
            {
                let name = known.get(&member.id).map(|known| known.name.clone());
                let known = known.entry(member.id).or_insert_with(|| member.clone());
                known.peer_urls = member.peer_urls;
                known.name = name.unwrap_or(member.name);
            }
        }
        let mut member = |id: MemberId| Member {
            is_learner: last.learners.contains(&id),
            ..known.remove(&id).unwrap_or(Member {
                id,
                name: String::new(),
                peer_urls: Vec::new(),
                client_urls: Vec::new(),
                is_learner: false,
            })
        };
        Some(last.ids().into_iter().map(&mut member).collect())
    }
}

pub(super) fn agreement(expected: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding::error(Layer::Agreement, expected, found)
}

pub(super) fn doubt(expected: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding::warning(Layer::Agreement, expected, found)
}
