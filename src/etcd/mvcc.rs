//! etcd's multi-version store: revision keys and the values under them.
//!
//! Key in the bucket `key` (etcd `server/storage/mvcc/revision.go`):
//!
//! | offset | type | field |
//! | --- | --- | --- |
//! | 0 | i64, big-endian | main revision |
//! | 8 | u8 | `_` |
//! | 9 | i64, big-endian | sub revision: position in the transaction, from 0 |
//! | 17 | u8 | only in a tombstone: `t` |
//!
//! Value: protobuf `mvccpb.KeyValue` (etcd `api/mvccpb/kv.proto`): key=1, create_revision=2,
//! mod_revision=3, version=4, value=5, lease=6; fields in this order, zero and empty ones left
//! out. A tombstone has the key only. An empty value is what `snapshot restore --bump-revision`
//! leaves at the revision that it raises the store to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::proto;
use super::proto::strict::WireFault;
use super::proto::varint::read_shortest;
use super::proto::{Field, Fields};

/// Bytes of a revision key without a tombstone's mark.
pub const REVISION_KEY: usize = 17;

/// A revision of the store: a transaction and a position in it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct KvRevision {
    /// The transaction; the first ever written is 2.
    pub main: i64,
    /// Position in it, from 0.
    pub sub: i64,
}

impl fmt::Display for KvRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.main, self.sub)
    }
}

/// A key of the bucket `key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevisionKey {
    /// The revision.
    pub revision: KvRevision,
    /// Whether it marks a deletion.
    pub tombstone: bool,
}

impl RevisionKey {
    /// Reads a revision key; `None` if the bytes are not one.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let (fixed, rest) = key.split_first_chunk::<REVISION_KEY>()?;
        let tombstone = match rest {
            [] => false,
            [b't'] => true,
            _ => return None,
        };
        let (main, rest) = fixed.split_first_chunk::<8>()?;
        let [b'_', sub @ ..] = rest else { return None };
        let (main, sub) = (i64::from_be_bytes(*main), sub.first_chunk::<8>()?);
        let sub = i64::from_be_bytes(*sub);
        (main >= 0 && sub >= 0).then_some(Self {
            revision: KvRevision { main, sub },
            tombstone,
        })
    }

    /// The bytes of the key.
    pub fn encode(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(REVISION_KEY + 1);
        key.extend_from_slice(&self.revision.main.to_be_bytes());
        key.push(b'_');
        key.extend_from_slice(&self.revision.sub.to_be_bytes());
        if self.tombstone {
            key.push(b't');
        }
        key
    }
}

/// The key of a transaction's first entry, which is also how a compaction names its revision.
pub fn revision_key(main: i64) -> Vec<u8> {
    RevisionKey {
        revision: KvRevision { main, sub: 0 },
        tombstone: false,
    }
    .encode()
}

/// One version of a user's key, borrowed from the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyValue<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// Revision at which this life of the key began.
    pub create_revision: i64,
    /// Revision of this version.
    pub mod_revision: i64,
    /// Puts since the key was created, this one included.
    pub version: i64,
    /// The user's value.
    pub value: &'a [u8],
    /// The lease it is attached to; 0 for none.
    pub lease: i64,
}

/// A field number that no etcd up to 3.7 writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownField(pub u32);

impl<'a> KeyValue<'a> {
    /// Reads a value as etcd writes it: fields ascending, each at most once, numbers in their
    /// shortest form and not zero. The first unknown field is reported, and the rest not read.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, Option<UnknownField>), WireFault> {
        match Self::decode_usual(bytes) {
            Some(kv) => Ok((kv, None)),
            None => Self::decode_fields(bytes),
        }
    }

    /// Reads a value with the five fields that nearly all have, and perhaps a lease. Millions are read, so that
    /// the general way counts; it also finds the words for what is wrong.
    fn decode_usual(bytes: &'a [u8]) -> Option<Self> {
        let (key, rest) = usual_bytes(1, bytes)?;
        let (create_revision, rest) = usual_number(2, rest)?;
        let (mod_revision, rest) = usual_number(3, rest)?;
        let (version, rest) = usual_number(4, rest)?;
        let (value, rest) = usual_bytes(5, rest)?;
        let (lease, rest) = match rest {
            [] => (0, rest),
            rest => usual_number(6, rest)?,
        };
        let positive = create_revision > 0 && mod_revision > 0 && version > 0;
        (positive && rest.is_empty()).then_some(Self {
            key,
            create_revision,
            mod_revision,
            version,
            value,
            lease,
        })
    }

    fn decode_fields(bytes: &'a [u8]) -> Result<(Self, Option<UnknownField>), WireFault> {
        let mut kv = Self::default();
        let mut before = 0;
        for field in Fields::strict(bytes) {
            let field = field?;
            let (number, at) = (field.number, field.offset);
            if number <= before {
                return Err(WireFault::new(at, "fields in ascending order, each once"));
            }
            before = number;
            match number {
                1 => kv.key = field.bytes()?,
                2 => kv.create_revision = positive(&field)?,
                3 => kv.mod_revision = positive(&field)?,
                4 => kv.version = positive(&field)?,
                5 => kv.value = field.bytes()?,
                6 => kv.lease = field.i64()?,
                _ => return Ok((kv, Some(UnknownField(number)))),
            }
        }
        Ok((kv, None))
    }

    /// The bytes as etcd writes them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.key.len() + self.value.len() + 48);
        put_bytes(&mut out, 1, self.key);
        put_int(&mut out, 2, self.create_revision);
        put_int(&mut out, 3, self.mod_revision);
        put_int(&mut out, 4, self.version);
        put_bytes(&mut out, 5, self.value);
        put_int(&mut out, 6, self.lease);
        out
    }
}

