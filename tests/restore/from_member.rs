//! No backup: a member's own disk, as one transaction on its node; and etcd off and on.

use super::node::{KEYS, Node, assert_same, etcd};
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::kube::OpenShift;
use testbench::node::{self, NodeOptions};
use testbench::node_bench::NodeBench;

/// Three members behind nodes, the first run by the stand-in kubelet.
fn three() -> Option<Node> {
    let bins = etcd("3.5")?;
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 3).fast());
    Bulk::new(KEYS, 64).write(&cluster);
    OpenShift::default().write(&cluster);
    let roots = node::make_all(&cluster, &NodeOptions::default());
    let bench = NodeBench::adopt(&mut cluster, 0, |_| {});
    cluster.wait_member(0);
    Some(Node {
        bench,
        cluster,
        root: roots[0].clone(),
    })
}

#[test]
fn a_survivor_becomes_a_cluster_of_its_own_on_its_node() {
    let Some(mut node) = three() else { return };
    node.cluster.etcdctl_ok(&["put", "last", "1"]);
    let data = node.path("var/lib/etcd").display().to_string();
    let from = [
        "restore",
        "--from-data-dir",
        &data,
        "--yes",
        "--wait",
        "60s",
    ];
    let refused = node.expect(5, &from).1;
    assert!(refused.contains("other-members-running"), "{refused}");
    for i in 1..3 {
        node.cluster.kill(i);
    }
    let plan = node
        .expect(0, &["restore", "--from-data-dir", &data, "--dry-run"])
        .0;
    assert!(plan.contains("with its whole WAL"), "{plan}");
    let before = node.tree_of("etc/kubernetes");

    let (out, _) = node.expect(0, &from);
    assert!(out.contains("accepts writes"), "{out}");
    node.cluster.wait_member(0);
    let members = node.cluster.etcdctl_on(0, &["member", "list"]);
    let members = String::from_utf8_lossy(&members.stdout).into_owned();
    assert_eq!(members.lines().count(), 1, "{members}");
    let last = node
        .cluster
        .etcdctl_on(0, &["get", "last", "--print-value-only"]);
    assert_eq!(String::from_utf8_lossy(&last.stdout).trim(), "1");
    assert_eq!(node.live_revision("etcd"), "7");
    // A restart later does nothing special.
    node.bench.take_out("etcd-pod.yaml");
    node.bench.settle();
    node.bench.put_back("etcd-pod.yaml");
    node.cluster.wait_member(0);
    let again = node
        .cluster
        .etcdctl_on(0, &["get", "last", "--print-value-only"]);
    assert_eq!(String::from_utf8_lossy(&again.stdout).trim(), "1");

    // One of three is not bumped: the others would have other revisions. That is said.
    let (out, told) = node.expect(0, &["restore", "--rollback", "--yes"]);
    assert!(told.contains("[revision-not-bumped]"), "{told}");
    assert!(out.contains("do not notice"), "{out}");
    let mut back = node.tree_of("etc/kubernetes");
    back.retain(|path, _| !path.starts_with(".etcd-dr"));
    assert_same(&before, &back, "after the rollback");
    node.expect(0, &["restore", "--commit", "--yes"]);
    // Its old self waits for the members that are gone.
    node.bench.settle();
    node.cluster.restart(1);
    node.cluster.restart(2);
    node.cluster.wait_healthy();
    let three = node.cluster.etcdctl_ok(&["member", "list"]);
    assert_eq!(three.lines().count(), 3, "{three}");
}

#[test]
fn disable_keeps_etcd_stopped_until_enable() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    let before = node.tree_of("etc/kubernetes");
    let told = node.expect(0, &["enable"]).0;
    assert!(told.contains("not disabled"), "{told}");
    node.expect(0, &["disable", "--dry-run"]);
    node.expect(0, &["disable"]);
    assert!(!node.bench.runs("etcd"));
    let again = node.expect(0, &["disable"]).0;
    assert!(again.contains("already"), "{again}");
    let listed = node.expect(0, &["list"]).1;
    assert!(listed.contains("etcd is disabled on this node"), "{listed}");
    node.expect(0, &["enable"]);
    node.cluster.wait_member(0);
    assert_same(&before, &node.tree_of("etc/kubernetes"), "enabled again");
    assert!(!node.expect(0, &["list"]).1.contains("disabled"));

    // An installer of a new revision puts the manifest back.
    node.expect(0, &["disable"]);
    let manifest = node.resources().join("etcd-pod-7/etcd-pod.yaml");
    let live = node.path("etc/kubernetes/manifests/etcd-pod.yaml");
    std::fs::copy(&manifest, &live).expect("a manifest");
    node.cluster.wait_member(0);
    let listed = node.expect(0, &["list"]).1;
    assert!(listed.contains("its manifest is back"), "{listed}");
    node.expect(0, &["disable"]);
    assert!(!node.bench.runs("etcd"));
    node.expect(0, &["enable"]);
    node.cluster.wait_member(0);
}

#[test]
fn a_pod_that_does_not_stop_is_not_disabled() {
    use testbench::node_bench::Stop;
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    let before = node.tree_of("etc/kubernetes");
    node.bench.faults(|faults| faults.stop = Stop::Never);
    node.expect(8, &["disable", "--wait", "3s"]);
    node.bench.no_faults();
    assert_same(&before, &node.tree_of("etc/kubernetes"), "rolled back");
    node.cluster.wait_member(0);
}

#[test]
fn a_damaged_disk_is_refused_before_anything_stops() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::single(&bins, &NodeOptions::default());
    node.bench.take_out("etcd-pod.yaml");
    node.bench.settle();
    let data = node.path("var/lib/etcd").display().to_string();
    let from = ["restore", "--from-data-dir", &data];
    node.expect(0, &[&from[..], &["--dry-run"]].concat());
    // The log loses its last records, which the database has.
    let wal = node.path("var/lib/etcd/member/wal");
    let segments = std::fs::read_dir(wal).expect("the log").flatten();
    let last = segments.map(|entry| entry.path()).max().expect("a segment");
    let mut bytes = std::fs::read(&last).expect("a segment");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("records");
    bytes[end.saturating_sub(400)..=end].fill(0);
    std::fs::write(&last, bytes).expect("a segment");
    let before = node.tree();
    for more in [&["--dry-run"][..], &["--yes"]] {
        let told = node.expect(5, &[&from[..], more].concat()).1;
        assert!(told.contains("[damaged-survivor]"), "{told}");
        assert!(
            told.contains("member/snap/db --scope etcd --allow no-integrity-hash"),
            "{told}"
        );
    }
    assert_same(&before, &node.tree(), "refused");
}
