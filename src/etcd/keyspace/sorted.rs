//! All keys of a store in order, in bounded memory.
//!
//! One pass over the database gives the versions, newest first, so that the first one of each key is its newest.

use std::hash::RandomState;
use std::path::Path;

use super::Keyspace;
use super::database::Database;
use super::sorter::{Row, Sorted, Sorter};
#[cfg(doc)]
use crate::error::Kind;
use crate::error::Result;
use crate::etcd::bbolt::Order;

/// Bytes of keys and their rows that are held before they are written.
pub const ROOM: usize = 16 << 20;

/// What is read, and where what does not fit goes.
pub struct Ask<'a> {
    /// As the keys were at this revision; by default the current one.
    pub revision: Option<i64>,
    /// Which keys.
    pub wants: &'a (dyn Fn(&[u8]) -> bool + Sync),
    /// Keys that come back by themselves, too, at once.
    pub aside: &'a (dyn Fn(&[u8]) -> bool + Sync),
    /// Hashes the values. Two stores hash alike by the same state.
    pub hasher: Option<&'a RandomState>,
    /// A folder for scratch files.
    pub scratch: &'a Path,
    /// Bytes that are held: [`ROOM`], less in a test.
    pub room: usize,
}

/// Reads the keys of a store in one pass, and those that are wanted aside.
///
/// # Errors
/// As [`Keyspace::read`], and [`Kind::Store`] if the scratch file cannot be written.
pub fn sorted<'a>(database: &Database<'a>, ask: &Ask<'_>) -> Result<(Sorted, Keyspace<'a>)> {
    let (at, current) = database.at(ask.revision)?;
    let revision = at.unwrap_or(current);
    let mut aside = Keyspace::collector(database, revision);
    let mut sorter = Sorter::new(ask.room, Some(ask.scratch));
    database.walk(Order::Descending, &mut |version| {
        if at.is_some_and(|at| version.revision.main > at) {
            return Ok(true);
        }
        if (ask.aside)(version.key) {
            aside.take(version);
        }
        if (ask.wants)(version.key) {
            sorter.push(version.key, Row::of(version, ask.hasher))?;
        }
        Ok(true)
    })?;
    Ok((sorter.sorted(revision)?, aside.done()))
}
