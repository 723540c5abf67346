//! The walk over everything in a database.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::batch::Decoder;
use super::buckets::{self, Content, Gathered, SmallBucket};
use super::confirm::Confirm;
use super::facts::{AliveAt, BucketFacts};
use super::key_filter::Collected;
use super::keys::{Counts, KeyPass};
use super::options::Options;
use super::pipeline;
use super::prefixes::Prefixes;
use super::root_buckets::{RootBucket, RootBuckets, report_names};
use super::skeleton::Skeleton;
use crate::etcd::bbolt::write::Digest;
use crate::etcd::bbolt::{Meta, Nested, Order, ReadAt, Root, Usage, Walker};
use crate::etcd::crc::CrcSpan;
use crate::etcd::hashkv::Rules;
use crate::finding::{Findings, Layer};

/// Passes over the keys, each with another hash, before a collision is taken as it is. Among 20
/// million keys two share a fingerprint with a chance of 7 in 10,000 (see `table`), and each pass
/// has a hash of its own, so that four in a row come to less than one in 10¹².
const MAX_PASSES: u64 = 4;

/// What the walk yields.
pub(super) struct Walked {
    pub(super) meta: Meta,
    pub(super) gathered: Gathered,
    pub(super) usage: Usage,
    pub(super) whole: bool,
    pub(super) buckets: Vec<BucketFacts>,
    pub(super) contents: BTreeMap<Vec<u8>, Digest>,
    pub(super) status_hash: Option<u32>,
    pub(super) entries: u64,
    pub(super) keys: Keys,
}

/// What the pass over the bucket `key` yields.
pub(super) struct Keys {
    pub(super) counts: Counts,
    pub(super) distinct: u64,
    pub(super) status: CrcSpan,
    pub(super) rules: Rules,
    pub(super) prefixes: Prefixes,
    pub(super) collected: Collected,
    pub(super) alive: Option<AliveAt>,
}

impl Keys {
    fn of(pass: KeyPass<'_>) -> Self {
        Self {
            distinct: pass.distinct_keys(),
            counts: pass.counts,
            status: pass.status,
            rules: pass.rules,
            prefixes: pass.prefixes,
            collected: pass.collector.finish(),
            alive: pass.alive,
        }
    }
}

/// Walks everything.
pub(super) struct Walk<'a> {
    source: &'a dyn ReadAt,
    data: u64,
    meta: Meta,
    options: &'a Options,
    walker: Walker<'a>,
    remembered: Option<Seen<'a>>,
}

