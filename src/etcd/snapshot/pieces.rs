//! A file's pieces, read once for two threads.
//!
//! Both take every piece in order. The one that needs a piece first reads it, so that the faster thread
//! does the reading for both, and at most [`AHEAD`] pieces are held.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::etcd::bbolt::ReadAt;

/// Bytes of a piece: whole pages of most sizes. All pieces that are held stay within a second-level
/// cache; in pieces of 128 KiB and more, reads on two threads took two to three times as long on an AMD EPYC.
const PIECE: u64 = 64 << 10;
/// Pieces by which one thread may be ahead of the other.
const AHEAD: u64 = 4;

/// The pieces of the first bytes of a source.
pub(super) struct Pieces<'a> {
    source: &'a dyn ReadAt,
    end: u64,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// Piece `k` is in the slot `k % AHEAD`.
    slots: [Slot; AHEAD as usize],
    /// The piece that each reader is at; nothing once it has left.
    at: Vec<Option<u64>>,
    /// Readers that wait.
    waiting: usize,
}

#[derive(Default)]
struct Slot {
    /// The piece that it holds, or that `reader` is about to read into it.
    piece: Option<u64>,
    reader: Option<usize>,
    bytes: Arc<Vec<u8>>,
}

impl<'a> Pieces<'a> {
    /// The pieces of the first `end` bytes.
    pub(super) fn new(source: &'a dyn ReadAt, end: u64) -> Self {
        Self {
            source,
            end,
            state: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    /// One more reader. All of them are made before the first one reads.
    pub(super) fn reader(&self) -> Reader<'_> {
        let mut state = self.state();
        state.at.push(Some(0));
        Reader {
            pieces: self,
            number: state.at.len() - 1,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a piece, read by whoever needs them first.
    fn get(&self, piece: u64, reader: usize) -> io::Result<Arc<Vec<u8>>> {
        let mut state = self.state();
        let mut bytes = loop {
            let oldest = state.at.iter().flatten().min().copied();
            let free = oldest.is_none_or(|oldest| piece < oldest + AHEAD);
            let slot = state.slots.get_mut((piece % AHEAD) as usize);
            let slot = slot.ok_or(io::ErrorKind::InvalidInput)?;
            match (slot.piece == Some(piece), slot.reader) {
                (true, None) => return Ok(Arc::clone(&slot.bytes)),
                (false, None) if free => {
                    (slot.piece, slot.reader) = (Some(piece), Some(reader));
                    break std::mem::take(&mut slot.bytes);
                }
                _ => {}
            }
            state.waiting += 1;
            let waited = self.moved.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        };
        drop(state);
        let begin = piece * PIECE;
        let len = (self.end - begin).min(PIECE) as usize;
        // Nobody else has it: all readers are past the piece that was in it.
        let buffer = Arc::make_mut(&mut bytes);
        buffer.resize(len, 0);
        let read = self.source.read_exact_at(buffer, begin);
        let mut state = self.state();
        if let Some(slot) = state.slots.get_mut((piece % AHEAD) as usize) {
            slot.reader = None;
            slot.bytes = Arc::clone(&bytes);
            if read.is_err() {
                // The other reader tries by itself.
                slot.piece = None;
            }
        }
        self.wake(&state);
        read.map(|()| bytes)
    }

    fn move_on(&self, reader: usize, to: Option<u64>) {
        let mut state = self.state();
        if let Some(at) = state.at.get_mut(reader) {
            *at = to;
        }
        self.wake(&state);
    }

    /// Mostly nobody waits, and then no system call is made.
    fn wake(&self, state: &State) {
        if state.waiting > 0 {
            self.moved.notify_all();
        }
    }
}

/// Takes the pieces in order. Once it is dropped, nobody waits for it.
pub(super) struct Reader<'a> {
    pieces: &'a Pieces<'a>,
    number: usize,
}

impl Reader<'_> {
    /// Shows each piece, until `take` has had enough.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn each(self, mut take: impl FnMut(&[u8]) -> Wanted) -> io::Result<()> {
        let count = self.pieces.end.div_ceil(PIECE);
        for piece in 0..count {
            let bytes = self.pieces.get(piece, self.number)?;
            let wanted = take(&bytes);
            // Before the slot is given back, so that its buffer is used again.
            drop(bytes);
            self.pieces.move_on(self.number, Some(piece + 1));
            if wanted == Wanted::NoMore {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut state = self.pieces.state();
        // Only after a panic: nobody else would read the piece.
        let mine = |slot: &&mut Slot| slot.reader == Some(self.number);
        for slot in state.slots.iter_mut().filter(mine) {
            *slot = Slot::default();
        }
        drop(state);
        self.pieces.move_on(self.number, None);
    }
}

/// Whether a reader wants the next piece, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    More,
    NoMore,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Counts the bytes read, and fails from an offset on.
    struct Counted {
        bytes: Vec<u8>,
        read: AtomicU64,
        fails_at: u64,
    }

    impl Counted {
        fn new(fails_at: u64) -> Self {
            let words = (0..(40 * PIECE + 77) / 4).flat_map(|n| (n as u32).to_le_bytes());
            Self {
                bytes: words.collect(),
                read: AtomicU64::new(0),
                fails_at,
            }
        }
    }

    impl ReadAt for Counted {
        fn size(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            if offset >= self.fails_at {
                return Err(io::ErrorKind::Other.into());
            }
            self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
            self.bytes.read_exact_at(buf, offset)
        }
    }

    fn whole(reader: Reader<'_>) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        reader.each(|piece| {
            all.extend_from_slice(piece);
            Wanted::More
        })?;
        Ok(all)
    }

    #[test]
    fn both_get_all_bytes_and_each_is_read_once() {
        let source = Counted::new(u64::MAX);
        let pieces = Pieces::new(&source, source.size());
        let (one, other) = (pieces.reader(), pieces.reader());
        let (a, b) = std::thread::scope(|scope| {
            let other = scope.spawn(|| whole(other).unwrap());
            (whole(one).unwrap(), other.join().unwrap())
        });
        assert!(a == source.bytes && b == source.bytes);
        assert_eq!(source.read.into_inner(), a.len() as u64);
    }

    #[test]
    fn who_leaves_or_panics_is_not_waited_for() {
        let source = Counted::new(u64::MAX);
        let pieces = Pieces::new(&source, source.size());
        let (one, other, third) = (pieces.reader(), pieces.reader(), pieces.reader());
        std::thread::scope(|scope| {
            scope.spawn(|| other.each(|_| Wanted::NoMore).unwrap());
            let fails = scope.spawn(|| third.each(|_| panic!("on purpose")));
            assert!(fails.join().is_err());
            assert!(whole(one).unwrap() == source.bytes);
        });
    }

    #[test]
    fn an_error_reaches_both() {
        let source = Counted::new(3 * PIECE);
        let pieces = Pieces::new(&source, source.size());
        let (one, other) = (pieces.reader(), pieces.reader());
        std::thread::scope(|scope| {
            let other = scope.spawn(|| whole(other).is_err());
            assert!(whole(one).is_err());
            assert!(other.join().unwrap());
        });
    }
}
