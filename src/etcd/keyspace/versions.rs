//! The versions of one key.

use super::database::{Database, Version};
use super::value::{ValueAt, read_value};
use crate::error::Result;
use crate::etcd::bbolt::Order;
use crate::etcd::mvcc::KvRevision;

/// A version of a key, apart from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Its revision.
    pub revision: KvRevision,
    /// Whether it is a deletion.
    pub tombstone: bool,
    /// Revision at which this life of the key began; 0 in a deletion.
    pub create_revision: i64,
    /// Puts since it was created; 0 in a deletion.
    pub version: i64,
    /// Where the value is.
    pub value: ValueAt,
}

impl From<&Version<'_>> for At {
    fn from(version: &Version<'_>) -> Self {
        Self {
            revision: version.revision,
            tombstone: version.tombstone,
            create_revision: version.create_revision,
            version: version.version,
            value: version.value_at,
        }
    }
}

/// The latest version of a key at a revision (by default the current one); none where it is deleted or was never
/// there. Reads from the newest revision backwards and stops at the first that it meets.
///
/// # Errors
/// As [`super::Keyspace::read`].
pub fn find(
    database: &Database<'_>,
    key: &[u8],
    revision: Option<i64>,
) -> Result<Option<(At, Vec<u8>)>> {
    let (at, _) = database.at(revision)?;
    let mut found: Option<At> = None;
    database.walk(Order::Descending, &mut |version| {
        if version.key == key && at.is_none_or(|at| version.revision.main <= at) {
            found = Some(version.into());
        }
        Ok(found.is_none())
    })?;
    match found.filter(|found| !found.tombstone) {
        Some(found) => Ok(Some((found, read_value(database.source(), found.value)?))),
        None => Ok(None),
    }
}

/// Every version that the database still holds of the keys that are wanted, oldest first, deletions included.
///
/// # Errors
/// As [`super::Keyspace::read`].
pub fn versions(
    database: &Database<'_>,
    wants: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<(Vec<u8>, At)>> {
    let mut found = Vec::new();
    database.walk(Order::Ascending, &mut |version| {
        if wants(version.key) {
            found.push((version.key.to_vec(), version.into()));
        }
        Ok(true)
    })?;
    Ok(found)
}
