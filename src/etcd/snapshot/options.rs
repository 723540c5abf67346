//! What an inspection is asked for, and how far it is.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::key_filter::KeyFilter;
use crate::etcd::hashkv::At;
use crate::finding::DEFAULT_KEPT;

/// Of the 64 MiB that an inspection may use, what the program and the table of keys leave.
const REMEMBER: usize = 24 << 20;

/// What an inspection is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether to hash the file and compare with the trailer.
    pub trailer: bool,
    /// What to compute HashKV for. If it names a revision, the report also says which keys were alive
    /// then.
    pub hash_kv: At,
    /// Whether HashKV is computed with the database's own compaction, too. A revision that a restore
    /// has bumped is marked as compacted, but every entry is there until a server starts.
    pub own_compaction: bool,
    /// Keys whose latest values the caller wants.
    pub wanted: KeyFilter,
    /// Prefixes to list.
    pub prefixes: usize,
    /// Findings of each severity to list for each layer.
    pub findings: usize,
    /// Bytes of memory for what is remembered of pages while the file is hashed; the walk reads the others
    /// again. With none it begins at once.
    pub remember: usize,
    /// Keys the hash that tells users' keys apart: unpredictable for whoever made the file.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trailer: true,
            hash_kv: At::default(),
            own_compaction: true,
            wanted: KeyFilter::default(),
            prefixes: 20,
            findings: DEFAULT_KEPT,
            remember: REMEMBER,
            seed: RandomState::new().hash_one(0u8),
        }
    }
}

/// How far an inspection is. Both counts go up to about `size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes hashed.
    pub hashed: u64,
    /// Bytes of pages walked; free pages are not.
    pub walked: u64,
    /// Bytes of the file.
    pub size: u64,
}
