//! `restore` on a node that a kubelet runs: forth, back, and interrupted.

use std::collections::BTreeMap;

use etcd_dr::node::runtime::ContainerState;
use serde_json::Value;

use crate::bench::{MAIN, RealNode, boot};

/// What the operators roll out after the backup.
const NEWER: &str = "etcd=8,kube-apiserver=11,kube-controller-manager=9,kube-scheduler=7";
/// Namespaces of the four pods, with the revisions of the backup and of the rollout.
const PODS: [(&str, &str, &str); 4] = [
    ("openshift-etcd", "7", "8"),
    ("openshift-kube-apiserver", "10", "11"),
    ("openshift-kube-controller-manager", "8", "9"),
    ("openshift-kube-scheduler", "6", "7"),
];

/// Calls that change the disk, between one kill and the next: a step or two.
const FEW: u64 = 8;

/// A node that continued after its backup.
struct Moved {
    node: RealNode,
    /// What the backup has.
    then: Vec<Value>,
    /// What the node had when the restore began.
    now: Vec<Value>,
    /// The revisions that it ran then.
    runs: [&'static str; 4],
    cluster: Value,
}

impl Moved {
    /// Data and static pods continued.
    fn boot() -> Option<Self> {
        let mut moved = Self::boot_still()?;
        let node = &moved.node;
        node.roll_out(NEWER);
        moved.runs = PODS.map(|(_, _, newer)| newer);
        for ((namespace, _, _), runs) in PODS.into_iter().zip(moved.runs) {
            node.wait_revision(namespace, runs);
        }
        node.wait_running(&MAIN);
        node.wait_etcd();
        Some(moved)
    }

    /// Only the data continued.
    fn boot_still() -> Option<Self> {
        let node = boot()?;
        for i in 0..20 {
            node.put(&format!("/registry/configmaps/default/c{i}"), b"then");
        }
        node.etcdctl(&["del", "/registry/configmaps/default/c3"]);
        let then = node.keys();
        node.etcd_dr(&["backup"]).expect(0);

        for i in 10..30 {
            node.put(&format!("/registry/configmaps/default/c{i}"), b"now");
        }
        node.etcdctl(&["del", "/registry/configmaps/default/c5"]);
        let now = node.keys();
        let cluster = node.status()["header"]["cluster_id"].clone();
        Some(Self {
            node,
            then,
            now,
            runs: PODS.map(|(_, older, _)| older),
            cluster,
        })
    }

    /// The node is what it was at the backup, and the rollout is gone.
    #[track_caller]
    fn assert_restored(&self) {
        let node = &self.node;
        for (namespace, older, _) in PODS {
            assert_eq!(node.revisions(namespace), [older], "{namespace}");
        }
        node.wait_running(&MAIN);
        assert_eq!(node.keys(), self.then);
        let status = node.status();
        assert_ne!(status["header"]["cluster_id"], self.cluster);
        // Whoever has seen the later data must notice that it is gone.
        let served = self.now.iter().map(|key| &key["mod_revision"]);
        let served = served.filter_map(Value::as_i64).max();
        assert!(status["header"]["revision"].as_i64() > served, "{status}");
        let newer: Vec<_> = node
            .tree()
            .into_keys()
            .filter(|name| is_newer(name))
            .collect();
        assert!(newer.is_empty(), "{newer:#?}");
    }

