//! Judging a database in the order of its file, while [`rewrite`](super::rewrite) writes it.
//!
//! Each page comes once. A branch comes behind the pages below it, and the root of all buckets comes
//! last: so a subtree is known by its first key, its last key and what it holds, until the branch above it
//! claims it. Memory does not grow with the file.

use std::collections::BTreeMap;
use std::io;

use super::digest::{Digest, bucket_roots, read_digest};
use crate::etcd::bbolt::elements::{Child, Table};
use crate::etcd::bbolt::layout::{BRANCH, ELEMENT, LEAF, PAGE_HEADER, PageHeader, u32_at};
use crate::etcd::bbolt::meta::Meta;
use crate::etcd::bbolt::source::ReadAt;
use crate::etcd::bbolt::{Entry, Item, Leaf, Root, single_leaf};
use crate::etcd::crc::CrcSpan;
use crate::finding::{Findings, Layer, Place};

/// A page with its overflow is held whole up to this size; of a longer leaf, which has one element, only
/// the key. Two elements share a leaf if a walk can hold the page of each ([`Walker`](crate::etcd::bbolt::Walker):
/// 16 MiB).
const MAX_RUN: usize = 33 << 20;

/// What a subtree's leaves hold, to be joined to what follows.
#[derive(Debug, Clone, Copy)]
struct Sum {
    entries: u64,
    bytes: u64,
    crc: CrcSpan,
    /// Whether an entry is a bucket, as only the root's are.
    buckets: bool,
}

impl Sum {
    fn of(leaf: &Leaf<'_>) -> Self {
        let entries = leaf.len() as u64;
        if let Some(all) = leaf.contiguous() {
            let (bytes, crc) = (all.len() as u64, CrcSpan::of(all));
            return Self {
                entries,
                bytes,
                crc,
                buckets: false,
            };
        }
        let mut digest = Digest::default();
        for entry in leaf.entries() {
            digest.add(entry.key, entry.value);
        }
        Self {
            entries,
            bytes: digest.bytes,
            crc: CrcSpan::new(digest.crc, digest.bytes),
            buckets: leaf.entries().any(|entry| entry.bucket),
        }
    }

    fn then(self, next: Self) -> Self {
        Self {
            entries: self.entries + next.entries,
            bytes: self.bytes + next.bytes,
            crc: self.crc.then(next.crc),
            buckets: self.buckets || next.buckets,
        }
    }

    fn digest(self) -> Digest {
        Digest {
            entries: self.entries,
            bytes: self.bytes,
            crc: self.crc.crc(),
        }
    }
}

/// A tree that no branch has claimed yet.
#[derive(Debug)]
struct Subtree {
    page: u64,
    first: Vec<u8>,
    last: Vec<u8>,
    sum: Sum,
}

/// A leaf whose only value is too long to be held.
struct Long {
    leaf: Subtree,
    /// CRC-32C of key and value, as far as they have come.
    crc: u32,
    value_left: u64,
    /// Bytes of the last page behind the value.
    padding: u64,
}

/// Takes all pages but the metas, in the order of the file.
pub struct WrittenCheck {
    page_size: usize,
    /// The page that comes next, or of which a part has come.
    page: u64,
    /// That part.
    run: Vec<u8>,
    long: Option<Long>,
    /// What no branch has claimed, leaves first, then what is above one branch, and so on.
    waiting: Vec<Vec<Subtree>>,
    items: Vec<Item>,
    children: Vec<Child>,
    findings: Findings,
}

impl WrittenCheck {
    /// A check that begins at page 2.
    pub fn new(page_size: u32) -> Self {
        Self {
            page_size: page_size as usize,
            page: 2,
            run: Vec::new(),
            long: None,
            waiting: Vec::new(),
            items: Vec::new(),
            children: Vec::new(),
            findings: Findings::keeping(1),
        }
    }

    /// Takes the next bytes. After the first error nothing more is judged.
    pub fn take(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() && self.findings.errors() == 0 {
            piece = match self.long.take() {
                Some(long) => self.go_on(long, piece),
                None => self.next(piece),
            };
        }
    }

    /// Bytes of the page that begins here with its overflow.
    fn span(&self, run: &[u8]) -> Option<usize> {
        let header = PageHeader::parse(run)?;
        Some((1 + header.overflow as usize).saturating_mul(self.page_size))
    }

