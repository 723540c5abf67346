//! What buckets hold, wherever their pages are.

use std::collections::BTreeMap;
use std::io;

use super::changes::{Change, Changes};
use super::input::Input;
use crate::error::Result;
use crate::etcd::bbolt::meta::Meta;
use crate::etcd::bbolt::source::ReadAt;
use crate::etcd::bbolt::{Large, Leaf, Nested, Order, Root, Visitor, Walker};
use crate::finding::Findings;

/// The sum of a bucket's entries, wherever its pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// How many entries.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// CRC-32C over key and value of each, in order.
    pub crc: u32,
}

impl Digest {
    /// Takes one more entry.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.bytes += (key.len() + value.len()) as u64;
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, key), value);
    }
}

impl Digest {
    /// Takes an entry too big to be held.
    fn add_large(&mut self, element: &Large<'_>) -> io::Result<()> {
        self.add(element.key, &[]);
        let mut piece = vec![0; 1 << 20];
        let mut at = 0;
        while at < element.value_len {
            let want = (element.value_len - at).min(piece.len() as u64);
            let part = piece.get_mut(..want as usize).unwrap_or_default();
            element.read_at(part, at)?;
            self.crc = crc32c::crc32c_append(self.crc, part);
            at += want;
        }
        self.bytes += element.value_len;
        Ok(())
    }
}

/// The digest of those entries of a bucket that a change leaves.
struct Kept<'a> {
    digest: Digest,
    change: Option<&'a Change>,
}

impl Kept<'_> {
    fn keeps(&self, key: &[u8]) -> bool {
        self.change.is_none_or(|change| change.keeps(key))
    }
}

impl Visitor for Kept<'_> {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            if self.keeps(entry.key) {
                self.digest.add(entry.key, entry.value);
            }
        }
        Ok(())
    }

    fn large(&mut self, element: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        match self.keeps(element.key) {
            true => self.digest.add_large(element),
            false => Ok(()),
        }
    }
}

/// The digests of all top-level buckets, by name.
pub fn digests(source: &dyn ReadAt, data: u64, meta: &Meta) -> Result<BTreeMap<Vec<u8>, Digest>> {
    digests_left(source, data, meta, &Changes::new())
}

/// The top-level buckets of a database, with the pages of the root judged.
///
/// # Errors
/// Those of reading.
pub(super) fn bucket_roots(
    source: &dyn ReadAt,
    meta: &Meta,
    findings: &mut Findings,
) -> io::Result<Vec<(Vec<u8>, Root)>> {
    let mut walker = Walker::new(source, source.size(), meta, &|_| {});
    let (root, mut roots) = (Root::Page(meta.root), Roots::default());
    walker.walk(root, Order::Ascending, Nested::Leave, &mut roots, findings)?;
    Ok(roots.0)
}

/// What a bucket holds, judged as it is read: for one that is small.
///
/// # Errors
/// Those of reading.
pub(super) fn read_digest(
    source: &dyn ReadAt,
    meta: &Meta,
    root: Root,
    findings: &mut Findings,
) -> io::Result<Digest> {
    let mut walker = Walker::new(source, source.size(), meta, &|_| {});
    let mut kept = Kept {
        digest: Digest::default(),
        change: None,
    };
    walker.walk(root, Order::Ascending, Nested::Check, &mut kept, findings)?;
    Ok(kept.digest)
}

/// The top-level buckets. What else is there is not etcd's, and no digest names it.
#[derive(Default)]
struct Roots(Vec<(Vec<u8>, Root)>);

impl Visitor for Roots {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        let buckets = leaf.entries().filter_map(|entry| {
            let root = entry.root()?;
            Some((entry.key.to_vec(), root))
        });
        self.0.extend(buckets);
        Ok(())
    }

    fn large(&mut self, _: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        Ok(())
    }
}

/// The same without the entries that a [`Change::Cut`] removes.
pub fn digests_left(
    source: &dyn ReadAt,
    data: u64,
    meta: &Meta,
    changes: &Changes,
) -> Result<BTreeMap<Vec<u8>, Digest>> {
    let input = Input {
        source,
        data,
        meta,
        progress: &|_| {},
    };
    let mut digests = BTreeMap::new();
    for top in input.root_buckets()? {
        let mut kept = Kept {
            digest: Digest::default(),
            change: changes.get(&top.name),
        };
        input.walk(top.root, &mut kept)?;
        digests.insert(top.name, kept.digest);
    }
    Ok(digests)
}

/// The entries of one small top-level bucket; empty if there is no such bucket.
pub fn small_bucket(
    source: &dyn ReadAt,
    data: u64,
    meta: &Meta,
    name: &[u8],
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let input = Input {
        source,
        data,
        meta,
        progress: &|_| {},
    };
    match input.root_buckets()?.iter().find(|top| top.name == name) {
        Some(top) => input.entries(top.root),
        None => Ok(Vec::new()),
    }
}

/// Where a top-level bucket begins; nothing if there is no such bucket.
pub fn root_bucket(
    source: &dyn ReadAt,
    data: u64,
    meta: &Meta,
    name: &[u8],
) -> Result<Option<Root>> {
    let input = Input {
        source,
        data,
        meta,
        progress: &|_| {},
    };
    let found = input.root_buckets()?;
    Ok(found
        .into_iter()
        .find(|top| top.name == name)
        .map(|top| top.root))
}
