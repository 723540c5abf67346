//! A member's data directory as a whole: do database, WAL and `.snap` files agree, and does a
//! running etcd hold them?
//!
//! ```text
//! member/snap/db              the database (bbolt)
//! member/snap/<t>-<i>.snap    raft snapshots; <i>.snap.db is a database received from a leader
//! member/wal/<s>-<i>.wal      the write-ahead log; or in its own directory
//! ```
//!
//! With S the snapshot that etcd starts from, L the last entry and *ci* the database's consistent
//! index, a sound directory has S ≤ *ci* ≤ L: below S the database lacks what the WAL no longer
//! has, and beyond L etcd would skip new entries as applied already (etcd,
//! `server/etcdserver/server.go` and `cindex`).

mod check;
mod entries;
mod facts;
mod holders;
mod layout;
mod locks;
mod members;
mod raft_members;
mod report;
mod start;
#[cfg(test)]
mod tests;

pub use check::check;
pub use entries::{Foreign, foreign_entries};
pub use facts::DbFacts;
pub use holders::{Holder, holders, is_held};
pub use layout::{Layout, not_a_data_dir};
pub use locks::{Held, LockState, Locks};
pub use members::{MEMBERSHIP_DIFFERS, facts_of, stored};
pub use raft_members::RaftMembers;
pub use report::{Beyond, Report};
