//! A database opened for its keys.

use std::io;

use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::{
    Large, Leaf, Meta, Metas, Nested, Order, Origin, ReadAt, Root, Visitor, Walker,
};
use crate::etcd::mvcc::{KeyValue, KvRevision, RevisionKey};
use crate::etcd::snapshot::{Packed, Shape};
use crate::finding::{Findings, Place};

use super::value::ValueAt;

/// One version of a key, as it is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its revision.
    pub revision: KvRevision,
    /// Whether it is a deletion. Then nothing of the rest is known.
    pub tombstone: bool,
    /// Revision at which this life of the key began.
    pub create_revision: i64,
    /// Puts since it was created.
    pub version: i64,
    /// Its lease; 0 for none.
    pub lease: i64,
    /// The value.
    pub value: &'a [u8],
    /// Where the value is in the file.
    pub value_at: ValueAt,
}

/// A snapshot, or a member's database that no etcd writes to.
#[derive(Clone, Copy)]
pub struct Database<'a> {
    source: &'a dyn ReadAt,
    head: Head,
}

/// What was read of a database to open it, apart from the file: whoever owns that keeps this beside it.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    data: u64,
    meta: Meta,
    keys: Option<Root>,
    compacted: Option<i64>,
}

impl<'a> Database<'a> {
    /// Opens a database: reads its meta pages and its small buckets.
    ///
    /// # Errors
    /// [`Kind::BadBackup`] if it is not a database or is damaged, [`Kind::NotChecked`] if it cannot be read.
    pub fn open(source: &'a dyn ReadAt) -> Result<Self> {
        let reading = || "reading the database";
        let packed = Packed::of(source).doing(Kind::NotChecked, reading)?;
        if let Some(packed) = packed {
            return Err(Failure::new(Kind::BadBackup, packed.told("FILE")));
        }
        let shape = Shape::of(source.size());
        let data = shape.data(source.size());
        let origin = match shape {
            Shape::Sealed => Origin::Streamed,
            Shape::Unsealed | Shape::Odd => Origin::File,
        };
        let mut findings = Findings::keeping(1);
        let metas =
            Metas::read(source, data, origin, &mut findings).doing(Kind::NotChecked, reading)?;
        let Some(metas) = metas else {
            return Err(damaged(&findings));
        };
        let head = Head {
            data,
            meta: metas.chosen,
            keys: None,
            compacted: None,
        };
        let mut database = Self { source, head };
        let mut top = Top::default();
        database.tree(Root::Page(metas.chosen.root), Order::Ascending, &mut top)?;
        database.head.keys = top.keys;
        if let Some(root) = top.meta {
            let mut compaction = Compaction::default();
            database.tree(root, Order::Ascending, &mut compaction)?;
            database.head.compacted = compaction.0;
        }
        Ok(database)
    }

    /// A database that was opened before, from the same file.
    pub fn again(source: &'a dyn ReadAt, head: Head) -> Self {
        Self { source, head }
    }

    /// What [`Database::again`] needs.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Where its bytes come from.
    pub fn source(&self) -> &'a dyn ReadAt {
        self.source
    }

    /// The revision it is compacted at, if it is.
    pub fn compacted(&self) -> Option<i64> {
        self.head.compacted
    }

    /// Its current revision: that of its newest entry.
    ///
    /// # Errors
    /// As [`Database::walk`].
    pub fn revision(&self) -> Result<i64> {
        let mut newest = Newest::default();
        self.entries(Order::Descending, &mut newest)?;
        // A compaction can remove the newest entry, if it is a tombstone.
        Ok(newest.0.unwrap_or(1).max(self.head.compacted.unwrap_or(1)))
    }

    /// A revision that was asked for, and the current one.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the revision is compacted or in the future.
    pub(super) fn at(&self, revision: Option<i64>) -> Result<(Option<i64>, i64)> {
        let current = self.revision()?;
        if let Some(at) = revision
            && (at > current
                || at < 1
                || self.head.compacted.is_some_and(|compacted| at < compacted))
        {
            return Err(unreachable(at, self.head.compacted, current));
        }
        Ok((revision, current))
    }

    /// Shows every version of every key in the order of revisions, until `take` returns false.
    ///
    /// # Errors
    /// [`Kind::BadBackup`] if the database is damaged, [`Kind::NotChecked`] if it cannot be read, and what
    /// `take` returns.
    pub fn walk(
        &self,
        order: Order,
        take: &mut dyn FnMut(&Version<'_>) -> Result<bool>,
    ) -> Result<()> {
        let mut visitor = Versions {
            page_size: u64::from(self.head.meta.page_size),
            order,
            take,
            failed: None,
        };
        let walked = self.entries(order, &mut visitor);
        match visitor.failed {
            Some(failure) => Err(failure),
            None => walked,
        }
    }

    fn entries(&self, order: Order, visitor: &mut dyn Visitor) -> Result<()> {
        match self.head.keys {
            Some(root) => self.tree(root, order, visitor),
            None => Ok(()),
        }
    }

    fn tree(&self, root: Root, order: Order, visitor: &mut dyn Visitor) -> Result<()> {
        let mut findings = Findings::keeping(1);
        let mut walker = Walker::new(self.source, self.head.data, &self.head.meta, &|_| {});
        let walked = walker.walk(root, order, Nested::Leave, visitor, &mut findings);
        match walked {
            Err(e) if is_end(&e) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                Err(e).doing(Kind::BadBackup, || "reading the database")
            }
            Err(e) => Err(e).doing(Kind::NotChecked, || "reading the database"),
            Ok(()) if findings.errors() > 0 || !walker.is_whole() => Err(damaged(&findings)),
            Ok(()) => Ok(()),
        }
    }
}

