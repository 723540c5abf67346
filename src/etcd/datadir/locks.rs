//! Whether a running etcd holds a data directory.
//!
//! bbolt takes an exclusive `flock` on the database; etcd takes an exclusive open-file-description
//! lock (`F_OFD_SETLK`) on each WAL segment it may still write (etcd,
//! `client/pkg/fileutil/lock_linux.go`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::{Doing, Failure, Kind, Result};

/// What is known of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockState {
    /// The file is not there.
    Absent,
    /// Nobody holds it.
    Free,
    /// A process holds it: etcd runs.
    Held,
    /// It is not known, and why.
    Unknown(String),
}

/// The locks of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locks {
    /// The database's.
    pub db: LockState,
    /// The WAL's newest segment's.
    pub wal: LockState,
}

impl Locks {
    /// Whether etcd runs on this data.
    pub fn any_held(&self) -> bool {
        [&self.db, &self.wal].contains(&&LockState::Held)
    }
}

/// A shared lock on a member's database, which keeps etcd from opening it.
#[derive(Debug)]
pub struct Held {
    _file: File,
}

impl Held {
    /// `None` if a process has the lock for itself.
    pub(super) fn take(path: &Path) -> Result<Option<Self>> {
        let doing = || format!("opening {}", path.display());
        let file = File::open(path).doing(Kind::NotChecked, doing)?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(cause) => Err(Failure::wrap(
                Kind::NotChecked,
                cause,
                format!("locking {}", path.display()),
            )),
        }
    }
}

/// Opens a regular file only: opening a pipe would wait for its other end.
fn opened(path: &Path) -> std::result::Result<File, LockState> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .and_then(|file| match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("not a regular file")),
        });
    opened.map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => LockState::Absent,
        _ => LockState::Unknown(cause.to_string()),
    })
}

/// Asks for the database's lock by taking a shared one, which goes with the descriptor at once.
///
/// An etcd that starts in this very moment tries again after 50 milliseconds.
pub(super) fn of_database(path: &Path) -> LockState {
    let file = match opened(path) {
        Ok(file) => file,
        Err(state) => return state,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => LockState::Free,
        Err(rustix::io::Errno::WOULDBLOCK) => LockState::Held,
        Err(cause) => LockState::Unknown(cause.to_string()),
    }
}

/// Asks for a WAL segment's lock, without taking any.
pub(super) fn of_segment(path: &Path) -> LockState {
    let file = match opened(path) {
        Ok(file) => file,
        Err(state) => return state,
    };
    let mut lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) if lock.l_type == libc::F_UNLCK as libc::c_short => LockState::Free,
        Ok(_) => LockState::Held,
        Err(cause) => LockState::Unknown(cause.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_seen_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        assert_eq!(of_database(&path), LockState::Absent);
        assert_eq!(of_segment(&path), LockState::Absent);
        let file = File::create(&path).unwrap();
        assert_eq!(of_database(&path), LockState::Free);
        assert_eq!(of_segment(&path), LockState::Free);

        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(of_database(&path), LockState::Held);
        assert_eq!(of_segment(&path), LockState::Free);
        flock(&file, FlockOperation::Unlock).unwrap();

        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        assert_eq!(of_segment(&path), LockState::Held);
        assert_eq!(of_database(&path), LockState::Free);
        drop(file);
        assert_eq!(of_segment(&path), LockState::Free);
    }
}
