//! `prune`: which sets of a store go, and their removal.
//!
//! What is shown is what would be done: the same plan is printed by a dry run, asked about, and
//! made again under the lock before anything is deleted; a set that was not in the plan that was agreed
//! to stays until the next run.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::catalog::{self, BackupSet, SetState};
use super::chain::record::Records;
use super::chain::{doubt, local};
use super::ranges::{self, Chain, ChangesPlan, Staying};
use super::trust::Trust;
use crate::backup::Manifest;
use crate::backup::names::{self, BackupId};
use crate::backup::retention::{
    self, BASE, Candidate, Decision, KEEP_MOMENTS, Reason, Rules, Standing, Verdict,
};
use crate::backup::signature::SigningKey;
use crate::context::Context;
use crate::error::Result;
use crate::etcd::segment::Name;
use crate::event::Event;
use crate::store::LocalStore;
use crate::store::local::STAGING_PREFIX;
use crate::sys::lock::Lock;

/// What decides.
#[derive(Debug, Clone)]
pub enum Selection {
    /// Rules of what is to stay.
    Rules(Rules),
    /// Everything of the cluster with this UUID, or etcd cluster id, goes.
    Cluster(String),
}

/// What is asked of `prune`.
#[derive(Debug, Clone)]
pub struct PruneRequest {
    /// What decides.
    pub selection: Selection,
    /// Names of sets that a restore uses.
    pub in_use: Vec<String>,
    /// Whose signatures count: a set without one neither counts nor goes.
    pub trust: Trust,
    /// What signs the record of what is removed; none: it is not signed.
    pub sign: Option<Arc<SigningKey>>,
}

/// A set and what is decided over it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// The decision.
    #[serde(flatten)]
    pub decision: Decision,
    /// When the set was taken.
    pub created: Option<Timestamp>,
    /// Bytes of its files.
    pub size: u64,
}

/// What would be done.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunePlan {
    /// Every set of the store, in its order.
    pub decisions: Vec<Decided>,
    /// What is done with the recorded changes, chain by chain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangesPlan>,
}

/// What was done.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// The decisions it came from.
    #[serde(flatten)]
    pub plan: PrunePlan,
    /// The sets that are gone from the catalogue.
    pub removed: Vec<String>,
    /// Bytes of their files.
    pub freed: u64,
    /// What stopped the rest.
    pub problems: Vec<String>,
    /// Whether the store says that it keeps what is removed, as earlier versions.
    pub versions_kept: bool,
    /// Sets, and chains of recorded changes, that the store lets nobody remove yet.
    pub retained: Vec<Retained>,
    /// The segments of recorded changes that are gone.
    #[serde(skip)]
    pub segments: Segments,
}

/// Segments of recorded changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segments {
    /// How many.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Segments {
    /// Adds those that a plan removes.
    pub(super) fn add(&mut self, plan: &ChangesPlan) {
        self.count += plan.remove;
        self.bytes = self.bytes.saturating_add(plan.freed);
    }
}

/// A set that no rule wants any more and that its store retains.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retained {
    /// Its name.
    pub name: String,
    /// Until when.
    pub until: Timestamp,
}

impl PrunePlan {
    /// Decides over the sets of one store.
    ///
    /// # Errors
    /// [`crate::error::Kind::Usage`] if no rule was given.
    pub fn new(
        sets: &[BackupSet],
        request: &PruneRequest,
        records: &Records,
        now: Timestamp,
    ) -> Result<Self> {
        // What is being made, or was left, is not the catalogue's.
        let sets: Vec<&BackupSet> = sets
            .iter()
            .filter(|set| !set.name.starts_with(STAGING_PREFIX))
            .collect();
        let doubts = doubt::doubts(&sets, &request.trust, records);
        let candidates: Vec<Candidate> = sets
            .iter()
            .zip(doubts)
            .map(|(set, doubt)| candidate(set, &request.in_use, doubt, now))
            .collect();
        let decisions = match &request.selection {
            Selection::Rules(rules) => retention::decide(&candidates, rules, now)?,
            Selection::Cluster(id) => {
                let of_cluster: Vec<&str> = sets
                    .iter()
                    .filter(|set| is_of_cluster(set, id))
                    .map(|set| set.name.as_str())
                    .collect();
                retention::clear(&candidates, |set| of_cluster.contains(&set.name.as_str()))
            }
        };
        let decided = sets.iter().zip(decisions).map(|(set, decision)| Decided {
            decision,
            created: set.created,
            size: set.size,
        });
        Ok(Self {
            decisions: decided.collect(),
            changes: Vec::new(),
        })
    }

