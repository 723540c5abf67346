//! What is to be restored, and what was.

use std::path::Path;

use super::target::TargetVersion;
use crate::etcd::build::{Bump, Decision, Evidence};
use crate::etcd::founding::FoundingCluster;
use crate::etcd::hashkv::HashKv;
use crate::etcd::ids::{ClusterId, MemberId};
use crate::etcd::roll::Rolled;
use crate::etcd::segment::{Extended, Extension};
use crate::etcd::snapshot::{Alarm, Report};

/// What is to be made of what.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// The snapshot.
    pub snapshot: &'a Path,
    /// The directory to be made: absent, or there and empty.
    pub data_dir: &'a Path,
    /// The WAL's directory if it is separate; it must not exist.
    pub wal_dir: Option<&'a Path>,
    /// The cluster to be founded.
    pub cluster: &'a FoundingCluster,
    /// Which of its members the directory is for.
    pub me: MemberId,
    /// The revision to restore to, included; none: the snapshot's own.
    pub to_revision: Option<i64>,
    /// The WAL of a member of the same history, whose entries after the snapshot are applied.
    pub roll_forward: Option<Forward<'a>>,
    /// Recorded changes that are applied to the snapshot first.
    pub recorded: Option<Extension<'a>>,
    /// Whether the trailer is not checked, and need not be there.
    pub skip_hash_check: bool,
    /// How the revision is bumped.
    pub bump: Bump,
    /// Whether all below the new revision is marked as compacted.
    pub mark_compacted: bool,
    /// Revisions known besides the snapshot's own.
    pub evidence: &'a [Evidence],
    /// Whether a bump that does not exceed them is allowed.
    pub allow_low_bump: bool,
    /// The release that is to start from it; `None`: the snapshot's own or a later one.
    pub target: Option<TargetVersion>,
    /// Whether versions later than those known here are allowed.
    pub allow_unknown_version: bool,
    /// Whether the database is rewritten, without its free pages.
    pub compact: bool,
    /// Whether etcd's authentication is turned off in the database; its users and roles stay.
    pub authentication_off: bool,
    /// A random number, for hidden names.
    pub tag: u64,
}

impl Spec<'_> {
    /// Whether the database is continued first and then rewritten, so that both need room for a while.
    pub(super) fn grows_and_shrinks(&self) -> bool {
        self.compact && (self.recorded.is_some() || self.roll_forward.is_some())
    }
}

/// The result.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The snapshot, as it was found.
    pub report: Report,
    /// The revision that clients will see first.
    pub revision: i64,
    /// Whether and why the revision was raised.
    pub decision: Decision,
    /// Bytes of the database.
    pub database_size: u64,
    /// Alarms that stay raised.
    pub alarms: Vec<Alarm>,
    /// What else the reader should know.
    pub notes: Vec<String>,
    /// The revision that was restored to, if that is not the snapshot's own.
    pub at: Option<AtRevision>,
    /// What was applied of a WAL.
    pub rolled: Option<Rolled>,
    /// What was applied of recorded changes.
    pub extended: Option<Extended>,
}

/// A WAL to roll forward from.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'a> {
    /// A member's data directory, or its WAL's own.
    pub dir: &'a Path,
    /// The id of the cluster that the snapshot is of, if that is known.
    pub cluster: Option<ClusterId>,
}

/// A revision that was restored to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtRevision {
    /// The revision.
    pub revision: i64,
    /// Keys alive at it.
    pub keys: u64,
    /// HashKV at it: of the snapshot, and the same of the result.
    pub hash_kv: HashKv,
    /// Leases without a key at it.
    pub idle_leases: u64,
    /// Leases that had keys at it, by id, and how many; they were gone at the snapshot's own revision,
    /// and were recreated.
    pub recreated_leases: Vec<(i64, u64)>,
}
