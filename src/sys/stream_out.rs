//! Writing a large file past the page cache, on its own thread.
//!
//! A file that is written once and read much later gains nothing from memory: getting a page for
//! each piece, copying into it and writing it back later costs more than the disk does. So large
//! pieces go from aligned buffers straight to the disk (`O_DIRECT`), while the next one is being
//! made. If a file system cannot do that, and for the end that fills no block, they are
//! written as usual.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::failpoints::{self, Lie, Op};
use super::fs::OutFile;
use super::read_back::{Look, Piece, ReadBack};

/// Bytes written at once.
const CHUNK: usize = 2 << 20;
/// Pieces under way: one is made, one is written, one waits.
const CHUNKS: usize = 3;
/// Bytes that are made at once: on an AMD EPYC, reads of 2 MiB from the page cache took three times as
/// long as reads of this size.
const FILL: usize = 64 << 10;
/// Bytes after which the disk begins to flush what it has, while the next ones are written.
const FLUSH: u64 = 32 << 20;
/// What addresses, offsets and lengths are multiples of, for any disk.
const ALIGNMENT: usize = 4096;

/// A piece of the file, at an aligned address.
struct Chunk {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
    /// CRC-32C of what was to be put here, computed where it came from.
    crc: u32,
}

impl Chunk {
    fn new() -> Self {
        let bytes = vec![0; CHUNK + ALIGNMENT];
        Self {
            start: bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT),
            bytes,
            len: 0,
            crc: 0,
        }
    }

    fn space(&mut self) -> &mut [u8] {
        let range = self.start + self.len..self.start + CHUNK;
        self.bytes.get_mut(range).unwrap_or_default()
    }

    /// Changes a bit, as a bad disk does.
    fn flip(&mut self) {
        if let Some(byte) = self.bytes.get_mut(self.start + self.len / 2) {
            *byte ^= 1;
        }
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
    worker: Option<JoinHandle<io::Result<Written>>>,
    look: Option<Look>,
    proven: bool,
}

/// What the thread gives back.
type Written = (OutFile, Option<ReadBack>);

impl StreamOut {
    /// Takes over a file. Nothing else may write to it until [`StreamOut::finish`]. Every 32 MiB the disk
    /// is asked to flush, so that the last flush is short.
    pub fn new(file: OutFile) -> io::Result<Self> {
        let flushes = Flushes::of(&file)?;
        Self::start(file, None, None, Some(flushes))
    }

    /// The same, and what is [written](Write) is read back from the disk and compared. `judge` is shown
    /// what the disk returned, in order.
    pub fn judged(file: OutFile, judge: Look) -> io::Result<Self> {
        let back = ReadBack::of(file.path(), Some(judge))?;
        let flushes = Flushes::of(&file)?;
        Self::start(file, Some(back), None, Some(flushes))
    }

    /// What is [written](Write) is read back from the disk and compared. `look` is shown each piece before
    /// it is written, in order: whole pieces of 2 MiB, but for the last. The disk flushes once, at the end:
    /// an etcd may wait for the same disk.
    pub fn proven(file: OutFile, look: Option<Look>) -> io::Result<Self> {
        let back = ReadBack::of(file.path(), None)?;
        Self::start(file, Some(back), look, None)
    }

    fn start(
        file: OutFile,
        back_read: Option<ReadBack>,
        look: Option<Look>,
        flushes: Option<Flushes>,
    ) -> io::Result<Self> {
        let proven = back_read.is_some();
        let (full, work) = sync_channel::<Chunk>(CHUNKS);
        let (back, empty) = sync_channel(CHUNKS);
        for _ in 1..CHUNKS {
            // There is room for all.
            let _ = back.send(Chunk::new());
        }
        let worker = std::thread::Builder::new()
            .name("stream-out".to_owned())
            .spawn(move || write_all(file, &work, &back, back_read, flushes))?;
        Ok(Self {
            chunk: Chunk::new(),
            full: Some(full),
            empty,
            worker: Some(worker),
            look,
            proven,
        })
    }

    /// Lets `make` fill a part of the buffer that will be written, at most 64 KiB; it returns the number
    /// of bytes.
    pub fn fill(&mut self, make: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let space = self.chunk.space();
        let most = space.len().min(FILL);
        let made = make(space.get_mut(..most).unwrap_or_default())?.min(most);
        self.made(made)?;
        Ok(made)
    }

