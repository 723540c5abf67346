//! Proof of a backup by a restore: a data directory is built from it in scratch space, as `restore --data-dir`
//! builds it, and what is in it must have the HashKV that the backup was taken with.

use std::path::Path;

use serde::Serialize;

use super::datadir;
use super::dir_options::DirOptions;
use crate::backup::manifest::Database;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::etcd::datadir::Layout;
use crate::etcd::restore::Bump;
use crate::keep::catalog::{BackupSet, Verified};
use crate::keep::database::{self, KeyFilter, Report};
use crate::sys::random;
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
/// [`Kind::BadBackup`] where it cannot be restored, or is not what it was; this is recorded beside the backup.
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
    let expected = recorded.or(described.hash_kv);
    let expected = expected.ok_or_else(|| bad("the snapshot has no HashKV".to_owned()))?;
    let snapshot = set.files.snapshot.clone();
    let snapshot = snapshot.ok_or_else(|| bad("there is no snapshot".to_owned()))?;
    let here = Scratch::make(scratch, "proof")?;
    let data_dir = here.path().join("data");
    datadir::run(context, &order(&snapshot, &data_dir)?)?;
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

/// The restore: without a bump, so that nothing differs that HashKV is made of.
fn order(snapshot: &Path, data_dir: &Path) -> Result<datadir::Request> {
    Ok(datadir::Request {
        options: DirOptions {
            data_dir: data_dir.to_owned(),
            wal_dir: None,
            bump: Some(Bump::By(0)),
            mark_compacted: false,
            evidence: Vec::new(),
            allow: Vec::new(),
            random: u128::from_ne_bytes(random::bytes()?),
        },
        snapshot: snapshot.to_owned(),
        name: NAME.to_owned(),
        initial_cluster: format!("{NAME}={PEER_URL}"),
        advertise_peer_urls: PEER_URL.to_owned(),
        token: None,
        skip_hash_check: false,
        target: None,
        compact: false,
        to: None,
        roll_forward: None,
        recorded: None,
    })
}
