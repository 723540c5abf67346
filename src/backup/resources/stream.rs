//! The two streams an archive is read through: the input, and the tar stream it unpacks to.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The input, counted; tells its own errors from those of the formats.
pub(super) struct Source<R> {
    pub(super) inner: R,
    pub(super) count: u64,
    pub(super) failure: Option<io::Error>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buf) {
                Ok(count) => {
                    self.count = self.count.saturating_add(wide(count));
                    return Ok(count);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let told = io::Error::new(e.kind(), e.to_string());
                    self.failure = Some(e);
                    return Err(told);
                }
            }
        }
    }
}

/// A length as the formats count.
pub(super) fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Why the tar stream could not be read on.
pub(super) enum Trouble {
    Limit,
    Gzip(String),
}

/// The unpacked tar stream, counted and bounded. Shared, because the tar reader keeps hold of its
/// input while its entries are looked at.
pub(super) struct Stream<'a, R> {
    pub(super) gzip: RefCell<&'a mut GzDecoder<R>>,
    pub(super) position: Cell<u64>,
    pub(super) limit: u64,
    pub(super) trouble: Cell<Option<Trouble>>,
}

impl<R: BufRead> Read for &Stream<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.position.get() > self.limit {
            self.trouble.set(Some(Trouble::Limit));
            return Err(io::Error::other("too large"));
        }
        match self.gzip.borrow_mut().read(buf) {
            Ok(count) => {
                self.position
                    .set(self.position.get().saturating_add(wide(count)));
                Ok(count)
            }
            Err(e) => {
                self.trouble.set(Some(Trouble::Gzip(e.to_string())));
                Err(e)
            }
        }
    }
}
