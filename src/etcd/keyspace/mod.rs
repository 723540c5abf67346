//! The keys of a store as they were at a revision, found without decoding their values.
//!
//! The bucket `key` is ordered by revision, not by key, so that one pass over it finds the keys. The pass goes from the
//! newest revision to the oldest: the first version of a key that it meets is the key's latest, and a search
//! for one key ends there. Values stay in the file and are read one by one ([`Keyspace::value`]).
//!
//! Memory of a [`Keyspace`]: the name and some 80 bytes of each key that is wanted; of the others nothing. All keys of a store,
//! however many, are read in order by [`sorted`], whose memory is bounded.

mod database;
mod sorted;
mod sorter;
mod value;
mod versions;

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

pub use database::{Database, Head, Version};
pub use sorted::{Ask, ROOM, sorted};
pub use sorter::{Row, Sorted, Sorter};
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
    /// A hash of the value, where [`Ask::hasher`] was given; otherwise 0.
    pub hash: u64,
}

#[derive(Debug, Clone, Copy)]
struct Placed {
    name: usize,
    name_len: u32,
    value: ValueAt,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
}

/// The keys that were wanted, ascending.
pub struct Keyspace<'a> {
    source: &'a dyn ReadAt,
    names: Vec<u8>,
    rows: Vec<Placed>,
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
    /// [`Kind::Usage`] if the revision is compacted or in the future, [`Kind::BadBackup`] if the
    /// database is damaged, [`Kind::NotChecked`] if it cannot be read.
    pub fn read(
        database: &Database<'a>,
        revision: Option<i64>,
        wants: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Self> {
        let (at, current) = database.at(revision)?;
        let mut collector = Self::collector(database, at.unwrap_or(current));
        database.walk(Order::Descending, &mut |version| {
            let later = at.is_some_and(|at| version.revision.main > at);
            if !later && wants(version.key) {
                collector.take(version);
            }
            Ok(true)
        })?;
        Ok(collector.done())
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
                space.push(version);
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

    fn collector(database: &Database<'a>, revision: i64) -> Collector<'a> {
        Collector {
            space: Self::empty(database, revision),
            seen: HashSet::new(),
            keyed: (RandomState::new(), RandomState::new()),
        }
    }

    fn push(&mut self, version: &Version<'_>) {
        self.rows.push(Placed {
            name: self.names.len(),
            name_len: u32::try_from(version.key.len()).unwrap_or(u32::MAX),
            value: version.value_at,
            create_revision: version.create_revision,
            mod_revision: version.revision.main,
            version: version.version,
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
            hash: 0,
        })
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`Kind::NotChecked`] if the file cannot be read.
    pub fn value(&self, at: ValueAt) -> Result<Vec<u8>> {
        read_value(self.source, at)
    }
}

/// Takes the versions of wanted keys, newest first, and keeps the newest of each.
struct Collector<'a> {
    space: Keyspace<'a>,
    /// The keys that were met, by 128 bits of keyed hashes, which nobody can make collide.
    seen: HashSet<u128>,
    keyed: (RandomState, RandomState),
}

impl<'a> Collector<'a> {
    fn take(&mut self, version: &Version<'_>) {
        // 128 bits of two random hashes stand for a key: no two keys will have the same.
        let (first, second) = &self.keyed;
        let hash = |state: &RandomState| u128::from(state.hash_one(version.key));
        if self.seen.insert(hash(first) << 64 | hash(second)) && !version.tombstone {
            self.space.push(version);
        }
    }

    fn done(mut self) -> Keyspace<'a> {
        let Keyspace { names, rows, .. } = &mut self.space;
        rows.sort_unstable_by(|a, b| name(names, a).cmp(name(names, b)));
        self.space
    }
}

fn name<'n>(names: &'n [u8], row: &Placed) -> &'n [u8] {
    names
        .get(row.name..row.name + row.name_len as usize)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
