//! Pages one behind the other.

use std::io::{self, Write};

use crate::etcd::bbolt::layout::{BRANCH, ELEMENT, LEAF, MAX_KEY, MAX_VALUE, PAGE_HEADER};

/// What a page's header can count; one less than what means something else in a freelist.
pub(super) const MAX_ELEMENTS: usize = 0xFFFE;

/// The elements of a page to be, with keys and values one behind the other.
#[derive(Debug, Default)]
pub(super) struct Draft {
    elements: Vec<Element>,
    data: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Element {
    /// A leaf element's flags, a branch element's child.
    what: u64,
    key: u32,
    value: u32,
}

fn sized(len: usize, most: usize, what: &str) -> io::Result<u32> {
    match u32::try_from(len) {
        Ok(size) if len <= most => Ok(size),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a {what} of {len} bytes"),
        )),
    }
}

impl Draft {
    pub(super) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Bytes of the page up to the end of its data.
    pub(super) fn size(&self) -> usize {
        PAGE_HEADER + ELEMENT * self.elements.len() + self.data.len()
    }

    pub(super) fn push_leaf(&mut self, flags: u32, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.push(flags.into(), key, value)
    }

    pub(super) fn push_branch(&mut self, key: &[u8], child: u64) -> io::Result<()> {
        self.push(child, key, &[])
    }

    fn push(&mut self, what: u64, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an empty key, which no bucket holds",
            ));
        }
        self.elements.push(Element {
            what,
            key: sized(key.len(), MAX_KEY, "key")?,
            value: sized(value.len(), MAX_VALUE, "value")?,
        });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
        Ok(())
    }

    pub(super) fn first_key(&self) -> &[u8] {
        let len = self.elements.first().map_or(0, |first| first.key as usize);
        self.data.get(..len).unwrap_or_default()
    }

    /// The child that a branch's only element leads to.
    pub(super) fn only_child(&self) -> Option<u64> {
        match self.elements.as_slice() {
            [only] => Some(only.what),
            _ => None,
        }
    }

    pub(super) fn clear(&mut self) {
        self.elements.clear();
        self.data.clear();
    }

    /// Puts what stands before a page's data into `page`. `extra` bytes of the last value follow the data.
    fn encode_head(&self, id: u64, flags: u16, overflow: u32, extra: u32, page: &mut Vec<u8>) {
        page.clear();
        page.extend_from_slice(&id.to_le_bytes());
        page.extend_from_slice(&flags.to_le_bytes());
        // At most MAX_ELEMENTS are ever put in.
        page.extend_from_slice(&(self.elements.len() as u16).to_le_bytes());
        page.extend_from_slice(&overflow.to_le_bytes());
        let mut data_at = PAGE_HEADER + ELEMENT * self.elements.len();
        let last = self.elements.len().wrapping_sub(1);
        for (index, element) in self.elements.iter().enumerate() {
            let at = PAGE_HEADER + ELEMENT * index;
            // A leaf's data ends below 2^32: its elements fit a page, or are a single one.
            let pos = (data_at - at) as u32;
            let more = if index == last { extra } else { 0 };
            if flags == BRANCH {
                page.extend_from_slice(&pos.to_le_bytes());
                page.extend_from_slice(&element.key.to_le_bytes());
                page.extend_from_slice(&element.what.to_le_bytes());
            } else {
                page.extend_from_slice(&(element.what as u32).to_le_bytes());
                page.extend_from_slice(&pos.to_le_bytes());
                page.extend_from_slice(&element.key.to_le_bytes());
                page.extend_from_slice(&(element.value + more).to_le_bytes());
            }
            data_at += (element.key + element.value) as usize;
        }
    }

    /// The leaf as an inline bucket has it.
    pub(super) fn inline(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(self.size());
        self.encode_head(0, LEAF, 0, 0, &mut page);
        page.extend_from_slice(&self.data);
        page
    }
}

/// Writes pages, each where the one before ends.
pub(super) struct Pages<W> {
    out: W,
    page_size: usize,
    next: u64,
    /// The head of the page that is being written, kept for its memory.
    head: Vec<u8>,
}

impl<W: Write> Pages<W> {
    /// `out` must write from page `next` on.
    pub(super) fn new(out: W, page_size: u32, next: u64) -> Self {
        Self {
            out,
            page_size: page_size as usize,
            next,
            head: Vec::new(),
        }
    }

    pub(super) fn page_size(&self) -> usize {
        self.page_size
    }

    /// The first page that is not written, and the output.
    pub(super) fn finish(self) -> (u64, W) {
        (self.next, self.out)
    }

    pub(super) fn leaf(&mut self, draft: &Draft) -> io::Result<u64> {
        self.page(draft, LEAF)
    }

    pub(super) fn branch(&mut self, draft: &Draft) -> io::Result<u64> {
        self.page(draft, BRANCH)
    }

    fn page(&mut self, draft: &Draft, flags: u16) -> io::Result<u64> {
        let (id, overflow, padding) = self.claim(draft.size() as u64)?;
        draft.encode_head(id, flags, overflow, 0, &mut self.head);
        self.out.write_all(&self.head)?;
        self.out.write_all(&draft.data)?;
        self.pad(padding)?;
        Ok(id)
    }

    /// A leaf with one element, whose value comes in pieces: `read` fills its buffer from an
    /// offset in the value.
    pub(super) fn large_leaf(
        &mut self,
        key: &[u8],
        len: u64,
        read: &mut dyn FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<u64> {
        let value = sized(
            usize::try_from(len).unwrap_or(usize::MAX),
            MAX_VALUE,
            "value",
        )?;
        let mut draft = Draft::default();
        draft.push_leaf(0, key, &[])?;
        let (id, overflow, padding) = self.claim(draft.size() as u64 + len)?;
        draft.encode_head(id, LEAF, overflow, value, &mut self.head);
        self.out.write_all(&self.head)?;
        self.out.write_all(&draft.data)?;
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        while done < len {
            let want = (len - done).min(buffer.len() as u64);
            let piece = buffer.get_mut(..want as usize).unwrap_or_default();
            read(piece, done)?;
            self.out.write_all(piece)?;
            done += want;
        }
        self.pad(padding)?;
        Ok(id)
    }

    /// Takes pages for so many bytes: the first, how many more, and what is left of the last.
    fn claim(&mut self, size: u64) -> io::Result<(u64, u32, usize)> {
        let page_size = self.page_size as u64;
        let pages = size.div_ceil(page_size).max(1);
        let id = self.next;
        let too_many =
            || io::Error::new(io::ErrorKind::InvalidInput, "more pages than there can be");
        self.next = id.checked_add(pages).ok_or_else(too_many)?;
        let overflow = u32::try_from(pages - 1).map_err(|_| too_many())?;
        Ok((id, overflow, (pages * page_size - size) as usize))
    }

    pub(super) fn pad(&mut self, mut len: usize) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while len > 0 {
            let part = ZEROS.get(..len).unwrap_or(&ZEROS);
            self.out.write_all(part)?;
            len -= part.len();
        }
        Ok(())
    }
}
