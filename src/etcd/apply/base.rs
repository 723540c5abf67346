//! What a tail is applied to.

use crate::error::{Fact, Failure, Kind};
use crate::etcd::bbolt::{Meta, ReadAt};
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::etcd::proto::raft::ConfState;
use crate::etcd::snapshot::DatabaseFacts;

/// Bytes of keys and values that a tail may write: they are in memory until the end.
pub(super) const MAX_WRITTEN: usize = 1 << 30;

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