    /// So many bytes more are in the piece.
    fn made(&mut self, bytes: usize) -> io::Result<()> {
        self.chunk.len += bytes;
        match self.chunk.space() {
            [] => self.pass_on(),
            _ => Ok(()),
        }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        if self.chunk.len == 0 {
            return Ok(());
        }
        if let Some(look) = &mut self.look {
            look(self.chunk.filled());
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

    fn join(&mut self) -> io::Result<Written> {
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
        self.join().map(|(file, _)| file)
    }

    /// The same of one that is [proven](StreamOut::proven) or [judged](StreamOut::judged); the comparison ends once the file is durable.
    pub fn finish_proven(mut self) -> io::Result<(OutFile, ReadBack)> {
        self.pass_on()?;
        let (file, back) = self.join()?;
        let back = back.ok_or_else(|| io::Error::other("nothing was read back"))?;
        Ok((file, back))
    }
}

impl Write for StreamOut {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let len = data.len().min(self.chunk.space().len());
        if self.proven {
            // Over the source, so that the copy into the piece is compared, too.
            let taken = data.get(..len).unwrap_or(data);
            self.chunk.crc = crc32c::crc32c_append(self.chunk.crc, taken);
        }
        if let (Some(target), Some(source)) = (self.chunk.space().get_mut(..len), data.get(..len)) {
            target.copy_from_slice(source);
        }
        self.made(len)?;
        Ok(len)
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
    read_back: Option<ReadBack>,
    mut flushes: Option<Flushes>,
) -> io::Result<Written> {
    let aligned = file.offset.is_multiple_of(ALIGNMENT as u64);
    let mut direct = aligned && set_direct(&file, true);
    for mut chunk in work {
        let (offset, len) = (file.offset, chunk.len);
        // Only in tests does a disk lie on demand.
        let lie = failpoints::lie(offset, len);
        if matches!(lie, Some(Lie::Flip)) {
            chunk.flip();
        }
        let data = chunk.filled();
        failpoints::pass(Op::Write(&file.path, offset, data))?;
        let at = match lie {
            Some(Lie::Elsewhere(at)) => at,
            _ => offset,
        };
        if matches!(lie, Some(Lie::Drop)) {
            // Reported as written.
        } else if direct && data.len().is_multiple_of(ALIGNMENT) {
            match file.file.write_all_at(data, at) {
                // A disk of larger blocks, or a file system that changed its mind.
                Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => {
                    direct = false;
                    set_direct(&file, false);
                    file.file.write_all_at(data, at)?;
                }
                other => other?,
            }
        } else {
            if direct {
                direct = false;
                set_direct(&file, false);
            }
            file.file.write_all_at(data, at)?;
        }
        failpoints::done(Op::Write(&file.path, offset, data));
        file.offset += len as u64;
        if let Some(flushes) = &mut flushes {
            flushes.written_to(file.offset);
        }
        if let Some(read_back) = &read_back {
            let crc = chunk.crc;
            read_back.written(Piece { offset, len, crc });
        }
        (chunk.len, chunk.crc) = (0, 0);
        // The near end may have no use for it any more.
        let _ = back.send(chunk);
    }
    if direct {
        set_direct(&file, false);
    }
    if let Some(flushes) = flushes {
        flushes.end()?;
    }
    let end = file.offset;
    file.go_on_at(end)?;
    Ok((file, read_back))
}

/// Lets the disk flush while more is written. What was written past the page cache may still be in the
/// disk's cache, and flushing all of that at the end took as long as writing it.
struct Flushes {
    /// The end of what the disk was asked to flush.
    asked: u64,
    next: SyncSender<()>,
    worker: JoinHandle<io::Result<()>>,
}

impl Flushes {
    fn of(file: &OutFile) -> io::Result<Self> {
        let asked = file.offset;
        let file = file.file.try_clone()?;
        // Without a buffer: who is flushing is not asked again.
        let (next, work) = sync_channel(0);
        let worker = std::thread::Builder::new()
            .name("flush".to_owned())
            .spawn(move || work.iter().try_for_each(|()| file.sync_data()))?;
        Ok(Self {
            asked,
            next,
            worker,
        })
    }

    fn written_to(&mut self, end: u64) {
        if end >= self.asked + FLUSH && self.next.try_send(()).is_ok() {
            self.asked = end;
        }
    }

    /// # Errors
    /// That of a flush: the kernel tells it once, so the flush at the end would not fail again.
    fn end(self) -> io::Result<()> {
        drop(self.next);
        match self.worker.join() {
            Ok(flushed) => flushed,
            Err(_) => Err(io::Error::other("the thread that flushes ended early")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn what_is_written_is_compared_with_the_disk() {
        for len in [0, 1, 4096, CHUNK, 3 * CHUNK + 33] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            let (shown, seen) = std::sync::mpsc::channel();
            let look = move |piece: &[u8]| shown.send(piece.len()).unwrap();
            let file = OutFile::create(&path).unwrap();
            let mut out = StreamOut::proven(file, Some(Box::new(look))).unwrap();
            for piece in bytes(len).chunks(30_001) {
                out.write_all(piece).unwrap();
            }
            let (mut file, back) = out.finish_proven().unwrap();
            file.sync().unwrap();
            back.finish(len as u64).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes(len));
            let sizes: Vec<_> = seen.iter().collect();
            assert_eq!(sizes.iter().sum::<usize>(), len);
            assert!(sizes.iter().rev().skip(1).all(|size| *size == CHUNK));
        }
    }

    #[test]
    fn every_length_is_written_and_writing_continues() {
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
    fn an_unaligned_start_is_written_too() {
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
    fn a_dropped_stream_ends_its_thread_and_errors_are_reported() {
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
