//! The database that is changed, read bucket by bucket.

use std::collections::BTreeMap;
use std::io;

use super::changes::Edit;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::layout::u64_at;
use crate::etcd::bbolt::meta::Meta;
use crate::etcd::bbolt::source::ReadAt;
use crate::etcd::bbolt::{Large, Leaf, Nested, Order, Root, Visitor, Walker};
use crate::finding::Findings;

/// Bytes of entries held at once: those of a small bucket, or of the root.
const MAX_HELD: usize = 16 << 20;

/// A top-level bucket as its parent's leaf has it.
pub(super) struct RootBucket {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) root: Root,
}

/// Holds entries up to a bound.
#[derive(Default)]
struct Held {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    root_buckets: Vec<RootBucket>,
    bytes: usize,
    buckets: bool,
}

impl Visitor for Held {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            self.bytes += entry.key.len() + entry.value.len();
            if self.bytes > MAX_HELD {
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
                Some(root) => self.root_buckets.push(RootBucket {
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
        format!("more than {MAX_HELD} bytes where etcd keeps a few kilobytes"),
    )
}

/// A database to be read.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Where its bytes are.
    pub source: &'a dyn ReadAt,
    /// How many bytes are the database.
    pub data: u64,
    /// Its meta.
    pub meta: &'a Meta,
    /// Gets the bytes read since it was last called.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl<'a> Input<'a> {
    /// Walks one bucket; what is broken is an error, as the database was checked before.
    pub(super) fn walk(&self, root: Root, visitor: &mut dyn Visitor) -> Result<()> {
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

    pub(super) fn root_buckets(&self) -> Result<Vec<RootBucket>> {
        let mut held = Held {
            buckets: true,
            ..Held::default()
        };
        self.walk(Root::Page(self.meta.root), &mut held)?;
        Ok(held.root_buckets)
    }

    pub(super) fn entries(&self, root: Root) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut held = Held::default();
        self.walk(root, &mut held)?;
        Ok(held.entries)
    }

    /// The entries of a bucket after an edit, in order.
    pub(super) fn edited(
        &self,
        top: Option<&RootBucket>,
        edit: &Edit,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut entries = match top {
            Some(top) if !edit.clear => self.entries(top.root)?.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        // Removed first, so that an edit may remove a key and set it.
        entries.retain(|key, _| !edit.remove.contains(key));
        entries.extend(edit.put.clone());
        Ok(entries)
    }
}

/// The sequence in a bucket's header; of a new bucket 0.
pub(super) fn sequence(top: Option<&RootBucket>) -> u64 {
    top.and_then(|top| u64_at(&top.value, 8)).unwrap_or(0)
}

pub(super) fn writing<T>(result: io::Result<T>) -> Result<T> {
    result.doing(Kind::Store, || "writing the database")
}
