//! `prune` of a store away from the node: each node's sets by themselves, and the changes recorded there.
//!
//! The Manifest goes first, and the set is not a backup any more; the claim goes last, so that what
//! was interrupted is recognised, and the next run continues it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::catalog;
use super::place::{Place, is_claim};
use super::recordings::Recordings;
use super::records;
use crate::backup::Manifest;
use crate::backup::names::MANIFEST;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::keep::catalog::BackupSet;
use crate::keep::chain::record::Records;
use crate::keep::prune::{self, PrunePlan, PruneRequest, Pruned, Retained};
use crate::store::objects::Store;

/// What is looked at.
enum Scope<'a> {
    /// The whole store.
    All,
    /// The node of this Manifest, wherever its sets are.
    Node(&'a Manifest),
}

impl Scope<'_> {
    /// The folders to list.
    fn folders(&self) -> Vec<String> {
        match self {
            Self::All => vec![String::new()],
            Self::Node(manifest) => {
                let places = Place::earlier(manifest)
                    .into_iter()
                    .chain([Place::of(manifest)]);
                places.map(|place| place.to_string()).collect()
            }
        }
    }

    /// Whether a set is to be judged: two nodes could share a folder once.
    fn has(&self, set: &BackupSet) -> bool {
        match (self, &set.manifest) {
            (Self::Node(own), Some(manifest)) => manifest.origin() == own.origin(),
            _ => true,
        }
    }
}

/// What would be done now.
///
/// # Errors
/// As [`PrunePlan::new`], and those of the store.
pub async fn plan_prune(
    context: &Context,
    store: &dyn Store,
    request: &PruneRequest,
) -> Result<PrunePlan> {
    let there = There::look(store, request, &Scope::All).await?;
    there.plan(context, request)
}

/// What is there of a store to be judged.
struct There {
    /// The sets, by the place that they are judged with.
    places: BTreeMap<Option<Place>, Vec<BackupSet>>,
    /// The recorded changes, by the folder of their node.
    recordings: BTreeMap<Place, Recordings>,
    /// What was pruned before, as far as its records count.
    records: Records,
    /// The records' names.
    names: Vec<String>,
}

impl There {
    async fn look(store: &dyn Store, request: &PruneRequest, scope: &Scope<'_>) -> Result<Self> {
        let mut there = Self {
            places: BTreeMap::new(),
            recordings: BTreeMap::new(),
            records: Records::default(),
            names: Vec::new(),
        };
        for folder in scope.folders() {
            let listing = catalog::listing(store, &folder).await?;
            for set in listing.sets.into_iter().filter(|set| scope.has(set)) {
                there.places.entry(place_of(&set)).or_default().push(set);
            }
            there.names.extend(listing.records);
            there.recordings.extend(listing.recordings);
        }
        there.records = records::read(store, &there.names, &request.trust).await?;
        Ok(there)
    }

    /// The plan of each node, by the folder that its sets are judged with.
    fn plans(
        &self,
        context: &Context,
        request: &PruneRequest,
    ) -> Result<Vec<(Option<&Place>, PrunePlan)>> {
        let (now, records) = (context.now, &self.records);
        // Changes may be left alone of a node.
        let alone = self.recordings.keys().map(|place| Some(place.clone()));
        let alone: Vec<Option<Place>> = alone
            .filter(|place| !self.places.contains_key(place))
            .collect();
        let none = Vec::new();
        let sets = self
            .places
            .iter()
            .map(|(place, sets)| (place.as_ref(), sets));
        let mut plans = Vec::new();
        for (place, sets) in sets.chain(alone.iter().map(|place| (place.as_ref(), &none))) {
            let mut plan = PrunePlan::new(sets, request, records, now)?;
            if let Some((place, recordings)) =
                place.and_then(|place| self.recordings.get_key_value(place))
            {
                let of_node = prune::Recordings {
                    chains: &recordings.chains,
                    size: &|chain, name| recordings.size(chain, name),
                    origin: Some(place.cluster()),
                };
                plan = plan.with_changes(&of_node, sets, request, records, now);
            }
            let place = place.and_then(|place| self.recordings.get_key_value(place));
            plans.push((place.map(|(place, _)| place), plan));
        }
        Ok(plans)
    }

    /// The plans of all nodes as one.
    fn plan(&self, context: &Context, request: &PruneRequest) -> Result<PrunePlan> {
        let mut whole = PrunePlan::new(&[], request, &self.records, context.now)?;
        for (_, plan) in self.plans(context, request)? {
            whole.decisions.extend(plan.decisions);
            whole.changes.extend(plan.changes);
        }
        Ok(whole)
    }

