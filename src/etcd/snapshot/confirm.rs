//! A second look at the keys whose entries did not fit, distinguished by SHA-256.

use std::collections::{HashMap, HashSet};
use std::io;

use super::buckets::show;
use super::keys::owes;
use super::record::{Act, Reader, Record};
use super::table::Fingerprint;
use crate::etcd::bbolt::{Large, Leaf, Visitor};
use crate::etcd::mvcc::KvRevision;
use crate::finding::{Findings, Layer, Place};

struct Newer {
    revision: KvRevision,
    act: Act,
    place: Place,
    key: String,
}

/// Follows the suspected keys, newest entry first, and reports what is truly wrong.
pub(super) struct Confirm {
    reader: Reader,
    suspects: HashSet<Fingerprint>,
    newer: HashMap<[u8; 32], Newer>,
    owners: HashMap<Fingerprint, [u8; 32]>,
    /// Whether two keys share a fingerprint.
    pub(super) collided: bool,
    pub(super) findings: Findings,
}

impl Confirm {
    pub(super) fn new(
        seed: u64,
        compact: Option<i64>,
        suspects: HashSet<Fingerprint>,
        kept: usize,
    ) -> Self {
        Self {
            reader: Reader::new(seed, compact),
            suspects,
            newer: HashMap::new(),
            owners: HashMap::new(),
            collided: false,
            findings: Findings::keeping(kept),
        }
    }

    fn take(&mut self, record: &Record<'_>) {
        if !self.suspects.contains(&record.fingerprint) {
            return;
        }
        let digest = record.key.digest();
        let owner = self.owners.entry(record.fingerprint).or_insert(digest);
        self.collided |= *owner != digest;
        let newer = Newer {
            revision: record.revision,
            act: record.act,
            place: record.place,
            key: show(record.key.start()),
        };
        if let Some(after) = self.newer.insert(digest, newer)
            && !follows(record.act, after.act)
        {
            let after_text = describe(after.act);
            self.findings.error(Layer::Keys, record.place, || {
                (
                    format!(
                        "of key {} before {after_text} at revision {}: {}",
                        after.key,
                        after.revision,
                        wanted_before(after.act)
                    ),
                    format!("{} at revision {}", describe(record.act), record.revision),
                )
            });
        }
    }

    /// Reports what is owed still.
    pub(super) fn finish(&mut self) {
        let mut owing: Vec<_> = self
            .newer
            .values()
            .filter(|n| owes(n.act, n.revision, self.reader.compact))
            .collect();
        owing.sort_by_key(|n| n.revision);
        for newer in owing {
            self.findings.error(Layer::Keys, newer.place, || {
                (
                    format!(
                        "of key {} before {} at revision {}: {}",
                        newer.key,
                        describe(newer.act),
                        newer.revision,
                        wanted_before(newer.act)
                    ),
                    "nothing: entries are missing".into(),
                )
            });
        }
    }
}

fn follows(older: Act, newer: Act) -> bool {
    match (older, newer) {
        (Act::Put { .. }, Act::Delete) | (Act::Bump, Act::Bump) => true,
        (Act::Delete, Act::Put { version: 1, .. }) => true,
        (
            Act::Put {
                version: v,
                create: c,
                ..
            },
            Act::Put {
                version, create, ..
            },
        ) => version > 1 && v == version - 1 && c == create,
        _ => false,
    }
}

fn describe(act: Act) -> String {
    match act {
        Act::Put {
            version, create, ..
        } => format!("version {version} created at {create}"),
        Act::Delete => "a tombstone".into(),
        Act::Bump => "the mark of a restore".into(),
    }
}

fn wanted_before(newer: Act) -> String {
    match newer {
        Act::Put { version: 1, .. } => "nothing, or a tombstone".into(),
        Act::Put {
            version, create, ..
        } => format!("version {} created at {create}", version.wrapping_sub(1)),
        Act::Delete => "a version".into(),
        Act::Bump => "nothing".into(),
    }
}

impl Visitor for Confirm {
    fn leaf(&mut self, leaf: &Leaf<'_>, ignored: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries().rev().filter(|e| !e.bucket) {
            let key = self.reader.revision(entry.key, entry.place(), ignored);
            let record = key.and_then(|key| self.reader.record(key, &entry, ignored));
            if let Some(record) = record {
                self.take(&record);
            }
        }
        Ok(())
    }

    fn large(&mut self, element: &Large<'_>, ignored: &mut Findings) -> io::Result<()> {
        let key = self.reader.revision(element.key, element.place(), ignored);
        if let Some(key) = key
            && let Some(record) = self.reader.large(key, element, ignored)?
        {
            self.take(&record);
        }
        Ok(())
    }
}
