//! Which clusters a cluster was before: a restore gives it a new id, and it stays the same cluster
//! to its older backups.
//!
//! Two witnesses: the journals of this node's restores, which a Manifest repeats for other nodes;
//! and the uid of the namespace `kube-system`, which is made once in a cluster's life.

use std::path::PathBuf;

use serde::Deserialize;

use crate::backup::manifest::Manifest;
use crate::error::Result;
use crate::journal::{Progress, registry};
use crate::node::layout::NodeLayout;

/// The kind of a restore's journal.
pub const RESTORE: &str = "restore";

/// What a restore's journal says of the cluster that it was made from.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct About {
    #[serde(default)]
    former_clusters: Vec<String>,
    set: Source,
}

#[derive(Deserialize)]
struct Source {
    dir: PathBuf,
}

/// The ids that the cluster of this id had before, by this node's journals, the latest first.
///
/// # Errors
/// Those of listing the operations.
pub fn former_ids(layout: &NodeLayout, id: &str) -> Result<Vec<String>> {
    let found = registry::list(&layout.state())?;
    let restores: Vec<(String, Vec<String>)> = found
        .iter()
        .rev()
        .filter_map(|found| {
            let progress = found.progress.as_ref().ok()?;
            let restore = progress.begin.kind == RESTORE && progress.known.completed;
            restore.then(|| step(progress)).flatten()
        })
        .collect();
    Ok(ancestors(&restores, id))
}

/// The id that a restore made, and those that it was made from.
fn step(progress: &Progress) -> Option<(String, Vec<String>)> {
    let made = progress.known.field("clusterId")?.as_str()?.to_owned();
    let about = About::deserialize(&progress.begin.about).ok()?;
    let mut from = about.former_clusters;
    if from.is_empty() {
        // Journals of releases that did not say so: the set says it, while it is there.
        let path = about.set.dir.join("backup.json");
        let limit = crate::backup::manifest::MAX_BYTES;
        let bytes = crate::sys::small::read(&path, limit).ok().flatten()?;
        from.extend(of_set(&Manifest::from_bytes(&bytes, &path).ok()?));
    }
    Some((made, from))
}

/// All that leads to an id, each once.
fn ancestors(restores: &[(String, Vec<String>)], id: &str) -> Vec<String> {
    let mut todo = vec![id.to_owned()];
    let mut found: Vec<String> = Vec::new();
    while let Some(id) = todo.pop() {
        for (_, from) in restores.iter().filter(|(made, _)| *made == id) {
            for former in from {
                if !found.contains(former) {
                    found.push(former.clone());
                    todo.push(former.clone());
                }
            }
        }
    }
    found.retain(|former| former != id);
    found
}

/// The id that a set's cluster had, and those before it.
pub(crate) fn of_set(manifest: &Manifest) -> Vec<String> {
    let cluster = &manifest.cluster;
    let former = cluster.former_ids.iter();
    std::iter::once(&cluster.etcd_id)
        .chain(former)
        .cloned()
        .collect()
}

/// Whether a set is of the cluster that this node belongs to, or of what that one was before. A set
/// of this very node may also be of what it was until a rollback.
pub(crate) fn is_own(manifest: &Manifest, node: &str, id: &str, former: &[String]) -> bool {
    let set = of_set(manifest);
    let taken_here = manifest.node.name.as_deref() == Some(node);
    former.contains(&manifest.cluster.etcd_id)
        || (taken_here && set.iter().any(|one| one == id || former.contains(one)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_restore_leads_to_what_it_was_made_from() {
        let restore = |made: &str, from: &[&str]| {
            let from = from.iter().map(|id| (*id).to_owned()).collect();
            (made.to_owned(), from)
        };
        let restores = [
            restore("c", &["b", "a"]),
            restore("b", &["a"]),
            restore("x", &["y"]),
            // What leads in a circle ends too.
            restore("a", &["c"]),
        ];
        assert_eq!(ancestors(&restores, "c"), ["b", "a"]);
        assert_eq!(ancestors(&restores, "x"), ["y"]);
        assert!(ancestors(&restores, "y").is_empty());
    }
}
