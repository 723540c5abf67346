//! `record`: everything that is written to etcd, sealed into segments beside the backups.
//!
//! ```text
//! changes/                                         in the store
//!   .lock                                          held while something records
//!   20261130T120000Z-67dd97daf3ded3f/              a chain: contiguous, of one cluster
//!     0000000000000048211-0000000000000048290.changes
//!     .new                                         a segment on its way
//! ```
//!
//! What arrived is held in memory until it is sealed; a crash loses that and nothing else, since a
//! recorder resumes at the last revision that is sealed. It must show the same changes again: otherwise
//! etcd was restored in the meantime, and a new chain begins. So it does if etcd has compacted what comes
//! next, or leaves out events each time that it is asked.

mod away;
mod checking;
mod leases;
mod request;
mod run;
mod tape;
mod watching;

pub use away::{Away, OnCopied};
pub use request::{Gap, OnStanding, RecordRequest, Recorded, Standing};
pub use run::{keep_recording, run};
