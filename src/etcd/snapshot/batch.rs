//! What the key pass needs of leaves, apart from their bytes: so that one thread reads and decodes
//! leaves while another follows the keys ([`super::pipeline`]), or leaves are decoded in another
//! order than the keys have ([`super::stream`]).

use std::io;

use super::buckets::{PIECE, report_nested};
use super::key_filter::{Collector, KeyFilter};
use super::prefixes::Names;
use super::record::{Act, Reader, Record};
use super::table::Fingerprint;
use crate::etcd::bbolt::{Large, Leaf};
use crate::etcd::crc::CrcSpan;
use crate::etcd::mvcc::KvRevision;
use crate::finding::{Findings, Place};

/// One entry of the bucket `key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyEntry {
    pub(super) revision: KvRevision,
    pub(super) act: Act,
    pub(super) fingerprint: Fingerprint,
    /// The number of the key's prefix, see [`Names`].
    pub(super) prefix: u32,
    /// Bytes of the user's key; of a very long one, of its beginning.
    pub(super) key_len: u32,
    pub(super) value_len: u64,
    /// Bytes of the entry's key and value as stored.
    pub(super) stored: u64,
}

/// An entry whose value the caller of the inspection wants, or wants to be classified.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Its place in [`Batch::entries`].
    pub(super) entry: usize,
    pub(super) key: Vec<u8>,
    /// Nothing if it is longer than was wanted.
    pub(super) value: Option<Vec<u8>>,
}

/// One leaf page, or one entry of a leaf too big to be held.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeafHead {
    pub(super) page: u64,
    /// Whether it can be read again by its page's number.
    pub(super) is_page: bool,
    /// How many of [`Batch::entries`] are its.
    pub(super) entries: usize,
    /// Bytes of their keys and values as stored.
    pub(super) bytes: u64,
    /// All of them, in ascending order.
    pub(super) all: CrcSpan,
}

impl LeafHead {
    pub(super) fn place(&self) -> Place {
        Place::Page {
            page: self.page,
            offset: 0,
        }
    }
}

/// Leaves, in the order in which they were met, and their entries, newest first.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) leaves: Vec<LeafHead>,
    pub(super) entries: Vec<KeyEntry>,
    pub(super) wanted: Vec<Wanted>,
}

/// Entries whose keys' slots are fetched together, so few that they stay in the first-level cache.
const SOON: usize = 64;

impl Batch {
    /// The keys of the entries that follow soon, each of them once.
    pub(super) fn soon_after(&self, at: usize) -> impl Iterator<Item = Fingerprint> {
        let soon = if at.is_multiple_of(SOON) { SOON } else { 0 };
        let entries = self.entries.iter().skip(at).take(soon);
        entries.map(|entry| entry.fingerprint)
    }

    pub(super) fn clear(&mut self) {
        self.leaves.clear();
        self.entries.clear();
        self.wanted.clear();
    }
}

/// Decodes leaves of the bucket `key`.
pub(super) struct Decoder {
    reader: Reader,
    names: Names,
    collector: Collector,
}

impl Decoder {
    /// As [`KeyPass::new`](super::keys::KeyPass::new); all three must be those of the pass.
    pub(super) fn new(seed: u64, compact: Option<i64>, wanted: KeyFilter) -> Self {
        Self {
            reader: Reader::new(seed, compact),
            names: Names::default(),
            collector: Collector::new(wanted),
        }
    }

    /// The same decoder, now that the compaction is known.
    pub(super) fn compacted_at(mut self, compact: Option<i64>) -> Self {
        self.reader.compact = compact.unwrap_or(-1);
        self
    }

    /// The prefixes that were met.
    pub(super) fn names(self) -> Names {
        self.names
    }

    /// Adds a leaf to a batch. With any finding the batch is of no use.
    pub(super) fn leaf(&mut self, leaf: &Leaf<'_>, batch: &mut Batch, findings: &mut Findings) {
        let before = batch.entries.len();
        let mut bytes = 0;
        // The pass goes from the newest revision to the oldest.
        for entry in leaf.entries().rev() {
            bytes += (entry.key.len() + entry.value.len()) as u64;
            if entry.bucket {
                report_nested(b"key", entry.place(), findings);
                continue;
            }
            let key = self.reader.revision(entry.key, entry.place(), findings);
            let record = key.and_then(|key| self.reader.record(key, &entry, findings));
            if let Some(record) = record {
                self.push(&record, batch);
            }
        }
        batch.leaves.push(LeafHead {
            page: leaf.page(),
            is_page: leaf.is_page(),
            entries: batch.entries.len() - before,
            bytes,
            all: match leaf.contiguous() {
                Some(bytes) => CrcSpan::of(bytes),
                None => entries_span(leaf, |_| true),
            },
        });
    }

    /// Adds an entry too big to be held; as [`Decoder::leaf`].
    pub(super) fn large(
        &mut self,
        element: &Large<'_>,
        batch: &mut Batch,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let all = large_span(element)?;
        let key = self.reader.revision(element.key, element.place(), findings);
        let record = match key {
            Some(key) => self.reader.large(key, element, findings)?,
            None => None,
        };
        let before = batch.entries.len();
        if let Some(record) = record {
            self.push(&record, batch);
        }
        batch.leaves.push(LeafHead {
            page: element.page(),
            is_page: false,
            entries: batch.entries.len() - before,
            bytes: element.key.len() as u64 + element.value_len,
            all,
        });
        Ok(())
    }

    fn push(&mut self, record: &Record<'_>, batch: &mut Batch) {
        let key = record.key.start();
        let value = record.value;
        let classed = value.filter(|value| self.collector.has_class(key, value));
        if classed.is_some() || self.collector.wants(key) {
            let held = classed.or_else(|| self.collector.held(value));
            batch.wanted.push(Wanted {
                entry: batch.entries.len(),
                key: key.to_vec(),
                value: held.map(<[u8]>::to_vec),
            });
        }
        batch.entries.push(KeyEntry {
            revision: record.revision,
            act: record.act,
            fingerprint: record.fingerprint,
            prefix: match record.act {
                // A bump has no user's key.
                Act::Bump => 0,
                _ => self.names.number(key),
            },
            key_len: key.len() as u32,
            value_len: record.value_len,
            stored: record.stored,
        });
    }
}

/// The run of the chosen entries of a leaf.
pub(super) fn entries_span(leaf: &Leaf<'_>, chosen: impl Fn(usize) -> bool) -> CrcSpan {
    let (mut crc, mut len) = (0, 0);
    for (index, entry) in leaf.entries().enumerate() {
        if chosen(index) {
            let value = if entry.bucket { &[] } else { entry.value };
            crc = crc32c::crc32c_append(crc, entry.key);
            crc = crc32c::crc32c_append(crc, value);
            len += (entry.key.len() + value.len()) as u64;
        }
    }
    CrcSpan::new(crc, len)
}

/// The run of an entry that is read piece by piece.
pub(super) fn large_span(element: &Large<'_>) -> io::Result<CrcSpan> {
    let mut crc = crc32c::crc32c(element.key);
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < element.value_len {
        let len = (element.value_len - at).min(PIECE as u64);
        let part = piece.get_mut(..len as usize).unwrap_or_default();
        element.read_at(part, at)?;
        crc = crc32c::crc32c_append(crc, part);
        at += len;
    }
    Ok(CrcSpan::new(
        crc,
        element.key.len() as u64 + element.value_len,
    ))
}
