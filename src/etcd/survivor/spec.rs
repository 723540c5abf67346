//! What to make from a surviving member's disk, and what was made.

use std::path::Path;

use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::build::{Bump, Decision, Evidence};
use crate::etcd::datadir::Layout;
use crate::etcd::ids::{ClusterId, PeerUrls};
use crate::etcd::membership::Member;
use crate::etcd::snapshot::DatabaseFacts;
use crate::etcd::wal::{LastEntry, Tail};

/// What is to be made of what.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// The stopped member's files; they are read only.
    pub source: &'a Layout,
    /// The directory to be made: absent, or there and empty.
    pub data_dir: &'a Path,
    /// The WAL's directory if it is separate; it must not exist.
    pub wal_dir: Option<&'a Path>,
    /// The new cluster's id, random.
    pub cluster_id: ClusterId,
    /// The name of the member whose disk it must be, if known.
    pub name: Option<&'a str>,
    /// The member's own peer URLs where they have changed.
    pub peer_urls: Option<&'a PeerUrls>,
    /// How the revision is bumped, for which the tail is applied here; without it etcd applies the
    /// tail when it starts.
    pub raise: Option<Raise<'a>>,
    /// A random number, for hidden names.
    pub tag: u64,
}

/// How the revision is bumped.
#[derive(Debug, Clone, Copy)]
pub struct Raise<'a> {
    /// By how much.
    pub bump: Bump,
    /// Whether all below the new revision is marked as compacted.
    pub mark_compacted: bool,
    /// Revisions known besides the disk's own.
    pub evidence: &'a [Evidence],
    /// Whether a bump that does not exceed them is allowed.
    pub allow_low: bool,
}

/// The result.
#[derive(Debug, Clone)]
pub struct Survivor {
    /// The member that is left, as the new cluster knows it.
    pub member: Member,
    /// The cluster it was of.
    pub former_cluster: ClusterId,
    /// Those that are members no more.
    pub removed: Vec<Member>,
    /// The last entry of the source's WAL.
    pub source_end: LastEntry,
    /// The last entry of the new one.
    pub end: LastEntry,
    /// Entries of the source's WAL beyond its database.
    pub tail: Tail,
    /// How many of them can make a new key-value revision.
    pub key_writes: u64,
    /// Whether the WAL ended in a torn write, which is left out.
    pub torn: bool,
    /// What is wrong with `.snap` files, none of which is needed.
    pub snaps: Vec<String>,
    /// What the database says that was made.
    pub facts: DatabaseFacts,
    /// How many entries were applied to it, and the revision they led to; `None` if etcd is to.
    pub applied: Option<(u64, i64)>,
    /// Whether and why the revision was raised; `None` if etcd applies the tail.
    pub decision: Option<Decision>,
    /// Bytes of the database.
    pub database_size: u64,
}

pub(super) fn refuse(name: &'static str, what: impl Into<String>) -> Failure {
    Failure::new(Kind::Refused, what.into()).with(Fact::Refusal {
        name,
        allowable: false,
    })
}

/// Wraps a failure to write a file.
pub(super) fn writing<T>(path: &Path, result: std::io::Result<T>) -> Result<T> {
    result.doing(Kind::Store, || format!("writing {}", path.display()))
}
