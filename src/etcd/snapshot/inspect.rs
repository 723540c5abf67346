//! The inspection: threads, passes and the report.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::buckets::{self, Content, Gathered, STANDARD, SmallBucket, show};
use super::confirm::Confirm;
use super::facts::{BucketFacts, DatabaseFacts, Status};
use super::keys::{Counts, KeyPass};
use super::prefixes::Prefixes;
use super::trailer::{Digests, Shape, Trailer, digest};
use super::wanted::{Collected, Wanted};
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::{
    Entry, Large, Leaf, Meta, Metas, Nested, Order, Origin, ReadAt, Root, Usage, Visitor, Walker,
};
use crate::etcd::crc::CrcSpan;
use crate::etcd::finding::{Layer, Place};
use crate::etcd::findings::{DEFAULT_KEPT, Findings};
use crate::etcd::hashkv::{At, HashKv, NoHash, Rules};

/// Top-level buckets that are read; etcd has ten.
const MOST_BUCKETS: usize = 1024;
/// Bytes of their names together.
const MOST_NAME_BYTES: usize = 1 << 20;
/// Passes over the keys, each with another hash, before giving up.
const MOST_PASSES: u64 = 4;
/// Bytes between two calls of the progress callback.
const PROGRESS_STEP: u64 = 8 << 20;

/// What an inspection is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether to hash the file and compare with the trailer.
    pub trailer: bool,
    /// What to compute HashKV for.
    pub hash_kv: At,
    /// Keys whose latest values the caller wants.
    pub wanted: Wanted,
    /// Prefixes to list.
    pub prefixes: usize,
    /// Findings of each severity to list for each layer.
    pub findings: usize,
    /// Keys the hash that tells users' keys apart: unpredictable for whoever made the file.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trailer: true,
            hash_kv: At::default(),
            wanted: Wanted::default(),
            prefixes: 20,
            findings: DEFAULT_KEPT,
            seed: RandomState::new().hash_one(0u8),
        }
    }
}

/// How far an inspection is. Both counts go up to about `size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes hashed.
    pub hashed: u64,
    /// Bytes of pages walked; free pages are not.
    pub walked: u64,
    /// Bytes of the file.
    pub size: u64,
}

/// How a layer fared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "why")]
pub enum LayerState {
    /// Checked, and nothing wrong.
    Ok,
    /// Broken; the findings say where.
    Failed,
    /// The file has no trailer, which is no corruption.
    Unsealed,
    /// Not checked, or not wholly, and why.
    NotChecked(String),
}

/// Everything an inspection found out.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Bytes of the file.
    pub size: u64,
    /// The trailer.
    pub trailer: Trailer,
    /// SHA-256 of the whole file in hexadecimal, as `sha256sum` prints it, if it was hashed.
    pub sha256: Option<String>,
    /// The layers `trailer`, `meta`, `pages` and `keys`.
    pub layers: Vec<(Layer, LayerState)>,
    /// What is wrong.
    pub findings: Findings,
    /// What the database says, if it has a valid meta.
    pub facts: Option<DatabaseFacts>,
    /// What `snapshot status` would print, if all of the file could be read.
    pub status: Option<Status>,
    /// HashKV, if it has a value.
    pub hash_kv: Option<HashKv>,
    /// Why it has none.
    #[serde(skip)]
    pub no_hash_kv: Option<NoHash>,
    /// The values that were wanted.
    #[serde(skip)]
    pub collected: Collected,
}

impl Report {
    /// Whether no layer is broken.
    pub fn is_good(&self) -> bool {
        self.findings.errors() == 0
    }

    /// How a layer fared.
    pub fn layer(&self, layer: Layer) -> Option<&LayerState> {
        self.layers
            .iter()
            .find(|(known, _)| *known == layer)
            .map(|(_, state)| state)
    }
}

