//! What a message in the database has to be: as etcd writes it, and not only well-formed.
//!
//! A field is a tag (`number << 3 | type`, a varint) and a value: type 0 a varint, type 2 a length
//! and bytes; etcd's messages in the database use no other. Numbers are written in their shortest
//! form, so that a longer one is damage. See "Encoding" in the Protocol Buffers documentation.
//!
//! [`Fields::strict`](super::Fields::strict) reads by these rules. [`Fields::new`](super::Fields::new)
//! reads the raft log's messages as raft itself does, which takes any well-formed message.

use std::fmt;

use super::{Fault, WireError};

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

impl From<WireError> for WireFault {
    fn from(error: WireError) -> Self {
        let expected = match error.fault {
            Fault::Truncated | Fault::LongVarint | Fault::PaddedVarint => {
                "a number of at most 64 bits in its shortest form"
            }
            Fault::LengthBeyondEnd { .. } => "a length within the message",
            Fault::FieldNumber => "a field number",
            Fault::WireType(_) => "wire type 0 or 2",
            Fault::FieldType { found: 2, .. } => "a field with a number",
            Fault::FieldType { .. } => "a field of bytes",
            Fault::TooMany { .. } | Fault::Text { .. } => "a field as etcd writes it",
        };
        Self::new(error.offset, expected)
    }
}
