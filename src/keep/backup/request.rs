//! What a backup is asked for, and its result.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use crate::backup::manifest::Manifest;
use crate::backup::retention::Rules;
use crate::backup::signature::SigningKey;
use crate::cluster::connect::Target;
use crate::keep::encryption::EncryptedWith;
use crate::keep::prune::Pruned;
use crate::keep::quality::Allowed;
use crate::keep::trust::Trust;

/// What is asked of `backup`.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The node.
    pub target: Target,
    /// The host's own name, for the Manifest.
    pub host: String,
    /// Where the backup goes.
    pub destination: Destination,
    /// Do nothing if the newest good set is younger.
    pub if_older_than: Option<Duration>,
    /// Checks that may fail.
    pub allowed: Allowed,
    /// Whether the members' data are compared.
    pub check_members: bool,
    /// The most bytes per second.
    pub max_rate: Option<NonZeroU64>,
    /// How long nothing may come.
    pub stall_timeout: Duration,
    /// The version the Manifest names.
    pub tool_version: String,
    /// Whether this process is root.
    pub privileged: bool,
    /// Whether the set is pinned from the beginning.
    pub pin: bool,
    /// The URLs of the stores that it is to be copied to afterwards, which are recorded in the backup.
    pub copies: Vec<String>,
    /// What signs the Manifest; none: it is not signed.
    pub sign: Option<Arc<SigningKey>>,
    /// Whose signatures count when the store is pruned.
    pub trust: Trust,
    /// What of the store is to stay once this set is in it; the rest is removed.
    pub keep: Option<Rules>,
}

/// Where a backup goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A store.
    Store(PathBuf),
    /// The node's own store, made if it is missing.
    DefaultStore,
    /// Plain files in a directory, as `cluster-backup.sh` leaves them.
    Flat(PathBuf),
}

/// The result.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A backup was taken.
    Taken(Box<Taken>),
    /// The newest good one is recent enough.
    RecentEnough {
        /// Its name.
        name: String,
        /// Its age.
        age: SignedDuration,
    },
}

/// A backup that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Where it is: the set's directory, or the plain one.
    pub dir: PathBuf,
    /// Its Manifest; with plain files it is not on disk.
    pub manifest: Manifest,
    /// What failed once the set was there.
    pub problems: Vec<String>,
    /// Whether it is a set of a store.
    pub is_set: bool,
    /// Where the time went.
    pub timings: Timings,
    /// The objects that the API server encrypted, by key, and whether the backup can decrypt them.
    pub encrypted: Vec<EncryptedWith>,
    /// Bytes of the snapshot that share their blocks with the set before; `None` if the file
    /// system shares none.
    pub shared: Option<u64>,
    /// What was removed from the store afterwards.
    pub pruned: Option<Pruned>,
}

/// Where a backup's time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// The snapshot streamed, hashed, written and made durable.
    pub snapshot: Duration,
    /// Its file read back from the disk and checked, which nothing waited for in the meantime.
    pub check: Duration,
    /// The archives written, made durable, read back and compared.
    pub archives: Duration,
}