/// Inspects a snapshot or a copy of a database. What is wrong with it is told in the report; a
/// failure means that it could not be read.
pub fn inspect(
    source: &dyn ReadAt,
    options: &Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report> {
    let size = source.size();
    let shape = Shape::of(size);
    let mut findings = Findings::keeping(options.findings);
    if shape == Shape::Odd {
        report_odd(size, &mut findings);
    }
    let data = shape.data(size);
    let origin = match shape {
        Shape::Sealed => Origin::Streamed,
        Shape::Unsealed | Shape::Odd => Origin::File,
    };
    let reading = |e: io::Result<_>| e.doing(Kind::NotChecked, || "reading the database");
    let metas = Metas::read(source, data, origin, &mut findings)
        .doing(Kind::NotChecked, || "reading the database")?;
    let database = metas.and_then(|m| m.chosen.database_size());
    let meter = Meter::new(size, progress);
    let hashed = |bytes| meter.hashed(bytes);
    let walked = |bytes| meter.walked(bytes);
    let walk = |findings: &mut Findings| {
        metas
            .map(|metas| Walk::new(source, data, metas.chosen, options, &walked).run(findings))
            .transpose()
    };
    let (digests, walk) = std::thread::scope(|scope| {
        let hashing = options
            .trailer
            .then(|| scope.spawn(|| digest(source, database, &hashed)));
        let walk = walk(&mut findings);
        (hashing.map(|h| h.join()).transpose(), walk)
    });
    let digests = digests
        .map_err(|_| Failure::new(Kind::Unexpected, "the hashing thread ended early"))?
        .transpose()
        .doing(Kind::NotChecked, || "hashing the database")?;
    let walk = reading(walk.map(Some))?.flatten();
    if let Some(digests) = &digests {
        report_digests(digests, shape, database, &mut findings);
    }
    Ok(assemble(size, digests, walk, options, findings))
}

/// Computes HashKV alone. The bucket is walked and decoded as in an inspection, and the file is
/// not hashed; findings are not told, but a bucket that cannot be read whole has no hash.
pub fn hash_kv(source: &dyn ReadAt, at: At) -> Result<std::result::Result<HashKv, NoHash>> {
    let options = Options {
        trailer: false,
        hash_kv: at,
        findings: 0,
        ..Options::default()
    };
    let report = inspect(source, &options, &|_| {})?;
    Ok(match report.hash_kv {
        Some(hash) => Ok(hash),
        None => Err(report.no_hash_kv.unwrap_or(NoHash::Unreadable)),
    })
}

/// Adds up what both threads have done and tells it in steps.
struct Meter<'a> {
    hashed: AtomicU64,
    walked: AtomicU64,
    told: AtomicU64,
    size: u64,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Meter<'a> {
    fn new(size: u64, progress: &'a (dyn Fn(Progress) + Sync)) -> Self {
        Self {
            hashed: AtomicU64::new(0),
            walked: AtomicU64::new(0),
            told: AtomicU64::new(0),
            size,
            progress,
        }
    }

    fn hashed(&self, bytes: u64) {
        self.hashed.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    fn walked(&self, bytes: u64) {
        self.walked.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        let hashed = self.hashed.load(Ordering::Relaxed);
        let walked = self.walked.load(Ordering::Relaxed);
        let step = (hashed + walked) / PROGRESS_STEP;
        if step > self.told.fetch_max(step, Ordering::Relaxed) {
            (self.progress)(Progress {
                hashed,
                walked,
                size: self.size,
            });
        }
    }
}

fn report_odd(size: u64, findings: &mut Findings) {
    findings.error(Layer::Trailer, Place::Offset(size), || {
        (
            "whole pages, or whole pages and a trailer of 32 bytes".into(),
            format!("{size} bytes: the file is cut short or added to"),
        )
    });
}

fn report_digests(digests: &Digests, shape: Shape, database: Option<u64>, findings: &mut Findings) {
    if let Trailer::Mismatch { expected, found } = &digests.trailer {
        findings.error(Layer::Trailer, None, || {
            (format!("SHA-256 {expected}"), found.clone())
        });
    }
    if let Some(stray) = digests.stray {
        let words = || {
            let end = database.unwrap_or_default();
            (
                format!("nothing but zeros after the database's end at {end}"),
                "other bytes".into(),
            )
        };
        match shape {
            Shape::Sealed => findings.error(Layer::Trailer, Place::Offset(stray), words),
            // A crash between writing pages and the meta leaves such bytes.
            _ => findings.warning(Layer::Meta, Place::Offset(stray), words),
        }
    }
}

/// What the walk yields.
struct Walked {
    meta: Meta,
    gathered: Gathered,
    usage: Usage,
    whole: bool,
    buckets: Vec<BucketFacts>,
    status_hash: Option<u32>,
    entries: u64,
    keys: Keys,
}

/// What the pass over the bucket `key` yields.
struct Keys {
    counts: Counts,
    distinct: u64,
    status: CrcSpan,
    rules: Rules,
    prefixes: Prefixes,
    collected: Collected,
}

/// One top-level bucket.
struct Top {
    name: Vec<u8>,
    root: Root,
}

/// Lists the top-level buckets.
#[derive(Default)]
struct Tops {
    found: Vec<Top>,
    name_bytes: usize,
    whole: bool,
}

impl Visitor for Tops {
    fn leaf(&mut self, leaf: &Leaf<'_>, findings: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            self.entry(&entry, findings);
        }
        Ok(())
    }

    fn large(&mut self, element: &Large<'_>, findings: &mut Findings) -> io::Result<()> {
        self.whole = false;
        foreign(element.key, element.place(), findings);
        Ok(())
    }
}

