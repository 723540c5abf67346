//! Applies the tail of a WAL to a database, as a server does when it starts.
//!
//! A server applies each entry after the database's consistent index, in order, once (etcd,
//! `server/etcdserver/server.go` and `apply.go`). Here the same is worked out as a set of
//! [`Changes`]: the bucket `key` only grows at its end, all other buckets are small. What the tail
//! depends on, the newest version of each key that it names or that is in a range it names, is in a
//! table whose memory is bounded ([`touched`]); what it writes goes to a [`Written`] one by one.
//!
//! | entry | effect on the database |
//! | --- | --- |
//! | put, delete range, txn | revisions in `key` |
//! | lease grant, revoke | `lease`; revisions that delete the lease's keys |
//! | lease checkpoint | none up to cluster version 3.5, by etcd's default |
//! | compaction | `scheduledCompactRev`: the server that starts next finishes it |
//! | alarm | `alarm`, and what is refused while NOSPACE is raised |
//! | membership change, member attributes, cluster version, downgrade | `members`, `members_removed`, `cluster`, `confState` |
//! | range, authentication, v2 requests besides | none |
//! | all | `consistent_index`; `term` in a database that has one (since 3.5) |
//!
//! Whatever is not known exactly is refused by name: changes of users and roles and all requests
//! while authentication is on, requests while CORRUPT is raised, requests at which a server would
//! panic, and requests that releases treat differently if no file tells which release wrote the
//! WAL:
//!
//! | entry | up to | from then on |
//! | --- | --- | --- |
//! | nested transaction that puts keys while NOSPACE is raised | 3.5.32, 3.6.13, 3.7.0: applied | refused |
//! | transaction that writes, with its own range at a compacted or future revision | 3.6: refused by the member that answered, applied by all others and at its next start | 3.7, which the cluster version tells: refused |

mod alarms;
mod base;
mod cluster;
mod entries;
mod filter;
mod interest;
mod kept;
mod leases;
mod live;
mod slots;
mod store;
mod touched;
mod written;

pub use self::base::{Base, Spill};
pub(in crate::etcd) use self::leases::encode_lease;
pub use self::written::{Collected, Written};

use self::alarms::Alarms;
use self::base::unknown;
use self::cluster::Cluster;
use self::interest::Interest;
use self::leases::Leases;
use self::store::Store;
use self::touched::Touched;
use crate::error::Result;
use crate::etcd::bbolt::write::{Change, Changes, Edit};
use crate::etcd::membership::Member;
use crate::etcd::mvcc::revision_key;
use crate::etcd::proto::raft::{ConfChange, Entry, EntryKind};
use crate::etcd::proto::request::{RaftRequest, Request, RequestKind};
use crate::etcd::release::Release;
use crate::etcd::wal::{Log, Wal};

/// What a tail comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What changes in the database, apart from the revisions that were written.
    pub changes: Changes,
    /// The key-value revision afterwards.
    pub revision: i64,
    /// How many entries were applied.
    pub entries: u64,
    /// The last one's index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The compaction that the server will finish, if the tail asked for one.
    pub compacted: Option<i64>,
    /// Members afterwards.
    pub members: Vec<Member>,
}

/// Entries read between two looks whether to stop.
const STEP: u64 = 256;

/// Works out what the entries after the database's consistent index change.
///
/// # Errors
/// The refusal `unknown-entry`, not to be allowed, which names the entry; and those of `written`.
pub fn apply<'a>(
    base: &Base<'a>,
    wal: &Wal,
    log: &Log,
    written: &'a mut dyn Written,
) -> Result<Applied> {
    let applied = base.facts.consistent_index.unwrap_or_default();
    if base.facts.auth.enabled {
        return Err(unknown(
            applied.saturating_add(1),
            "for a store with authentication, where users' permissions decide",
        ));
    }
    let mut interest = Interest::new(base.scratch);
    wal.entries(log, applied, |logged| {
        stop(base, logged.entry.index)?;
        if logged.entry.kind == EntryKind::Normal
            && let Request::V3(request) = decode(&logged.entry)?
        {
            interest.add(logged.entry.index, &request)?;
        }
        Ok(())
    })?;
    let leases = Leases::read(base)?;
    let touched = Touched::read(base, interest, &leases)?;
    let store = Store::new(base.facts, touched, written);
    let mut tail = Replay {
        store,
        leases,
        alarms: Alarms::read(base)?,
        cluster: Cluster::read(base)?,
        entries: 0,
        last: None,
    };
    // What was applied before still tells who the members are.
    let from = match base.settled {
        true => applied.max(log.start.index),
        false => log.start.index,
    };
    wal.entries(log, from, |logged| {
        stop(base, logged.entry.index)?;
        tail.entry(&logged.entry, logged.entry.index > applied)
    })?;
    tail.finish(base)
}

