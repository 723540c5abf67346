//! A few changes to a database, as pages behind its last one.

use std::io;

use super::changes::{Change, Changes, meta_pages, next_meta};
use super::cut::cut;
use super::input::{Input, RootBucket, sequence, writing};
use super::pages::{Draft, MAX_ELEMENTS, Pages};
use super::tree::{Bucket, Tree};
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::Root;
use crate::etcd::bbolt::elements::{Child, Item, Table};
use crate::etcd::bbolt::layout::{
    BRANCH, BUCKET_LEAF, ELEMENT, LEAF, META_PAGE, PAGE_HEADER, PageHeader,
};
use crate::etcd::bbolt::meta::Meta;
use crate::etcd::bbolt::source::ReadAt;
use crate::finding::Findings;

/// Levels of a tree, and bytes of a branch page, beyond which nobody writes.
const MAX_DEPTH: usize = 64;
const MAX_BRANCH: usize = 4 << 20;

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
                root: Root::Page(0),
            }),
        }
    }
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

pub(super) type Out = Pages<Vec<u8>>;

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

pub(super) fn out_of_order() -> Failure {
    Failure::new(
        Kind::Unexpected,
        "appending an entry to a bucket: its key is not above the last one",
    )
}

fn bad(what: impl Into<String>) -> Failure {
    Failure::new(Kind::BadBackup, what.into()).doing("reading the database")
}

/// A branch page's separators and children.
pub(super) type Children = Vec<(Vec<u8>, u64)>;

/// Puts entries into leaves of their own behind the last one, which stays as it is, and makes the
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