impl Tops {
    fn entry(&mut self, entry: &Entry<'_>, findings: &mut Findings) {
        let Some(root) = entry.root() else {
            self.whole = false;
            if !entry.bucket {
                foreign(entry.key, entry.place(), findings);
            }
            return;
        };
        if entry.sequence() != Some(0) {
            findings.warning(Layer::Keys, entry.value_place(8), || {
                (
                    format!("bucket {} without a sequence", show(entry.key)),
                    "one, which etcd does not use".into(),
                )
            });
        }
        self.name_bytes += entry.key.len();
        if self.found.len() >= MOST_BUCKETS || self.name_bytes > MOST_NAME_BYTES {
            self.whole = false;
            findings.error(Layer::Keys, entry.place(), || {
                (
                    format!("at most {MOST_BUCKETS} buckets"),
                    "more, which are not read".into(),
                )
            });
            return;
        }
        self.found.push(Top {
            name: entry.key.to_vec(),
            root,
        });
    }
}

fn foreign(key: &[u8], place: Place, findings: &mut Findings) {
    findings.error(Layer::Keys, place, || {
        ("nothing but buckets at the top".into(), show(key))
    });
}

/// Walks everything.
struct Walk<'a> {
    source: &'a dyn ReadAt,
    data: u64,
    meta: Meta,
    options: &'a Options,
    walker: Walker<'a>,
}