fn stop(base: &Base<'_>, index: u64) -> Result<()> {
    match index.is_multiple_of(STEP) {
        true => (base.stop)(),
        false => Ok(()),
    }
}

fn decode<'a>(entry: &Entry<'a>) -> Result<Request<'a>> {
    Request::decode(entry.data)
        .map_err(|cause| unknown(entry.index, format_args!("not a request ({cause})")))
}

/// The state while a tail is applied.
struct Replay<'a> {
    store: Store<'a>,
    leases: Leases,
    alarms: Alarms,
    cluster: Cluster,
    entries: u64,
    last: Option<(u64, u64)>,
}

impl Replay<'_> {
    fn entry(&mut self, entry: &Entry<'_>, now: bool) -> Result<()> {
        let index = entry.index;
        if now {
            self.entries = self.entries.saturating_add(1);
            self.last = Some((index, entry.term));
        }
        match entry.kind {
            EntryKind::Normal => match decode(entry)? {
                Request::Empty => Ok(()),
                Request::V2(request) => self.cluster.v2(index, &request, now),
                Request::V3(request) => self.request(index, &request, now),
            },
            EntryKind::ConfChange => {
                let change = ConfChange::decode(entry.data)
                    .map_err(|cause| unknown(index, format_args!("a change ({cause})")))?;
                self.cluster.change(index, &change, now)
            }
            EntryKind::ConfChangeV2 => Err(unknown(index, "a change of several members")),
            EntryKind::Other(kind) => Err(unknown(index, format_args!("of kind {kind}"))),
        }
    }

    fn request(&mut self, index: u64, request: &RaftRequest<'_>, now: bool) -> Result<()> {
        match request.kind {
            RequestKind::ClusterVersionSet
            | RequestKind::MemberAttributesSet
            | RequestKind::DowngradeSet => return self.cluster.request(index, request, now),
            _ if !now => return Ok(()),
            _ => {}
        }
        self.alarms.check(index)?;
        let full = self.alarms.full();
        let damaged = |cause| unknown(index, format_args!("undecodable ({cause})"));
        match request.kind {
            RequestKind::Put if full => Ok(()),
            RequestKind::Put => self.store.put(index, request.body, &self.leases),
            RequestKind::DeleteRange => self.store.delete(index, request.body),
            RequestKind::Txn => {
                let strict = self.cluster.is_at_least(Release::first(3, 7));
                let leases = &self.leases;
                self.store.txn(index, request.body, leases, full, strict)
            }
            RequestKind::Compaction => self.store.compact(index, request),
            RequestKind::LeaseGrant if full => Ok(()),
            RequestKind::LeaseGrant => self.leases.grant(request.body).map_err(damaged),
            RequestKind::LeaseRevoke => match self.leases.revoke(request.body).map_err(damaged)? {
                Some(lease) => self.store.revoke(lease),
                None => Ok(()),
            },
            RequestKind::LeaseCheckpoint => {
                let version = self.cluster.version();
                self.leases.checkpoint(index, version)
            }
            RequestKind::Alarm => self.alarms.request(index, request.body),
            RequestKind::Range => Ok(()),
            // Requests that change nothing: status, authenticate, get and list of users and roles.
            RequestKind::Auth(1012 | 1013 | 1102 | 1106 | 1107 | 1202) => Ok(()),
            kind => Err(unknown(index, format_args!("{:?}", kind.name()))),
        }
    }

    fn finish(self, base: &Base<'_>) -> Result<Applied> {
        let applied = base.facts.consistent_index.unwrap_or_default();
        let (index, term) = self.last.unwrap_or((applied, base.facts.term.unwrap_or(0)));
        let mut meta = Edit::default();
        let mut put = |key: &str, value: Vec<u8>| {
            meta.put.insert(key.as_bytes().to_vec(), value);
        };
        put("consistent_index", index.to_be_bytes().to_vec());
        // Before 3.5 there is neither; a later release adds them when it has something to add.
        if base.facts.term.is_some() {
            put("term", term.to_be_bytes().to_vec());
            if let Some(state) = self.cluster.conf_state() {
                put("confState", state.into_bytes());
            }
        }
        let compacted = self.store.compacted();
        if let Some(revision) = compacted {
            put("scheduledCompactRev", revision_key(revision));
        }
        let revision = self.store.revision();
        let mut changes = Changes::from([(b"meta".to_vec(), Change::Edit(meta))]);
        changes.insert(b"lease".to_vec(), Change::Edit(self.leases.edit()));
        changes.insert(b"alarm".to_vec(), Change::Edit(self.alarms.edit()));
        let members = self.cluster.members();
        for (bucket, edit) in self.cluster.edits() {
            changes.insert(bucket.as_bytes().to_vec(), Change::Edit(edit));
        }
        Ok(Applied {
            changes,
            revision,
            entries: self.entries,
            index,
            term,
            compacted,
            members,
        })
    }
}
