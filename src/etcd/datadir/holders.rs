//! Which process holds a data directory: checked last before its files are moved or replaced.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Layout, LockState, Locks};
use crate::error::{Failure, Kind, Result};
use crate::etcd::wal::Wal;
use crate::sys::opened::{Process, opened_by};

/// Where procfs is mounted (proc(5)).
const PROC: &str = "/proc";

/// A process that holds a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Whether the database is locked.
    pub db: bool,
    /// Whether the WAL is locked.
    pub wal: bool,
    /// The processes that have database or WAL open, as far as can be seen; for messages only. May
    /// be empty, and may include others than the holder of the lock.
    pub processes: Vec<Process>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.processes.is_empty() {
            return f.write_str("a process that cannot be seen from here");
        }
        for (n, process) in self.processes.iter().enumerate() {
            if n > 0 {
                f.write_str(", ")?;
            }
            process.fmt(f)?;
        }
        Ok(())
    }
}

/// The holder of a data directory with its WAL in the usual place; `None` if no process does, or if
/// neither database nor WAL exists. Writes nothing and never waits.
///
/// Only locks count: etcd, and `etcdutl defrag`, lock the database for themselves. A reader such
/// as `etcdutl snapshot status` shares its lock, and is not a holder.
///
/// # Errors
/// [`Kind::NotChecked`] if a lock cannot be asked for: then it is not known to be free.
pub fn holders(data_dir: &Path) -> Result<Option<Holder>> {
    Layout::new(data_dir, None).holders()
}

/// Whether any process holds a data directory, without searching for it.
///
/// # Errors
/// As those of [`holders`].
pub fn is_held(data_dir: &Path) -> Result<bool> {
    Ok(Layout::new(data_dir, None).held()?.is_some())
}

impl Layout {
    /// As [`holders`], with a WAL anywhere.
    ///
    /// # Errors
    /// As those of [`holders`].
    pub fn holders(&self) -> Result<Option<Holder>> {
        self.holders_in(Path::new(PROC))
    }

    pub(super) fn holders_in(&self, proc: &Path) -> Result<Option<Holder>> {
        let Some(Locks { db, wal }) = self.held()? else {
            return Ok(None);
        };
        let mut files: Vec<PathBuf> = vec![self.db()];
        if let Ok(log) = Wal::list(&self.wal) {
            let names = log.segments().iter().map(|s| s.name.to_string());
            files.extend(names.map(|name| self.wal.join(name)));
        }
        Ok(Some(Holder {
            db: db == LockState::Held,
            wal: wal == LockState::Held,
            processes: opened_by(proc, &files),
        }))
    }

    /// The locks, if one is held.
    fn held(&self) -> Result<Option<Locks>> {
        let asking = || format!("asking who holds {}", self.snap.display());
        let Locks { db, wal } = self
            .locks()
            .map_err(|failure| failure.as_kind(Kind::NotChecked).doing(asking()))?;
        // One lock that is held decides, whether the other one can be asked for or not.
        if [&db, &wal].contains(&&LockState::Held) {
            return Ok(Some(Locks { db, wal }));
        }
        for (path, state) in [(self.db(), db), (self.wal.clone(), wal)] {
            if let LockState::Unknown(why) = state {
                return Err(Failure::new(Kind::NotChecked, why)
                    .doing(format!("asking for the lock of {}", path.display()))
                    .doing(asking()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, flock};
    use std::fs::{self, File};

    #[test]
    fn only_an_exclusive_lock_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holders(dir.path()).unwrap(), None);
        let layout = Layout::new(dir.path(), None);
        fs::create_dir_all(&layout.snap).unwrap();
        fs::write(layout.db(), "").unwrap();
        assert_eq!(holders(dir.path()).unwrap(), None);

        let file = File::open(layout.db()).unwrap();
        flock(&file, FlockOperation::NonBlockingLockShared).unwrap();
        assert_eq!(holders(dir.path()).unwrap(), None);
        assert!(!is_held(dir.path()).unwrap());
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(is_held(dir.path()).unwrap());
        let holder = holders(dir.path()).unwrap().unwrap();
        assert_eq!((holder.db, holder.wal), (true, false));
        let ours = std::process::id();
        assert!(holder.processes.iter().any(|process| process.pid == ours));
        let unseen = layout.holders_in(dir.path()).unwrap().unwrap();
        assert_eq!(
            unseen.to_string(),
            "a process that cannot be seen from here"
        );
    }

    #[test]
    fn what_cannot_be_found_out_is_not_free() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), None);
        fs::create_dir_all(&layout.snap).unwrap();
        std::os::unix::fs::symlink("db", layout.db()).unwrap();
        let failure = holders(dir.path()).unwrap_err();
        assert_eq!(failure.kind(), Kind::NotChecked);
        assert!(failure.to_string().contains("snap/db"), "{failure}");

        // A pipe without a writer: opening it must not wait.
        fs::remove_file(layout.db()).unwrap();
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            layout.db(),
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .unwrap();
        assert!(holders(dir.path()).is_err());

        // The WAL's directory is not one.
        fs::remove_file(layout.db()).unwrap();
        fs::write(&layout.wal, "").unwrap();
        assert!(holders(dir.path()).is_err());
    }
}
