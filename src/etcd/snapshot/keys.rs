//! The pass over the bucket `key`: every revision decoded, newest first.
//!
//! Newest first, because the first entry that is met of a key decides whether the key is alive and
//! is its latest value, whether the entry is part of HashKV, and what the entries before it must
//! be. So one pass answers all that, with 32 bits a key: what the next older entry must be, as a
//! digest of version and create revision.
//!
//! What must hold of the entries above the compact revision C (all of it held on every database of
//! etcd 3.4 to 3.7 looked at): each main revision up to the newest has entries, with sub revisions
//! 0, 1, 2, …; a version above 1 is preceded by the version below it with the same create
//! revision, version 1 by nothing or a tombstone, a tombstone by a version. Up to C, where a
//! compaction leaves only the newest version of each key, what is there must fit the same way.
//!
//! # Two keys taken for one
//! Keys are distinguished by 58 bits of a keyed hash ([`super::table`]). Should two collide, the
//! second one's entries do not fit what the first one's demand, unless the first is a tombstone
//! without any version before it, left at C itself. Every key with an entry that does not fit is
//! looked at again by its SHA-256 ([`super::confirm`]); an error is reported only from there, and
//! if the entries turn out to be of two keys, the pass is repeated with another hash. So a
//! collision never makes a false alarm; that one goes unnoticed and leaves the count of keys one
//! too low needs the rare form just named.

use std::collections::HashSet;
use std::io;

use super::batch::{Batch, KeyEntry, Wanted, entries_span, large_span};
use super::buckets::{Leases, report_nested, show};
use super::facts::AliveAt;
use super::key_filter::{Collector, KeyFilter, LatestValue};
use super::prefixes::Prefixes;
use super::record::{Act, Reader, Record};
use super::table::{Fingerprint, KeyTable};
use crate::etcd::bbolt::{Entry, Large, Leaf, ReadAt, Visitor, leaf_again};
use crate::etcd::crc::CrcSpan;
use crate::etcd::hashkv::{Part, Rules};
use crate::etcd::mvcc::{KvRevision, RevisionKey};
use crate::finding::{Findings, Layer, Place};

/// Keys whose entries do not fit that are looked at again; with more there is no doubt left.
const MAX_SUSPECTS: usize = 4096;

/// What a key's next older entry must be. In the low 30 bits of its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected(u32);

impl Expected {
    const TOMBSTONE_OR_NOTHING: Self = Self(0);
    const ANY_VERSION: Self = Self(1);
    const MASK: u32 = (1 << 30) - 1;

    /// A version with this number and create revision.
    fn version(version: i64, create: i64) -> Self {
        // Odd constants with bits all over (splitmix64), so that neighbours differ in the high
        // bits, too.
        let mut mixed = version
            .cast_unsigned()
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(create.cast_unsigned());
        mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        // 0 and 1 are taken.
        Self(((mixed >> 34) as u32).max(2))
    }

    fn before(act: Act) -> Self {
        match act {
            Act::Put { version: 1, .. } => Self::TOMBSTONE_OR_NOTHING,
            Act::Put {
                version, create, ..
            } => Self::version(version.wrapping_sub(1), create),
            Act::Delete | Act::Bump => Self::ANY_VERSION,
        }
    }

    fn fits(self, act: Act) -> bool {
        match act {
            Act::Delete => self == Self::TOMBSTONE_OR_NOTHING,
            Act::Bump => self == Self::ANY_VERSION,
            Act::Put {
                version, create, ..
            } => self == Self::ANY_VERSION || self == Self::version(version, create),
        }
    }
}

/// An older entry must be in the file, since no compaction can have taken it.
const OWED: u32 = 1 << 30;
/// An entry at or below HashKV's revision was met.
const IN_HASH: u32 = 1 << 31;

/// Whether the entry before this one must still be in the file.
pub(super) fn owes(act: Act, revision: KvRevision, compact: i64) -> bool {
    let has_before = match act {
        Act::Put { version, .. } => version > 1,
        Act::Delete => true,
        Act::Bump => false,
    };
    has_before && revision.main > compact
}