/// Writes the branch pages above the children of the lowest level; `path` holds the branch pages above
/// those, the root first. Returns where the root is.
pub(super) fn branch_pages(
    pages: &mut Out,
    mut below: Children,
    mut path: Vec<Children>,
) -> Result<u64> {
    // Each turn writes one level and goes up one. It ends when one page is left that nobody above
    // refers to: the root. Beyond the old root the tree grows a level wherever one page does not
    // hold all children.
    while below.len() > 1 || !path.is_empty() {
        let written = branches(pages, &below)?;
        below = match path.pop() {
            Some(mut parent) => {
                let mut written = written.into_iter();
                // The first new page replaces the old right-most one under the separator that it
                // had; the parent keeps its other children untouched.
                if let (Some((_, child)), Some((_, page))) = (parent.last_mut(), written.next()) {
                    *child = page;
                }
                parent.extend(written);
                parent
            }
            None => written,
        };
    }
    let root = below.first().map(|(_, page)| *page);
    root.ok_or_else(|| bad("expected a root page"))
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

/// Leaves that hold entries, each filled as far as it goes.
pub(super) fn leaves(pages: &mut Out, entries: &[(&[u8], &[u8])]) -> Result<Children> {
    let mut written = Children::new();
    let mut leaf = Draft::default();
    for (key, value) in entries {
        let size = leaf.size() + ELEMENT + key.len() + value.len();
        let full = size > pages.page_size() || leaf.len() >= MAX_ELEMENTS;
        if leaf.len() > 0 && full {
            let first = leaf.first_key().to_vec();
            written.push((first, writing(pages.leaf(&leaf))?));
            leaf.clear();
        }
        writing(leaf.push_leaf(0, key, value))?;
    }
    let first = leaf.first_key().to_vec();
    written.push((first, writing(pages.leaf(&leaf))?));
    Ok(written)
}

/// Branch pages over children, each with two at least where there are two.
fn branches(pages: &mut Out, children: &Children) -> Result<Children> {
    let mut written = Children::new();
    let mut draft = Draft::default();
    for (key, child) in children {
        let full = draft.size() + ELEMENT + key.len() > pages.page_size();
        if draft.len() >= 2 && (full || draft.len() >= MAX_ELEMENTS) {
            let first = draft.first_key().to_vec();
            written.push((first, writing(pages.branch(&draft))?));
            draft.clear();
        }
        writing(draft.push_branch(key, *child))?;
    }
    let first = draft.first_key().to_vec();
    written.push((first, writing(pages.branch(&draft))?));
    Ok(written)
}

/// A leaf's first and last key.
pub(super) type Ends = (Option<Vec<u8>>, Option<Vec<u8>>);

pub(super) enum Page {
    Branch(Children),
    Leaf(Ends),
}

/// The header of a page that a tree leads to.
pub(super) fn read_header(input: &Input<'_>, page: u64) -> Result<PageHeader> {
    let high_water = input.meta.high_water;
    if page < 2 || page >= high_water {
        return Err(bad(format!(
            "expected a page of at least 2 and below {high_water}, found a reference to page {page}"
        )));
    }
    let mut head = [0; PAGE_HEADER];
    let offset = page * u64::from(input.meta.page_size);
    let read = input.source.read_exact_at(&mut head, offset);
    read.doing(Kind::NotChecked, || format!("reading page {page}"))?;
    PageHeader::parse(&head)
        .filter(|h| h.id == page && u64::from(h.overflow) < high_water - page)
        .ok_or_else(|| bad(format!("page {page}: expected its own header")))
}

pub(super) fn read_page(input: &Input<'_>, page: u64) -> Result<Page> {
    let page_size = u64::from(input.meta.page_size);
    let reading = |result: io::Result<()>| {
        result.doing(Kind::NotChecked, move || format!("reading page {page}"))
    };
    let offset = page * page_size;
    let header = read_header(input, page)?;
    let span = (1 + u64::from(header.overflow)) * page_size;
    let table = Table {
        page,
        base: 0,
        count: usize::from(header.count),
        span: span as usize,
        page_size: Some(page_size as usize),
    };
    let head = table.head();
    let head = head.ok_or_else(|| bad(format!("page {page}: expected fewer elements")))?;
    let broken = |findings: &Findings| {
        let found = findings.listed().first().map(ToString::to_string);
        bad(found.unwrap_or_else(|| format!("page {page}: expected sound elements")))
    };
    let mut findings = Findings::keeping(1);
    match header.flags {
        BRANCH if span as usize <= MAX_BRANCH => {
            let mut bytes = vec![0; span as usize];
            reading(input.source.read_exact_at(&mut bytes, offset))?;
            let elements = elements(&bytes, head);
            let mut children: Vec<Child> = Vec::new();
            if !table.branch(elements, &mut children, &mut findings) {
                return Err(broken(&findings));
            }
            let pair = |child: &Child| {
                let key = bytes.get(child.start..child.start + child.key_len);
                Some((key?.to_vec(), child.page))
            };
            let children: Option<Children> = children.iter().map(pair).collect();
            children.map(Page::Branch).ok_or_else(|| broken(&findings))
        }
        LEAF => {
            let mut bytes = vec![0; head];
            reading(input.source.read_exact_at(&mut bytes, offset))?;
            let mut items: Vec<Item> = Vec::new();
            if !table.leaf(elements(&bytes, head), &mut items, &mut findings) {
                return Err(broken(&findings));
            }
            let key = |item: Option<&Item>| {
                let Some(item) = item else { return Ok(None) };
                let mut key = vec![0; item.key_len.min(MAX_BRANCH)];
                let at = offset + item.start as u64;
                reading(input.source.read_exact_at(&mut key, at))?;
                Ok(Some(key))
            };
            Ok(Page::Leaf((key(items.first())?, key(items.last())?)))
        }
        _ => Err(bad(format!(
            "page {page}: expected a branch or a leaf, found {}",
            header.kind()
        ))),
    }
}

pub(super) fn elements(bytes: &[u8], head: usize) -> &[[u8; ELEMENT]] {
    bytes
        .get(PAGE_HEADER..head)
        .unwrap_or_default()
        .as_chunks()
        .0
}
