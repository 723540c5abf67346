//! Where the parts of a data directory are.

use std::fs;
use std::path::{Path, PathBuf};

use super::locks::{Held, LockState, Locks, of_database, of_segment};
use crate::error::{Doing, Kind, Result};
use crate::etcd::wal::Wal;

/// Where the parts of a data directory are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `member/snap`.
    pub snap: PathBuf,
    /// The WAL's directory.
    pub wal: PathBuf,
}

/// How many entries of a folder are searched for data directories.
const MAX_LOOKED: usize = 1_000;

/// The message about a folder that is not a data directory, with the data directory that may be
/// meant: below it, if etcd was started there without `--data-dir`, or above.
pub fn not_a_data_dir(dir: &Path) -> String {
    let is = |dir: &Path| dir.join("member").join("snap").is_dir();
    let below = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut meant: Vec<PathBuf> = below
        .take(MAX_LOOKED)
        .map(|entry| entry.path())
        .chain(dir.ancestors().skip(1).take(2).map(Path::to_owned))
        .filter(|path| is(path))
        .collect();
    meant.sort();
    let what = format!(
        "{} is not a data directory: it has no member/snap",
        dir.display()
    );
    match meant.as_slice() {
        [] => what,
        found => {
            let found: Vec<String> = found
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            format!(
                "{what}; use the directory that has it: {}",
                found.join(" or ")
            )
        }
    }
}

impl Layout {
    /// The layout below a data directory, the WAL's own directory given or not.
    pub fn new(data_dir: &Path, wal_dir: Option<&Path>) -> Self {
        let member = data_dir.join("member");
        Self {
            snap: member.join("snap"),
            wal: wal_dir.map_or_else(|| member.join("wal"), Path::to_owned),
        }
    }

    /// The database.
    pub fn db(&self) -> PathBuf {
        self.snap.join("db")
    }

    /// Asks whether a running etcd holds the directory; touches nothing.
    pub fn locks(&self) -> Result<Locks> {
        let there = fs::exists(&self.wal).doing(Kind::NotChecked, || {
            format!("looking at {}", self.wal.display())
        })?;
        let wal = match there {
            true => Wal::list(&self.wal)?,
            false => Wal::default(),
        };
        Ok(self.locks_with(&wal))
    }

    /// Keeps an etcd from starting on the directory as long as the result lives, by a shared lock
    /// on the database, which etcd opens first; `None` if one runs. Writes nothing.
    ///
    /// # Errors
    /// [`Kind::NotChecked`] if the database cannot be opened or locked.
    pub fn hold(&self) -> Result<Option<Held>> {
        let held = Held::take(&self.db())?;
        Ok(held.filter(|_| !matches!(self.locks(), Ok(locks) if locks.wal == LockState::Held)))
    }

    pub(super) fn locks_with(&self, wal: &Wal) -> Locks {
        let newest = wal.segments().last();
        Locks {
            db: of_database(&self.db()),
            wal: newest.map_or(LockState::Absent, |segment| {
                of_segment(&self.wal.join(segment.name.to_string()))
            }),
        }
    }
}
