//! The freelist: read where one is stored, and every page accounted for.
//!
//! A freelist page (bbolt `internal/freelist`) has the page header with flags 0x10, then its page
//! numbers, u64, ascending. A count of 0xFFFF says that the true count is the first u64 and the
//! numbers follow it. etcd on Linux stores none (bbolt option `NoFreelistSync`): then every page
//! that no tree reaches is free.

use std::io;

use super::layout::{FREELIST, PAGE_HEADER, PageHeader, u64_at};
use super::meta::Meta;
use super::pageset::PageSet;
use super::walk::Walker;
use crate::finding::{Findings, Layer, Place};

/// Numbers read at a time.
const PIECE: u64 = 4096;
/// A count that stands for "see the first number".
const COUNT_FOLLOWS: u16 = 0xFFFF;

/// How the pages of a database are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Pages up to the high-water mark.
    pub total: u64,
    /// Pages that hold neither metas, trees nor the freelist.
    pub free: u64,
    /// Whether a freelist is stored.
    pub freelist_stored: bool,
}

impl Walker<'_> {
    /// Accounts for every page, after all trees were walked.
    pub fn finish(&mut self, meta: &Meta, findings: &mut Findings) -> io::Result<Usage> {
        let mut free = PageSet::default();
        if let Some(page) = meta.stored_freelist() {
            let read = self.read_freelist(page, &mut free, findings)?;
            // The pages of a tree that could not be walked to its end would look lost.
            if read && self.is_whole() {
                self.report_lost(&free, findings);
            }
        }
        // The two metas are in no tree.
        let used = 2 + self.reached().len();
        Ok(Usage {
            total: meta.high_water,
            free: meta.high_water.saturating_sub(used),
            freelist_stored: meta.stored_freelist().is_some(),
        })
    }

    fn read_freelist(
        &mut self,
        page: u64,
        free: &mut PageSet,
        findings: &mut Findings,
    ) -> io::Result<bool> {
        let limit = self.limit();
        if page < 2 || page >= limit {
            // The meta's own check has said so.
            return Ok(false);
        }
        let start = page * self.page_size();
        let page_size = self.page_size();
        self.window().fill(start, PAGE_HEADER + 8)?;
        let head = self
            .window()
            .get(start, PAGE_HEADER + 8)
            .unwrap_or_default();
        let (Some(header), Some(first)) = (PageHeader::parse(head), u64_at(head, PAGE_HEADER))
        else {
            return Ok(false);
        };
        if header.id != page || header.flags != FREELIST {
            findings.error(Layer::Pages, place(page, 0), || {
                (
                    format!("the freelist, page {page}"),
                    format!("{} with id {}", header.kind(), header.id),
                )
            });
            return Ok(false);
        }
        let (count, ids) = match header.count {
            COUNT_FOLLOWS => (first, PAGE_HEADER as u64 + 8),
            count => (u64::from(count), PAGE_HEADER as u64),
        };
        let span = (1 + u64::from(header.overflow)) * page_size;
        if u64::from(header.overflow) >= limit - page || count > (span - ids) / 8 {
            findings.error(Layer::Pages, place(page, 10), || {
                (
                    "a freelist within its pages and the file".into(),
                    format!("{count} pages in it, overflow {}", header.overflow),
                )
            });
            return Ok(false);
        }
        if !self.claim(page, header.overflow, findings) {
            return Ok(false);
        }
        self.read_ids(page, ids, count, free, findings)?;
        Ok(true)
    }

    fn read_ids(
        &mut self,
        page: u64,
        ids: u64,
        count: u64,
        free: &mut PageSet,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let limit = self.limit();
        let start = page * self.page_size() + ids;
        let mut before = 1;
        let mut done = 0;
        while done < count {
            let piece = (count - done).min(PIECE);
            let len = (piece * 8) as usize;
            let mut bytes = vec![0; len];
            self.window()
                .source()
                .read_exact_at(&mut bytes, start + done * 8)?;
            for (index, id) in (done..).zip(bytes.as_chunks().0) {
                let id = u64::from_le_bytes(*id);
                let at = place(page, ids + index * 8);
                if id >= limit || id <= before {
                    findings.error(Layer::Pages, at, || {
                        (
                            format!("a free page above {before} and below {limit}"),
                            format!("page {id}"),
                        )
                    });
                } else if self.reached().contains(id) {
                    findings.error(Layer::Pages, at, || {
                        (
                            "a free page that no tree reaches".into(),
                            format!("page {id}, which is in use"),
                        )
                    });
                }
                if id < limit {
                    free.insert(id);
                }
                before = before.max(id);
            }
            done += piece;
        }
        Ok(())
    }

    /// With a stored freelist a page must be either in use or in the list.
    fn report_lost(&self, free: &PageSet, findings: &mut Findings) {
        for page in 2..self.limit() {
            if !free.contains(page) && !self.reached().contains(page) {
                findings.error(Layer::Pages, place(page, 0), || {
                    (
                        "a page in use or in the freelist".into(),
                        "neither: it is unreachable".into(),
                    )
                });
            }
        }
    }
}

fn place(page: u64, offset: u64) -> Place {
    Place::Page { page, offset }
}
