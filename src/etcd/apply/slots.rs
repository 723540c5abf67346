//! A table of keys in order, each with a state that changes, in bounded memory.
//!
//! The keys are known before and never change, so that each has its place for good. They are in blocks of a few
//! kilobytes; memory has where each block begins, and the blocks that were used last. A block that changed is written
//! to a file when another one needs its room. A table that fits writes no file.
//!
//! ```text
//! block: records by key ascending
//! record: length of the key u32, little-endian; the state; the key
//! ```
//!
//! A key's *ordinal* is its place among all of them, from 0.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;

use super::base::Spill;
use super::live::{Live, STATE};
use crate::error::{Doing, Failure, Kind, Result};
use crate::sys::fs::OutFile;
use crate::sys::scratch::Scratch;

/// A block ends when it has so many bytes and so many keys: the first key of each is in memory, and must be a small part.
const BLOCK: usize = 4 << 10;
const KEYS: usize = 16;
/// It ends at so many bytes in any case.
const LONGEST: usize = 64 << 10;
/// Bytes of a record before its key.
const HEAD: usize = 4 + STATE;
/// What a held block takes besides its bytes and the places of its records.
const BESIDES: usize = 96;

/// Where a block is.
struct Block {
    offset: u64,
    len: u32,
    /// The ordinal of its first key.
    first: u32,
    /// Where in the table's names its separator begins and ends: a key that is not above its first key, and is above
    /// the last one before.
    separator: (usize, usize),
}

/// A block in memory.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    starts: Vec<u32>,
    changed: bool,
    used: bool,
}

impl Held {
    fn size(&self) -> usize {
        self.bytes.len() + self.starts.len() * 4 + BESIDES
    }

    fn read(bytes: Vec<u8>) -> Self {
        let (mut starts, mut at) = (Vec::new(), 0);
        while let Some(len) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            starts.push(at as u32);
            at += HEAD + u32::from_le_bytes(*len) as usize;
        }
        Self {
            bytes,
            starts,
            ..Self::default()
        }
    }

    fn key(&self, at: usize) -> &[u8] {
        self.starts.get(at).map_or(&[], |start| self.key_at(*start))
    }

    /// The key of the record that begins there.
    fn key_at(&self, start: u32) -> &[u8] {
        let record = self.bytes.get(start as usize..).unwrap_or_default();
        let len = record
            .first_chunk()
            .map_or(0, |len| u32::from_le_bytes(*len));
        let key = record.get(HEAD..HEAD + len as usize);
        key.unwrap_or_default()
    }

    fn state(&mut self, at: usize) -> Option<&mut [u8; STATE]> {
        let start = *self.starts.get(at)? as usize + 4;
        self.bytes.get_mut(start..)?.first_chunk_mut()
    }

    /// The place of the first key that is not below this one.
    fn place(&self, key: &[u8]) -> usize {
        self.starts
            .partition_point(|start| self.key_at(*start) < key)
    }
}

/// The table.
pub(super) struct Slots<'a> {
    scratch: Option<Spill<'a>>,
    blocks: Vec<Block>,
    names: Vec<u8>,
    count: u32,
    /// By the number of the block.
    held: Vec<Option<Box<Held>>>,
    /// Blocks that are held, in the order in which they may go.
    queue: VecDeque<u32>,
    size: usize,
    file: Option<(OutFile, Scratch)>,
    /// While the table is made: the block under way, and the last key before it.
    making: Held,
    before: Vec<u8>,
}

impl<'a> Slots<'a> {
    /// An empty table; without a folder for a file it holds all blocks.
    pub(super) fn new(scratch: Option<Spill<'a>>) -> Self {
        Self {
            scratch,
            blocks: Vec::new(),
            names: Vec::new(),
            count: 0,
            held: Vec::new(),
            queue: VecDeque::new(),
            size: 0,
            file: None,
            making: Held::default(),
            before: Vec::new(),
        }
    }

