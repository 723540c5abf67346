//! The branch pages on the way to a leaf, and the bounds that they set to the keys below.

use super::elements::Child;
use super::visit::Order;
use crate::finding::{Findings, Layer, Place};

/// Bytes of neighbouring leaves that are read together; stays within a second-level cache, beside what
/// another thread reads.
const READ_AHEAD: u64 = 64 << 10;

/// A branch page on the way to the leaf that is looked at.
#[derive(Default)]
pub(super) struct Frame {
    pub(super) data: Vec<u8>,
    pub(super) children: Vec<Child>,
    /// How many children have been entered, and which is the last of them.
    pub(super) entered: usize,
    pub(super) current: usize,
}

impl Frame {
    pub(super) fn enter(&mut self, order: Order) -> Option<u64> {
        self.current = match order {
            Order::Ascending => self.entered,
            Order::Descending => self.children.len().checked_sub(self.entered + 1)?,
        };
        let page = self.children.get(self.current)?.page;
        self.entered += 1;
        Some(page)
    }

    fn separator(&self, index: usize) -> Option<&[u8]> {
        let child = self.children.get(index)?;
        self.data.get(child.start..child.start + child.key_len)
    }

    /// The pages from the current child on that are close together, as (first, count).
    pub(super) fn neighbours(&self, order: Order, page_size: u64) -> (u64, u64) {
        let Some(current) = self.children.get(self.current) else {
            return (0, 0);
        };
        let (mut low, mut high) = (current.page, current.page);
        let most = READ_AHEAD / page_size;
        let mut take = |count: u64, child: &Child| {
            let (l, h) = (low.min(child.page), high.max(child.page));
            // At least half of the pages that are read must be wanted: children of a fragmented
            // database are far apart, and it would be read several times over.
            let fits = h.checked_sub(l).is_some_and(|d| d < most && d < 2 * count);
            if fits {
                (low, high) = (l, h);
            }
            fits
        };
        let (before, after) = (
            self.children.get(..self.current).unwrap_or_default(),
            self.children.get(self.current + 1..).unwrap_or_default(),
        );
        let (before, after) = match order {
            Order::Ascending => (&[][..], after),
            Order::Descending => (before, &[][..]),
        };
        let rest = (2..).zip(after.iter().chain(before.iter().rev()));
        for (count, child) in rest {
            if !take(count, child) {
                break;
            }
        }
        (low, high - low + 1)
    }
}

/// Separators around a page: at or above the first, below the second.
pub(super) type Bounds<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

pub(super) fn bounds(frames: &[Frame]) -> Bounds<'_> {
    // A page's own separator is at or above those of the pages over it. The last child has none
    // behind it, so that the next child of the nearest page above sets the upper bound.
    let lower = frames.last().and_then(|f| f.separator(f.current));
    let upper = frames.iter().rev().find_map(|f| f.separator(f.current + 1));
    (lower, upper)
}

/// Keys ascend strictly, from the lower bound on, below the upper.
pub(super) fn check_keys<'k>(
    page: u64,
    keys: impl Iterator<Item = (u64, &'k [u8])>,
    (lower, upper): Bounds<'_>,
    findings: &mut Findings,
) {
    // Keys ascend, so that the first one decides for the lower bound, and the last for the upper.
    let mut before: Option<&[u8]> = None;
    let mut last = 0;
    for (at, key) in keys {
        match before {
            Some(before) if !ascends(before, key) => report_order(page, at, findings),
            None if lower.is_some_and(|lower| key < lower) => {
                findings.error(Layer::Pages, place(page, at), || {
                    (
                        format!("a key at or above {}", show(lower.unwrap_or_default())),
                        show(key),
                    )
                });
            }
            _ => {}
        }
        before = Some(key);
        last = at;
    }
    if let (Some(upper), Some(key)) = (upper, before)
        && key >= upper
    {
        findings.error(Layer::Pages, place(page, last), || {
            (format!("keys below {}", show(upper)), show(key))
        });
    }
}

/// Whether a key is above the one before. Revisions differ in their first eight bytes.
#[inline]
fn ascends(before: &[u8], key: &[u8]) -> bool {
    let head = |key: &[u8]| key.first_chunk().copied().map(u64::from_be_bytes);
    match (head(before), head(key)) {
        (Some(before), Some(key)) if before != key => before < key,
        _ => before < key,
    }
}

pub(super) fn report_order(page: u64, at: u64, findings: &mut Findings) {
    findings.error(Layer::Pages, place(page, at), || {
        (
            "keys in strictly ascending order".into(),
            "a key not above the one before it".into(),
        )
    });
}

/// A key for a finding: hex, cut short.
fn show(key: &[u8]) -> String {
    let shown = key.get(..key.len().min(24)).unwrap_or_default();
    let more = if shown.len() < key.len() { "..." } else { "" };
    format!("key {}{more}", hex::encode(shown))
}

fn place(page: u64, offset: u64) -> Place {
    Place::Page { page, offset }
}
