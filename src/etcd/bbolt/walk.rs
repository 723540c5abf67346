//! Walking the trees of a database, each page judged before it is followed.
//!
//! What the walk holds: every page is in bounds, says its own number, is reached once, is a branch
//! or a leaf; elements are within their page, in order, not over each other; keys ascend strictly
//! and keep to the separators above them; all leaves of a bucket are equally deep. The walk has a
//! stack of its own, of bounded depth, and continues past what is broken, so that one finding does
//! not hide the next.

use std::io;

use super::elements::{Item, Table};
use super::frames::{Frame, bounds, check_keys, report_order};
use super::layout::{BRANCH, ELEMENT, LEAF, MAX_KEY, PAGE_HEADER, PageHeader};
use super::meta::Meta;
use super::pageset::PageSet;
use super::sink::{Sink, inline_header, place, show_leaf};
use super::source::ReadAt;
use super::visit::{Known, Large, Leaf, Nested, Order, Root, Unseen, Visitor};
use super::window::Window;
use crate::finding::{Findings, Layer, Place};

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
    /// Whether neighbouring pages are read together.
    read_ahead: bool,
    progress: &'a (dyn Fn(u64) + Sync),
}

/// How far a walker had come.
pub(crate) struct Mark {
    reached: PageSet,
    whole: bool,
}

impl<'a> Walker<'a> {
    /// A walker over `data` bytes of a source with this meta. `progress` gets the bytes walked
    /// since it was last called.
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
            read_ahead: true,
            progress,
        }
    }

    /// Whether neighbouring pages are read together, which costs more than it saves where most of
    /// them are known.
    pub(crate) fn set_read_ahead(&mut self, on: bool) {
        self.read_ahead = on;
    }

    /// What was reached so far, to go back to with [`Walker::reset`].
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            reached: self.reached.clone(),
            whole: self.whole,
        }
    }

    /// Forgets what was walked since the mark.
    pub(crate) fn reset(&mut self, mark: Mark) {
        self.reached = mark.reached;
        self.whole = mark.whole;
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
        // Level by level and not by recursion: how deep they are nested is the file's word.
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
        // Asked before anything is read: not to read is what the visitor's knowledge is for.
        if let Some(known) = seen.visitor.known(page)? {
            return self.known_leaf(page, &known, *depth, seen, findings);
        }
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
                // An empty leaf is sound only as a root: that of an empty bucket.
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
                    format!("a page of at least 2 and below {limit}"),
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
                .filter(|_| self.read_ahead)
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

    /// Holds a leaf that the visitor knows to its place in the tree.
    fn known_leaf(
        &mut self,
        page: u64,
        known: &Known,
        depth: usize,
        seen: &mut Sink<'_>,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let limit = self.limit();
        let in_file = page >= 2 && page < limit && u64::from(known.overflow) < limit - page;
        if !in_file || !self.claim(page, known.overflow, findings) {
            let at = Some(place(page, 0));
            self.give_up(findings, at, "a leaf in its place", "another");
            return Ok(());
        }
        (self.progress)((1 + u64::from(known.overflow)) * self.page_size);
        seen.check_depth(page, depth, findings);
        let (lower, upper) = bounds(self.frames.get(..depth).unwrap_or_default());
        let (first, last) = ((0, known.first.bytes()), (0, known.last.bytes()));
        check_keys(page, std::iter::once(first), (lower, None), findings);
        check_keys(page, std::iter::once(last), (None, upper), findings);
        seen.visitor.take_known(findings)
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
        self.window.ensure(offset, table.span)?;
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
        self.window.ensure(offset, table.span)?;
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
        self.window.ensure(file_offset, len as usize)?;
        let run = self
            .window
            .get(file_offset, len as usize)
            .unwrap_or_default();
        let Some(header) = inline_header(run, place(page, offset), findings) else {
            self.whole = false;
            return Ok(());
        };
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
        // No separator leads to an inline bucket.
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
        self.window.ensure(offset, head)?;
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
            // That is a finding already. Reading it would take as much memory as the file asks for.
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
            // This sees one key at a time, so that the order is compared with the last one below.
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
