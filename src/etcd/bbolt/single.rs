//! One leaf by itself, apart from its tree.

use std::io;

use super::elements::{Item, Table};
use super::frames::check_keys;
use super::layout::{BRANCH, ELEMENT, LEAF, PAGE_HEADER, PageHeader, u32_at};
use super::source::ReadAt;
use super::visit::Leaf;
use crate::finding::Findings;

/// A leaf that was read again has at most so many bytes; what is longer is shown element by element.
const MAX_RUN: u64 = 16 << 20;

/// The leaf in `run`, a page with its overflow; what is wrong with it goes to `findings`. Nothing
/// comes back if it is not a leaf whose elements are within it.
pub(crate) fn single_leaf<'a>(
    run: &'a [u8],
    page: u64,
    page_size: u64,
    items: &'a mut Vec<Item>,
    findings: &mut Findings,
) -> Option<Leaf<'a>> {
    let header = PageHeader::parse(run)?;
    let span = (1 + u64::from(header.overflow)) * page_size;
    if header.id != page || header.flags != LEAF || span != run.len() as u64 {
        return None;
    }
    let table = Table {
        page,
        base: 0,
        count: usize::from(header.count),
        span: run.len(),
        page_size: Some(page_size as usize),
    };
    let elements = run.get(PAGE_HEADER..PAGE_HEADER + ELEMENT * table.count)?;
    if !table.leaf(elements.as_chunks().0, items, findings) {
        return None;
    }
    let leaf = Leaf {
        page,
        base: 0,
        data: run,
        items,
    };
    let keys = leaf.entries().map(|e| (e.offset, e.key));
    check_keys(page, keys, (None, None), findings);
    Some(leaf)
}

/// The bytes of a branch page with its overflow up to the end of its last key; `None` if an element
/// reaches beyond it. Nothing else about it is judged.
pub(crate) fn used_branch(run: &[u8]) -> Option<&[u8]> {
    let header = PageHeader::parse(run).filter(|header| header.flags == BRANCH)?;
    let mut end = PAGE_HEADER + ELEMENT * usize::from(header.count);
    for index in 0..usize::from(header.count) {
        let at = PAGE_HEADER + ELEMENT * index;
        let (start, key_len) = (u32_at(run, at)?, u32_at(run, at + 4)?);
        end = end.max(at + start as usize + key_len as usize);
    }
    run.get(..end)
}

/// Reads a leaf again that a walk has shown; false if it is no longer what it was.
///
/// # Errors
/// Those of reading.
pub(crate) fn leaf_again(
    source: &dyn ReadAt,
    page: u64,
    page_size: u64,
    take: &mut dyn FnMut(&Leaf<'_>),
) -> io::Result<bool> {
    let offset = page.saturating_mul(page_size);
    let mut head = [0; PAGE_HEADER];
    source.read_exact_at(&mut head, offset)?;
    let span = PageHeader::parse(&head)
        .map(|header| (1 + u64::from(header.overflow)).saturating_mul(page_size))
        .filter(|span| *span <= MAX_RUN);
    let Some(span) = span else {
        return Ok(false);
    };
    let mut run = vec![0; span as usize];
    source.read_exact_at(&mut run, offset)?;
    let (mut items, mut findings) = (Vec::new(), Findings::keeping(0));
    let leaf = single_leaf(&run, page, page_size, &mut items, &mut findings);
    if let Some(leaf) = &leaf {
        take(leaf);
    }
    Ok(leaf.is_some() && findings.is_empty())
}
