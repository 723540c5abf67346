//! Walking the trees of a database, each page judged before it is followed.
//!
//! What the walk holds: every page is in bounds, says its own number, is reached once, is a branch
//! or a leaf; elements lie within their page, in order, not over each other; keys ascend strictly
//! and keep to the separators above them; all leaves of a bucket are equally deep. The walk has a
//! stack of its own, of bounded depth, and goes on past what is broken, so that one finding does
//! not hide the next.

use std::io;

use super::elements::{Child, Item, Table};
use super::layout::{
    BRANCH, BUCKET_HEADER, ELEMENT, LEAF, MAX_KEY, PAGE_HEADER, PageHeader, u64_at,
};
use super::meta::Meta;
use super::pageset::PageSet;
use super::source::ReadAt;
use super::window::Window;
use crate::etcd::finding::{Layer, Place};
use crate::etcd::findings::Findings;

/// Positions in a page with its overflow exceed 32 bits.
const _: () = assert!(usize::BITS >= 64);

/// A page with its overflow is held whole up to this size; the elements of a bigger leaf are
/// taken one by one.
const MAX_RUN: u64 = 16 << 20;
/// No writer makes a branch page that comes near.
const MAX_BRANCH_RUN: u64 = 4 << 20;
/// Branch pages on the way to a leaf, together.
const MAX_STACK_BYTES: usize = 24 << 20;
/// Trees of 2^64 keys are shallower.
const MAX_DEPTH: usize = 64;
/// Buckets in buckets that wait to be walked.
const MAX_PENDING: usize = 65_536;
/// Neighbouring leaves that are read together; stays within a second-level cache.
const READ_AHEAD: u64 = 256 << 10;

/// Which end of a bucket a walk begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Greatest key first; the elements of one [`Leaf`] ascend nevertheless.
    Descending,
}

impl Order {
    fn follows(self, last: &[u8], key: &[u8]) -> bool {
        match self {
            Self::Ascending => last < key,
            Self::Descending => last > key,
        }
    }
}

/// What to do with buckets inside of the bucket that is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nested {
    /// Check them too. A visitor does not see their content.
    Check,
    /// Leave them to the caller.
    Leave,
}

/// Where a bucket's tree begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// At a page of its own.
    Page(u64),
    /// In a leaf page inside of the parent's leaf.
    Inline {
        /// The parent's page.
        page: u64,
        /// Offset in that page of the inline page's header.
        offset: u64,
        /// Bytes of the inline page.
        len: u64,
    },
}

/// Takes what a walk comes by. Failures stop the walk.
pub trait Visitor {
    /// A leaf page with its elements, or one element of a leaf too big to be held.
    fn leaf(&mut self, leaf: &Leaf<'_>, findings: &mut Findings) -> io::Result<()>;

    /// One element too big to be held.
    fn large(&mut self, element: &Large<'_>, findings: &mut Findings) -> io::Result<()>;
}

/// Elements of a leaf, in ascending order, with the bytes they lie in.
#[derive(Debug)]
pub struct Leaf<'a> {
    page: u64,
    base: usize,
    data: &'a [u8],
    items: &'a [Item],
}

impl<'a> Leaf<'a> {
    /// How many elements.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The elements, in ascending order of keys.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = Entry<'a>> + ExactSizeIterator {
        let Self {
            page, base, data, ..
        } = *self;
        self.items.iter().map(move |item| Entry {
            key: data.get(item.start..item.value_start()).unwrap_or_default(),
            value: data.get(item.value_start()..item.end()).unwrap_or_default(),
            bucket: item.bucket,
            page,
            offset: (base + item.start) as u64,
        })
    }

    /// The bytes from the first key to the last value, if they are the elements' keys and values
    /// with nothing between, and there is no bucket among them.
    pub fn contiguous(&self) -> Option<&'a [u8]> {
        let (first, last) = (self.items.first()?, self.items.last()?);
        let total: usize = self.items.iter().map(|i| i.key_len + i.value_len).sum();
        let whole = self.data.get(first.start..last.end())?;
        (whole.len() == total && self.items.iter().all(|i| !i.bucket)).then_some(whole)
    }
}

/// A key and its value, in place.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value, or the bucket's header and what follows it.
    pub value: &'a [u8],
    /// Whether the value is a bucket.
    pub bucket: bool,
    page: u64,
    offset: u64,
}

