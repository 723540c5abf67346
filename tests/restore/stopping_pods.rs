//! How the pods end: what counts as stopped, who waits for whom, and what the runtime forgets.

use std::time::Duration;

use super::node::{Node, assert_same, etcd};
use testbench::node::NodeOptions;
use testbench::node_bench::{Lie, Stop};

const TOLD: &str = "the runtime is told to remove a pod";
const REMOVED: &str = "the runtime has removed a pod";

fn node() -> Option<Node> {
    let node = Node::single(&etcd("3.5")?, &NodeOptions::default());
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    Some(node)
}

/// Where a line is first in a log.
#[track_caller]
fn at(log: &[String], line: &str) -> usize {
    let found = log.iter().position(|said| said == line);
    found.unwrap_or_else(|| panic!("{line:?} is not in\n{}", log.join("\n")))
}

#[test]
fn a_pod_without_a_container_has_not_stopped() {
    let Some(mut node) = node() else { return };
    let before = node.tree_of("etc/kubernetes");
    node.bench.faults(|faults| {
        faults.lie = Lie::Stands;
        faults.pods = vec!["openshift-kube-scheduler".to_owned()];
    });
    let failing = ["restore", "backup-1", "--yes", "--wait", "3s"];
    let (_, told) = node.expect(8, &failing);
    let name = node.cluster.name(0);
    let expected = format!("pod openshift-kube-scheduler-{name} is still ready");
    assert!(told.contains(&expected), "{told}");
    assert_same(&before, &node.tree_of("etc/kubernetes"), &told);
    node.bench.no_faults();
    node.bench.settle();
    node.cluster.wait_member(0);
    node.restore(&[]);
    node.assert_backed_up_state();
}

#[test]
fn a_rollback_stops_all_pods_at_once() {
    let Some(node) = node() else { return };
    node.restore(&[]);
    let before = node.bench.log().len();
    // Asked one after the other, etcd would be asked only after the API server has ended.
    node.bench.faults(|faults| {
        faults.stop = Stop::After(Duration::from_secs(4));
        faults.pods = vec!["kube-apiserver".to_owned()];
    });
    node.expect(0, &["restore", "--rollback", "--yes"]);
    let log = node.bench.log().split_off(before);
    let etcd = at(&log, "etcd is to stop");
    let ended = at(&log, "kube-apiserver has stopped");
    assert!(etcd < ended, "{}", log.join("\n"));
    // Nothing comes back before all have ended, and etcd comes back first.
    let starts: Vec<usize> = (0..log.len())
        .filter(|at| log[*at].ends_with(" starts"))
        .collect();
    let stops = (0..log.len()).filter(|at| log[*at].ends_with(" has stopped"));
    assert_eq!(starts[0], at(&log, "etcd starts"), "{}", log.join("\n"));
    assert!(stops.max() < Some(starts[0]), "{}", log.join("\n"));
}

#[test]
fn what_has_exited_is_removed_at_once_and_before_anything_starts() {
    let Some(node) = node() else { return };
    node.bench
        .faults(|faults| faults.removal = Duration::from_secs(2));
    let mut before = node.bench.log().len();
    for args in [
        ["restore", "backup-1", "--yes"],
        ["restore", "--rollback", "--yes"],
    ] {
        node.expect(0, &args);
        let log = node.bench.log().split_off(before);
        before += log.len();
        let told = log.iter().filter(|line| *line == TOLD).count();
        assert!(told >= 4, "{}", log.join("\n"));
        // One after the other, each would be told once the one before is removed.
        let first = at(&log, REMOVED);
        let together = log[..first].iter().filter(|line| *line == TOLD).count();
        assert!(together > 1, "{}", log.join("\n"));
        let last = log.iter().rposition(|line| line == REMOVED);
        assert!(
            last < Some(at(&log, "etcd starts")),
            "{args:?}: {}",
            log.join("\n")
        );
        node.bench.settle();
    }
}
