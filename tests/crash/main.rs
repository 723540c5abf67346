//! What a crash, a disk error or a full disk can do to a store: never a half-written set that is
//! listed as good, never a reported backup that is not there.
//!
//! Every changing call of a real backup of a real etcd goes through one seam: it is counted, then
//! the process is killed at each, then each fails; then a recording of all of them is replayed
//! with every legal loss of what was not yet fsynced.
#![cfg(feature = "faults")]

mod disk;
mod prune;
// Other suites take more of it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use etcd_dr::context::{Cancel, Context};
use etcd_dr::event::Silent;
use etcd_dr::inspect::verify;
use etcd_dr::keep::catalog;
use etcd_dr::store::LocalStore;
use jiff::Timestamp;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::node::NodeOptions;
use testbench::replay::{self, Call, Disk, Replay, Tree};

/// One member, an OpenShift node around it, and a store with one good set.
struct Bench {
    cluster: Cluster,
    root: PathBuf,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn start() -> Option<Self> {
        let bins = testbench::bins::require("3.5")?;
        let cluster = Cluster::start(ClusterSpec::new(&bins, 1));
        for key in ["a", "b", "c"] {
            cluster.etcdctl_ok(&["put", key, "value"]);
        }
        testbench::kube::OpenShift::default().write(&cluster);
        let root = testbench::node::make(&cluster, 0, &NodeOptions::default());
        let scratch = tempfile::tempdir().unwrap();
        let bench = Self {
            cluster,
            root,
            scratch,
        };
        let store = bench.store("seed");
        let taken = bench.backup(&store, None);
        assert!(
            taken.status.success(),
            "{}",
            String::from_utf8_lossy(&taken.stderr)
        );
        Some(bench)
    }

    /// A directory with a store of this name in it.
    fn store(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name).join("store")
    }

    /// A copy of the store with its one good set.
    fn fresh(&self, name: &str) -> PathBuf {
        let store = self.store(name);
        std::fs::create_dir(store.parent().unwrap()).unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(self.store("seed"))
            .arg(&store)
            .status()
            .unwrap();
        assert!(copied.success());
        store
    }

    fn backup(&self, store: &Path, seam: Option<String>) -> Output {
        let mut command = testbench::golden::etcd_dr();
        command
            .args(["--node-name", "master-0", "--progress", "never", "--root"])
            .arg(&self.root);
        command.arg("backup").arg(store);
        if let Some(seam) = seam {
            command.env("ETCD_DR_SEAM", seam);
        }
        command.output().unwrap()
    }
}

fn context() -> Context {
    Context {
        observer: Arc::new(Silent),
        now: Timestamp::now(),
        cancel: Cancel::default(),
    }
}

