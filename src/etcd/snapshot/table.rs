//! What the key pass remembers of each user's key: 10 bytes in a table that grows in small steps.
//!
//! A key is known by 58 bits of a keyed hash: the upper 10 choose a segment, 48 are stored. The
//! remaining 32 bits are the caller's state. Two keys with the same 58 bits would be taken for
//! one; the hash is keyed at random, so that nobody can choose such keys, and among `n` keys a
//! pair collides with a probability of about `n²/2^59`: 2·10⁻⁶ for a million, 7·10⁻⁴ for twenty
//! millions. What the caller makes of it is described at the key pass.
//!
//! Memory: a segment is a list of 4 KiB blocks, at most five sixths full. When it fills up it grows
//! by three tenths, and by more while the whole table is small: all that is ahead of need is at
//! most 12 MiB besides. One segment's content is copied aside meanwhile. So a key takes 12 to 15.6
//! bytes, and the table 12 MiB more at most.

/// Bits of the hash that choose a segment.
const SEGMENT_BITS: u32 = 10;
/// Bits of the hash that are stored.
const TAG_BITS: u32 = 48;
/// Slots of a block: 4080 bytes, so that an allocator's header makes it 4 KiB.
const SLOTS: usize = 408;

/// Slots of a line of the processor's cache, 64 bytes.
const LINE: usize = 6;

/// Bytes that the table may be ahead of need by, besides three tenths of itself.
const AHEAD: usize = 12 << 20;
/// Bytes of a block with its allocator's header.
const BLOCK: usize = 4096;

/// Tag (6 bytes, never 0) and state (4 bytes), little-endian.
type Slot = [u8; 10];
const EMPTY: Slot = [0; 10];
type Block = Box<[Slot; SLOTS]>;

/// The part of a hash that the table tells keys apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    /// How many bits it has.
    pub(super) const BITS: u32 = SEGMENT_BITS + TAG_BITS;

    pub(super) fn of(hash: u64) -> Self {
        let tag = (hash >> (64 - SEGMENT_BITS - TAG_BITS)) & ((1 << TAG_BITS) - 1);
        let segment = hash >> (64 - SEGMENT_BITS);
        // 0 marks an empty slot.
        Self(segment << TAG_BITS | tag.max(1))
    }

    /// All of it, to be kept elsewhere.
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// What [`Fingerprint::bits`] gave.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    fn segment(self) -> usize {
        (self.0 >> TAG_BITS) as usize
    }

    fn tag(self) -> u64 {
        self.0 & ((1 << TAG_BITS) - 1)
    }
}

#[derive(Default)]
struct Segment {
    blocks: Vec<Block>,
    len: usize,
}

impl Segment {
    fn capacity(&self) -> usize {
        self.blocks.len() * SLOTS
    }

    fn home(&self, tag: u64) -> (usize, usize) {
        // Tags are spread evenly, so that this scales them to any capacity without a division. It
        // also keeps their order, which `grow` relies on.
        let home = (u128::from(tag) * self.capacity() as u128) >> TAG_BITS;
        (home as usize / SLOTS, home as usize % SLOTS)
    }

    /// The slot with this tag, or the empty one where it belongs (there always is one), and the
    /// count of slots in use.
    fn find(&mut self, tag: u64) -> Option<(&mut Slot, &mut usize)> {
        let capacity = self.capacity();
        let (mut block, mut slot) = self.home(tag);
        for _ in 0..capacity {
            let found = tag_of(self.blocks.get(block)?.get(slot)?);
            if found == tag || found == 0 {
                let slot = self.blocks.get_mut(block)?.get_mut(slot)?;
                return Some((slot, &mut self.len));
            }
            slot += 1;
            if slot == SLOTS {
                slot = 0;
                block = if block + 1 == self.blocks.len() {
                    0
                } else {
                    block + 1
                };
            }
        }
        None
    }

    /// Grows by so many blocks.
    fn grow(&mut self, more: usize, aside: &mut Vec<Slot>) {
        aside.clear();
        for block in &mut self.blocks {
            aside.extend(block.iter().filter(|slot| tag_of(slot) != 0));
            block.as_flattened_mut().fill(0);
        }
        self.blocks.reserve_exact(more);
        for _ in 0..more {
            self.blocks.push(Box::new([EMPTY; SLOTS]));
        }
        // They come back in the order of their homes: the writes are sequential.
        for slot in aside.iter() {
            if let Some((target, _)) = self.find(tag_of(slot)) {
                *target = *slot;
            }
        }
    }
}

/// How many blocks a segment of so many is to grow by, in a table of so many.
fn growth(segment: usize, table: usize) -> usize {
    let ahead = segment * AHEAD / (table * BLOCK).max(1);
    (segment * 3 / 10 + ahead).min(segment).max(1)
}

fn tag_of(slot: &Slot) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *slot;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]) & ((1 << TAG_BITS) - 1)
}

