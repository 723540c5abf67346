//! `prune` of a store away from the node: each node's sets by themselves.
//!
//! The Manifest goes first, and the set is no backup any more; the claim goes last, so that what
//! was cut off is known for what it is, and the next run goes on with it.

use std::collections::BTreeMap;

use super::catalog;
use super::place::{Place, is_claim};
use crate::backup::names::MANIFEST;
use crate::error::Result;
use crate::ops::Context;
use crate::ops::catalog::BackupSet;
use crate::ops::prune::{PrunePlan, PruneRequest, Pruned};
use crate::store::objects::Store;

/// What would be done now.
///
/// # Errors
/// As [`PrunePlan::new`], and those of the store.
pub async fn plan(
    context: &Context,
    store: &dyn Store,
    request: &PruneRequest,
) -> Result<PrunePlan> {
    plan_below(context, store, request, "").await
}

async fn plan_below(
    context: &Context,
    store: &dyn Store,
    request: &PruneRequest,
    below: &str,
) -> Result<PrunePlan> {
    let sets = catalog::list(store, below).await?;
    let mut places: BTreeMap<Option<Place>, Vec<BackupSet>> = BTreeMap::new();
    for set in sets {
        let place = Place::split(&set.name).map(|(place, _)| place);
        places.entry(place).or_default().push(set);
    }
    let mut whole = PrunePlan::new(&[], request, context.now)?;
    for sets in places.values() {
        let plan = PrunePlan::new(sets, request, context.now)?;
        whole.decisions.extend(plan.decisions);
    }
    Ok(whole)
}

/// Removes what the rules no longer want; where `agreed` is given, only what is in it.
///
/// # Errors
/// Those of [`plan`]. What stops a removal is in [`Pruned::problems`].
pub async fn prune(
    context: &Context,
    store: &dyn Store,
    request: &PruneRequest,
    agreed: Option<&[String]>,
) -> Result<Pruned> {
    context
        .cancel
        .guard(prune_below(context, store, request, agreed, ""))
        .await
}

/// The same among the sets of one set's node alone, given that one's name.
///
/// # Errors
/// As [`prune`].
pub async fn prune_beside(
    context: &Context,
    store: &dyn Store,
    request: &PruneRequest,
    name: &str,
) -> Result<Pruned> {
    let below = name.rsplit_once('/').map_or(name, |(place, _)| place);
    let pruned = prune_below(context, store, request, None, below);
    context.cancel.guard(pruned).await
}

async fn prune_below(
    context: &Context,
    store: &dyn Store,
    request: &PruneRequest,
    agreed: Option<&[String]>,
    below: &str,
) -> Result<Pruned> {
    let mut done = Pruned {
        plan: plan_below(context, store, request, below).await?,
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
