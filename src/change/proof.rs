//! Proof of a backup by a restore: a data directory is built from it in scratch space, as `restore --data-dir`
//! builds it, and what is in it must have the HashKV that the backup was taken with.

use std::path::Path;

use serde::Serialize;

use super::datadir;
use crate::backup::manifest::Database;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::etcd::datadir::Layout;
use crate::keep::catalog::{BackupSet, Verified};
use crate::keep::database::{self, KeyFilter, Report};
use crate::sys::scratch::Scratch;

/// What a failed proof is called among the layers that a verification found broken.
const RESTORE: &str = "restore";
/// The member that the directory is for; it never starts.
const NAME: &str = "proof";
/// Where its peers would reach it.
const PEER_URL: &str = "http://localhost:2380";

/// That a restore has what the backup has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// HashKV of the restored database.
    pub hash_kv: u32,
    /// The revision that it is of.
    pub revision: i64,
}

/// Restores a backup, whose files have been verified, and compares. `report` is what was found of the snapshot.
///
/// # Errors
/// [`Kind::BadBackup`] if it cannot be restored, or is not what it was; this is recorded beside the backup.
/// [`Kind::Store`] and others where that could not be found out.
pub fn run(
    context: &Context,
    set: &BackupSet,
    report: Option<&Report>,
    scratch: &Path,
) -> Result<Restored> {
    let proof = prove(context, set, report, scratch);
    if let Err(failure) = &proof
        && failure.kind() == Kind::BadBackup
        // Other directories are not ours to write to.
        && set.manifest.is_some()
    {
        Verified::new(context.now, vec![RESTORE.to_owned()]).write_to(context, &set.dir);
    }
    proof
}

fn prove(
    context: &Context,
    set: &BackupSet,
    report: Option<&Report>,
    scratch: &Path,
) -> Result<Restored> {
    let bad = |what: String| Failure::new(Kind::BadBackup, what);
    let mut described = Database::default();
    if let Some(report) = report {
        database::describe(report, &mut described);
    }
    let recorded = set.manifest.as_ref();
    let recorded = recorded.and_then(|manifest| manifest.database.hash_kv);
    // What the member answered counts more than what the snapshot yields now.
    let expected = recorded.or(described.hash_kv);
    let expected = expected.ok_or_else(|| bad("the snapshot has no HashKV".to_owned()))?;
    let snapshot = set.files.snapshot.clone();
    let snapshot = snapshot.ok_or_else(|| bad("there is no snapshot".to_owned()))?;
    let here = Scratch::make(scratch, "proof")?;
    let data_dir = here.path().join("data");
    let request = datadir::Request::unbumped(&snapshot, &data_dir, (NAME, PEER_URL))?;
    datadir::run(context, &request)?;
    let database = Layout::new(&data_dir, None).db();
    let mut restored = Database::default();
    if let Some(report) = database::read(context, &database, KeyFilter::default())? {
        database::describe(&report, &mut restored);
    }
    let found = restored.hash_kv;
    let found = found.ok_or_else(|| bad("the restored database cannot be read".to_owned()))?;
    if found != expected {
        return Err(bad(format!(
            "restored: expected HashKV {} at revision {}, found {} at {}",
            expected.hash, expected.revision, found.hash, found.revision
        )));
    }
    Ok(Restored {
        hash_kv: found.hash,
        revision: found.revision,
    })
}
