//! The part of the file that a walk has in memory.

use std::io;

use super::source::ReadAt;

/// One buffer over a stretch of the file. Neighbouring pages are read together where the walk
/// knows that it will want them, so that a page mostly costs no system call.
pub(crate) struct Window<'a> {
    source: &'a dyn ReadAt,
    buf: Vec<u8>,
    start: u64,
    len: usize,
}

impl<'a> Window<'a> {
    pub(crate) fn new(source: &'a dyn ReadAt) -> Self {
        Self {
            source,
            buf: Vec::new(),
            start: 0,
            len: 0,
        }
    }

    pub(crate) fn source(&self) -> &'a dyn ReadAt {
        self.source
    }

    /// Reads `len` bytes at `offset`, which the caller has checked against the file's length.
    pub(crate) fn fill(&mut self, offset: u64, len: usize) -> io::Result<()> {
        self.len = 0;
        if self.buf.len() < len {
            // Replaced and not grown: the old bytes are of no use, so none are copied.
            self.buf = Vec::new();
            self.buf.resize(len, 0);
        }
        let Some(target) = self.buf.get_mut(..len) else {
            return Ok(());
        };
        self.source.read_exact_at(target, offset)?;
        self.start = offset;
        self.len = len;
        Ok(())
    }

    /// Reads the bytes unless the window holds them.
    pub(crate) fn ensure(&mut self, offset: u64, len: usize) -> io::Result<()> {
        if self.get(offset, len).is_none() {
            self.fill(offset, len)?;
        }
        Ok(())
    }

    /// The bytes, if the window holds them all.
    pub(crate) fn get(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.len).then_some(())?;
        self.buf.get(from..to)
    }
}
