//! What a tail is applied to.

use std::path::Path;

use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::bbolt::{Meta, ReadAt};
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::etcd::proto::raft::ConfState;
use crate::etcd::snapshot::DatabaseFacts;

/// Bytes of the keys that a tail touches that are held; while they are collected, and of their values, a part of that.
const ROOM: usize = 8 << 20;
/// Bytes of keys and values that a tail may write if they are in memory until the end.
pub(super) const MAX_WRITTEN: usize = 1 << 30;

/// Where goes what does not fit into memory.
#[derive(Debug, Clone, Copy)]
pub struct Spill<'a> {
    /// A folder for scratch files.
    pub dir: &'a Path,
    /// Bytes of the keys that a tail touches that are held: [`ROOM`], less in a test.
    pub room: usize,
}

impl<'a> Spill<'a> {
    /// Holds [`ROOM`], and what is more in a folder.
    pub fn to(dir: &'a Path) -> Self {
        Self { dir, room: ROOM }
    }
}

/// What a tail is applied to.
pub struct Base<'a> {
    /// The database.
    pub database: &'a dyn ReadAt,
    /// Its meta.
    pub meta: &'a Meta,
    /// What it says of itself.
    pub facts: &'a DatabaseFacts,
    /// The members in the `.snap` file that a server would start from; empty if the WAL is complete
    /// from its first entry.
    pub members: &'a [Member],
    /// The ids it has of those removed.
    pub removed: &'a [MemberId],
    /// Raft's configuration in it.
    pub conf_state: Option<&'a ConfState>,
    /// Bounds the memory: what does not fit goes to a folder.
    pub scratch: Option<Spill<'a>>,
    /// Fails after a request to stop.
    pub stop: &'a dyn Fn() -> Result<()>,
    /// Whether members and configuration are those of the database, at its consistent index, since
    /// no `.snap` file tells them.
    pub settled: bool,
}

/// A kind of entry whose effect is not known.
pub(super) fn unknown(index: u64, what: impl std::fmt::Display) -> Failure {
    let what = format!("entry {index} of the WAL is {what}, whose exact effect is not known");
    Failure::new(Kind::Refused, what).with(Fact::Refusal {
        name: "unknown-entry",
        allowable: false,
    })
}
