//! Where the leaves of a tree go: each is judged, shown to the visitor, and the buckets in it noted.

use std::io;

use super::elements::{Item, Table};
use super::frames::{Bounds, check_keys};
use super::layout::{ELEMENT, LEAF, PAGE_HEADER, PageHeader};
use super::visit::{Leaf, Root, Visitor};
use crate::finding::{Findings, Layer, Place};

/// Buckets in buckets that wait to be walked.
/// etcd makes none, so that the bound only keeps a hostile file from taking memory.
const MAX_PENDING: usize = 65_536;

/// Where a tree's leaves go.
pub(super) struct Sink<'a> {
    pub(super) visitor: &'a mut dyn Visitor,
    pub(super) pending: &'a mut Vec<Root>,
    pub(super) leaf_depth: Option<usize>,
}

impl Sink<'_> {
    /// Says so where a leaf is not as deep as the first one was.
    pub(super) fn check_depth(&mut self, page: u64, depth: usize, findings: &mut Findings) {
        let first = *self.leaf_depth.get_or_insert(depth);
        if first != depth {
            findings.warning(Layer::Pages, place(page, 0), || {
                (
                    format!("all leaves of a bucket below {first} branch pages"),
                    depth.to_string(),
                )
            });
        }
    }

    /// Shows a leaf and notes the buckets in it; false if some had to be left out.
    pub(super) fn show(&mut self, leaf: &Leaf<'_>, findings: &mut Findings) -> io::Result<bool> {
        self.visitor.leaf(leaf, findings)?;
        let mut whole = true;
        for entry in leaf.entries().filter(|e| e.bucket) {
            match entry.root() {
                Some(root) if self.pending.len() < MAX_PENDING => self.pending.push(root),
                Some(_) => {
                    whole = false;
                    findings.error(Layer::Pages, entry.place(), || {
                        (
                            format!("at most {MAX_PENDING} buckets in buckets"),
                            "more, which are not checked".into(),
                        )
                    });
                }
                None => whole = false,
            }
        }
        Ok(whole)
    }
}

pub(super) fn place(page: u64, offset: u64) -> Place {
    Place::Page { page, offset }
}

/// The header of an inline page, if it is a leaf's.
pub(super) fn inline_header(run: &[u8], at: Place, findings: &mut Findings) -> Option<PageHeader> {
    let Some(header) = PageHeader::parse(run) else {
        findings.error(Layer::Pages, at, || {
            ("an inline leaf page".into(), format!("{} bytes", run.len()))
        });
        return None;
    };
    let good = PageHeader {
        id: 0,
        flags: LEAF,
        overflow: 0,
        ..header
    };
    if header != good {
        findings.error(Layer::Pages, at, || {
            (
                "an inline leaf page: id 0, flags 0x2, no overflow".into(),
                format!(
                    "id {}, flags {:#x}, overflow {}",
                    header.id, header.flags, header.overflow
                ),
            )
        });
    }
    (header.flags == LEAF).then_some(header)
}

/// Judges a leaf whose page is held and shows it; false if something had to be left out.
pub(super) fn show_leaf(
    table: &Table,
    run: &[u8],
    items: &mut Vec<Item>,
    bounds: Bounds<'_>,
    seen: &mut Sink<'_>,
    findings: &mut Findings,
) -> io::Result<bool> {
    let elements = run
        .get(PAGE_HEADER..PAGE_HEADER + ELEMENT * table.count)
        .unwrap_or_default();
    if !table.leaf(elements.as_chunks().0, items, findings) {
        return Ok(false);
    }
    let leaf = Leaf {
        page: table.page,
        base: table.base,
        data: run,
        items,
    };
    let keys = leaf.entries().map(|e| (e.offset, e.key));
    check_keys(table.page, keys, bounds, findings);
    seen.show(&leaf, findings)
}
