//! The check of a snapshot while it is received: its pages are decoded as they pass, in the order of
//! the file, and the trees are proven once all of it is there, without a second reading.
//!
//! A page does not say whether any tree still reaches it, nor which. So whatever looks like a sound
//! leaf of the bucket `key` or like a branch is remembered ([`super::skeleton`]), and the walk over
//! the trees takes what it reaches from there. What is not remembered, because it is another
//! bucket's or anything is odd about it, the walk reads from the snapshot. If the walk finds anything
//! in the bucket `key`, the whole file is inspected as `verify` does it: so a finding is the same, and
//! has the same words, as `verify`'s.

use std::sync::Mutex;

use super::batch::{Batch, Decoder};
use super::options::Options;
use super::prefixes::OTHERS;
use super::skeleton::{Room, Skeleton};
use crate::etcd::bbolt::layout::{BRANCH, LEAF, MAGIC, PageHeader, is_page_size, u32_at};
use crate::etcd::bbolt::{Item, single_leaf, used_branch};
use crate::etcd::mvcc::REVISION_KEY;
use crate::finding::Findings;

/// Bytes after which it can be told whether to remember is worth it.
const SAMPLE: u64 = 4 << 20;
/// What is remembered takes less than this part of the file, or it is not worth it: with entries of less
/// than about 600 bytes, to remember one takes as long as to decode it again beside the hash.
const WORTH: u64 = 40;
/// A page with its overflow that is longer is left to the walk.
const MAX_RUN: usize = 4 << 20;
/// Where the magic and the page size are in the file's first page.
const MAGIC_AT: usize = 16;
const PAGE_SIZE_AT: usize = 24;

/// Takes a snapshot's bytes in order.
pub struct StreamCheck {
    options: Options,
    decoder: Decoder,
    skeleton: Skeleton,
    page_size: usize,
    /// Bytes taken.
    at: u64,
    /// A page whose overflow is still to come.
    run: Option<Run>,
    batch: Batch,
    items: Vec<Item>,
    /// Whether there are more prefixes than are counted: then their order matters.
    too_many_prefixes: bool,
}

/// A page with overflow, as far as it has come.
struct Run {
    page: u64,
    overflow: u32,
    span: usize,
    bytes: Vec<u8>,
}

impl StreamCheck {
    /// A check for an inspection with these options. Pages for which there is no room are read again.
    pub fn new(options: Options, room: Room) -> Self {
        Self {
            // No compaction is known yet: an entry that only one could explain is left to the walk.
            decoder: Decoder::new(options.seed, None, options.wanted.clone()),
            options,
            skeleton: Skeleton::new(room),
            page_size: 0,
            at: 0,
            run: None,
            batch: Batch::default(),
            items: Vec::new(),
            too_many_prefixes: false,
        }
    }

    /// Takes the next bytes. All pieces but the last must be whole pages, or nothing is decoded from
    /// there on.
    pub fn take(&mut self, piece: &[u8]) {
        if self.at == 0 {
            self.page_size = page_size(piece).unwrap_or(0);
        }
        let begin = self.at;
        self.at += piece.len() as u64;
        if !self.wants_more() {
            return;
        }
        let size = self.page_size;
        if !begin.is_multiple_of(size as u64) {
            self.page_size = 0;
            return;
        }
        let first = begin / size as u64;
        for (page, bytes) in (first..).zip(piece.chunks_exact(size)) {
            self.page(page, bytes);
        }
    }

    /// Whether anything of further bytes would be remembered.
    pub(super) fn wants_more(&self) -> bool {
        let of_use = self.at == 0 || self.is_of_use();
        of_use && !self.skeleton.is_full()
    }

    /// Whether the entries are so small that a walk beside the hash is faster.
    pub(super) fn is_dense(&self) -> bool {
        self.at >= SAMPLE && self.skeleton.held() > self.at / WORTH
    }

    fn is_of_use(&self) -> bool {
        self.page_size != 0 && !self.too_many_prefixes
    }

    fn page(&mut self, page: u64, bytes: &[u8]) {
        if let Some(mut run) = self.run.take() {
            run.bytes.extend_from_slice(bytes);
            if run.bytes.len() >= run.span {
                self.remember(run.page, run.overflow, &run.bytes);
            } else {
                self.run = Some(run);
            }
        }
        let header = PageHeader::parse(bytes);
        let looks_like_one = |header: &PageHeader| {
            header.id == page && matches!(header.flags, LEAF | BRANCH) && header.count > 0
        };
        let Some(header) = header.filter(looks_like_one) else {
            return;
        };
        let span = (header.overflow as usize).saturating_add(1);
        let span = span.saturating_mul(self.page_size);
        if header.overflow == 0 {
            self.remember(page, 0, bytes);
        } else if self.run.is_none() && span <= MAX_RUN {
            let mut run = Vec::with_capacity(span);
            run.extend_from_slice(bytes);
            self.run = Some(Run {
                page,
                overflow: header.overflow,
                span,
                bytes: run,
            });
        }
    }

    /// Remembers a page with its overflow, if there is nothing odd about it.
    fn remember(&mut self, page: u64, overflow: u32, run: &[u8]) {
        let size = self.page_size as u64;
        let mut findings = Findings::keeping(0);
        let is_branch = PageHeader::parse(run).is_some_and(|header| header.flags == BRANCH);
        if is_branch {
            if let Some(used) = used_branch(run) {
                self.skeleton.put_branch(page, overflow, used);
            }
            return;
        }
        let Some(leaf) = single_leaf(run, page, size, &mut self.items, &mut findings) else {
            return;
        };
        let is_revision = |len: usize| len == REVISION_KEY || len == REVISION_KEY + 1;
        let mut entries = leaf.entries();
        if !entries.all(|entry| is_revision(entry.key.len()) && !entry.bucket) {
            return;
        }
        self.batch.clear();
        self.decoder.leaf(&leaf, &mut self.batch, &mut findings);
        self.too_many_prefixes |= self.batch.entries.iter().any(|e| e.prefix == OTHERS);
        // A value that is wanted is in the page.
        if findings.is_empty() && self.batch.wanted.is_empty() {
            self.skeleton.put_leaf(page, overflow, &self.batch);
        }
    }

    /// Ends it: what the walk needs, unless it is of no use.
    pub(super) fn end(self) -> (Options, Option<Remembered>) {
        let remembered = self.is_of_use().then(|| Remembered {
            decoder: self.decoder,
            skeleton: Mutex::new(self.skeleton),
            page_size: self.page_size as u64,
        });
        (self.options, remembered)
    }
}

/// What was seen of a snapshot that has been received.
pub(super) struct Remembered {
    pub(super) decoder: Decoder,
    pub(super) skeleton: Mutex<Skeleton>,
    pub(super) page_size: u64,
}

/// The page size that a database's first page names.
fn page_size(first: &[u8]) -> Option<usize> {
    let magic = u32_at(first, MAGIC_AT)?;
    let size = u32_at(first, PAGE_SIZE_AT)?;
    (magic == MAGIC && is_page_size(size)).then_some(size as usize)
}