/// The latest version of a live key.
struct Latest {
    revision: i64,
    create: i64,
    version: i64,
    lease: i64,
}

impl Latest {
    fn of(at: KvRevision, act: Act) -> Option<Self> {
        match act {
            Act::Put {
                create,
                version,
                lease,
            } => Some(Self {
                revision: at.main,
                create,
                version,
                lease,
            }),
            Act::Delete | Act::Bump => None,
        }
    }
}

/// What the pass counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) revisions: u64,
    pub(super) tombstones: u64,
    pub(super) live: u64,
    pub(super) leased: u64,
    pub(super) bumps: u64,
    /// Entries that could not be decoded.
    pub(super) unreadable: u64,
    /// Main revision of the newest entry; 0 in an empty store.
    pub(super) newest: i64,
}

/// The pass.
pub(super) struct KeyPass<'a> {
    reader: Reader,
    compact: i64,
    leases: &'a Leases,
    table: KeyTable,
    /// The entry that comes after the one being looked at.
    newer: Option<KvRevision>,
    owed: u64,
    suspects: HashSet<Fingerprint>,
    more_suspects: u64,
    pub(super) counts: Counts,
    /// All entries' bytes, as `snapshot status` hashes them.
    pub(super) status: CrcSpan,
    pub(super) rules: Rules,
    pub(super) prefixes: Prefixes,
    pub(super) collector: Collector,
    /// The keys alive at HashKV's revision, if one was named.
    pub(super) alive: Option<AliveAt>,
    parts: Vec<Part>,
}

impl<'a> KeyPass<'a> {
    pub(super) fn new(
        seed: u64,
        compact: Option<i64>,
        rules: Rules,
        leases: &'a Leases,
        wanted: KeyFilter,
    ) -> Self {
        Self {
            reader: Reader::new(seed, compact),
            compact: compact.unwrap_or(-1),
            leases,
            table: KeyTable::new(),
            newer: None,
            owed: 0,
            suspects: HashSet::new(),
            more_suspects: 0,
            counts: Counts::default(),
            status: CrcSpan::EMPTY,
            rules,
            prefixes: Prefixes::default(),
            collector: Collector::new(wanted),
            alive: None,
            parts: Vec::new(),
        }
    }

    pub(super) fn distinct_keys(&self) -> u64 {
        self.table.len()
    }

    /// Ends the pass: the keys to look at again, and how many more there are.
    pub(super) fn finish(&mut self, findings: &mut Findings) -> (HashSet<Fingerprint>, u64) {
        self.check_first(findings);
        if self.owed > 0 {
            let mut owed = self.owed;
            for key in self.table.select(|state| state & OWED != 0) {
                if self.suspects.len() >= MAX_SUSPECTS {
                    break;
                }
                self.suspects.insert(key);
                owed = owed.saturating_sub(1);
            }
            self.more_suspects += owed;
        }
        (std::mem::take(&mut self.suspects), self.more_suspects)
    }

    /// The oldest entry above the compaction must be the first one.
    fn check_first(&mut self, findings: &mut Findings) {
        let compact = self.compact;
        if let Some(oldest) = self.newer
            && oldest.main > compact.max(1)
            && (oldest.main > compact.max(1) + 1 || oldest.sub != 0)
        {
            let first = KvRevision {
                main: compact.max(1) + 1,
                sub: 0,
            };
            report_gap(first, oldest, None, findings);
        }
    }

    /// Judges an entry's revision against the one after it.
    fn check_gap(&mut self, at: KvRevision, place: Place, findings: &mut Findings) {
        let compact = self.compact;
        let Some(newer) = self.newer.replace(at) else {
            self.counts.newest = at.main;
            return;
        };
        if at == newer {
            // With a tombstone's mark and without.
            findings.error(Layer::Keys, place, || {
                (format!("revision {at} once"), "twice".into())
            });
            return;
        }
        if newer.main <= compact {
            return;
        }
        let sound = if newer.main == at.main {
            Some(newer.sub) == at.sub.checked_add(1)
        } else {
            // Below the compaction an entry may have any revision.
            newer.sub == 0
                && (at.main.checked_add(1) == Some(newer.main)
                    || (at.main <= compact.max(1) && newer.main == compact.max(1) + 1))
        };
        if !sound {
            report_gap(at, newer, Some(place), findings);
        }
    }

