//! The small objects of a set's folder.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::index::MAX_BYTES;
use crate::backup::signature;
use crate::error::{Kind, Result};
use crate::store::objects::{self, Store};

/// The objects of one set's folder: names within it, and sizes.
pub(super) type Folder = BTreeMap<String, u64>;

/// Reads a signature; one that is too long to be one is read as empty, and fits nothing.
pub(super) async fn signature(
    store: &dyn Store,
    folder: &str,
    name: &str,
) -> Result<Option<Vec<u8>>> {
    or_unfitting(read(store, folder, name, signature::MAX_BYTES).await)
}

pub(super) fn or_unfitting(signature: Result<Option<Vec<u8>>>) -> Result<Option<Vec<u8>>> {
    match signature {
        Err(failure) if failure.kind() == Kind::BadBackup => Ok(Some(Vec::new())),
        other => other,
    }
}

/// Reads a small object of a folder.
pub(super) async fn read(
    store: &dyn Store,
    folder: &str,
    name: &str,
    most: u64,
) -> Result<Option<Vec<u8>>> {
    objects::read_small(store, &format!("{folder}/{name}"), most).await
}

/// What was read, where an object that is too long for what it should be counts as none.
///
/// # Errors
/// [`Kind::Store`]
pub(super) fn unless_bad(read: Result<Option<Vec<u8>>>) -> Result<Option<Vec<u8>>> {
    match read {
        Err(failure) if failure.kind() == Kind::BadBackup => Ok(None),
        other => other,
    }
}

/// A small document of a folder; `None` if it does not exist or is not a document of this type.
///
/// # Errors
/// [`Kind::Store`]
pub(super) async fn document<T: DeserializeOwned>(
    store: &dyn Store,
    folder: &str,
    name: &str,
) -> Result<Option<T>> {
    let bytes = unless_bad(read(store, folder, name, MAX_BYTES).await)?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