    /// Adds a key, above all before it: its ordinal. [`Slots::made`] ends that.
    pub(super) fn push(&mut self, key: &[u8], live: Option<&Live>) -> Result<u32> {
        let len = u32::try_from(key.len()).map_err(|_| unexpected("a key of more than 4 GiB"))?;
        let ordinal = self.count;
        let next = ordinal.checked_add(1);
        self.count = next.ok_or_else(|| unexpected("more than 4,294,967,295 keys"))?;
        let Held { bytes, starts, .. } = &mut self.making;
        starts.push(bytes.len() as u32);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&Live::encode(live));
        bytes.extend_from_slice(key);
        if bytes.len() >= LONGEST || bytes.len() >= BLOCK && starts.len() >= KEYS {
            self.made()?;
        }
        Ok(ordinal)
    }

    /// Ends the block under way.
    pub(super) fn made(&mut self) -> Result<()> {
        let mut block = std::mem::take(&mut self.making);
        let Some(last) = block.starts.len().checked_sub(1) else {
            return Ok(());
        };
        let number = self.number(self.blocks.len())?;
        let end = self.blocks.last();
        let offset = end.map_or(0, |end| end.offset + u64::from(end.len));
        // The shortest key that tells the two apart.
        let first = block.key(0);
        let same = first.iter().zip(&self.before).take_while(|(a, b)| a == b);
        let short = first.get(..same.count() + 1).unwrap_or(first);
        let begin = self.names.len();
        self.names.extend_from_slice(short);
        self.blocks.push(Block {
            offset,
            len: block.bytes.len() as u32,
            first: self.count - block.starts.len() as u32,
            separator: (begin, self.names.len()),
        });
        self.before.clear();
        self.before.extend_from_slice(block.key(last));
        block.changed = true;
        self.held.push(None);
        self.hold(number, block)
    }

    fn number(&self, block: usize) -> Result<u32> {
        u32::try_from(block).map_err(|_| unexpected("more than 4,294,967,295 blocks"))
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// The ordinal of the first key that is not below this one, and whether it is this one.
    pub(super) fn search(&mut self, key: &[u8]) -> Result<(u32, bool)> {
        let Self { blocks, names, .. } = self;
        let separator = |block: &Block| names.get(block.separator.0..block.separator.1);
        let after = blocks.partition_point(|block| separator(block).is_some_and(|s| s <= key));
        let Some(number) = after.checked_sub(1) else {
            return Ok((0, false));
        };
        let first = blocks.get(number).map_or(0, |block| block.first);
        let held = self.block(number)?;
        let place = held.place(key);
        Ok((first + place as u32, held.key(place) == key))
    }

    /// The key of an ordinal and its state.
    pub(super) fn get(&mut self, ordinal: u32, key: &mut Vec<u8>) -> Result<Option<Live>> {
        let (held, place) = self.at(ordinal)?;
        key.clear();
        key.extend_from_slice(held.key(place));
        Ok(held.state(place).and_then(|state| Live::decode(state)))
    }

    /// The state of an ordinal.
    pub(super) fn state(&mut self, ordinal: u32) -> Result<Option<Live>> {
        let (held, place) = self.at(ordinal)?;
        Ok(held.state(place).and_then(|state| Live::decode(state)))
    }

    /// Changes the state of an ordinal.
    pub(super) fn set(&mut self, ordinal: u32, live: Option<&Live>) -> Result<()> {
        let (held, place) = self.at(ordinal)?;
        let state = held.state(place);
        *state.ok_or_else(|| unexpected("a key beyond the last one"))? = Live::encode(live);
        held.changed = true;
        Ok(())
    }

    fn at(&mut self, ordinal: u32) -> Result<(&mut Held, usize)> {
        let after = self.blocks.partition_point(|block| block.first <= ordinal);
        let number = after.saturating_sub(1);
        let first = self.blocks.get(number).map_or(0, |block| block.first);
        Ok((self.block(number)?, (ordinal - first) as usize))
    }

    /// A block, read if it is not held.
    fn block(&mut self, number: usize) -> Result<&mut Held> {
        let is_held = matches!(self.held.get(number), Some(Some(_)));
        if !is_held {
            let block = self.blocks.get(number);
            let block = block.ok_or_else(|| unexpected("a block beyond the last one"))?;
            let mut bytes = vec![0; block.len as usize];
            let file = self.file.as_ref();
            let (out, _) = file.ok_or_else(|| unexpected("a block that is nowhere"))?;
            let read = out.file().read_exact_at(&mut bytes, block.offset);
            read.doing(Kind::Store, || format!("reading {}", out.path().display()))?;
            self.hold(self.number(number)?, Held::read(bytes))?;
        }
        let held = self.held.get_mut(number).and_then(Option::as_mut);
        let held = held.ok_or_else(|| unexpected("a block that is not held"))?;
        held.used = true;
        Ok(held)
    }

    /// Holds a block, and lets go of others until there is room.
    fn hold(&mut self, number: u32, block: Held) -> Result<()> {
        self.size += block.size();
        while self.scratch.is_some_and(|spill| self.size > spill.room) {
            let Some(old) = self.queue.pop_front() else {
                break;
            };
            let held = self.held.get_mut(old as usize).and_then(Option::take);
            let Some(mut held) = held else { continue };
            // Used since it was looked at last: it gets a second chance.
            if std::mem::take(&mut held.used) {
                self.put(old, held);
                continue;
            }
            self.size -= held.size();
            if held.changed {
                self.write(old, &held.bytes)?;
            }
        }
        self.put(number, Box::new(block));
        Ok(())
    }

    fn put(&mut self, number: u32, block: Box<Held>) {
        if let Some(place) = self.held.get_mut(number as usize) {
            *place = Some(block);
            self.queue.push_back(number);
        }
    }

    fn write(&mut self, number: u32, bytes: &[u8]) -> Result<()> {
        let block = self.blocks.get(number as usize);
        let offset = block.map_or(0, |block| block.offset);
        let (out, _) = match (&mut self.file, self.scratch) {
            (Some(file), _) => file,
            (none, Some(Spill { dir, .. })) => {
                let folder = Scratch::make(dir, "keys")?;
                none.insert((folder.file("keys")?, folder))
            }
            (None, None) => return Ok(()),
        };
        let written = out.write_at(offset, bytes);
        written.doing(Kind::Store, || format!("writing {}", out.path().display()))
    }
}