/// What must hold of a store at any moment: its sets that are listed as good are good, the first
/// one is among them, and `latest-backup` leads to one of them. Returns the good ones' names.
fn inspect(store: &Path) -> Result<Vec<String>, String> {
    let local = LocalStore::at(store);
    let sets = catalog::list(&local).map_err(|failure| failure.to_string())?;
    let mut good = Vec::new();
    for set in sets.iter().filter(|set| set.is_good()) {
        let report = verify::run(&context(), set).map_err(|failure| failure.to_string())?;
        if !report.good {
            return Err(format!(
                "{} is listed as good and is not: {:?}",
                set.name, report.findings
            ));
        }
        good.push(set.name.clone());
    }
    if let Some(latest) = local.latest()
        && !good.contains(&latest)
    {
        return Err(format!(
            "latest-backup leads to {latest}, the good ones are {good:?}"
        ));
    }
    Ok(good)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_kill_at_every_changing_call_leaves_a_sound_store() {
    let Some(bench) = Bench::start() else { return };
    let counted = bench.scratch.path().join("calls");
    let store = bench.fresh("count");
    assert!(
        bench
            .backup(&store, Some(format!("count:{}", counted.display())))
            .status
            .success()
    );
    let calls: u64 = std::fs::read_to_string(&counted).unwrap().parse().unwrap();

    let mut kills = 0;
    for call in 1.. {
        let store = bench.fresh(&format!("kill-{call}"));
        let killed = bench.backup(&store, Some(format!("kill:{call}")));
        if killed.status.signal() != Some(9) {
            assert!(killed.status.success(), "{}", text(&killed.stderr));
            break;
        }
        kills += 1;
        let good = inspect(&store).unwrap_or_else(|why| panic!("killed at call {call}: {why}"));
        assert!(
            good.contains(&"backup-1".to_owned()),
            "killed at call {call}: {good:?}"
        );

        let left = std::fs::read_dir(&store).unwrap().flatten();
        let left = left
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(".staging-"))
            .count();
        let next = bench.backup(&store, None);
        let told = text(&next.stderr);
        assert!(next.status.success(), "after a kill at call {call}: {told}");
        assert_eq!(
            told.matches("from an interrupted run").count(),
            left,
            "{told}"
        );
        let after = inspect(&store).unwrap();
        assert_eq!(after.len(), good.len() + 1, "after a kill at call {call}");
        assert_eq!(LocalStore::at(&store).latest().as_ref(), after.last());
        let names: Vec<_> = std::fs::read_dir(&store)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert!(
            names
                .iter()
                .all(|name| !name.to_string_lossy().ends_with(".new")),
            "{names:?}"
        );
        std::fs::remove_dir_all(store.parent().unwrap()).unwrap();
    }
    println!("changing calls counted: {calls}, kills run: {kills}");
    assert_eq!(calls, kills);
    assert!(calls > 20);
}

#[test]
fn a_failure_of_every_changing_call_is_reported_and_leaves_a_sound_store() {
    let Some(bench) = Bench::start() else { return };
    for (kind, words) in [("fail", ":5"), ("full", "")] {
        let mut failures = 0;
        for call in 1.. {
            let store = bench.fresh(&format!("{kind}-{call}"));
            let failed = bench.backup(&store, Some(format!("{kind}:{call}{words}")));
            if failed.status.success() {
                break;
            }
            failures += 1;
            let told = text(&failed.stderr);
            assert!(
                told.contains(store.parent().unwrap().to_str().unwrap()),
                "no path is named: {told}"
            );
            let good = inspect(&store).unwrap_or_else(|why| panic!("{kind} at call {call}: {why}"));
            assert!(good.contains(&"backup-1".to_owned()));
            // The status says whether there is a backup.
            let expected = if good.len() > 1 { 10 } else { 6 };
            assert_eq!(
                failed.status.code(),
                Some(expected),
                "{kind} at call {call}, good are {good:?}: {told}"
            );
            let next = bench.backup(&store, None);
            assert!(
                next.status.success(),
                "after {kind} at call {call}: {}",
                text(&next.stderr)
            );
            std::fs::remove_dir_all(store.parent().unwrap()).unwrap();
        }
        println!("{kind}: {failures} failures run");
        assert!(failures > 20);
    }
}

/// The store's trees that were looked at, by content.
struct Judge {
    /// The store below the replayed directory.
    store: &'static str,
    known: BTreeMap<Tree, Result<Vec<String>, String>>,
}

impl Judge {
    fn new(store: &'static str) -> Self {
        Self {
            store,
            known: BTreeMap::new(),
        }
    }

