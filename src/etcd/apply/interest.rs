//! The part of the database that a tail depends on: the newest versions of the keys that it
//! touches.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;

use super::base::{Base, unknown};
use super::leases::Leases;
use super::live::Live;
use crate::error::{Doing, Kind, Result};
use crate::etcd::bbolt::{Large, Leaf, Nested, Order, Root, Visitor, Walker};
use crate::etcd::mvcc::{KeyValue, RevisionKey};
use crate::etcd::proto::kv::{Op, Put, Span, Target, Txn, delete_range, last_number};
use crate::etcd::proto::request::{RaftRequest, RequestKind};
use crate::etcd::proto::{Fields, WireError};
use crate::finding::Findings;

/// Which keys and leases a tail names.
#[derive(Default)]
pub(super) struct Interest {
    points: HashSet<Vec<u8>>,
    /// Ranges, first key and end; an empty end means no end.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    leases: BTreeSet<i64>,
    /// Whether values are looked at, not only revisions.
    values: bool,
}

impl Interest {
    pub(super) fn add(&mut self, index: u64, request: &RaftRequest<'_>) -> Result<()> {
        self.request(request)
            .map_err(|cause| unknown(index, format_args!("undecodable ({cause})")))
    }

    fn request(&mut self, request: &RaftRequest<'_>) -> Result<(), WireError> {
        let fields = Fields::new(request.body);
        match request.kind {
            RequestKind::Put => self.put(&Put::decode(fields)?),
            RequestKind::DeleteRange => self.span(&delete_range(fields)?),
            RequestKind::Txn => self.txn(&Txn::decode(fields)?),
            RequestKind::LeaseRevoke => {
                self.leases.insert(last_number(fields, 1)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn put(&mut self, put: &Put<'_>) {
        self.points.insert(put.key.to_vec());
        self.values |= put.ignore_value;
    }

    fn span(&mut self, span: &Span<'_>) {
        match span.end {
            None => {
                self.points.insert(span.key.to_vec());
            }
            Some(end) => self.ranges.push((span.key.to_vec(), end.to_vec())),
        }
    }

    fn txn(&mut self, txn: &Txn<'_>) {
        for compare in &txn.compares {
            self.span(&compare.span);
            self.values |= matches!(compare.target, Target::Value(_));
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                Op::Put(put) => self.put(put),
                Op::Delete(span) => self.span(span),
                Op::Txn(txn) => self.txn(txn),
                Op::Range { .. } | Op::Empty => {}
            }
        }
    }

    /// Joins ranges that overlap, so that a key is in one of them or in none.
    fn merge(&mut self) {
        self.ranges.sort();
        let mut merged: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (start, end) in self.ranges.drain(..) {
            match merged.last_mut() {
                Some((_, last)) if last.is_empty() || *last >= start => {
                    if end.is_empty() || (!last.is_empty() && end > *last) {
                        *last = end;
                    }
                }
                _ => merged.push((start, end)),
            }
        }
        self.ranges = merged;
    }

    fn takes(&self, key: &[u8]) -> bool {
        if self.points.contains(key) {
            return true;
        }
        let after = self
            .ranges
            .partition_point(|(start, _)| start.as_slice() <= key);
        let range = after.checked_sub(1).and_then(|i| self.ranges.get(i));
        range.is_some_and(|(_, end)| end.is_empty() || key < end.as_slice())
    }
}

/// Reads the newest versions of the keys that a tail touches, without deleted ones.
pub(super) fn read(
    base: &Base<'_>,
    mut interest: Interest,
    leases: &Leases,
) -> Result<BTreeMap<Vec<u8>, Live>> {
    let reading = || "reading the database";
    interest.merge();
    let size = base.database.size();
    let mut findings = Findings::keeping(1);
    // The root's own entries tell where the bucket is.
    let mut root_buckets = RootBuckets::default();
    let mut walker = Walker::new(base.database, size, base.meta, &|_| {});
    let root = Root::Page(base.meta.root);
    let order = Order::Ascending;
    walker
        .walk(root, order, Nested::Leave, &mut root_buckets, &mut findings)
        .doing(Kind::BadBackup, reading)?;
    let mut keys = Keys {
        interest,
        leases,
        live: BTreeMap::new(),
    };
    if let Some(root) = root_buckets.keys {
        walker
            .walk(root, order, Nested::Leave, &mut keys, &mut findings)
            .doing(Kind::BadBackup, reading)?;
    }
    match findings.listed().first() {
        Some(first) if findings.errors() > 0 => {
            Err(crate::error::Failure::new(Kind::BadBackup, first.to_string()).doing(reading()))
        }
        _ => Ok(keys.live),
    }
}

#[derive(Default)]
struct RootBuckets {
    keys: Option<Root>,
}

impl Visitor for RootBuckets {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries().filter(|entry| entry.key == b"key") {
            self.keys = entry.root();
        }
        Ok(())
    }

    fn large(&mut self, _: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        Ok(())
    }
}

struct Keys<'a> {
    interest: Interest,
    leases: &'a Leases,
    live: BTreeMap<Vec<u8>, Live>,
}

impl Keys<'_> {
    fn entry(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let revision = RevisionKey::parse(key).ok_or_else(|| invalid("no revision"))?;
        let (kv, _) = KeyValue::decode(value).map_err(|fault| invalid(&fault.to_string()))?;
        // What a raised revision leaves has no key.
        if kv.key.is_empty() {
            return Ok(());
        }
        if revision.tombstone {
            self.live.remove(kv.key);
            return Ok(());
        }
        let wanted = self.interest.takes(kv.key);
        // An older version may have been taken for its lease, which this one no longer has.
        if !wanted && !self.interest.leases.contains(&kv.lease) {
            self.live.remove(kv.key);
            return Ok(());
        }
        let attached = if self.leases.has(kv.lease) {
            kv.lease
        } else {
            0
        };
        let keep = self.interest.values && wanted;
        let live = Live {
            create: kv.create_revision,
            modified: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
            attached,
            value: keep.then(|| kv.value.to_vec()),
        };
        self.live.insert(kv.key.to_vec(), live);
        Ok(())
    }
}

impl Visitor for Keys<'_> {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            self.entry(entry.key, entry.value)?;
        }
        Ok(())
    }

    fn large(&mut self, element: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        self.entry(element.key, &element.value()?)
    }
}