    /// Removes the recorded changes of the nodes of which every set is gone that was to go: a set that
    /// stays may need them.
    async fn remove_changes(
        &self,
        context: &Context,
        store: &dyn Store,
        request: &PruneRequest,
        done: &mut Pruned,
    ) -> Result<()> {
        for (place, plan) in self.plans(context, request)? {
            let mut names = plan.names().into_iter();
            let recordings = place.and_then(|place| self.recordings.get(place));
            let Some(recordings) =
                recordings.filter(|_| names.all(|name| done.removed.contains(&name)))
            else {
                continue;
            };
            for chain in plan.changes.iter().filter(|chain| chain.remove > 0) {
                if let Some(first) = recordings.first(chain) {
                    done.versions_kept |= store.keeps_versions(first).await?;
                }
                match recordings.carry_out(store, chain).await {
                    Ok(()) => done.segments.add(chain),
                    Err((object, failure)) => {
                        match retained(store, &object, &failure, context.now).await {
                            Some(until) => {
                                let name = chain.chain.display().to_string();
                                done.retained.push(Retained { name, until });
                            }
                            None => done.problems.push(failure.to_string()),
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Records what is about to be removed, in each folder that it is in.
    async fn record(
        &self,
        context: &Context,
        store: &dyn Store,
        request: &PruneRequest,
        names: &[(String, u64)],
    ) -> Result<()> {
        let names: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
        for sets in self.places.values() {
            let Some(record) = self.records.with_removal(sets, &names, context.now) else {
                continue;
            };
            let folder = names
                .iter()
                .find(|name| sets.iter().any(|set| set.name == **name));
            if let Some((folder, _)) = folder.and_then(|name| name.rsplit_once('/')) {
                let key = request.sign.as_deref();
                records::replace(store, folder, &record, key, &self.names).await?;
            }
        }
        Ok(())
    }
}

/// The place that a set is judged with: where it is, or where it would be put now if an earlier
/// version put it there.
fn place_of(set: &BackupSet) -> Option<Place> {
    let (lies, _) = Place::split(&set.name)?;
    let manifest = set.manifest.as_ref();
    let earlier = manifest.filter(|manifest| Place::earlier(manifest).as_ref() == Some(&lies));
    Some(earlier.map_or(lies, Place::of))
}

/// Removes what the rules no longer want; if `agreed` is given, only what is in it.
///
/// # Errors
/// Those of [`plan_prune`]. What stops a removal is in [`Pruned::problems`].
pub async fn prune(
    context: &Context,
    store: &dyn Store,
    request: &PruneRequest,
    agreed: Option<&[String]>,
) -> Result<Pruned> {
    let pruned = prune_in(context, store, request, agreed, &Scope::All);
    context.cancel.guard(pruned).await
}

/// The same among the sets of one node alone, given the Manifest of one of its sets.
///
/// # Errors
/// As [`prune`].
pub async fn prune_beside(
    context: &Context,
    store: &dyn Store,
    request: &PruneRequest,
    manifest: &Manifest,
) -> Result<Pruned> {
    let scope = Scope::Node(manifest);
    let pruned = prune_in(context, store, request, None, &scope);
    context.cancel.guard(pruned).await
}

async fn prune_in(
    context: &Context,
    store: &dyn Store,
    request: &PruneRequest,
    agreed: Option<&[String]>,
    scope: &Scope<'_>,
) -> Result<Pruned> {
    let there = There::look(store, request, scope).await?;
    let mut done = Pruned {
        plan: there.plan(context, request)?,
        ..Pruned::default()
    };
    let names: Vec<(String, u64)> = done
        .plan
        .removals()
        .map(|decided| (decided.decision.name.clone(), decided.size))
        .filter(|(name, _)| agreed.is_none_or(|agreed| agreed.contains(name)))
        .collect();
    // It is said before it is done: what is gone must not look stolen.
    there.record(context, store, request, &names).await?;
    for (name, size) in names {
        match remove(store, &name).await {
            Ok(kept) => done.versions_kept |= kept,
            Err(failure) => match retained(store, &manifest(&name), &failure, context.now).await {
                // Another may be older, and free to go.
                Some(until) => {
                    done.retained.push(Retained { name, until });
                    continue;
                }
                None => {
                    done.problems.push(failure.to_string());
                    break;
                }
            },
        }
        done.removed.push(name);
        done.freed = done.freed.saturating_add(size);
    }
    // Changes go after the backups whose going makes them useless: a crash in between keeps too much.
    if done.problems.is_empty() {
        there
            .remove_changes(context, store, request, &mut done)
            .await?;
    }
    Ok(done)
}

/// The object that makes a set one.
fn manifest(set: &str) -> String {
    format!("{set}/{MANIFEST}")
}

/// Until when a store keeps an object that it would not remove, if it tells: in its refusal (Google Cloud
/// Storage), or when it is asked.
async fn retained(
    store: &dyn Store,
    object: &str,
    refusal: &Failure,
    now: Timestamp,
) -> Option<Timestamp> {
    let told = told_until(&refusal.to_string());
    let until = match told {
        Some(until) => Some(until),
        // What cannot be asked is told by the refusal.
        None => store.retained_until(object).await.ok()?,
    };
    until.filter(|until| *until > now)
}

/// The time in "... cannot be deleted or overwritten until TIME".
fn told_until(text: &str) -> Option<Timestamp> {
    text.split(" until ").skip(1).find_map(|rest| {
        let word: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '+'))
            .collect();
        word.trim_end_matches('.').parse().ok()
    })
}

/// Removes a set; says whether its objects stay as earlier versions.
async fn remove(store: &dyn Store, name: &str) -> Result<bool> {
    let listed = catalog::folders(store.list(name).await?);
    let folder = listed.get(name).cloned().unwrap_or_default();
    let kept = match folder.keys().next() {
        Some(object) => store.keeps_versions(&format!("{name}/{object}")).await?,
        None => false,
    };
    // First: whatever comes in between, what has no Manifest is not taken for a backup.
    store.remove(&manifest(name)).await?;
    let (claims, others): (Vec<&String>, Vec<&String>) =
        folder.keys().partition(|object| is_claim(object));
    for object in others.into_iter().chain(claims) {
        if object != MANIFEST {
            store.remove(&format!("{name}/{object}")).await?;
        }
    }
    store.remove_folder(name).await?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_names_a_time_is_read() {
        let told = "removing gs://b/x: Object 'b/x' is subject to bucket's retention policy or object retention and cannot be deleted or overwritten until 2026-12-24T10:00:00.000-08:00.";
        assert_eq!(
            told_until(told).unwrap().to_string(),
            "2026-12-24T18:00:00Z"
        );
        for text in ["", "access is denied", "wait until then", "until 2026"] {
            assert_eq!(told_until(text), None, "{text}");
        }
    }
}
