//! The keys that a tail touches: the newest version of each, read from the database and changed by the tail.
//!
//! One pass over the tail gives the keys that it names, another one over the database those that are in it. Both are
//! sorted by key and become a table, whose memory is bounded ([`Slots`]). Besides the keys that are named there are
//! those of ranges, and those of the leases that are revoked.

use std::collections::BTreeSet;
use std::ops::Range;

use super::base::Base;
use super::interest::{Interest, sorter};
use super::kept::Kept;
use super::leases::Leases;
use super::live::{Live, Place};
use super::slots::Slots;
use crate::error::{Failure, Kind, Result};
use crate::etcd::bbolt::{Order, ReadAt};
use crate::etcd::keyspace::{Database, Row, Sorted, ValueAt, read_value};
use crate::etcd::proto::kv::Span;

/// Versions read between two looks whether to stop.
const STEP: u32 = 1024;

/// The keys that a tail touches.
pub(super) struct Touched<'a> {
    database: &'a dyn ReadAt,
    slots: Slots<'a>,
    /// Leases that are revoked, with the ordinals of the keys that are attached to them.
    attached: BTreeSet<(i64, u32)>,
    revoked: BTreeSet<i64>,
    values: Option<Kept<'a>>,
    /// The key that was looked up last, and its ordinal.
    last: (Vec<u8>, u32),
}

impl<'a> Touched<'a> {
    /// Reads what the tail depends on.
    pub(super) fn read(
        base: &Base<'a>,
        mut interest: Interest<'a>,
        leases: &Leases,
    ) -> Result<Self> {
        interest.end();
        let database = Database::open(base.database)?;
        if !interest.leases.is_empty() {
            // A later version of the key may have another lease, or none, so that all of them are needed.
            walk(
                base,
                &database,
                &mut |key, row| match interest.leases.contains(&row.lease) {
                    true => interest.point(key),
                    false => Ok(()),
                },
            )?;
        }
        let mut found = sorter(base.scratch);
        walk(base, &database, &mut |key, row| match interest.takes(key) {
            true => found.push(key, row),
            false => Ok(()),
        })?;
        let mut touched = Self {
            database: base.database,
            slots: Slots::new(base.scratch),
            attached: BTreeSet::new(),
            revoked: interest.leases,
            values: interest.values.then(|| Kept::new(base.scratch)),
            last: (Vec::new(), 0),
        };
        touched.fill(interest.names.sorted(0)?, found.sorted(0)?, leases)?;
        Ok(touched)
    }

    /// Puts the keys that are named and those that were found into the table.
    fn fill(&mut self, mut names: Sorted, mut found: Sorted, leases: &Leases) -> Result<()> {
        let mut name = names.next_row()?;
        let mut key = found.next_row()?;
        loop {
            match (name, key) {
                (None, None) => break,
                (Some((named, _)), None) => {
                    self.slots.push(named, None)?;
                    (name, key) = (names.next_row()?, None);
                }
                (Some((named, _)), Some((met, _))) if named < met => {
                    self.slots.push(named, None)?;
                    name = names.next_row()?;
                }
                (_, Some((met, row))) => {
                    self.add(met, &row, leases)?;
                    if name.is_some_and(|(named, _)| named == met) {
                        name = names.next_row()?;
                    }
                    key = found.next_row()?;
                }
            }
        }
        self.slots.made()
    }

    fn add(&mut self, key: &[u8], row: &Row, leases: &Leases) -> Result<()> {
        let ValueAt { offset, len } = row.value_at();
        let live = (row.version != 0).then_some(Live {
            create: row.create_revision,
            modified: row.mod_revision,
            version: row.version,
            lease: row.lease,
            value: match self.values {
                Some(_) => Place::Database(offset, len),
                None => Place::Unknown,
            },
        });
        let ordinal = self.slots.push(key, live.as_ref())?;
        // A key is not attached to a lease that was not there when the server began.
        if let Some(live) = live.filter(|live| leases.has(live.lease)) {
            self.attach(live.lease, ordinal);
        }
        Ok(())
    }

    fn attach(&mut self, lease: i64, ordinal: u32) {
        if self.revoked.contains(&lease) {
            self.attached.insert((lease, ordinal));
        }
    }

