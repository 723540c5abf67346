//! Which recorded changes no backup needs any more, and which backups recorded changes need.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::chain::Chain;
use crate::error::Result;
use crate::etcd::segment::Name;
use crate::keep::catalog::BackupSet;
use crate::sys::fs;

/// What is done with a chain of recorded changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangesPlan {
    /// The directory of the chain; in another store `<cluster>/<node>/changes/<chain>`.
    pub chain: PathBuf,
    /// How many segments are removed.
    pub remove: usize,
    /// Their bytes.
    pub freed: u64,
    /// How many stay.
    pub keep: usize,
    /// Why.
    pub reason: String,
    /// The names of those that are removed: the oldest of the chain.
    #[serde(skip)]
    pub names: Vec<Name>,
}

/// What decides which recorded changes stay.
#[derive(Debug, Clone)]
pub struct Staying<'a> {
    /// The backups that stay.
    pub sets: Vec<&'a BackupSet>,
    /// The names of those whose times are not believed. Such a backup keeps changes, and lets none go.
    pub doubted: BTreeSet<&'a str>,
    /// Only moments from this time on are to be reached; none: all that a backup leads to.
    pub since: Option<Timestamp>,
    /// The clusters, hex, of which everything goes.
    pub cleared: BTreeSet<String>,
}

/// A backup that a chain continues.
struct Base<'a> {
    name: &'a str,
    revision: i64,
    created: Option<Timestamp>,
}

/// The good backups that a chain continues, by revision.
fn bases<'a>(chain: &Chain, sets: impl Iterator<Item = &'a BackupSet>) -> Vec<Base<'a>> {
    let base = |set: &'a BackupSet| {
        let manifest = set.manifest.as_ref()?;
        let revision = manifest.database.kv_revision?;
        // From the revision before its first one on: that backup ends where the chain begins.
        let continued = (chain.first() - 1..=chain.last()).contains(&revision);
        (manifest.cluster.etcd_id == chain.cluster_id && continued).then_some(Base {
            name: &set.name,
            revision,
            created: set.created,
        })
    };
    let mut bases: Vec<Base<'a>> = sets.filter(|set| set.is_good()).filter_map(base).collect();
    bases.sort_by_key(|base| base.revision);
    bases
}

/// The base from which every moment since a time can be reached: the newest that was there then, or else
/// the first.
fn base_since<'b, 'a>(bases: &'b [Base<'a>], since: Timestamp) -> Option<&'b Base<'a>> {
    let before = |base: &&Base<'_>| base.created.is_some_and(|created| created <= since);
    bases.iter().rev().find(before).or(bases.first())
}

/// The backups without which moments since a time could not be reached.
pub fn needed<'a>(
    chains: &[Chain],
    sets: impl Iterator<Item = &'a BackupSet> + Clone,
    since: Timestamp,
) -> Vec<String> {
    let recent = chains.iter().filter(|chain| chain.last_received >= since);
    recent
        .filter_map(|chain| {
            let bases = bases(chain, sets.clone());
            base_since(&bases, since).map(|base| base.name.to_owned())
        })
        .collect()
}

/// What is done with each chain of one node, the oldest first. `size` tells the bytes of a segment.
pub fn plan(
    chains: &[Chain],
    staying: &Staying<'_>,
    size: &dyn Fn(&Chain, &Name) -> u64,
) -> Vec<ChangesPlan> {
    let newest = chains.last().map(|chain| &chain.dir);
    let one = |chain: &Chain| {
        let cleared = staying.cleared.contains(&chain.cluster_id);
        let (until, reason) = match cleared {
            true => (chain.last(), "its cluster goes".to_owned()),
            false => staying.until(chain),
        };
        let mut names = chain.segments.clone();
        // A recorder resumes at the last one.
        if newest == Some(&chain.dir) && !cleared {
            names.pop();
        }
        names.retain(|name| name.last <= until);
        ChangesPlan {
            chain: chain.dir.clone(),
            remove: names.len(),
            freed: names.iter().map(|name| size(chain, name)).sum(),
            keep: chain.segments.len() - names.len(),
            reason,
            names,
        }
    };
    chains.iter().map(one).collect()
}