fn state_of(slot: &Slot) -> u32 {
    let [.., a, b, c, d] = *slot;
    u32::from_le_bytes([a, b, c, d])
}

/// A key's state, in place.
pub(super) struct State<'a>(&'a mut Slot);

impl State<'_> {
    pub(super) fn get(&self) -> u32 {
        state_of(self.0)
    }

    pub(super) fn set(&mut self, state: u32) {
        if let Some(target) = self.0.last_chunk_mut() {
            *target = state.to_le_bytes();
        }
    }
}

/// The table.
pub(super) struct KeyTable {
    segments: Vec<Segment>,
    aside: Vec<Slot>,
    blocks: usize,
    len: u64,
}

impl KeyTable {
    pub(super) fn new() -> Self {
        let mut segments = Vec::new();
        segments.resize_with(1 << SEGMENT_BITS, Segment::default);
        Self {
            segments,
            aside: Vec::new(),
            blocks: 0,
            len: 0,
        }
    }

    /// Brings the slots of some keys into the processor's cache. One by one each look-up would
    /// wait for memory; here the processor fetches several at once. Where the table is nearly full, a
    /// look-up goes through some slots from the key's own on: the two lines behind it are fetched, too.
    pub(super) fn warm(&self, keys: impl Iterator<Item = Fingerprint>) {
        let mut touched = 0u8;
        for key in keys {
            let Some(segment) = self.segments.get(key.segment()) else {
                continue;
            };
            let (block, slot) = segment.home(key.tag());
            let Some(block) = segment.blocks.get(block) else {
                continue;
            };
            for line in 0..3 {
                let [first, ..] = block.get(slot + line * LINE).copied().unwrap_or(EMPTY);
                touched ^= first;
            }
        }
        // Nobody wants it; without it, the compiler would drop the reads.
        std::hint::black_box(touched);
    }

    /// The state of a key, 0 if the key is new; and whether it is.
    pub(super) fn entry(&mut self, key: Fingerprint) -> Option<(bool, State<'_>)> {
        let segment = self.segments.get_mut(key.segment())?;
        if (segment.len + 1) * 6 > segment.capacity() * 5 {
            let more = growth(segment.blocks.len(), self.blocks);
            segment.grow(more, &mut self.aside);
            self.blocks += more;
        }
        let tag = key.tag();
        let (slot, len) = segment.find(tag)?;
        let new = tag_of(slot) == 0;
        if new {
            let [a, b, c, d, e, f, ..] = tag.to_le_bytes();
            *slot = [a, b, c, d, e, f, 0, 0, 0, 0];
            *len += 1;
            self.len += 1;
        }
        Some((new, State(slot)))
    }

    /// Distinct keys.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The keys whose state is of interest.
    pub(super) fn select(&self, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = Fingerprint> {
        (0u64..)
            .zip(&self.segments)
            .flat_map(|(number, s)| s.blocks.iter().map(move |b| (number, b)))
            .flat_map(|(number, b)| b.iter().map(move |slot| (number, slot)))
            .filter(move |(_, slot)| tag_of(slot) != 0 && wanted(state_of(slot)))
            .map(|(number, slot)| Fingerprint(number << TAG_BITS | tag_of(slot)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// SplitMix64: hashes as good as random ones.
    fn hash(n: u64) -> u64 {
        let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    #[test]
    fn states_are_kept_while_the_table_grows() {
        let mut table = KeyTable::new();
        let mut model = HashMap::new();
        for n in 0..300_000u64 {
            let key = n % 200_000;
            let (new, mut state) = table.entry(Fingerprint::of(hash(key))).unwrap();
            assert_eq!(new, !model.contains_key(&key));
            assert_eq!(state.get(), model.get(&key).copied().unwrap_or(0));
            state.set(n as u32);
            model.insert(key, n as u32);
        }
        assert_eq!(table.len(), 200_000);
        let odd = table.select(|state| state % 2 == 1).count();
        assert_eq!(odd, model.values().filter(|v| **v % 2 == 1).count());
        let one = table.select(|state| state == 250_001).next().unwrap();
        assert_eq!(one, Fingerprint::of(hash(50_001)));
    }

    #[test]
    fn memory_keeps_to_its_bound() {
        let mut table = KeyTable::new();
        for n in 1..=6_000_000u64 {
            table.entry(Fingerprint::of(hash(n))).unwrap();
            if n % 1000 == 0 {
                let counted: usize = table.segments.iter().map(|s| s.blocks.len()).sum();
                assert_eq!(counted, table.blocks);
                let lists = table.segments.iter().map(|s| s.blocks.capacity() * 8);
                let bytes = table.blocks * BLOCK + lists.sum::<usize>();
                // A block for each segment at the least.
                let bound = 16 * n as usize + AHEAD + BLOCK * table.segments.len();
                assert!(bytes < bound, "{bytes} for {n} keys");
            }
        }
    }
}
