//! A set of page numbers that takes memory only where pages are in it.

/// Words of a chunk: 4 KiB, 32768 pages.
const WORDS: usize = 512;
const PAGES: u64 = WORDS as u64 * 64;

/// A bitmap in chunks, so that a sparse file that claims many pages costs little.
#[derive(Debug, Default, Clone)]
pub(crate) struct PageSet {
    chunks: Vec<Option<Box<[u64; WORDS]>>>,
    len: u64,
}

impl PageSet {
    /// Adds a page; says whether it was absent.
    pub(crate) fn insert(&mut self, page: u64) -> bool {
        let chunk = (page / PAGES) as usize;
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let Some(slot) = self.chunks.get_mut(chunk) else {
            return false;
        };
        let words = slot.get_or_insert_with(|| Box::new([0; WORDS]));
        let Some(word) = words.get_mut((page % PAGES / 64) as usize) else {
            return false;
        };
        let bit = 1 << (page % 64);
        let absent = *word & bit == 0;
        *word |= bit;
        self.len += u64::from(absent);
        absent
    }

    pub(crate) fn contains(&self, page: u64) -> bool {
        self.chunks
            .get((page / PAGES) as usize)
            .and_then(Option::as_ref)
            .and_then(|words| words.get((page % PAGES / 64) as usize))
            .is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_remembered_across_chunks() {
        let mut set = PageSet::default();
        for page in [0, 1, 63, 64, 32_767, 32_768, 10_000_000] {
            assert!(!set.contains(page));
            assert!(set.insert(page));
            assert!(!set.insert(page));
            assert!(set.contains(page));
        }
        assert_eq!(set.len(), 7);
        assert!(!set.contains(2));
    }
}
