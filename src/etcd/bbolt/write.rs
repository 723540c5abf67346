//! Writing bbolt databases: a few changes to a copy, or a full rewrite.
//!
//! [`amend`] leaves every page of the database where it is and as it is. It makes the pages that
//! differ anew, to stand behind the last page, and the two metas that lead to them: the whole
//! change takes effect with the metas. What the old pages leave is free, since no freelist is
//! stored. That costs next to nothing beyond the copy, and keeps what free pages hold.
//!
//! [`rewrite`] writes all buckets in order into fresh pages, as a defragmentation does: nothing
//! but live entries is left.
//!
//! Invariants of both: a page's id is its place, the tree's root and all children are below the
//! high-water mark, elements ascend, the file ends at the high-water mark, and both metas are
//! valid and lead to the same tree, so that a write torn later leaves one of them. The meta of
//! transaction *t* stands in page *t* mod 2, as bbolt puts it (bbolt, `internal/common/meta.go`).

mod amend;
mod pages;
mod rewrite;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::layout::{META_PAGE, NO_FREELIST};
use super::meta::{Meta, encode_meta};
use super::source::ReadAt;
use super::{Large, Leaf, Nested, Order, Root, Visitor, Walker};
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::findings::Findings;

pub use amend::{Amendment, amend};
pub use rewrite::rewrite;

/// Bytes of entries held at once: those of a small bucket, or of the root.
const MOST_HELD: usize = 16 << 20;

/// What becomes of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Entries are set and removed. The bucket is held in memory, so it must be a small one.
    Edit(Edit),
    /// One entry comes behind the last one.
    Append {
        /// Its key, above all others.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Several entries come behind the last one, ascending.
    Extend(Vec<(Vec<u8>, Vec<u8>)>),
}

impl Change {
    /// The entries that come behind the last one.
    fn behind(&self) -> Vec<(&[u8], &[u8])> {
        match self {
            Self::Edit(_) => Vec::new(),
            Self::Append { key, value } => vec![(key, value)],
            Self::Extend(entries) => entries
                .iter()
                .map(|(key, value)| (key.as_slice(), value.as_slice()))
                .collect(),
        }
    }
}

/// Entries to set and to remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edit {
    /// Whether all entries go first.
    pub clear: bool,
    /// Entries to remove, there or not.
    pub remove: BTreeSet<Vec<u8>>,
    /// Entries to set.
    pub put: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Changes by the name of the top-level bucket, which is made if it is not there.
pub type Changes = BTreeMap<Vec<u8>, Change>;

/// The two metas of a database without a stored freelist, page 0 first.
pub fn meta_pages(meta: &Meta) -> [[u8; META_PAGE]; 2] {
    let newer = meta.txid;
    [0, 1].map(|page| {
        let txid = if newer % 2 == page {
            newer
        } else {
            newer.saturating_sub(1)
        };
        encode_meta(page, &Meta { txid, ..*meta })
    })
}

/// The meta that follows another one.
fn next_meta(meta: &Meta, root: u64, high_water: u64) -> Meta {
    // Both metas are written, so that any number will do; one that is about to overflow will not.
    let txid = meta.txid.checked_add(1).filter(|t| *t < u64::MAX / 2);
    Meta {
        root,
        high_water,
        freelist: NO_FREELIST,
        txid: txid.unwrap_or(2),
        ..*meta
    }
}

/// A top-level bucket as its parent's leaf has it.
struct Top {
    name: Vec<u8>,
    value: Vec<u8>,
    root: Root,
}

/// Holds entries up to a bound.
#[derive(Default)]
struct Held {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    tops: Vec<Top>,
    bytes: usize,
    buckets: bool,
}

impl Visitor for Held {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            self.bytes += entry.key.len() + entry.value.len();
            if self.bytes > MOST_HELD {
                return Err(too_much());
            }
            if entry.bucket != self.buckets {
                let found = if entry.bucket { "a bucket" } else { "a value" };
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}: unexpected {found}", entry.place()),
                ));
            }
            match entry.root() {
                Some(root) => self.tops.push(Top {
                    name: entry.key.to_vec(),
                    value: entry.value.to_vec(),
                    root,
                }),
                None => self
                    .entries
                    .push((entry.key.to_vec(), entry.value.to_vec())),
            }
        }
        Ok(())
    }

    fn large(&mut self, _: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        Err(too_much())
    }
}