    /// The same with the recorded changes of one node: they stay with the backups that they follow.
    /// `origin` is the UUID or the cluster id that the node's folder bears, if it has one.
    pub(super) fn with_changes(
        mut self,
        recordings: &Recordings<'_>,
        sets: &[BackupSet],
        request: &PruneRequest,
        records: &Records,
        now: Timestamp,
    ) -> Self {
        let listed: Vec<&BackupSet> = sets.iter().collect();
        let doubts = doubt::doubts(&listed, &request.trust, records);
        let doubted: BTreeSet<&str> = listed
            .iter()
            .zip(doubts)
            .filter_map(|(set, doubt)| doubt.map(|_| set.name.as_str()))
            .collect();
        let since = match &request.selection {
            Selection::Rules(rules) => rules.moments,
            Selection::Cluster(_) => None,
        };
        let since = since.and_then(|age| now.checked_sub(SignedDuration::try_from(age).ok()?).ok());
        if let Some(since) = since {
            let believed = sets
                .iter()
                .filter(|set| !doubted.contains(set.name.as_str()));
            self.keep_bases(&ranges::needed(recordings.chains, believed, since));
        }
        let gone: BTreeSet<String> = self.names().into_iter().collect();
        let (gone, sets): (Vec<&BackupSet>, Vec<&BackupSet>) =
            sets.iter().partition(|set| gone.contains(&set.name));
        let cleared = match &request.selection {
            Selection::Rules(_) => BTreeSet::new(),
            Selection::Cluster(id) => recordings.of_cluster(id, &gone, &sets),
        };
        let staying = Staying {
            sets,
            doubted,
            since,
            cleared,
        };
        self.changes = ranges::plan(recordings.chains, &staying, recordings.size);
        self
    }

    /// Keeps what recorded changes begin at after a gap; the size of all is a limit still.
    fn keep_bases(&mut self, needed: &[String]) {
        for decided in &mut self.decisions {
            let decision = &mut decided.decision;
            let limited = decision
                .reasons
                .iter()
                .any(|reason| reason.rule == "max-size");
            let goes = decision.verdict == Verdict::Remove && !limited;
            if goes && needed.contains(&decision.name) {
                decision.verdict = Verdict::Keep;
                decision.reasons = vec![Reason {
                    rule: KEEP_MOMENTS,
                    detail: BASE.to_owned(),
                }];
            }
        }
    }

    /// How many segments go.
    pub fn segments(&self) -> usize {
        self.changes.iter().map(|chain| chain.remove).sum()
    }

    /// Whether there is anything to remove.
    pub fn removes(&self) -> bool {
        self.removals().next().is_some() || self.segments() > 0
    }

    /// The sets that go.
    pub fn removals(&self) -> impl Iterator<Item = &Decided> {
        self.decisions
            .iter()
            .filter(|decided| decided.decision.verdict == Verdict::Remove)
    }

    /// The names of those that go.
    pub fn names(&self) -> Vec<String> {
        self.removals()
            .map(|decided| decided.decision.name.clone())
            .collect()
    }
}

/// The recorded changes of one node.
pub(super) struct Recordings<'a> {
    /// The chains, the oldest first.
    pub(super) chains: &'a [Chain],
    /// The bytes of a segment.
    pub(super) size: &'a dyn Fn(&Chain, &Name) -> u64,
    /// The UUID or the cluster id that their folder bears, if it has one.
    pub(super) origin: Option<&'a str>,
}

impl Recordings<'_> {
    /// The etcd clusters of which everything goes with the cluster of this UUID or etcd cluster id:
    /// those of which no backup stays.
    fn of_cluster(&self, id: &str, gone: &[&BackupSet], stay: &[&BackupSet]) -> BTreeSet<String> {
        let etcd_id = |set: &&BackupSet| Some(set.manifest.as_ref()?.cluster.etcd_id.clone());
        let mut cleared: BTreeSet<String> = gone.iter().filter_map(etcd_id).collect();
        cleared.insert(id.to_owned());
        if self.origin == Some(id) {
            cleared.extend(self.chains.iter().map(|chain| chain.cluster_id.clone()));
        }
        for stays in stay.iter().filter_map(etcd_id) {
            cleared.remove(&stays);
        }
        cleared
    }
}

