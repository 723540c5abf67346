//! A line for each node: what is known of its backups, of which only a few numbers are kept, so that 50,000
//! of them take little memory.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::expect::Expected;
use super::recorded::Recorded;
use crate::backup::Manifest;
use crate::etcd::history::Span;
use crate::keep::catalog::{self, BackupSet, SetState};
use crate::keep::ranges::Chain;

/// Backups of a node that a history shows, the newest ones.
const HISTORY: usize = 60;

/// How a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is expected, and no store has anything of it.
    Absent,
    /// Its newest good backup is too old, or it has no good backup.
    Stale,
    /// Only snapshots of other programs, the newest of them recent.
    Foreign,
    /// Its newest good backup is recent.
    Ok,
}

impl State {
    /// The word shown for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Stale => "stale",
            Self::Foreign => "foreign",
            Self::Ok => "ok",
        }
    }
}

/// One backup in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// When it was taken.
    pub created: Timestamp,
    /// Bytes of its files, neither compressed nor encrypted.
    pub size: u64,
}

/// The newest good backup of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Newest {
    /// Its name in its store.
    pub name: String,
    /// The store.
    pub store: String,
    /// When it was taken.
    pub created: Timestamp,
    /// Bytes of its files, neither compressed nor encrypted.
    pub size: u64,
    /// The revisions that it can be restored to.
    pub reachable: Option<Span>,
    /// Live keys.
    pub keys: Option<u64>,
    /// etcd's version.
    pub etcd_version: Option<String>,
    /// OpenShift's version.
    pub ocp_version: Option<String>,
    /// When its first certificate expires.
    pub certificate_expiry: Option<Timestamp>,
    /// Who signed it, if allowed signers were given.
    pub signer: Option<String>,
    /// The key that signed it.
    pub key: Option<String>,
}

/// How many backups of a node there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Good ones that count.
    pub good: u64,
    /// Those taken although a check failed.
    pub dirty: u64,
    /// Those that are incomplete, damaged or on their way.
    pub incomplete: u64,
    /// Good ones whose signature does not count.
    pub distrusted: u64,
    /// Those that their last verification found bad.
    pub bad: u64,
    /// Those of other programs.
    pub foreign: u64,
}

/// A proof of a backup, and of which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// When.
    pub time: Timestamp,
    /// The backup's name.
    pub name: String,
}

/// One node of one cluster, or one that is expected and absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The cluster.
    pub cluster: String,
    /// The node; absent of a cluster of which nothing is there.
    pub node: Option<String>,
    /// What people call the cluster, by the file of expected ones.
    pub label: Option<String>,
    /// How it stands.
    pub state: State,
    /// Why it is not ok.
    pub why: Option<String>,
    /// Whether it decides the exit status: whether the file expects it or, without a file, whether it is
    /// one of etcd-dr's.
    pub expected: bool,
    /// Its newest good backup.
    pub newest: Option<Newest>,
    /// How old that is, in seconds.
    pub age_seconds: Option<i64>,
    /// How its size differs from that of the good one before it: 0.1 is a tenth more.
    pub size_change: Option<f64>,
    /// The last verification that found nothing.
    pub verified: Option<Proof>,
    /// The last rehearsal that succeeded.
    pub rehearsed: Option<Proof>,
    /// How many backups it has, copies in several stores each.
    pub backups: Counts,
    /// What was recorded between its backups; absent if nothing was.
    pub recorded: Option<Recorded>,
    /// Its good backups, the oldest first.
    pub history: Vec<Point>,
}

/// What is known of a node so far.
#[derive(Debug, Default)]
struct Node {
    newest: Option<Newest>,
    foreign: Option<Timestamp>,
    verified: Option<Proof>,
    rehearsed: Option<Proof>,
    counts: Counts,
    recorded: Option<Recorded>,
    points: BTreeSet<Point>,
}

/// All nodes of some stores.
#[derive(Debug, Default)]
pub struct Fleet {
    nodes: BTreeMap<(String, String), Node>,
}

/// When a backup is recent enough, and of which clusters there must be one.
#[derive(Debug)]
pub struct Rules<'a> {
    /// The clusters that must have backups; none: those that are found.
    pub expected: Option<&'a [Expected]>,
    /// The oldest that the newest good backup may be.
    pub stale_after: SignedDuration,
    /// The time.
    pub now: Timestamp,
}