fn too_much() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("more than {MOST_HELD} bytes where etcd keeps a few kilobytes"),
    )
}

/// A database to be read.
struct Input<'a> {
    source: &'a dyn ReadAt,
    data: u64,
    meta: &'a Meta,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<'a> Input<'a> {
    /// Walks one bucket; what is broken is an error, as the database was checked before.
    fn walk(&self, root: Root, visitor: &mut dyn Visitor) -> Result<()> {
        let mut findings = Findings::keeping(1);
        let mut walker = Walker::new(self.source, self.data, self.meta, self.progress);
        walker
            .walk(
                root,
                Order::Ascending,
                Nested::Leave,
                visitor,
                &mut findings,
            )
            .doing(Kind::BadBackup, || "reading the database")?;
        match findings.listed().first() {
            Some(first) if findings.errors() > 0 => {
                Err(Failure::new(Kind::BadBackup, first.to_string()).doing("reading the database"))
            }
            _ => Ok(()),
        }
    }

    fn tops(&self) -> Result<Vec<Top>> {
        let mut held = Held {
            buckets: true,
            ..Held::default()
        };
        self.walk(Root::Page(self.meta.root), &mut held)?;
        Ok(held.tops)
    }

    fn entries(&self, root: Root) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut held = Held::default();
        self.walk(root, &mut held)?;
        Ok(held.entries)
    }

    /// The entries of a bucket after an edit, in order.
    fn edited(&self, top: Option<&Top>, edit: &Edit) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut entries = match top {
            Some(top) if !edit.clear => self.entries(top.root)?.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        entries.retain(|key, _| !edit.remove.contains(key));
        entries.extend(edit.put.clone());
        Ok(entries)
    }
}

/// The sum of a bucket's entries, wherever its pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// How many entries.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// CRC-32C over key and value of each, in order.
    pub crc: u32,
}

impl Digest {
    /// Takes one more entry.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.bytes += (key.len() + value.len()) as u64;
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, key), value);
    }
}

impl Visitor for Digest {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            self.add(entry.key, entry.value);
        }
        Ok(())
    }

    fn large(&mut self, element: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        self.add(element.key, &[]);
        let mut piece = vec![0; 1 << 20];
        let mut at = 0;
        while at < element.value_len {
            let want = (element.value_len - at).min(piece.len() as u64);
            let part = piece.get_mut(..want as usize).unwrap_or_default();
            element.read_at(part, at)?;
            self.crc = crc32c::crc32c_append(self.crc, part);
            at += want;
        }
        self.bytes += element.value_len;
        Ok(())
    }
}

/// The digests of all top-level buckets, by name.
pub fn digests(source: &dyn ReadAt, data: u64, meta: &Meta) -> Result<BTreeMap<Vec<u8>, Digest>> {
    let input = Input {
        source,
        data,
        meta,
        progress: &|_| {},
    };
    let mut digests = BTreeMap::new();
    for top in input.tops()? {
        let mut digest = Digest::default();
        input.walk(top.root, &mut digest)?;
        digests.insert(top.name, digest);
    }
    Ok(digests)
}

/// The entries of one small top-level bucket; none where there is no such bucket.
pub fn small_bucket(
    source: &dyn ReadAt,
    data: u64,
    meta: &Meta,
    name: &[u8],
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let input = Input {
        source,
        data,
        meta,
        progress: &|_| {},
    };
    match input.tops()?.iter().find(|top| top.name == name) {
        Some(top) => input.entries(top.root),
        None => Ok(Vec::new()),
    }
}

/// The sequence in a bucket's header; of a new bucket 0.
fn sequence(top: Option<&Top>) -> u64 {
    top.and_then(|top| super::layout::u64_at(&top.value, 8))
        .unwrap_or(0)
}

fn writing<T>(result: io::Result<T>) -> Result<T> {
    result.doing(Kind::Store, || "writing the database")
}
