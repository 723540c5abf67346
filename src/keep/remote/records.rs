//! The records of what was pruned, in a store away from the node.

use super::catalog;
use crate::backup::signature::SigningKey;
use crate::error::Result;
use crate::keep::catalog::BackupSet;
use crate::keep::chain::record::{self, MAX_BYTES, PruneRecord, Records};
use crate::keep::trust::Trust;
use crate::store::objects::{self, Store};

/// Everything that the chains of a store are checked by: its sets, and what was pruned as far as the records
/// count.
///
/// # Errors
/// Those of the store.
pub async fn chains(
    store: &dyn Store,
    below: &str,
    trust: &Trust,
) -> Result<(Vec<BackupSet>, Records)> {
    let listing = catalog::listing(store, below).await?;
    let records = read(store, &listing.records, trust).await?;
    Ok((listing.sets, records))
}

/// What records say, as far as they count.
///
/// # Errors
/// Those of the store. What is too long to be a record says nothing.
pub(super) async fn read(store: &dyn Store, names: &[String], trust: &Trust) -> Result<Records> {
    let mut records = Records::default();
    for name in names {
        let Some((folder, last)) = name.rsplit_once('/') else {
            continue;
        };
        let bytes = catalog::unless_bad(catalog::read(store, folder, last, MAX_BYTES).await)?;
        let Some(bytes) = bytes else { continue };
        let signature = catalog::signature(store, folder, &signature_of(last)).await?;
        records.add(&bytes, signature.as_deref(), trust);
    }
    Ok(records)
}

/// Puts a record into a folder, and then removes those of the folder that it takes over from. A store
/// that keeps them is no reason to fail: they say nothing wrong.
///
/// # Errors
/// If it cannot be put: then nothing may be removed that it names.
pub(super) async fn replace(
    store: &dyn Store,
    folder: &str,
    record: &PruneRecord,
    key: Option<&SigningKey>,
    old: &[String],
) -> Result<()> {
    let bytes = record.to_bytes()?;
    let name = format!("{folder}/{}", record::name(&bytes));
    if let Some(key) = key {
        objects::put(store, &signature_of(&name), key.sign(&bytes)?).await?;
    }
    objects::put(store, &name, bytes).await?;
    let of_folder = |other: &&String| {
        **other != name
            && other
                .rsplit_once('/')
                .is_some_and(|(place, _)| place == folder)
    };
    for old in old.iter().filter(of_folder) {
        let removed = store.remove(old).await;
        if removed.is_err() || store.remove(&signature_of(old)).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn signature_of(record: &str) -> String {
    format!("{record}{}", record::SIGNATURE)
}
