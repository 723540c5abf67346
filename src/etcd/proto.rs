//! The few protobuf messages that etcd keeps on disk: decoded from hostile bytes, encoded byte for
//! byte as etcd 3.5 and 3.6 do.
//!
//! The encoding is protobuf's wire format (<https://protobuf.dev/programming-guides/encoding/>):
//! a field is a varint key (`number << 3 | wire type`) and a value; unknown fields are skipped; of
//! a repeated scalar field the last one counts. etcd's gogo-generated code differs from most
//! encoders in one habit that byte-exact output depends on: proto2 scalars are written even when
//! they are zero.
//!
//! [`raft`] has what the raft log consists of (`raft.proto` of go.etcd.io/raft), [`wal`] the WAL's
//! envelope (`record.proto` of etcd's `walpb`), [`request`] what an entry asks the server to do
//! (`raft_internal.proto` of `etcdserverpb`), [`kv`] what the requests of the key-value store say.

use std::fmt;

pub mod kv;
pub mod raft;
pub mod request;
pub mod strict;
pub(crate) mod varint;
pub mod wal;

use self::varint::Broken;

/// Values kept of a repeated field: many times what a cluster has members, so that a hostile file
/// cannot turn every byte into eight.
const REPEATED_MAX: usize = 4096;
/// How deep groups (a deprecated wire type, never written by etcd) may nest in a skipped field.
const GROUPS_MAX: u32 = 64;

/// Why bytes are not the message they should be, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireError {
    /// Bytes from the start of the outermost message.
    pub offset: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The message ends inside a field.
    Truncated,
    /// A varint of more than 64 bits.
    LongVarint,
    /// A varint that is not in its shortest form, where etcd would have written that.
    PaddedVarint,
    /// A field whose declared length exceeds what is left.
    LengthBeyondEnd {
        /// The length that is claimed.
        claimed: u64,
        /// The bytes that are left.
        left: usize,
    },
    /// A field number of zero or beyond 2²⁹−1.
    FieldNumber,
    /// A wire type that does not exist, or an end of a group that was not begun.
    WireType(u8),
    /// A known field with another wire type than its own.
    FieldType {
        /// The field's number.
        field: u32,
        /// The wire type that was found.
        found: u8,
    },
    /// A repeated field with more values than any cluster has members.
    TooMany {
        /// The field's number.
        field: u32,
    },
    /// Text that is not UTF-8.
    Text {
        /// The field's number.
        field: u32,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {} of the message: ", self.offset)?;
        match self.fault {
            Fault::Truncated => write!(f, "it ends inside a field"),
            Fault::LongVarint => write!(f, "a varint of more than 64 bits"),
            Fault::PaddedVarint => write!(f, "a varint that is not in its shortest form"),
            Fault::LengthBeyondEnd { claimed, left } => {
                write!(f, "a field of {claimed} bytes where {left} are left")
            }
            Fault::FieldNumber => write!(f, "an impossible field number"),
            Fault::WireType(found) => write!(f, "an impossible wire type {found}"),
            Fault::FieldType { field, found } => {
                write!(f, "field {field} with wire type {found}")
            }
            Fault::TooMany { field } => write!(f, "field {field} has too many values"),
            Fault::Text { field } => write!(f, "field {field} is not UTF-8"),
        }
    }
}

impl std::error::Error for WireError {}

/// The value of one field, borrowed from the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire types 3 and 4: a group, which is skipped whole.
    Group,
    /// Wire type 5.
    Fixed32(u32),
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field's number.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
    /// Bytes from the start of the outermost message to the field's key.
    pub offset: usize,
    /// Where the value of a length-delimited field starts, counted likewise.
    body: usize,
}

impl<'a> Field<'a> {
    fn mismatch(&self) -> WireError {
        let found = match self.value {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Group => 3,
            Value::Fixed32(_) => 5,
        };
        WireError {
            offset: self.offset,
            fault: Fault::FieldType {
                field: self.number,
                found,
            },
        }
    }

