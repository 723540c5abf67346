//! Which keys a tail may touch, in bounded memory. What is taken besides costs a little room and changes nothing.

use std::hash::{BuildHasher, RandomState};

/// Words of the filter: 8 MiB, of which a short tail touches little.
const WORDS: usize = 1 << 20;
/// Bits of a key.
const BITS: u32 = 4;
/// Hashes of the keys that were met last.
const RECENT: usize = 1 << 14;
/// Ranges that are held, and the bytes of their keys: of more, neighbours are joined.
const RANGES: usize = 4096;
const RANGE_BYTES: usize = 1 << 20;

/// A Bloom filter: it has every key that was added, and few others up to some millions.
pub(super) struct Points {
    hasher: RandomState,
    words: Vec<u64>,
    recent: Vec<u64>,
}

impl Default for Points {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            words: vec![0; WORDS],
            recent: vec![0; RECENT],
        }
    }
}

impl Points {
    /// Adds a key; false if it was among those that were added last.
    pub(super) fn add(&mut self, key: &[u8]) -> bool {
        // 0 is what an empty place has.
        let hash = self.hasher.hash_one(key).max(1);
        let recent = self.recent.get_mut(hash as usize % RECENT);
        // Two keys of one hash: the second is missed when it is looked up, and the tail is not applied.
        if recent.is_some_and(|last| std::mem::replace(last, hash) == hash) {
            return false;
        }
        for (word, bit) in places(hash) {
            if let Some(word) = self.words.get_mut(word) {
                *word |= bit;
            }
        }
        true
    }

    pub(super) fn has(&self, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key).max(1);
        let mut places = places(hash);
        places.all(|(word, bit)| self.words.get(word).is_some_and(|word| word & bit != 0))
    }
}

/// Bits of one word: a key costs one look at memory.
fn places(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let word = (hash >> 40) as usize % WORDS;
    (0..BITS).map(move |n| (word, 1 << (hash >> (6 * n) & 63)))
}

/// Ranges of keys, first key and end; an empty end means no end.
#[derive(Default)]
pub(super) struct Ranges {
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Ranges {
    pub(super) fn add(&mut self, start: &[u8], end: &[u8]) {
        if !end.is_empty() && end <= start {
            return;
        }
        self.bytes += start.len() + end.len();
        self.ranges.push((start.to_vec(), end.to_vec()));
        if self.ranges.len() > RANGES || self.bytes > RANGE_BYTES {
            self.merge();
            // So much that this does not come again with the next range.
            while self.ranges.len() > 1
                && (self.ranges.len() > RANGES / 2 || self.bytes > RANGE_BYTES / 2)
            {
                self.join();
            }
        }
    }

    /// Joins ranges that overlap, so that a key is in one of them or in none.
    pub(super) fn merge(&mut self) {
        self.ranges.sort();
        let mut merged: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (start, end) in self.ranges.drain(..) {
            match merged.last_mut() {
                Some((_, last)) if last.is_empty() || *last >= start => {
                    if end.is_empty() || (!last.is_empty() && end > *last) {
                        *last = end;
                    }
                }
                _ => merged.push((start, end)),
            }
        }
        self.ranges = merged;
        self.count();
    }

    /// Joins neighbours with what is between them.
    fn join(&mut self) {
        let mut joined = Vec::with_capacity(self.ranges.len().div_ceil(2));
        let mut ranges = self.ranges.drain(..);
        while let Some((start, end)) = ranges.next() {
            let end = ranges.next().map_or(end, |(_, end)| end);
            joined.push((start, end));
        }
        drop(ranges);
        self.ranges = joined;
        self.count();
    }

    fn count(&mut self) {
        let bytes = self.ranges.iter().map(|(a, b)| a.len() + b.len());
        self.bytes = bytes.sum();
    }

    /// Whether a key is in one of the ranges, which must be merged.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        let after = self
            .ranges
            .partition_point(|(start, _)| start.as_slice() <= key);
        let range = after.checked_sub(1).and_then(|i| self.ranges.get(i));
        range.is_some_and(|(_, end)| end.is_empty() || key < end.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_was_added_is_there_and_few_others() {
        let mut points = Points::default();
        for n in 0..100_000u32 {
            assert!(points.add(&n.to_le_bytes()));
            assert!(!points.add(&n.to_le_bytes()));
        }
        assert!((0..100_000u32).all(|n| points.has(&n.to_le_bytes())));
        let others = (100_000..200_000u32).filter(|n| points.has(&n.to_le_bytes()));
        assert!(others.count() < 1000);
    }

    #[test]
    fn ranges_overlap_and_have_no_end() {
        let mut ranges = Ranges::default();
        for (start, end) in [("b", "d"), ("c", "e"), ("x", ""), ("g", "f"), ("y", "z")] {
            ranges.add(start.as_bytes(), end.as_bytes());
        }
        ranges.merge();
        assert_eq!(ranges.ranges.len(), 2);
        for (key, has) in [("a", false), ("b", true), ("d", true), ("e", false)] {
            assert_eq!(ranges.has(key.as_bytes()), has, "{key}");
        }
        assert!(ranges.has(b"zz") && !ranges.has(b"g"));
    }

    #[test]
    fn many_ranges_become_fewer_that_hold_them() {
        let mut ranges = Ranges::default();
        let key = |n: u32| format!("{:08}", n.wrapping_mul(7919) % 1_000_000 * 2).into_bytes();
        for n in 0..20_000 {
            let mut end = key(n);
            end.push(0);
            ranges.add(&key(n), &end);
        }
        assert!(ranges.ranges.len() <= RANGES);
        ranges.merge();
        assert!((0..20_000).all(|n| ranges.has(&key(n))));
    }
}
