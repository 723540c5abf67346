//! The changes between the compaction and the newest revision, newest first.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::write::{root_bucket, small_bucket};
use crate::etcd::bbolt::{
    FileSource, Large, Leaf, Meta, Metas, Nested, Order, ReadAt, Root, Visitor, Walker,
};
use crate::etcd::mvcc::{KeyValue, KvRevision, RevisionKey};
use crate::etcd::snapshot::{Packed, Shape};
use crate::finding::Findings;

/// The revisions that a database can be restored to, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The compact revision; 1 in a store that was never compacted.
    pub from: i64,
    /// The current revision.
    pub to: i64,
}

impl Span {
    /// Whether a revision is among them.
    pub fn holds(self, revision: i64) -> bool {
        (self.from..=self.to).contains(&revision)
    }
}

/// What a put wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put<'a> {
    /// Revision at which this life of the key began.
    pub create_revision: i64,
    /// Puts since then, this one included.
    pub version: i64,
    /// The lease it is attached to; 0 for none.
    pub lease: i64,
    /// The value.
    pub value: &'a [u8],
}

/// One change of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// When, in etcd's count.
    pub revision: KvRevision,
    /// The user's key.
    pub key: &'a [u8],
    /// What was put; nothing for a deletion.
    pub put: Option<Put<'a>>,
}

/// A database's history, read from its end: what is older than the compaction is not touched.
pub struct History {
    source: FileSource,
    data: u64,
    meta: Meta,
    keys: Option<Root>,
    span: Span,
}

impl History {
    /// Opens a snapshot, or a copy of a member's database. The file is not checked beyond what is read.
    ///
    /// # Errors
    /// [`Kind::BadBackup`] if it is not a database, and [`Kind::NotChecked`] if it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(path).map_err(|failure| failure.doing(format!("reading {}", path.display())))
    }

    fn read(path: &Path) -> Result<Self> {
        let opening = || "opening the database";
        let source = FileSource::open(path).doing(Kind::NotChecked, opening)?;
        if let Some(packed) = Packed::of(&source).doing(Kind::NotChecked, opening)? {
            let what = format!("it is {}", packed.told(&path.display().to_string()));
            return Err(Failure::new(Kind::BadBackup, what));
        }
        let data = Shape::of(source.size()).data(source.size());
        let metas = Metas::of_file(&source, data).doing(Kind::NotChecked, opening)?;
        let Some(meta) = metas.map(|metas| metas.chosen) else {
            let what = "expected a bbolt database, found no valid meta page";
            return Err(Failure::new(Kind::BadBackup, what));
        };
        let keys = root_bucket(&source, data, &meta, b"key")?;
        let mut compacted = None;
        for (key, value) in small_bucket(&source, data, &meta, b"meta")? {
            if matches!(&*key, b"scheduledCompactRev" | b"finishedCompactRev") {
                let revision = RevisionKey::parse(&value).map(|key| key.revision.main);
                compacted = compacted.max(revision);
            }
        }
        let mut history = Self {
            source,
            data,
            meta,
            keys,
            span: Span { from: 1, to: 1 },
        };
        let from = compacted.unwrap_or(1).max(1);
        history.span = Span { from, to: from };
        let mut newest = 0;
        history.walk(0, &mut |key, _| {
            newest = key.revision.main;
            Ok(ControlFlow::Break(()))
        })?;
        history.span.to = from.max(newest);
        Ok(history)
    }

    /// The revisions that can be reached.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Hands out the changes above a revision, newest first, until one of them is enough. Below the
    /// compaction only the newest version of each key is there.
    ///
    /// # Errors
    /// [`Kind::BadBackup`] for a database that is broken where it is read, and those of `each`.
    pub fn newest_first(
        &self,
        above: i64,
        each: &mut dyn FnMut(&Change<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.walk(above, &mut |key, value| {
            let (kv, _) = KeyValue::decode(value).doing(Kind::BadBackup, || {
                format!("reading the entry at revision {}", key.revision)
            })?;
            // The mark of a bumped revision has no key.
            if kv.key.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            each(&Change {
                revision: key.revision,
                key: kv.key,
                put: (!key.tombstone).then_some(Put {
                    create_revision: kv.create_revision,
                    version: kv.version,
                    lease: kv.lease,
                    value: kv.value,
                }),
            })
        })
    }

    fn walk(&self, above: i64, each: &mut Each<'_>) -> Result<()> {
        let Some(root) = self.keys else { return Ok(()) };
        let mut visitor = Descent {
            above,
            each,
            ended: None,
        };
        let mut findings = Findings::keeping(1);
        let mut walker = Walker::new(&self.source, self.data, &self.meta, &|_| {});
        let order = Order::Descending;
        let walked = walker.walk(root, order, Nested::Leave, &mut visitor, &mut findings);
        if let Some(ended) = visitor.ended {
            return ended;
        }
        walked.doing(Kind::NotChecked, || "reading the database")?;
        match findings.listed().first() {
            Some(first) if findings.errors() > 0 => {
                Err(Failure::new(Kind::BadBackup, first.to_string()))
            }
            _ => Ok(()),
        }
    }
}

type Each<'a> = dyn FnMut(&RevisionKey, &[u8]) -> Result<ControlFlow<()>> + 'a;

struct Descent<'a, 'b> {
    above: i64,
    each: &'a mut Each<'b>,
    /// How it ended before the bucket did.
    ended: Option<Result<()>>,
}

impl Descent<'_, '_> {
    /// Takes an entry; an error stops the walk.
    fn entry(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let Some(key) = RevisionKey::parse(key) else {
            let what = format!("expected a revision as key, found {}", hex::encode(key));
            return self.end(Err(Failure::new(Kind::BadBackup, what)));
        };
        if key.revision.main <= self.above {
            return self.end(Ok(()));
        }
        match (self.each)(&key, value) {
            Ok(ControlFlow::Continue(())) => Ok(()),
            Ok(ControlFlow::Break(())) => self.end(Ok(())),
            Err(failure) => self.end(Err(failure)),
        }
    }

    fn end(&mut self, result: Result<()>) -> io::Result<()> {
        self.ended = Some(result);
        Err(io::Error::other("enough was read"))
    }
}

impl Visitor for Descent<'_, '_> {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries().rev() {
            self.entry(entry.key, entry.value)?;
        }
        Ok(())
    }

    fn large(&mut self, element: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        self.entry(element.key, &element.value()?)
    }
}
