//! Reading an etcd snapshot, or a copy of a member's database, without an etcd binary.
//!
//! [`inspect`] reads the file from its beginning to its end: one thread hashes it, another decodes every
//! entry. Then one walks the trees, and another follows the keys. It says which layer is broken and
//! where, what `etcdutl snapshot status` would print, what `HashKV` a server would answer, and what
//! the database says about its cluster.
//!
//! Layers: `trailer` (the SHA-256 at the end), `meta` and `pages` (bbolt), `keys` (etcd). Pages
//! have no checksums of their own: without the trailer a changed byte of a value goes unnoticed,
//! unless the value has a form that is known here.
//!
//! A snapshot that is being received can be looked at as it passes ([`StreamCheck`]); then
//! [`inspect_received`] gives the same report without reading it a second time.
//!
//! Memory does not grow with the file, but for one bit a page and at most 16 bytes a distinct key.

mod batch;
mod buckets;
mod confirm;
mod facts;
mod inspect;
mod key_filter;
mod keys;
mod known_leaf;
mod options;
mod packed;
mod pieces;
mod pipeline;
mod prefixes;
mod read_ordering;
mod record;
mod report;
mod root_buckets;
mod skeleton;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod trailer;
mod walk;

pub use buckets::STANDARD;
pub use facts::{
    Alarm, AliveAt, Auth, BucketFacts, ConfState, CountRule, DatabaseFacts, Downgrade, Member,
    Status,
};
pub use inspect::{
    Copying, Sums, hash_kv, inspect, inspect_and_copy, inspect_received, is_raw_copy,
};
pub use key_filter::{Class, Classify, Collected, KeyFilter, LatestValue};
pub use options::{Options, Progress};
pub use packed::Packed;
pub use prefixes::{PrefixUsage, Usage};
pub(in crate::etcd) use read_ordering::OrderedReads;
pub use report::{LayerState, Report};
pub use skeleton::Room;
pub use stream::StreamCheck;
pub use trailer::{Shape, TRAILER, Trailer};
