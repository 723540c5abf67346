//! A file's pieces, read once for several threads.
//!
//! Each takes every piece in order. The one that needs a piece first reads it, so that the fastest thread
//! does the reading for all, and at most [`AHEAD`] pieces are held.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::etcd::bbolt::ReadAt;

/// Bytes of a piece: whole pages of most sizes. All pieces that are held stay within a second-level
/// cache; in pieces of 128 KiB and more, reads on two threads took two to three times as long on an AMD EPYC.
const PIECE: u64 = 64 << 10;
/// Pieces by which one thread may be ahead of another.
const AHEAD: u64 = 8;
/// Who is that far ahead waits until so many pieces are free: to wake a thread for each piece takes a
/// tenth of the time that the piece does.
const REST: u64 = 4;

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
    /// Readers that wait for a piece that another one reads.
    waiting: usize,
    /// Those that are too far ahead, and the piece that all must be at before one of them continues.
    resting: usize,
    rest_until: u64,
}

impl State {
    /// The piece that the last reader is at.
    fn oldest(&self) -> u64 {
        self.at.iter().flatten().min().copied().unwrap_or(u64::MAX)
    }
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
            next: 0,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a piece, read by whoever needs them first.
    fn get(&self, piece: u64, reader: usize) -> io::Result<Arc<Vec<u8>>> {
        let mut state = self.state();
        let mut bytes = loop {
            let oldest = state.oldest();
            let free = piece < oldest.saturating_add(AHEAD);
            let slot = state.slots.get_mut((piece % AHEAD) as usize);
            let slot = slot.ok_or(io::ErrorKind::InvalidInput)?;
            match (slot.piece == Some(piece), slot.reader) {
                (true, None) => return Ok(Arc::clone(&slot.bytes)),
                (false, None) if free => {
                    (slot.piece, slot.reader) = (Some(piece), Some(reader));
                    break std::mem::take(&mut slot.bytes);
                }
                (true, Some(_)) => {
                    state.waiting += 1;
                    state = self.wait(state);
                    state.waiting -= 1;
                }
                _ => {
                    let until = (piece + REST).saturating_sub(AHEAD);
                    state.rest_until = match state.resting {
                        0 => until,
                        _ => state.rest_until.min(until),
                    };
                    state.resting += 1;
                    state = self.wait(state);
                    state.resting -= 1;
                }
            }
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
                // The other readers try by themselves.
                slot.piece = None;
            }
        }
        if state.waiting > 0 {
            self.moved.notify_all();
        }
        read.map(|()| bytes)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let waited = self.moved.wait(state);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Mostly nobody has to be woken, and then no system call is made.
    fn move_on(&self, reader: usize, to: Option<u64>) {
        let mut state = self.state();
        if let Some(at) = state.at.get_mut(reader) {
            *at = to;
        }
        let left = to.is_none() && state.waiting + state.resting > 0;
        if left || state.resting > 0 && state.oldest() >= state.rest_until {
            self.moved.notify_all();
        }
    }
}

/// Takes the pieces in order. Once it is dropped, nobody waits for it.
pub(super) struct Reader<'a> {
    pieces: &'a Pieces<'a>,
    number: usize,
    /// The piece that it takes next.
    next: u64,
}

impl Reader<'_> {
    /// Shows each piece that is left, until `take` has had enough.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn each(&mut self, mut take: impl FnMut(&[u8]) -> Wanted) -> io::Result<()> {
        let count = self.pieces.end.div_ceil(PIECE);
        while self.next < count {
            let bytes = self.pieces.get(self.next, self.number)?;
            let wanted = take(&bytes);
            // Before the slot is given back, so that its buffer is used again.
            drop(bytes);
            self.next += 1;
            self.pieces.move_on(self.number, Some(self.next));
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

    fn whole(mut reader: Reader<'_>) -> io::Result<Vec<u8>> {
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
        let (one, mut other, mut third) = (pieces.reader(), pieces.reader(), pieces.reader());
        std::thread::scope(|scope| {
            scope.spawn(move || other.each(|_| Wanted::NoMore).unwrap());
            let fails = scope.spawn(move || third.each(|_| panic!("on purpose")));
            assert!(fails.join().is_err());
            assert!(whole(one).unwrap() == source.bytes);
        });
    }

    #[test]
    fn who_has_had_enough_can_continue() {
        let source = Counted::new(u64::MAX);
        let pieces = Pieces::new(&source, source.size());
        let (one, mut other) = (pieces.reader(), pieces.reader());
        let (a, b) = std::thread::scope(|scope| {
            let one = scope.spawn(|| whole(one).unwrap());
            let mut first = Vec::new();
            let mut take = |piece: &[u8]| {
                first.extend_from_slice(piece);
                Wanted::NoMore
            };
            other.each(&mut take).unwrap();
            other.each(&mut take).unwrap();
            first.extend(whole(other).unwrap());
            (one.join().unwrap(), first)
        });
        assert!(a == source.bytes && b == source.bytes);
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
