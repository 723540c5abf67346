//! Cutting a bucket's end off: entries from a key on go, and the pages before them stay as they are.

use super::edge::{
    Children, MAX_DEPTH, Out, Page, bad, branch_pages, elements, leaves, out_of_order, read_header,
    read_page,
};
use super::input::{Input, writing};
use super::pages::{Draft, MAX_ELEMENTS};
use crate::error::{Doing, Kind, Result};
use crate::etcd::bbolt::elements::{Item, Table};
use crate::etcd::bbolt::layout::{ELEMENT, PAGE_HEADER};
use crate::finding::Findings;

/// Removes the entries of a tree from `from` on and puts others behind what is left. Returns the new
/// root; nothing if no entry is left.
///
/// Only the path to the first entry removed is rewritten. The pages behind it are no longer reached,
/// which makes them free, since no freelist is stored.
pub(super) fn cut(
    input: &Input<'_>,
    pages: &mut Out,
    root: u64,
    from: &[u8],
    behind: &[(&[u8], &[u8])],
) -> Result<Option<u64>> {
    if behind.first().is_some_and(|(first, _)| *first < from) {
        return Err(out_of_order());
    }
    let (mut path, leaf) = path_to(input, root, from)?;
    let kept = kept_of_leaf(input, pages, leaf, from)?;
    // The last child on the path is the leaf that is cut, and `kept` takes its place.
    let mut below = match path.pop() {
        Some(mut parent) => {
            parent.pop();
            parent
        }
        None => Children::new(),
    };
    below.extend(kept);
    while below.is_empty() {
        // Nothing is left below the last child of this page: the child before it, if there is one,
        // is the right edge from now on.
        let Some(mut parent) = path.pop() else { break };
        parent.pop();
        let Some((_, last)) = parent.last() else {
            continue;
        };
        let mut at = *last;
        path.push(parent);
        while let Page::Branch(children) = read_page(input, at)? {
            at = last_child(&children, at)?;
            push(&mut path, children)?;
        }
        below = path.pop().unwrap_or_default();
    }
    if !behind.is_empty() {
        below.extend(leaves(pages, behind)?);
    }
    if below.is_empty() {
        return Ok(None);
    }
    branch_pages(pages, below, path).map(Some)
}

/// The branch pages that lead to the leaf where a key is or would be, each with its children up to the
/// one on the way, and that leaf.
fn path_to(input: &Input<'_>, root: u64, key: &[u8]) -> Result<(Vec<Children>, u64)> {
    let mut path: Vec<Children> = Vec::new();
    let mut at = root;
    while let Page::Branch(mut children) = read_page(input, at)? {
        // Every key of a child is at or above its separator, but the first child's may be below.
        let before = children.partition_point(|(separator, _)| separator.as_slice() < key);
        children.truncate(before.max(1));
        at = last_child(&children, at)?;
        push(&mut path, children)?;
    }
    Ok((path, at))
}

fn push(path: &mut Vec<Children>, children: Children) -> Result<()> {
    if path.len() >= MAX_DEPTH {
        return Err(bad("expected a flatter tree"));
    }
    path.push(children);
    Ok(())
}

fn last_child(children: &Children, page: u64) -> Result<u64> {
    let last = children.last().map(|(_, child)| *child);
    last.ok_or_else(|| bad(format!("page {page}: expected children")))
}

/// The leaves that hold what is left of a leaf: itself if that is all of it, none if it is nothing.
fn kept_of_leaf(input: &Input<'_>, pages: &mut Out, page: u64, from: &[u8]) -> Result<Children> {
    let offset = page * u64::from(input.meta.page_size);
    let read = |buf: &mut [u8], at: u64| {
        input
            .source
            .read_exact_at(buf, offset + at)
            .doing(Kind::NotChecked, || format!("reading page {page}"))
    };
    let items = items(input, page)?;
    let mut kept: Vec<(Item, Vec<u8>)> = Vec::new();
    for item in &items {
        let mut key = vec![0; item.key_len];
        read(&mut key, item.start as u64)?;
        if key.as_slice() >= from {
            break;
        }
        kept.push((*item, key));
    }
    if kept.len() == items.len() {
        let first = kept.into_iter().next().map(|(_, key)| (key, page));
        return Ok(first.into_iter().collect());
    }
    let mut written = Children::new();
    let mut leaf = Draft::default();
    for (item, key) in kept {
        let size = ELEMENT + item.key_len + item.value_len;
        let full = leaf.size() + size > pages.page_size() || leaf.len() >= MAX_ELEMENTS;
        if leaf.len() > 0 && full {
            written.push((leaf.first_key().to_vec(), writing(pages.leaf(&leaf))?));
            leaf.clear();
        }
        // The value of an entry that is larger than a page is copied in pieces, and never held.
        if PAGE_HEADER + size > pages.page_size() {
            let at = item.value_start() as u64;
            let mut fill =
                |buf: &mut [u8], done: u64| input.source.read_exact_at(buf, offset + at + done);
            let page = pages.large_leaf(&key, item.value_len as u64, &mut fill);
            written.push((key, writing(page)?));
            continue;
        }
        let mut value = vec![0; item.value_len];
        read(&mut value, item.value_start() as u64)?;
        writing(leaf.push_leaf(0, &key, &value))?;
    }
    if leaf.len() > 0 {
        written.push((leaf.first_key().to_vec(), writing(pages.leaf(&leaf))?));
    }
    Ok(written)
}

/// The elements of a leaf.
fn items(input: &Input<'_>, page: u64) -> Result<Vec<Item>> {
    let header = read_header(input, page)?;
    let page_size = u64::from(input.meta.page_size);
    let table = Table {
        page,
        base: 0,
        count: usize::from(header.count),
        span: ((1 + u64::from(header.overflow)) * page_size) as usize,
        page_size: Some(page_size as usize),
    };
    let head = table.head();
    let head = head.ok_or_else(|| bad(format!("page {page}: expected fewer elements")))?;
    let mut bytes = vec![0; head];
    let reading = input.source.read_exact_at(&mut bytes, page * page_size);
    reading.doing(Kind::NotChecked, || format!("reading page {page}"))?;
    let mut items = Vec::new();
    let mut findings = Findings::keeping(1);
    if table.leaf(elements(&bytes, head), &mut items, &mut findings) {
        return Ok(items);
    }
    let found = findings.listed().first().map(ToString::to_string);
    Err(bad(found.unwrap_or_else(|| {
        format!("page {page}: expected sound elements")
    })))
}
