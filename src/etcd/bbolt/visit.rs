//! What a walk shows, and to whom.

use std::io;

use super::elements::Item;
use super::layout::{BUCKET_HEADER, u64_at};
use super::source::ReadAt;
use crate::finding::{Findings, Place};

/// Which end of a bucket a walk begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Greatest key first; the elements of one [`Leaf`] ascend nevertheless.
    Descending,
}

impl Order {
    pub(super) fn follows(self, last: &[u8], key: &[u8]) -> bool {
        match self {
            Self::Ascending => last < key,
            Self::Descending => last > key,
        }
    }
}

/// What to do with buckets inside of the bucket that is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nested {
    /// Check them too. A visitor does not see their content.
    Check,
    /// Leave them to the caller.
    Leave,
}

/// Where a bucket's tree begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// At a page of its own.
    Page(u64),
    /// In a leaf page inside of the parent's leaf.
    Inline {
        /// The parent's page.
        page: u64,
        /// Offset in that page of the inline page's header.
        offset: u64,
        /// Bytes of the inline page.
        len: u64,
    },
}

/// Takes what a walk comes by. Failures stop the walk.
pub trait Visitor {
    /// A leaf page with its elements, or one element of a leaf too big to be held.
    fn leaf(&mut self, leaf: &Leaf<'_>, findings: &mut Findings) -> io::Result<()>;

    /// One element too big to be held.
    fn large(&mut self, element: &Large<'_>, findings: &mut Findings) -> io::Result<()>;

    /// What a visitor knows already of the leaf that is this page: then the walk reads no byte of it,
    /// but holds it to its place in the tree. It is asked for each page of the tree.
    fn known(&mut self, page: u64) -> io::Result<Option<Known>> {
        let _ = page;
        Ok(None)
    }

    /// The leaf that was known last is in its place.
    fn take_known(&mut self, findings: &mut Findings) -> io::Result<()> {
        let _ = findings;
        Ok(())
    }
}

/// A leaf whose page was judged before, apart from its tree: it says its own number, has elements,
/// none of them a bucket, and its keys ascend.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Further pages that it spans.
    pub overflow: u32,
    /// Its first key.
    pub first: ShortKey,
    /// Its last key.
    pub last: ShortKey,
}

/// A key of a few bytes, in place.
#[derive(Debug, Clone, Copy)]
pub struct ShortKey {
    bytes: [u8; 24],
    len: u8,
}

impl ShortKey {
    /// Holds a key; `None` if it is longer than 24 bytes.
    pub fn of(key: &[u8]) -> Option<Self> {
        let mut bytes = [0; 24];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(Self {
            bytes,
            len: key.len() as u8,
        })
    }

    /// The key.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.len))
            .unwrap_or(&self.bytes)
    }
}

/// Elements of a leaf, in ascending order, with the bytes that hold them.
#[derive(Debug)]
pub struct Leaf<'a> {
    pub(super) page: u64,
    pub(super) base: usize,
    pub(super) data: &'a [u8],
    pub(super) items: &'a [Item],
}

impl<'a> Leaf<'a> {
    /// The page's number.
    pub fn page(&self) -> u64 {
        self.page
    }

    /// Whether these are all elements of a page, and not of an inline bucket or some of a large leaf.
    pub fn is_page(&self) -> bool {
        self.base == 0
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the element list is empty.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The elements, in ascending order of keys.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = Entry<'a>> + ExactSizeIterator {
        let Self {
            page, base, data, ..
        } = *self;
        self.items.iter().map(move |item| Entry {
            key: data.get(item.start..item.value_start()).unwrap_or_default(),
            value: data.get(item.value_start()..item.end()).unwrap_or_default(),
            bucket: item.bucket,
            page,
            offset: (base + item.start) as u64,
        })
    }

    /// The bytes from the first key to the last value, if they are the elements' keys and values
    /// with nothing between, and there is no bucket among them.
    pub fn contiguous(&self) -> Option<&'a [u8]> {
        let (first, last) = (self.items.first()?, self.items.last()?);
        let total: usize = self.items.iter().map(|i| i.key_len + i.value_len).sum();
        let whole = self.data.get(first.start..last.end())?;
        (whole.len() == total && self.items.iter().all(|i| !i.bucket)).then_some(whole)
    }
}

/// A key and its value, in place.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value, or the bucket's header and what follows it.
    pub value: &'a [u8],
    /// Whether the value is a bucket.
    pub bucket: bool,
    pub(super) page: u64,
    pub(super) offset: u64,
}

impl Entry<'_> {
    /// Where the key begins.
    pub fn place(&self) -> Place {
        Place::Page {
            page: self.page,
            offset: self.offset,
        }
    }

    /// Where the value's byte `offset` is.
    pub fn value_place(&self, offset: usize) -> Place {
        Place::Page {
            page: self.page,
            offset: self.offset + (self.key.len() + offset) as u64,
        }
    }

    /// Where the bucket that the value is begins; `None` if the value is not a bucket, or is broken.
    pub fn root(&self) -> Option<Root> {
        let page = u64_at(self.value, 0).filter(|_| self.bucket)?;
        let len = self.value.len().checked_sub(BUCKET_HEADER)?;
        Some(match page {
            0 => Root::Inline {
                page: self.page,
                offset: self.offset + (self.key.len() + BUCKET_HEADER) as u64,
                len: len as u64,
            },
            page => Root::Page(page),
        })
    }

    /// The bucket's sequence.
    pub fn sequence(&self) -> Option<u64> {
        u64_at(self.value, 8).filter(|_| self.bucket)
    }
}

/// An element whose value must be read in pieces.
pub struct Large<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Bytes of the value.
    pub value_len: u64,
    pub(super) source: &'a dyn ReadAt,
    pub(super) file_offset: u64,
    pub(super) page: u64,
    pub(super) offset: u64,
}

/// The longest value that is read into memory, in bytes; etcd's requests are 1.5 MiB unless configured otherwise, so that
/// a value that claims more is damaged.
const MAX_IN_MEMORY: u64 = 1 << 30;

impl Large<'_> {
    /// The number of the page whose element it is.
    pub fn page(&self) -> u64 {
        self.page
    }

    /// The value in memory.
    ///
    /// # Errors
    /// `InvalidData` if it is longer than 1 GiB, and what reading fails with.
    pub fn value(&self) -> io::Result<Vec<u8>> {
        if self.value_len > MAX_IN_MEMORY {
            let what = format!("expected a smaller value, found {} bytes", self.value_len);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let mut value = vec![0; self.value_len as usize];
        self.read_at(&mut value, 0)?;
        Ok(value)
    }

    /// Fills `buf` from the value's byte `at` on.
    pub fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.value_len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.source.read_exact_at(buf, self.file_offset + at)
    }

    /// Where the key begins.
    pub fn place(&self) -> Place {
        Place::Page {
            page: self.page,
            offset: self.offset,
        }
    }
}

/// Sees nothing: for checking alone.
pub struct Unseen;

impl Visitor for Unseen {
    fn leaf(&mut self, _: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        Ok(())
    }

    fn large(&mut self, _: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        Ok(())
    }
}
