//! The elements of a branch or leaf page: bounds, sizes and layout, before any byte is followed.

use super::layout::{BUCKET_HEADER, BUCKET_LEAF, ELEMENT, MAX_KEY, MAX_VALUE, PAGE_HEADER, u64_at};
use crate::finding::{Findings, Layer, Place};

/// A leaf element: a key and, right behind it, a value or a bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    /// First byte of the key.
    pub(crate) start: usize,
    pub(crate) key_len: usize,
    pub(crate) value_len: usize,
    pub(crate) bucket: bool,
}

impl Item {
    pub(crate) fn value_start(&self) -> usize {
        self.start + self.key_len
    }

    pub(crate) fn end(&self) -> usize {
        self.start + self.key_len + self.value_len
    }
}

/// A branch element: a separator and the page below it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child {
    pub(crate) start: usize,
    pub(crate) key_len: usize,
    pub(crate) page: u64,
}

/// Where a table of elements stands, and how far its elements may reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    /// Page number, for findings.
    pub(crate) page: u64,
    /// Offset in that page of the byte that positions count from; not 0 in an inline bucket.
    pub(crate) base: usize,
    pub(crate) count: usize,
    /// Bytes from `base` to the end of the page with its overflow.
    pub(crate) span: usize,
    /// Bytes of one page; nothing in an inline bucket, which has no overflow.
    pub(crate) page_size: Option<usize>,
}

impl Table {
    fn place(&self, offset: usize) -> Place {
        Place::Page {
            page: self.page,
            offset: (self.base + offset) as u64,
        }
    }

    /// Bytes of header and table, if they fit.
    pub(crate) fn head(&self) -> Option<usize> {
        let head = PAGE_HEADER + ELEMENT * self.count;
        (head <= self.span).then_some(head)
    }

    pub(crate) fn report_too_many(&self, findings: &mut Findings) {
        findings.error(Layer::Pages, self.place(10), || {
            (
                format!("a table of elements within {} bytes", self.span),
                format!("{} elements", self.count),
            )
        });
    }

    /// Reads a leaf's elements into `items`, positions counting from `base`. False if any lies
    /// out of bounds or over another: then nothing of the page may be followed.
    pub(crate) fn leaf(
        &self,
        table: &[[u8; ELEMENT]],
        items: &mut Vec<Item>,
        findings: &mut Findings,
    ) -> bool {
        items.clear();
        let mut layout = Layout::new(self);
        for (index, element) in table.iter().enumerate() {
            let [flags, pos, key_len, value_len] = words(element);
            let (key_len, value_len) = (key_len as usize, value_len as usize);
            let at = PAGE_HEADER + ELEMENT * index;
            if flags > BUCKET_LEAF {
                findings.error(Layer::Pages, self.place(at), || {
                    ("leaf element flags 0 or 1".into(), format!("{flags:#x}"))
                });
            }
            let bucket = flags & BUCKET_LEAF != 0;
            let start = at + pos as usize;
            if !layout.take(self, at, start, key_len, value_len, findings) {
                return false;
            }
            if bucket && value_len < BUCKET_HEADER {
                findings.error(Layer::Pages, self.place(at), || {
                    (
                        format!("a bucket of {BUCKET_HEADER} bytes or more"),
                        format!("{value_len} bytes"),
                    )
                });
            }
            items.push(Item {
                start,
                key_len,
                value_len,
                bucket,
            });
        }
        self.check_overflow(layout.end, findings);
        true
    }

    /// Reads a branch's elements into `children`; as [`Table::leaf`].
    pub(crate) fn branch(
        &self,
        table: &[[u8; ELEMENT]],
        children: &mut Vec<Child>,
        findings: &mut Findings,
    ) -> bool {
        children.clear();
        let mut layout = Layout::new(self);
        for (index, element) in table.iter().enumerate() {
            let [pos, key_len, ..] = words(element);
            let at = PAGE_HEADER + ELEMENT * index;
            let start = at + pos as usize;
            if !layout.take(self, at, start, key_len as usize, 0, findings) {
                return false;
            }
            let Some(page) = u64_at(element, 8) else {
                return false;
            };
            children.push(Child {
                start,
                key_len: key_len as usize,
                page,
            });
        }
        self.check_overflow(layout.end, findings);
        true
    }

    /// A page has no more overflow than its data needs; writers differ when data ends exactly
    /// with a page.
    fn check_overflow(&self, end: usize, findings: &mut Findings) {
        let Some(page_size) = self.page_size else {
            return;
        };
        if self.span > (end / page_size + 1) * page_size {
            findings.warning(Layer::Pages, self.place(12), || {
                (
                    format!("overflow of {} for {end} bytes", end / page_size),
                    format!("{}", self.span / page_size - 1),
                )
            });
        }
    }
}

fn words(element: &[u8; ELEMENT]) -> [u32; 4] {
    let (words, _) = element.as_chunks::<4>();
    let mut out = [0; 4];
    for (target, word) in out.iter_mut().zip(words) {
        *target = u32::from_le_bytes(*word);
    }
    out
}

/// Follows the data of a page's elements, which every writer lays out without gap in the order
/// of the elements, right behind the table.
struct Layout {
    end: usize,
    gap_reported: bool,
}

impl Layout {
    fn new(table: &Table) -> Self {
        Self {
            end: PAGE_HEADER + ELEMENT * table.count,
            gap_reported: false,
        }
    }

    fn take(
        &mut self,
        table: &Table,
        at: usize,
        start: usize,
        key_len: usize,
        value_len: usize,
        findings: &mut Findings,
    ) -> bool {
        // Three u32 and an offset in a page: no overflow in 64 bits.
        let end = start + key_len + value_len;
        if start < self.end || end > table.span {
            findings.error(Layer::Pages, table.place(at), || {
                (
                    format!(
                        "an element's data from offset {} to {} of the page",
                        table.base + self.end,
                        table.base + table.span
                    ),
                    format!("{} to {}", table.base + start, table.base + end),
                )
            });
            return false;
        }
        if start != self.end && !self.gap_reported {
            self.gap_reported = true;
            findings.warning(Layer::Pages, table.place(at), || {
                (
                    format!(
                        "an element's data at offset {}, where the one before ends",
                        table.base + self.end
                    ),
                    format!("offset {}", table.base + start),
                )
            });
        }
        if !(1..=MAX_KEY).contains(&key_len) || value_len > MAX_VALUE {
            findings.error(Layer::Pages, table.place(at), || {
                (
                    format!("a key of 1 to {MAX_KEY} bytes and a value of at most {MAX_VALUE}"),
                    format!("{key_len} and {value_len}"),
                )
            });
        }
        self.end = end;
        true
    }
}
