//! The whole disaster: three members, two lost with their disks and the third one's data too; and
//! the other kinds of sets and nodes.

use super::node::{KEYS, Node, copy, etcd};
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::kube::OpenShift;
use testbench::node::{self, NodeOptions};
use testbench::node_bench::{Empty, NodeBench};
use testbench::stock::{self, ScriptRun};

#[test]
fn two_of_three_members_are_lost_and_the_third_is_restored() {
    let Some(bins) = etcd("3.5") else { return };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 3).fast());
    Bulk::new(KEYS, 64).write(&cluster);
    OpenShift::default().write(&cluster);
    let roots = node::make_all(&cluster, &NodeOptions::default());
    let bench = NodeBench::adopt(&mut cluster, 0, |_| {});
    cluster.wait_member(0);
    let mut node = Node {
        bench,
        cluster,
        root: roots[0].clone(),
    };
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    node.roll_out("etcd", 7, 9);
    node.roll_out("kube-apiserver", 10, 12);
    for i in 1..3 {
        node.cluster.kill(i);
        std::fs::remove_dir_all(node.cluster.data_dir(i)).expect("losing a disk");
    }
    node.bench.take_out("etcd-pod.yaml");
    node.bench.settle();
    std::fs::remove_dir_all(node.path("var/lib/etcd/member")).expect("losing the data");

    let (out, _) = node.restore(&[]);
    assert!(out.contains("master-1, master-2"), "{out}");
    node.assert_backed_up_state();
    assert!(!node.revisions().contains(&"etcd-pod-9".to_owned()));
    assert!(
        !node
            .revisions()
            .contains(&"kube-apiserver-pod-12".to_owned())
    );

    // The others come back with nothing, as members that were added.
    let mut initial = format!("{}={}", node.cluster.name(0), node.cluster.peer_url(0));
    let mut rejoined = Vec::new();
    for i in 1..3 {
        let (name, url) = (node.cluster.name(i).to_owned(), node.cluster.peer_url(i));
        let peer = format!("--peer-urls={url}");
        // A member that has just joined counts as connected after some seconds only.
        node.bench.until("the cluster to take a member", || {
            let added = node.cluster.etcdctl_on(0, &["member", "add", &name, &peer]);
            added.status.success()
        });
        initial.push_str(&format!(",{name}={url}"));
        let list = initial.clone();
        rejoined.push(NodeBench::adopt(&mut node.cluster, i, |spec| {
            spec.empty = Empty::Join(list);
        }));
        node.cluster.wait_member(i);
    }
    for i in 0..3 {
        let count = node.cluster.etcdctl_on(
            i,
            &["get", "--prefix", "", "--count-only", "--write-out=fields"],
        );
        assert!(count.status.success());
    }
    let hashes = node
        .cluster
        .etcdctl_ok(&["endpoint", "hashkv", "--cluster", "--write-out=json"]);
    let hashes: serde_json::Value = serde_json::from_str(&hashes).expect("JSON");
    let all: Vec<_> = hashes
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["HashKV"]["hash"].clone())
        .collect();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|hash| *hash == all[0]), "{all:?}");
    // With others in it there is no rollback.
    let refused = node.expect(5, &["restore", "--rollback", "--yes"]).1;
    assert!(refused.contains("master-1"), "{refused}");
}

#[test]
fn folders_of_openshifts_scripts_are_restored() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    let store = node.path("var/lib/etcd-dr/static-pod-backups/backup-1");
    let snapshot = std::fs::read_dir(&store)
        .expect("a set")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|ending| ending == "db"))
        .expect("a snapshot");
    stock::assert_stock_restorable(&store);
    let scratch = node.cluster.scratch();
    let folders = [
        stock::script_backup(
            &node.root,
            &snapshot,
            &scratch.join("script"),
            ScriptRun::default(),
        )
        .dir,
        stock::script_backup(
            &node.root,
            &snapshot,
            &scratch.join("forced"),
            ScriptRun {
                zone: "America/New_York",
                force: true,
            },
        )
        .dir,
        stock::go_backup(&node.root, &snapshot, &scratch.join("go")).dir,
    ];
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    for dir in folders {
        let named = dir.display().to_string();
        node.expect(
            0,
            &[
                "restore",
                &named,
                "--yes",
                "--wait",
                "60s",
                "--allow",
                "cluster-mismatch",
            ],
        );
        node.assert_backed_up_state();
        node.expect(0, &["restore", "--rollback", "--yes"]);
        node.bench.settle();
        node.cluster.wait_member(0);
        node.expect(0, &["restore", "--commit", "--yes"]);
    }
}

#[test]
fn kubeadm_nodes_and_etcd_alone_are_restored() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::kubeadm());
    // The stand-in listens where CRI-O does; this node's kubelet names containerd.
    std::fs::create_dir_all(node.path("run/containerd")).expect("a folder");
    std::os::unix::fs::symlink(
        "../crio/crio.sock",
        node.path("run/containerd/containerd.sock"),
    )
    .expect("a link");
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    let manifest = node.path("etc/kubernetes/manifests/kube-scheduler.yaml");
    let before = std::fs::read(&manifest).expect("a manifest");
    std::fs::write(&manifest, [before.as_slice(), b"# edited\n"].concat()).expect("a manifest");
    let (out, _) = node.restore(&[]);
    assert!(out.contains("kubectl"), "{out}");
    node.assert_backed_up_state();
    assert_eq!(std::fs::read(&manifest).expect("a manifest"), before);
    node.expect(0, &["restore", "--commit", "--yes"]);

    // etcd alone, from a snapshot alone; the scheduler's pod runs on.
    let scheduler = node.bench.pid("kube-scheduler", "kube-scheduler");
    let set = node.path("var/lib/etcd-dr/static-pod-backups/backup-1");
    let snapshot = std::fs::read_dir(&set)
        .expect("a set")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|ending| ending == "db"))
        .expect("a snapshot");
    let alone = node.cluster.scratch().join("alone.db");
    copy(&snapshot, &alone);
    node.cluster.etcdctl_ok(&["put", "later", "2"]);
    let named = alone.display().to_string();
    node.expect(
        0,
        &[
            "restore", &named, "--scope", "etcd", "--yes", "--wait", "60s",
        ],
    );
    node.assert_backed_up_state();
    assert!(scheduler.is_some());
    assert_eq!(
        node.bench.pid("kube-scheduler", "kube-scheduler"),
        scheduler
    );
}
