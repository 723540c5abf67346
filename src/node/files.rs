//! Reading the node's small text files, bounded.

use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Failure, Kind, Result};
use crate::sys::{listing, small};

/// Reads a regular file of at most `limit` bytes. Anything else (a pipe would never end) is an
/// error.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let opened = small::open_plain(path)
        .and_then(|file| file.ok_or_else(|| io::Error::other("not a regular file")));
    let file = opened.doing(Kind::Unexpected, || format!("opening {}", path.display()))?;
    let doing = || format!("reading {}", path.display());
    let read = small::read_up_to(file, limit).doing(Kind::Unexpected, doing)?;
    read.ok_or_else(|| {
        let what = format!("{}: larger than {limit} bytes", doing());
        Failure::new(Kind::Unexpected, what)
    })
}

/// The entries of a directory by name; empty if it does not exist.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = listing::entries(dir);
    let entries = entries.doing(Kind::Unexpected, || format!("listing {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.iter().map(DirEntry::path).collect();
    paths.sort();
    Ok(paths)
}

/// Whether something exists; an error other than absence is returned.
pub(super) fn exists(path: &Path) -> Result<bool> {
    path.try_exists().doing(Kind::Unexpected, || {
        format!("looking at {}", path.display())
    })
}
