//! The chain that a node's backups form: each Manifest names the backup before it by its hash.
//!
//! What the chain shows that a single backup cannot: that one is missing, that one was replaced by another of
//! its name, that one claims another time than its neighbours allow. What `prune` removes is recorded
//! ([`record`]), so that it is not missing.

pub mod check;
pub mod doubt;
pub mod local;
pub mod record;

use jiff::SignedDuration;

use super::catalog::BackupSet;
use crate::backup::manifest::{Manifest, Previous};

/// How far the time of a backup may be from its arrival in a store, by that store's clock.
pub const ARRIVAL: SignedDuration = SignedDuration::from_hours(1);

/// The newest backup that a node's own store took, as the next one names it. One that was brought from
/// elsewhere is not part of this store's chain.
pub fn newest(sets: &[BackupSet], node: &str) -> Option<Previous> {
    let own = sets.iter().filter(|set| {
        let of_node = |manifest: &Manifest| manifest.origin().1 == node;
        set.manifest.as_ref().is_some_and(of_node)
    });
    let last = own
        .filter(|set| set.sequence().is_some())
        .max_by_key(|set| set.sequence())?;
    Some(Previous {
        id: last.name.clone(),
        sha256: last.manifest_sha256.clone()?,
    })
}

/// The backup before another, as its Manifest names it.
fn previous(set: &BackupSet) -> Option<&Previous> {
    set.manifest.as_ref()?.previous.as_ref()
}