    /// Takes one entry, newer ones having been taken before.
    fn take(&mut self, record: &Record<'_>, findings: &mut Findings) -> Part {
        let (part, new) = self.follow(record.revision, record.act, record.fingerprint);
        if let Some(new) = new {
            self.count(record, new, findings);
        }
        part
    }

    /// Holds an entry against what its key's newer ones demand; says whether it is the newest.
    fn follow(
        &mut self,
        revision: KvRevision,
        act: Act,
        fingerprint: Fingerprint,
    ) -> (Part, Option<bool>) {
        let in_hash = revision.main <= self.rules.revision;
        let mut part = Part {
            main: revision.main,
            tombstone: act == Act::Delete,
            kept: false,
        };
        let Some((new, mut state)) = self.table.entry(fingerprint) else {
            return (part, None);
        };
        let old = state.get();
        let fits = new || Expected(old & Expected::MASK).fits(act);
        let owes = owes(act, revision, self.compact);
        part.kept = in_hash && (new || old & IN_HASH == 0) && act != Act::Delete;
        if let (true, Some(alive), Act::Put { lease, .. }) = (part.kept, &mut self.alive, act) {
            alive.add(lease);
        }
        let mut next = Expected::before(act).0;
        next |= if owes { OWED } else { 0 };
        next |= if in_hash { IN_HASH } else { old & IN_HASH };
        state.set(next);
        self.owed += u64::from(owes);
        // In a broken file the count can be wrong, but must not wrap.
        self.owed -= u64::from(old & OWED != 0).min(self.owed);
        if !fits {
            if self.suspects.len() < MAX_SUSPECTS {
                self.suspects.insert(fingerprint);
            } else {
                self.more_suspects += 1;
            }
        }
        (part, Some(new))
    }

    /// Counts an entry; says whether it is its key's latest version and the key alive.
    fn tally(&mut self, act: Act, newest: bool) -> bool {
        let live = newest && act != Act::Delete;
        self.counts.revisions += 1;
        self.counts.live += u64::from(live);
        match act {
            Act::Delete => self.counts.tombstones += 1,
            Act::Bump => self.counts.bumps += 1,
            Act::Put { lease, .. } => self.counts.leased += u64::from(live && lease != 0),
        }
        live
    }

    fn count(&mut self, record: &Record<'_>, newest: bool, findings: &mut Findings) {
        let live = self.tally(record.act, newest);
        let key = record.key.start();
        if let Some(latest) = live
            .then(|| Latest::of(record.revision, record.act))
            .flatten()
        {
            let lease = latest.lease;
            if self.lacks(lease) {
                findings.warning(Layer::Keys, record.place, || {
                    (
                        format!("lease {lease:016x}, which key {} names", show(key)),
                        "no such lease".into(),
                    )
                });
            }
            self.collect(key, record.value, record.value_len, &latest);
        }
        let bytes = key.len() as u64 + record.value_len;
        if record.act != Act::Bump {
            self.prefixes.add(key, live, bytes, record.stored);
        }
    }

    /// Whether a lease that a key names is not there.
    fn lacks(&self, lease: i64) -> bool {
        lease != 0 && self.leases.contains(lease) == Some(false)
    }

    /// Shows the latest version of a live key to the collector.
    fn collect(&mut self, key: &[u8], value: Option<&[u8]>, value_len: u64, latest: &Latest) {
        if let Some(value) = value {
            self.collector.classify(key, value);
        }
        if self.collector.wants(key) {
            let latest = LatestValue {
                key: key.to_vec(),
                value: None,
                value_len,
                create_revision: latest.create,
                mod_revision: latest.revision,
                version: latest.version,
            };
            self.collector.take(latest, value);
        }
    }

