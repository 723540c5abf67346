//! `prune` of a store away from the node: each node's sets by themselves.
//!
//! The Manifest goes first, and the set is no backup any more; the claim goes last, so that what
//! was interrupted is recognised, and the next run continues it.

use std::collections::BTreeMap;

use super::catalog;
use super::place::{Place, is_claim};
use crate::backup::Manifest;
use crate::backup::names::MANIFEST;
use crate::context::Context;
use crate::error::Result;
use crate::keep::catalog::BackupSet;
use crate::keep::prune::{PrunePlan, PruneRequest, Pruned};
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
    plan_in(context, store, request, &Scope::All).await
}

async fn plan_in(
    context: &Context,
    store: &dyn Store,
    request: &PruneRequest,
    scope: &Scope<'_>,
) -> Result<PrunePlan> {
    let mut places: BTreeMap<Option<Place>, Vec<BackupSet>> = BTreeMap::new();
    for folder in scope.folders() {
        let sets = catalog::list(store, &folder).await?;
        for set in sets.into_iter().filter(|set| scope.has(set)) {
            places.entry(place_of(&set)).or_default().push(set);
        }
    }
    let mut whole = PrunePlan::new(&[], request, context.now)?;
    for sets in places.values() {
        let plan = PrunePlan::new(sets, request, context.now)?;
        whole.decisions.extend(plan.decisions);
    }
    Ok(whole)
}

/// The place that a set is judged with: where it lies, or where it would be put now if an earlier
/// version put it there.
fn place_of(set: &BackupSet) -> Option<Place> {
    let (lies, _) = Place::split(&set.name)?;
    let manifest = set.manifest.as_ref();
    let earlier = manifest.filter(|manifest| Place::earlier(manifest).as_ref() == Some(&lies));
    Some(earlier.map_or(lies, Place::of))
}

/// Removes what the rules no longer want; where `agreed` is given, only what is in it.
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
    let mut done = Pruned {
        plan: plan_in(context, store, request, scope).await?,
        ..Pruned::default()
    };
    let names: Vec<(String, u64)> = done
        .plan
        .removals()
        .map(|decided| (decided.decision.name.clone(), decided.size))
        .filter(|(name, _)| agreed.is_none_or(|agreed| agreed.contains(name)))
        .collect();
    for (name, size) in names {
        match remove(store, &name).await {
            Ok(kept) => done.versions_kept |= kept,
            Err(failure) => {
                done.problems.push(failure.to_string());
                break;
            }
        }
        done.removed.push(name);
        done.freed = done.freed.saturating_add(size);
    }
    Ok(done)
}

/// Removes a set; says whether its objects stay as earlier versions.
async fn remove(store: &dyn Store, name: &str) -> Result<bool> {
    let listed = catalog::folders(store.list(name).await?);
    let folder = listed.get(name).cloned().unwrap_or_default();
    let kept = match folder.keys().next() {
        Some(object) => store.keeps_versions(&format!("{name}/{object}")).await?,
        None => false,
    };
    store.remove(&format!("{name}/{MANIFEST}")).await?;
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