    fn next<'p>(&mut self, piece: &'p [u8]) -> &'p [u8] {
        let whole = self.span(piece).filter(|_| self.run.is_empty());
        if let Some((run, rest)) = whole.and_then(|span| piece.split_at_checked(span)) {
            self.judge(run);
            return rest;
        }
        let want = match self.span(&self.run) {
            Some(span) if span > MAX_RUN => self.head(),
            Some(span) => span,
            None => PAGE_HEADER,
        };
        let missing = want.saturating_sub(self.run.len()).min(piece.len());
        let (part, rest) = piece.split_at(missing);
        self.run.extend_from_slice(part);
        if self.run.len() == want {
            match self.span(&self.run) {
                Some(span) if span == want => {
                    let run = std::mem::take(&mut self.run);
                    self.judge(&run);
                }
                Some(span) if span > MAX_RUN && self.head() == want => self.begin_long(span),
                _ => {}
            }
        }
        rest
    }

    /// Bytes of a long leaf up to the end of its key.
    fn head(&self) -> usize {
        let element = PAGE_HEADER + ELEMENT;
        match (
            u32_at(&self.run, PAGE_HEADER + 4),
            u32_at(&self.run, PAGE_HEADER + 8),
        ) {
            (Some(pos), Some(key)) if self.run.len() >= element => {
                PAGE_HEADER + pos as usize + key as usize
            }
            _ => element,
        }
    }

    fn error(&mut self, page: u64, offset: u64, expected: String, found: String) {
        let place = Place::Page { page, offset };
        self.findings
            .error(Layer::Pages, Some(place), || (expected, found));
    }

    /// Begins a leaf that is not held, from its bytes up to the end of its key.
    fn begin_long(&mut self, span: usize) {
        let run = std::mem::take(&mut self.run);
        let page = self.page;
        let (header, value) = (PageHeader::parse(&run), u32_at(&run, PAGE_HEADER + 12));
        let fits = |value: &u32| run.len() + *value as usize <= span;
        let key = run.get(PAGE_HEADER + ELEMENT..).unwrap_or_default();
        match (header, value.filter(fits)) {
            (Some(header), Some(value))
                if header.id == page && header.flags == LEAF && header.count == 1 =>
            {
                self.page += (span / self.page_size) as u64;
                self.long = Some(Long {
                    leaf: Subtree {
                        page,
                        first: key.to_vec(),
                        last: key.to_vec(),
                        sum: Sum {
                            entries: 1,
                            bytes: key.len() as u64 + u64::from(value),
                            crc: CrcSpan::EMPTY,
                            buckets: u32_at(&run, PAGE_HEADER) != Some(0),
                        },
                    },
                    crc: crc32c::crc32c(key),
                    value_left: value.into(),
                    padding: (span - run.len()) as u64 - u64::from(value),
                });
            }
            _ => self.error(
                page,
                0,
                format!("leaf page {page} with one element"),
                format!("another page of {span} bytes"),
            ),
        }
    }

    fn go_on<'p>(&mut self, mut long: Long, piece: &'p [u8]) -> &'p [u8] {
        let take = |left: &mut u64, piece: &'p [u8]| {
            let parts = piece.split_at((*left).min(piece.len() as u64) as usize);
            *left -= parts.0.len() as u64;
            parts
        };
        let (value, rest) = take(&mut long.value_left, piece);
        long.crc = crc32c::crc32c_append(long.crc, value);
        let (_, rest) = take(&mut long.padding, rest);
        if long.value_left == 0 && long.padding == 0 {
            let mut leaf = long.leaf;
            leaf.sum.crc = CrcSpan::new(long.crc, leaf.sum.bytes);
            self.wait(0, leaf);
        } else {
            self.long = Some(long);
        }
        rest
    }

    fn wait(&mut self, height: usize, subtree: Subtree) {
        if self.waiting.len() <= height {
            self.waiting.resize_with(height + 1, Vec::new);
        }
        if let Some(level) = self.waiting.get_mut(height) {
            level.push(subtree);
        }
    }

    /// Judges a page with its overflow.
    fn judge(&mut self, run: &[u8]) {
        let page = self.page;
        self.page += (run.len() / self.page_size) as u64;
        match PageHeader::parse(run) {
            Some(header) if header.id != page => self.error(
                page,
                0,
                format!("page {page}"),
                format!("page id {}", header.id),
            ),
            Some(header) if header.flags == LEAF => self.leaf(page, run),
            Some(header) if header.flags == BRANCH => self.branch(page, &header, run),
            header => self.error(
                page,
                8,
                "a branch page or a leaf page".to_owned(),
                header.map_or("none", |header| header.kind()).to_owned(),
            ),
        }
    }

    fn leaf(&mut self, page: u64, run: &[u8]) {
        let size = self.page_size as u64;
        let leaf = single_leaf(run, page, size, &mut self.items, &mut self.findings);
        let Some(leaf) = leaf else {
            let found = "elements that reach beyond it".to_owned();
            return self.error(page, PAGE_HEADER as u64, "a leaf page".to_owned(), found);
        };
        let key = |entry: Option<Entry<'_>>| entry.map_or_else(Vec::new, |e| e.key.to_vec());
        let subtree = Subtree {
            page,
            first: key(leaf.entries().next()),
            last: key(leaf.entries().next_back()),
            sum: Sum::of(&leaf),
        };
        self.wait(0, subtree);
    }

    /// Joins the subtrees below a branch.
    fn branch(&mut self, page: u64, header: &PageHeader, run: &[u8]) {
        let table = Table {
            page,
            base: 0,
            count: usize::from(header.count),
            span: run.len(),
            page_size: Some(self.page_size),
        };
        let elements = run.get(PAGE_HEADER..PAGE_HEADER + ELEMENT * table.count);
        let Some(elements) = elements else {
            return table.report_too_many(&mut self.findings);
        };
        if !table.branch(
            elements.as_chunks().0,
            &mut self.children,
            &mut self.findings,
        ) {
            return;
        }
        let children = std::mem::take(&mut self.children);
        match joined(page, run, &children, &mut self.waiting) {
            Ok((height, subtree)) => self.wait(height, subtree),
            Err((at, expected, found)) => self.error(page, at as u64, expected, found),
        }
        self.children = children;
    }

    /// Ends the check once the metas are written, too: what each top-level bucket holds, by name.
    /// Nothing comes back if anything is wrong; that is in `findings`.
    ///
    /// # Errors
    /// Those of reading the root.
    pub fn end(
        mut self,
        source: &dyn ReadAt,
        meta: &Meta,
        findings: &mut Findings,
    ) -> io::Result<Option<BTreeMap<Vec<u8>, Digest>>> {
        if self.findings.errors() == 0
            && (self.page != meta.high_water || !self.run.is_empty() || self.long.is_some())
        {
            let expected = format!("whole pages up to page {}", meta.high_water);
            self.error(self.page, 0, expected, "the end".to_owned());
        }
        if self.findings.errors() > 0 {
            findings.merge(self.findings);
            return Ok(None);
        }
        let mut unclaimed: BTreeMap<u64, Sum> = BTreeMap::new();
        for subtree in self.waiting.into_iter().flatten() {
            unclaimed.insert(subtree.page, subtree.sum);
        }
        let mut wanted = |page: u64, findings: &mut Findings| {
            let sum = unclaimed.remove(&page);
            if sum.is_none() {
                findings.error(Layer::Pages, Place::Page { page, offset: 0 }, || {
                    ("the root of a tree".into(), "another page".into())
                });
            }
            sum
        };
        wanted(meta.root, findings);
        let mut digests = BTreeMap::new();
        for (name, root) in bucket_roots(source, meta, findings)? {
            let digest = match root {
                Root::Page(page) => {
                    let sum = wanted(page, findings);
                    if sum.is_some_and(|sum| sum.buckets) {
                        findings.error(Layer::Pages, Place::Page { page, offset: 0 }, || {
                            ("entries that are not buckets".into(), "a bucket".into())
                        });
                    }
                    sum.map(Sum::digest)
                }
                Root::Inline { .. } => Some(read_digest(source, meta, root, findings)?),
            };
            digests.extend(digest.map(|digest| (name, digest)));
        }
        if let Some(page) = unclaimed.keys().next().copied() {
            findings.error(Layer::Pages, Place::Page { page, offset: 0 }, || {
                (
                    "a page below a branch".into(),
                    "no branch leads to it".into(),
                )
            });
        }
        Ok((findings.errors() == 0).then_some(digests))
    }
}

