//! The way there and back, undisturbed.

use super::node::{Node, assert_same, etcd};
use testbench::node::NodeOptions;
use testbench::tmpfs::Tmpfs;

const FAMILIES: [&str; 2] = ["3.4", "3.5"];

/// Takes a backup, then continues as a cluster does: more data, newer revisions.
fn backed_up(node: &Node) {
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    node.roll_out("etcd", 7, 9);
    node.roll_out("kube-scheduler", 6, 8);
}

#[test]
fn a_single_node_is_restored_and_rolled_back_again_and_again() {
    for family in FAMILIES {
        let Some(bins) = etcd(family) else { continue };
        let mut node = Node::single(&bins, &NodeOptions::default());
        backed_up(&node);
        assert_eq!(node.live_revision("etcd"), "9");
        node.cluster.wait_member(0);
        let dry = node.expect(0, &["restore", "backup-1", "--dry-run"]).0;
        assert!(
            dry.contains("restore etcd-pod-7") || dry.contains("etcd-pod-7 already exists"),
            "{dry}"
        );
        assert!(dry.contains("set etcd-pod-9 aside"), "{dry}");
        let etc = node.tree_of("etc/kubernetes");

        let (out, _) = node.restore(&[]);
        assert!(out.contains("accepts writes"), "{out}");
        node.assert_backed_up_state();
        assert_eq!(node.live_revision("etcd"), "7");
        let left = node.revisions();
        assert!(!left.contains(&"etcd-pod-9".to_owned()), "{left:?}");
        assert!(
            !left.contains(&"kube-scheduler-pod-8".to_owned()),
            "{left:?}"
        );
        assert!(left.contains(&"etcd-pod-7".to_owned()), "{left:?}");
        let status = node.expect(0, &["restore", "--status"]).0;
        assert!(status.contains(": completed"), "{status}");

        node.expect(0, &["restore", "--rollback", "--yes"]);
        node.bench.settle();
        node.cluster.wait_member(0);
        let mut back = node.tree_of("etc/kubernetes");
        // What the restored etcd had is kept until the commit.
        back.retain(|path, _| !path.starts_with(".etcd-dr"));
        assert_same(&etc, &back, "after the rollback");
        let later = node
            .cluster
            .etcdctl_ok(&["get", "later", "--print-value-only"]);
        assert_eq!(later.trim(), "1");
        node.expect(0, &["restore", "--commit", "--yes"]);
        assert!(!node.path("etc/kubernetes/.etcd-dr").exists());

        node.restore(&[]);
        node.assert_backed_up_state();
        node.expect(0, &["restore", "--commit", "--yes"]);
        assert!(!node.path("etc/kubernetes/.etcd-dr").exists());
        let refused = node.expect(5, &["restore", "--rollback", "--yes"]).1;
        assert!(refused.contains("committed"), "{refused}");

        // A backup of the restored cluster restores too: its revision has been raised before.
        node.expect(0, &["backup"]);
        node.expect(
            0,
            &[
                "restore", "backup-2", "--yes", "--wait", "60s", "--detach", "never",
            ],
        );
        node.assert_backed_up_state();
    }
}

#[test]
fn a_set_in_another_store_is_brought_here_and_restored() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    let share = node.cluster.scratch().join("share");
    std::fs::create_dir_all(&share).expect("a folder");
    let url = format!("file://{}", share.display());
    node.expect(0, &["copy", "backup-1", &url]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    let cluster = std::fs::read_dir(&share)
        .expect("the share")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .find(|name| !name.starts_with('.'))
        .expect("a cluster");
    let set = format!("{url}/{cluster}/master-0/latest");
    let before = node.tree_of("var/lib/etcd-dr");
    node.expect(0, &["restore", &set, "--dry-run"]);
    assert_same(&before, &node.tree_of("var/lib/etcd-dr"), "after a dry run");
    node.expect(0, &["restore", &set, "--yes", "--wait", "60s"]);
    node.assert_backed_up_state();
    let listed = node.expect(0, &["list"]).0;
    assert!(listed.contains("backup-2"), "{listed}");

    // As long as it can be rolled back its set stays, whatever the rules say.
    node.expect(0, &["backup"]);
    let pruned = |node: &Node| {
        node.expect(0, &["prune", "--keep-last", "1", "--dry-run", "--explain"])
            .0
    };
    assert!(pruned(&node).contains("in-use"), "{}", pruned(&node));
    node.expect(0, &["restore", "--commit", "--yes"]);
    assert!(!pruned(&node).contains("in-use"), "{}", pruned(&node));
}

#[test]
fn a_data_directory_that_is_a_mount_keeps_its_place() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    // The data move to a file system of their own.
    node.bench.take_out("etcd-pod.yaml");
    node.bench.settle();
    let data = node.path("var/lib/etcd");
    let aside = node.cluster.scratch().join("data");
    super::node::copy(&data, &aside);
    std::fs::remove_dir_all(data.join("member")).expect("emptying it");
    let Some(mounted) = Tmpfs::mount(&data, "400m") else {
        return;
    };
    super::node::copy(&aside.join("member"), &data.join("member"));
    node.bench.put_back("etcd-pod.yaml");
    node.cluster.wait_member(0);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);

    let before = node.tree_of("etc/kubernetes");
    // No room there for a second database: nothing is started.
    let ballast = mounted.fill("ballast");
    let place = format!("the file system at {} has ", data.display());
    let disk = data.to_str().expect("UTF-8");
    for source in [&["latest"][..], &["--from-data-dir", disk, "--dry-run"]] {
        let (_, err) = node.expect(6, &[&["restore", "--yes"], source].concat());
        assert!(err.contains(&place), "{err}");
        assert!(err.contains("bytes free, the restore needs"), "{err}");
    }
    assert_same(&before, &node.tree_of("etc/kubernetes"), "after no room");
    std::fs::remove_file(&ballast).expect("making room");

    node.restore(&[]);
    node.assert_backed_up_state();
    let kept = data.join(".etcd-dr");
    assert!(kept.is_dir(), "what was there stays on its own mount");
    node.expect(0, &["restore", "--rollback", "--yes"]);
    node.bench.settle();
    node.cluster.wait_member(0);
    let mut back = node.tree_of("etc/kubernetes");
    back.retain(|path, _| !path.starts_with(".etcd-dr"));
    assert_same(&before, &back, "after the rollback");
    let later = node
        .cluster
        .etcdctl_ok(&["get", "later", "--print-value-only"]);
    assert_eq!(later.trim(), "1");
    node.expect(0, &["restore", "--commit", "--yes"]);
    assert!(!kept.exists(), "nothing of it is left");
    node.restore(&[]);
    node.assert_backed_up_state();
    node.expect(0, &["restore", "--commit", "--yes"]);
    assert!(!kept.exists());
    node.bench.take_out("etcd-pod.yaml");
    node.bench.settle();
    drop(mounted);
}
