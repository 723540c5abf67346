//! What one entry of a store is: a set of ours, a script's pair, or a snapshot by itself.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::set::{BackupSet, SetSignature, SetState, Shared};
use crate::backup::Manifest;
use crate::backup::foreign;
use crate::backup::manifest::{MAX_BYTES, QualityState};
use crate::backup::names::{self, FileKind, Stamp, recognise};
use crate::backup::signature;
use crate::error::{Doing, Kind, Result};
use crate::store::local::{self, LATEST, StoreEntry};
use crate::sys::small;

/// A directory called `backup-N`.
pub(super) fn numbered(entry: &StoreEntry, latest: bool) -> BackupSet {
    let mut set = BackupSet::at(entry.name.clone(), &entry.path, SetState::Incomplete);
    set.latest = latest;
    // Whatever is under that name, the operator's wish holds.
    set.pinned = entry.path.join(names::PINNED).symlink_metadata().is_ok();
    let path = entry.path.join(names::MANIFEST);
    match read_manifest(&path) {
        Ok(Some((manifest, bytes))) => {
            adopt(&mut set, manifest);
            set.arrived = arrived(&path);
            sign(&mut set, &bytes);
        }
        Ok(None) => return without_manifest(entry, set),
        Err(failure) => {
            set.problems.push(failure.to_string());
            // Its files can still be read by their names.
            if let Ok([found]) = <[BackupSet; 1]>::try_from(files_of(entry)) {
                (set.files, set.size) = (found.files, found.size);
            }
        }
    }
    let shared = small::read(&entry.path.join(names::SHARED), MAX_BYTES).ok();
    // It tells of a saving: what cannot be read tells of none.
    set.shared = shared
        .flatten()
        .and_then(|bytes| serde_json::from_slice::<Shared>(&bytes).ok())
        .map(|shared| shared.bytes);
    match read_record(&entry.path.join(names::VERIFIED)) {
        Ok(verified) => set.verified = verified,
        Err(failure) => set.problems.push(failure.to_string()),
    }
    match read_record(&entry.path.join(names::REHEARSED)) {
        Ok(rehearsed) => set.rehearsed = rehearsed,
        Err(failure) => set.problems.push(failure.to_string()),
    }
    set
}

/// When a Manifest was written here.
fn arrived(manifest: &Path) -> Option<Timestamp> {
    let modified = manifest.symlink_metadata().ok()?.modified().ok()?;
    modified.try_into().ok()
}

/// Reads the signature beside a Manifest. One that cannot be read fits nothing.
fn sign(set: &mut BackupSet, manifest: &[u8]) {
    let path = set.dir.join(names::SIGNATURE);
    match small::read(&path, signature::MAX_BYTES) {
        Ok(signature) => set.signed(manifest, signature.as_deref()),
        Err(failure) => {
            set.signed(manifest, None);
            set.signature = SetSignature::Bad(failure.to_string());
        }
    }
}

/// Takes over what a Manifest says, and holds it against the files' presence and sizes.
fn adopt(set: &mut BackupSet, manifest: Manifest) {
    for file in &manifest.files {
        let path = set.dir.join(&file.name);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if !meta.is_file() => set
                .problems
                .push(format!("{} is not a plain file", file.name)),
            Ok(meta) if meta.len() != file.size => {
                set.problems.push(format!(
                    "{} has {} bytes, but the Manifest says {}",
                    file.name,
                    meta.len(),
                    file.size
                ));
            }
            Ok(_) => {}
            Err(e) => set.problems.push(format!("{}: {e}", file.name)),
        }
        match file.kind {
            FileKind::Snapshot => set.files.snapshot = Some(path),
            FileKind::Resources => set.files.resources = Some(path),
            FileKind::Certificates => set.files.certificates = Some(path),
            FileKind::Environment | FileKind::Sums => {}
        }
    }
    set.size = manifest.total_size();
    set.created = Some(manifest.created);
    set.state = match (set.problems.is_empty(), manifest.quality.state) {
        (false, _) => SetState::Incomplete,
        (true, QualityState::Good) => SetState::Good,
        (true, QualityState::Dirty) => SetState::Dirty,
    };
    set.manifest = Some(manifest);
}

/// The files of a directory, by their names alone.
fn files_of(entry: &StoreEntry) -> Vec<BackupSet> {
    local::entries(&entry.path)
        .map(|inside| group(&entry.path, "", &inside))
        .unwrap_or_default()
}

