//! Reading objects of an open database.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Instant;

use crate::context::Cancel;
use crate::error::{Doing, Kind, Result};
use crate::etcd::bbolt::FileSource;
use crate::etcd::keyspace::{Database, Key, Keyspace, read_value};
use crate::keep::database::Stoppable;
use crate::keep::encryption;
use crate::objects::atrest::{Keys, Locked};
use crate::objects::kinds::Kinds;
use crate::objects::{Object, Unread, decode};

use super::source::Source;

/// Where CustomResourceDefinitions are, after the prefix.
const DEFINITIONS: &str = "/apiextensions.k8s.io/customresourcedefinitions/";

/// An open file, whose reading ends once the operator wants it to stop.
pub struct Opened {
    file: Stoppable,
    source: Source,
}

impl Opened {
    /// Opens a database.
    ///
    /// # Errors
    /// [`Kind::NotChecked`] if it cannot be opened.
    pub fn open(source: Source, cancel: &Cancel) -> Result<Self> {
        let doing = || format!("opening {}", source.database.display());
        let file = FileSource::open(&source.database).doing(Kind::NotChecked, doing)?;
        let file = Stoppable::new(file, cancel.clone());
        Ok(Self { file, source })
    }

    /// The same, which is read until a moment and no longer.
    pub fn until(mut self, end: Instant) -> Self {
        self.file = self.file.until(end);
        self
    }

    /// What is open.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

/// Reads the objects of a database, with the keys that it needs.
pub struct Reader<'a> {
    /// The database.
    pub database: Database<'a>,
    /// The kinds that are known so far.
    pub kinds: Kinds,
    source: &'a Source,
    archives: Vec<PathBuf>,
    keys: RefCell<SearchedKeys>,
}

/// The archives and the database are searched for keys only when one is missing.
struct SearchedKeys {
    keys: Keys,
    searched: bool,
}

/// What is under a key.
pub type Found = std::result::Result<Object, Unread>;

impl<'a> Reader<'a> {
    /// A reader with the keys that were given.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn new(opened: &'a Opened, given: Keys) -> Result<Self> {
        let doing = || format!("reading {}", opened.source.name);
        Ok(Self {
            database: Database::open(&opened.file).map_err(|failure| failure.doing(doing()))?,
            kinds: Kinds::default(),
            source: &opened.source,
            archives: opened.source.archives.clone(),
            keys: RefCell::new(SearchedKeys {
                keys: given,
                searched: false,
            }),
        })
    }

    /// Searches another backup's archives for keys, too: of the same cluster, one has what the other lacks.
    pub fn search_also(&mut self, other: &Source) {
        self.archives.extend(other.archives.iter().cloned());
    }

    /// What is read.
    pub fn source(&self) -> &Source {
        self.source
    }

    /// Learns the kinds of the database's CustomResourceDefinitions.
    ///
    /// # Errors
    /// As [`Keyspace::read`].
    pub fn learn_kinds(&mut self) -> Result<()> {
        let space = Keyspace::read(&self.database, None, &is_definition)?;
        self.learn_from(&space)
    }

    /// The same from keys that were read already.
    ///
    /// # Errors
    /// As [`Keyspace::value`].
    pub fn learn_from(&mut self, space: &Keyspace<'_>) -> Result<()> {
        for key in space.keys().filter(|key| is_definition(key.name)) {
            // One that cannot be read defines nothing; its objects have their group in the key.
            if let Ok(definition) = self.read(key.name, &space.value(key.value)?)? {
                self.kinds.define(&definition.json);
            }
        }
        Ok(())
    }

    /// The names of all keys. Learns the kinds, too.
    ///
    /// # Errors
    /// As [`Keyspace::read`].
    pub fn keys_and_kinds(&mut self) -> Result<Vec<Vec<u8>>> {
        let space = Keyspace::read(&self.database, None, &|_| true)?;
        self.learn_from(&space)?;
        Ok(space.keys().map(|key| key.name.to_vec()).collect())
    }

    /// The object under a key, with its resourceVersion.
    ///
    /// # Errors
    /// If the database or an archive cannot be read. An object that cannot be shown is not an error.
    pub fn object(&self, key: &Key<'_>) -> Result<Found> {
        let found = self.read(key.name, &read_value(self.database.source(), key.value)?)?;
        Ok(found.map(|object| at_revision(object, key.mod_revision)))
    }

    /// The object that a value is.
    ///
    /// # Errors
    /// As [`Reader::object`].
    pub fn read(&self, key: &[u8], value: &[u8]) -> Result<Found> {
        let found = decode(key, value, &self.keys.borrow().keys);
        match found {
            // Another API server's key may have the name of one that was given.
            Err(Unread::Locked(Locked::NoKey { .. } | Locked::WrongKey { .. }))
                if self.search()? =>
            {
                Ok(decode(key, value, &self.keys.borrow().keys))
            }
            found => Ok(found),
        }
    }

    /// Searches for keys, once; whether that was done now.
    fn search(&self) -> Result<bool> {
        if self.keys.borrow().searched {
            return Ok(false);
        }
        self.keys.borrow_mut().searched = true;
        let archived = encryption::from_archives(&self.archives)?;
        self.keys.borrow_mut().keys.merge(archived);
        let known = self.keys.borrow().keys.clone();
        if !known.is_empty() {
            let stored = encryption::from_database(&self.database, &known)?;
            self.keys.borrow_mut().keys.merge(stored);
        }
        Ok(true)
    }
}

/// An object with its resourceVersion, as the API server answers it.
pub(super) fn at_revision(mut object: Object, revision: i64) -> Object {
    object.set_resource_version(revision);
    crate::objects::served::as_served(&mut object);
    object
}

pub(super) fn is_definition(key: &[u8]) -> bool {
    std::str::from_utf8(key).is_ok_and(|key| key.contains(DEFINITIONS))
}