impl Entry<'_> {
    /// Where the key begins.
    pub fn place(&self) -> Place {
        Place::Page {
            page: self.page,
            offset: self.offset,
        }
    }

    /// Where the value's byte `offset` lies.
    pub fn value_place(&self, offset: usize) -> Place {
        Place::Page {
            page: self.page,
            offset: self.offset + (self.key.len() + offset) as u64,
        }
    }

    /// Where the bucket that the value is begins; `None` if the value is none, or broken.
    pub fn root(&self) -> Option<Root> {
        let page = u64_at(self.value, 0).filter(|_| self.bucket)?;
        let len = self.value.len().checked_sub(BUCKET_HEADER)?;
        Some(match page {
            0 => Root::Inline {
                page: self.page,
                offset: self.offset + (self.key.len() + BUCKET_HEADER) as u64,
                len: len as u64,
            },
            page => Root::Page(page),
        })
    }

    /// The bucket's sequence.
    pub fn sequence(&self) -> Option<u64> {
        u64_at(self.value, 8).filter(|_| self.bucket)
    }
}

/// An element whose value must be read in pieces.
pub struct Large<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Bytes of the value.
    pub value_len: u64,
    source: &'a dyn ReadAt,
    file_offset: u64,
    page: u64,
    offset: u64,
}

impl Large<'_> {
    /// Fills `buf` from the value's byte `at` on.
    pub fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.value_len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.source.read_exact_at(buf, self.file_offset + at)
    }

    /// Where the key begins.
    pub fn place(&self) -> Place {
        Place::Page {
            page: self.page,
            offset: self.offset,
        }
    }
}

/// Sees nothing: for checking alone.
pub struct Unseen;

impl Visitor for Unseen {
    fn leaf(&mut self, _: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        Ok(())
    }

    fn large(&mut self, _: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        Ok(())
    }
}

/// A branch page on the way to the leaf that is looked at.
#[derive(Default)]
struct Frame {
    data: Vec<u8>,
    children: Vec<Child>,
    /// How many children have been entered, and which is the last of them.
    entered: usize,
    current: usize,
}