/// What was decoded of the pages before.
pub(super) struct Seen<'a> {
    pub(super) decoder: Decoder,
    pub(super) skeleton: &'a Mutex<Skeleton>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        source: &'a dyn ReadAt,
        data: u64,
        meta: Meta,
        options: &'a Options,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        Self {
            source,
            data,
            meta,
            options,
            walker: Walker::new(source, data, &meta, progress),
            remembered: None,
        }
    }

    /// Takes what was decoded before. If anything is found in the bucket `key`, the walk ends with
    /// [`pipeline::unusual`], and is to be made again without it.
    pub(super) fn remembering(self, seen: Seen<'a>) -> Self {
        Self {
            remembered: Some(seen),
            ..self
        }
    }

    pub(super) fn run(mut self, findings: &mut Findings) -> io::Result<Walked> {
        let mut root_buckets = RootBuckets::new();
        let root = Root::Page(self.meta.root);
        self.walker.walk(
            root,
            Order::Ascending,
            Nested::Leave,
            &mut root_buckets,
            findings,
        )?;
        report_names(&root_buckets.found, findings);
        // The small buckets first: the keys are judged by the compaction and the leases in them.
        let mut gathered = Gathered::default();
        let mut contents = Vec::new();
        for top in root_buckets.found.iter().filter(|top| top.name != b"key") {
            let mut bucket = SmallBucket::new(&top.name, &mut gathered);
            self.walker.walk(
                top.root,
                Order::Ascending,
                Nested::Check,
                &mut bucket,
                findings,
            )?;
            contents.push((top.name.as_slice(), bucket.content));
        }
        buckets::check_relations(&gathered, findings);
        let root = root_buckets.found.iter().find(|top| top.name == b"key");
        let keys = self.keys(root.map(|top| top.root), &gathered, findings)?;
        check_current(&gathered, &keys.counts, findings);
        let usage = self.walker.finish(&self.meta, findings)?;
        let whole = root_buckets.whole && self.walker.is_whole();
        let found = root_buckets.found.as_slice();
        Ok(Walked {
            meta: self.meta,
            usage,
            whole,
            status_hash: whole.then(|| status_hash(found, &contents, keys.status)),
            entries: contents.iter().map(|(_, c)| c.entries).sum::<u64>() + keys.counts.entries,
            buckets: list_buckets(found, &contents, &keys.counts),
            contents: digests(found, &contents, &keys),
            gathered,
            keys,
        })
    }

    /// The pass over the keys, again with another hash if two keys were taken for one.
    fn keys(
        &mut self,
        root: Option<Root>,
        gathered: &Gathered,
        findings: &mut Findings,
    ) -> io::Result<Keys> {
        if let Some(keys) = self.quick(root, gathered)? {
            return Ok(keys);
        }
        let mut attempt = 0;
        loop {
            let last = attempt + 1 == MAX_PASSES;
            let mut found = Findings::keeping(self.options.findings);
            let pass = self.pass(root, attempt, last, gathered, &mut found)?;
            // Only the first pass judges pages: the others read the same ones, and would report
            // each fault again.
            if attempt == 0 {
                findings.merge_layer(&found, Layer::Pages);
            }
            if let Some(keys) = pass {
                findings.merge_layer(&found, Layer::Keys);
                return Ok(keys);
            }
            attempt += 1;
        }
    }

    /// The pass as it is with a sound file; nothing comes back, and nothing has happened, if
    /// anything at all was found.
    fn quick(&mut self, root: Option<Root>, gathered: &Gathered) -> io::Result<Option<Keys>> {
        let Some(root) = root else { return Ok(None) };
        let compact = gathered.compact_revision();
        let seed = self.options.seed;
        let (decoder, skeleton) = match self.remembered.take() {
            Some(seen) => (seen.decoder.compacted_at(compact), Some(seen.skeleton)),
            None => {
                let wanted = self.options.wanted.clone();
                (Decoder::new(seed, compact, wanted), None)
            }
        };
        let from = pipeline::From {
            source: self.source,
            page_size: u64::from(self.meta.page_size),
            root,
            skeleton,
        };
        let pass = self.key_pass(seed, gathered);
        let mark = self.walker.mark();
        let all_known = skeleton.is_some_and(|skeleton| {
            let skeleton = skeleton.lock().unwrap_or_else(PoisonError::into_inner);
            !skeleton.is_full()
        });
        self.walker.set_read_ahead(!all_known);
        let done = pipeline::run(&mut self.walker, &from, decoder, pass)?;
        self.walker.set_read_ahead(true);
        match (&done, skeleton) {
            (Some(_), _) => {}
            (None, None) => self.walker.reset(mark),
            // The pages must be read, and those that were remembered were not.
            (None, Some(_)) => return Err(pipeline::unusual()),
        }
        Ok(done.map(Keys::of))
    }

    fn key_pass<'g>(&self, seed: u64, gathered: &'g Gathered) -> KeyPass<'g> {
        let compact = gathered.compact_revision();
        let at = self.options.hash_kv;
        // What is compacted in the file cannot be hashed as if it were not.
        let own = compact.filter(|_| self.options.own_compaction);
        let compacted_at = at.compacted_at.max(own).unwrap_or(-1);
        // As a server takes it, 0 is the current revision.
        let revision = at.revision.filter(|r| *r != 0).unwrap_or(i64::MAX);
        let rules = Rules::new(revision, compacted_at);
        let wanted = self.options.wanted.clone();
        let mut pass = KeyPass::new(seed, compact, rules, &gathered.leases, wanted);
        pass.alive = at.revision.map(|_| AliveAt::default());
        pass
    }

    /// One pass; nothing comes back if two keys were taken for one and it is not the last.
    fn pass(
        &mut self,
        root: Option<Root>,
        attempt: u64,
        last: bool,
        gathered: &Gathered,
        found: &mut Findings,
    ) -> io::Result<Option<Keys>> {
        let compact = gathered.compact_revision();
        let seed = self.options.seed.wrapping_add(attempt);
        let mut pass = self.key_pass(seed, gathered);
        if let Some(root) = root {
            // `self.walker` remembers the pages it has reached, so that a page with two parents is
            // a finding. A second pass over the same tree needs a walker that has reached none.
            let mut again = self.another();
            let walker = if attempt == 0 {
                &mut self.walker
            } else {
                &mut again
            };
            walker.walk(root, Order::Descending, Nested::Check, &mut pass, found)?;
        }
        let (suspects, more) = pass.finish(found);
        if let (Some(root), false) = (root, suspects.is_empty()) {
            let mut confirm = Confirm::new(seed, compact, suspects, self.options.findings);
            // What is wrong with the pages was reported by the pass itself.
            let mut ignored = Findings::keeping(0);
            self.another().walk(
                root,
                Order::Descending,
                Nested::Leave,
                &mut confirm,
                &mut ignored,
            )?;
            // Two keys with one hash were taken for versions of one key: counts and hashes of this
            // pass are wrong, so that all of it is thrown away.
            if confirm.collided && !last {
                return Ok(None);
            }
            confirm.finish();
            found.merge(confirm.findings);
        }
        report_more(more, found);
        Ok(Some(Keys::of(pass)))
    }

    /// A walker that has reached nothing yet.
    fn another(&self) -> Walker<'a> {
        Walker::new(self.source, self.data, &self.meta, &|_| {})
    }
}

