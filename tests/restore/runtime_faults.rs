//! Waits fail closed: a runtime that lies, hangs or fails, pods that do not stop, an etcd that does
//! not come up. Each time the node is as before.

use std::time::Duration;

use super::node::{Node, assert_same, etcd, text};
use testbench::node::NodeOptions;
use testbench::node_bench::{Lie, Stop};
use testbench::tmpfs::Tmpfs;

fn node() -> Option<Node> {
    let node = Node::single(&etcd("3.5")?, &NodeOptions::default());
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    node.roll_out("kube-scheduler", 6, 8);
    Some(node)
}

/// A restore that fails and rolls back; returns its output.
fn goes_back(node: &mut Node, wait: &str) -> String {
    let before = node.tree_of("etc/kubernetes");
    let (_, told) = node.expect(8, &["restore", "backup-1", "--yes", "--wait", wait]);
    assert!(told.contains("the node is as before"), "{told}");
    assert_same(&before, &node.tree_of("etc/kubernetes"), &told);
    node.bench.no_faults();
    node.bench.settle();
    node.cluster.wait_member(0);
    let later = node
        .cluster
        .etcdctl_ok(&["get", "later", "--print-value-only"]);
    assert_eq!(later.trim(), "1", "{told}");
    told
}

#[test]
fn a_pod_that_does_not_stop_rolls_the_restore_back() {
    let Some(mut node) = node() else { return };
    node.bench.faults(|faults| {
        faults.stop = Stop::Never;
        faults.pods = vec!["openshift-kube-scheduler".to_owned()];
    });
    let told = goes_back(&mut node, "3s");
    assert!(told.contains("container kube-scheduler of pod"), "{told}");
}

#[test]
fn a_runtime_that_hides_a_running_etcd_is_not_believed() {
    let Some(mut node) = node() else { return };
    for lie in [Lie::Gone, Lie::Ended] {
        node.bench.faults(|faults| {
            faults.lie = lie;
            faults.stop = Stop::Never;
            faults.pods = vec!["etcd".to_owned()];
        });
        let told = goes_back(&mut node, "3s");
        assert!(told.contains("holds the database"), "{lie:?}: {told}");
    }
}

#[test]
fn a_runtime_that_says_running_for_ever_and_one_that_lists_what_ended() {
    let Some(mut node) = node() else { return };
    node.bench.faults(|faults| {
        faults.lie = Lie::RunsForEver;
        faults.pods = vec!["kube-apiserver".to_owned()];
    });
    let told = goes_back(&mut node, "3s");
    assert!(told.contains("kube-apiserver"), "{told}");
    // Ended containers of earlier attempts are no reason to wait.
    node.bench.faults(|faults| faults.earlier_attempts = true);
    node.restore(&[]);
    node.bench.no_faults();
    node.assert_backed_up_state();
}

#[test]
fn a_slow_stop_is_waited_for() {
    let Some(mut node) = node() else { return };
    node.bench
        .faults(|faults| faults.stop = Stop::After(Duration::from_secs(7)));
    let (_, told) = node.restore(&[]);
    assert!(
        told.contains("waiting for the static pods to stop"),
        "{told}"
    );
    node.bench.no_faults();
    node.assert_backed_up_state();
}

/// Takes the member's address as soon as etcd has left it, so that no other etcd comes up there.
fn take_address(node: &Node) -> std::thread::JoinHandle<Option<std::net::TcpListener>> {
    let url = node.cluster.client_url(0);
    let address = url.trim_start_matches("https://").to_owned();
    std::thread::spawn(move || {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while std::time::Instant::now() < end {
            if let Ok(listener) = std::net::TcpListener::bind(&address) {
                return Some(listener);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    })
}

/// A restore that failed is rolled back on a full file system, without a free inode, and on one that has
/// become read-only: undoing only renames.
#[test]
fn a_rollback_needs_no_room_and_no_journal() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    let mount = node.path("var/lib/etcd-dr");
    let Some(state) = Tmpfs::mount(&mount, "64m,nr_inodes=2000") else {
        return;
    };
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    for case in ["full", "no inode", "read-only"] {
        let before = node.tree_of("etc/kubernetes");
        let taken = take_address(&node);
        let args = ["backup-1", "--yes", "--wait", "4s", "--keep-failed"];
        node.expect(7, &[&["restore"], &args[..]].concat());
        match case {
            "full" => drop(state.fill("ballast")),
            "no inode" => {
                let made = (0..).map(|n| std::fs::File::create(mount.join(format!("i{n}"))));
                assert!(made.take(5000).any(|file| file.is_err()), "inodes are left");
            }
            _ => state.remount("ro"),
        }
        // etcd can come back: a rollback waits for it.
        drop(taken.join().expect("the thread").expect("the address"));
        let (_, told) = node.expect(0, &["restore", "--rollback"]);
        assert_same(&before, &node.tree_of("etc/kubernetes"), &told);
        let unrecorded = told.contains("rollback-not-recorded");
        assert_eq!(unrecorded, case == "read-only", "{case}: {told}");
        node.bench.settle();
        node.cluster.wait_member(0);
        let later = ["get", "later", "--print-value-only"];
        assert_eq!(node.cluster.etcdctl_ok(&later).trim(), "1", "{case}");
        state.remount("rw");
        for entry in std::fs::read_dir(&mount).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                std::fs::remove_file(entry.path()).expect("a file that goes");
            }
        }
        if unrecorded {
            // The journal learns of it; nothing of the node changes.
            node.expect(7, &["restore", "backup-1", "--yes"]);
            node.expect(0, &["restore", "--rollback"]);
            assert_same(&before, &node.tree_of("etc/kubernetes"), case);
            node.bench.settle();
            node.cluster.wait_member(0);
        }
    }
}