    /// Whether a tree keeps what must hold; `reported` names a set that was reported as taken,
    /// `before` one that was there from the beginning.
    fn judge(
        &mut self,
        tree: &Tree,
        before: Option<&str>,
        reported: Option<&str>,
    ) -> Result<(), String> {
        let store = self.store;
        let known = self.known.entry(tree.clone()).or_insert_with(|| {
            let dir = tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .unwrap();
            replay::lay_out(tree, dir.path());
            let store = dir.path().join(store);
            if store.is_dir() {
                inspect(&store)
            } else {
                Ok(Vec::new())
            }
        });
        let good = known.as_ref().map_err(Clone::clone)?;
        for name in before.into_iter().chain(reported) {
            if !good.iter().any(|there| there == name) {
                return Err(format!("{name} is gone; there are {good:?}"));
            }
        }
        let Some(reported) = reported else {
            return Ok(());
        };
        let latest = Path::new(self.store).join("latest-backup");
        let parent = latest.parent().unwrap();
        // The default store is reached through a link.
        let real = match tree.get(parent) {
            Some(replay::Entry::Link(to)) => replay::clean(&parent.parent().unwrap().join(to)),
            _ => parent.to_owned(),
        };
        match tree.get(&real.join("latest-backup")) {
            Some(replay::Entry::Link(to)) if to == Path::new(reported) => Ok(()),
            other => Err(format!(
                "latest-backup leads to {other:?} and not to {reported}"
            )),
        }
    }
}

/// Replays a recording: every loss at every call must be survived, and every single fsync, taken
/// away, must be missed.
fn replay_all(
    base: Disk,
    calls: &[Call],
    store: &'static str,
    before: Option<&str>,
    reported: &str,
) {
    let replay = Replay::new(base, calls);
    let mut judge = Judge::new(store);
    let mut states = 0;
    for count in 0..=calls.len() {
        let done = (count == calls.len()).then_some(reported);
        for tree in replay.after(count, None) {
            states += 1;
            let judged = judge.judge(&tree, before, done);
            judged
                .unwrap_or_else(|why| panic!("crash after call {count} of {}: {why}", calls.len()));
        }
    }
    let syncs: Vec<usize> = (0..calls.len()).filter(|&i| calls[i].is_sync()).collect();
    for &dropped in &syncs {
        let noticed = (0..=calls.len()).rev().any(|count| {
            let done = (count == calls.len()).then_some(reported);
            replay
                .after(count, Some(dropped))
                .iter()
                .any(|tree| judge.judge(tree, before, done).is_err())
        });
        assert!(
            noticed,
            "the store is no worse without call {dropped}: {:?}",
            calls[dropped]
        );
    }
    println!(
        "{} calls, {states} states survived, {} fsyncs, each missed when taken away",
        calls.len(),
        syncs.len()
    );
}

#[test]
fn every_legal_loss_of_unsynced_writes_is_survived() {
    let Some(bench) = Bench::start() else { return };
    let store = bench.fresh("record");
    let recording = bench.scratch.path().join("recording");
    let base = Disk::load(store.parent().unwrap());
    let taken = bench.backup(&store, Some(format!("record:{}", recording.display())));
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    replay_all(
        base,
        &replay::read(&recording),
        "store",
        Some("backup-1"),
        "backup-2",
    );
}

#[test]
fn the_first_backup_of_a_node_is_there_once_it_is_reported() {
    let Some(bins) = testbench::bins::require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain());
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc")).unwrap();
    std::fs::create_dir_all(root.path().join("var/lib")).unwrap();
    let base = Disk::load(root.path());
    let recording = tempfile::NamedTempFile::new().unwrap();
    let taken = testbench::golden::etcd_dr()
        .args([
            "--profile",
            "bare",
            "--progress",
            "never",
            "--endpoints",
            &cluster.client_url(0),
            "--root",
        ])
        .arg(root.path())
        .arg("backup")
        .env(
            "ETCD_DR_SEAM",
            format!("record:{}", recording.path().display()),
        )
        .output()
        .unwrap();
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    let link = root.path().join("etc/kubernetes/static-pod-backups");
    assert_eq!(
        std::fs::read_link(&link).unwrap(),
        Path::new("../../var/lib/etcd-dr/static-pod-backups")
    );
    let calls = replay::read(recording.path());
    replay_all(
        base,
        &calls,
        "etc/kubernetes/static-pod-backups",
        None,
        "backup-1",
    );
}