/// `backup-N` with no Manifest: a script's pair, or what is left of a set.
fn without_manifest(entry: &StoreEntry, mut set: BackupSet) -> BackupSet {
    match <[BackupSet; 1]>::try_from(files_of(entry)) {
        Ok([pair]) if pair.files.resources.is_some() && pair.files.snapshot.is_some() => {
            BackupSet {
                name: set.name,
                latest: set.latest,
                pinned: set.pinned,
                ..pair
            }
        }
        _ => {
            set.problems.push(format!("it has no {}", names::MANIFEST));
            set
        }
    }
}

pub(super) fn staging(entry: &StoreEntry) -> BackupSet {
    BackupSet {
        size: local::entries(&entry.path)
            .map_or(0, |files| files.iter().map(|file| file.size).sum()),
        problems: vec![
            "it is being taken, or was interrupted; the next backup removes it".to_owned(),
        ],
        ..BackupSet::at(entry.name.clone(), &entry.path, SetState::Incomplete)
    }
}

/// What other programs left in a directory of the store.
pub(super) fn of_others(dir: &Path, name: &str) -> Result<Vec<BackupSet>> {
    let inside = match local::entries(dir) {
        Ok(inside) => inside,
        Err(failure) if failure.io_kind() == Some(std::io::ErrorKind::PermissionDenied) => {
            return Ok(Vec::new());
        }
        Err(failure) => return Err(failure),
    };
    let mut sets = group(dir, name, &inside);
    if let [one] = sets.as_mut_slice() {
        one.name = name.to_owned();
    }
    Ok(sets)
}

/// Pairs the files of one directory by their stamp.
pub(super) fn group(dir: &Path, prefix: &str, entries: &[StoreEntry]) -> Vec<BackupSet> {
    let mut pairs: BTreeMap<Stamp, Vec<(FileKind, &StoreEntry)>> = BTreeMap::new();
    let mut sets = Vec::new();
    let named = |name: &str| {
        if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}/{name}")
        }
    };
    for entry in entries
        .iter()
        .filter(|entry| !entry.is_dir && entry.name != LATEST)
    {
        match recognise(&entry.name) {
            Some((kind, stamp)) => pairs.entry(stamp).or_default().push((kind, entry)),
            None if is_snapshot(&entry.name) => {
                sets.push(bare(&entry.path, named(&entry.name), entry.size));
            }
            None => {}
        }
    }
    for (stamp, files) in pairs {
        let mut set = BackupSet {
            created: stamp.as_utc(),
            size: files.iter().map(|(_, entry)| entry.size).sum(),
            marked_dirty: stamp.is_dirty(),
            ..BackupSet::at(named(&stamp.to_string()), dir, SetState::Foreign)
        };
        for (kind, entry) in files {
            let place = match kind {
                FileKind::Snapshot => &mut set.files.snapshot,
                FileKind::Resources => &mut set.files.resources,
                _ => &mut set.files.certificates,
            };
            *place = Some(entry.path.clone());
        }
        if set.files.snapshot.is_none() {
            set.state = SetState::Incomplete;
            set.problems
                .push(format!("{} is missing", stamp.snapshot()));
        } else if set.files.resources.is_none() {
            set.problems
                .push(format!("{} is missing", stamp.resources()));
        }
        sets.push(set);
    }
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    sets
}

/// A snapshot by itself.
pub(super) fn bare(path: &Path, name: String, size: u64) -> BackupSet {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut set = BackupSet::at(name, dir, SetState::Foreign);
    set.size = size;
    set.files.snapshot = Some(path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    set.created = foreign::recognise(&name).and_then(|found| found.created);
    set
}

/// Whether a file is a snapshot by its name, of whatever program.
fn is_snapshot(name: &str) -> bool {
    let plain = name.ends_with(".db") && !name.starts_with('.');
    plain || foreign::recognise(name).is_some()
}

fn read_manifest(path: &Path) -> Result<Option<(Manifest, Vec<u8>)>> {
    match small::read(path, MAX_BYTES)? {
        Some(bytes) => Manifest::from_bytes(&bytes, path).map(|manifest| Some((manifest, bytes))),
        None => Ok(None),
    }
}

/// Reads what was learnt of a set after it was taken.
fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match small::read(path, MAX_BYTES)? {
        Some(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .doing(Kind::BadBackup, || format!("reading {}", path.display())),
        None => Ok(None),
    }
}
