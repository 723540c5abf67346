//! How a leaf of the bucket `key` is remembered: in as few bytes as its entries can be told apart by.
//!
//! Varints unless said otherwise: overflow, count of entries, bytes of their keys and values, CRC-32C of
//! them (u32), the main revision of the newest; then the entries, newest first. An entry is a u64 whose
//! high 58 bits are its fingerprint and whose low bits say what follows:
//!
//! | bit | if set | otherwise follow |
//! | --- | --- | --- |
//! | 0 | main revision one below the entry before, sub revision 0 | how far below it, sub revision |
//! | 1 | a tombstone, without bit 2 | |
//! | 2 | version 1, no lease | how far before its main revision it was created, version, lease, unless it is a tombstone |
//! | 3 | prefix and length of the key as the entry before | both |
//! | 4 | length of the value as the entry before | the length |
//! | 5 | bytes stored as etcd writes such an entry | the bytes |
//!
//! Fixed numbers are little-endian.

use prost::encoding::encoded_len_varint;

use super::batch::{Batch, KeyEntry, LeafHead};
use super::record::Act;
use super::table::Fingerprint;
use crate::etcd::bbolt::ShortKey;
use crate::etcd::crc::CrcSpan;
use crate::etcd::mvcc::{KvRevision, REVISION_KEY, RevisionKey};
use crate::etcd::proto::{put_varint, varint};

const NEXT: u64 = 1;
const TOMBSTONE: u64 = 1 << 1;
const FRESH: u64 = 1 << 2;
const SAME_KEY: u64 = 1 << 3;
const SAME_VALUE: u64 = 1 << 4;
const AS_WRITTEN: u64 = 1 << 5;
const FLAGS: u32 = 6;

// Both fit into one word.
const _: () = assert!(Fingerprint::BITS + FLAGS == u64::BITS);

/// A leaf, decoded into a [`Batch`].
pub(super) struct KnownLeaf {
    pub(super) overflow: u32,
    pub(super) first: ShortKey,
    pub(super) last: ShortKey,
}

/// What an entry may share with the one before.
#[derive(Clone, Copy, Default)]
struct Before {
    main: i64,
    prefix: u32,
    key_len: u32,
    value_len: u64,
}

impl Before {
    fn of(entry: &KeyEntry) -> Self {
        Self {
            main: entry.revision.main,
            prefix: entry.prefix,
            key_len: entry.key_len,
            value_len: entry.value_len,
        }
    }

    /// What the first entry is held against.
    fn newest(main: i64) -> Self {
        Self {
            main: main.wrapping_add(1),
            ..Self::default()
        }
    }
}

/// Adds a leaf. `leaf.bytes` is the length of what `leaf.all` is the CRC of.
pub(super) fn encode(out: &mut Vec<u8>, overflow: u32, leaf: &LeafHead, entries: &[KeyEntry]) {
    let newest = entries.first().map_or(0, |entry| entry.revision.main);
    put_varint(out, u64::from(overflow));
    put_varint(out, entries.len() as u64);
    put_varint(out, leaf.bytes);
    out.extend_from_slice(&leaf.all.crc().to_le_bytes());
    put_varint(out, newest.cast_unsigned());
    let mut before = Before::newest(newest);
    for entry in entries {
        encode_entry(out, entry, before);
        before = Before::of(entry);
    }
}

