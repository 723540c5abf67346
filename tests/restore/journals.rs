//! Journals of an earlier build: they are read, resumed and rolled back.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use etcd_dr::change::member::join::info::JoinInfo;
use etcd_dr::change::restore::info::RestoreInfo;
use etcd_dr::change::transaction::steps::NodeStep;
use etcd_dr::event::Silent;
use etcd_dr::journal::{Operation, Progress};

use super::node::{Node, assert_same, etcd, text};
use testbench::journals::{ALL, place, read_back, records};
use testbench::node::NodeOptions;
use testbench::process::expect_success;

/// What is written again is what was read, step by step: an older build on the node still reads it.
#[test]
fn every_journal_is_read_and_means_the_same() {
    for name in ALL {
        let root = tempfile::tempdir().expect("a folder");
        let records = records(name);
        let dir = place(root.path(), None, &records);
        let progress = Progress::read(&dir).expect(name);
        let about = &progress.begin.about;
        let again = match progress.begin.kind.as_str() {
            "member-join" => serde_json::to_value(read::<JoinInfo>(about)),
            _ => serde_json::to_value(read::<RestoreInfo>(about)),
        };
        assert_eq!(&again.expect(name), about, "{name}");
        let operation = Operation::<NodeStep>::open(&dir, Arc::new(Silent), Timestamp::now);
        let operation = operation.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let steps: Vec<Value> = operation
            .steps()
            .iter()
            .map(|step| serde_json::to_value(step).expect("JSON"))
            .collect();
        assert_eq!(steps, progress.begin.steps, "{name}");
    }
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("what it is about")
}

#[test]
fn every_journal_is_shown_with_the_state_of_each_step() {
    for name in ALL {
        let flags: &[&str] = match name.split('-').next() {
            Some("restore") => &["restore", "--status"],
            Some("join") => &["member-add", "--join", "--status"],
            _ => continue,
        };
        let root = tempfile::tempdir().expect("a folder");
        let records = records(name);
        place(root.path(), None, &records);
        let mut command = testbench::golden::etcd_dr();
        let command = command.arg("--root").arg(root.path());
        let output = command.args(flags).args(["-o", "json"]).output();
        let output = output.expect("running etcd-dr");
        let interrupted = name.ends_with("interrupted");
        let status = if interrupted { 7 } else { 0 };
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{name}: {told}");
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        testbench::schema::check_output(&json);
        let shown = json["steps"].as_array().expect("steps");
        let planned = records[0]["steps"].as_array().expect("steps");
        assert_eq!(shown.len(), planned.len(), "{name}");
        for (shown, planned) in shown.iter().zip(planned) {
            assert_eq!(shown["name"], planned["step"], "{name}");
        }
        let last = if interrupted { "pending" } else { "done" };
        assert_eq!(shown.last().expect("a step")["state"], last, "{name}");
    }
}

/// A plan that an earlier build has only just written.
fn begun(node: &Node, name: &str) -> String {
    let dir = place(&node.root, Some(&node.cluster), &records(name)[..1]);
    let id = dir.file_name().expect("a name");
    id.to_string_lossy().into_owned()
}

fn later(node: &Node) -> String {
    let found = node
        .cluster
        .etcdctl_ok(&["get", "later", "--print-value-only"]);
    found.trim().to_owned()
}

#[test]
fn a_restore_that_an_earlier_build_planned_is_resumed_and_rolled_back() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    node.roll_out("kube-scheduler", 6, 8);
    let etc = node.tree_of("etc/kubernetes");
    let id = begun(&node, "restore-openshift-completed");
    node.expect(0, &["restore", "--resume"]);
    node.assert_backed_up_state();
    let left = node.revisions();
    assert!(
        !left.contains(&"kube-scheduler-pod-8".to_owned()),
        "{left:?}"
    );

    node.expect(0, &["restore", "--rollback", "--yes"]);
    node.bench.settle();
    node.cluster.wait_member(0);
    let mut back = node.tree_of("etc/kubernetes");
    // What the restored etcd had is kept until the commit.
    back.retain(|path, _| !path.starts_with(".etcd-dr"));
    assert_same(&etc, &back, "after the rollback");
    assert_eq!(later(&node), "1");
    node.expect(0, &["restore", "--commit", "--yes"]);
    assert!(!node.path("etc/kubernetes/.etcd-dr").exists());
    let (_, said) = node.expect(5, &["restore", "--rollback", &id, "--yes"]);
    assert!(said.contains("[not-revertible]"), "{said}");
}

