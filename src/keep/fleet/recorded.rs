//! What the recorded changes of a node add to what its backups reach.

use jiff::Timestamp;
use serde::Serialize;

use crate::keep::catalog::BackupSet;
use crate::keep::ranges::{Chain, reachable};

/// Revisions that cannot be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// The first one.
    pub from: i64,
    /// The last one.
    pub to: i64,
}

/// What was recorded of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// The first recorded revision.
    pub from: i64,
    /// The last one.
    pub to: i64,
    /// When the last segment arrived, by the recorder's or the store's clock.
    pub until: Timestamp,
    /// Between these revisions, the ones that neither a backup's own history nor recorded changes reach; ascending.
    pub gaps: Vec<Missing>,
}

impl Recorded {
    /// Of chains of segments, and the backups of the same node; none without a chain of a cluster that they are of.
    pub(super) fn of(chains: &[Chain], sets: &[BackupSet]) -> Option<Self> {
        let of_sets = |chain: &&Chain| {
            let manifests = sets.iter().filter_map(|set| set.manifest.as_ref());
            manifests
                .into_iter()
                .any(|of| of.cluster.etcd_id == chain.cluster_id)
        };
        let chains: Vec<Chain> = chains.iter().filter(of_sets).cloned().collect();
        let newest = chains.iter().max_by_key(|chain| chain.last_received)?;
        let mut gaps: Vec<Missing> = Vec::new();
        for cluster in reachable(&chains, sets) {
            let own = || {
                chains
                    .iter()
                    .filter(|chain| chain.cluster_id == cluster.cluster_id)
            };
            let ends = (own().map(Chain::first).min(), own().map(Chain::last).max());
            let (Some(first), Some(last)) = ends else {
                continue;
            };
            // Before and after what was recorded, revisions that no backup reaches are no surprise.
            let within = cluster
                .gaps
                .iter()
                .filter(|gap| gap.after >= first && gap.after < last);
            gaps.extend(within.map(|gap| Missing {
                from: gap.after.saturating_add(1),
                to: gap.until.saturating_sub(1),
            }));
            let reached = cluster.ranges.last().map_or(0, |range| range.to);
            if last > reached {
                // Recorded, and no backup leads there.
                let from = reached.saturating_add(1).max(first);
                gaps.push(Missing { from, to: last });
            }
        }
        gaps.sort();
        Some(Self {
            from: newest.first(),
            to: newest.last(),
            until: newest.last_received,
            gaps,
        })
    }

    /// The better of what two stores have: that which was recorded longer, then the one with fewer gaps.
    pub(super) fn better(self, other: Option<Self>) -> Self {
        let rank = |one: &Self| (one.to, std::cmp::Reverse(one.gaps.len()));
        match other {
            Some(other) if rank(&other) > rank(&self) => other,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::backup::manifest;
    use crate::etcd::segment::Name;
    use crate::keep::catalog::SetState;

    fn chain(cluster: &str, second: i64, names: &[(i64, i64)]) -> Chain {
        let at = Timestamp::from_second(second).unwrap();
        let name = |&(first, last): &(i64, i64)| Name { first, last };
        Chain {
            dir: PathBuf::from(format!("{second}")),
            cluster_id: cluster.to_owned(),
            segments: names.iter().map(name).collect(),
            begun: None,
            encrypted: false,
            last_received: at,
        }
    }

    /// A good backup at a revision, with its history since a compaction.
    fn set(compacted: i64, revision: i64) -> BackupSet {
        let mut manifest = manifest::tests::example();
        manifest.cluster.etcd_id = "c".to_owned();
        manifest.database.kv_revision = Some(revision);
        manifest.database.compact_revision = Some(compacted);
        BackupSet {
            created: Some(manifest.created),
            manifest: Some(manifest),
            ..BackupSet::at(
                format!("backup-{revision}"),
                Path::new("/x"),
                SetState::Good,
            )
        }
    }

    fn gaps(chains: &[Chain], sets: &[BackupSet]) -> Vec<(i64, i64)> {
        let found = Recorded::of(chains, sets).unwrap();
        found.gaps.iter().map(|gap| (gap.from, gap.to)).collect()
    }

    #[test]
    fn what_lies_between_recorded_changes_and_reaches_no_backup_is_a_gap() {
        let sets = [set(5, 10), set(35, 40)];
        assert_eq!(Recorded::of(&[], &sets), None);
        assert_eq!(Recorded::of(&[chain("d", 1, &[(11, 20)])], &sets), None);
        let whole = chain("c", 1, &[(11, 20), (21, 60)]);
        assert_eq!(gaps(std::slice::from_ref(&whole), &sets), []);
        // A segment is missing; the second backup's own history reaches back to 35.
        let holed = chain("c", 1, &[(11, 20), (31, 60)]);
        assert_eq!(gaps(std::slice::from_ref(&holed), &sets), [(21, 34)]);
        // What was recorded before any backup leads nowhere, and is no gap yet.
        let begun = chain("c", 1, &[(20, 60)]);
        assert_eq!(gaps(std::slice::from_ref(&begun), &sets), []);
        // After a break, no backup leads into the second chain.
        let late = chain("c", 2, &[(71, 80)]);
        let found = Recorded::of(&[whole.clone(), late], &sets).unwrap();
        assert_eq!((found.from, found.to), (71, 80));
        assert_eq!(found.gaps, [Missing { from: 61, to: 80 }]);
        // Backups that are taken after the last recorded change are not within it.
        assert_eq!(gaps(&[whole], &[set(5, 10), set(35, 40), set(90, 99)]), []);
    }

    #[test]
    fn of_two_stores_the_one_that_recorded_longer_counts() {
        let sets = [set(5, 10), set(35, 40)];
        let of = |names: &[(i64, i64)]| Recorded::of(&[chain("c", 1, names)], &sets).unwrap();
        let (short, whole, holed) = (of(&[(11, 20)]), of(&[(11, 60)]), of(&[(11, 20), (31, 60)]));
        assert_eq!(short.clone().better(Some(holed.clone())), holed);
        assert_eq!(holed.better(Some(whole.clone())), whole);
        assert_eq!(whole.clone().better(None), whole);
        assert_eq!(whole.clone().better(Some(short)), whole);
    }
}