fn encode_entry(out: &mut Vec<u8>, entry: &KeyEntry, before: Before) {
    // Numbers may be hostile. Wrapping there and back gives each of them again, whatever it is.
    let below = before.main.wrapping_sub(entry.revision.main);
    let flag = |set: bool, flag: u64| if set { flag } else { 0 };
    // A bump is never remembered, see `stream`.
    let fresh = matches!(entry.act, Act::Put { create, version: 1, lease: 0 } if create == entry.revision.main);
    let flags = flag(below == 1 && entry.revision.sub == 0, NEXT)
        | flag(matches!(entry.act, Act::Delete | Act::Bump), TOMBSTONE)
        | flag(fresh, FRESH)
        | flag(
            (entry.prefix, entry.key_len) == (before.prefix, before.key_len),
            SAME_KEY,
        )
        | flag(entry.value_len == before.value_len, SAME_VALUE)
        | flag(entry.stored == as_written(entry), AS_WRITTEN);
    let word = entry.fingerprint.bits() << FLAGS | flags;
    out.extend_from_slice(&word.to_le_bytes());
    if flags & NEXT == 0 {
        put_varint(out, below.cast_unsigned());
        put_varint(out, entry.revision.sub.cast_unsigned());
    }
    if let (
        Act::Put {
            create,
            version,
            lease,
        },
        false,
    ) = (entry.act, fresh)
    {
        put_varint(
            out,
            entry.revision.main.wrapping_sub(create).cast_unsigned(),
        );
        put_varint(out, version.cast_unsigned());
        put_varint(out, lease.cast_unsigned());
    }
    if flags & SAME_KEY == 0 {
        put_varint(out, u64::from(entry.prefix));
        put_varint(out, u64::from(entry.key_len));
    }
    if flags & SAME_VALUE == 0 {
        put_varint(out, entry.value_len);
    }
    if flags & AS_WRITTEN == 0 {
        put_varint(out, entry.stored);
    }
}

/// Bytes of an entry's key and value as etcd writes them: [`crate::etcd::mvcc`] has the format.
fn as_written(entry: &KeyEntry) -> u64 {
    let number = |value: i64| match value.cast_unsigned() {
        0 => 0,
        value => 1 + encoded_len_varint(value) as u64,
    };
    let bytes = |len: u64| match len {
        0 => 0,
        len => 1 + encoded_len_varint(len) as u64 + len,
    };
    let user = bytes(u64::from(entry.key_len)) + bytes(entry.value_len);
    match entry.act {
        Act::Put {
            create,
            version,
            lease,
        } => {
            let numbers = [create, entry.revision.main, version, lease];
            REVISION_KEY as u64 + user + numbers.map(number).iter().sum::<u64>()
        }
        Act::Delete | Act::Bump => REVISION_KEY as u64 + 1 + user,
    }
}

/// Reads what [`encode`] wrote.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn number(&mut self) -> Option<u64> {
        let (value, len) = varint::read(self.0).ok()?;
        self.0 = self.0.get(len..)?;
        Some(value)
    }

    fn small(&mut self) -> Option<u32> {
        self.number().and_then(|number| u32::try_from(number).ok())
    }

    fn signed(&mut self) -> Option<i64> {
        self.number().map(u64::cast_signed)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (fixed, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*fixed)
    }

    fn entry(&mut self, before: Before) -> Option<KeyEntry> {
        let word = u64::from_le_bytes(self.fixed()?);
        let has = |flag: u64| word & flag != 0;
        let revision = if has(NEXT) {
            KvRevision {
                main: before.main.wrapping_sub(1),
                sub: 0,
            }
        } else {
            KvRevision {
                main: before.main.wrapping_sub(self.signed()?),
                sub: self.signed()?,
            }
        };
        let act = if has(TOMBSTONE) {
            Act::Delete
        } else if has(FRESH) {
            Act::Put {
                create: revision.main,
                version: 1,
                lease: 0,
            }
        } else {
            Act::Put {
                create: revision.main.wrapping_sub(self.signed()?),
                version: self.signed()?,
                lease: self.signed()?,
            }
        };
        let (prefix, key_len) = if has(SAME_KEY) {
            (before.prefix, before.key_len)
        } else {
            (self.small()?, self.small()?)
        };
        let value_len = if has(SAME_VALUE) {
            before.value_len
        } else {
            self.number()?
        };
        let mut entry = KeyEntry {
            revision,
            act,
            fingerprint: Fingerprint::from_bits(word >> FLAGS),
            prefix,
            key_len,
            value_len,
            stored: 0,
        };
        entry.stored = if has(AS_WRITTEN) {
            as_written(&entry)
        } else {
            self.number()?
        };
        Some(entry)
    }
}

