//! Rewriting a whole database, in order.

use std::io::{self, Write};

use super::changes::{Change, Changes, next_meta};
use super::input::{Input, RootBucket, sequence, writing};
use super::pages::Pages;
use super::tree::{Bucket, Tree};
use crate::error::{Failure, Kind, Result};
use crate::etcd::bbolt::layout::BUCKET_LEAF;
use crate::etcd::bbolt::meta::Meta;
use crate::etcd::bbolt::source::ReadAt;
use crate::etcd::bbolt::{Large, Leaf, Root, Visitor};
use crate::finding::Findings;

/// Writes a database with its changes in pages of `page_size`, from page 2 on, which is where `out` must
/// stand: the buckets by name, then the root. What comes back makes pages 0 and 1
/// ([`meta_pages`](super::meta_pages)). `progress` gets the bytes read.
///
/// Leaves are filled to nine tenths, as etcd's own defragmentation does, and hold two entries at least.
/// A bucket in a bucket, which etcd never makes, is an error.
pub fn rewrite<W: Write>(
    source: &dyn ReadAt,
    data: u64,
    meta: &Meta,
    changes: &Changes,
    page_size: u32,
    out: W,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Meta, W)> {
    let input = Input {
        source,
        data,
        meta,
        progress,
    };
    Rewriting::new(page_size, out).finish(&input, changes)
}

/// A database that is being [written](rewrite), perhaps before all of its changes are known.
pub struct Rewriting<W> {
    pages: Pages<W>,
    page_size: u32,
    fill: usize,
    /// The bucket whose entries have been written, and its tree, which others may still be added to.
    early: Option<(Vec<u8>, Tree)>,
}

impl<W: Write> Rewriting<W> {
    /// Begins at page 2, which is where `out` must stand.
    pub fn new(page_size: u32, out: W) -> Self {
        Self {
            pages: Pages::new(out, page_size, 2),
            page_size,
            // `defragdb` sets bbolt's FillPercent to 0.9 (etcd, server/mvcc/backend/backend.go in 3.5).
            fill: page_size as usize / 10 * 9,
            early: None,
        }
    }

    /// Writes the entries of one bucket before its changes are known, which then may only add entries
    /// behind the last one.
    ///
    /// # Errors
    /// [`Kind::BadBackup`] if the bucket is broken, [`Kind::Store`] if it cannot be written.
    pub fn begin_with(&mut self, input: &Input<'_>, name: &[u8]) -> Result<()> {
        let top = input.root_buckets()?;
        if let Some(top) = top.iter().find(|top| top.name == name) {
            let tree = Tree::new(self.fill);
            let tree = copied(input, &mut self.pages, tree, Some(top), None)?;
            self.early = Some((name.to_owned(), tree));
        }
        Ok(())
    }

    /// Writes everything else.
    ///
    /// # Errors
    /// As [`Rewriting::begin_with`]; [`Kind::Unexpected`] for a change of the first bucket that does not
    /// only add.
    pub fn finish(mut self, input: &Input<'_>, changes: &Changes) -> Result<(Meta, W)> {
        let mut root_buckets = input.root_buckets()?;
        for name in changes.keys() {
            if !root_buckets.iter().any(|top| top.name == *name) {
                root_buckets.push(RootBucket {
                    name: name.clone(),
                    value: Vec::new(),
                    // Never read: an empty value says that there was no such bucket.
                    root: Root::Inline {
                        page: 0,
                        offset: 0,
                        len: 0,
                    },
                });
            }
        }
        root_buckets.sort_by(|a, b| a.name.cmp(&b.name));
        let early = match self.early.take() {
            Some((name, tree)) => {
                let behind = match changes.get(&name) {
                    None => Vec::new(),
                    Some(change) if change.only_adds() => change.behind(),
                    Some(_) => {
                        let what = "the first bucket is changed after it was written";
                        return Err(Failure::new(Kind::Unexpected, what));
                    }
                };
                Some((name, ended(&mut self.pages, tree, &behind)?))
            }
            None => None,
        };
        let mut root = Tree::new(self.page_size as usize);
        for top in &root_buckets {
            let was = (!top.value.is_empty()).then_some(top);
            let first = early.as_ref().filter(|(name, _)| *name == top.name);
            let value = match first {
                Some((_, bucket)) => bucket.value(sequence(was)),
                None => self
                    .bucket(input, was, changes.get(&top.name))?
                    .value(sequence(was)),
            };
            writing(root.push(&mut self.pages, BUCKET_LEAF, &top.name, &value))?;
        }
        let root = writing(root.finish_page(&mut self.pages))?;
        let (high_water, out) = self.pages.finish();
        let meta = Meta {
            page_size: self.page_size,
            ..next_meta(input.meta, root, high_water)
        };
        Ok((meta, out))
    }

    fn bucket(
        &mut self,
        input: &Input<'_>,
        top: Option<&RootBucket>,
        change: Option<&Change>,
    ) -> Result<Bucket> {
        let mut tree = Tree::new(self.fill);
        if let Some(Change::Edit(edit)) = change {
            for (key, value) in input.edited(top, edit)? {
                writing(tree.push(&mut self.pages, 0, &key, &value))?;
            }
            return writing(tree.finish(&mut self.pages));
        }
        let tree = copied(input, &mut self.pages, tree, top, change)?;
        let behind = change.map(Change::behind).unwrap_or_default();
        ended(&mut self.pages, tree, &behind)
    }
}

/// Adds those entries of a bucket to a tree that a change keeps.
fn copied<W: Write>(
    input: &Input<'_>,
    pages: &mut Pages<W>,
    tree: Tree,
    top: Option<&RootBucket>,
    change: Option<&Change>,
) -> Result<Tree> {
    let mut copy = Copy {
        tree,
        pages,
        change,
    };
    if let Some(top) = top {
        input.walk(top.root, &mut copy)?;
    }
    Ok(copy.tree)
}

/// Adds the last entries to a tree, and ends it.
fn ended<W: Write>(
    pages: &mut Pages<W>,
    mut tree: Tree,
    behind: &[(&[u8], &[u8])],
) -> Result<Bucket> {
    for (key, value) in behind {
        writing(tree.push(pages, 0, key, value))?;
    }
    writing(tree.finish(pages))
}

/// Hands entries from one tree to another.
struct Copy<'p, W> {
    tree: Tree,
    pages: &'p mut Pages<W>,
    change: Option<&'p Change>,
}

impl<W> Copy<'_, W> {
    fn keeps(&self, key: &[u8]) -> bool {
        self.change.is_none_or(|change| change.keeps(key))
    }
}

impl<W: Write> Visitor for Copy<'_, W> {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            if entry.bucket {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}: an unexpected bucket", entry.place()),
                ));
            }
            if self.keeps(entry.key) {
                self.tree.push(self.pages, 0, entry.key, entry.value)?;
            }
        }
        Ok(())
    }

    fn large(&mut self, element: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        match self.keeps(element.key) {
            true => self.tree.push_large(self.pages, element),
            false => Ok(()),
        }
    }
}
