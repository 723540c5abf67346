//! Where a database's bytes come from.

use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Bytes that can be read at any position, by several threads at once.
///
/// A file is never mapped: a mapping of a file that another process cuts short kills the reader
/// with SIGBUS, while a positioned read gives an error.
pub trait ReadAt: Sync {
    /// How many bytes there are. Taken once, when the source was made.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset` on, or fails.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// As [`ReadAt::read_exact_at`] if that needs no disk; false, with `buf` in any state, if it
    /// does. A source that cannot tell reads.
    fn read_in_memory(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        self.read_exact_at(buf, offset).map(|()| true)
    }
}

/// A regular file, with the length it had when it was opened.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    size: u64,
}

impl FileSource {
    /// Opens a regular file for reading; anything else (a pipe, a directory) is an error.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Looked at before it is opened: opening a pipe would wait for its writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Self::new(File::open(path)?)
    }

    /// Takes an open regular file.
    pub fn new(file: File) -> io::Result<Self> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let size = meta.len();
        Ok(Self { file, size })
    }
}

impl ReadAt for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn read_in_memory(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        let len = buf.len();
        let mut parts = [IoSliceMut::new(buf)];
        match preadv2(&self.file, &mut parts, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read == len),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            // A file system or a kernel that does not know the flag; a true error comes again.
            Err(_) => self.read_exact_at(buf, offset).map(|()| true),
        }
    }
}

impl ReadAt for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let wanted = start
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(wanted);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_bounds_only() {
        let source: &[u8] = b"0123456789";
        let mut buf = [0; 4];
        source.read_exact_at(&mut buf, 6).unwrap();
        assert_eq!(&buf, b"6789");
        assert!(source.read_exact_at(&mut buf, 7).is_err());
        assert!(source.read_exact_at(&mut buf, u64::MAX - 1).is_err());
    }

    #[test]
    fn only_a_regular_file_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        assert!(FileSource::open(dir.path()).is_err());
        assert!(FileSource::open(&dir.path().join("none")).is_err());
        let path = dir.path().join("f");
        fs::write(&path, b"abc").unwrap();
        let source = FileSource::open(&path).unwrap();
        assert_eq!(source.size(), 3);
        let mut buf = [0; 2];
        if source.read_in_memory(&mut buf, 1).unwrap() {
            assert_eq!(&buf, b"bc");
        }
        assert!(matches!(
            source.read_in_memory(&mut buf, 2),
            Ok(false) | Err(_)
        ));
    }
}