impl Staying<'_> {
    /// The last revision of a chain that nothing needs, and why. What only a backup in doubt makes
    /// useless stays.
    fn until(&self, chain: &Chain) -> (i64, String) {
        let believed = |set: &&BackupSet| !self.doubted.contains(set.name.as_str());
        let all = self.until_by(chain, &self.sets);
        let sets: Vec<&BackupSet> = self.sets.iter().copied().filter(believed).collect();
        let believed = self.until_by(chain, &sets);
        if believed.0 < all.0 { believed } else { all }
    }

    fn until_by(&self, chain: &Chain, sets: &[&BackupSet]) -> (i64, String) {
        let bases = bases(chain, sets.iter().copied());
        let base = match self.since {
            Some(since) => base_since(&bases, since),
            None => bases.first(),
        };
        let later = sets.iter().any(|set| {
            let manifest = set.manifest.as_ref();
            manifest.is_some_and(|manifest| {
                manifest.cluster.etcd_id == chain.cluster_id
                    && manifest.database.kv_revision > Some(chain.last())
            })
        });
        match base {
            Some(base) => (
                base.revision,
                format!("{} has what comes before", base.name),
            ),
            None if later => (
                chain.last(),
                "no backup that stays is continued by it".to_owned(),
            ),
            None => (0, "the next backup makes it reachable".to_owned()),
        }
    }
}

/// The bytes of a segment in a directory.
pub fn size_of(chain: &Chain, name: &Name) -> u64 {
    let path = chain.dir.join(name.to_string());
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

impl ChangesPlan {
    /// Removes the segments, the oldest first, and the directory once it is empty. So a crash leaves a
    /// chain that begins later.
    ///
    /// # Errors
    /// [`Kind::Store`](crate::error::Kind::Store).
    pub fn carry_out(&self) -> Result<()> {
        for name in &self.names {
            fs::unlink(&self.chain.join(name.to_string()))?;
        }
        if self.keep == 0 {
            fs::remove_empty_dir(&self.chain)?;
        } else if !self.names.is_empty() {
            fs::sync_dir(&self.chain)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::backup::manifest::tests::example;
    use crate::keep::catalog::SetState;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn set(name: &str, revision: i64, created: i64) -> BackupSet {
        let mut manifest = example();
        manifest.cluster.etcd_id = "c".to_owned();
        manifest.database.kv_revision = Some(revision);
        BackupSet {
            created: Some(at(created)),
            manifest: Some(manifest),
            ..BackupSet::at(name.to_owned(), Path::new("/x"), SetState::Good)
        }
    }

    fn chain(dir: &str, names: &[(i64, i64)], last: i64) -> Chain {
        Chain::of_segments(dir, names, last)
    }

    #[test]
    fn segments_and_the_base_that_they_need_are_kept_together() {
        let chains = [
            chain("a", &[(5, 9), (10, 14)], 100),
            chain("b", &[(20, 29), (30, 39)], 400),
        ];
        let sets = [
            set("s1", 4, 50),
            set("s2", 12, 90),
            set("s3", 25, 200),
            set("s4", 39, 390),
        ];
        let all = |stays: &dyn Fn(&str) -> bool, since: Option<i64>, doubted: Option<&str>| {
            let staying = Staying {
                sets: sets.iter().filter(|set| stays(&set.name)).collect(),
                doubted: sets
                    .iter()
                    .map(|set| set.name.as_str())
                    .filter(|name| Some(*name) == doubted)
                    .collect(),
                since: since.map(at),
                cleared: BTreeSet::new(),
            };
            let plans = plan(&chains, &staying, &|_, _| 7);
            assert!(
                plans
                    .iter()
                    .all(|plan| plan.freed == 7 * plan.remove as u64)
            );
            plans.iter().map(|plan| plan.remove).collect::<Vec<_>>()
        };
        let removed = |stays: &dyn Fn(&str) -> bool, since| all(stays, since, None);
        assert_eq!(removed(&|_| true, None), [0, 0]);
        // Without the first base, its changes lead nowhere; the last segment of all stays.
        assert_eq!(removed(&|name| name != "s1", None), [1, 0]);
        assert_eq!(removed(&|name| name == "s4", None), [2, 1]);
        assert_eq!(removed(&|_| false, None), [0, 0]);
        // With a window, what is older goes though a backup of then stays.
        assert_eq!(removed(&|_| true, Some(395)), [1, 1]);
        assert_eq!(removed(&|_| true, Some(150)), [1, 0]);
        // One whose time is not believed makes nothing useless.
        assert_eq!(all(&|_| true, Some(395), Some("s4")), [1, 0]);
        assert_eq!(all(&|name| name != "s1", None, Some("s2")), [1, 0]);
        let needed = |since| needed(&chains, sets.iter(), at(since));
        assert_eq!(needed(60), ["s1", "s3"]);
        assert_eq!(needed(210), ["s3"]);
        assert_eq!(needed(500), Vec::<String>::new());
        // With its cluster everything goes.
        let staying = Staying {
            sets: Vec::new(),
            doubted: BTreeSet::new(),
            since: None,
            cleared: BTreeSet::from(["c".to_owned()]),
        };
        let plans = plan(&chains, &staying, &|_, _| 1);
        assert!(plans.iter().all(|plan| (plan.remove, plan.keep) == (2, 0)));
    }
}
