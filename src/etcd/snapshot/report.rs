//! The report, and how it is put together.

use std::collections::BTreeMap;

use serde::Serialize;

use super::buckets::Gathered;
use super::facts::{AliveAt, DatabaseFacts, Status};
use super::key_filter::Collected;
use super::keys::Counts;
use super::options::Options;
use super::trailer::{Digests, Trailer};
use super::walk::Walked;
use crate::etcd::bbolt::write::Digest;
use crate::etcd::hashkv::{At, HashKv, NoHash};
use crate::finding::{Findings, Layer};

/// How a layer fared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "why")]
pub enum LayerState {
    /// Checked, and nothing wrong.
    Ok,
    /// Broken; the findings say where.
    Failed,
    /// The file has no trailer, which is not corruption.
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
    /// The keys alive at the revision that HashKV was asked for, if one was named.
    #[serde(skip)]
    pub alive: Option<AliveAt>,
    /// Whether it is a database's own file or a copy of one, which never had a hash.
    #[serde(skip)]
    pub raw_copy: bool,
    /// What each top-level bucket holds, by name, as far as it could be read.
    #[serde(skip)]
    pub contents: BTreeMap<Vec<u8>, Digest>,
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

/// Puts the report together from what both threads found.
pub(super) fn assemble(
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
        alive: None,
        raw_copy: false,
        contents: BTreeMap::new(),
    };
    let Some(mut walked) = walked else {
        return report;
    };
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
    report.alive = walked.keys.alive.take();
    report.contents = std::mem::take(&mut walked.contents);
    let (facts, collected) = facts(walked, current, options);
    report.facts = Some(facts);
    report.collected = collected;
    report
}

fn hash(walked: &Walked, current: i64, at: At) -> Result<HashKv, NoHash> {
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
    let bumped = u64::from(keys.counts.bumps > 0);
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
        // The mark of a bump is an entry with an empty key, which no client can ask for.
        keys: keys.counts.live.saturating_sub(bumped),
        distinct_keys: keys.distinct.saturating_sub(bumped),
        revisions: keys.counts.revisions,
        tombstones: keys.counts.tombstones,
        bumped: bumped > 0,
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
/// The store's current revision.
fn current(gathered: &Gathered, counts: &Counts) -> i64 {
    let compact = gathered.compact_revision().unwrap_or(1);
    counts.newest.max(compact).max(1)
}
