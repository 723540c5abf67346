//! Reading the node's small text files, bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::{Doing, Failure, Kind, Result};

/// Reads a regular file of at most `limit` bytes. Anything else (a pipe would never end) is an
/// error.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .doing(Kind::Unexpected, || format!("reading {}", path.display()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(Failure::new(
            Kind::Unexpected,
            format!("reading {}: larger than {limit} bytes", path.display()),
        ));
    }
    Ok(bytes)
}

fn open_regular(path: &Path) -> Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .and_then(|file| {
            if file.metadata()?.is_file() {
                Ok(file)
            } else {
                Err(io::Error::other("not a regular file"))
            }
        });
    opened.doing(Kind::Unexpected, || format!("opening {}", path.display()))
}

/// The entries of a directory by name; none where it does not exist.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).doing(Kind::Unexpected, || format!("listing {}", dir.display())),
    };
    let mut paths = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<io::Result<Vec<_>>>()
        .doing(Kind::Unexpected, || format!("listing {}", dir.display()))?;
    paths.sort();
    Ok(paths)
}

/// Whether something exists; an error other than absence is returned.
pub(super) fn exists(path: &Path) -> Result<bool> {
    path.try_exists().doing(Kind::Unexpected, || {
        format!("looking at {}", path.display())
    })
}
