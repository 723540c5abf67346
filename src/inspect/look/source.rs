//! What is looked into: a database, and what is next to it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::error::{Failure, Kind, Result};
use crate::etcd::datadir::Layout;
use crate::keep::catalog::BackupSet;

/// A database with its surroundings.
#[derive(Debug, Clone)]
pub struct Source {
    /// How it is called.
    pub name: String,
    /// The file.
    pub database: PathBuf,
    /// Archives that may hold the API servers' encryption configuration.
    pub archives: Vec<PathBuf>,
    /// When it was taken, if that is known.
    pub created: Option<Timestamp>,
    /// Whether it is a member's own database: its WAL may have later writes.
    pub of_member: bool,
}

impl Source {
    /// The snapshot of a backup.
    ///
    /// # Errors
    /// [`Kind::BadBackup`] if it has none.
    pub fn of_set(set: &BackupSet) -> Result<Self> {
        let Some(database) = set.files.snapshot.clone() else {
            let what = format!("{} has no snapshot", set.name);
            return Err(Failure::new(Kind::BadBackup, what));
        };
        let archives = [&set.files.resources, &set.files.certificates];
        Ok(Self {
            name: set.name.clone(),
            database,
            archives: archives.into_iter().flatten().cloned().collect(),
            created: set.created,
            of_member: false,
        })
    }

    /// The database of a member's data directory; none if the directory is not one.
    pub fn of_data_dir(dir: &Path) -> Option<Self> {
        let database = Layout::new(dir, None).db();
        database.is_file().then(|| Self {
            name: dir.display().to_string(),
            database,
            archives: Vec::new(),
            created: None,
            of_member: true,
        })
    }
}
