//! `verify --chain`: what is missing from a store, replaced, or dated otherwise than its neighbours allow.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::record::Records;
use super::{ARRIVAL, previous};
use crate::backup::manifest::Previous;
use crate::backup::names::BackupId;
use crate::backup::newest::TOLERANCE;
use crate::finding::Severity;
use crate::keep::catalog::BackupSet;

/// A backup that another names is neither there nor recorded as removed.
pub const MISSING: &str = "missing-backup";
/// A backup that another names is there with another Manifest.
pub const REPLACED: &str = "replaced-backup";
/// A backup's time contradicts its arrival, or the backup before it.
pub const REDATED: &str = "redated-backup";
/// Two backups name the same one as the one before them, or a number is not above the one before it.
pub const REORDERED: &str = "reordered-backup";
/// A backup names none before it, although there is one: a new store, or a chain that was cut.
pub const RESTARTED: &str = "chain-restarted";

/// The chain of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainReport {
    /// The cluster.
    pub cluster: String,
    /// The node.
    pub node: String,
    /// Whether nothing is wrong: no finding is an error.
    pub good: bool,
    /// Backups of it that are there.
    pub backups: usize,
    /// Those of them that no chain has: taken by a version that named none before.
    pub unchained: usize,
    /// Backups that it leads to and that prune removed.
    pub pruned: usize,
    /// What was found.
    pub findings: Vec<ChainFinding>,
}

/// One thing that is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainFinding {
    /// Its stable name.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The backup, as the store calls it, at which it was found.
    pub set: String,
    /// What was expected and found, in words.
    pub detail: String,
}

/// Follows the chains of all backups of a store.
pub fn check(sets: &[BackupSet], records: &Records) -> Vec<ChainReport> {
    let store = Store::new(sets, records);
    let mut nodes: BTreeMap<(&str, &str), Vec<&BackupSet>> = BTreeMap::new();
    for &set in store.by_hash.values() {
        if let Some(manifest) = &set.manifest {
            nodes.entry(manifest.origin()).or_default().push(set);
        }
    }
    nodes
        .into_iter()
        .map(|((cluster, node), sets)| store.of_node(cluster, node, sets))
        .collect()
}

/// A store's backups, each once: two copies of one are one.
struct Store<'a> {
    by_hash: BTreeMap<&'a str, &'a BackupSet>,
    records: &'a Records,
    /// How many backups name each one as the one before.
    named: BTreeMap<&'a str, usize>,
}

impl<'a> Store<'a> {
    fn new(sets: &'a [BackupSet], records: &'a Records) -> Self {
        let by_hash: BTreeMap<&str, &BackupSet> = sets
            .iter()
            .filter_map(|set| Some((set.manifest_sha256.as_deref()?, set)))
            .collect();
        let mut named: BTreeMap<&str, usize> = BTreeMap::new();
        for previous in by_hash.values().filter_map(|set| previous(set)) {
            *named.entry(&previous.sha256).or_default() += 1;
        }
        Self {
            by_hash,
            records,
            named,
        }
    }

    fn of_node(&self, cluster: &str, node: &str, mut sets: Vec<&'a BackupSet>) -> ChainReport {
        sets.sort_by_key(|set| (number(set), set.created));
        let mut findings = Vec::new();
        let mut pruned = BTreeSet::new();
        let mut unchained = 0;
        for set in &sets {
            self.distrust(set, &mut findings);
            self.arrival(set, &mut findings);
            match previous(set) {
                Some(previous) => {
                    self.link(set, previous, &sets, &mut findings);
                    self.walk(set, previous, &mut pruned, &mut findings);
                }
                None => {
                    self.start(set, &sets, &mut findings);
                    let is_named = set.manifest_sha256.as_deref();
                    unchained +=
                        usize::from(!is_named.is_some_and(|sha| self.named.contains_key(sha)));
                }
            }
        }
        ChainReport {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            good: findings
                .iter()
                .all(|found| found.severity != Severity::Error),
            backups: sets.len(),
            unchained,
            pruned: pruned.len(),
            findings,
        }
    }

    fn distrust(&self, set: &BackupSet, findings: &mut Vec<ChainFinding>) {
        if let Some(distrust) = &set.distrust {
            findings.push(error(distrust.name, set, distrust.why.clone()));
        }
    }