impl<'a> Walk<'a> {
    fn new(
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
        }
    }

    fn run(mut self, findings: &mut Findings) -> io::Result<Walked> {
        let mut tops = Tops {
            whole: true,
            ..Tops::default()
        };
        let root = Root::Page(self.meta.root);
        self.walker
            .walk(root, Order::Ascending, Nested::Leave, &mut tops, findings)?;
        report_names(&tops.found, findings);
        let mut gathered = Gathered::default();
        let mut contents = Vec::new();
        for top in tops.found.iter().filter(|top| top.name != b"key") {
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
        let root = tops.found.iter().find(|top| top.name == b"key");
        let keys = self.keys(root.map(|top| top.root), &gathered, findings)?;
        check_current(&gathered, &keys.counts, findings);
        let usage = self.walker.finish(&self.meta, findings)?;
        let whole = tops.whole && self.walker.is_whole();
        let found = tops.found.as_slice();
        Ok(Walked {
            meta: self.meta,
            usage,
            whole,
            status_hash: whole.then(|| status_hash(found, &contents, keys.status)),
            entries: contents.iter().map(|(_, c)| c.entries).sum::<u64>() + keys.counts.entries,
            buckets: list_buckets(found, &contents, &keys.counts),
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
        let compact = gathered.compact_revision();
        let at = self.options.hash_kv;
        // What is compacted in the file cannot be hashed as if it were not.
        let compacted_at = at.compacted_at.max(compact).unwrap_or(-1);
        // As a server takes it, 0 is the current revision.
        let revision = at.revision.filter(|r| *r != 0).unwrap_or(i64::MAX);
        let mut collisions = 0;
        loop {
            let seed = self.options.seed.wrapping_add(collisions);
            let rules = Rules::new(revision, compacted_at);
            let wanted = self.options.wanted.clone();
            let mut pass = KeyPass::new(seed, compact, rules, &gathered.leases, wanted);
            let mut found = Findings::keeping(self.options.findings);
            if let Some(root) = root {
                // Only the first pass judges pages: a second one would reach them again.
                let mut again = Walker::new(self.source, self.data, &self.meta, &|_| {});
                let walker = if collisions == 0 {
                    &mut self.walker
                } else {
                    &mut again
                };
                walker.walk(
                    root,
                    Order::Descending,
                    Nested::Check,
                    &mut pass,
                    &mut found,
                )?;
            }
            let (suspects, more) = pass.finish(&mut found);
            if let (Some(root), false) = (root, suspects.is_empty()) {
                let mut confirm = Confirm::new(seed, compact, suspects, self.options.findings);
                let mut again = Walker::new(self.source, self.data, &self.meta, &|_| {});
                let mut unheard = Findings::keeping(0);
                again.walk(
                    root,
                    Order::Descending,
                    Nested::Leave,
                    &mut confirm,
                    &mut unheard,
                )?;
                if confirm.collided && collisions + 1 < MOST_PASSES {
                    if collisions == 0 {
                        // What it said of pages stays true.
                        findings.merge_layer(&found, Layer::Pages);
                    }
                    collisions += 1;
                    continue;
                }
                confirm.finish();
                found.merge(confirm.findings);
            }
            report_more(more, &mut found);
            if collisions == 0 {
                findings.merge(found);
            } else {
                findings.merge_layer(&found, Layer::Keys);
            }
            return Ok(Keys {
                distinct: pass.distinct_keys(),
                counts: pass.counts,
                status: pass.status,
                rules: pass.rules,
                prefixes: pass.prefixes,
                collected: pass.collector.finish(),
            });
        }
    }
}

fn report_more(more: u64, findings: &mut Findings) {
    if more > 0 {
        findings.error(Layer::Keys, None, || {
            (
                "versions of every key that follow each other".into(),
                format!("{more} more that do not, and were not looked at one by one"),
            )
        });
    }
}

fn report_names(found: &[Top], findings: &mut Findings) {
    for name in STANDARD {
        if found.iter().any(|top| top.name == name.as_bytes()) {
            continue;
        }
        let words = || (format!("bucket {name}"), "none".into());
        if matches!(name, "key" | "meta") {
            findings.error(Layer::Keys, None, words);
        } else {
            findings.warning(Layer::Keys, None, words);
        }
    }
    for top in found {
        if !STANDARD.iter().any(|name| top.name == name.as_bytes()) {
            findings.warning(Layer::Keys, None, || {
                (
                    "etcd's buckets".into(),
                    format!("bucket {}", show(&top.name)),
                )
            });
        }
    }
}

/// The store's current revision.
fn current(gathered: &Gathered, counts: &Counts) -> i64 {
    let compact = gathered.compact_revision().unwrap_or(1);
    counts.newest.max(compact).max(1)
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

fn status_hash(found: &[Top], contents: &[(&[u8], Content)], keys: CrcSpan) -> u32 {
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

fn list_buckets(found: &[Top], contents: &[(&[u8], Content)], keys: &Counts) -> Vec<BucketFacts> {
    let counted = |top: &Top| {
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

fn assemble(
    size: u64,
    digests: Option<Digests>,
    walked: Option<Walked>,
    options: &Options,
    findings: Findings,
) -> Report {
    let sha256 = digests.as_ref().map(|d| hex::encode(d.file));
    let trailer = digests.map_or(Trailer::NotChecked, |d| d.trailer);
    let layers = layers(&trailer, walked.as_ref(), &findings);
    let mut report = Report {
        size,
        trailer,
        sha256,
        layers,
        findings,
        facts: None,
        status: None,
        hash_kv: None,
        no_hash_kv: Some(NoHash::Unreadable),
        collected: Collected::default(),
    };
    let Some(walked) = walked else { return report };
    let current = current(&walked.gathered, &walked.keys.counts);
    match hash(&walked, current, options.hash_kv) {
        Ok(hash) => (report.hash_kv, report.no_hash_kv) = (Some(hash), None),
        Err(why) => report.no_hash_kv = Some(why),
    }
    report.status = walked.status_hash.map(|hash| Status {
        hash,
        revision: walked.keys.counts.newest,
        total_entries: walked.entries,
        total_keys: walked.keys.counts.live,
        total_size: walked.meta.database_size().unwrap_or_default(),
        version: walked.gathered.storage_version.clone().unwrap_or_default(),
    });
    let (facts, collected) = facts(walked, current, options);
    report.facts = Some(facts);
    report.collected = collected;
    report
}

fn hash(walked: &Walked, current: i64, at: At) -> std::result::Result<HashKv, NoHash> {
    let rules = &walked.keys.rules;
    let revision = at.revision.filter(|r| *r != 0).unwrap_or(current);
    if revision > current {
        return Err(NoHash::Future { revision, current });
    }
    if revision < rules.compacted_at {
        return Err(NoHash::Compacted {
            revision,
            compacted_at: rules.compacted_at,
        });
    }
    if !walked.whole || walked.keys.counts.unreadable > 0 {
        return Err(NoHash::Unreadable);
    }
    let (hash, before) = rules.finish();
    Ok(HashKv {
        hash,
        hash_before_3_4_34: before,
        revision,
        compact_revision: rules.compacted_at,
    })
}

fn layers(
    trailer: &Trailer,
    walked: Option<&Walked>,
    findings: &Findings,
) -> Vec<(Layer, LayerState)> {
    let state = |layer, otherwise: LayerState| {
        let state = if findings.errors_in(layer) > 0 {
            LayerState::Failed
        } else {
            otherwise
        };
        (layer, state)
    };
    let trailer = match trailer {
        Trailer::Unsealed => LayerState::Unsealed,
        Trailer::NotChecked => LayerState::NotChecked("it was not asked for".into()),
        Trailer::Ok { .. } | Trailer::Mismatch { .. } | Trailer::Odd { .. } => LayerState::Ok,
    };
    let unread = |why: &str| LayerState::NotChecked(why.into());
    let (pages, keys) = match walked {
        None => (unread("no valid meta"), unread("no valid meta")),
        Some(walked) if walked.whole => (LayerState::Ok, LayerState::Ok),
        Some(_) => (LayerState::Ok, unread("some pages could not be read")),
    };
    vec![
        state(Layer::Trailer, trailer),
        state(Layer::Meta, LayerState::Ok),
        state(Layer::Pages, pages),
        state(Layer::Keys, keys),
    ]
}

fn facts(walked: Walked, current: i64, options: &Options) -> (DatabaseFacts, Collected) {
    let Walked {
        meta,
        gathered,
        usage,
        keys,
        ..
    } = walked;
    let page_size = u64::from(meta.page_size);
    let (prefixes, other_prefixes) = keys.prefixes.top(options.prefixes);
    let facts = DatabaseFacts {
        complete: walked.whole,
        page_size: meta.page_size,
        transaction: meta.txid,
        total_size: usage.total.saturating_mul(page_size),
        in_use_size: (usage.total - usage.free).saturating_mul(page_size),
        free_pages: usage.free,
        reclaimable_size: usage.free.saturating_mul(page_size),
        freelist_stored: usage.freelist_stored,
        revision: current,
        last_entry_revision: keys.counts.newest,
        compact_revision: gathered.compact_revision(),
        scheduled_compact_revision: gathered.scheduled,
        finished_compact_revision: gathered.finished,
        keys: keys.counts.live,
        distinct_keys: keys.distinct,
        revisions: keys.counts.revisions,
        tombstones: keys.counts.tombstones,
        bumped: keys.counts.bumps > 0,
        leased_keys: keys.counts.leased,
        leases: gathered.leases.count,
        consistent_index: gathered.consistent_index,
        term: gathered.term,
        conf_state: gathered.conf_state,
        storage_version: gathered.storage_version,
        cluster_version: gathered.cluster_version,
        downgrade: gathered.downgrade,
        members: gathered.members,
        members_removed: gathered.members_removed,
        auth: gathered.auth,
        alarms: gathered.alarms,
        buckets: walked.buckets,
        prefixes,
        other_prefixes,
    };
    (facts, keys.collected)
}
