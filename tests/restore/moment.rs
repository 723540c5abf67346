//! A node is restored to a moment inside a backup.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::node::{Node, etcd};
use testbench::node::NodeOptions;

/// Five pods in a namespace, which is deleted step by step as the API server does.
fn deleted_namespace(node: &Node) -> i64 {
    let put = |key: &str, value: &str| node.cluster.etcdctl_ok(&["put", key, value]);
    let namespace = "/kubernetes.io/namespaces/prod";
    put(
        namespace,
        r#"{"metadata":{"name":"prod","creationTimestamp":"2026-01-02T03:04:05Z"}}"#,
    );
    for i in 0..5 {
        put(&format!("/kubernetes.io/pods/prod/web-{i}"), "{}");
    }
    let before = node.cluster.revision(0);
    put(
        namespace,
        r#"{"metadata":{"name":"prod","deletionTimestamp":"2026-01-02T03:04:06Z"}}"#,
    );
    node.cluster
        .etcdctl_ok(&["del", "--prefix", "/kubernetes.io/pods/prod/"]);
    node.cluster.etcdctl_ok(&["del", namespace]);
    before
}

fn pods(node: &Node) -> usize {
    let keys = [
        "get",
        "--prefix",
        "/kubernetes.io/pods/prod/",
        "--keys-only",
    ];
    node.cluster.etcdctl_ok(&keys).split_whitespace().count()
}

const TO: [&str; 4] = ["restore", "latest", "--to-before", "namespace/prod"];

#[test]
fn a_deleted_namespace_comes_back_and_goes_again() {
    for family in ["3.4", "3.5"] {
        let Some(bins) = etcd(family) else { continue };
        let mut node = Node::single(&bins, &NodeOptions::default());
        node.expect(0, &["backup"]);
        let before = deleted_namespace(&node);
        node.expect(0, &["backup"]);
        assert_eq!(pods(&node), 0);

        let dry = node.expect(0, &[&TO[..], &["--dry-run"]].concat()).0;
        assert!(dry.contains("Restoring backup-2 to master-0"), "{dry}");
        let to = format!("to         revision {before}, written about ");
        assert!(dry.contains(&to), "{dry}");
        let why = "before the deletion of namespaces/prod was requested";
        assert!(dry.contains(why), "{dry}");
        assert!(dry.contains("pods in prod: 5 deleted"), "{dry}");
        let json = node
            .expect(0, &[&TO[..], &["--dry-run", "-o", "json"]].concat())
            .0;
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["about"]["set"]["to"]["revision"], before);

        let more = ["--yes", "--wait", "60s"];
        node.expect(0, &[&TO[..], &more].concat());
        assert_eq!(pods(&node), 5);
        let status = node.expect(0, &["restore", "--status", "-o", "json"]).0;
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(status["about"]["set"]["to"]["revision"], before);

        node.expect(0, &["restore", "--rollback", "--yes"]);
        node.bench.settle();
        node.cluster.wait_member(0);
        assert_eq!(pods(&node), 0);
        node.expect(0, &["restore", "--commit", "--yes"]);
    }
}

/// The journal remembers the moment, so that another process builds the same data.
#[test]
fn a_restore_to_a_moment_is_resumed() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    deleted_namespace(&node);
    node.expect(0, &["backup"]);
    // Killed in its first step, before the data is built.
    let mut child = node
        .command()
        .args([&TO[..], &["--yes", "--wait", "60s"]].concat())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting etcd-dr");
    let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let begun = lines
        .map_while(Result::ok)
        .any(|line| line.starts_with("[1/"));
    child.kill().expect("killing etcd-dr");
    child.wait().expect("its end");
    assert!(begun, "it never came to its first step");
    node.expect(0, &["restore", "--resume"]);
    node.bench.settle();
    node.cluster.wait_member(0);
    assert_eq!(pods(&node), 5);
}

#[test]
fn a_moment_that_no_backup_reaches_is_refused() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    node.expect(0, &["backup"]);
    let far = (node.cluster.revision(0) + 1).to_string();
    let (out, err) = node.expect(5, &["restore", "latest", "--to-revision", &far, "--yes"]);
    assert!(out.is_empty());
    assert!(err.contains("[unreachable-target]"), "{err}");
    assert!(
        err.contains("backup-2: revisions 1 to ") && err.contains("backup-1: revisions 1 to "),
        "{err}"
    );
    // An earlier one is reached by the older backup too; the newest is taken.
    let dry = node
        .expect(0, &["restore", "latest", "--to-revision", "5", "--dry-run"])
        .0;
    assert!(dry.contains("Restoring backup-2"), "{dry}");
    let plain = node
        .expect(
            0,
            &["restore", "backup-1", "--to-revision", "5", "--dry-run"],
        )
        .0;
    assert!(plain.contains("Restoring backup-1"), "{plain}");
}

/// A database that etcd cannot open, and the WAL next to it: nothing is lost, and the rollback brings
/// the broken database back.
#[test]
fn a_damaged_database_is_rolled_forward_from_its_wal() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    let (_, err) = node.expect(5, &["restore", "latest", "--roll-forward", "--dry-run"]);
    assert!(err.contains("[etcd-running]"), "{err}");
    node.cluster.etcdctl_ok(&["put", "last", "1"]);
    let database = node.path("var/lib/etcd/member/snap/db");
    node.bench.take_out("etcd-pod.yaml");
    node.bench.settle();
    std::fs::write(&database, b"broken").expect("damaging the database");
    node.bench.put_back("etcd-pod.yaml");
    node.expect(
        0,
        &[
            "restore",
            "latest",
            "--roll-forward",
            "--yes",
            "--wait",
            "60s",
        ],
    );
    node.bench.settle();
    node.cluster.wait_member(0);
    let last = ["get", "last", "--print-value-only"];
    assert_eq!(node.cluster.etcdctl_ok(&last).trim(), "1");
    node.assert_backed_up_state();
}
