//! Rewriting a whole database, in order.

use std::io::{self, Write};

use super::changes::{Change, Changes, next_meta};
use super::input::{Input, RootBucket, sequence, writing};
use super::pages::Pages;
use super::tree::{Bucket, Tree};
use crate::error::Result;
use crate::etcd::bbolt::layout::BUCKET_LEAF;
use crate::etcd::bbolt::meta::Meta;
use crate::etcd::bbolt::source::ReadAt;
use crate::etcd::bbolt::{Large, Leaf, Root, Visitor};
use crate::finding::Findings;

/// Writes a database with its changes from `out`'s beginning on, in pages of `page_size`: two
/// pages of zeros, to be overwritten by [`meta_pages`](super::meta_pages) of what comes back, then
/// the buckets by name, then the root. `progress` gets the bytes read.
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
    let mut root_buckets = input.root_buckets()?;
    let mut pages = Pages::new(out, page_size, 2);
    writing(pages.pad(2 * page_size as usize))?;
    // `defragdb` sets bbolt's FillPercent to 0.9 (etcd, server/mvcc/backend/backend.go in 3.5).
    let fill = page_size as usize / 10 * 9;
    let mut root = Tree::new(page_size as usize);
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
    for top in &root_buckets {
        let was = (!top.value.is_empty()).then_some(top);
        let bucket = bucket(&input, &mut pages, was, changes.get(&top.name), fill)?;
        let value = bucket.value(sequence(was));
        writing(root.push(&mut pages, BUCKET_LEAF, &top.name, &value))?;
    }
    let root = writing(root.finish_page(&mut pages))?;
    let (high_water, out) = pages.finish();
    let meta = Meta {
        page_size,
        ..next_meta(meta, root, high_water)
    };
    Ok((meta, out))
}

fn bucket<W: Write>(
    input: &Input<'_>,
    pages: &mut Pages<W>,
    top: Option<&RootBucket>,
    change: Option<&Change>,
    fill: usize,
) -> Result<Bucket> {
    let mut tree = Tree::new(fill);
    if let Some(Change::Edit(edit)) = change {
        for (key, value) in input.edited(top, edit)? {
            writing(tree.push(pages, 0, &key, &value))?;
        }
        return writing(tree.finish(pages));
    }
    let mut copy = Copy {
        tree,
        pages,
        change,
    };
    if let Some(top) = top {
        input.walk(top.root, &mut copy)?;
    }
    let Copy {
        mut tree, pages, ..
    } = copy;
    for (key, value) in change.map(Change::behind).unwrap_or_default() {
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
