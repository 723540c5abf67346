//! Where a download's bytes go.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;

/// Where the bytes go. It lives on its own thread, which may block.
///
/// [`Write::write_vectored`] should be passed on to the file: the pieces are as small as HTTP/2's
/// frames (16 KiB), and a batch of them is written by one call. Making the file durable is the
/// caller's, with the sink that comes back.
pub trait SnapshotSink: Write + Send + 'static {
    /// Told every few MiB that the bytes from `from` to `to` have been written, so that the sink
    /// can begin to bring them to the disk. A file does best to call [`write_behind`]; it may do
    /// nothing.
    ///
    /// # Errors
    /// End the download.
    fn settle(&mut self, from: u64, to: u64) -> io::Result<()> {
        let _ = (from, to);
        Ok(())
    }
}

impl SnapshotSink for File {
    fn settle(&mut self, from: u64, to: u64) -> io::Result<()> {
        write_behind(self, from, to)
    }
}

impl SnapshotSink for Vec<u8> {}

/// How far behind the last byte written [`write_behind`] still drops pages.
const BEHIND: u64 = 64 << 20;

/// Has the kernel begin writing a range of a file out, without waiting for it, and drop from the
/// page cache what of the file before it has reached the disk.
///
/// So the last fsync finds little to do, the same few pages of memory are used again and again,
/// which is the greatest saving of all (docs/performance.md), and a snapshot does not push etcd's
/// own pages out of the cache. Linux does both for `POSIX_FADV_DONTNEED`: it starts writeback of
/// the dirty pages and drops the clean ones (`mm/fadvise.c`). This is advice and makes nothing
/// durable.
///
/// # Errors
/// Those of `posix_fadvise`, but not that a file or a system knows no such advice.
pub fn write_behind(file: &File, from: u64, to: u64) -> io::Result<()> {
    use rustix::io::Errno;
    let from = from.saturating_sub(BEHIND);
    let length = NonZeroU64::new(to.saturating_sub(from));
    match rustix::fs::fadvise(file, from, length, rustix::fs::Advice::DontNeed) {
        Ok(()) | Err(Errno::SPIPE | Errno::INVAL | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
