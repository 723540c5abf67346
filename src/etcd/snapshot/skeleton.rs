//! What is remembered of the pages of a snapshot that is being received, until all of them are there.
//!
//! Of a leaf of the bucket `key` that is what [`Batch`] holds, of a branch page its used bytes. An
//! item is found by its page's number. It is held in memory while there is [`Room`], then in a file
//! that has no name. Each item is:
//!
//! | offset | type | field |
//! | --- | --- | --- |
//! | 0 | u32 | length of what follows the CRC |
//! | 4 | u32 | CRC-32C of it |
//! | 8 | u8 | kind: 1 branch, 2 leaf |
//! | 9 | | a branch: u32 overflow, then the bytes; a leaf: see [`super::known_leaf`] |
//!
//! Nothing here is trusted to be complete: a page without an item is read from the snapshot.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::batch::Batch;
use super::known_leaf::{self, KnownLeaf};

/// Bytes of items that are held in memory where there is a file, too.
const BESIDE_FILE: usize = 16 << 20;
/// Bytes that are written to the file at once; no item is cut by their bounds.
const CHUNK: usize = 1 << 20;
/// Addresses in the index are in units of so many bytes, so that 32 bits reach 32 GiB.
const UNIT: usize = 8;
/// Bytes read around an item of the file: its neighbours are likely to be wanted next.
const BEFORE: u64 = 2048;
const AFTER: u64 = 1024;
/// Bytes of an item before its content.
const HEAD: usize = 8;

const BRANCH: u8 = 1;
const LEAF: u8 = 2;

/// Where items can be held.
#[derive(Debug)]
pub struct Room {
    /// Bytes of memory.
    memory: usize,
    file: Option<File>,
    /// Bytes that the file may have.
    most: u64,
}

impl Room {
    /// So many bytes of memory.
    pub fn memory(bytes: usize) -> Self {
        Self {
            memory: bytes,
            file: None,
            most: 0,
        }
    }

    /// 16 MiB of memory, and then up to `most` bytes of a file, if there is one.
    pub fn scratch(file: Option<File>, most: u64) -> Self {
        Self {
            memory: BESIDE_FILE,
            file,
            most,
        }
    }
}

/// The items.
pub(super) struct Skeleton {
    /// By page: the item's address in units, plus one; 0 if it has no item.
    index: Vec<u32>,
    chunks: Vec<Vec<u8>>,
    /// The chunk that is being filled, and how many are in the file.
    open: Vec<u8>,
    stored: usize,
    room: Room,
    /// Whether an item had no room.
    full: bool,
    item: Vec<u8>,
    around: Vec<u8>,
    around_at: u64,
}

impl Skeleton {
    /// An empty one.
    pub(super) fn new(room: Room) -> Self {
        Self {
            index: Vec::new(),
            chunks: Vec::new(),
            open: Vec::new(),
            stored: 0,
            room,
            full: false,
            item: Vec::new(),
            around: Vec::new(),
            around_at: 0,
        }
    }

    /// Remembers a branch page by its used bytes.
    pub(super) fn put_branch(&mut self, page: u64, overflow: u32, used: &[u8]) {
        self.begin(BRANCH);
        self.item.extend_from_slice(&overflow.to_le_bytes());
        self.item.extend_from_slice(used);
        self.put(page);
    }

    /// Remembers a leaf: the only one of a batch.
    pub(super) fn put_leaf(&mut self, page: u64, overflow: u32, batch: &Batch) {
        let [leaf] = batch.leaves.as_slice() else {
            return;
        };
        self.begin(LEAF);
        known_leaf::encode(&mut self.item, overflow, leaf, &batch.entries);
        self.put(page);
    }

    /// Bytes of all items.
    pub(super) fn held(&self) -> u64 {
        ((self.chunks.len() + self.stored) * CHUNK + self.open.len()) as u64
    }