    fn detach(&mut self, lease: i64, ordinal: u32) {
        if !self.attached.is_empty() {
            self.attached.remove(&(lease, ordinal));
        }
    }

    // ---- looking up ----------------------------------------------------------------------------

    fn ordinal(&mut self, key: &[u8]) -> Result<u32> {
        if self.last.0 == key && !key.is_empty() {
            return Ok(self.last.1);
        }
        match self.slots.search(key)? {
            (ordinal, true) => {
                self.last.0.clear();
                self.last.0.extend_from_slice(key);
                self.last.1 = ordinal;
                Ok(ordinal)
            }
            _ => {
                let what = "a key that the tail of the WAL names was not read";
                Err(Failure::new(Kind::Unexpected, what))
            }
        }
    }

    /// A key that the tail names, if it is alive.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Live>> {
        let ordinal = self.ordinal(key)?;
        self.slots.state(ordinal)
    }

    /// The ordinals of the keys of a span, alive or not.
    pub(super) fn span(&mut self, span: &Span<'_>) -> Result<Range<u32>> {
        match span.end {
            None => {
                let (at, found) = self.slots.search(span.key)?;
                Ok(at..at + u32::from(found))
            }
            Some(end) if !end.is_empty() && end <= span.key => Ok(0..0),
            Some(end) => {
                let (first, _) = self.slots.search(span.key)?;
                let after = match end {
                    [] => self.slots.len(),
                    end => self.slots.search(end)?.0,
                };
                Ok(first..after)
            }
        }
    }

    /// The state of an ordinal.
    pub(super) fn state(&mut self, ordinal: u32) -> Result<Option<Live>> {
        self.slots.state(ordinal)
    }

    /// The state of an ordinal, and its key.
    pub(super) fn entry(&mut self, ordinal: u32, key: &mut Vec<u8>) -> Result<Option<Live>> {
        self.slots.get(ordinal, key)
    }

    /// The ordinals of the keys that are attached to a lease that the tail revokes, in the order of their keys.
    pub(super) fn attached(&self, lease: i64) -> Vec<u32> {
        let keys = self.attached.range((lease, 0)..=(lease, u32::MAX));
        keys.map(|(_, ordinal)| *ordinal).collect()
    }

    /// The value of a key; `None` if values are not looked at.
    pub(super) fn value(&self, live: &Live) -> Result<Option<Vec<u8>>> {
        match (live.value, &self.values) {
            (Place::Database(offset, len), _) => {
                read_value(self.database, ValueAt { offset, len }).map(Some)
            }
            (Place::Kept(at, len), Some(values)) => values.read(at, len).map(Some),
            _ => Ok(None),
        }
    }

    // ---- changing ------------------------------------------------------------------------------

    /// Sets a key that the tail names: `before` is what it was.
    pub(super) fn put(
        &mut self,
        key: &[u8],
        before: Option<&Live>,
        mut live: Live,
        value: &[u8],
    ) -> Result<()> {
        let ordinal = self.ordinal(key)?;
        if let Some(values) = &mut self.values {
            let (at, len) = values.push(value)?;
            live.value = Place::Kept(at, len);
        }
        if let Some(before) = before {
            self.detach(before.lease, ordinal);
        }
        if live.lease != 0 {
            self.attach(live.lease, ordinal);
        }
        self.slots.set(ordinal, Some(&live))
    }

    /// Removes the key of an ordinal.
    pub(super) fn remove(&mut self, ordinal: u32, before: &Live) -> Result<()> {
        self.detach(before.lease, ordinal);
        self.slots.set(ordinal, None)
    }
}

/// Shows every version of the database, the newest first.
fn walk(
    base: &Base<'_>,
    database: &Database<'_>,
    take: &mut dyn FnMut(&[u8], Row) -> Result<()>,
) -> Result<()> {
    let mut seen = 0u32;
    database.walk(Order::Descending, &mut |version| {
        seen = seen.wrapping_add(1);
        if seen.is_multiple_of(STEP) {
            (base.stop)()?;
        }
        take(version.key, Row::of(version, None))?;
        Ok(true)
    })
}