/// The offset in a branch that is wrong, what was expected there, and what was found.
type Wrong = (usize, String, String);

/// The subtree that a branch makes of those below it, and its height.
fn joined(
    page: u64,
    run: &[u8],
    children: &[Child],
    waiting: &mut [Vec<Subtree>],
) -> Result<(usize, Subtree), Wrong> {
    let no_child = || {
        (
            PAGE_HEADER,
            "a page that came before".into(),
            "another".into(),
        )
    };
    let first = children.first().ok_or_else(no_child)?;
    let begins = |level: &Vec<Subtree>| level.iter().position(|tree| tree.page == first.page);
    let mut levels = waiting.iter_mut().enumerate();
    let (height, from, level) = levels
        .find_map(|(height, level)| Some((height, begins(level)?, level)))
        .ok_or_else(no_child)?;
    let to = (from + children.len()).min(level.len());
    let mut whole: Option<Subtree> = None;
    let mut below = level.drain(from..to);
    for child in children {
        let key = run.get(child.start..child.start + child.key_len);
        let key = key.unwrap_or_default();
        let tree = below.next().filter(|tree| tree.page == child.page);
        let tree = tree.ok_or_else(no_child)?;
        let key_is_wrong = tree.first != key;
        let order_is_wrong = whole.as_ref().is_some_and(|whole| whole.last >= tree.first);
        if key_is_wrong || order_is_wrong {
            let expected = "the first key of the page below, above all before it".to_owned();
            return Err((child.start, expected, "another key".to_owned()));
        }
        whole = Some(match whole {
            None => Subtree { page, ..tree },
            Some(whole) => Subtree {
                last: tree.last,
                sum: whole.sum.then(tree.sum),
                ..whole
            },
        });
    }
    Ok((height + 1, whole.ok_or_else(no_child)?))
}

#[cfg(test)]
mod tests;