    /// The node is what it was before the restore.
    #[track_caller]
    fn assert_as_before(&self, tree: &BTreeMap<String, String>) {
        let node = &self.node;
        for ((namespace, _, _), runs) in PODS.into_iter().zip(self.runs) {
            node.wait_revision(namespace, runs);
        }
        node.wait_running(&MAIN);
        node.wait_etcd();
        assert_eq!(node.keys(), self.now);
        assert_eq!(node.status()["header"]["cluster_id"], self.cluster);
        assert_eq!(&node.tree(), tree);
    }
}

fn is_newer(name: &str) -> bool {
    [
        "etcd-pod-8",
        "kube-apiserver-pod-11",
        "kube-controller-manager-pod-9",
        "kube-scheduler-pod-7",
    ]
    .iter()
    .any(|dir| name.starts_with(&format!("static-pod-resources/{dir}/")))
}

#[test]
fn a_restore_is_rolled_back_repeated_and_committed() {
    let Some(moved) = Moved::boot() else { return };
    let node = &moved.node;
    let tree = node.tree();

    node.etcd_dr(&["restore", "latest", "--dry-run"]).expect(0);
    moved.assert_as_before(&tree);

    node.etcd_dr(&["restore", "latest", "--yes"]).expect(0);
    moved.assert_restored();
    node.etcd_dr(&["restore", "--status"]).expect(0);

    node.etcd_dr(&["restore", "--rollback", "--yes"]).expect(0);
    moved.assert_as_before(&tree);

    node.etcd_dr(&["restore", "latest", "--yes"]).expect(0);
    moved.assert_restored();
    node.etcd_dr(&["restore", "--commit", "--yes"]).expect(0);
    moved.assert_restored();
}

#[test]
fn etcd_alone_is_restored() {
    let Some(moved) = Moved::boot_still() else {
        return;
    };
    let node = &moved.node;
    let others = |node: &RealNode| -> Vec<_> {
        let running = MAIN[1..].iter();
        running
            .flat_map(|name| node.containers(name, &ContainerState::Running))
            .map(|container| container.id)
            .collect()
    };
    let before = others(node);
    node.etcd_dr(&["restore", "latest", "--scope", "etcd", "--yes"])
        .expect(0);
    moved.assert_restored();
    assert_eq!(others(node), before);
}

#[test]
fn what_does_not_answer_ends_a_restore_and_changes_nothing() {
    let Some(moved) = Moved::boot_still() else {
        return;
    };
    let node = &moved.node;
    let tree = node.tree();

    node.signal("containerd", "STOP");
    node.etcd_dr(&["restore", "latest", "--yes"]).expect(4);
    node.signal("containerd", "CONT");
    moved.assert_as_before(&tree);

    // No process ends the pods: the wait for them ends instead, and the manifests are put back.
    node.signal("kubelet", "STOP");
    node.etcd_dr(&["restore", "latest", "--wait", "10s", "--yes"])
        .expect(8);
    node.signal("kubelet", "CONT");
    // It still has all that happened to the manifests to look at.
    node.settle();
    moved.assert_as_before(&tree);

    node.etcd_dr(&["restore", "latest", "--yes"]).expect(0);
    moved.assert_restored();
}

#[test]
fn a_restore_killed_while_pods_end_resumes() {
    let Some(moved) = Moved::boot() else { return };
    let node = &moved.node;

    node.etcd_dr_killed_at(&["restore", "latest", "--yes"], |event| {
        event["event"] == "step" && event["name"] == "await-stopped"
    });
    // Two at once would be one too many.
    node.etcd_dr(&["restore", "latest", "--yes"]).expect(7);
    node.etcd_dr(&["restore", "--status"]).expect(7);
    node.etcd_dr(&["restore", "--resume", "--yes"]).expect(0);
    moved.assert_restored();
}

#[test]
fn a_restore_killed_at_every_step_or_two_completes() {
    let Some(moved) = Moved::boot() else { return };
    let node = &moved.node;
    let tree = node.tree();

    // The seam ends it before its n-th call that changes the disk. A plan alone makes some too: it
    // unpacks the archives, to read them.
    let counted = ("ETCD_DR_SEAM", "count:/run/calls");
    node.etcd_dr_with(&["restore", "latest", "--dry-run"], &[counted])
        .expect(0);
    let calls = std::fs::read_to_string(node.path("/run/calls")).expect("reading the count");
    let plan: u64 = calls.trim().parse().expect("a number");
    let early = format!("kill:{}", plan + 30);
    let run = node.etcd_dr_with(&["restore", "latest", "--yes"], &[("ETCD_DR_SEAM", &early)]);
    assert_eq!(run.status, None);

    let (mut deaths, mut before, mut calls) = (1, 0, FEW);
    loop {
        let status = node.etcd_dr(&["restore", "--status", "-o", "json"]).json();
        if status["state"] == "completed" {
            // By a run to its end, or by one that was killed when nothing was left to do.
            break;
        }
        let steps = status["steps"].as_array().expect("steps");
        let so_far = steps.iter().filter(|s| s["state"] == "done").count();
        // A step that was interrupted may begin again, and then needs more.
        calls = if so_far > before { FEW } else { calls * 2 };
        before = so_far;
        let seam = format!("kill:{calls}");
        let args = ["restore", "--resume", "--yes"];
        let run = node.etcd_dr_with(&args, &[("ETCD_DR_SEAM", &seam)]);
        if run.status.is_some() {
            run.expect(0);
        } else {
            deaths += 1;
            eprintln!("real_node: killed {deaths} times, {calls} calls after {so_far} steps");
        }
        assert!(deaths < 60, "it gets nowhere");
    }
    assert!(deaths > 4, "{deaths}");
    moved.assert_restored();

    // And the rollback, killed before the old data is in place again.
    node.etcd_dr_killed_at(&["restore", "--rollback", "--yes"], |event| {
        event["event"] == "step" && event["name"] == "set-data-aside"
    });
    node.etcd_dr(&["restore", "--rollback", "--yes"]).expect(0);
    moved.assert_as_before(&tree);
}
