//! Reading small files whole, within a bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::error::{Doing, Failure, Kind, Result};

/// Bytes that a small file rarely has more of.
const READ: usize = 8 << 10;

/// Reads a small file that may be anybody's, as [`open`] opens it; `None` if it does not exist.
///
/// # Errors
/// [`Kind::BadBackup`] if it is no plain file or has more bytes, [`Kind::Store`] if it cannot
/// be read.
pub fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    match open(path)? {
        Some(file) => take(file, path, most).map(Some),
        None => Ok(None),
    }
}

/// Reads the beginning of a file that may be anybody's, `most` bytes or all; `None` if it does not exist.
///
/// # Errors
/// As [`read`]; a longer file is not an error.
pub fn read_start(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    let mut bytes = Vec::with_capacity(READ);
    let read = file.take(most).read_to_end(&mut bytes);
    read.doing(Kind::Store, || doing(path))?;
    Ok(Some(bytes))
}

/// Opens a file that may be anybody's, to read it; `None` if it does not exist. Only a plain file is
/// opened: a pipe would wait for a writer, and a link to a device would never end.
///
/// # Errors
/// [`Kind::BadBackup`] if it is no plain file, [`Kind::Store`] if it cannot be opened.
pub fn open(path: &Path) -> Result<Option<File>> {
    match open_plain(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).doing(Kind::Store, || doing(path)),
        Ok(None) => Err(Failure::new(Kind::BadBackup, "it is not a plain file").doing(doing(path))),
        Ok(file) => Ok(file),
    }
}

/// Opens a plain file to read it; `None` if something else has that name.
pub fn open_plain(path: &Path) -> io::Result<Option<File>> {
    // Opening a device can do something by itself, so that it is looked at before and after.
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Reads to the end; `None` if there are more than `most` bytes.
pub fn read_up_to(file: impl Read, most: u64) -> io::Result<Option<Vec<u8>>> {
    // All of most files comes in one read, and that there is no more in another.
    let mut bytes = Vec::with_capacity(READ);
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// Reads a small file that the operator named, a pipe of the shell's too; `None` if it does not
/// exist.
///
/// # Errors
/// [`Kind::BadBackup`] if it has more bytes, [`Kind::Store`] if it cannot be read.
pub fn read_given(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).doing(Kind::Store, || doing(path)),
        Ok(file) => take(file, path, most).map(Some),
    }
}

fn doing(path: &Path) -> String {
    format!("reading {}", path.display())
}

fn take(file: File, path: &Path, most: u64) -> Result<Vec<u8>> {
    let read = read_up_to(file, most).doing(Kind::Store, || doing(path))?;
    read.ok_or_else(|| {
        let what = format!("expected at most {most} bytes, found more");
        Failure::new(Kind::BadBackup, what).doing(doing(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_file_within_the_bound_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("small"), b"12345").unwrap();
        assert_eq!(read(&path("small"), 5).unwrap().unwrap(), b"12345");
        assert_eq!(read_given(&path("small"), 5).unwrap().unwrap(), b"12345");
        assert_eq!(read(&path("absent"), 5).unwrap(), None);
        let long = read(&path("small"), 4).unwrap_err();
        assert_eq!(long.kind(), Kind::BadBackup);

        std::os::unix::fs::symlink("small", path("link")).unwrap();
        assert!(read(&path("link"), 5).unwrap().is_some());
        std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
        let (at, kind) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(at, path("pipe"), kind, 0o600.into(), 0).unwrap();
        for other in ["zero", "pipe", "."] {
            let failure = read(&path(other), 5).unwrap_err();
            assert_eq!(failure.kind(), Kind::BadBackup, "{other}");
            assert!(
                failure.to_string().contains("not a plain file"),
                "{failure}"
            );
        }
    }
}
