//! Varints, which all readers here share: numbers in groups of seven bits, the lowest first, each
//! byte but the last with its high bit set.

/// Bytes of the longest varint: 64 bits in groups of seven.
const LONGEST: u32 = 10;

/// Why bytes are no varint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// They end before it does.
    Truncated,
    /// It has more than 64 bits.
    TooLong,
}

/// A varint of which some bytes may have come already.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Varint {
    value: u64,
    len: u32,
}

impl Varint {
    /// Takes the next byte; the value, if it was the last one.
    #[inline]
    pub(crate) fn push(&mut self, byte: u8) -> Result<Option<u64>, Broken> {
        // The tenth byte has room for one bit, and nothing may follow it.
        if self.len >= LONGEST || (self.len + 1 == LONGEST && byte > 1) {
            return Err(Broken::TooLong);
        }
        self.value |= u64::from(byte & 0x7f) << (7 * self.len);
        self.len += 1;
        Ok((byte < 0x80).then_some(self.value))
    }

    /// Whether no byte has come yet.
    pub(crate) fn is_new(&self) -> bool {
        self.len == 0
    }
}

/// Reads the varint that bytes begin with, and says how long it is.
#[inline]
pub(crate) fn read(bytes: &[u8]) -> Result<(u64, usize), Broken> {
    // Most numbers are tags and short lengths.
    if let Some(&first) = bytes.first()
        && first < 0x80
    {
        return Ok((u64::from(first), 1));
    }
    read_long(bytes)
}

fn read_long(bytes: &[u8]) -> Result<(u64, usize), Broken> {
    let mut varint = Varint::default();
    for (index, byte) in bytes.iter().enumerate() {
        if let Some(value) = varint.push(*byte)? {
            return Ok((value, index + 1));
        }
    }
    Err(Broken::Truncated)
}

/// As [`read`], but nothing for one that is longer than it need be, which etcd never writes.
#[inline]
pub(crate) fn read_shortest(bytes: &[u8]) -> Option<(u64, usize)> {
    let read = read(bytes).ok()?;
    is_shortest(read.0, read.1).then_some(read)
}

/// Whether a value needs a varint of this length.
#[inline]
pub(super) fn is_shortest(value: u64, len: usize) -> bool {
    // The last byte holds the highest bits: zero only if they were not needed.
    len == 1 || value >> (7 * (len - 1)) != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::put_varint;
    use super::*;

    #[test]
    fn each_reader_keeps_to_its_own_rules() {
        assert_eq!(read(&[0x80, 0x00]), Ok((0, 2)));
        assert_eq!(read_shortest(&[0x80, 0x00]), None);
        assert_eq!(read_shortest(&[0x00]), Some((0, 1)));
        assert_eq!(read(&[0xff; 9]), Err(Broken::Truncated));
        assert_eq!(read(&[]), Err(Broken::Truncated));
        let most = [&[0xff; 9][..], &[0x01]].concat();
        assert_eq!(read_shortest(&most), Some((u64::MAX, 10)));
        for last in [0x02, 0x80, 0x81] {
            let long = [&[0xff; 9][..], &[last, 0x00]].concat();
            assert_eq!(read(&long), Err(Broken::TooLong), "{last:x}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(value in any::<u64>(), more in any::<u8>()) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let len = bytes.len();
            bytes.push(more);
            prop_assert_eq!(read(&bytes), Ok((value, len)));
            prop_assert_eq!(read_shortest(&bytes), Some((value, len)));
        }
    }
}