fn unexpected(what: &str) -> Failure {
    Failure::new(Kind::Unexpected, what.to_owned()).doing("looking up a key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Vec<u8> {
        let mut key = format!("/registry/pods/shop/pod-{number:05}").into_bytes();
        if number.is_multiple_of(97) {
            key.resize(3000, b'x');
        }
        key
    }

    /// Keys are found, and changed, alike in memory and from a file.
    #[test]
    fn a_table_that_does_not_fit_is_what_one_in_memory_is() {
        let dir = tempfile::tempdir().unwrap();
        for room in [usize::MAX, 20_000, 0] {
            let dir = dir.path();
            let mut slots = Slots::new(Some(Spill { dir, room }));
            let live = |number: u32, modified: i64| Live {
                create: i64::from(number),
                modified,
                ..Live::default()
            };
            // Every second number is a key.
            for number in (0..4000u32).step_by(2) {
                let live = number.is_multiple_of(3).then(|| live(number, 1));
                let ordinal = slots.push(&key(number), live.as_ref()).unwrap();
                assert_eq!(ordinal, number / 2);
            }
            slots.made().unwrap();
            assert_eq!(slots.file.is_some(), room != usize::MAX);
            for step in 0..8000u32 {
                let number = step.wrapping_mul(7919) % 4000;
                let (at, found) = slots.search(&key(number)).unwrap();
                assert_eq!((at, found), (number.div_ceil(2), number.is_multiple_of(2)));
                if found && step >= 4000 {
                    slots.set(at, Some(&live(number, 2))).unwrap();
                }
            }
            let mut name = Vec::new();
            for at in 0..slots.len() {
                let number = at * 2;
                let found = slots.get(at, &mut name).unwrap();
                assert_eq!(name, key(number));
                let step = (4000..8000u32).find(|step| step.wrapping_mul(7919) % 4000 == number);
                let expected = match step {
                    Some(_) => Some(live(number, 2)),
                    None => number.is_multiple_of(3).then(|| live(number, 1)),
                };
                assert_eq!(found, expected);
            }
            assert_eq!(slots.search(b"").unwrap(), (0, false));
            assert_eq!(slots.search(b"~").unwrap(), (slots.len(), false));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
