//! The key-value store: puts, deletions and transactions as etcd's `mvcc` makes revisions of them
//! (etcd, `server/mvcc/kvstore_txn.go`, `server/etcdserver/apply.go`).

use super::base::unknown;
use super::leases::Leases;
use super::live::{Live, Place};
use super::touched::Touched;
use super::written::Written;
use crate::error::{Failure, Result};
use crate::etcd::mvcc::{KeyValue, KvRevision, RevisionKey};
use crate::etcd::proto::kv::{Compare, Op, Outcome, Put, Span, Target, Txn, delete_range};
use crate::etcd::proto::request::RaftRequest;
use crate::etcd::proto::{Fields, WireError};
use crate::etcd::snapshot::DatabaseFacts;

/// The store as far as a tail touches it.
pub(super) struct Store<'a> {
    touched: Touched<'a>,
    written: &'a mut dyn Written,
    revision: i64,
    compact: i64,
    scheduled: Option<i64>,
    /// How many revisions the transaction under way has made.
    changes: i64,
    /// The entry under way.
    index: u64,
}

impl<'a> Store<'a> {
    pub(super) fn new(
        facts: &DatabaseFacts,
        touched: Touched<'a>,
        written: &'a mut dyn Written,
    ) -> Self {
        Self {
            touched,
            written,
            revision: facts.revision,
            compact: facts.compact_revision.unwrap_or(-1),
            scheduled: None,
            changes: 0,
            index: 0,
        }
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn compacted(&self) -> Option<i64> {
        self.scheduled
    }

    /// Ends a transaction: it has made one main revision, or none.
    fn end(&mut self) {
        if self.changes > 0 {
            self.revision = self.revision.saturating_add(1);
        }
        self.changes = 0;
    }

    fn damaged(&self) -> impl Fn(WireError) -> Failure + use<> {
        let index = self.index;
        move |cause| unknown(index, format_args!("undecodable ({cause})"))
    }

    fn panics(&self, what: &str) -> Failure {
        unknown(
            self.index,
            format_args!("a transaction at which a server would panic: {what}"),
        )
    }

    // ---- requests ------------------------------------------------------------------------------

    pub(super) fn put(&mut self, index: u64, body: &[u8], leases: &Leases) -> Result<()> {
        self.index = index;
        let put = Put::decode(Fields::new(body)).map_err(self.damaged())?;
        let before = self.touched.get(put.key)?;
        // Every member refuses these alike: the client gets an error, and nothing changes.
        if put.lease != 0 && !leases.has(put.lease) {
            return Ok(());
        }
        if before.is_none() && (put.ignore_value || put.ignore_lease) {
            return Ok(());
        }
        self.write(&put, before, leases)?;
        self.end();
        Ok(())
    }

    pub(super) fn delete(&mut self, index: u64, body: &[u8]) -> Result<()> {
        self.index = index;
        let span = delete_range(Fields::new(body)).map_err(self.damaged())?;
        self.erase(&span)?;
        self.end();
        Ok(())
    }

    /// Deletes the keys of a lease that was revoked, in order.
    pub(super) fn revoke(&mut self, lease: i64) -> Result<()> {
        let mut key = Vec::new();
        for ordinal in self.touched.attached(lease) {
            if let Some(live) = self.touched.entry(ordinal, &mut key)? {
                self.tombstone(ordinal, &key, &live)?;
            }
        }
        self.end();
        Ok(())
    }

    pub(super) fn compact(&mut self, index: u64, request: &RaftRequest<'_>) -> Result<()> {
        self.index = index;
        let revision = request.compacts_at().unwrap_or(0);
        if revision > self.compact && revision <= self.revision {
            self.compact = revision;
            self.scheduled = Some(revision);
        }
        Ok(())
    }

    /// `strict`: a range that cannot be answered refuses its transaction on every member, as since
    /// 3.7.
    pub(super) fn txn(
        &mut self,
        index: u64,
        body: &[u8],
        leases: &Leases,
        full: bool,
        strict: bool,
    ) -> Result<()> {
        self.index = index;
        let txn = Txn::decode(Fields::new(body)).map_err(self.damaged())?;
        let puts = |ops: &[Op<'_>]| ops.iter().any(|op| matches!(op, Op::Put(_)));
        if txn.is_read_only() || full && (puts(&txn.success) || puts(&txn.failure)) {
            return Ok(());
        }
        // Puts in nested transactions cost no quota up to 3.5.32, 3.6.13 and 3.7.0, and are refused
        // from then on (etcd, pull request 22140). No file names the patch release.
        if full && puts_within(&txn) {
            return Err(unknown(
                index,
                "a nested transaction that puts keys while NOSPACE is raised",
            ));
        }
        // All comparisons are made first: no operation changes which others run.
        let mut path = Vec::new();
        self.path(&txn, &mut path)?;
        let mut refused = false;
        for (op, _) in taken(&txn, &path) {
            refused = refused || !self.accepts_put(op, leases)?;
        }
        let unanswered = |nested: bool| {
            taken(&txn, &path).any(|(op, within)| within == nested && !self.answers_range(op))
        };
        if refused || unanswered(true) {
            // The client receives an error, and nothing changes.
            self.end();
            return Ok(());
        }
        if !unanswered(false) {
            self.carry_out(&txn, &path, leases)?;
        } else if !strict && writes(&txn, &path) {
            // Up to 3.6 only the member that answered the client refused it; here no client waits,
            // so its own ranges are left out and it is applied (etcd, issue 18667).
            return Err(unknown(
                index,
                "a transaction with a range at a compacted or future revision, which members up to 3.6 apply differently",
            ));
        }
        self.end();
        Ok(())
    }

    // ---- transactions --------------------------------------------------------------------------

    fn path(&mut self, txn: &Txn<'_>, path: &mut Vec<bool>) -> Result<()> {
        let mut holds = true;
        for compare in &txn.compares {
            holds = holds && self.compare(compare)?;
        }
        path.push(holds);
        for op in side(txn, holds) {
            if let Op::Txn(inner) = op {
                self.path(inner, path)?;
            }
        }
        Ok(())
    }

    fn compare(&mut self, compare: &Compare<'_>) -> Result<bool> {
        let mut found = false;
        for ordinal in self.touched.span(&compare.span)? {
            let Some(live) = self.touched.state(ordinal)? else {
                continue;
            };
            found = true;
            if !self.holds(compare, &live)? {
                return Ok(false);
            }
        }
        // A key that is absent compares like one whose numbers are all 0, and has no value
        // (`applyCompare`, apply.go).
        match compare.target {
            _ if found => Ok(true),
            Target::Value(_) => Ok(false),
            _ => self.holds(compare, &Live::default()),
        }
    }

    fn holds(&self, compare: &Compare<'_>, live: &Live) -> Result<bool> {
        let order = match compare.target {
            Target::Version(number) => live.version.cmp(&number),
            Target::Create(number) => live.create.cmp(&number),
            Target::Mod(number) => live.modified.cmp(&number),
            Target::Lease(number) => live.lease.cmp(&number),
            Target::Value(value) => {
                let known = self.touched.value(live)?;
                let known = known.ok_or_else(|| self.panics("a value was not read"))?;
                known.as_slice().cmp(value)
            }
            // etcd leaves its result at zero.
            Target::Other => std::cmp::Ordering::Equal,
        };
        Ok(match compare.outcome {
            Outcome::Equal => order.is_eq(),
            Outcome::NotEqual => order.is_ne(),
            Outcome::Greater => order.is_gt(),
            Outcome::Less => order.is_lt(),
            Outcome::Other => true,
        })
    }

    fn accepts_put(&mut self, op: &Op<'_>, leases: &Leases) -> Result<bool> {
        let Op::Put(put) = op else { return Ok(true) };
        let keeps = put.ignore_value || put.ignore_lease;
        let keeps_nothing = keeps && self.touched.get(put.key)?.is_none();
        Ok(!keeps_nothing && (put.lease == 0 || leases.has(put.lease)))
    }

    fn answers_range(&self, op: &Op<'_>) -> bool {
        match op {
            Op::Range { revision: 0 } => true,
            Op::Range { revision } => (self.compact..=self.revision).contains(revision),
            _ => true,
        }
    }

    fn carry_out(&mut self, txn: &Txn<'_>, path: &[bool], leases: &Leases) -> Result<()> {
        for (op, _) in taken(txn, path) {
            match op {
                Op::Put(put) => {
                    let before = self.touched.get(put.key)?;
                    if before.is_none() && (put.ignore_value || put.ignore_lease) {
                        return Err(self.panics("it deletes a key and keeps its value"));
                    }
                    self.write(put, before, leases)?;
                }
                Op::Delete(span) => self.erase(span)?,
                Op::Range { .. } | Op::Empty | Op::Txn(_) => {}
            }
        }
        Ok(())
    }

    // ---- revisions -----------------------------------------------------------------------------

    fn next(&mut self, tombstone: bool) -> (i64, Vec<u8>) {
        let main = self.revision.saturating_add(1);
        let sub = self.changes;
        self.changes = self.changes.saturating_add(1);
        let key = RevisionKey {
            revision: KvRevision { main, sub },
            tombstone,
        };
        (main, key.encode())
    }

    fn write(&mut self, put: &Put<'_>, before: Option<Live>, leases: &Leases) -> Result<()> {
        let kept = match before.filter(|_| put.ignore_value) {
            Some(live) => {
                let value = self.touched.value(&live)?;
                Some(value.ok_or_else(|| self.panics("a value was not read"))?)
            }
            None => None,
        };
        let value = kept.as_deref().unwrap_or(put.value);
        let was = before.unwrap_or_default();
        let lease = if put.ignore_lease {
            was.lease
        } else {
            put.lease
        };
        if lease != 0 && !leases.has(lease) {
            return Err(self.panics("it keeps a lease that is gone"));
        }
        let (main, key) = self.next(false);
        let live = Live {
            create: if was.version == 0 { main } else { was.create },
            modified: main,
            version: was.version.saturating_add(1),
            lease,
            value: Place::Unknown,
        };
        let kv = KeyValue {
            key: put.key,
            create_revision: live.create,
            mod_revision: main,
            version: live.version,
            value,
            lease,
        };
        self.written.take(key, kv.encode())?;
        self.touched.put(put.key, before.as_ref(), live, value)
    }

    fn erase(&mut self, span: &Span<'_>) -> Result<()> {
        let mut key = Vec::new();
        for ordinal in self.touched.span(span)? {
            if let Some(live) = self.touched.entry(ordinal, &mut key)? {
                self.tombstone(ordinal, &key, &live)?;
            }
        }
        Ok(())
    }

    fn tombstone(&mut self, ordinal: u32, key: &[u8], live: &Live) -> Result<()> {
        let (_, revision) = self.next(true);
        let kv = KeyValue {
            key,
            ..KeyValue::default()
        };
        self.written.take(revision, kv.encode())?;
        self.touched.remove(ordinal, live)
    }
}

/// Whether a transaction within puts a key, on whichever way.
fn puts_within(txn: &Txn<'_>) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.any(|op| match op {
        Op::Txn(inner) => {
            let mut own = inner.success.iter().chain(&inner.failure);
            own.any(|op| matches!(op, Op::Put(_))) || puts_within(inner)
        }
        _ => false,
    })
}

