//! What is read while a database is built: the snapshot, or its copy as far as that goes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::etcd::bbolt::{FileSource, ReadAt};
use crate::etcd::build::Watch;

/// Reads the copy; what is not copied, the trailer or padding, from the snapshot.
pub(super) struct Source<'a> {
    /// The copy, and how much of it there is.
    pub(super) copy: Option<(&'a File, u64)>,
    pub(super) whole: &'a FileSource,
    pub(super) watch: &'a dyn Watch,
    /// Ends all reading once it is set.
    pub(super) halt: Option<&'a AtomicBool>,
}

impl<'a> Source<'a> {
    pub(super) fn of(whole: &'a FileSource, watch: &'a dyn Watch) -> Self {
        Self {
            copy: None,
            whole,
            watch,
            halt: None,
        }
    }

    fn go_on(&self) -> io::Result<()> {
        let halted = self.halt.is_some_and(|halt| halt.load(Ordering::Relaxed));
        if halted || self.watch.stopped() {
            return Err(io::Error::other("interrupted"));
        }
        Ok(())
    }
}

impl ReadAt for Source<'_> {
    fn size(&self) -> u64 {
        self.whole.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.go_on()?;
        let Some((copy, length)) = self.copy else {
            return self.whole.read_exact_at(buf, offset);
        };
        let here = length.saturating_sub(offset).min(buf.len() as u64);
        let (copied, rest) = buf.split_at_mut(here as usize);
        copy.read_exact_at(copied, offset)?;
        self.whole.read_exact_at(rest, offset + here)
    }

    fn read_in_memory(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        match self.copy {
            None => {
                self.go_on()?;
                self.whole.read_in_memory(buf, offset)
            }
            Some(_) => self.read_exact_at(buf, offset).map(|()| true),
        }
    }
}
