//! Which keys and leases a tail names: what of the database it depends on.

use std::collections::BTreeSet;

use super::base::{Spill, unknown};
use super::filter::{Points, Ranges};
use crate::error::Result;
use crate::etcd::keyspace::{Row, Sorter};
use crate::etcd::proto::kv::{Op, Put, Span, Target, Txn, delete_range, last_number};
use crate::etcd::proto::request::{RaftRequest, RequestKind};
use crate::etcd::proto::{Fields, WireError};

/// A sorter of keys, which holds half of the room. There are two.
pub(super) fn sorter(scratch: Option<Spill<'_>>) -> Sorter<'_> {
    let room = scratch.map_or(usize::MAX, |spill| spill.room / 2);
    Sorter::new(room, scratch.map(|spill| spill.dir))
}

/// Which keys and leases a tail names.
pub(super) struct Interest<'a> {
    /// The keys that it names, to be sorted.
    pub(super) names: Sorter<'a>,
    points: Points,
    ranges: Ranges,
    /// The leases that it revokes.
    pub(super) leases: BTreeSet<i64>,
    /// Whether values are looked at, not only revisions.
    pub(super) values: bool,
}

/// A key that a sorter could not take.
type Failed = Option<crate::error::Failure>;

impl<'a> Interest<'a> {
    pub(super) fn new(scratch: Option<Spill<'a>>) -> Self {
        Self {
            names: sorter(scratch),
            points: Points::default(),
            ranges: Ranges::default(),
            leases: BTreeSet::new(),
            values: false,
        }
    }

    pub(super) fn add(&mut self, index: u64, request: &RaftRequest<'_>) -> Result<()> {
        let mut failed = None;
        self.request(request, &mut failed)
            .map_err(|cause| unknown(index, format_args!("undecodable ({cause})")))?;
        failed.map_or(Ok(()), Err)
    }

    /// Adds a key.
    pub(super) fn point(&mut self, key: &[u8]) -> Result<()> {
        match self.points.add(key) {
            true => self.names.push(key, Row::default()),
            false => Ok(()),
        }
    }

    /// Ends the collecting.
    pub(super) fn end(&mut self) {
        self.ranges.merge();
    }

    /// Whether the tail may touch a key other than by its lease.
    pub(super) fn takes(&self, key: &[u8]) -> bool {
        self.points.has(key) || self.ranges.has(key)
    }

    fn request(&mut self, request: &RaftRequest<'_>, failed: &mut Failed) -> Result<(), WireError> {
        let fields = Fields::new(request.body);
        match request.kind {
            RequestKind::Put => self.put(&Put::decode(fields)?, failed),
            RequestKind::DeleteRange => self.span(&delete_range(fields)?, failed),
            RequestKind::Txn => self.txn(&Txn::decode(fields)?, failed),
            RequestKind::LeaseRevoke => {
                self.leases.insert(last_number(fields, 1)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn name(&mut self, key: &[u8], failed: &mut Failed) {
        if let Err(failure) = self.point(key) {
            failed.get_or_insert(failure);
        }
    }

    fn put(&mut self, put: &Put<'_>, failed: &mut Failed) {
        self.name(put.key, failed);
        self.values |= put.ignore_value;
    }

    fn span(&mut self, span: &Span<'_>, failed: &mut Failed) {
        match span.end {
            None => self.name(span.key, failed),
            Some(end) => self.ranges.add(span.key, end),
        }
    }

    fn txn(&mut self, txn: &Txn<'_>, failed: &mut Failed) {
        for compare in &txn.compares {
            self.span(&compare.span, failed);
            self.values |= matches!(compare.target, Target::Value(_));
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                Op::Put(put) => self.put(put, failed),
                Op::Delete(span) => self.span(span, failed),
                Op::Txn(txn) => self.txn(txn, failed),
                Op::Range { .. } | Op::Empty => {}
            }
        }
    }
}
