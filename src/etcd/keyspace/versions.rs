//! The versions of one key.

use super::database::{Database, Version};
use super::value::ValueAt;
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
