//! The newest revision in a database, without reading all of it.

use std::io;

use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::{
    Large, Leaf, Metas, Nested, Order, Origin, ReadAt, Root, Visitor, Walker,
};
use crate::etcd::mvcc::RevisionKey;
use crate::finding::Findings;

/// The newest revision in a member's database, by its entries or its compaction; at least 1. If the
/// database is in use, the state of one moment, or an error if pages changed in the meantime.
pub fn newest_revision(source: &dyn ReadAt) -> Result<i64> {
    let reading = || "reading the database";
    let mut findings = Findings::keeping(1);
    let metas = Metas::read(source, source.size(), Origin::File, &mut findings)
        .doing(Kind::NotChecked, reading)?;
    let Some(meta) = metas.map(|metas| metas.chosen) else {
        return Err(Failure::new(Kind::NotChecked, "no valid meta").doing(reading()));
    };
    let mut walk = |root, order, visitor: &mut Latest| {
        let mut walker = Walker::new(source, source.size(), &meta, &|_| {});
        let walked = walker.walk(root, order, Nested::Leave, visitor, &mut findings);
        match walked {
            // The visitor ends the walk with an error as soon as it has seen enough.
            Err(_) if visitor.seen => Ok(()),
            other => other.doing(Kind::NotChecked, reading),
        }
    };
    let mut root = Latest {
        all: true,
        ..Latest::default()
    };
    walk(Root::Page(meta.root), Order::Ascending, &mut root)?;
    let mut newest = 1;
    if let Some(keys) = root.keys {
        let mut last = Latest::default();
        walk(keys, Order::Descending, &mut last)?;
        newest = newest.max(last.newest);
    }
    if let Some(meta) = root.meta {
        let mut compactions = Latest {
            all: true,
            values: true,
            ..Latest::default()
        };
        walk(meta, Order::Ascending, &mut compactions)?;
        newest = newest.max(compactions.newest);
    }
    match findings.listed().first() {
        Some(first) if findings.errors() > 0 => {
            Err(Failure::new(Kind::NotChecked, first.to_string()).doing(reading()))
        }
        _ => Ok(newest),
    }
}

/// Looks at the leaves of a bucket, or at the first one only.
#[derive(Default)]
struct Latest {
    all: bool,
    /// Whether revisions are in the values of compactions, not in the keys.
    values: bool,
    seen: bool,
    newest: i64,
    keys: Option<Root>,
    meta: Option<Root>,
}

impl Latest {
    fn enough(&mut self) -> io::Result<()> {
        if self.all {
            return Ok(());
        }
        self.seen = true;
        Err(io::Error::other("enough was seen"))
    }

    fn take(&mut self, revision: &[u8]) {
        if let Some(key) = RevisionKey::parse(revision) {
            self.newest = self.newest.max(key.revision.main);
        }
    }
}

impl Visitor for Latest {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            match entry.key {
                b"key" if entry.bucket => self.keys = entry.root(),
                b"meta" if entry.bucket => self.meta = entry.root(),
                b"scheduledCompactRev" | b"finishedCompactRev" if self.values => {
                    self.take(entry.value);
                }
                key if !self.values => self.take(key),
                _ => {}
            }
        }
        self.enough()
    }

    fn large(&mut self, element: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        self.take(element.key);
        // A leaf's elements come in ascending order, one by one: the newest is yet to come.
        Ok(())
    }
}
