//! Makes and removes directories and trees for steps; each call can be repeated.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::context::StepContext;
use super::data::MEMBER;
use crate::error::{Doing, Kind, Result};
use crate::etcd::restore::HIDDEN as UNFINISHED;
use crate::sys::fs;
use crate::sys::label::{label, relabel};
use crate::sys::listing::entries;
use crate::sys::owner::Owner;

/// Makes the missing ones of these directories durably, parents first.
pub(crate) fn make_folders(node: &StepContext, folders: &[PathBuf]) -> Result<()> {
    let folders: Vec<PathBuf> = folders.iter().map(|path| node.host(path)).collect();
    for folder in &folders {
        make_folder(folder)?;
    }
    // Also above those that were there: a killed attempt may have made them without an fsync.
    sync_above(&folders)
}

/// Removes the empty ones of these directories: the others are used by something else, too.
pub(crate) fn unmake_folders(node: &StepContext, folders: &[PathBuf]) -> Result<()> {
    for folder in folders.iter().rev() {
        fs::remove_empty_dir(&node.host(folder))?;
    }
    Ok(())
}

/// Makes a directory if it does not exist; its parent is not fsynced.
fn make_folder(path: &Path) -> Result<()> {
    match fs::mkdir(path) {
        Err(failure)
            if failure.io_kind() == Some(std::io::ErrorKind::AlreadyExists) && path.is_dir() =>
        {
            Ok(())
        }
        made => made,
    }
}

/// Removes a tree durably; if an interrupted process has removed it already, makes that durable.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        fs::remove_tree(path)?;
    }
    sync_above(&[path.to_owned()])
}

/// Fsyncs the parent directories of these entries, each once, if they exist.
pub(super) fn sync_above(paths: &[PathBuf]) -> Result<()> {
    let dirs: BTreeSet<&Path> = paths.iter().map(|path| fs::parent(path)).collect();
    dirs.into_iter()
        .filter(|dir| dir.is_dir())
        .try_for_each(fs::sync_dir)
}

/// Removes what was built, or as much of it as there is.
pub(super) fn unbuild(into: &Path) -> Result<()> {
    remove_if_there(into)?;
    remove_unfinished(fs::parent(into))
}

/// Removes what an interrupted build left beside its target.
fn remove_unfinished(dir: &Path) -> Result<()> {
    let doing = || format!("listing {}", dir.display());
    for entry in entries(dir).doing(Kind::Store, doing)? {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// Empties a directory, if it is there.
pub(crate) fn clear(dir: &Path) -> Result<()> {
    let doing = || format!("listing {}", dir.display());
    if !dir.try_exists().doing(Kind::Store, doing)? {
        return Ok(());
    }
    for entry in entries(dir).doing(Kind::Store, doing)? {
        if entry.file_type().doing(Kind::Store, doing)?.is_dir() {
            fs::remove_tree(&entry.path())?;
        } else {
            fs::unlink(&entry.path())?;
        }
    }
    fs::sync_dir(dir)
}

/// Gives what was built to whom etcd's data belongs.
pub(super) fn own_as(owner: Option<Owner>, built: &Path) -> Result<()> {
    match owner {
        Some(owner) => owner.give(&built.join(MEMBER)),
        None => Ok(()),
    }
}

/// Gives the new data the SELinux label of the directory that it goes to, if that has one.
pub(super) fn label_as(place: &Path, built: &Path) -> Result<()> {
    match label(place)? {
        Some(wanted) if label(built)?.as_ref() != Some(&wanted) => relabel(built, &wanted),
        _ => Ok(()),
    }
}
