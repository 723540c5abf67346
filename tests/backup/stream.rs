//! What goes wrong half-way: a server killed, frozen, or the operator's own signal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::bench::{Node, Running, assert_only_good, states, text};
use testbench::bins;
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::Run;
use testbench::kube::OpenShift;
use testbench::node::NodeOptions;

/// Much more than a server sends ahead of its client, at a rate that leaves seconds.
const SLOW: [&str; 2] = ["--max-rate", "8MiB"];
const KEYS: usize = 40;

/// A member with about 40 MiB of data, its node, and a store with one good set.
struct Bench {
    cluster: Cluster,
    node: Node,
    store: PathBuf,
}

impl Bench {
    fn start() -> Option<Self> {
        let bins = bins::require("3.5")?;
        let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
        Bulk::new(KEYS, 1_000_000).write(&cluster);
        OpenShift::default().write(&cluster);
        let node = Node::of(&cluster, 0, &NodeOptions::default());
        let store = cluster.scratch().join("store");
        node.good_backup(&store, &[]);
        Some(Self {
            cluster,
            node,
            store,
        })
    }

    fn slow_backup(&self, args: &[&str]) -> Running {
        self.node.start_backup(&self.store, &[&SLOW, args].concat())
    }

    /// Nothing but the set from before is there.
    #[track_caller]
    fn assert_untouched(&self, run: &Run) {
        assert_only_good(&self.store, &["backup-1"], run);
    }
}

#[test]
fn a_server_that_dies_or_freezes_leaves_no_backup() {
    let Some(mut bench) = Bench::start() else {
        return;
    };
    let mut running = bench.slow_backup(&[]);
    running.wait_for_stream();
    bench.cluster.kill(0);
    let run = running.finish().expect(4);
    assert!(run.stderr.contains(&bench.cluster.client_url(0)), "{run}");
    bench.assert_untouched(&run);
    bench.cluster.restart(0);

    let mut running = bench.slow_backup(&["--stall-timeout", "2s"]);
    running.wait_for_stream();
    bench.cluster.pause(0);
    let run = running.finish().expect(4);
    assert!(
        run.stderr.contains("no byte received for 2 s"),
        "it says how long it waited: {run}"
    );
    bench.assert_untouched(&run);

    // One that is frozen from the start: the wait for its first word is bounded too.
    let run = bench.node.backup(&bench.store, &[]).expect(4);
    assert!(run.stderr.contains(&bench.cluster.client_url(0)), "{run}");
    bench.assert_untouched(&run);
    bench.cluster.resume(0);
    bench.cluster.wait_healthy();
    bench.node.good_backup(&bench.store, &[]);
}

#[test]
fn a_signal_at_any_moment_leaves_nothing() {
    let Some(bench) = Bench::start() else { return };
    // Long enough in the archive for a signal to find it there.
    let revision = bench
        .node
        .root
        .join("etc/kubernetes/static-pod-resources/etcd-pod-7");
    std::fs::write(revision.join("ballast"), Bulk::new(1, 48 << 20).value(0)).expect("ballast");

    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut running = bench.slow_backup(&[]);
        running.wait_for_stream();
        running.signal(signal);
        interrupted(&bench, running.finish());
    }
    for phase in ["snapshot", "archive", "verify"] {
        let mut running = bench.node.start_backup(&bench.store, &[]);
        running.wait_for_phase(phase);
        running.signal(Signal::TERM);
        interrupted(&bench, running.finish());
    }
    // While it waits for a member that does not answer.
    bench.cluster.pause(0);
    let running = bench.node.start_backup(&bench.store, &[]);
    std::thread::sleep(Duration::from_millis(1500));
    running.signal(Signal::INT);
    interrupted(&bench, running.finish());
    bench.cluster.resume(0);

    // One that nothing can answer: what it leaves is not a backup, and the next run tidies.
    let mut running = bench.slow_backup(&[]);
    running.wait_for_stream();
    running.signal(Signal::KILL);
    assert_eq!(running.finish().status, None);
    assert_eq!(
        states(&bench.store),
        [("backup-1", "good"), (".staging-2", "incomplete")]
            .map(|(name, state)| (name.to_owned(), state.to_owned()))
    );
    let staging = bench.store.join(".staging-2");
    let run = bench.node.backup(&bench.store, &[]).expect(0);
    let word = format!(
        "removed leftover {} from an interrupted run",
        staging.display()
    );
    assert!(run.stderr.contains(&word), "{run}");
    assert_only_good(&bench.store, &["backup-1", "backup-2"], &run);
}

