//! The changes between the compaction and the newest revision, newest first.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Kind, Result};
use crate::etcd::bbolt::{FileSource, Order};
use crate::etcd::keyspace::{Database, Head};
use crate::etcd::mvcc::{KeyValue, KvRevision};
use crate::etcd::segment::{between, sound};

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
    head: Head,
    span: Span,
    /// The database's own revision.
    own: i64,
    /// Segments of recorded changes that follow it.
    segments: Vec<PathBuf>,
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
        let source = FileSource::open(path).doing(Kind::NotChecked, || "opening the database")?;
        let database = Database::open(&source)?;
        let from = database.compacted().unwrap_or(1).max(1);
        let span = Span {
            from,
            to: database.revision()?.max(from),
        };
        let head = database.head();
        Ok(Self {
            source,
            head,
            span,
            own: span.to,
            segments: Vec::new(),
        })
    }

    /// The same, continued by the changes that a chain of segments has, up to a revision.
    ///
    /// # Errors
    /// The refusal `missing-segment`; the segments are checked when they are read.
    pub fn continued(mut self, chain: &Path, until: i64) -> Result<Self> {
        if until > self.own {
            self.segments = between(chain, self.own, until)?;
            self.span.to = until;
        }
        Ok(self)
    }

    /// Whether a revision is only in recorded changes.
    pub fn is_recorded(&self, revision: i64) -> bool {
        revision > self.own
    }

    /// When recorded revisions arrived: revision and milliseconds since 1970, the oldest first.
    ///
    /// # Errors
    /// Those of reading segments.
    pub fn received(&self, each: &mut dyn FnMut(i64, i64)) -> Result<()> {
        for path in &self.segments {
            for (revision, millis) in sound(path)?.times() {
                if self.is_recorded(*revision) && *revision <= self.span.to {
                    each(*revision, *millis);
                }
            }
        }
        Ok(())
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
        if self.recorded(above, each)? {
            return Ok(());
        }
        let database = Database::again(&self.source, self.head);
        database.walk(Order::Descending, &mut |version| {
            if version.revision.main <= above {
                return Ok(false);
            }
            let flow = each(&Change {
                revision: version.revision,
                key: version.key,
                put: (!version.tombstone).then_some(Put {
                    create_revision: version.create_revision,
                    version: version.version,
                    lease: version.lease,
                    value: version.value,
                }),
            });
            Ok(flow?.is_continue())
        })
    }

    /// Hands out the recorded changes above a revision, newest first; whether one was enough.
    fn recorded(&self, above: i64, each: &mut Each<'_>) -> Result<bool> {
        let above = above.max(self.own);
        for path in self.segments.iter().rev() {
            let segment = sound(path)?;
            for record in segment.records().rev() {
                let revision = record.key.revision;
                if revision.main <= above {
                    return Ok(false);
                }
                if revision.main > self.span.to {
                    continue;
                }
                let (kv, _) = KeyValue::decode(record.value)
                    .doing(Kind::BadBackup, || format!("reading revision {revision}"))?;
                let flow = each(&Change {
                    revision,
                    key: kv.key,
                    put: (!record.key.tombstone).then_some(Put {
                        create_revision: kv.create_revision,
                        version: kv.version,
                        lease: kv.lease,
                        value: kv.value,
                    }),
                });
                if flow?.is_break() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Takes a change, and says whether that is enough.
type Each<'a> = dyn FnMut(&Change<'_>) -> Result<ControlFlow<()>> + 'a;
