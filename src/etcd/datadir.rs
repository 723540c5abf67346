//! A member's data directory as a whole: do database, WAL and `.snap` files agree, and does a
//! running etcd hold them?
//!
//! ```text
//! member/snap/db              the database (bbolt)
//! member/snap/<t>-<i>.snap    raft snapshots; <i>.snap.db is a database received from a leader
//! member/wal/<s>-<i>.wal      the write-ahead log; or in a directory of its own
//! ```
//!
//! With S the snapshot that etcd starts from, L the last entry and *ci* the database's consistent
//! index, a sound directory has S ≤ *ci* ≤ L: below S the database lacks what the log no longer
//! has, and beyond L etcd would skip new entries as applied already (etcd,
//! `server/etcdserver/server.go` and `cindex`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Kind, Result};
use crate::etcd::finding::{Finding, Layer};
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::etcd::raftsnap::{self, SnapFile};
use crate::etcd::release::Release;
use crate::etcd::snapshot::DatabaseFacts;
use crate::etcd::wal::{SnapshotId, Summary, Tail, Wal};
use crate::etcd::wire::raft::{ConfChangeKind, ConfState, EntryKind};
use crate::etcd::wire::request::Request;

mod entries;
mod holders;
mod locks;
mod members;
mod start;

use self::start::Start;

pub use entries::{Foreign, foreign_entries};
pub use holders::{Holder, holders};
pub use locks::{Held, LockState, Locks};
pub use members::{MEMBERSHIP_DIFFERS, facts_of, stored};

/// Where the parts of a data directory are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `member/snap`.
    pub snap: PathBuf,
    /// The WAL's directory.
    pub wal: PathBuf,
}

/// More entries of a folder are not looked at for data directories.
const MAX_LOOKED: usize = 1_000;

/// What to say of a folder that is not a data directory, and where the data directory is that may be
/// meant: below it, as where etcd was started in it without `--data-dir`, or above.
pub fn not_a_data_dir(dir: &Path) -> String {
    let is = |dir: &Path| dir.join("member").join("snap").is_dir();
    let below = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut meant: Vec<PathBuf> = below
        .take(MAX_LOOKED)
        .map(|entry| entry.path())
        .chain(dir.ancestors().skip(1).take(2).map(Path::to_owned))
        .filter(|path| is(path))
        .collect();
    meant.sort();
    let what = format!(
        "{} is not a data directory: it has no member/snap",
        dir.display()
    );
    match meant.as_slice() {
        [] => what,
        found => {
            let found: Vec<String> = found
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            format!(
                "{what}; use the directory that has it: {}",
                found.join(" or ")
            )
        }
    }
}

impl Layout {
    /// The layout below a data directory, the WAL's own directory given or not.
    pub fn new(data_dir: &Path, wal_dir: Option<&Path>) -> Self {
        let member = data_dir.join("member");
        Self {
            snap: member.join("snap"),
            wal: wal_dir.map_or_else(|| member.join("wal"), Path::to_owned),
        }
    }

    /// The database.
    pub fn db(&self) -> PathBuf {
        self.snap.join("db")
    }

    /// Asks whether a running etcd holds the directory; touches nothing.
    pub fn locks(&self) -> Result<Locks> {
        let there = fs::exists(&self.wal).doing(Kind::NotChecked, || {
            format!("looking at {}", self.wal.display())
        })?;
        let wal = match there {
            true => Wal::list(&self.wal)?,
            false => Wal::default(),
        };
        Ok(self.locks_with(&wal))
    }

    /// Keeps an etcd from starting on the directory as long as what comes back lives, by a shared
    /// lock on the database, which etcd opens first; `None` where one runs. Writes nothing.
    ///
    /// # Errors
    /// [`Kind::NotChecked`] where the database cannot be opened or locked.
    pub fn hold(&self) -> Result<Option<Held>> {
        let held = Held::take(&self.db())?;
        Ok(held.filter(|_| !matches!(self.locks(), Ok(locks) if locks.wal == LockState::Held)))
    }

    fn locks_with(&self, wal: &Wal) -> Locks {
        let newest = wal.segments().last();
        Locks {
            db: locks::of_database(&self.db()),
            wal: newest.map_or(LockState::Absent, |segment| {
                locks::of_segment(&self.wal.join(segment.name.to_string()))
            }),
        }
    }
}

/// What the database says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DbFacts {
    /// `meta/consistent_index`; 0 if absent.
    pub consistent_index: u64,
    /// `meta/term`: since 3.5.
    pub term: Option<u64>,
    /// The bucket `members`.
    pub members: Vec<Member>,
    /// The bucket `members_removed`.
    pub removed: Vec<MemberId>,
    /// `meta/storageVersion`: since 3.6.
    pub storage_version: Option<String>,
    /// The release that a downgrade leads to, while one is enabled.
    pub downgrade: Option<String>,
}