    /// Whether an item had no room: then others after it may have none either.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    fn begin(&mut self, kind: u8) {
        self.item.clear();
        self.item.extend_from_slice(&[0; HEAD]);
        self.item.push(kind);
    }

    /// Adds the item; without room for it, the page has none.
    fn put(&mut self, page: u64) {
        let content = self.item.get(HEAD..).unwrap_or_default();
        let (len, crc) = (content.len() as u32, crc32c::crc32c(content));
        if let Some(head) = self.item.first_chunk_mut::<HEAD>() {
            let (a, b) = (len.to_le_bytes(), crc.to_le_bytes());
            for (target, byte) in head.iter_mut().zip(a.into_iter().chain(b)) {
                *target = byte;
            }
        }
        if self.item.len() > CHUNK {
            return;
        }
        if self.open.len() + self.item.len() > CHUNK && !self.seal() {
            self.full = true;
            return;
        }
        let address = (self.chunks.len() + self.stored) * CHUNK + self.open.len();
        let (Ok(page), Ok(unit)) = (usize::try_from(page), u32::try_from(address / UNIT + 1))
        else {
            return;
        };
        if page >= self.index.len() {
            self.index.resize(page + 1, 0);
        }
        if let Some(slot) = self.index.get_mut(page) {
            *slot = unit;
        }
        self.open.extend_from_slice(&self.item);
        let padded = self.open.len().next_multiple_of(UNIT);
        self.open.resize(padded, 0);
    }

    /// Puts the open chunk where it stays; false if there is no room.
    fn seal(&mut self) -> bool {
        self.open.resize(CHUNK, 0);
        if self.chunks.len() < self.room.memory / CHUNK {
            let next = Vec::with_capacity(CHUNK);
            self.chunks.push(std::mem::replace(&mut self.open, next));
            return true;
        }
        let at = (self.stored * CHUNK) as u64;
        let written = match &self.room.file {
            Some(file) if at + CHUNK as u64 <= self.room.most => file.write_all_at(&self.open, at),
            _ => return false,
        };
        if written.is_err() {
            // A full disk, perhaps: what is in the file so far still counts.
            self.room.most = 0;
            return false;
        }
        self.stored += 1;
        self.open.clear();
        true
    }

    /// Reads a page's item into `self.item`; its kind, if there is one.
    fn find(&mut self, page: u64) -> io::Result<Option<u8>> {
        let unit = usize::try_from(page).ok().and_then(|at| self.index.get(at));
        let Some(address) = unit.and_then(|unit| unit.checked_sub(1)) else {
            return Ok(None);
        };
        let address = address as usize * UNIT;
        let (chunk, at) = (address / CHUNK, address % CHUNK);
        // Chunks in memory come first, then those in the file, then the one that is still filled.
        let held = match chunk.checked_sub(self.chunks.len()) {
            None => self.chunks.get(chunk),
            Some(stored) if stored == self.stored => Some(&self.open),
            Some(_) => None,
        };
        self.item.clear();
        if let Some(held) = held {
            let from = held.get(at..).unwrap_or_default();
            let end = length(from).ok_or_else(broken)?;
            self.item
                .extend_from_slice(from.get(..end).ok_or_else(broken)?);
        } else {
            self.read((address - self.chunks.len() * CHUNK) as u64)?;
        }
        let (head, content) = self.item.split_first_chunk::<HEAD>().ok_or_else(broken)?;
        let [_, _, _, _, crc @ ..] = *head;
        // The scratch file is on a disk that may be the broken one.
        if u32::from_le_bytes(crc) != crc32c::crc32c(content) {
            return Err(broken());
        }
        Ok(content.first().copied())
    }

    /// Reads the item at an offset of the file.
    fn read(&mut self, offset: u64) -> io::Result<()> {
        let file = self.room.file.as_ref().ok_or_else(broken)?;
        let near = |around: &[u8], at: u64| {
            let from = usize::try_from(offset.checked_sub(at)?).ok()?;
            let bytes = around.get(from..)?;
            bytes.get(..length(bytes)?).map(<[u8]>::to_vec)
        };
        if let Some(item) = near(&self.around, self.around_at) {
            self.item = item;
            return Ok(());
        }
        let stored = (self.stored * CHUNK) as u64;
        self.around_at = offset.saturating_sub(BEFORE);
        let end = (offset + AFTER).min(stored);
        self.around.resize((end - self.around_at) as usize, 0);
        file.read_exact_at(&mut self.around, self.around_at)?;
        if let Some(item) = near(&self.around, self.around_at) {
            self.item = item;
            return Ok(());
        }
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, offset)?;
        let len = length(&head).filter(|len| *len <= CHUNK);
        self.item.resize(len.ok_or_else(broken)?, 0);
        file.read_exact_at(&mut self.item, offset)
    }

    /// Adds a page's leaf to a batch, if it is remembered.
    pub(super) fn leaf(&mut self, page: u64, batch: &mut Batch) -> io::Result<Option<KnownLeaf>> {
        match self.find(page)? {
            Some(LEAF) => {
                let content = self.item.get(HEAD + 1..).unwrap_or_default();
                known_leaf::decode(content, page, batch)
                    .map(Some)
                    .ok_or_else(broken)
            }
            _ => Ok(None),
        }
    }

    /// Fills `buf` with the beginning of a branch page, if it is remembered; what follows the used
    /// bytes is zero.
    pub(super) fn branch(&mut self, page: u64, page_size: u64, buf: &mut [u8]) -> io::Result<bool> {
        if self.find(page)? != Some(BRANCH) {
            return Ok(false);
        }
        let content = self.item.get(HEAD + 1..).unwrap_or_default();
        let (overflow, used) = content.split_first_chunk().ok_or_else(broken)?;
        let span = (1 + u64::from(u32::from_le_bytes(*overflow))) * page_size;
        if buf.len() as u64 > span {
            return Ok(false);
        }
        let len = used.len().min(buf.len());
        let (filled, rest) = buf.split_at_mut(len);
        filled.copy_from_slice(used.get(..len).unwrap_or_default());
        rest.fill(0);
        Ok(true)
    }
}

