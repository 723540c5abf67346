//! Whether a backup and the changes recorded after it are what the next backup has.

use std::fs::File;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::chain::chains;
use super::continuation::{Continuation, continuation};
use crate::context::Context;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::{FileSource, Metas, ReadAt};
use crate::etcd::build::{Phase, Watch};
use crate::etcd::ids::ClusterId;
use crate::etcd::segment::{Extension, extend};
use crate::etcd::snapshot::Shape;
use crate::event::Event;
use crate::keep::catalog::{self, BackupSet};
use crate::store::LocalStore;
use crate::sys::fs::OutFile;
use crate::sys::scratch::Scratch;
use crate::sys::space::space;

/// The result of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HashKvFound {
    /// A backup and the changes after it have the HashKV of the next backup, or etcd's own.
    Equal,
    /// They have not.
    Different,
    /// There was nothing to compare, or it could not be read.
    NotChecked,
}

/// Whether the changes after a backup lead to the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proven {
    /// The backup that they follow.
    pub base: String,
    /// Its revision.
    pub from: i64,
    /// The last revision that was applied.
    pub to: i64,
    /// The result.
    pub hashkv: HashKvFound,
    /// The backup it was held against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Without such a backup, the revision at which etcd's own HashKV was equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_revision: Option<i64>,
    /// Why it is not equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Proves the newest changes that lead from one backup to another; `None` without any.
///
/// # Errors
/// As [`prove`], and those of reading the store.
pub fn prove_newest(
    context: &Context,
    store: &LocalStore,
    scratch: &Path,
) -> Result<Option<Proven>> {
    let (chains, _) = chains(store)?;
    let sets = catalog::list(store)?;
    let mut bases: Vec<&BackupSet> = sets.iter().filter(|set| set.is_good()).collect();
    bases.sort_by_key(|set| std::cmp::Reverse(set.created.unwrap_or(Timestamp::MIN)));
    for set in bases {
        let continued = continuation(&chains, &sets, set);
        if let Some(continued) = continued.filter(|continued| !continued.proofs.is_empty()) {
            return prove(context, set, &continued, scratch).map(Some);
        }
    }
    Ok(None)
}

/// Proves one continuation up to the next backup, in a scratch folder.
///
/// # Errors
/// [`Kind::Interrupted`], and [`Kind::Store`] for the scratch folder.
pub fn prove(
    context: &Context,
    set: &BackupSet,
    continued: &Continuation,
    scratch: &Path,
) -> Result<Proven> {
    let mut proven = unproven(set, continued);
    if !continued.is_provable()? {
        return Ok(proven);
    }
    proven.why = None;
    let proof = continued.proofs.first();
    if let Some(proof) = proof {
        proven.to = proof.revision;
        proven.backup = Some(proof.backup.clone());
    }
    let (name, to) = (&set.name, proven.to);
    let note = format!("proving the changes from {name} to revision {to}");
    context.tell(Event::Note(note));
    let here = Scratch::make(scratch, "ranges")?;
    let extension = Extension {
        dir: &continued.dir,
        until: proven.to,
        leases_at: proven.to,
        cluster: ClusterId::from_hex(&continued.cluster_id),
        proof,
    };
    let came = copied(set, &here.path().join("db"))
        .and_then(|mut out| extend(&mut out, continued.from, &extension, &Quiet(context)));
    match came {
        Ok(extended) => {
            proven.hashkv = HashKvFound::Equal;
            proven.etcd_revision = extended.etcd_revision;
        }
        Err(failure) if matches!(failure.kind(), Kind::Interrupted | Kind::Store) => {
            return Err(failure);
        }
        Err(failure) => {
            if failure.kind() == Kind::Refused {
                proven.hashkv = HashKvFound::Different;
            }
            proven.why = Some(failure.to_string());
        }
    }
    Ok(proven)
}

/// A continuation that no later backup proves.
pub fn unproven(set: &BackupSet, continued: &Continuation) -> Proven {
    Proven {
        base: set.name.clone(),
        from: continued.from,
        to: continued.until,
        hashkv: HashKvFound::NotChecked,
        backup: None,
        etcd_revision: None,
        why: Some("no later good backup has them".to_owned()),
    }
}

/// A copy of a backup's database.
fn copied(set: &BackupSet, to: &Path) -> Result<OutFile> {
    let without = || Failure::new(Kind::BadBackup, format!("{} has no snapshot", set.name));
    let path = set.files.snapshot.as_deref().ok_or_else(without)?;
    let reading = || format!("reading {}", path.display());
    let source = FileSource::open(path).doing(Kind::NotChecked, reading)?;
    let data = Shape::of(source.size()).data(source.size());
    let metas = Metas::of_file(&source, data).doing(Kind::NotChecked, reading)?;
    let length = metas.and_then(|metas| metas.chosen.database_size());
    // What is copied has no trailer: the changes go behind its last page.
    let Some(length) = length.filter(|length| *length <= data) else {
        let what = format!("{} has no whole database", path.display());
        return Err(Failure::new(Kind::BadBackup, what));
    };
    space(to.parent().unwrap_or(to))?.check(length, "the proof")?;
    let copy = || -> std::io::Result<OutFile> {
        let from = File::open(path)?;
        let mut out = OutFile::create(to)?;
        if !out.clone_from(&from, length)? {
            std::io::copy(&mut std::io::Read::take(from, length), &mut out)?;
        }
        Ok(out)
    };
    copy().doing(Kind::Store, || {
        format!("copying {} to {}", path.display(), to.display())
    })
}

/// Reports nothing, and stops when it is asked to.
struct Quiet<'a>(&'a Context);

impl Watch for Quiet<'_> {
    fn begin(&self, _: Phase, _: u64) {}
    fn progress(&self, _: Phase, _: u64) {}
    fn done(&self, _: Phase, _: u64) {}
    fn stopped(&self) -> bool {
        self.0.cancel.is_cancelled()
    }
}
