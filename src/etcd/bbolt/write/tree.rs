//! A bucket's tree, built from entries that come in order.

use std::io::{self, Write};

use super::pages::{Draft, MAX_ELEMENTS, Pages};
use crate::etcd::bbolt::Large;
use crate::etcd::bbolt::layout::BUCKET_HEADER;

/// A leaf is not closed with fewer: two large entries together leave less of their last page empty than
/// each alone (bbolt, `node.go`, `splitIndex`: `minKeysPerPage`).
const MIN_ENTRIES: usize = 2;

/// Where a finished bucket is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bucket {
    /// At its own page.
    Page(u64),
    /// Nowhere yet: these bytes belong into the parent's leaf.
    Inline(Vec<u8>),
}

impl Bucket {
    /// The value under the bucket's name.
    pub(super) fn value(&self, sequence: u64) -> Vec<u8> {
        let (root, inline) = match self {
            Self::Page(page) => (*page, &[][..]),
            Self::Inline(bytes) => (0, bytes.as_slice()),
        };
        let mut value = Vec::with_capacity(BUCKET_HEADER + inline.len());
        value.extend_from_slice(&root.to_le_bytes());
        value.extend_from_slice(&sequence.to_le_bytes());
        value.extend_from_slice(inline);
        value
    }
}

/// Leaves are written as they fill; above them one page a level is held.
pub(super) struct Tree {
    leaf: Draft,
    levels: Vec<Draft>,
    /// A leaf of enough entries is closed before it passes so many bytes.
    fill: usize,
}

impl Tree {
    /// A tree whose leaves are filled up to so many bytes.
    pub(super) fn new(fill: usize) -> Self {
        Self {
            leaf: Draft::default(),
            levels: Vec::new(),
            fill,
        }
    }

    /// Adds an entry, above all before it.
    pub(super) fn push<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        flags: u32,
        key: &[u8],
        value: &[u8],
    ) -> io::Result<()> {
        let more = crate::etcd::bbolt::layout::ELEMENT + key.len() + value.len();
        let full = self.leaf.size() + more > self.fill || self.leaf.len() >= MAX_ELEMENTS;
        if self.leaf.len() >= MIN_ENTRIES && full {
            // Entries come in order: those before this one must be on a page in front of its own.
            self.close_leaf(pages)?;
        }
        self.leaf.push_leaf(flags, key, value)
    }

    /// Adds an entry too big to be held.
    pub(super) fn push_large<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        element: &Large<'_>,
    ) -> io::Result<()> {
        self.close_leaf(pages)?;
        let mut read = |buf: &mut [u8], at| element.read_at(buf, at);
        let page = pages.large_leaf(element.key, element.value_len, &mut read)?;
        self.add_child(pages, 0, element.key, page)
    }

    pub(super) fn close_leaf<W: Write>(&mut self, pages: &mut Pages<W>) -> io::Result<()> {
        if self.leaf.len() == 0 {
            return Ok(());
        }
        let page = pages.leaf(&self.leaf)?;
        let key = self.leaf.first_key().to_vec();
        self.leaf.clear();
        self.add_child(pages, 0, &key, page)
    }

    pub(super) fn add_child<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        level: usize,
        key: &[u8],
        child: u64,
    ) -> io::Result<()> {
        let (mut level, mut key, mut child) = (level, key.to_vec(), child);
        loop {
            if self.levels.len() == level {
                self.levels.push(Draft::default());
            }
            let Some(draft) = self.levels.get_mut(level) else {
                return Ok(());
            };
            let more = crate::etcd::bbolt::layout::ELEMENT + key.len();
            // A branch with a single child would make the tree no flatter.
            let full = draft.len() >= 2 && draft.size() + more > pages.page_size();
            if !full && draft.len() < MAX_ELEMENTS {
                return draft.push_branch(&key, child);
            }
            // The page is full: it is written, and the loop carries its first key one level up.
            let page = pages.branch(draft)?;
            let first = draft.first_key().to_vec();
            draft.clear();
            draft.push_branch(&key, child)?;
            (level, key, child) = (level + 1, first, page);
        }
    }

    /// Ends the bucket. It is kept inline where bbolt would: up to a quarter of a page.
    pub(super) fn finish<W: Write>(self, pages: &mut Pages<W>) -> io::Result<Bucket> {
        if self.levels.is_empty() && self.leaf.size() <= pages.page_size() / 4 {
            return Ok(Bucket::Inline(self.leaf.inline()));
        }
        self.finish_page(pages).map(Bucket::Page)
    }

    /// Ends a tree that must have its own page.
    pub(super) fn finish_page<W: Write>(mut self, pages: &mut Pages<W>) -> io::Result<u64> {
        if self.levels.is_empty() {
            // All entries are in one leaf. It may be empty: that is how an empty bucket looks.
            return pages.leaf(&self.leaf);
        }
        self.close_leaf(pages)?;
        let mut level = 0;
        loop {
            let top = level + 1 == self.levels.len();
            let Some(draft) = self.levels.get_mut(level) else {
                return Err(io::Error::other("a tree without a root"));
            };
            // A root with one child would add a level and tell nothing apart.
            if let (true, Some(child)) = (top, draft.only_child()) {
                return Ok(child);
            }
            let page = pages.branch(draft)?;
            let first = draft.first_key().to_vec();
            draft.clear();
            self.add_child(pages, level + 1, &first, page)?;
            level += 1;
        }
    }
}