/// The number in a field that the bytes begin with, and what follows it.
#[inline]
fn usual_number(field: u8, bytes: &[u8]) -> Option<(i64, &[u8])> {
    let rest = bytes.strip_prefix(&[field << 3])?;
    let (value, len) = read_shortest(rest)?;
    Some((value.cast_signed(), rest.get(len..)?))
}

/// The same of a field of bytes.
#[inline]
fn usual_bytes(field: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[field << 3 | 2])?;
    let (len, head) = read_shortest(rest)?;
    rest.get(head..)?
        .split_at_checked(usize::try_from(len).ok()?)
}

fn positive(field: &Field<'_>) -> Result<i64, WireFault> {
    let value = field.i64()?;
    if value > 0 {
        Ok(value)
    } else {
        Err(WireFault::new(field.offset, "a number above 0"))
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        proto::put_bytes(out, field, bytes);
    }
}

fn put_int(out: &mut Vec<u8>, field: u32, value: i64) {
    if value != 0 {
        proto::put_u64(out, field, value.cast_unsigned());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[test]
    fn revision_keys_of_real_stores() {
        let plain = RevisionKey::parse(&key("00000000000000275f0000000000000001")).unwrap();
        assert_eq!(plain.revision, KvRevision { main: 39, sub: 1 });
        assert!(!plain.tombstone);
        let bytes = key("00000000000000235f000000000000000074");
        let tombstone = RevisionKey::parse(&bytes).unwrap();
        assert_eq!(tombstone.revision.to_string(), "35/0");
        assert!(tombstone.tombstone);
        assert_eq!(tombstone.encode(), bytes);
    }

    #[test]
    fn keys_that_are_not_revisions() {
        for bad in [
            "",
            "00000000000000275f00000000000000",
            "0000000000000027600000000000000001",
            "00000000000000275f000000000000000175",
            "00000000000000275f00000000000000017400",
            "80000000000000275f0000000000000001",
            "00000000000000275f8000000000000001",
        ] {
            assert_eq!(RevisionKey::parse(&key(bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_value_of_a_real_store() {
        let bytes = key("0a03666f6f1002180320022a0462617232");
        let (kv, unknown) = KeyValue::decode(&bytes).unwrap();
        let expected = KeyValue {
            key: b"foo",
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            value: b"bar2",
            lease: 0,
        };
        assert_eq!((kv, unknown), (expected, None));
        assert_eq!(kv.encode(), bytes);
    }

    #[test]
    fn values_that_etcd_does_not_write() {
        for (bad, why) in [
            ("0a04666f6f", "cut short"),
            ("0a03666f6f0a03666f6f", "the key twice"),
            ("1002", "the field's number is fine"),
            ("10021001", "a number twice"),
            ("18031002", "descending"),
            ("1000", "a zero"),
            ("10ffffffffffffffffff01", "a negative revision"),
            ("108200", "a number not in its shortest form"),
            ("0d00000000", "another wire type"),
            ("00", "field 0"),
            ("0a", "no length"),
            ("10ffffffffffffffffffff01", "eleven bytes"),
        ] {
            let refused = KeyValue::decode(&key(bad)).is_err();
            assert_eq!(refused, bad != "1002", "{bad}: {why}");
        }
        let bytes = key("0a016b3a0178");
        let (kv, unknown) = KeyValue::decode(&bytes).unwrap();
        assert_eq!((kv.key, unknown), (&b"k"[..], Some(UnknownField(7))));
    }

    /// Create and mod revision, version, lease.
    fn numbered<'a>(key: &'a [u8], value: &'a [u8], numbers: (i64, i64, i64, i64)) -> KeyValue<'a> {
        KeyValue {
            key,
            create_revision: numbers.0,
            mod_revision: numbers.1,
            version: numbers.2,
            value,
            lease: numbers.3,
        }
    }

    proptest! {
        #[test]
        fn values_read_back(
            key in proptest::collection::vec(any::<u8>(), 0..200),
            value in proptest::collection::vec(any::<u8>(), 0..200),
            numbers in (0..i64::MAX, 0..i64::MAX, 0..i64::MAX, any::<i64>()),
        ) {
            let kv = numbered(&key, &value, numbers);
            let bytes = kv.encode();
            prop_assert_eq!(KeyValue::decode(&bytes).unwrap(), (kv, None));
        }

        #[test]
        fn the_quick_way_reads_what_the_general_one_does(
            key in proptest::collection::vec(any::<u8>(), 0..200),
            value in proptest::collection::vec(any::<u8>(), 0..200),
            numbers in (-1..300i64, 1..i64::MAX, 0..3i64, any::<i64>()),
            damage in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
            cut in proptest::option::of(any::<proptest::sample::Index>()),
        ) {
            let kv = numbered(&key, &value, numbers);
            let mut bytes = kv.encode();
            if let (Some((at, byte)), false) = (damage, bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(at) = cut {
                bytes.truncate(at.index(bytes.len() + 1));
            }
            let whole = bytes == kv.encode();
            let usual = whole && kv.create_revision > 0 && kv.version > 0 && kv.lease >= 0;
            match KeyValue::decode_usual(&bytes) {
                Some(kv) => prop_assert_eq!(KeyValue::decode_fields(&bytes), Ok((kv, None))),
                None => prop_assert!(!usual || key.is_empty() || value.is_empty()),
            }
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = KeyValue::decode(&bytes);
            if let Some(parsed) = RevisionKey::parse(&bytes) {
                prop_assert_eq!(parsed.encode(), bytes);
            }
        }
    }
}