#[test]
fn an_etcd_that_does_not_start_rolls_back_or_is_kept_on_request() {
    let Some(mut node) = node() else { return };
    let before = node.tree_of("etc/kubernetes");
    let taken = take_address(&node);
    let args = [
        "restore",
        "backup-1",
        "--yes",
        "--wait",
        "8s",
        "--keep-failed",
    ];
    let output = node.run(&args);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{told}");
    assert!(
        told.contains("--resume") && told.contains("--rollback"),
        "{told}"
    );
    let listed = node.expect(0, &["list"]).1;
    assert!(listed.contains("is not finished"), "{listed}");
    let busy = node.expect(7, &["restore", "backup-1", "--yes"]).1;
    assert!(busy.contains("is not finished"), "{busy}");
    let status = node.run(&["restore", "--status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["state"], "running");
    assert_eq!(status["running"], false);

    node.expect(0, &["restore", "--rollback"]);
    assert_same(
        &before,
        &node.tree_of("etc/kubernetes"),
        "rolled back by hand",
    );
    drop(taken.join().expect("the thread").expect("the address"));
    node.bench.settle();
    node.cluster.wait_member(0);
    let later = node
        .cluster
        .etcdctl_ok(&["get", "later", "--print-value-only"]);
    assert_eq!(later.trim(), "1");
}

#[test]
fn pods_come_back_at_once_although_the_kubelet_counts_what_exited() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::with(&bins, &NodeOptions::default(), |spec| {
        spec.back_off = Duration::from_secs(120);
    });
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    let before = node.tree_of("etc/kubernetes");
    node.restore(&[]);
    node.expect(0, &["restore", "--rollback", "--yes"]);
    // The command ended when all of it ran again.
    for pod in ["etcd", "kube-apiserver", "openshift-kube-scheduler"] {
        assert!(node.bench.runs(pod), "{pod}");
    }
    node.cluster.wait_member(0);
    let mut back = node.tree_of("etc/kubernetes");
    back.retain(|path, _| !path.starts_with(".etcd-dr"));
    assert_same(&before, &back, "after the rollback");
}

#[test]
fn a_slow_api_server_is_ended_and_etcd_is_not_hurried() {
    let Some(node) = node() else { return };
    node.bench.faults(|faults| {
        faults.stop = Stop::After(Duration::from_secs(50));
        faults.pods = vec!["kube-apiserver".to_owned()];
    });
    node.expect(
        0,
        &[
            "restore", "backup-1", "--yes", "--wait", "20s", "--grace", "1s",
        ],
    );
    let told: Vec<String> = node.bench.log();
    let told: Vec<&String> = told
        .iter()
        .filter(|line| line.contains("is told to stop"))
        .collect();
    assert!(!told.is_empty());
    for line in told {
        assert!(line.contains(" of kube-apiserver within 1 s"), "{line}");
    }
}

#[test]
fn without_a_kubelet_nothing_stops_and_the_error_says_so() {
    let Some(mut node) = node() else { return };
    node.bench.faults(|faults| faults.stop = Stop::Never);
    let told = goes_back(&mut node, "2s");
    assert!(told.contains("systemctl status kubelet"), "{told}");
    let log = node.bench.log();
    assert!(!log.iter().any(|line| line.contains("is told to stop")));
}

#[test]
fn a_backup_in_the_middle_of_a_restore_says_what_to_finish() {
    let Some(mut node) = node() else { return };
    node.bench.faults(|faults| faults.blind = true);
    let failing = [
        "restore",
        "backup-1",
        "--yes",
        "--wait",
        "1s",
        "--keep-failed",
    ];
    node.expect(7, &failing);
    let told = node.expect(7, &["backup"]).1;
    assert!(told.contains("restore --resume"), "{told}");
    node.bench.no_faults();
    node.expect(0, &["restore", "--rollback", "--yes"]);
    // Its wait is one second; etcd may need longer.
    node.bench.settle();
    node.cluster.wait_member(0);
    node.expect(0, &["backup"]);
}
