//! `Maintenance.HashKV` computed from the database, without a server.
//!
//! For a requested revision R and a store compacted at C, a server hashes (etcd
//! `server/storage/mvcc/hash.go` and `kvstore.go`):
//!
//! ```text
//! keep = of every user's key the newest revision up to R, unless that one is a tombstone
//! h = crc32c("key")
//! for each entry of the bucket `key`, ascending, with main revision m:
//!     m > R: skip
//!     m <= C, keep is not empty and has not this revision: skip
//!     m == C and the entry is a tombstone: skip            (from 3.4.34 and 3.5.16 on)
//!     h = crc32c(h, key ‖ value)
//! ```
//!
//! Servers before 3.4.34 lack the last rule, which makes a difference only when no key is alive at
//! R: then [`HashKv::hash_before_3_4_34`] is what they return.
//!
//! A server that was asked to compact at exactly R may return a value it kept from before that
//! compaction; its answer then names the compact revision before. Values can be compared only
//! where both have the same compact revision, or where the offline one is computed with the
//! server's ([`At::compacted_at`]).

use serde::Serialize;

use super::crc::CrcSpan;

/// What HashKV is to be computed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct At {
    /// The revision; the current one if none is named.
    pub revision: Option<i64>,
    /// As if the store were compacted at this revision; by default at its own.
    pub compacted_at: Option<i64>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HashKv {
    /// The hash.
    pub hash: u32,
    /// The hash as servers before 3.4.34 and 3.5.16 compute it; differs from `hash` only when no
    /// key is alive.
    pub hash_before_3_4_34: u32,
    /// The revision it was computed at.
    pub revision: i64,
    /// The compact revision it was computed with; −1, as servers say it, if nothing was compacted.
    pub compact_revision: i64,
}

/// Why HashKV has no value at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoHash {
    /// The revision is above the store's current one.
    Future {
        /// What was asked for.
        revision: i64,
        /// The store's.
        current: i64,
    },
    /// The revision is below the compaction's.
    Compacted {
        /// What was asked for.
        revision: i64,
        /// Where the store is compacted.
        compacted_at: i64,
    },
    /// The bucket could not be read whole.
    Unreadable,
}

impl std::fmt::Display for NoHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Future { revision, current } => {
                write!(f, "revision {revision} is above the current one, {current}")
            }
            Self::Compacted {
                revision,
                compacted_at,
            } => write!(f, "revision {revision} is compacted, at {compacted_at}"),
            Self::Unreadable => f.write_str("not all of the key bucket can be read"),
        }
    }
}

/// One entry's part in the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) main: i64,
    pub(crate) tombstone: bool,
    /// Whether it is in `keep`.
    pub(crate) kept: bool,
}

/// The rules for entries that are met newest first.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) revision: i64,
    pub(crate) compacted_at: i64,
    kept: CrcSpan,
    /// The hash for the case that no key turns out to be alive: with the rule for tombstones at
    /// the compaction, and without. Given up with the first key that is.
    none_alive: Option<[CrcSpan; 2]>,
}

impl Rules {
    pub(crate) fn new(revision: i64, compacted_at: i64) -> Self {
        Self {
            revision,
            compacted_at,
            kept: CrcSpan::EMPTY,
            none_alive: Some([CrcSpan::EMPTY; 2]),
        }
    }

    /// Whether an entry is hashed, given that a key is alive.
    pub(crate) fn hashed(&self, part: &Part) -> bool {
        part.main <= self.revision && (part.main > self.compacted_at || part.kept)
    }

    /// Whether it matters how entries are hashed when no key is alive.
    pub(crate) fn none_alive_yet(&self) -> bool {
        self.none_alive.is_some()
    }

    pub(crate) fn some_alive(&mut self) {
        self.none_alive = None;
    }

    /// Takes the run of hashed bytes that comes before all taken so far.
    pub(crate) fn before(&mut self, run: CrcSpan) {
        self.kept = run.then(self.kept);
    }

    /// Takes one entry for the case that no key is alive.
    pub(crate) fn before_none_alive(&mut self, part: &Part, run: CrcSpan) {
        let (revision, compacted_at) = (self.revision, self.compacted_at);
        if let Some([with, without]) = &mut self.none_alive
            && part.main <= revision
        {
            *without = run.then(*without);
            if !(part.main == compacted_at && part.tombstone) {
                *with = run.then(*with);
            }
        }
    }

    /// The hashes, now and before 3.4.34.
    pub(crate) fn finish(&self) -> (u32, u32) {
        let name = CrcSpan::of(b"key");
        let [with, without] = self.none_alive.unwrap_or([self.kept; 2]);
        (name.then(with).crc(), name.then(without).crc())
    }
}