#[track_caller]
fn interrupted(bench: &Bench, run: Run) {
    let run = run.expect(130);
    assert!(run.stderr.contains("interrupted"), "{run}");
    bench.assert_untouched(&run);
}

#[test]
fn two_backups_at_once_and_a_rollout_are_refused() {
    let Some(bench) = Bench::start() else { return };
    let mut first = bench.slow_backup(&[]);
    first.wait_for_stream();
    let second = bench.node.backup(&bench.store, &[]).expect(7);
    let holder = format!("locked by process {} (backup)", first.pid());
    assert!(second.stderr.contains(&holder), "{second}");
    assert!(
        second.stderr.contains(&format!("ps -fp {}", first.pid())),
        "{second}"
    );
    assert_eq!(second.json()["error"]["kind"], "busy");
    // Readers are not locked out, and see that a backup is being taken.
    let making = (".staging-2".to_owned(), "incomplete".to_owned());
    assert!(states(&bench.store).contains(&making));
    bench
        .node
        .run(&["verify", "--all", "--store", text(&bench.store)])
        .expect(0);
    let run = first.finish().expect(0);
    assert_only_good(&bench.store, &["backup-1", "backup-2"], &run);

    rollouts(&bench);
}

/// The revision in use changes, or its files do, after the backup looked and before it ends.
fn rollouts(bench: &Bench) {
    let kubernetes = bench.node.root.join("etc/kubernetes");
    let manifest = kubernetes.join("manifests/kube-scheduler-pod.yaml");
    let before = std::fs::read_to_string(&manifest).expect("a manifest");
    let after = before.replace("kube-scheduler-pod-6", "kube-scheduler-pod-7");
    assert_ne!(before, after);
    for allowed in [
        &[] as &[&str],
        &["--allow", "rollout-during-backup"],
        &["--force"],
    ] {
        let mut running = bench.slow_backup(allowed);
        running.wait_for_stream();
        replace(&manifest, &after);
        let run = running.finish();
        replace(&manifest, &before);
        judge(bench, allowed, run, "kube-scheduler");
    }
    let file = kubernetes.join("static-pod-resources/etcd-pod-7/etcd-pod.yaml");
    let before = std::fs::read_to_string(&file).expect("the revision's own copy");
    let mut running = bench.slow_backup(&[]);
    running.wait_for_stream();
    replace(&file, &format!("{before}\n"));
    let run = running.finish();
    replace(&file, &before);
    judge(bench, &[], run, "etcd");
}

/// As an installer does: beside, then renamed.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .unwrap_or_else(|e| panic!("replacing {}: {e}", path.display()));
}

#[track_caller]
fn judge(bench: &Bench, allowed: &[&str], run: Run, what: &str) {
    if allowed.is_empty() {
        let run = run.expect(5);
        let named = r#""refusal":"rollout-during-backup""#;
        assert!(run.stderr.contains(named), "{run}");
        assert!(run.stderr.contains(what), "{run}");
        assert!(
            run.stderr.contains("--allow rollout-during-backup"),
            "{run}"
        );
        assert_only_good(&bench.store, &["backup-1", "backup-2"], &run);
        return;
    }
    let run = run.expect(0);
    assert!(
        run.stdout.contains("(dirty)") && run.stdout.contains("[rollout-during-backup]"),
        "{run}"
    );
    let listed = states(&bench.store);
    let (name, state) = &listed[2];
    assert_eq!(state, "dirty", "{listed:?}");
    std::fs::remove_dir_all(bench.store.join(name)).expect("removing the dirty set");
}
