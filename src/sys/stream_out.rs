//! Writing a large file past the page cache, on its own thread.
//!
//! A file that is written once and read much later gains nothing from memory: getting a page for
//! each piece, copying into it and writing it back later costs more than the disk does. So large
//! pieces go from aligned buffers straight to the disk (`O_DIRECT`), while the next one is being
//! made. Where a file system cannot do that, and for the end that fills no block, they are
//! written as usual.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::failpoints::{self, Op};
use super::fs::OutFile;

/// Bytes written at once.
const CHUNK: usize = 2 << 20;
/// Pieces under way: one is made, one is written, one waits.
const CHUNKS: usize = 3;
/// What addresses, offsets and lengths are multiples of, for any disk.
const ALIGNMENT: usize = 4096;

/// A piece of the file, at an aligned address.
struct Chunk {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Chunk {
    fn new() -> Self {
        let bytes = vec![0; CHUNK + ALIGNMENT];
        Self {
            start: bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT),
            bytes,
            len: 0,
        }
    }

    fn space(&mut self) -> &mut [u8] {
        let range = self.start + self.len..self.start + CHUNK;
        self.bytes.get_mut(range).unwrap_or_default()
    }

    fn filled(&self) -> &[u8] {
        let range = self.start..self.start + self.len;
        self.bytes.get(range).unwrap_or_default()
    }
}

/// The writer's side: takes bytes and hands them to the thread in pieces. Dropping it waits for the
/// thread.
pub struct StreamOut {
    chunk: Chunk,
    full: Option<SyncSender<Chunk>>,
    empty: Receiver<Chunk>,
    worker: Option<JoinHandle<io::Result<OutFile>>>,
}

impl StreamOut {
    /// Takes over a file. Nothing else may write to it until [`StreamOut::finish`].
    pub fn new(file: OutFile) -> io::Result<Self> {
        let (full, work) = sync_channel::<Chunk>(CHUNKS);
        let (back, empty) = sync_channel(CHUNKS);
        for _ in 1..CHUNKS {
            // There is room for all.
            let _ = back.send(Chunk::new());
        }
        let worker = std::thread::Builder::new()
            .name("stream-out".to_owned())
            .spawn(move || write_all(file, &work, &back))?;
        Ok(Self {
            chunk: Chunk::new(),
            full: Some(full),
            empty,
            worker: Some(worker),
        })
    }

    /// Lets `make` fill the buffer that will be written; it returns the number of bytes.
    pub fn fill(&mut self, make: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let space = self.chunk.space();
        let most = space.len();
        let made = make(space)?.min(most);
        self.chunk.len += made;
        if made == most {
            self.pass_on()?;
        }
        Ok(made)
    }

    fn pass_on(&mut self) -> io::Result<()> {
        if self.chunk.len == 0 {
            return Ok(());
        }
        // Both fail only if the thread has ended, and then it has an error to report.
        let Ok(next) = self.empty.recv() else {
            return Err(self.broken());
        };
        let chunk = std::mem::replace(&mut self.chunk, next);
        let sent = self.full.as_ref().map(|full| full.send(chunk));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.broken()),
        }
    }

    fn broken(&mut self) -> io::Error {
        match self.join() {
            Err(cause) => cause,
            Ok(_) => io::Error::other("the thread that writes ended early"),
        }
    }

    fn join(&mut self) -> io::Result<OutFile> {
        self.full = None;
        let ended = self.worker.take().map(JoinHandle::join);
        match ended {
            Some(Ok(ended)) => ended,
            _ => Err(io::Error::other("the thread that writes ended early")),
        }
    }

    /// Writes what is left and gives the file back, as it would be after plain writes; nothing is
    /// durable yet.
    pub fn finish(mut self) -> io::Result<OutFile> {
        self.pass_on()?;
        self.join()
    }
}

impl Write for StreamOut {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.fill(|space| {
            let len = space.len().min(data.len());
            if let (Some(target), Some(source)) = (space.get_mut(..len), data.get(..len)) {
                target.copy_from_slice(source);
            }
            Ok(len)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for StreamOut {
    fn drop(&mut self) {
        if self.worker.is_some() {
            // Who drops it has another error to tell.
            let _ = self.join();
        }
    }
}

/// Turns direct writing on or off; says whether that worked.
fn set_direct(file: &OutFile, on: bool) -> bool {
    let flags = fcntl_getfl(&file.file).map(|flags| {
        if on {
            flags | OFlags::DIRECT
        } else {
            flags - OFlags::DIRECT
        }
    });
    flags.is_ok_and(|flags| fcntl_setfl(&file.file, flags).is_ok())
}

fn write_all(
    mut file: OutFile,
    work: &Receiver<Chunk>,
    back: &SyncSender<Chunk>,
) -> io::Result<OutFile> {
    let aligned = file.offset.is_multiple_of(ALIGNMENT as u64);
    let mut direct = aligned && set_direct(&file, true);
    for mut chunk in work {
        let data = chunk.filled();
        let offset = file.offset;
        failpoints::pass(Op::Write(&file.path, offset, data))?;
        if direct && data.len().is_multiple_of(ALIGNMENT) {
            match file.file.write_all_at(data, offset) {
                // A disk of larger blocks, or a file system that changed its mind.
                Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => {
                    direct = false;
                    set_direct(&file, false);
                    file.file.write_all_at(data, offset)?;
                }
                other => other?,
            }
        } else {
            if direct {
                direct = false;
                set_direct(&file, false);
            }
            file.file.write_all_at(data, offset)?;
        }
        failpoints::done(Op::Write(&file.path, offset, data));
        file.offset += data.len() as u64;
        chunk.len = 0;
        // The near end may have no use for it any more.
        let _ = back.send(chunk);
    }
    if direct {
        set_direct(&file, false);
    }
    let end = file.offset;
    file.go_on_at(end)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn any_length_arrives_and_writing_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        for (name, len) in [0, 1, 4096, CHUNK, CHUNK + 5, 5 * CHUNK + 4096]
            .into_iter()
            .enumerate()
        {
            let path = dir.path().join(name.to_string());
            let mut file = OutFile::create(&path).unwrap();
            if name % 2 == 0 {
                file.preallocate(len as u64 + 1).unwrap();
            }
            let mut out = StreamOut::new(file).unwrap();
            out.write_all(&bytes(len)).unwrap();
            let mut file = out.finish().unwrap();
            assert_eq!(file.len(), len as u64);
            file.write_all(b"end").unwrap();
            file.sync().unwrap();
            let now = std::fs::read(&path).unwrap();
            assert_eq!(now[..len], bytes(len));
            assert_eq!(&now[len..], b"end");
        }
    }

    #[test]
    fn a_start_off_the_blocks_is_written_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = OutFile::create(&path).unwrap();
        file.write_all(b"abc").unwrap();
        let mut out = StreamOut::new(file).unwrap();
        out.write_all(&bytes(2 * CHUNK)).unwrap();
        out.finish().unwrap();
        let now = std::fs::read(&path).unwrap();
        assert_eq!(now[3..], bytes(2 * CHUNK));
    }

    #[test]
    fn a_dropped_stream_ends_its_thread_and_errors_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut out = StreamOut::new(OutFile::create(&path).unwrap()).unwrap();
        out.write_all(&bytes(3 * CHUNK)).unwrap();
        drop(out);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let file = OutFile {
            file: full.unwrap(),
            path,
            offset: 0,
        };
        let mut out = StreamOut::new(file).unwrap();
        let written = out
            .write_all(&bytes(9 * CHUNK))
            .and_then(|()| out.finish().map(|_| ()));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
