//! A lock file: held by `flock`, so that it ends with its process whatever happened to it.
//!
//! The file holds one line, `pid` and what the holder is doing, for the one who finds it held.
//! It stays behind when the lock ends: removing it would let two holders have two files.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::error::{Doing, Fact, Failure, Kind, Result};

/// A lock that is held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock at once or says who holds it ([`Kind::Busy`] with [`Fact::Holder`]).
    pub fn acquire(path: &Path, doing: &str) -> Result<Self> {
        let about = || format!("locking {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(crate::sys::fs::FILE_MODE)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(path)
            .doing(Kind::Store, about)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(held(path, &mut file)),
            Err(e) => return Err(Failure::wrap(Kind::Store, io::Error::from(e), about())),
        }
        let line = format!("{} {doing}\n", std::process::id());
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.write_all(line.as_bytes())
        };
        // Who holds it is a courtesy; a full disk must not stop a command that frees space.
        match write(&mut file) {
            Err(e) if e.kind() != io::ErrorKind::StorageFull => {
                return Err(Failure::wrap(Kind::Store, e, about()));
            }
            _ => {}
        }
        Ok(Self {
            _file: file,
            path: path.to_owned(),
        })
    }

    /// Where the lock file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The failure that names the holder.
fn held(path: &Path, file: &mut File) -> Failure {
    let mut text = String::new();
    // An unreadable line only makes the message poorer.
    let _ = file.take(4096).read_to_string(&mut text);
    let (pid, doing) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let failure = |what: String| Failure::new(Kind::Busy, what);
    match pid.parse::<u32>() {
        Ok(pid) => failure(format!(
            "{} is locked by process {pid} ({doing})",
            path.display()
        ))
        .with(Fact::Holder {
            pid,
            doing: doing.to_owned(),
        }),
        Err(_) => failure(format!("{} is locked by another process", path.display())),
    }
    .with(Fact::Path(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::acquire(&path, "backup").unwrap();
        let failure = Lock::acquire(&path, "prune").unwrap_err();
        assert_eq!(failure.kind(), Kind::Busy);
        let pid = std::process::id();
        assert!(
            failure
                .to_string()
                .contains(&format!("process {pid} (backup)")),
            "{failure}"
        );
        assert!(failure.facts().contains(&Fact::Holder {
            pid,
            doing: "backup".to_owned()
        }));
        drop(first);
        Lock::acquire(&path, "prune").unwrap();
    }
}