impl Fleet {
    /// Takes in backups of a store, which the allowed signers have judged, and the chains of recorded changes by
    /// the folder that both are in; `""` is the store itself.
    pub fn add(
        &mut self,
        store: &str,
        sets: Vec<BackupSet>,
        recorded: &BTreeMap<String, Vec<Chain>>,
        now: Timestamp,
    ) {
        let mut nodes: BTreeMap<(String, String), Vec<BackupSet>> = BTreeMap::new();
        for set in sets {
            nodes.entry(node_of(&set)).or_default().push(set);
        }
        for (key, sets) in nodes {
            let folders = sets
                .iter()
                .map(|set| set.name.rsplit_once('/').map_or("", |(folder, _)| folder));
            let folders: BTreeSet<&str> = folders.collect();
            let chains = folders
                .iter()
                .filter_map(|folder| recorded.get(*folder))
                .flatten();
            let chains: Vec<Chain> = chains.cloned().collect();
            let recorded = Recorded::of(&chains, &sets);
            let node = self.nodes.entry(key).or_default();
            node.add(store, &sets, now);
            node.record(recorded);
        }
    }

    /// Adds what was found in stores that come after these: of what both have, this one's stays.
    pub fn merge(&mut self, after: Self) {
        for (key, node) in after.nodes {
            self.nodes.entry(key).or_default().merge(node);
        }
    }

    /// The lines, by cluster and node; those that are expected and not there among them.
    pub fn lines(self, rules: &Rules<'_>) -> Vec<Line> {
        let lines = self.nodes.into_iter();
        let mut lines: Vec<Line> = lines.map(|(key, node)| node.line(key, rules)).collect();
        if let Some(expected) = rules.expected {
            lines.iter_mut().for_each(|line| line.expected = false);
            for one in expected {
                expect(&mut lines, one);
            }
        }
        lines.sort_by(|a, b| (&a.cluster, &a.node).cmp(&(&b.cluster, &b.node)));
        lines
    }
}

/// Marks the line that a line of the file means, or makes one.
fn expect(lines: &mut Vec<Line>, one: &Expected) {
    let is_it = |line: &Line| {
        let node = one
            .node
            .as_ref()
            .is_none_or(|node| Some(node) == line.node.as_ref());
        line.cluster == one.cluster && node
    };
    let same_cluster = lines.iter_mut().filter(|line| line.cluster == one.cluster);
    same_cluster.for_each(|line| line.label = line.label.take().or_else(|| one.label.clone()));
    let newest = |line: &Line| line.newest.as_ref().map(|newest| newest.created);
    let known = lines.iter_mut().filter(|line| is_it(line));
    match known.max_by_key(|line| (newest(line), line.state)) {
        Some(line) => line.expected = true,
        None => lines.push(Line {
            cluster: one.cluster.clone(),
            node: one.node.clone(),
            label: one.label.clone(),
            state: State::Absent,
            why: Some("no store has a backup of it".to_owned()),
            expected: true,
            newest: None,
            age_seconds: None,
            size_change: None,
            verified: None,
            rehearsed: None,
            backups: Counts::default(),
            recorded: None,
            history: Vec::new(),
        }),
    }
}

/// Whose a backup is: by its Manifest, else by its folder.
fn node_of(set: &BackupSet) -> (String, String) {
    if let Some(manifest) = &set.manifest {
        let (cluster, node) = manifest.origin();
        return (cluster.to_owned(), node.to_owned());
    }
    // In a store itself, and in no folder.
    let folder = set.name.rsplit_once('/').map_or(".", |(folder, _)| folder);
    match folder.split_once('/') {
        Some((cluster, node)) => (cluster.to_owned(), node.to_owned()),
        None => (folder.to_owned(), String::new()),
    }
}

impl Node {
    fn add(&mut self, store: &str, sets: &[BackupSet], now: Timestamp) {
        for set in sets {
            self.count(set, now);
        }
        let newest = catalog::newest_good(sets, now);
        let newest = newest.and_then(|set| Some(Newest::of(store, set, set.manifest.as_ref()?)));
        self.settle(newest);
    }

    /// Adds what stores have that come after these.
    fn merge(&mut self, after: Self) {
        let (counts, more) = (&mut self.counts, after.counts);
        for (count, more) in [
            (&mut counts.good, more.good),
            (&mut counts.dirty, more.dirty),
            (&mut counts.incomplete, more.incomplete),
            (&mut counts.distrusted, more.distrusted),
            (&mut counts.bad, more.bad),
            (&mut counts.foreign, more.foreign),
        ] {
            *count = count.saturating_add(more);
        }
        self.foreign = self.foreign.max(after.foreign);
        self.points.extend(after.points);
        for (known, other) in [
            (&mut self.verified, after.verified),
            (&mut self.rehearsed, after.rehearsed),
        ] {
            if let Some(proof) = other {
                later(known, proof.time, &proof.name);
            }
        }
        self.record(after.recorded);
        self.settle(after.newest);
    }

    /// Keeps what one store has: a restore applies what is in one.
    fn record(&mut self, other: Option<Recorded>) {
        self.recorded = match self.recorded.take() {
            Some(known) => Some(known.better(other)),
            None => other,
        };
    }