    /// Takes what a [`Decoder`](super::batch::Decoder) made of leaves that follow each other,
    /// newest first. If only some of a leaf's entries are hashed, the leaf is read again from
    /// `source`. False if anything is not as usual: then the words for it can only come from a pass
    /// over the pages themselves.
    pub(super) fn take_batch(
        &mut self,
        batch: &Batch,
        source: &dyn ReadAt,
        page_size: u64,
    ) -> io::Result<bool> {
        let mut findings = Findings::keeping(0);
        let mut sound = true;
        let mut wanted = batch.wanted.iter().peekable();
        let mut next = 0;
        for leaf in &batch.leaves {
            let entries = batch.entries.get(next..next + leaf.entries);
            self.counts.entries += leaf.entries as u64;
            self.counts.bytes += leaf.bytes;
            self.parts.clear();
            for (at, entry) in (next..).zip(entries.unwrap_or_default()) {
                self.table.warm(batch.soon_after(at));
                self.check_gap(entry.revision, leaf.place(), &mut findings);
                let (part, new) = self.follow(entry.revision, entry.act, entry.fingerprint);
                let wanted = wanted.next_if(|wanted| wanted.entry == at);
                sound &= self.count_entry(entry, new == Some(true), wanted);
                self.parts.push(part);
            }
            next += leaf.entries;
            if !self.hash_known(leaf.all) {
                sound &= leaf.is_page
                    && leaf_again(source, leaf.page, page_size, &mut |leaf| {
                        self.hash_leaf(leaf);
                    })?;
            }
        }
        let doubt = !self.suspects.is_empty() || self.more_suspects > 0;
        Ok(sound && !doubt && findings.is_empty())
    }

    /// As [`KeyPass::count`]; false if it names a lease that is not there.
    fn count_entry(&mut self, entry: &KeyEntry, newest: bool, wanted: Option<&Wanted>) -> bool {
        let live = self.tally(entry.act, newest);
        let latest = live
            .then(|| Latest::of(entry.revision, entry.act))
            .flatten();
        let sound = latest
            .as_ref()
            .is_none_or(|latest| !self.lacks(latest.lease));
        if let Some((latest, wanted)) = latest.zip(wanted) {
            let (key, value) = (&wanted.key, wanted.value.as_deref());
            self.collect(key, value, entry.value_len, &latest);
        }
        if entry.act != Act::Bump {
            let bytes = u64::from(entry.key_len) + entry.value_len;
            self.prefixes.count(entry.prefix, live, bytes, entry.stored);
        }
        sound
    }

    /// Hashes a leaf of which only the hash of all entries is known; false if the entries
    /// themselves are needed for that.
    fn hash_known(&mut self, all: CrcSpan) -> bool {
        let hashed = self.parts.iter().filter(|p| self.rules.hashed(p)).count();
        let alive = self.parts.iter().any(|part| part.kept);
        let mixed = hashed != 0 && hashed != self.parts.len();
        let none_alive = self.rules.none_alive_yet() && !alive;
        if mixed || (none_alive && self.parts.len() > 1) {
            return false;
        }
        self.status = all.then(self.status);
        self.rules
            .before(if hashed == 0 { CrcSpan::EMPTY } else { all });
        if alive {
            self.rules.some_alive();
        } else if let Some(part) = self.parts.first() {
            self.rules.before_none_alive(part, all);
        }
        true
    }

    /// Reads and takes the entries of a leaf, newest first; their parts in HashKV go to `parts`,
    /// newest first too.
    fn take_leaf(&mut self, leaf: &Leaf<'_>, findings: &mut Findings) {
        let mut records = Vec::with_capacity(leaf.len());
        for entry in leaf.entries().rev() {
            self.counts.entries += 1;
            self.counts.bytes += (entry.key.len() + entry.value.len()) as u64;
            let record = self.read_entry(&entry, findings);
            self.counts.unreadable += u64::from(record.is_none());
            records.push(record);
        }
        let read = records.iter().flatten();
        self.table.warm(read.map(|record| record.fingerprint));
        self.parts.clear();
        for record in &records {
            let part = match record {
                Some(record) => self.take(record, findings),
                // The hash has no value then.
                None => Part {
                    main: i64::MAX,
                    tombstone: false,
                    kept: false,
                },
            };
            self.parts.push(part);
        }
    }

