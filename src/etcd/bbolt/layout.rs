//! The fixed structures of a bbolt file, as bytes. All integers are little-endian here; bbolt
//! writes the machine's own order, so a file from a big-endian machine is recognised by its magic.
//!
//! Page header, at `pgid · page size` (bbolt `internal/common/page.go`):
//!
//! | offset | type | field |
//! | --- | --- | --- |
//! | 0 | u64 | id, equal to the page number; 0 in an inline page |
//! | 8 | u16 | flags: 0x01 branch, 0x02 leaf, 0x04 meta, 0x10 freelist; exactly one |
//! | 10 | u16 | count of elements |
//! | 12 | u32 | overflow: how many more pages this one spans |
//!
//! Element `i` of a branch or leaf page, at page offset `16 + 16·i`; `pos` counts from the
//! element's own first byte:
//!
//! | branch | | leaf | |
//! | --- | --- | --- | --- |
//! | 0 | u32 pos | 0 | u32 flags: bit 0 = the value is a bucket |
//! | 4 | u32 key size | 4 | u32 pos |
//! | 8 | u64 child page | 8 | u32 key size |
//! | | | 12 | u32 value size; the value follows the key |
//!
//! Meta, after the page header of pages 0 and 1 (bbolt `internal/common/meta.go`):
//!
//! | offset in page | type | field |
//! | --- | --- | --- |
//! | 16 | u32 | magic 0xED0CDAED |
//! | 20 | u32 | version 2 |
//! | 24 | u32 | page size |
//! | 28 | u32 | flags 0 |
//! | 32 | u64 | root bucket's page |
//! | 40 | u64 | root bucket's sequence |
//! | 48 | u64 | freelist's page, all ones: not stored |
//! | 56 | u64 | high-water mark: the first page never allocated |
//! | 64 | u64 | transaction id |
//! | 72 | u64 | FNV-1a 64 of page bytes 16..72 |

/// Bytes of a page header.
pub const PAGE_HEADER: usize = 16;
/// Bytes of a branch or leaf element.
pub const ELEMENT: usize = 16;
/// Bytes of a bucket header: root page and sequence, both u64.
pub const BUCKET_HEADER: usize = 16;
/// Bytes of a meta page that mean something.
pub const META_PAGE: usize = 80;
/// First word of a meta.
pub const MAGIC: u32 = 0xED0C_DAED;
/// The only version there is.
pub const VERSION: u32 = 2;
/// The freelist's page number when none is stored.
pub const NO_FREELIST: u64 = u64::MAX;
/// Page flag: branch.
pub const BRANCH: u16 = 0x01;
/// Page flag: leaf.
pub const LEAF: u16 = 0x02;
/// Page flag: meta.
pub const META: u16 = 0x04;
/// Page flag: freelist.
pub const FREELIST: u16 = 0x10;
/// Leaf element flag: the value is a bucket.
pub const BUCKET_LEAF: u32 = 0x01;
/// bbolt's longest key.
pub const MAX_KEY: usize = 32_768;
/// bbolt's longest value.
pub const MAX_VALUE: usize = (1 << 31) - 2;
/// The smallest page size that bbolt looks for.
pub const MIN_PAGE_SIZE: u32 = 1024;
/// How many page sizes, each twice the one before, bbolt looks for.
pub const PAGE_SIZES: u32 = 15;

/// The fixed-size array at `at`, if the bytes reach that far.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// A page's first 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// The number the page says it has.
    pub id: u64,
    /// One of [`BRANCH`], [`LEAF`], [`META`], [`FREELIST`].
    pub flags: u16,
    /// Elements in it.
    pub count: u16,
    /// Further pages it spans.
    pub overflow: u32,
}

impl PageHeader {
    /// Reads the header at the start of a page; nothing if there are fewer than 16 bytes.
    pub fn parse(page: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(page, 0)?,
            flags: u16::from_le_bytes(array(page, 8)?),
            count: u16::from_le_bytes(array(page, 10)?),
            overflow: u32_at(page, 12)?,
        })
    }

    /// What the flags say the page is.
    pub fn kind(&self) -> &'static str {
        match self.flags {
            BRANCH => "a branch page",
            LEAF => "a leaf page",
            META => "a meta page",
            FREELIST => "a freelist page",
            _ => "a page of no known type",
        }
    }
}

/// Whether a number is a page size that bbolt can have written.
pub fn is_page_size(size: u32) -> bool {
    (0..PAGE_SIZES).any(|shift| size == MIN_PAGE_SIZE << shift)
}

/// FNV-1a, 64 bits.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn page_sizes() {
        assert!(is_page_size(1024) && is_page_size(4096) && is_page_size(1024 << 14));
        assert!(!is_page_size(512) && !is_page_size(4097) && !is_page_size(1024 << 15));
        assert!(!is_page_size(0));
    }
}
