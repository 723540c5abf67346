//! The top-level buckets of a database.

use std::io;

use super::buckets::{STANDARD, show};
use crate::etcd::bbolt::{Entry, Large, Leaf, Root, Visitor};
use crate::finding::{Findings, Layer, Place};

/// RootBucket-level buckets that are read; etcd has ten.
const MAX_BUCKETS: usize = 1024;
/// Bytes of their names together.
const MAX_NAME_BYTES: usize = 1 << 20;

/// One top-level bucket.
pub(super) struct RootBucket {
    pub(super) name: Vec<u8>,
    pub(super) root: Root,
}

/// Lists the top-level buckets.
pub(super) struct RootBuckets {
    pub(super) found: Vec<RootBucket>,
    name_bytes: usize,
    /// Whether every entry is a bucket that can be read.
    pub(super) whole: bool,
}

impl Visitor for RootBuckets {
    fn leaf(&mut self, leaf: &Leaf<'_>, findings: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            self.entry(&entry, findings);
        }
        Ok(())
    }

    fn large(&mut self, element: &Large<'_>, findings: &mut Findings) -> io::Result<()> {
        self.whole = false;
        foreign(element.key, element.place(), findings);
        Ok(())
    }
}

impl RootBuckets {
    pub(super) fn new() -> Self {
        Self {
            found: Vec::new(),
            name_bytes: 0,
            whole: true,
        }
    }

    fn entry(&mut self, entry: &Entry<'_>, findings: &mut Findings) {
        let Some(root) = entry.root() else {
            self.whole = false;
            if !entry.bucket {
                foreign(entry.key, entry.place(), findings);
            }
            return;
        };
        if entry.sequence() != Some(0) {
            findings.warning(Layer::Keys, entry.value_place(8), || {
                (
                    format!("bucket {} without a sequence", show(entry.key)),
                    "one, which etcd does not use".into(),
                )
            });
        }
        self.name_bytes += entry.key.len();
        if self.found.len() >= MAX_BUCKETS || self.name_bytes > MAX_NAME_BYTES {
            self.whole = false;
            findings.error(Layer::Keys, entry.place(), || {
                (
                    format!("at most {MAX_BUCKETS} buckets"),
                    "more, which are not read".into(),
                )
            });
            return;
        }
        self.found.push(RootBucket {
            name: entry.key.to_vec(),
            root,
        });
    }
}

fn foreign(key: &[u8], place: Place, findings: &mut Findings) {
    findings.error(Layer::Keys, place, || {
        ("only buckets at the top level".into(), show(key))
    });
}

/// Says which of etcd's buckets are missing, and which others are there.
pub(super) fn report_names(found: &[RootBucket], findings: &mut Findings) {
    for name in STANDARD {
        if found.iter().any(|top| top.name == name.as_bytes()) {
            continue;
        }
        let words = || (format!("bucket {name}"), "none".into());
        if matches!(name, "key" | "meta") {
            findings.error(Layer::Keys, None, words);
        } else {
            findings.warning(Layer::Keys, None, words);
        }
    }
    for top in found {
        if !STANDARD.iter().any(|name| top.name == name.as_bytes()) {
            findings.warning(Layer::Keys, None, || {
                (
                    "etcd's buckets".into(),
                    format!("bucket {}", show(&top.name)),
                )
            });
        }
    }
}
