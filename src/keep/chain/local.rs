//! The records of what was pruned, in the directory of a store.

use std::path::{Path, PathBuf};

use super::record::{self, MAX_BYTES, PruneRecord, Records};
use crate::backup::signature::{self, SigningKey};
use crate::error::Result;
use crate::keep::trust::Trust;
use crate::store::local;
use crate::sys::fs;
use crate::sys::small;

/// What the records of a directory say, as far as they count, and their files.
///
/// # Errors
/// If the directory cannot be listed, or a record not be read.
pub fn read(dir: &Path, trust: &Trust) -> Result<(Records, Vec<PathBuf>)> {
    let mut records = Records::default();
    let mut files = Vec::new();
    for entry in local::entries(dir)? {
        if entry.is_dir || !record::is_record(&entry.name) {
            continue;
        }
        let Some(bytes) = small::read(&entry.path, MAX_BYTES)? else {
            continue;
        };
        let signature = small::read(&signature_of(&entry.path), signature::MAX_BYTES)?;
        records.add(&bytes, signature.as_deref(), trust);
        files.push(entry.path);
    }
    Ok((records, files))
}

/// Writes a record, durably, and then removes those that it takes over from.
///
/// # Errors
/// If it cannot be written: then nothing may be removed that it names.
pub fn replace(
    dir: &Path,
    record: &PruneRecord,
    key: Option<&SigningKey>,
    old: &[PathBuf],
) -> Result<()> {
    let bytes = record.to_bytes()?;
    let path = dir.join(record::name(&bytes));
    // The signature first: where signatures count, a record without one says nothing.
    if let Some(key) = key {
        fs::write_atomic(&signature_of(&path), key.sign(&bytes)?.as_bytes())?;
    }
    fs::write_atomic(&path, &bytes)?;
    for old in old.iter().filter(|old| **old != path) {
        for gone in [old.clone(), signature_of(old)] {
            if gone.symlink_metadata().is_ok() {
                fs::unlink(&gone)?;
            }
        }
    }
    Ok(())
}

fn signature_of(record: &Path) -> PathBuf {
    let mut name = record.as_os_str().to_owned();
    name.push(record::SIGNATURE);
    PathBuf::from(name)
}
