//! Reading a file back from the disk while it is being written, and comparing it with what was to be
//! written.
//!
//! Each piece is known by its CRC-32C, computed over the bytes before they were copied into the buffer
//! that is written. Once a piece has been written past the page cache, it is read past the page cache
//! (`O_DIRECT`), so that what is compared comes from the disk. If a file system cannot do that, the
//! pieces are read at the end: by then the file has been made durable, and its pages are dropped from
//! the cache first.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rustix::fs::{Advice, OFlags, fadvise};

/// What addresses, offsets and lengths are multiples of, for any disk.
const ALIGNMENT: usize = 4096;

/// Is shown each piece of the file, in order.
pub type Look = Box<dyn FnMut(&[u8]) + Send>;

/// A piece of a file that has been written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) len: usize,
    /// CRC-32C of what was to be written.
    pub(super) crc: u32,
}

/// Compares a file with what was to be written, on a thread of its own.
#[derive(Debug)]
pub struct ReadBack {
    written: Option<Sender<Piece>>,
    worker: Option<JoinHandle<io::Result<u64>>>,
}

impl ReadBack {
    /// Opens the file once more. `look` is shown what the disk returns.
    pub(super) fn of(path: &Path, look: Option<Look>) -> io::Result<Self> {
        let direct = i32::try_from(OFlags::DIRECT.bits()).ok();
        let direct = direct.and_then(|flag| {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(flag).open(path).ok()
        });
        let plain = File::open(path)?;
        let (written, pieces) = channel();
        let worker = std::thread::Builder::new()
            .name("read-back".to_owned())
            .spawn(move || Reader::new(direct, plain, look).run(&pieces))?;
        Ok(Self {
            written: Some(written),
            worker: Some(worker),
        })
    }

    /// A piece has been written.
    pub(super) fn written(&self, piece: Piece) {
        if let Some(written) = &self.written {
            // The thread has ended before its time, so it has an error to tell.
            let _ = written.send(piece);
        }
    }

    /// Waits until all of it has been compared. The file must be durable by now.
    ///
    /// # Errors
    /// `InvalidData` if the disk returns other bytes than were written, or not all of `len`; and those
    /// of reading.
    pub fn finish(mut self, len: u64) -> io::Result<()> {
        // This closes the channel: the thread ends with the last piece.
        self.written = None;
        let compared = match self.worker.take().map(JoinHandle::join) {
            Some(Ok(compared)) => compared?,
            _ => return Err(io::Error::other("the thread that reads back ended early")),
        };
        if compared == len {
            return Ok(());
        }
        let what = format!("only {compared} of {len} bytes were read back");
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

struct Reader {
    direct: Option<File>,
    plain: File,
    buffer: Vec<u8>,
    compared: u64,
    look: Option<Look>,
}

impl Reader {
    fn new(direct: Option<File>, plain: File, look: Option<Look>) -> Self {
        Self {
            direct,
            plain,
            buffer: Vec::new(),
            compared: 0,
            look,
        }
    }

    fn run(mut self, pieces: &Receiver<Piece>) -> io::Result<u64> {
        let mut waiting = Vec::new();
        while let Ok(piece) = pieces.recv() {
            if !self.past_the_cache(piece)? {
                waiting.push(piece);
            }
        }
        if !waiting.is_empty() {
            // Advice: a file system without it returns what it has.
            let _ = fadvise(&self.plain, 0, None, Advice::DontNeed);
        }
        for piece in waiting {
            self.buffer.resize(piece.len, 0);
            self.plain.read_exact_at(&mut self.buffer, piece.offset)?;
            compare(&self.buffer, piece)?;
            self.compared += piece.len as u64;
            if let Some(look) = &mut self.look {
                look(&self.buffer);
            }
        }
        Ok(self.compared)
    }

    /// Compares a piece with the disk; false if it cannot be read past the page cache.
    fn past_the_cache(&mut self, piece: Piece) -> io::Result<bool> {
        let Some(file) = &self.direct else {
            return Ok(false);
        };
        let whole = piece.len.next_multiple_of(ALIGNMENT);
        if self.buffer.len() < whole + ALIGNMENT {
            self.buffer.resize(whole + ALIGNMENT, 0);
        }
        let start = self.buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let space = self.buffer.get_mut(start..start + whole);
        let space = space.unwrap_or_default();
        let mut have = 0;
        while have < piece.len {
            // The end of the file fills no block; it is what a read there returns.
            let rest = space.get_mut(have..).unwrap_or_default();
            match file.read_at(rest, piece.offset + have as u64) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.direct = None;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        let found = space.get(..piece.len.min(have)).unwrap_or_default();
        compare(found, piece)?;
        self.compared += piece.len as u64;
        if let Some(look) = &mut self.look {
            look(found);
        }
        Ok(true)
    }
}

fn compare(found: &[u8], piece: Piece) -> io::Result<()> {
    if found.len() == piece.len && crc32c::crc32c(found) == piece.crc {
        return Ok(());
    }
    let end = piece.offset + piece.len as u64;
    let what = format!(
        "the disk returns other bytes than were written, between offset {} and {end}",
        piece.offset
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: &[u8], offset: usize, len: usize) -> Piece {
        Piece {
            offset: offset as u64,
            len,
            crc: crc32c::crc32c(&bytes[offset..offset + len]),
        }
    }

    #[test]
    fn each_way_in_which_a_file_can_differ_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..20_000u32).map(|n| (n % 251) as u8).collect();
        let pieces = [(0, 8192), (8192, 8192), (16_384, 3616)];
        let compare = |content: &[u8], pieces: &[(usize, usize)]| {
            std::fs::write(&path, content).unwrap();
            let back = ReadBack::of(&path, None).unwrap();
            for (offset, len) in pieces {
                back.written(piece(&bytes, *offset, *len));
            }
            back.finish(bytes.len() as u64)
        };
        compare(&bytes, &pieces).unwrap();
        let mut flipped = bytes.clone();
        flipped[19_999] ^= 1;
        let swapped = [&bytes[8192..16_384], &bytes[..8192], &bytes[16_384..]].concat();
        for (what, content, pieces) in [
            ("a flipped bit", flipped.as_slice(), &pieces[..]),
            ("another order", &swapped, &pieces),
            ("the end is missing", &bytes[..19_000], &pieces),
            ("a piece that nobody compared", &bytes, &pieces[..2]),
        ] {
            let error = compare(content, pieces).expect_err(what);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}: {error}");
        }
    }

    #[test]
    fn without_direct_reading_the_file_is_compared_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let (send, pieces) = channel();
        let reader = Reader::new(None, File::open(&path).unwrap(), None);
        send.send(piece(b"0123456789", 0, 10)).unwrap();
        drop(send);
        assert_eq!(reader.run(&pieces).unwrap(), 10);
    }
}