    /// Keeps the newer backup, and the last points.
    fn settle(&mut self, newest: Option<Newest>) {
        if newest.as_ref().map(|newest| newest.created)
            > self.newest.as_ref().map(|old| old.created)
        {
            self.newest = newest;
        }
        while self.points.len() > HISTORY {
            self.points.pop_first();
        }
    }

    fn count(&mut self, set: &BackupSet, now: Timestamp) {
        let counted = match set.state {
            SetState::Good if set.distrust.is_some() => &mut self.counts.distrusted,
            SetState::Good => &mut self.counts.good,
            SetState::Dirty => &mut self.counts.dirty,
            SetState::Incomplete => &mut self.counts.incomplete,
            SetState::Foreign => &mut self.counts.foreign,
        };
        *counted = counted.saturating_add(1);
        let past = set.created.filter(|_| !set.is_future(now));
        if set.state == SetState::Foreign {
            self.foreign = self.foreign.max(past);
        }
        if let (true, Some(created), Some(manifest)) = (set.is_good(), past, &set.manifest) {
            // As on the node: copies may be compressed, and are the same backup.
            let size = manifest.total_size();
            self.points.insert(Point { created, size });
        }
        let rehearsed = set.believed_rehearsal(now);
        if let Some(rehearsed) = rehearsed.filter(|last| last.good && set.is_good()) {
            later(&mut self.rehearsed, rehearsed.time, &set.name);
        }
        if let Some(verified) = set
            .verified
            .as_ref()
            .filter(|_| !set.is_verified_in_future(now))
        {
            if !verified.good {
                self.counts.bad = self.counts.bad.saturating_add(1);
            } else if set.is_good() {
                later(&mut self.verified, verified.time, &set.name);
            }
        }
    }

    fn line(self, (cluster, node): (String, String), rules: &Rules<'_>) -> Line {
        let created = match &self.newest {
            Some(newest) => Some(newest.created),
            None => self.foreign,
        };
        let age = created.map(|at| rules.now.duration_since(at).max(SignedDuration::ZERO));
        let only_foreign = self.counts
            == (Counts {
                foreign: self.counts.foreign,
                ..Counts::default()
            });
        let recent = age.is_some_and(|age| age <= rules.stale_after);
        let state = match (recent, &self.newest) {
            (true, Some(_)) => State::Ok,
            (true, None) if only_foreign => State::Foreign,
            _ => State::Stale,
        };
        let why = match (state, &self.newest) {
            (State::Stale, Some(_)) => Some("its newest good backup is too old"),
            (State::Stale, None) if only_foreign => {
                Some("the newest snapshot of another program is too old")
            }
            (State::Stale, None) => Some("it has no good backup"),
            _ => None,
        };
        Line {
            cluster,
            node: (!node.is_empty()).then_some(node),
            label: None,
            state,
            why: why.map(str::to_owned),
            expected: !only_foreign,
            size_change: change(&self.points),
            newest: self.newest,
            age_seconds: age.map(|age| age.as_secs()),
            verified: self.verified,
            rehearsed: self.rehearsed,
            backups: self.counts,
            recorded: self.recorded,
            history: self.points.into_iter().collect(),
        }
    }
}

/// Keeps the later proof.
fn later(known: &mut Option<Proof>, time: Timestamp, name: &str) {
    if known.as_ref().is_none_or(|known| known.time < time) {
        *known = Some(Proof {
            time,
            name: name.to_owned(),
        });
    }
}

/// How the newest size differs from the one before.
fn change(points: &BTreeSet<Point>) -> Option<f64> {
    let mut last = points.iter().rev();
    let (newest, before) = (last.next()?, last.next()?);
    (before.size > 0).then(|| newest.size as f64 / before.size as f64 - 1.0)
}

