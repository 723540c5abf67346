//! How far the building of a data directory is, and whether to stop it.

use crate::error::{Failure, Kind, Result};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The snapshot is copied.
    Copy,
    /// All of it is checked.
    Check,
    /// It is rewritten.
    Rewrite,
    /// The result is made durable, and read again.
    Settle,
}

/// Sees how far a restore is, and stops it.
pub trait Watch: Sync {
    /// A phase begins, of so many bytes.
    fn begin(&self, phase: Phase, total: u64);
    /// So many bytes of a phase are done.
    fn progress(&self, phase: Phase, done: u64);
    /// A phase ended well.
    fn done(&self, phase: Phase, done: u64);
    /// Whether to stop.
    fn stopped(&self) -> bool;
}

/// The failure that an operation asked to stop ends with.
pub(in crate::etcd) fn stop_if(watch: &dyn Watch) -> Result<()> {
    if watch.stopped() {
        return Err(Failure::new(Kind::Interrupted, "interrupted"));
    }
    Ok(())
}