/// Adds the leaf to a batch; `None` if the bytes are not those of [`encode`].
pub(super) fn decode(content: &[u8], page: u64, batch: &mut Batch) -> Option<KnownLeaf> {
    let mut input = Input(content);
    let overflow = input.small()?;
    let count = usize::try_from(input.number()?).ok()?;
    let bytes = input.number()?;
    let crc = u32::from_le_bytes(input.fixed()?);
    let begin = batch.entries.len();
    let mut before = Before::newest(input.signed()?);
    for _ in 0..count {
        let entry = input.entry(before)?;
        before = Before::of(&entry);
        batch.entries.push(entry);
    }
    batch.leaves.push(LeafHead {
        page,
        is_page: true,
        entries: count,
        bytes,
        all: CrcSpan::new(crc, bytes),
    });
    let stored = |entry: &KeyEntry| {
        let key = RevisionKey {
            revision: entry.revision,
            tombstone: entry.act == Act::Delete,
        };
        ShortKey::of(&key.encode())
    };
    Some(KnownLeaf {
        overflow,
        first: stored(batch.entries.last().filter(|_| count > 0)?)?,
        last: stored(batch.entries.get(begin)?)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn act() -> impl Strategy<Value = Option<(i64, i64, i64)>> {
        let small = (0..3i64, 1..4i64, 0..2i64);
        let any = (any::<i64>(), any::<i64>(), any::<i64>());
        prop_oneof![Just(None), small.prop_map(Some), any.prop_map(Some)]
    }

    prop_compose! {
        fn entry()(
            step in prop_oneof![Just(1i64), 0..5i64, any::<i64>()],
            sub in prop_oneof![Just(0i64), any::<i64>()],
            act in act(),
            hash in any::<u64>(),
            (prefix, key_len) in prop_oneof![Just((1u32, 20u32)), any::<(u32, u32)>()],
            value_len in prop_oneof![Just(100u64), 0..1u64 << 40],
            stored in proptest::option::of(any::<u64>()),
        ) -> (i64, KeyEntry, Option<u64>) {
            let act = act.map_or(Act::Delete, |(create, version, lease)| Act::Put { create, version, lease });
            let entry = KeyEntry {
                revision: KvRevision { main: 0, sub },
                act,
                fingerprint: Fingerprint::of(hash),
                prefix,
                key_len,
                value_len,
                stored: 0,
            };
            (step, entry, stored)
        }
    }

    proptest! {
        #[test]
        fn whatever_entries_there_are_come_back(
            newest in any::<i64>(),
            entries in proptest::collection::vec(entry(), 1..20),
            overflow in any::<u32>(),
            run in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut main = newest;
            let mut all = Vec::new();
            for (step, mut entry, stored) in entries {
                entry.revision.main = main;
                if let Act::Put { create, .. } = &mut entry.act {
                    // Often the revision itself, as if the key was new.
                    *create = main.wrapping_sub(*create);
                }
                entry.stored = stored.unwrap_or_else(|| as_written(&entry));
                all.push(entry);
                main = main.wrapping_sub(step);
            }
            let leaf = LeafHead {
                page: 7,
                is_page: true,
                entries: all.len(),
                bytes: run.len() as u64,
                all: CrcSpan::of(&run),
            };
            let mut out = Vec::new();
            encode(&mut out, overflow, &leaf, &all);
            let mut batch = Batch::default();
            let known = decode(&out, 7, &mut batch).unwrap();
            prop_assert_eq!(known.overflow, overflow);
            prop_assert_eq!(&batch.entries, &all);
            prop_assert_eq!(batch.leaves[0].all, leaf.all);
            for len in 0..out.len() {
                prop_assert!(decode(&out[..len], 7, &mut Batch::default()).is_none());
            }
        }
    }

    #[test]
    fn an_entry_as_most_are_takes_eight_bytes() {
        let entry = |main| KeyEntry {
            revision: KvRevision { main, sub: 0 },
            act: Act::Put {
                create: main,
                version: 1,
                lease: 0,
            },
            fingerprint: Fingerprint::of(main.cast_unsigned()),
            prefix: 3,
            key_len: 30,
            value_len: 150,
            stored: 17 + 2 + 30 + 3 + 3 + 2 + 3 + 150,
        };
        let entries: Vec<_> = (0..100).map(|n| entry(1000 - n)).collect();
        let leaf = LeafHead {
            page: 7,
            is_page: true,
            entries: entries.len(),
            bytes: 21_000,
            all: CrcSpan::new(1, 21_000),
        };
        let mut out = Vec::new();
        encode(&mut out, 0, &leaf, &entries);
        assert!(out.len() < 8 * entries.len() + 20, "{}", out.len());
    }
}
