//! The frame of a record: its size, the padding, and what a torn write leaves of it.

/// Bytes of a frame's size field.
pub(super) const HEADER: u64 = 8;
/// Frames start and end at multiples of this, so that a size is never torn.
const ALIGNMENT: u64 = 8;
/// Where in the top byte of the size stands that there is padding.
const PADDED: u64 = 0x80;
/// The least that a disk writes at once.
const SECTOR: u64 = 512;

/// What a frame's first eight bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes of the record.
    pub(super) record: u64,
    /// Bytes of padding after it.
    pub(super) pad: u64,
}

impl Size {
    /// The size of a frame for a record.
    pub(super) fn of(record: u64) -> Self {
        let pad = (ALIGNMENT - record % ALIGNMENT) % ALIGNMENT;
        Self { record, pad }
    }

    /// Reads the field as etcd does, who ignores the bits it does not use.
    pub(super) fn decode(field: u64) -> Self {
        let top = field >> 56;
        Self {
            record: field & (u64::MAX >> 8),
            pad: if top & PADDED != 0 { top & 7 } else { 0 },
        }
    }

    /// The field as etcd writes it.
    pub(super) fn encode(self) -> u64 {
        match self.pad {
            0 => self.record,
            pad => self.record | (PADDED | pad) << 56,
        }
    }

    /// Bytes after the size field.
    pub(super) fn body(self) -> u64 {
        self.record.saturating_add(self.pad)
    }
}

/// Whether a frame's body, which starts at `offset` in its file, was torn in writing: one of the
/// sectors it is in holds only zeros of it.
pub(super) fn is_torn(body: &[u8], offset: u64) -> bool {
    // As `isTornEntry` decides (etcd, server/storage/wal/decoder.go): a segment is preallocated
    // with zeros, and a crash leaves whole sectors of them.
    let first = (SECTOR - offset % SECTOR) as usize;
    let (head, rest) = body.split_at_checked(first).unwrap_or((body, &[]));
    let mut sectors = std::iter::once(head)
        .chain(rest.chunks(SECTOR as usize))
        .filter(|sector| !sector.is_empty());
    sectors.any(|sector| sector.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_etcd() {
        assert_eq!(
            Size::of(4).encode().to_le_bytes(),
            [4, 0, 0, 0, 0, 0, 0, 0x84]
        );
        assert_eq!(Size::of(32).encode(), 32);
        for record in [0, 1, 7, 8, 14, 29, RECORD] {
            let size = Size::of(record);
            assert_eq!(Size::decode(size.encode()), size);
            assert_eq!(size.body() % 8, 0);
        }
    }

    const RECORD: u64 = (1 << 56) - 1;

    #[test]
    fn a_torn_write_is_a_sector_of_zeros() {
        assert!(!is_torn(&[], 0));
        assert!(is_torn(&[0; 8], 504));
        assert!(!is_torn(&[1; 8], 504));
        // The body spans 16 bytes of one sector, a whole one and 8 bytes of a third.
        let mut body = vec![1; 536];
        assert!(!is_torn(&body, 496));
        body[16..528].fill(0);
        assert!(is_torn(&body, 496));
        assert!(!is_torn(&body, 488));
    }
}