/// What retention needs to know of a set.
fn candidate(
    set: &BackupSet,
    in_use: &[String],
    doubt: Option<Reason>,
    now: Timestamp,
) -> Candidate {
    let standing = match (set.state, &set.manifest, set.number()) {
        (SetState::Good, Some(_), Some(_)) => Standing::Good,
        (SetState::Dirty, Some(_), Some(_)) => Standing::Dirty,
        (SetState::Incomplete, _, Some(_)) => Standing::Incomplete,
        _ => Standing::Unrecognised,
    };
    // A record from the future says nothing of what is known now.
    let known = !set.is_verified_in_future(now);
    let verified = set.verified.as_ref().filter(|_| known);
    let origin = set.manifest.as_ref().map(Manifest::origin);
    Candidate {
        name: set.name.clone(),
        number: set.number().unwrap_or(0),
        sequence: set.sequence(),
        origin: origin.map(|(cluster, node)| (cluster.to_owned(), node.to_owned())),
        created: set.created,
        size: set.size,
        standing,
        verified: verified.is_some_and(|last| last.good),
        rehearsed: set.believed_rehearsal(now).is_some_and(|last| last.good),
        failed: verified.is_some_and(|last| !last.good),
        away: set.name.contains('/'),
        pinned: set.pinned,
        in_use: in_use.contains(&set.name),
        doubt,
        latest: set.latest,
        ocp_version: set
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.cluster.ocp_version.clone()),
    }
}

fn is_of_cluster(set: &BackupSet, id: &str) -> bool {
    set.manifest.as_ref().is_some_and(|manifest| {
        manifest.cluster.etcd_id == id || manifest.cluster.uuid.as_deref() == Some(id)
    })
}

/// What would be done to a local store now.
///
/// # Errors
/// As [`PrunePlan::new`], and those of reading the store.
pub fn plan(context: &Context, store: &LocalStore, request: &PruneRequest) -> Result<PrunePlan> {
    let records = local::read(store.dir(), &request.trust)?.0;
    let sets = catalog::list(store)?;
    planned(context, store, request, &sets, &records)
}

fn planned(
    context: &Context,
    store: &LocalStore,
    request: &PruneRequest,
    sets: &[BackupSet],
    records: &Records,
) -> Result<PrunePlan> {
    let plan = PrunePlan::new(sets, request, records, context.now)?;
    let (chains, _) = ranges::chains(store)?;
    let recordings = Recordings {
        chains: &chains,
        size: &ranges::size_of,
        origin: None,
    };
    Ok(plan.with_changes(&recordings, sets, request, records, context.now))
}

/// Removes from a local store what the rules no longer want; if `agreed` is given, only what
/// is in it.
///
/// # Errors
/// [`crate::error::Kind::Busy`] if the store is locked. What stops a removal is in
/// [`Pruned::problems`]: the catalogue is whole then too.
pub fn run(
    context: &Context,
    store: &LocalStore,
    request: &PruneRequest,
    agreed: Option<&[String]>,
) -> Result<Pruned> {
    let lock = store.lock("prune")?;
    for path in store.remove_leftovers(&lock, &names::is_of_a_set)? {
        context.tell(Event::LeftoverRemoved(path));
    }
    locked(context, store, request, agreed, &lock)
}

/// The same, by one who holds the lock.
pub(super) fn locked(
    context: &Context,
    store: &LocalStore,
    request: &PruneRequest,
    agreed: Option<&[String]>,
    lock: &Lock,
) -> Result<Pruned> {
    let sets = catalog::list(store)?;
    let (records, files) = local::read(store.dir(), &request.trust)?;
    let plan = planned(context, store, request, &sets, &records)?;
    context.cancel.check()?;
    let names: Vec<String> = plan
        .names()
        .into_iter()
        .filter(|name| agreed.is_none_or(|agreed| agreed.contains(name)))
        .collect();
    let numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| BackupId::parse(name).map(|id| id.0))
        .collect();
    // It is said before it is done: what is gone must not look stolen.
    if let Some(record) = records.with_removal(&sets, &names, context.now) {
        local::replace(store.dir(), &record, request.sign.as_deref(), &files)?;
    }
    let (gone, finished) = store.remove(&numbers, lock);
    let removed: Vec<String> = gone
        .into_iter()
        .map(|number| BackupId(number).to_string())
        .collect();
    let freed = plan
        .removals()
        .filter(|decided| removed.contains(&decided.decision.name))
        .fold(0u64, |sum, decided| sum.saturating_add(decided.size));
    let mut problems: Vec<String> = finished.err().iter().map(ToString::to_string).collect();
    // Changes go after the backups whose going makes them useless: a crash in between keeps too much.
    let mut segments = Segments::default();
    if problems.is_empty() && removed.len() == plan.names().len() {
        for chain in &plan.changes {
            match chain.carry_out() {
                Ok(()) => segments.add(chain),
                Err(failure) => problems.push(failure.to_string()),
            }
        }
    }
    Ok(Pruned {
        segments,
        plan,
        removed,
        freed,
        problems,
        versions_kept: false,
        retained: Vec::new(),
    })
}