fn report_more(more: u64, findings: &mut Findings) {
    if more > 0 {
        findings.error(Layer::Keys, None, || {
            (
                "versions of every key that follow each other".into(),
                format!("{more} more that do not, and were not examined one by one"),
            )
        });
    }
}

/// What must hold between the keys and the small buckets.
fn check_current(gathered: &Gathered, counts: &Counts, findings: &mut Findings) {
    // Young databases have none yet.
    if gathered.consistent_index.is_none() && counts.revisions > 0 {
        findings.warning(Layer::Keys, None, || {
            ("meta/consistent_index".into(), "none".into())
        });
    }
    // One that runs may have taken the newest tombstones, but hardly all of a long range.
    if let Some(scheduled) = gathered.scheduled
        && gathered.finished != Some(scheduled)
        && scheduled > counts.newest
    {
        findings.warning(Layer::Keys, None, || {
            (
                format!(
                    "a compaction scheduled up to the newest entry, {}",
                    counts.newest
                ),
                format!("at {scheduled}"),
            )
        });
    }
}

fn status_hash(found: &[RootBucket], contents: &[(&[u8], Content)], keys: CrcSpan) -> u32 {
    let mut all = CrcSpan::EMPTY;
    for top in found {
        let span = contents
            .iter()
            .find(|(name, _)| *name == top.name)
            .map_or(keys, |(_, content)| content.span());
        all = all.then(CrcSpan::of(&top.name)).then(span);
    }
    all.crc()
}

/// The digest of every bucket that was found.
fn digests(
    found: &[RootBucket],
    contents: &[(&[u8], Content)],
    keys: &Keys,
) -> BTreeMap<Vec<u8>, Digest> {
    let of_keys = Digest {
        entries: keys.counts.entries,
        bytes: keys.counts.bytes,
        crc: keys.status.crc(),
    };
    let of = |top: &RootBucket| {
        let content = contents.iter().find(|(name, _)| *name == top.name);
        let digest = content.map_or(of_keys, |(_, content)| content.digest());
        (top.name.clone(), digest)
    };
    found.iter().map(of).collect()
}

fn list_buckets(
    found: &[RootBucket],
    contents: &[(&[u8], Content)],
    keys: &Counts,
) -> Vec<BucketFacts> {
    let counted = |top: &RootBucket| {
        let content = contents.iter().find(|(name, _)| *name == top.name);
        content.map_or((keys.entries, keys.bytes), |(_, c)| (c.entries, c.bytes))
    };
    found
        .iter()
        .map(|top| {
            let (entries, bytes) = counted(top);
            BucketFacts {
                name: String::from_utf8_lossy(&top.name).into_owned(),
                entries,
                bytes,
            }
        })
        .collect()
}