/// The operations on the way that is taken.
fn side<'t, 'a>(txn: &'t Txn<'a>, holds: bool) -> &'t [Op<'a>] {
    if holds { &txn.success } else { &txn.failure }
}

/// The operations that a transaction takes, in order, those of nested transactions in their place;
/// with each, whether it is in a nested one. `path` says of each transaction, in the order in which
/// they are reached, whether its comparisons hold.
struct Taken<'t, 'a> {
    left: Vec<std::slice::Iter<'t, Op<'a>>>,
    path: std::slice::Iter<'t, bool>,
}

impl<'t, 'a> Taken<'t, 'a> {
    fn enter(&mut self, txn: &'t Txn<'a>) {
        let holds = self.path.next().copied().unwrap_or(true);
        self.left.push(side(txn, holds).iter());
    }
}

impl<'t, 'a> Iterator for Taken<'t, 'a> {
    type Item = (&'t Op<'a>, bool);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let nested = self.left.len() > 1;
            match self.left.last_mut()?.next() {
                None => {
                    self.left.pop();
                }
                Some(Op::Txn(inner)) => self.enter(inner),
                Some(op) => return Some((op, nested)),
            }
        }
    }
}

fn taken<'t, 'a>(txn: &'t Txn<'a>, path: &'t [bool]) -> Taken<'t, 'a> {
    let mut taken = Taken {
        left: Vec::new(),
        path: path.iter(),
    };
    taken.enter(txn);
    taken
}

/// Whether any operation that is taken writes.
fn writes(txn: &Txn<'_>, path: &[bool]) -> bool {
    taken(txn, path).any(|(op, _)| matches!(op, Op::Put(_) | Op::Delete(_)))
}