    fn arrival(&self, set: &BackupSet, findings: &mut Vec<ChainFinding>) {
        let (Some(created), Some(arrived)) = (set.created, set.arrived) else {
            return;
        };
        if created.duration_since(arrived) > ARRIVAL {
            let detail = format!("it says {created}, but it arrived at {arrived}");
            findings.push(error(REDATED, set, detail));
        }
    }

    /// The backup before one, if it is there.
    fn link(
        &self,
        set: &BackupSet,
        previous: &Previous,
        of_node: &[&BackupSet],
        findings: &mut Vec<ChainFinding>,
    ) {
        if self
            .named
            .get(previous.sha256.as_str())
            .is_some_and(|&times| times > 1)
        {
            let detail = format!("another backup follows {}, too", previous.id);
            findings.push(error(REORDERED, set, detail));
        }
        let before = self.by_hash.get(previous.sha256.as_str());
        let (number_before, created_before) = match before {
            Some(before) => (number(before), before.created),
            None => match self.records.get(&previous.sha256) {
                Some(removed) => (BackupId::parse(&removed.id), Some(removed.created)),
                None => {
                    let named = |other: &&&BackupSet| id(other) == Some(previous.id.as_str());
                    let finding = match of_node.iter().find(named) {
                        Some(other) => error(
                            REPLACED,
                            other,
                            format!(
                                "{} was taken after a {} with another Manifest",
                                set.name, previous.id
                            ),
                        ),
                        None => error(
                            MISSING,
                            set,
                            format!(
                                "{}, the backup before it, is not here, and no record says that it was pruned",
                                previous.id
                            ),
                        ),
                    };
                    findings.push(finding);
                    return;
                }
            },
        };
        if number_before >= number(set) {
            let detail = format!("it follows {}, whose number is not lower", previous.id);
            findings.push(error(REORDERED, set, detail));
        }
        redated(set, previous, created_before, findings);
    }

    /// Follows what was removed to the next backup that is there, or to where nothing is known any more.
    fn walk(
        &self,
        set: &BackupSet,
        previous: &Previous,
        pruned: &mut BTreeSet<String>,
        findings: &mut Vec<ChainFinding>,
    ) {
        let mut next = previous;
        let mut steps = 0;
        while let Some(removed) = self.records.get(&next.sha256) {
            // A forged record could lead in a circle: no walk is longer than the records.
            if self.by_hash.contains_key(next.sha256.as_str()) || steps > self.records.len() {
                return;
            }
            steps += 1;
            pruned.insert(next.sha256.clone());
            let Some(before) = &removed.previous else {
                return;
            };
            let known = self.by_hash.contains_key(before.sha256.as_str())
                || self.records.get(&before.sha256).is_some();
            // What is before the last one that is needed is not recorded.
            if !known {
                let detail = format!(
                    "{}, the backup before {} that was pruned, is not here, and no record says that it was pruned",
                    before.id, removed.id
                );
                findings.push(error(MISSING, set, detail));
            }
            next = before;
        }
    }

    /// A backup that names none before it.
    fn start(&self, set: &BackupSet, of_node: &[&BackupSet], findings: &mut Vec<ChainFinding>) {
        let chained =
            |other: &&&BackupSet| previous(other).is_some() && other.created < set.created;
        if let Some(other) = of_node.iter().find(chained) {
            findings.push(ChainFinding {
                severity: Severity::Warning,
                ..error(RESTARTED, set, format!(
                    "it names no backup before it, although {} is older: a new store, or a chain that was cut",
                    other.name
                ))
            });
        }
    }
}

fn redated(
    set: &BackupSet,
    previous: &Previous,
    created_before: Option<Timestamp>,
    findings: &mut Vec<ChainFinding>,
) {
    let (Some(created), Some(before)) = (set.created, created_before) else {
        return;
    };
    if before.duration_since(created) > TOLERANCE {
        let detail = format!(
            "it says {created}, but follows {}, which says {before}",
            previous.id
        );
        findings.push(error(REDATED, set, detail));
    }
}

fn error(name: &'static str, set: &BackupSet, detail: String) -> ChainFinding {
    ChainFinding {
        name,
        severity: Severity::Error,
        set: set.name.clone(),
        detail,
    }
}

/// The id that the node's store gave it.
fn id(set: &BackupSet) -> Option<&str> {
    set.manifest.as_ref().map(|manifest| manifest.id.as_str())
}