    fn read_entry<'e>(&mut self, entry: &Entry<'e>, findings: &mut Findings) -> Option<Record<'e>> {
        if entry.bucket {
            report_nested(b"key", entry.place(), findings);
            return None;
        }
        let key = self.take_revision(entry.key, entry.place(), findings)?;
        self.reader.record(key, entry, findings)
    }

    fn take_revision(
        &mut self,
        key: &[u8],
        place: Place,
        findings: &mut Findings,
    ) -> Option<RevisionKey> {
        let key = self.reader.revision(key, place, findings)?;
        self.check_gap(key.revision, place, findings);
        Some(key)
    }

    /// Hashes a leaf's entries, now that it is known which of them count.
    fn hash_leaf(&mut self, leaf: &Leaf<'_>) {
        let all = match leaf.contiguous() {
            Some(bytes) => CrcSpan::of(bytes),
            None => entries_span(leaf, |_| true),
        };
        self.status = all.then(self.status);
        let parts = &self.parts;
        let hashed = |index: usize| {
            let newest_first = parts.len().checked_sub(index + 1);
            let part = newest_first.and_then(|i| parts.get(i));
            part.is_some_and(|part| self.rules.hashed(part))
        };
        let run = if (0..leaf.len()).all(hashed) {
            all
        } else {
            entries_span(leaf, hashed)
        };
        self.rules.before(run);
        if self.rules.none_alive_yet() {
            for (entry, part) in leaf.entries().rev().zip(&self.parts) {
                let run = CrcSpan::of(entry.key).then(CrcSpan::of(entry.value));
                self.rules.before_none_alive(part, run);
            }
            if self.parts.iter().any(|part| part.kept) {
                self.rules.some_alive();
            }
        }
    }
}

impl Visitor for KeyPass<'_> {
    fn leaf(&mut self, leaf: &Leaf<'_>, findings: &mut Findings) -> io::Result<()> {
        self.take_leaf(leaf, findings);
        self.hash_leaf(leaf);
        Ok(())
    }

    fn large(&mut self, element: &Large<'_>, findings: &mut Findings) -> io::Result<()> {
        self.counts.entries += 1;
        self.counts.bytes += element.key.len() as u64 + element.value_len;
        let run = large_span(element)?;
        self.status = run.then(self.status);
        let record = match self.take_revision(element.key, element.place(), findings) {
            Some(key) => self.reader.large(key, element, findings)?,
            None => None,
        };
        let Some(record) = record else {
            self.counts.unreadable += 1;
            return Ok(());
        };
        let part = self.take(&record, findings);
        if self.rules.hashed(&part) {
            self.rules.before(run);
        }
        self.rules.before_none_alive(&part, run);
        if part.kept {
            self.rules.some_alive();
        }
        Ok(())
    }
}

fn report_gap(older: KvRevision, newer: KvRevision, place: Option<Place>, findings: &mut Findings) {
    findings.error(Layer::Keys, place, || {
        (
            format!("every revision between {older} and {newer}"),
            "a gap: entries are missing".into(),
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: fn(i64, i64) -> Act = |version, create| Act::Put {
        version,
        create,
        lease: 0,
    };

    #[test]
    fn what_may_come_before() {
        let after = |act| Expected::before(act);
        assert!(after(PUT(3, 10)).fits(PUT(2, 10)));
        assert!(!after(PUT(3, 10)).fits(PUT(2, 11)));
        assert!(!after(PUT(3, 10)).fits(PUT(3, 10)));
        assert!(!after(PUT(3, 10)).fits(Act::Delete));
        assert!(after(PUT(1, 10)).fits(Act::Delete));
        assert!(!after(PUT(1, 10)).fits(PUT(1, 5)));
        assert!(after(Act::Delete).fits(PUT(7, 3)));
        assert!(!after(Act::Delete).fits(Act::Delete));
    }

    #[test]
    fn what_must_be_there_before() {
        let at = |main| KvRevision { main, sub: 0 };
        assert!(owes(PUT(2, 5), at(9), 8));
        assert!(!owes(PUT(2, 5), at(8), 8));
        assert!(!owes(PUT(1, 9), at(9), 8));
        assert!(owes(Act::Delete, at(9), -1));
        assert!(!owes(Act::Bump, at(9), -1));
    }
}