/// Bytes of the item that some bytes begin with.
fn length(bytes: &[u8]) -> Option<usize> {
    let len = bytes.first_chunk().copied().map(u32::from_le_bytes)?;
    Some(HEAD + len as usize)
}

fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "expected what was remembered of a page, found other bytes",
    )
}

#[cfg(test)]
mod tests {
    use super::super::batch::{KeyEntry, LeafHead};
    use super::super::record::Act;
    use super::super::table::Fingerprint;
    use super::*;
    use crate::etcd::crc::CrcSpan;
    use crate::etcd::mvcc::KvRevision;

    fn batch(page: u64, entries: u64) -> Batch {
        let entry = |n: u64| KeyEntry {
            revision: KvRevision {
                main: (1000 + page * 100 - n).cast_signed(),
                sub: n.cast_signed(),
            },
            act: match n % 3 {
                0 => Act::Delete,
                _ => Act::Put {
                    create: 7,
                    version: 1 + n.cast_signed(),
                    lease: -5,
                },
            },
            fingerprint: Fingerprint::of(page.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ n),
            prefix: n as u32,
            key_len: 20,
            value_len: n << 20,
            stored: n << 21,
        };
        Batch {
            leaves: vec![LeafHead {
                page,
                is_page: true,
                entries: entries as usize,
                bytes: 8,
                all: CrcSpan::of(&page.to_le_bytes()),
            }],
            entries: (0..entries).map(entry).collect(),
            wanted: Vec::new(),
        }
    }

    #[test]
    fn items_come_back_from_memory_and_from_the_file() {
        let file = tempfile::tempfile().unwrap();
        let mut skeleton = Skeleton::new(Room::scratch(Some(file), 64 << 20));
        let pages = 2..14_000;
        for page in pages.clone() {
            match page % 10 {
                0 => skeleton.put_branch(page, 1, &vec![page as u8; 3000]),
                _ => skeleton.put_leaf(page, page as u32, &batch(page, 1 + page % 150)),
            }
        }
        assert!(
            skeleton.stored > 4,
            "{} chunks in the file",
            skeleton.stored
        );
        for page in pages.rev() {
            let (mut found, mut page_bytes) = (Batch::default(), [1; 4096]);
            let leaf = skeleton.leaf(page, &mut found).unwrap();
            let is_branch = skeleton.branch(page, 4096, &mut page_bytes).unwrap();
            assert_eq!(is_branch, page % 10 == 0);
            assert_eq!(leaf.is_some(), !is_branch);
            if let Some(leaf) = leaf {
                let expected = batch(page, 1 + page % 150);
                assert_eq!(leaf.overflow, page as u32);
                assert_eq!(found.entries, expected.entries);
                assert_eq!(found.leaves[0].all, expected.leaves[0].all);
                assert!(leaf.first.bytes() <= leaf.last.bytes());
            } else {
                assert_eq!(page_bytes[..3000], vec![page as u8; 3000]);
                assert_eq!(page_bytes[3000..], [0; 1096]);
            }
        }
        assert!(
            skeleton
                .leaf(20_000, &mut Batch::default())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn without_a_file_or_room_the_rest_is_not_remembered_and_a_changed_item_is_an_error() {
        let mut skeleton = Skeleton::new(Room::memory(16 << 20));
        for page in 2..14_000 {
            skeleton.put_leaf(page, 0, &batch(page, 150));
        }
        let mut known = |page| skeleton.leaf(page, &mut Batch::default());
        assert!(known(2).unwrap().is_some());
        assert!(known(13_999).unwrap().is_none());
        skeleton.chunks[0][100] ^= 1;
        let changed = skeleton.leaf(2, &mut Batch::default()).err().unwrap();
        assert_eq!(changed.kind(), io::ErrorKind::InvalidData);
    }
}