fn number(set: &BackupSet) -> Option<BackupId> {
    BackupId::parse(id(set)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::backup::manifest::tests::example;
    use crate::keep::catalog::SetState;

    /// The hash that the tests give to a number's Manifest.
    pub(crate) fn sha(number: u64) -> String {
        format!("{number:064x}")
    }

    /// A backup of a chain, taken and arrived in the hour of its number.
    pub(crate) fn link(number: u64, previous: Option<u64>) -> BackupSet {
        let mut manifest = example();
        manifest.id = format!("backup-{number}");
        manifest.created = Timestamp::from_second(1_700_000_000 + number as i64 * 3600).unwrap();
        manifest.previous = previous.map(|number| Previous {
            id: format!("backup-{number}"),
            sha256: sha(number),
        });
        let mut set = BackupSet::at(manifest.id.clone(), Path::new("/s"), SetState::Good);
        set.created = Some(manifest.created);
        set.arrived = Some(manifest.created);
        set.manifest_sha256 = Some(sha(number));
        set.manifest = Some(manifest);
        set
    }

    fn chain(numbers: std::ops::RangeInclusive<u64>) -> Vec<BackupSet> {
        numbers.map(|n| link(n, (n > 1).then(|| n - 1))).collect()
    }

    fn found(sets: &[BackupSet]) -> Vec<(&'static str, String)> {
        found_with(sets, &Records::default())
    }

    fn found_with(sets: &[BackupSet], records: &Records) -> Vec<(&'static str, String)> {
        let reports = check(sets, records);
        let all = reports.into_iter().flat_map(|report| report.findings);
        all.map(|found| (found.name, found.set)).collect()
    }

    #[test]
    fn a_whole_chain_has_no_finding_and_may_begin_unchained() {
        assert_eq!(found(&chain(1..=5)), []);
        let mut sets = chain(3..=5);
        sets[0] = link(3, None);
        sets.extend([link(1, None), link(2, None)]);
        assert_eq!(found(&sets), []);
        assert_eq!(check(&sets, &Records::default())[0].unchained, 2);
        // A copy of the same backup is not a fork.
        sets.push(link(5, Some(4)));
        assert_eq!(found(&sets), []);
    }

    #[test]
    fn each_change_of_a_chain_is_a_finding() {
        let at = |number: u64| format!("backup-{number}");
        let mut missing = chain(1..=5);
        missing.remove(2);
        assert_eq!(found(&missing), [(MISSING, at(4))]);

        let mut replaced = chain(1..=5);
        replaced[2].manifest_sha256 = Some(sha(99));
        assert_eq!(found(&replaced), [(REPLACED, at(3))]);

        let mut redated = chain(1..=5);
        redated[2].created = redated[4].created;
        assert_eq!(found(&redated), [(REDATED, at(3)), (REDATED, at(4))]);

        let mut forked = chain(1..=5);
        forked.push(link(6, Some(3)));
        assert_eq!(found(&forked), [(REORDERED, at(4)), (REORDERED, at(6))]);

        let mut turned = chain(1..=2);
        turned[0] = link(1, Some(2));
        let turned = found(&turned);
        assert!(turned.contains(&(REORDERED, at(1))), "{turned:?}");

        let mut again = chain(1..=3);
        again.push(link(4, None));
        assert_eq!(found(&again), [(RESTARTED, at(4))]);
        assert!(check(&again, &Records::default())[0].good);
    }

    #[test]
    fn what_prune_removed_is_not_missing() {
        let all = chain(1..=6);
        let names =
            |of: &[u64]| -> Vec<String> { of.iter().map(|n| format!("backup-{n}")).collect() };
        let remove = |gone: &[u64]| {
            let record = Records::default().with_removal(&all, &names(gone), Timestamp::UNIX_EPOCH);
            let mut records = Records::default();
            let bytes = record.unwrap().to_bytes().unwrap();
            records.add(&bytes, None, &Default::default());
            let left = all.iter().filter(|set| !names(gone).contains(&set.name));
            (left.cloned().collect::<Vec<_>>(), records)
        };
        let (left, records) = remove(&[2, 3, 5]);
        assert_eq!(found_with(&left, &records), []);
        assert_eq!(check(&left, &records)[0].pruned, 3);
        let (left, records) = remove(&[1, 2, 3]);
        assert_eq!(found_with(&left, &records), []);
        // One that disappeared besides is missing, also behind one that was pruned.
        let (mut left, records) = remove(&[3, 5]);
        left.retain(|set| set.name != "backup-2");
        assert_eq!(
            found_with(&left, &records),
            [(MISSING, "backup-4".to_owned())]
        );
    }
}
