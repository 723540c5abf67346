//! Which recorded changes no backup needs any more, and which backups recorded changes need.

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
    /// The directory of the chain.
    pub chain: PathBuf,
    /// How many segments are removed.
    pub remove: usize,
    /// Their bytes.
    pub freed: u64,
    /// How many stay.
    pub keep: usize,
    /// Why.
    pub reason: String,
    /// The names of those that are removed.
    #[serde(skip)]
    pub names: Vec<Name>,
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
pub fn needed(chains: &[Chain], sets: &[BackupSet], since: Timestamp) -> Vec<String> {
    let recent = chains.iter().filter(|chain| chain.last_received >= since);
    recent
        .filter_map(|chain| {
            let bases = bases(chain, sets.iter());
            base_since(&bases, since).map(|base| base.name.to_owned())
        })
        .collect()
}

/// What is done with each chain, if of the backups those stay that `stays` says. With `since`, only moments
/// from then on are to be reached.
pub fn plan(
    chains: &[Chain],
    sets: &[BackupSet],
    stays: &dyn Fn(&str) -> bool,
    since: Option<Timestamp>,
) -> Vec<ChangesPlan> {
    let newest = chains.last().map(|chain| &chain.dir);
    let one = |chain: &Chain| {
        let staying = || sets.iter().filter(|set| stays(&set.name));
        let bases = bases(chain, staying());
        let base = match since {
            Some(since) => base_since(&bases, since),
            None => bases.first(),
        };
        let later = staying().any(|set| {
            let manifest = set.manifest.as_ref();
            manifest.is_some_and(|manifest| {
                manifest.cluster.etcd_id == chain.cluster_id
                    && manifest.database.kv_revision > Some(chain.last())
            })
        });
        let (until, reason) = match base {
            Some(base) => (
                base.revision,
                format!("{} has what comes before", base.name),
            ),
            None if later => (
                chain.last(),
                "no backup that stays is continued by it".to_owned(),
            ),
            None => (0, "the next backup makes it reachable".to_owned()),
        };
        let mut names = chain.segments.clone();
        // A recorder resumes at the last one.
        if newest == Some(&chain.dir) {
            names.pop();
        }
        names.retain(|name| name.last <= until);
        let size = |name: &Name| {
            let path = chain.dir.join(name.to_string());
            std::fs::metadata(path).map_or(0, |meta| meta.len())
        };
        ChangesPlan {
            chain: chain.dir.clone(),
            remove: names.len(),
            freed: names.iter().map(size).sum(),
            keep: chain.segments.len() - names.len(),
            reason,
            names,
        }
    };
    chains.iter().map(one).collect()
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
        Chain::of_segments(dir, names, (0, last))
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
        let removed = |stays: &dyn Fn(&str) -> bool, since: Option<i64>| -> Vec<usize> {
            let plans = plan(&chains, &sets, stays, since.map(at));
            plans.iter().map(|plan| plan.remove).collect()
        };
        assert_eq!(removed(&|_| true, None), [0, 0]);
        // Without the first base, its changes lead nowhere; the last segment of all stays.
        assert_eq!(removed(&|name| name != "s1", None), [1, 0]);
        assert_eq!(removed(&|name| name == "s4", None), [2, 1]);
        assert_eq!(removed(&|_| false, None), [0, 0]);
        // With a window, what is older goes though a backup of then stays.
        assert_eq!(removed(&|_| true, Some(395)), [1, 1]);
        assert_eq!(removed(&|_| true, Some(150)), [1, 0]);
        assert_eq!(needed(&chains, &sets, at(60)), ["s1", "s3"]);
        assert_eq!(needed(&chains, &sets, at(210)), ["s3"]);
        assert_eq!(needed(&chains, &sets, at(500)), Vec::<String>::new());
    }
}