impl Newest {
    fn of(store: &str, set: &BackupSet, manifest: &Manifest) -> Self {
        let expiry = manifest.earliest_certificate_expiry.as_ref();
        Self {
            name: set.name.clone(),
            store: store.to_owned(),
            created: manifest.created,
            size: manifest.total_size(),
            reachable: set.reachable(),
            keys: manifest.database.keys,
            etcd_version: Some(manifest.member.etcd_version.clone()).filter(|v| !v.is_empty()),
            ocp_version: manifest.cluster.ocp_version.clone(),
            certificate_expiry: expiry.map(|expiry| expiry.time),
            signer: set.signer.clone(),
            key: set.signature.fingerprint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::backup::manifest;
    use crate::keep::catalog::{Distrust, Verified};

    const NOW: &str = "2026-11-30T12:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    /// A good backup of a node, so many hours old.
    fn set(cluster: &str, node: &str, number: u32, hours: i64) -> BackupSet {
        let mut manifest = manifest::tests::example();
        manifest.cluster.uuid = Some(cluster.to_owned());
        manifest.node.name = Some(node.to_owned());
        manifest.created = now() - SignedDuration::from_hours(hours);
        let name = format!("{cluster}/{node}/backup-{number}");
        BackupSet {
            created: Some(manifest.created),
            manifest: Some(manifest),
            ..BackupSet::at(name, Path::new("/x"), SetState::Good)
        }
    }

    fn lines(fleet: Fleet, expected: Option<&[Expected]>) -> Vec<Line> {
        fleet.lines(&Rules {
            expected,
            stale_after: SignedDuration::from_hours(25),
            now: now(),
        })
    }

    fn short(lines: &[Line]) -> Vec<(String, &'static str, bool)> {
        let name =
            |line: &Line| format!("{}/{}", line.cluster, line.node.as_deref().unwrap_or("-"));
        lines
            .iter()
            .map(|line| (name(line), line.state.word(), line.expected))
            .collect()
    }

    #[test]
    fn the_newest_good_backup_of_all_stores_counts_and_nothing_else() {
        let mut fleet = Fleet::default();
        let doubted = BackupSet {
            distrust: Some(Distrust {
                name: "unknown-signer",
                why: String::new(),
            }),
            ..set("c1", "m0", 4, 1)
        };
        let dirty = BackupSet {
            state: SetState::Dirty,
            ..set("c1", "m0", 5, 1)
        };
        let future = set("c1", "m0", 6, -48);
        fleet.add(
            "one",
            vec![set("c1", "m0", 1, 50), doubted, dirty, future],
            &BTreeMap::new(),
            now(),
        );
        assert_eq!(fleet.nodes.len(), 1);
        fleet.add(
            "two",
            vec![set("c1", "m0", 2, 20), set("c1", "m0", 1, 50)],
            &BTreeMap::new(),
            now(),
        );
        let found = lines(fleet, None);
        assert_eq!(short(&found), [("c1/m0".to_owned(), "ok", true)]);
        let newest = found[0].newest.as_ref().unwrap();
        assert_eq!(
            (newest.store.as_str(), newest.name.as_str()),
            ("two", "c1/m0/backup-2")
        );
        // A copy in another store is the same backup.
        assert_eq!((found[0].backups.good, found[0].history.len()), (4, 2));
        assert_eq!(
            (found[0].backups.dirty, found[0].backups.distrusted),
            (1, 1)
        );
    }

    #[test]
    fn a_failed_verification_is_no_proof() {
        let verified = |time: &str, failed: &[&str]| {
            let failed = failed.iter().map(|word| (*word).to_owned()).collect();
            Some(Verified::new(time.parse().unwrap(), failed))
        };
        let mut sets = vec![
            set("c", "m", 1, 30),
            set("c", "m", 2, 20),
            set("c", "m", 3, 10),
        ];
        sets[0].verified = verified("2026-11-29T08:00:00Z", &[]);
        sets[1].verified = verified("2026-11-30T08:00:00Z", &["restore"]);
        sets[2].verified = verified("2027-11-30T08:00:00Z", &[]);
        let mut fleet = Fleet::default();
        fleet.add("one", sets, &BTreeMap::new(), now());
        let found = lines(fleet, None);
        assert_eq!(found[0].verified.as_ref().unwrap().name, "c/m/backup-1");
        assert_eq!(found[0].backups.bad, 1);
    }

    #[test]
    fn what_is_expected_decides_and_what_is_absent_is_a_line() {
        let mut fleet = Fleet::default();
        let sets = vec![
            set("c1", "m0", 1, 2),
            set("c1", "m1", 1, 90),
            set("c2", "m0", 1, 90),
            BackupSet {
                created: Some(now()),
                ..BackupSet::at(
                    "gardener/v2/Full-1".to_owned(),
                    Path::new("/x"),
                    SetState::Foreign,
                )
            },
            BackupSet::at(
                "c3/m0/backup-1".to_owned(),
                Path::new("/x"),
                SetState::Incomplete,
            ),
        ];
        fleet.add("one", sets, &BTreeMap::new(), now());
        let expected =
            super::super::expect::parse("c1 prod\nc1/m1\nc3\nc4/m0\ngardener/v2").unwrap();
        let found = lines(fleet, Some(&expected));
        let line = |name: &str, state, expected| (name.to_owned(), state, expected);
        let all = [
            line("c1/m0", "ok", true),
            line("c1/m1", "stale", true),
            line("c2/m0", "stale", false),
            line("c3/m0", "stale", true),
            line("c4/m0", "absent", true),
            line("gardener/v2", "foreign", true),
        ];
        let mut seen = short(&found);
        seen.sort();
        assert_eq!(seen, all);
        assert_eq!(found[0].label.as_deref(), Some("prod"));
        assert_eq!(found[3].why.as_deref(), Some("it has no good backup"));
    }
}
