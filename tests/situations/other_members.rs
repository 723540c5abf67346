//! A restore next to other members of the cluster: refused while they run, also when it is resumed.

use super::node::{KEYS, Node, etcd};
use super::operations::{containerd, rewritten, three, unsettled};
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::node::{self, NodeOptions};
use testbench::node_bench::{NodeBench, Stop};

/// Both releases keep their members without client URLs in the database.
#[test]
fn a_restore_beside_a_living_majority_is_refused_on_every_release() {
    for family in ["3.5.16", "3.4"] {
        let Some(mut node) = three(family) else {
            continue;
        };
        node.expect(0, &["backup"]);
        node.expect(0, &["disable"]);
        let told = node.expect(5, &["restore", "backup-1", "--yes"]).1;
        assert!(
            told.contains("other-members-running")
                && told.contains("master-1")
                && told.contains("master-2"),
            "{told}"
        );
        let data = node.path("var/lib/etcd").display().to_string();
        let told = node
            .expect(5, &["restore", "--from-data-dir", &data, "--yes"])
            .1;
        assert!(told.contains("other-members-running"), "{told}");

        // One that hangs cannot be told from one that runs.
        node.cluster.kill(2);
        node.cluster.pause(1);
        let told = node.expect(5, &["restore", "backup-1", "--yes"]).1;
        assert!(
            told.contains("other-members-unknown") && !told.contains("other-members-running"),
            "{told}"
        );
        assert!(
            told.contains("master-1: ") && !told.contains("master-2"),
            "{told}"
        );
        node.cluster.kill(1);
        node.expect(0, &["restore", "backup-1", "--dry-run"]);
    }
}

#[test]
fn the_only_member_is_never_another_at_whatever_address_it_serves() {
    let Some(bins) = etcd("3.5.16") else { return };
    let network = testbench::loopback::Loopback::reserve();
    let (own, local) = (network.ip(0), network.ip(7));
    let mut spec = ClusterSpec::new(&bins, 1).fast();
    spec.network = Some(network);
    let urls = format!("https://{local}:2379,https://{own}:2379");
    let mut cluster = Cluster::start(spec);
    let certs = cluster.certs().expect("certificates");
    certs.add_member_at("master-0", &[], &[own, local]);
    Bulk::new(KEYS, 64).write(&cluster);
    let root = node::make(&cluster, 0, &NodeOptions::kubeadm());
    let manifest = root.join("etc/kubernetes/manifests/etcd.yaml");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let (before, rest) = text.split_once("--listen-client-urls=").expect("the flag");
    let after = rest.trim_start_matches(|c: char| c.is_alphanumeric() || ":/.,[]-".contains(c));
    let text = format!("{before}--listen-client-urls={urls}{after}");
    std::fs::write(&manifest, text).expect("a manifest");
    let bench = NodeBench::adopt(&mut cluster, 0, |spec| {
        let launch = spec.etcd.as_mut().expect("etcd");
        launch.extra.push(format!("--listen-client-urls={urls}"));
    });
    cluster.wait_member(0);
    containerd(&root);
    let node = Node {
        bench,
        cluster,
        root,
    };
    node.expect(0, &["backup"]);
    let plan = node.expect(0, &["restore", "backup-1", "--dry-run"]).0;
    assert!(plan.contains(&format!("https://{local}:2379")), "{plan}");
}

#[test]
fn a_restore_is_not_resumed_beside_members_that_were_started_since() {
    let Some(mut node) = three("3.5") else { return };
    node.expect(0, &["backup"]);
    for i in 1..3 {
        node.cluster.kill(i);
    }
    // A restore may be left in that state for hours, if etcd does not end.
    node.bench.faults(|faults| {
        faults.stop = Stop::Never;
        faults.pods = vec!["etcd".to_owned()];
    });
    let restore = [
        "restore",
        "backup-1",
        "--yes",
        "--wait",
        "2s",
        "--keep-failed",
    ];
    node.expect(7, &restore);
    node.bench.no_faults();
    let (id, _) = unsettled(&node).pop().expect("a restore");
    let journal = node.path("var/lib/etcd-dr").join(&id).join("journal");
    rewritten(&journal, |_, record| {
        record["time"] = "2026-01-01T00:00:00Z".into()
    });
    node.cluster.relaunch_stopped();
    for i in 1..3 {
        node.cluster.wait_member(i);
    }
    let told = node.expect(5, &["restore", "--resume"]).1;
    assert!(
        told.contains("other-members-running") && told.contains("roll it back"),
        "{told}"
    );
    assert!(!told.contains("--allow"), "{told}");
    node.expect(0, &["restore", "--rollback"]);
    node.bench.settle();
    node.cluster.wait_healthy();
}

#[test]
fn data_from_before_a_restore_is_not_started_beside_the_restored_cluster() {
    let Some(mut node) = three("3.5") else { return };
    let other = node.cluster.node_root(1).to_owned();
    let bench = NodeBench::adopt(&mut node.cluster, 1, |_| {});
    containerd(&other);
    let on_other = |args: &[&str]| {
        let mut command = testbench::golden::etcd_dr();
        command
            .args(["--node-name", "master-1", "--root"])
            .arg(&other)
            .args(args);
        let output = command.output().expect("running etcd-dr");
        (output.status.code(), super::node::text(&output.stderr))
    };
    node.cluster.wait_member(1);
    node.expect(0, &["backup"]);
    assert_eq!(on_other(&["disable"]).0, Some(0));
    node.cluster.kill(2);
    node.restore(&[]);
    let (status, told) = on_other(&["enable"]);
    assert_eq!(status, Some(5), "{told}");
    assert!(
        told.contains("[cluster-restored]") && told.contains("member-add --join"),
        "{told}"
    );
    assert!(!bench.runs("etcd"));
}
