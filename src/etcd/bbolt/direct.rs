//! Reading a large file past the page cache.
//!
//! A result that is read once, to be checked, gains nothing from memory: to get pages for it costs more
//! than the disk does. And what is checked then comes from the disk. The kernel does not read ahead of such
//! reads, so that a thread here does, where they are in order.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::OFlags;

use super::source::{FileSource, ReadAt};

/// What addresses, offsets and lengths are multiples of, for any disk.
const ALIGNMENT: usize = 4096;
/// Bytes read at once.
const BLOCK: usize = 1 << 20;
/// Blocks that are held: those of the leaves, and of the branches above them.
const BLOCKS: usize = 4;

/// A regular file; what is near each other is read together. If the file system does not know
/// `O_DIRECT`, it is read as usual.
#[derive(Debug)]
pub struct DirectSource {
    plain: FileSource,
    direct: Mutex<Option<Blocks>>,
}

impl DirectSource {
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// As [`FileSource::open`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let plain = FileSource::open(path)?;
        let direct = i32::try_from(OFlags::DIRECT.bits()).ok();
        let direct = direct.and_then(|flag| {
            let mut options = OpenOptions::new();
            // Not every file system opens a file with O_DIRECT; then it is read through the page
            // cache.
            options.read(true).custom_flags(flag).open(path).ok()
        });
        let size = plain.size();
        let direct = direct.map(|file| Blocks::of(file, size)).transpose()?;
        Ok(Self {
            plain,
            direct: Mutex::new(direct),
        })
    }
}

impl ReadAt for DirectSource {
    fn size(&self) -> u64 {
        self.plain.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut direct = self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(blocks) = direct.as_mut() else {
            drop(direct);
            return self.plain.read_exact_at(buf, offset);
        };
        match blocks.read(buf, offset) {
            // Some file systems open a file with O_DIRECT and refuse the read (open(2), notes).
            // From here on it is read through the page cache.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                *direct = None;
                drop(direct);
                self.plain.read_exact_at(buf, offset)
            }
            read => read,
        }
    }
}

/// Blocks of a file, the last used first.
#[derive(Debug)]
struct Blocks {
    file: File,
    size: u64,
    held: Vec<Block>,
    /// The last block that was not held when it was wanted.
    last: u64,
    ahead: Ahead,
}

#[derive(Debug)]
struct Block {
    number: u64,
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Block {
    fn new() -> Self {
        let bytes = vec![0; BLOCK + ALIGNMENT];
        Self {
            number: u64::MAX,
            // The buffer is longer than a block by one alignment, so that an aligned block fits
            // into it wherever the allocator put it.
            start: bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT),
            bytes,
            len: 0,
        }
    }

    fn fill(&mut self, file: &File, number: u64) -> io::Result<()> {
        self.number = u64::MAX;
        self.len = 0;
        let offset = number * BLOCK as u64;
        while self.len < BLOCK {
            let space = self
                .bytes
                .get_mut(self.start + self.len..self.start + BLOCK);
            match file.read_at(space.unwrap_or_default(), offset + self.len as u64) {
                Ok(0) => break,
                Ok(read) => {
                    self.len += read;
                    // The file's end: to read on from within a block is not allowed.
                    if !self.len.is_multiple_of(ALIGNMENT) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.number = number;
        Ok(())
    }
}

/// Reads one block on a thread of its own, while the ones before it are looked at.
#[derive(Debug)]
struct Ahead {
    wanted: Option<SyncSender<(u64, Block)>>,
    read: Receiver<io::Result<Block>>,
    worker: Option<JoinHandle<()>>,
    /// The number of the block, until it is taken.
    coming: Option<u64>,
}

impl Ahead {
    fn of(file: File) -> io::Result<Self> {
        let (wanted, work) = sync_channel::<(u64, Block)>(1);
        let (done, read) = sync_channel(1);
        let worker = std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(move || {
                for (number, mut block) in work {
                    let filled = block.fill(&file, number).map(|()| block);
                    if done.send(filled).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            wanted: Some(wanted),
            read,
            worker: Some(worker),
            coming: None,
        })
    }

    /// Asks for a block; none may be coming.
    fn ask(&mut self, number: u64, block: Block) {
        let sent = self
            .wanted
            .as_ref()
            .map(|wanted| wanted.send((number, block)));
        self.coming = sent.is_some_and(|sent| sent.is_ok()).then_some(number);
    }

    /// The block with this number, if it was asked for.
    fn take(&mut self, number: u64) -> Option<io::Result<Block>> {
        self.coming.take_if(|coming| *coming == number)?;
        self.read.recv().ok()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(worker) = self.worker.take() {
            // It reads at most one more block, and has no failure to tell.
            let _ = worker.join();
        }
    }
}

impl Blocks {
    fn of(file: File, size: u64) -> io::Result<Self> {
        let ahead = Ahead::of(file.try_clone()?)?;
        Ok(Self {
            file,
            size,
            held: Vec::new(),
            last: 0,
            ahead,
        })
    }

    /// The block with this number, now the first.
    fn block(&mut self, number: u64) -> io::Result<&Block> {
        if let Some(at) = self.held.iter().position(|block| block.number == number) {
            self.held.get_mut(..=at).unwrap_or_default().rotate_right(1);
        } else {
            let block = match self.ahead.take(number) {
                Some(block) => block?,
                None => {
                    let mut block = self.spare();
                    block.fill(&self.file, number)?;
                    block
                }
            };
            let (in_order, next) = (number == self.last + 1, number + 1);
            self.last = number;
            if in_order && self.ahead.coming.is_none() && next * (BLOCK as u64) < self.size {
                let spare = self.spare();
                self.ahead.ask(next, spare);
            }
            self.held.insert(0, block);
        }
        self.held.first().ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    /// A block to be filled. The one that was used longest ago makes room, and its buffer is used again.
    fn spare(&mut self) -> Block {
        let oldest = (self.held.len() >= BLOCKS).then(|| self.held.pop());
        oldest.flatten().unwrap_or_else(Block::new)
    }

    fn read(&mut self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            let within = (offset % BLOCK as u64) as usize;
            let block = self.block(offset / BLOCK as u64)?;
            let held = block
                .bytes
                .get(block.start + within..block.start + block.len);
            let len = held.map_or(0, <[u8]>::len).min(buf.len());
            let (filled, rest) = buf.split_at_mut(len);
            match held
                .and_then(|held| held.get(..len))
                .filter(|held| !held.is_empty())
            {
                Some(held) => filled.copy_from_slice(held),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            offset += len as u64;
            buf = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_is_read_as_it_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..7 * BLOCK + 1500).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let source = DirectSource::open(&path).unwrap();
        let mut state = 1_u64;
        for _ in 0..200 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let from = (state >> 33) as usize % bytes.len();
            let len = (state >> 13) as usize % (3 << 18);
            let to = (from + len).min(bytes.len());
            let mut read = vec![0; to - from];
            source.read_exact_at(&mut read, from as u64).unwrap();
            assert!(read == bytes[from..to], "{from} to {to}");
        }
        // In order, as blocks are read ahead.
        let source = DirectSource::open(&path).unwrap();
        for from in (0..bytes.len()).step_by(300_000) {
            let mut read = vec![0; 300_000.min(bytes.len() - from)];
            source.read_exact_at(&mut read, from as u64).unwrap();
            assert!(read == bytes[from..from + read.len()], "{from}");
        }
        let end = bytes.len() as u64;
        assert!(source.read_exact_at(&mut [0; 2], end - 1).is_err());
        assert!(source.read_exact_at(&mut [0; 2], end + 1).is_err());
    }
}
