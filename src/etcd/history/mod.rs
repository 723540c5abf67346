//! The history inside a database: every revision from the last compaction to the current one.
//!
//! etcd keeps all versions of all keys until a compaction, and Kubernetes' API server compacts every
//! five minutes to where the store was five minutes before. So a backup holds the last five to ten
//! minutes write by write, whoever took it. Without the entries of the bucket `key` above revision R,
//! the store is exactly what it was at R.
//!
//! | what | where |
//! | --- | --- |
//! | which revisions can be reached, and the changes between them | [`History`] |
//! | whose key it is: resource, namespace, name | [`ObjectKey`] |
//! | when a revision was written, by the clocks in the objects | [`Clock`] |
//! | the revision that an operator means | [`Target`], [`Moment`] |
//! | what a restore to a revision undoes | [`Undone`] |
//! | what happened, in groups | [`log`] |
//!
//! etcd stores no times. Kubernetes' objects do: a node renews its Lease every ten seconds, leader
//! elections every two, and objects say when they were created and last managed.

mod clock;
pub mod log;
mod object;
mod read;
mod stored;
mod target;
mod undone;

pub use clock::{Clock, ClockSource, Moments};
pub use object::ObjectKey;
pub use read::{Change, History, Put, Span};
pub use target::{Moment, Reach, Target, UNREACHABLE, moments, revision_since};
pub use undone::{Tally, Undone, UndoneGroup};
