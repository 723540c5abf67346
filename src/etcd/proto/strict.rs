//! Protobuf's wire form read in place, as strictly as etcd writes it.
//!
//! A field is a tag (`number << 3 | type`, a varint) and a value: type 0 a varint, type 2 a length
//! and bytes; etcd's messages in the database use no other. Numbers are written in their shortest
//! form, so that a longer one is damage. See "Encoding" in the Protocol Buffers documentation.
//!
//! [`proto`](super) reads the raft log's messages as raft itself does, which takes any
//! well-formed message; here a check wants to notice what etcd would never have written.

use std::fmt;

use super::varint;

/// What is wrong with a message, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireFault {
    /// Byte offset in the message.
    pub at: usize,
    /// What should stand there.
    pub expected: &'static str,
}

impl WireFault {
    pub(crate) fn new(at: usize, expected: &'static str) -> Self {
        Self { at, expected }
    }
}

impl fmt::Display for WireFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: expected {}", self.at, self.expected)
    }
}

impl std::error::Error for WireFault {}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
    /// Offset of its tag.
    pub(crate) at: usize,
}

impl<'a> Field<'a> {
    pub(crate) fn bytes(&self) -> Result<&'a [u8], WireFault> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) => Err(WireFault::new(self.at, "a field of bytes")),
        }
    }

    pub(crate) fn uint64(&self) -> Result<u64, WireFault> {
        match self.value {
            Value::Varint(value) => Ok(value),
            Value::Bytes(_) => Err(WireFault::new(self.at, "a field with a number")),
        }
    }

    pub(crate) fn int64(&self) -> Result<i64, WireFault> {
        self.uint64().map(u64::cast_signed)
    }
}

/// The fields of a message, one after the other.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next field, or nothing at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, WireFault> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let at = self.at;
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).unwrap_or(0);
        if number == 0 {
            return Err(WireFault::new(at, "a field number"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            2 => {
                let len_at = self.at;
                let len = usize::try_from(self.varint()?).ok();
                let end = len.and_then(|len| self.at.checked_add(len));
                let bytes = end
                    .and_then(|end| self.bytes.get(self.at..end))
                    .ok_or(WireFault::new(len_at, "a length within the message"))?;
                self.at += bytes.len();
                Value::Bytes(bytes)
            }
            _ => return Err(WireFault::new(at, "wire type 0 or 2")),
        };
        Ok(Some(Field { number, value, at }))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireFault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (value, len) = varint::read_shortest(rest).ok_or(WireFault::new(
            self.at,
            "a number of at most 64 bits in its shortest form",
        ))?;
        self.at += len;
        Ok(value)
    }
}
