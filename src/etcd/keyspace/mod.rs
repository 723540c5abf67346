//! The keys of a store as they were at a revision, found without decoding their values.
//!
//! The bucket `key` is ordered by revision, not by key, so that one pass over it finds the keys. The pass goes from the
//! newest revision to the oldest: the first version of a key that it meets is the key's latest, and a search
//! for one key ends there. Values stay in the file and are read one by one ([`Keyspace::value`]).
//!
//! Memory: 16 bytes a distinct key, alive or not, and the name and 56 bytes of each that is wanted. A server has
//! more of each in memory.

mod database;
mod value;
mod versions;

use std::collections::HashSet;
use std::collections::hash_map::{DefaultHasher, RandomState};
use std::hash::{BuildHasher, Hasher};

pub use database::{Database, Version};
pub use value::{ValueAt, read_value};
pub use versions::{At, versions};

use super::bbolt::{Order, ReadAt};
#[cfg(doc)]
use crate::error::Kind;
use crate::error::Result;

/// One key that is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// The key.
    pub name: &'a [u8],
    /// Revision at which this life of the key began.
    pub create_revision: i64,
    /// Revision of its latest change.
    pub mod_revision: i64,
    /// Puts since it was created.
    pub version: i64,
    /// Where its value is.
    pub value: ValueAt,
    /// A hash of the value, by [`Keyspace::hashed`]; otherwise 0.
    pub hash: u64,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    name: usize,
    name_len: u32,
    value: ValueAt,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    hash: u64,
}

/// The keys that were wanted, ascending.
pub struct Keyspace<'a> {
    source: &'a dyn ReadAt,
    names: Vec<u8>,
    rows: Vec<Row>,
    /// The revision that it shows.
    pub revision: i64,
}

impl std::fmt::Debug for Keyspace<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Keyspace({} keys at revision {})",
            self.rows.len(),
            self.revision
        )
    }
}

impl<'a> Keyspace<'a> {
    /// Reads the keys for which `wants` is true, as they were at a revision (by default the current one).
    ///
    /// # Errors
    /// [`Kind::Usage`] where the revision is compacted or in the future, [`Kind::BadBackup`] where the
    /// database is damaged, [`Kind::NotChecked`] where it cannot be read.
    pub fn read(
        database: &Database<'a>,
        revision: Option<i64>,
        wants: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Self> {
        Self::pass(database, revision, &|version| wants(version.key), false)
    }

    /// The one key for which `wants` is true: reads from the newest revision backwards and stops at the key's latest
    /// version.
    ///
    /// # Errors
    /// As [`Keyspace::read`].
    pub fn one(
        database: &Database<'a>,
        revision: Option<i64>,
        wants: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Self> {
        let (at, current) = database.at(revision)?;
        let mut space = Self::empty(database, at.unwrap_or(current));
        database.walk(Order::Descending, &mut |version| {
            let later = at.is_some_and(|at| version.revision.main > at);
            if later || !wants(version.key) {
                return Ok(true);
            }
            if !version.tombstone {
                space.push(version, false);
            }
            Ok(false)
        })?;
        Ok(space)
    }

    fn empty(database: &Database<'a>, revision: i64) -> Self {
        Self {
            source: database.source(),
            names: Vec::new(),
            rows: Vec::new(),
            revision,
        }
    }

    /// As [`Keyspace::read`] at the current revision, with a hash of each value. Two databases hash alike.
    ///
    /// # Errors
    /// As [`Keyspace::read`].
    pub fn hashed(database: &Database<'a>, wants: &dyn Fn(&[u8]) -> bool) -> Result<Self> {
        Self::pass(database, None, &|version| wants(version.key), true)
    }

    /// The keys at the current revision for whose values `wants` is true.
    ///
    /// # Errors
    /// As [`Keyspace::read`].
    pub fn by_value(database: &Database<'a>, wants: &dyn Fn(&[u8]) -> bool) -> Result<Self> {
        Self::pass(database, None, &|version| wants(version.value), false)
    }

    fn pass(
        database: &Database<'a>,
        revision: Option<i64>,
        wants: &dyn Fn(&Version<'_>) -> bool,
        hashed: bool,
    ) -> Result<Self> {
        let (at, current) = database.at(revision)?;
        let (first, second) = (RandomState::new(), RandomState::new());
        let fingerprint = |key: &[u8]| {
            let hash = |state: &RandomState| {
                let mut hasher = state.build_hasher();
                hasher.write(key);
                u128::from(hasher.finish())
            };
            hash(&first) << 64 | hash(&second)
        };
        let mut seen: HashSet<u128> = HashSet::new();
        let mut space = Self::empty(database, at.unwrap_or(current));
        database.walk(Order::Descending, &mut |version| {
            if at.is_some_and(|at| version.revision.main > at) {
                return Ok(true);
            }
            if seen.insert(fingerprint(version.key)) && !version.tombstone && wants(version) {
                space.push(version, hashed);
            }
            Ok(true)
        })?;
        let Self { names, rows, .. } = &mut space;
        rows.sort_unstable_by(|a, b| name(names, a).cmp(name(names, b)));
        Ok(space)
    }

    fn push(&mut self, version: &Version<'_>, hashed: bool) {
        let hash = if hashed { hash_of(version.value) } else { 0 };
        self.rows.push(Row {
            name: self.names.len(),
            name_len: u32::try_from(version.key.len()).unwrap_or(u32::MAX),
            value: version.value_at,
            create_revision: version.create_revision,
            mod_revision: version.revision.main,
            version: version.version,
            hash,
        });
        self.names.extend_from_slice(version.key);
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The keys, ascending.
    pub fn keys(&self) -> impl Iterator<Item = Key<'_>> {
        self.rows.iter().map(|row| Key {
            name: name(&self.names, row),
            create_revision: row.create_revision,
            mod_revision: row.mod_revision,
            version: row.version,
            value: row.value,
            hash: row.hash,
        })
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`Kind::NotChecked`] where the file cannot be read.
    pub fn value(&self, at: ValueAt) -> Result<Vec<u8>> {
        read_value(self.source, at)
    }
}

fn hash_of(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(value);
    hasher.finish()
}

fn name<'n>(names: &'n [u8], row: &Row) -> &'n [u8] {
    names
        .get(row.name..row.name + row.name_len as usize)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