    /// The value of a 64-bit varint field.
    pub fn u64(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(self.mismatch()),
        }
    }

    /// The value of a 32-bit varint field; higher bits are dropped, as the encoding's rules say.
    pub fn u32(&self) -> Result<u32, WireError> {
        self.u64().map(|value| value as u32)
    }

    /// The value of an enum field; higher bits are dropped, as the encoding's rules say.
    pub fn i32(&self) -> Result<i32, WireError> {
        self.u64().map(|value| value as i32)
    }

    /// The value of a signed 64-bit varint field (two's complement, not zigzag).
    pub fn i64(&self) -> Result<i64, WireError> {
        self.u64().map(|value| value as i64)
    }

    /// The value of a bool field.
    pub fn bool(&self) -> Result<bool, WireError> {
        self.u64().map(|value| value != 0)
    }

    /// The value of a bytes field.
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(value) => Ok(value),
            _ => Err(self.mismatch()),
        }
    }

    /// The value of a string field.
    pub fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError {
            offset: self.offset,
            fault: Fault::Text { field: self.number },
        })
    }

    /// The fields of a message field; their offsets count from the outermost message.
    pub fn message(&self) -> Result<Fields<'a>, WireError> {
        Ok(Fields {
            rest: self.bytes()?,
            offset: self.body,
        })
    }

    /// Appends the values of a repeated varint field, packed or not.
    pub fn push_u64s(&self, values: &mut Vec<u64>) -> Result<(), WireError> {
        match self.value {
            Value::Varint(value) => self.push(values, value)?,
            Value::Bytes(_) => {
                let mut packed = self.message()?;
                while !packed.rest.is_empty() {
                    self.push(values, packed.varint()?)?;
                }
            }
            _ => return Err(self.mismatch()),
        }
        Ok(())
    }

    /// Appends a value of this repeated field, of which there may not be too many.
    fn push<T>(&self, values: &mut Vec<T>, value: T) -> Result<(), WireError> {
        if values.len() >= REPEATED_MAX {
            return Err(WireError {
                offset: self.offset,
                fault: Fault::TooMany { field: self.number },
            });
        }
        values.push(value);
        Ok(())
    }
}

/// The fields of a message, in their order; ends after the first error. Unless it is `STRICT`, any
/// well-formed message is read; if it is, only numbers and bytes as etcd writes them (see [`strict`]).
#[derive(Debug, Clone)]
pub struct Fields<'a, const STRICT: bool = false> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Fields<'a> {
    /// The fields of a whole message.
    pub fn new(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            offset: 0,
        }
    }
}

impl<'a> Fields<'a, true> {
    /// The fields of a whole message, as etcd writes it.
    pub fn strict(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            offset: 0,
        }
    }
}

impl<'a, const STRICT: bool> Fields<'a, STRICT> {
    fn fault(&self, fault: Fault) -> WireError {
        WireError {
            offset: self.offset,
            fault,
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(self.fault(Fault::Truncated))?;
        self.rest = rest;
        self.offset = self.offset.saturating_add(count);
        Ok(taken)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        let (value, len) = varint::read(self.rest).map_err(|broken| {
            self.fault(match broken {
                Broken::Truncated => Fault::Truncated,
                Broken::TooLong => Fault::LongVarint,
            })
        })?;
        if STRICT && !varint::is_shortest(value, len) {
            return Err(self.fault(Fault::PaddedVarint));
        }
        self.take(len)?;
        Ok(value)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let place = self.fault(Fault::Truncated);
        self.take(N)?.try_into().map_err(|_| place)
    }

    fn key(&mut self) -> Result<(u32, u8), WireError> {
        let place = self.fault(Fault::FieldNumber);
        let key = self.varint()?;
        match u32::try_from(key >> 3) {
            Ok(number @ 1..=0x1fff_ffff) => Ok((number, (key & 7) as u8)),
            _ => Err(place),
        }
    }

    fn length_delimited(&mut self) -> Result<&'a [u8], WireError> {
        let place = self.offset;
        let claimed = self.varint()?;
        let left = self.rest.len();
        match usize::try_from(claimed) {
            Ok(length) if length <= left => self.take(length),
            _ => Err(WireError {
                offset: place,
                fault: Fault::LengthBeyondEnd { claimed, left },
            }),
        }
    }

    fn skip_group(&mut self) -> Result<(), WireError> {
        let mut depth = 1u32;
        while depth > 0 {
            let place = self.offset;
            let (_, wire_type) = self.key()?;
            match wire_type {
                0 => drop(self.varint()?),
                1 => drop(self.take(8)?),
                2 => drop(self.length_delimited()?),
                3 if depth < GROUPS_MAX => depth += 1,
                4 => depth -= 1,
                5 => drop(self.take(4)?),
                other => {
                    return Err(WireError {
                        offset: place,
                        fault: Fault::WireType(other),
                    });
                }
            }
        }
        Ok(())
    }

