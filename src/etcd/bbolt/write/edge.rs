//! The pages of a tree that a change rewrites: read one by one, and written again.

use std::io;

use super::input::{Input, writing};
use super::pages::{Draft, MAX_ELEMENTS, Pages};
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::elements::{Child, Item, Table};
use crate::etcd::bbolt::layout::{BRANCH, ELEMENT, LEAF, PAGE_HEADER, PageHeader};
use crate::finding::Findings;

/// Levels of a tree, and bytes of a branch page, beyond which nobody writes.
pub(super) const MAX_DEPTH: usize = 64;
const MAX_BRANCH: usize = 4 << 20;

pub(super) type Out = Pages<Vec<u8>>;

/// A branch page's separators and children.
pub(super) type Children = Vec<(Vec<u8>, u64)>;

/// A leaf's first and last key.
pub(super) type Ends = (Option<Vec<u8>>, Option<Vec<u8>>);

/// What a page of a tree is.
pub(super) enum Page {
    Branch(Children),
    Leaf(Ends),
}

pub(super) fn out_of_order() -> Failure {
    Failure::new(
        Kind::Unexpected,
        "appending an entry to a bucket: its key is not above the last one",
    )
}

pub(super) fn bad(what: impl Into<String>) -> Failure {
    Failure::new(Kind::BadBackup, what.into()).doing("reading the database")
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

/// Branch pages over children. None but the last is closed before it has two.
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

/// Reads a page of a tree: all children of a branch, the ends of a leaf.
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
            // Only the table and two keys are read: the values may be of any size.
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
