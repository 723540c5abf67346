//! The entries of a small bucket, and the edit that leads from one set of them to another.

use std::collections::BTreeMap;

use super::base::Base;
use crate::error::Result;
use crate::etcd::bbolt::write::{Edit, small_bucket};

/// Entries of a small bucket by key.
pub(super) type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// What makes one set of entries of another.
pub(super) fn difference(before: &Entries, after: &Entries) -> Edit {
    Edit {
        clear: false,
        remove: before
            .keys()
            .filter(|key| !after.contains_key(*key))
            .cloned()
            .collect(),
        put: after
            .iter()
            .filter(|(key, value)| before.get(*key) != Some(value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}

pub(super) fn bucket(base: &Base<'_>, name: &str) -> Result<Entries> {
    let size = base.database.size();
    let entries = small_bucket(base.database, size, base.meta, name.as_bytes())?;
    Ok(entries.into_iter().collect())
}
