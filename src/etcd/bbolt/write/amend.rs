//! A few changes to a database, as pages behind its last one.

use super::changes::{Change, Changes, meta_pages, next_meta};
use super::cut::cut;
use super::edge::{
    Children, Ends, MAX_DEPTH, Out, Page, bad, branch_pages, leaves, out_of_order, read_page,
};
use super::input::{Input, RootBucket, sequence, writing};
use super::pages::Pages;
use super::tree::{Bucket, Tree};
use crate::error::Result;
use crate::etcd::bbolt::Root;
use crate::etcd::bbolt::layout::{BUCKET_LEAF, META_PAGE};
use crate::etcd::bbolt::meta::Meta;
use crate::etcd::bbolt::source::ReadAt;

/// What makes a changed database of a copy: write the pages at their offset, then the metas at
/// the beginning of pages 0 and 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amendment {
    /// Where the pages belong: the end of the database as it was.
    pub offset: u64,
    /// The pages, whole.
    pub pages: Vec<u8>,
    /// The meta that is in force afterwards.
    pub meta: Meta,
    /// The beginnings of pages 0 and 1.
    pub metas: [[u8; META_PAGE]; 2],
}

/// Works out an amendment. Memory is that of the buckets edited, the root, the entries that come
/// behind a bucket's last one, and the branch pages on the way to that.
pub fn amend(source: &dyn ReadAt, data: u64, meta: &Meta, changes: &Changes) -> Result<Amendment> {
    let input = Input {
        source,
        data,
        meta,
        progress: &|_| {},
    };
    let offset = meta.database_size().filter(|size| *size <= data);
    let offset = offset.ok_or_else(|| bad("expected a whole database, found a truncated one"))?;
    let mut root_buckets = input.root_buckets()?;
    // Behind the last page, and never over a free one: until the metas are written, the file is the
    // database that it was.
    let mut pages = Pages::new(Vec::new(), meta.page_size, meta.high_water);
    for (name, change) in changes {
        let known = root_buckets.iter().position(|top| top.name == *name);
        let top = known.and_then(|index| root_buckets.get(index));
        let bucket = changed(&input, &mut pages, top, change)?;
        let value = bucket.value(sequence(top));
        match known.and_then(|index| root_buckets.get_mut(index)) {
            Some(top) => top.value = value,
            None => root_buckets.push(RootBucket {
                name: name.clone(),
                value,
                // Never followed: only name and value go into the new root.
                root: Root::Page(0),
            }),
        }
    }
    // bbolt finds a bucket by bisection, so that the names must ascend.
    root_buckets.sort_by(|a, b| a.name.cmp(&b.name));
    let mut root = Tree::new(meta.page_size as usize);
    for top in &root_buckets {
        writing(root.push(&mut pages, BUCKET_LEAF, &top.name, &top.value))?;
    }
    let root = writing(root.finish_page(&mut pages))?;
    let (high_water, pages) = pages.finish();
    let meta = next_meta(meta, root, high_water);
    Ok(Amendment {
        offset,
        pages,
        meta,
        metas: meta_pages(&meta),
    })
}

fn changed(
    input: &Input<'_>,
    pages: &mut Out,
    top: Option<&RootBucket>,
    change: &Change,
) -> Result<Bucket> {
    if let Change::Edit(edit) = change {
        let entries: Vec<_> = input.edited(top, edit)?.into_iter().collect();
        let entries = entries.iter().map(|(k, v)| (k.as_slice(), v.as_slice()));
        return bucket_of(pages, entries);
    }
    let behind = change.behind();
    if let (Change::Cut { from, .. }, Some(Root::Page(root))) = (change, top.map(|top| top.root)) {
        let root = cut(input, pages, root, from, &behind)?;
        return root.map_or_else(
            || bucket_of(pages, std::iter::empty()),
            |root| Ok(Bucket::Page(root)),
        );
    }
    if !behind
        .windows(2)
        .all(|pair| matches!(pair, [(a, _), (b, _)] if a < b))
    {
        return Err(out_of_order());
    }
    let root = match top.map(|top| top.root) {
        Some(Root::Page(root)) => return extend(input, pages, root, &behind).map(Bucket::Page),
        root => root,
    };
    // An inline bucket is at most a page long: it is read whole and written again.
    let mut entries = match root {
        Some(root) => input.entries(root)?,
        None => Vec::new(),
    };
    if let Change::Cut { from, .. } = change {
        entries.retain(|(key, _)| key < from);
    }
    let last = entries.last().map(|(key, _)| key.as_slice());
    if behind.first().is_some_and(|(first, _)| last >= Some(first)) {
        return Err(out_of_order());
    }
    let entries = entries.iter().map(|(k, v)| (k.as_slice(), v.as_slice()));
    bucket_of(pages, entries.chain(behind))
}

fn bucket_of<'e>(
    pages: &mut Out,
    entries: impl Iterator<Item = (&'e [u8], &'e [u8])>,
) -> Result<Bucket> {
    let mut tree = Tree::new(pages.page_size());
    for (key, value) in entries {
        writing(tree.push(pages, 0, key, value))?;
    }
    writing(tree.finish(pages))
}

/// Puts entries into their own leaves behind the last one, which stays as it is, and makes the
/// branch pages above again. Returns where the new root is.
fn extend(
    input: &Input<'_>,
    pages: &mut Out,
    root: u64,
    entries: &[(&[u8], &[u8])],
) -> Result<u64> {
    let Some((key, _)) = entries.first() else {
        return Ok(root);
    };
    let (mut path, at, (first, last)) = right_edge(input, root)?;
    if last.as_deref().is_some_and(|last| last >= *key) {
        return Err(out_of_order());
    }
    let new = leaves(pages, entries)?;
    // `below` holds the children of one level, leaves first; `path` the branch pages above it that
    // are yet to be rewritten, the root first. The last child of each page on the path is the page
    // that the path leads through, so that only the right edge of the tree changes.
    //
    // Only a root is an empty leaf, and then it is replaced.
    let mut below = match (path.pop(), first) {
        (Some(parent), _) => parent,
        (None, Some(first)) => vec![(first, at)],
        (None, None) => Vec::new(),
    };
    below.extend(new);
    branch_pages(pages, below, path)
}

/// The branch pages that lead to the last leaf, that leaf, and its first and last key.
fn right_edge(input: &Input<'_>, root: u64) -> Result<(Vec<Children>, u64, Ends)> {
    let mut path: Vec<Children> = Vec::new();
    let mut at = root;
    loop {
        if path.len() >= MAX_DEPTH {
            return Err(bad(format!("page {at}: expected a flatter tree")));
        }
        match read_page(input, at)? {
            Page::Branch(children) => {
                let last = children.last().map(|(_, child)| *child);
                at = last.ok_or_else(|| bad(format!("page {at}: expected children")))?;
                path.push(children);
            }
            Page::Leaf(ends) => return Ok((path, at, ends)),
        }
    }
}
