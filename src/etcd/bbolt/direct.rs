//! Reading a large file past the page cache.
//!
//! A result that is read once, to be checked, gains nothing from memory: to get pages for it costs more
//! than the disk does. And what is checked then comes from the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

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
            options.read(true).custom_flags(flag).open(path).ok()
        });
        Ok(Self {
            plain,
            direct: Mutex::new(direct.map(Blocks::of)),
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
    held: Vec<Block>,
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

impl Blocks {
    fn of(file: File) -> Self {
        Self {
            file,
            held: Vec::new(),
        }
    }

    /// The block with this number, now the first.
    fn block(&mut self, number: u64) -> io::Result<&Block> {
        if let Some(at) = self.held.iter().position(|block| block.number == number) {
            self.held.get_mut(..=at).unwrap_or_default().rotate_right(1);
        } else {
            // The block that was used longest ago makes room, and its buffer is used again.
            let mut block = match self.held.len() {
                BLOCKS => self.held.pop(),
                _ => None,
            };
            block
                .get_or_insert_with(Block::new)
                .fill(&self.file, number)?;
            self.held.splice(0..0, block);
        }
        self.held.first().ok_or(io::ErrorKind::UnexpectedEof.into())
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
        let end = bytes.len() as u64;
        assert!(source.read_exact_at(&mut [0; 2], end - 1).is_err());
        assert!(source.read_exact_at(&mut [0; 2], end + 1).is_err());
    }
}