/// A revision that the database cannot show.
fn unreachable(revision: i64, compacted: Option<i64>, current: i64) -> Failure {
    let first = compacted.map_or(1, |compacted| compacted.max(1));
    let what =
        format!("revision {revision} is not in this database: it holds {first} to {current}");
    Failure::new(Kind::Usage, what)
}

fn damaged(findings: &Findings) -> Failure {
    let first = findings.listed().first();
    let what = first.map_or_else(|| "the database is damaged".to_owned(), ToString::to_string);
    Failure::new(Kind::BadBackup, what).doing("reading the database")
}

/// Ends a walk that has seen enough.
#[derive(Debug)]
struct End;

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("enough was read")
    }
}

impl std::error::Error for End {}

fn end() -> io::Error {
    io::Error::other(End)
}

fn is_end(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<End>())
}

#[derive(Default)]
struct Top {
    keys: Option<Root>,
    meta: Option<Root>,
}

impl Visitor for Top {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            match entry.key {
                b"key" => self.keys = entry.root(),
                b"meta" => self.meta = entry.root(),
                _ => {}
            }
        }
        Ok(())
    }

    fn large(&mut self, _: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        Ok(())
    }
}

/// The higher of the scheduled and the finished compaction: a scheduled one is already refused to readers.
#[derive(Default)]
struct Compaction(Option<i64>);

impl Visitor for Compaction {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            if matches!(entry.key, b"scheduledCompactRev" | b"finishedCompactRev") {
                let revision = RevisionKey::parse(entry.value).map(|key| key.revision.main);
                self.0 = self.0.max(revision);
            }
        }
        Ok(())
    }

    fn large(&mut self, _: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Newest(Option<i64>);

impl Newest {
    fn take(&mut self, key: &[u8]) -> io::Result<()> {
        self.0 = RevisionKey::parse(key).map(|key| key.revision.main);
        Err(match self.0 {
            Some(_) => end(),
            None => invalid("expected a revision for a key of the bucket key"),
        })
    }
}

impl Visitor for Newest {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        match leaf.entries().next_back() {
            Some(entry) => self.take(entry.key),
            None => Ok(()),
        }
    }

    fn large(&mut self, element: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        self.take(element.key)
    }
}

struct Versions<'t> {
    page_size: u64,
    order: Order,
    take: &'t mut dyn FnMut(&Version<'_>) -> Result<bool>,
    failed: Option<Failure>,
}

impl Versions<'_> {
    fn entry(&mut self, key: &[u8], value: &[u8], place: &Place) -> io::Result<()> {
        let revision = RevisionKey::parse(key)
            .ok_or_else(|| invalid("expected a revision for a key of the bucket key"))?;
        let (kv, _) = KeyValue::decode(value).map_err(|fault| {
            let what = format!("the entry at revision {}: {fault}", revision.revision);
            invalid(&what)
        })?;
        // What a bumped revision leaves has no key.
        if kv.key.is_empty() {
            return Ok(());
        }
        let Place::Page { page, offset } = place else {
            return Err(invalid("expected an element in a page"));
        };
        let before = kv
            .value
            .as_ptr()
            .addr()
            .saturating_sub(value.as_ptr().addr());
        // An empty slice points anywhere.
        let inside = if kv.value.is_empty() { 0 } else { before };
        let version = Version {
            key: kv.key,
            revision: revision.revision,
            tombstone: revision.tombstone,
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
            value: kv.value,
            value_at: ValueAt {
                offset: page * self.page_size + offset + (key.len() + inside) as u64,
                len: u32::try_from(kv.value.len())
                    .map_err(|_| invalid("expected a smaller value"))?,
            },
        };
        match (self.take)(&version) {
            Ok(true) => Ok(()),
            Ok(false) => Err(end()),
            Err(failure) => {
                self.failed = Some(failure);
                Err(end())
            }
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Visitor for Versions<'_> {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        match self.order {
            Order::Ascending => leaf
                .entries()
                .try_for_each(|entry| self.entry(entry.key, entry.value, &entry.place())),
            Order::Descending => leaf
                .entries()
                .rev()
                .try_for_each(|entry| self.entry(entry.key, entry.value, &entry.place())),
        }
    }

    fn large(&mut self, element: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        self.entry(element.key, &element.value()?, &element.place())
    }
}