#[test]
fn a_restore_from_a_data_directory_that_an_earlier_build_planned_is_resumed() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    begun(&node, "restore-from-data-dir-completed");
    node.expect(0, &["restore", "--resume"]);
    node.cluster.wait_member(0);
    assert_eq!(later(&node), "1");
    let members = node.cluster.etcdctl_ok(&["member", "list"]);
    assert_eq!(members.lines().count(), 1, "{members}");
    node.expect(0, &["restore", "--rollback", "--yes"]);
    node.bench.settle();
    node.cluster.wait_member(0);
    assert_eq!(later(&node), "1");
    node.expect(0, &["restore", "--commit", "--yes"]);
}

/// What a step did, done by hand.
fn redo(root: &Path, step: &Value) {
    let host = |path: &Value| root.join(path.as_str().expect("a path").trim_start_matches('/'));
    let list = |name: &str| step[name].as_array().cloned().unwrap_or_default();
    let exchange = |exchange: &Value| {
        let place = host(&exchange["place"]);
        if place.exists() {
            std::fs::rename(&place, host(&exchange["aside"])).expect("setting aside");
        }
        if !exchange["incoming"].is_null() {
            std::fs::rename(host(&exchange["incoming"]), place).expect("putting in place");
        }
    };
    match step["step"].as_str().expect("a name") {
        "make-folders" => list("folders")
            .iter()
            .for_each(|folder| std::fs::create_dir_all(host(folder)).expect("a folder")),
        "unpack" => {
            for copy in list("copies") {
                let name = host(&copy[1]);
                let name = name.file_name().expect("a name");
                let live = root.join("etc/kubernetes/manifests").join(name);
                std::fs::copy(live, host(&copy[1])).expect("a manifest");
            }
        }
        "build-data" => {
            // By today's program; no etcd has run on it, which its WAL shows.
            let mut command = testbench::golden::etcd_dr();
            command.args(["restore", step["snapshot"].as_str().expect("a path")]);
            command.arg("--data-dir").arg(host(&step["into"]));
            command.args([
                "--initial-cluster-token",
                step["token"].as_str().expect("one"),
            ]);
            command.args(["--bump-revision", "1000000000", "--mark-compacted"]);
            expect_success("building data", &command.output().expect("running etcd-dr"));
        }
        "stop-pods" | "start-pods" => list("moves").iter().for_each(exchange),
        "put-back" => exchange(&step["exchange"]),
        "set-data-aside" => {
            let (from, to) = (host(&step["dataDir"]), host(&step["aside"]));
            std::fs::rename(from.join("member"), to.join("member")).expect("setting data aside");
        }
        "switch-data" => {
            let (from, to) = (host(&step["built"]), host(&step["dataDir"]));
            std::fs::rename(from.join("member"), to.join("member")).expect("switching data");
        }
        _ => {}
    }
}

fn redo_all(node: &Node, dir: &Path) {
    let records = read_back(dir);
    for record in records.iter().filter(|record| record["record"] == "done") {
        let at = record["step"].as_u64().expect("a number");
        redo(&node.root, &records[0]["steps"][at as usize]);
    }
}

#[test]
fn an_interrupted_restore_of_an_earlier_build_is_rolled_back() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::kubeadm());
    let socket = node.path("run/containerd/containerd.sock");
    std::fs::create_dir_all(socket.parent().expect("a folder")).expect("a folder");
    std::os::unix::fs::symlink("../crio/crio.sock", socket).expect("a link");
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    let before = node.tree_of("etc/kubernetes");
    let records = records("restore-kubeadm-interrupted");
    // The kubelet is as if it had not looked yet; etcd has ended, and nothing else writes.
    node.bench.take_out("etcd.yaml");
    node.bench.settle();
    node.bench.faults(|faults| faults.blind = true);
    node.bench.put_back("etcd.yaml");
    let data = node.tree_of("var/lib/etcd");
    let dir = place(&node.root, Some(&node.cluster), &records);
    redo_all(&node, &dir);
    assert!(data != node.tree_of("var/lib/etcd"), "the data is switched");
    let (_, told) = node.expect(0, &["restore", "--rollback", "--yes"]);
    assert!(told.contains("[not-serving]"), "{told}");
    assert_same(&before, &node.tree_of("etc/kubernetes"), "rolled back");
    // Nothing was served from what was built, so the old data comes back byte for byte.
    assert_same(&data, &node.tree_of("var/lib/etcd"), "rolled back");
    node.bench.no_faults();
    node.cluster.wait_member(0);
    assert_eq!(later(&node), "1");
}

#[test]
fn a_disabling_of_an_earlier_build_is_in_force_and_ends() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    let before = node.tree_of("etc/kubernetes");
    let records = records("disable-openshift-completed");
    let dir = place(&node.root, Some(&node.cluster), &records);
    redo_all(&node, &dir);
    node.bench.settle();
    let listed = node.expect(0, &["list"]).1;
    assert!(listed.contains("etcd is disabled on this node"), "{listed}");
    node.expect(0, &["enable"]);
    node.cluster.wait_member(0);
    assert_same(&before, &node.tree_of("etc/kubernetes"), "enabled again");
}
