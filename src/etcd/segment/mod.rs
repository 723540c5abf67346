//! Recorded changes: everything that was written between two backups, as sealed segments.
//!
//! A recorder watches the whole key space and seals what arrived into a file that never changes. The
//! records of a segment are the entries that etcd has in the bucket `key`, byte for byte: a watch of the
//! whole key space gives every field of a value, and the changes of a transaction in the order of their
//! sub revisions (etcd, `server/storage/mvcc/watchable_store_txn.go`). So a backup's database with the
//! records behind its last entry is the database of the later revision.
//!
//! A main revision is given to a transaction that changes something and to nothing else (etcd,
//! `server/storage/mvcc/kvstore_txn.go`, `End`). So the revisions of a segment are contiguous, and a
//! hole proves that events were lost.
//!
//! | what | where |
//! | --- | --- |
//! | the file: header, records, leases, hash | [`Segment`], [`Header`] |
//! | from events of a watch to records | [`Assembler`] |
//! | from records to pages of a database | [`Extended`] |
//! | etcd's own HashKV, members and users | [`Checkpoint`] |

mod apply;
mod assemble;
mod body;
mod chain;
mod checkpoint;
mod header;
mod parse;

pub use apply::{Extended, Extension, Proof, extend};
pub use assemble::{Again, Assembler, Broken};
pub use body::Body;
pub use chain::{DAMAGED, MISMATCH, MISSING, between, names, sound};
pub use checkpoint::{changed_beside, checkpoints, newest_hash};
pub use header::{
    Begun, Cause, Checkpoint, CheckpointAuth, CheckpointHash, FILE_SUFFIX, Header, MAX_BYTES, Name,
};
pub use parse::{Record, Segment};
