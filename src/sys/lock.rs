//! A lock file, held by `flock`: the lock ends with its process, however that ends.
//!
//! The file has one line, the holder's process id and what it is doing, for the message of others.
//! It stays behind when the lock ends: removing it would let two holders have two files.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::error::{Doing, Fact, Failure, Kind, Result};

/// How often a lock is tried.
const ATTEMPTS: u32 = 3;
/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(20);

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
            // The line is the holder's until the lock is ours.
            .truncate(false)
            .mode(crate::sys::fs::FILE_MODE)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(path)
            .doing(Kind::Store, about)?;
        match exclusively(&file) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(held(path, &mut file)),
            Err(e) => return Err(Failure::wrap(Kind::Store, io::Error::from(e), about())),
        }
        let line = format!("{} {doing}\n", std::process::id());
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.write_all(line.as_bytes())
        };
        // The line is only informative; a full disk must not stop a command that frees space.
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

    /// Takes a lock that others define: nothing is written into its file. `None` if the file is not
    /// ours: it is in a folder that everybody may write to, so that anybody can have put it there and
    /// hold it for ever.
    pub fn hold(path: &Path) -> Result<Option<Self>> {
        let about = || format!("locking {}", path.display());
        let open = |create: bool| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(create)
                .truncate(false)
                .mode(crate::sys::fs::FILE_MODE)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
                .open(path)
        };
        // Not with O_CREAT at first: fs.protected_regular forbids that for another's file.
        let opened = match open(false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => open(true),
            other => other,
        };
        let file = match opened {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Ok(None);
            }
            other => other.doing(Kind::Store, about)?,
        };
        let owner = file.metadata().doing(Kind::Store, about)?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            return Ok(None);
        }
        match exclusively(&file) {
            Ok(()) => Ok(Some(Self {
                _file: file,
                path: path.to_owned(),
            })),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::new(
                Kind::Busy,
                format!("another process holds {}", path.display()),
            )
            .with(Fact::Path(path.to_owned()))),
            Err(e) => Err(Failure::wrap(Kind::Store, io::Error::from(e), about())),
        }
    }

    /// Whether a process holds the lock of this file now.
    pub fn is_held(path: &Path) -> bool {
        let shared = FlockOperation::NonBlockingLockShared;
        File::open(path).is_ok_and(|file| rustix::fs::flock(&file, shared).is_err())
    }

    /// Where the lock file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes the lock. [`Lock::is_held`] holds it only for a moment, so this tries again.
fn exclusively(file: &File) -> Result<(), rustix::io::Errno> {
    for _ in 1..ATTEMPTS {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)
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
    fn a_lock_that_is_a_link_or_belongs_to_another_user_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd-installer.lock");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(Lock::hold(&path).unwrap().is_none());
        assert!(!dir.path().join("elsewhere").exists());
        std::fs::remove_file(&path).unwrap();
        let held = Lock::hold(&path).unwrap();
        assert!(held.is_some());
        assert_eq!(Lock::hold(&path).unwrap_err().kind(), Kind::Busy);
        if rustix::process::geteuid().is_root() {
            // Held by its owner, it is no reason to wait.
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert!(Lock::hold(&path).unwrap().is_none());
        }
    }

    #[test]
    fn the_second_one_learns_who_holds_it() {
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