    fn field(&mut self) -> Result<Field<'a>, WireError> {
        let offset = self.offset;
        let (number, wire_type) = self.key()?;
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            2 => Value::Bytes(self.length_delimited()?),
            other if STRICT => {
                return Err(WireError {
                    offset,
                    fault: Fault::WireType(other),
                });
            }
            1 => Value::Fixed64(u64::from_le_bytes(self.fixed()?)),
            3 => {
                self.skip_group()?;
                Value::Group
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.fixed()?)),
            other => {
                return Err(WireError {
                    offset,
                    fault: Fault::WireType(other),
                });
            }
        };
        let length = match value {
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        Ok(Field {
            number,
            value,
            offset,
            body: self.offset.saturating_sub(length),
        })
    }
}

impl<'a, const STRICT: bool> Iterator for Fields<'a, STRICT> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        // Where the next field would begin is not known.
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint field, whatever its value.
pub fn put_u64(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, value);
}

/// Appends a length-delimited field, whatever its length.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_bytes_head(out, field, value.len());
    out.extend_from_slice(value);
}

/// Appends the key and the length of a length-delimited field.
pub fn put_bytes_head(out: &mut Vec<u8>, field: u32, length: usize) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, length as u64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Field<'_>>, WireError> {
        Fields::new(bytes).collect()
    }

    #[test]
    fn varints_keep_64_bits_and_no_more() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_u64(&mut bytes, 1, value);
            assert_eq!(all(&bytes).unwrap()[0].u64(), Ok(value));
        }
        let long = [&[0x08][..], &[0xff; 9][..], &[0x02][..]].concat();
        assert_eq!(all(&long).unwrap_err().fault, Fault::LongVarint);
        assert_eq!(all(&[0x08, 0x80]).unwrap_err().fault, Fault::Truncated);
    }

    #[test]
    fn errors_name_the_place_in_the_outermost_message() {
        // Field 3 holds a message whose field 1 claims nine bytes of the one that is left.
        let bytes = [0x10, 0x05, 0x1a, 0x03, 0x0a, 0x09, 0x00];
        let outer = all(&bytes).unwrap();
        let inner: Result<Vec<_>, _> = outer[1].message().unwrap().collect();
        assert_eq!(
            inner.unwrap_err(),
            WireError {
                offset: 5,
                fault: Fault::LengthBeyondEnd {
                    claimed: 9,
                    left: 1
                }
            }
        );
        assert_eq!(
            outer[0].bytes().unwrap_err(),
            WireError {
                offset: 0,
                fault: Fault::FieldType { field: 2, found: 0 }
            }
        );
    }

    #[test]
    fn groups_are_skipped_and_bounded() {
        let nested = [0x0b, 0x13, 0x08, 0x01, 0x14, 0x0c, 0x10, 0x07];
        let fields = all(&nested).unwrap();
        assert_eq!(fields[0].value, Value::Group);
        assert_eq!(fields[1].u64(), Ok(7));
        assert_eq!(all(&[0x0c]).unwrap_err().fault, Fault::WireType(4));
        assert_eq!(all(&[0x0b; 4096]).unwrap_err().fault, Fault::WireType(3));
        assert_eq!(all(&[0x00, 0x00]).unwrap_err().fault, Fault::FieldNumber);
    }

    #[test]
    fn packed_and_single_varints_read_alike() {
        let mut values = Vec::new();
        for field in all(&[0x08, 0x01, 0x0a, 0x02, 0x02, 0x03]).unwrap() {
            field.push_u64s(&mut values).unwrap();
        }
        assert_eq!(values, [1, 2, 3]);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for field in Fields::new(&bytes).flatten() {
                let _ = (field.u64(), field.text(), field.push_u64s(&mut Vec::new()));
                if let Ok(inner) = field.message() {
                    inner.for_each(drop);
                }
            }
            let _ = raft::Entry::decode(&bytes);
            let _ = raft::ConfChange::decode(&bytes);
            let _ = raft::ConfChangeV2::decode(&bytes);
            let _ = raft::HardState::decode(&bytes);
            let _ = raft::Snapshot::decode(&bytes);
            let _ = wal::Record::decode(&bytes);
            let _ = wal::Metadata::decode(&bytes);
            let _ = wal::SnapshotMark::decode(&bytes);
            let _ = request::Request::decode(&bytes);
            let _ = kv::Txn::decode(Fields::new(&bytes));
        }
    }
}