impl Frame {
    fn enter(&mut self, order: Order) -> Option<u64> {
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

    /// The pages from the current child on that lie close together, as (first, count).
    fn neighbours(&self, order: Order, page_size: u64) -> (u64, u64) {
        let Some(current) = self.children.get(self.current) else {
            return (0, 0);
        };
        let (mut low, mut high) = (current.page, current.page);
        let most = READ_AHEAD / page_size;
        let mut take = |count: u64, child: &Child| {
            let (l, h) = (low.min(child.page), high.max(child.page));
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
type Bounds<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

fn bounds(frames: &[Frame]) -> Bounds<'_> {
    let lower = frames.last().and_then(|f| f.separator(f.current));
    let upper = frames.iter().rev().find_map(|f| f.separator(f.current + 1));
    (lower, upper)
}

/// Walks trees of one database and remembers which pages they reached.
pub struct Walker<'a> {
    window: Window<'a>,
    page_size: u64,
    /// First page that no tree may contain.
    high_water: u64,
    /// First page that the file does not contain whole.
    pages_in_file: u64,
    reached: PageSet,
    frames: Vec<Frame>,
    items: Vec<Item>,
    whole: bool,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<'a> Walker<'a> {
    /// A walker over `data` bytes of a source with this meta. `progress` is told bytes walked
    /// since it was last told.
    pub fn new(
        source: &'a dyn ReadAt,
        data: u64,
        meta: &Meta,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        let page_size = u64::from(meta.page_size);
        Self {
            window: Window::new(source),
            page_size,
            high_water: meta.high_water,
            pages_in_file: data / page_size,
            reached: PageSet::default(),
            frames: Vec::new(),
            items: Vec::new(),
            whole: true,
            progress,
        }
    }

    /// Whether everything that was asked for could be walked.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Walks one bucket.
    pub fn walk(
        &mut self,
        root: Root,
        order: Order,
        nested: Nested,
        visitor: &mut dyn Visitor,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let mut pending = Vec::new();
        self.tree(root, order, visitor, &mut pending, findings)?;
        if nested == Nested::Leave {
            return Ok(());
        }
        let mut level = 1;
        while !pending.is_empty() {
            if level > MAX_DEPTH {
                self.give_up(
                    findings,
                    None,
                    "buckets nested less deeply",
                    "too many levels",
                );
                break;
            }
            let mut below = Vec::new();
            for root in pending {
                self.tree(root, order, &mut Unseen, &mut below, findings)?;
            }
            pending = below;
            level += 1;
        }
        Ok(())
    }

    fn give_up(
        &mut self,
        findings: &mut Findings,
        place: Option<Place>,
        expected: &str,
        found: &str,
    ) {
        self.whole = false;
        findings.error(Layer::Pages, place, || (expected.into(), found.into()));
    }

    fn tree(
        &mut self,
        root: Root,
        order: Order,
        visitor: &mut dyn Visitor,
        pending: &mut Vec<Root>,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let mut seen = Sink {
            visitor,
            pending,
            leaf_depth: None,
        };
        let root = match root {
            Root::Page(page) => page,
            Root::Inline { page, offset, len } => {
                return self.inline(page, offset, len, &mut seen, findings);
            }
        };
        // Frames are kept for their buffers; `depth` says how many are in use.
        let mut depth = 0;
        self.enter(root, order, &mut depth, &mut seen, findings)?;
        while let Some(last) = depth.checked_sub(1) {
            match self.frames.get_mut(last).and_then(|f| f.enter(order)) {
                Some(page) => self.enter(page, order, &mut depth, &mut seen, findings)?,
                None => depth = last,
            }
        }
        Ok(())
    }

    /// Looks at one page of a tree: a branch is put on the stack, a leaf is shown.
    fn enter(
        &mut self,
        page: u64,
        order: Order,
        depth: &mut usize,
        seen: &mut Sink<'_>,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let Some(header) = self.head(page, order, *depth, findings)? else {
            self.whole = false;
            return Ok(());
        };
        let span = (1 + u64::from(header.overflow)) * self.page_size;
        (self.progress)(span);
        let table = Table {
            page,
            base: 0,
            count: usize::from(header.count),
            span: span as usize,
            page_size: Some(self.page_size as usize),
        };
        let Some(head) = table.head() else {
            table.report_too_many(findings);
            self.whole = false;
            return Ok(());
        };
        match header.flags {
            BRANCH => self.branch(&table, head, depth, findings),
            LEAF => {
                if header.count == 0 && *depth > 0 {
                    findings.error(Layer::Pages, place(page, 10), || {
                        ("elements in a leaf below a branch".into(), "none".into())
                    });
                }
                seen.check_depth(page, *depth, findings);
                if span <= MAX_RUN {
                    self.leaf(&table, *depth, seen, findings)
                } else {
                    self.large_leaf(&table, head, order, *depth, seen, findings)
                }
            }
            _ => {
                self.give_up(
                    findings,
                    Some(place(page, 8)),
                    "a branch page or a leaf page",
                    header.kind(),
                );
                Ok(())
            }
        }
    }

    /// The header of a tree's page, if the page may be followed.
    fn head(
        &mut self,
        page: u64,
        order: Order,
        depth: usize,
        findings: &mut Findings,
    ) -> io::Result<Option<PageHeader>> {
        let limit = self.high_water.min(self.pages_in_file);
        if page < 2 || page >= limit {
            findings.error(Layer::Pages, place(page, 0), || {
                (
                    format!("a page from 2 to below {limit}"),
                    format!("a reference to page {page}"),
                )
            });
            return Ok(None);
        }
        let offset = page * self.page_size;
        if self.window.get(offset, self.page_size as usize).is_none() {
            let (first, count) = self
                .frames
                .get(..depth)
                .and_then(<[Frame]>::last)
                .map(|f| f.neighbours(order, self.page_size))
                .filter(|&(first, count)| first >= 2 && first.saturating_add(count) <= limit)
                .unwrap_or((page, 1));
            let len = (count * self.page_size) as usize;
            self.window.fill(first * self.page_size, len)?;
        }
        let header = self.window.get(offset, PAGE_HEADER);
        let Some(header) = header.and_then(PageHeader::parse) else {
            return Ok(None);
        };
        if header.id != page {
            findings.error(Layer::Pages, place(page, 0), || {
                (format!("page {page}"), format!("page id {}", header.id))
            });
            return Ok(None);
        }
        if u64::from(header.overflow) >= limit - page {
            findings.error(Layer::Pages, place(page, 12), || {
                (
                    format!("overflow that ends below page {limit}"),
                    format!("{} further pages", header.overflow),
                )
            });
            return Ok(None);
        }
        Ok(self
            .claim(page, header.overflow, findings)
            .then_some(header))
    }

    /// Notes a page and its overflow as reached; false if any of them was before. It stops there,
    /// so that all claims together take no longer than the file has pages.
    pub(super) fn claim(&mut self, page: u64, overflow: u32, findings: &mut Findings) -> bool {
        let last = page + u64::from(overflow);
        let twice = (page..=last).find(|&page| !self.reached.insert(page));
        if let Some(twice) = twice {
            findings.error(Layer::Pages, place(twice, 0), || {
                let found = if twice == page {
                    "it is reached again".into()
                } else {
                    format!("it is also overflow of page {page}")
                };
                ("each page reached once".into(), found)
            });
        }
        twice.is_none()
    }

    fn branch(
        &mut self,
        table: &Table,
        head: usize,
        depth: &mut usize,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let at = Some(place(table.page, 0));
        let held: usize = self.frames.iter().take(*depth).map(|f| f.data.len()).sum();
        if table.span as u64 > MAX_BRANCH_RUN || held + table.span > MAX_STACK_BYTES {
            let found = format!("{} bytes", table.span);
            self.give_up(findings, at, "a branch page of bounded size", &found);
            return Ok(());
        }
        if *depth >= MAX_DEPTH {
            self.give_up(findings, at, "a tree of bounded depth", "one more level");
            return Ok(());
        }
        if table.count == 0 {
            self.give_up(findings, Some(place(table.page, 10)), "children", "none");
            return Ok(());
        }
        if self.frames.len() <= *depth {
            self.frames.resize_with(*depth + 1, Frame::default);
        }
        let (above, rest) = self.frames.split_at_mut(*depth);
        let (Some(frame), offset) = (rest.first_mut(), table.page * self.page_size) else {
            return Ok(());
        };
        ensure(&mut self.window, offset, table.span)?;
        let run = self.window.get(offset, table.span).unwrap_or_default();
        frame.data.clear();
        frame.data.extend_from_slice(run);
        (frame.entered, frame.current) = (0, 0);
        let elements = run.get(PAGE_HEADER..head).unwrap_or_default();
        if !table.branch(elements.as_chunks().0, &mut frame.children, findings) {
            self.whole = false;
            return Ok(());
        }
        let keys = frame.children.iter().enumerate().map(|(index, c)| {
            let at = (PAGE_HEADER + ELEMENT * index) as u64;
            let key = frame.data.get(c.start..c.start + c.key_len);
            (at, key.unwrap_or_default())
        });
        check_keys(table.page, keys, bounds(above), findings);
        *depth += 1;
        Ok(())
    }

    fn leaf(
        &mut self,
        table: &Table,
        depth: usize,
        seen: &mut Sink<'_>,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let offset = table.page * self.page_size;
        ensure(&mut self.window, offset, table.span)?;
        let run = self.window.get(offset, table.span).unwrap_or_default();
        let above = self.frames.get(..depth).unwrap_or_default();
        self.whole &= show_leaf(table, run, &mut self.items, bounds(above), seen, findings)?;
        Ok(())
    }

    /// The page inside of a leaf that an inline bucket is.
    fn inline(
        &mut self,
        page: u64,
        offset: u64,
        len: u64,
        seen: &mut Sink<'_>,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let at = Some(place(page, offset));
        let file_offset = page
            .checked_mul(self.page_size)
            .and_then(|start| start.checked_add(offset));
        let (Some(file_offset), true) = (file_offset, len <= MAX_RUN) else {
            self.give_up(
                findings,
                at,
                "an inline bucket of bounded size",
                "a larger one",
            );
            return Ok(());
        };
        ensure(&mut self.window, file_offset, len as usize)?;
        let run = self
            .window
            .get(file_offset, len as usize)
            .unwrap_or_default();
        let Some(header) = PageHeader::parse(run) else {
            self.give_up(findings, at, "an inline leaf page", "fewer than 16 bytes");
            return Ok(());
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
        if header.flags != LEAF {
            self.whole = false;
            return Ok(());
        }
        let table = Table {
            page,
            base: offset as usize,
            count: usize::from(header.count),
            span: run.len(),
            page_size: None,
        };
        if table.head().is_none() {
            table.report_too_many(findings);
            self.whole = false;
            return Ok(());
        }
        let whole = show_leaf(&table, run, &mut self.items, (None, None), seen, findings)?;
        let end = self.items.last().map_or(PAGE_HEADER, Item::end);
        if whole && end != run.len() {
            findings.warning(Layer::Pages, place(page, offset + end as u64), || {
                (
                    "an inline bucket that ends with its last element".into(),
                    format!("{} more bytes", run.len() - end),
                )
            });
        }
        self.whole &= whole;
        Ok(())
    }

    /// A leaf too big to be held: each element by itself.
    fn large_leaf(
        &mut self,
        table: &Table,
        head: usize,
        order: Order,
        depth: usize,
        seen: &mut Sink<'_>,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let offset = table.page * self.page_size;
        ensure(&mut self.window, offset, head)?;
        let run = self.window.get(offset, head).unwrap_or_default();
        let elements = run.get(PAGE_HEADER..).unwrap_or_default();
        let mut items = Vec::new();
        if !table.leaf(elements.as_chunks().0, &mut items, findings) {
            self.whole = false;
            return Ok(());
        }
        if order == Order::Descending {
            items.reverse();
        }
        let (lower, upper) = bounds(self.frames.get(..depth).unwrap_or_default());
        let (lower, upper) = (lower.map(<[u8]>::to_vec), upper.map(<[u8]>::to_vec));
        let mut last: Option<Vec<u8>> = None;
        for item in &items {
            if item.key_len > MAX_KEY {
                self.whole = false;
                continue;
            }
            let at = offset + item.start as u64;
            let held = (item.key_len + item.value_len) as u64 <= MAX_RUN;
            let len = item.key_len + if held { item.value_len } else { 0 };
            self.window.fill(at, len)?;
            let data = self.window.get(at, len).unwrap_or_default();
            let key = data.get(..item.key_len).unwrap_or_default();
            let one = std::iter::once((item.start as u64, key));
            let around = (lower.as_deref(), upper.as_deref());
            check_keys(table.page, one, around, findings);
            if last
                .as_deref()
                .is_some_and(|last| !order.follows(last, key))
            {
                report_order(table.page, item.start as u64, findings);
            }
            last = Some(key.to_vec());
            self.whole &= self.show_single(table.page, at, item, held, seen, findings)?;
        }
        Ok(())
    }

    /// Shows one element of a large leaf, whose key and, if it is held, value are in the window.
    fn show_single(
        &self,
        page: u64,
        at: u64,
        item: &Item,
        held: bool,
        seen: &mut Sink<'_>,
        findings: &mut Findings,
    ) -> io::Result<bool> {
        let len = item.key_len + if held { item.value_len } else { 0 };
        let data = self.window.get(at, len).unwrap_or_default();
        if held {
            let leaf = Leaf {
                page,
                base: item.start,
                data,
                items: &[Item { start: 0, ..*item }],
            };
            return seen.show(&leaf, findings);
        }
        let element = Large {
            key: data,
            value_len: item.value_len as u64,
            source: self.window.source(),
            file_offset: at + item.key_len as u64,
            page,
            offset: item.start as u64,
        };
        if item.bucket {
            findings.error(Layer::Pages, element.place(), || {
                (
                    "an inline bucket of bounded size".into(),
                    format!("{} bytes", element.value_len),
                )
            });
            return Ok(false);
        }
        seen.visitor.large(&element, findings)?;
        Ok(true)
    }

    pub(super) fn window(&mut self) -> &mut Window<'a> {
        &mut self.window
    }

    pub(super) fn reached(&self) -> &PageSet {
        &self.reached
    }

    pub(super) fn page_size(&self) -> u64 {
        self.page_size
    }

    /// First page that cannot be read or does not belong to the database.
    pub(super) fn limit(&self) -> u64 {
        self.high_water.min(self.pages_in_file)
    }
}

/// Where a tree's leaves go.
struct Sink<'a> {
    visitor: &'a mut dyn Visitor,
    pending: &'a mut Vec<Root>,
    leaf_depth: Option<usize>,
}

impl Sink<'_> {
    fn check_depth(&mut self, page: u64, depth: usize, findings: &mut Findings) {
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
    fn show(&mut self, leaf: &Leaf<'_>, findings: &mut Findings) -> io::Result<bool> {
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

fn place(page: u64, offset: u64) -> Place {
    Place::Page { page, offset }
}

fn ensure(window: &mut Window<'_>, offset: u64, len: usize) -> io::Result<()> {
    if window.get(offset, len).is_none() {
        window.fill(offset, len)?;
    }
    Ok(())
}

fn show_leaf(
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

/// Keys ascend strictly, from the lower bound on, below the upper.
fn check_keys<'k>(
    page: u64,
    keys: impl Iterator<Item = (u64, &'k [u8])>,
    (lower, upper): Bounds<'_>,
    findings: &mut Findings,
) {
    let mut before: Option<&[u8]> = None;
    let mut last = 0;
    for (at, key) in keys {
        match before {
            Some(before) if before >= key => report_order(page, at, findings),
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

fn report_order(page: u64, at: u64, findings: &mut Findings) {
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
    let more = if shown.len() < key.len() { "…" } else { "" };
    format!("key {}{more}", hex::encode(shown))
}