impl DbFacts {
    /// Whether the etcd that this database is of reads no `.snap` file: from 3.7 on.
    pub fn reads_no_snap(&self) -> bool {
        let version = self.storage_version.as_deref();
        let version = version.and_then(|text| text.parse::<Release>().ok());
        version.is_some_and(|version| version >= Release::first(3, 7))
    }

    /// What matters here of all that a database says.
    pub fn of(facts: &DatabaseFacts) -> Self {
        let member = |member: &crate::etcd::snapshot::Member| Member {
            id: MemberId(member.id),
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            is_learner: member.is_learner,
        };
        Self {
            consistent_index: facts.consistent_index.unwrap_or_default(),
            term: facts.term,
            members: facts.members.iter().map(member).collect(),
            removed: facts
                .members_removed
                .iter()
                .filter_map(|id| MemberId::from_hex(id))
                .collect(),
            storage_version: facts.storage_version.clone(),
            downgrade: facts
                .downgrade
                .as_ref()
                .filter(|downgrade| downgrade.enabled)
                .map(|downgrade| downgrade.target_version.clone()),
        }
    }
}

/// What the log holds beyond the database.
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
    /// The log.
    pub wal: Summary,
    /// The `.snap` files, newest first.
    pub snaps: Vec<SnapFile>,
    /// The snapshot that etcd up to 3.6 would start from, if any `.snap` file is usable.
    pub start: Option<SnapshotId>,
    /// The members as raft knows them at the database's consistent index, or at the end of the
    /// log without database facts; `None` where nothing tells whom it began with.
    pub raft_members: Option<RaftMembers>,
    /// The same at the last index known to be committed.
    pub committed_members: Option<RaftMembers>,
    /// The same at the end of the log, whether committed or not.
    pub last_members: Option<RaftMembers>,
    /// What the log holds beyond the database; `None` without database facts.
    pub beyond: Option<Beyond>,
    /// Other files beside the database: `*.snap.db`, `db.tmp.*`, `*.broken`.
    pub leftovers: Vec<String>,
    /// Everything that is wrong, in the layers WAL, `.snap` and agreement.
    pub findings: Vec<Finding>,
}

/// Ids of voters and learners.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RaftMembers {
    /// Members that vote.
    pub voters: BTreeSet<MemberId>,
    /// Members that only follow.
    pub learners: BTreeSet<MemberId>,
}

impl RaftMembers {
    pub(super) fn of(state: &ConfState) -> Self {
        let ids = |list: &[u64]| list.iter().copied().map(MemberId).collect();
        Self {
            voters: ids(&state.voters),
            learners: ids(&state.learners),
        }
    }

    fn of_database(db: &DbFacts) -> Self {
        let of = |learner: bool| {
            let members = db.members.iter();
            let of = members.filter(|member| member.is_learner == learner);
            of.map(|member| member.id).collect()
        };
        Self {
            voters: of(false),
            learners: of(true),
        }
    }

    /// The same as a log and a `.snap` file have it.
    pub(super) fn conf_state(&self) -> ConfState {
        let ids = |members: &BTreeSet<MemberId>| members.iter().map(|id| id.0).collect();
        ConfState {
            voters: ids(&self.voters),
            learners: ids(&self.learners),
            ..ConfState::default()
        }
    }

    pub(super) fn apply(&mut self, kind: ConfChangeKind, id: MemberId) {
        match kind {
            ConfChangeKind::AddNode => {
                self.learners.remove(&id);
                self.voters.insert(id);
            }
            ConfChangeKind::AddLearnerNode => {
                self.voters.remove(&id);
                self.learners.insert(id);
            }
            ConfChangeKind::RemoveNode => {
                self.voters.remove(&id);
                self.learners.remove(&id);
            }
            ConfChangeKind::UpdateNode | ConfChangeKind::Other(_) => {}
        }
    }

    /// Whether it is a member of either kind.
    pub fn contains(&self, id: MemberId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// All ids.
    pub fn ids(&self) -> BTreeSet<MemberId> {
        self.voters.union(&self.learners).copied().collect()
    }
}

impl Report {
    /// Where a log that is written from this one begins: with the `.snap` file, or at the log's own
    /// beginning, or with the snapshot that the log has a record of.
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

    /// The members at the end of the log, with what database, `.snap` file and log tell of each;
    /// `None` where the members that the WAL began with are unknown.
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
            // A promotion or a removal tells less than what is known already.
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

/// Looks at a data directory: the files' own soundness, and with the database's facts whether all
/// agree. Changes nothing.
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

fn agreement(expected: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding::error(Layer::Agreement, expected, found)
}

fn doubt(expected: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding::warning(Layer::Agreement, expected, found)
}

/// What etcd leaves lying about: databases from a leader, interrupted defragmentations, repaired
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
    // Of a damaged log the end is not known.
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

#[cfg(test)]
mod tests;
