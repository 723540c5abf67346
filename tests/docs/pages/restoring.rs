//! README.md and docs/runbook.md.

use std::process::Command;

use super::stage::{Stage, Trio};
use super::typed::{Typed, section};
use crate::node::{Node, etcd};
use crate::project;
use testbench::node::NodeOptions;
use testbench::process::expect_success;

fn page(file: &str, heading: &str) -> Vec<Typed> {
    section(&project().join(file), heading)
}

const RUNBOOK: &str = "docs/runbook.md";

#[test]
fn the_first_backup_and_the_first_drill() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    let stage = Stage::of(&node.cluster);
    std::fs::create_dir_all(node.path("mnt/share")).expect("a share");
    stage.play(&page("README.md", "The first backup"), |_| {});
    stage.play(&page("README.md", "The first restore drill"), |_| {});
    // What the table says of the others' check is so.
    stage.play(&page("README.md", "How it compares"), |typed| {
        let line = typed
            .line
            .replace(" /", &format!(" {}/", node.root.display()));
        if !line.starts_with("etcd-dr ") {
            let etcdctl = bins.etcdctl.display().to_string();
            let line = line.replace("etcdctl", &etcdctl);
            let output = Command::new("sh")
                .args(["-c", &line])
                .env("ETCDCTL_API", "3")
                .output();
            expect_success(&line, &output.expect("running a shell"));
        }
    });
    stage.play(&page(RUNBOOK, "Something was deleted"), |_| {});
    stage.play(&page(RUNBOOK, "The drill"), |_| {});
    node.bench.settle();
    node.cluster.wait_member(0);
    stage.play(&page("README.md", "Every day"), |_| {});
    // A database whose WAL is gone.
    node.cluster.etcdctl_ok(&["put", "last", "1"]);
    let member = node.cluster.data_dir(0).join("member");
    stage.play(&page(RUNBOOK, "The WAL is lost"), |typed| {
        let to = node.path("var/tmp/last.db");
        if typed.line.starts_with("etcd-dr disable") {
            // Stopped in peace, etcd has written everything to its database.
            node.bench.take_out("etcd-pod.yaml");
            node.bench.settle();
            std::fs::remove_dir_all(member.join("wal")).expect("losing the WAL");
            node.bench.put_back("etcd-pod.yaml");
        } else if typed.line.starts_with("cp ") {
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
            std::fs::copy(member.join("snap/db"), to).expect("a copy");
        }
    });
    node.cluster.wait_member(0);
    let last = ["get", "last", "--print-value-only"];
    assert_eq!(node.cluster.etcdctl_ok(&last).trim(), "1");
}

#[test]
fn a_namespace_was_deleted() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    let stage = Stage::of(&node.cluster);
    let put = |key: &str, value: &str| node.cluster.etcdctl_ok(&["put", key, value]);
    let namespace = "/kubernetes.io/namespaces/prod";
    stage.play(
        &page(RUNBOOK, "A namespace was deleted ten minutes ago"),
        |typed| {
            if typed.line != "etcd-dr backup" {
                return;
            }
            put(namespace, r#"{"metadata":{"name":"prod"}}"#);
            for i in 0..5 {
                put(&format!("/kubernetes.io/pods/prod/web-{i}"), "{}");
            }
            // As the API server does it.
            put(
                namespace,
                r#"{"metadata":{"name":"prod","deletionTimestamp":"2026-01-02T03:04:05Z"}}"#,
            );
            let pods = ["del", "--prefix", "/kubernetes.io/pods/prod/"];
            node.cluster.etcdctl_ok(&pods);
            node.cluster.etcdctl_ok(&["del", namespace]);
        },
    );
    node.bench.settle();
    node.cluster.wait_member(0);
    let keys = [
        "get",
        "--prefix",
        "/kubernetes.io/pods/prod/",
        "--keys-only",
    ];
    let pods = node.cluster.etcdctl_ok(&keys);
    assert_eq!(pods.split_whitespace().count(), 5, "{pods}");
    stage.types("master-0", "etcd-dr backup");
    for (key, object) in [
        (
            "pods/shop/web-1",
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-1"},"spec":{"nodeName":"worker-1"}}"#,
        ),
        (
            "persistentvolumes/pv-7",
            r#"{"apiVersion":"v1","kind":"PersistentVolume","metadata":{"name":"pv-7"}}"#,
        ),
    ] {
        let key = format!("/kubernetes.io/{key}");
        node.cluster.etcdctl_ok(&["put", &key, object]);
    }
    stage.play(&page(RUNBOOK, "What would a restore lose?"), |_| {});
}

#[test]
fn the_database_is_damaged() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    let stage = Stage::of(&node.cluster);
    stage.types("master-0", "etcd-dr backup");
    node.cluster.etcdctl_ok(&["put", "last", "1"]);
    let database = node.cluster.data_dir(0).join("member/snap/db");
    stage.play(&page(RUNBOOK, "The database is damaged"), |typed| {
        if typed.line.starts_with("etcd-dr list") {
            node.bench.take_out("etcd-pod.yaml");
            node.bench.settle();
            std::fs::write(&database, b"broken").expect("damaging the database");
            node.bench.put_back("etcd-pod.yaml");
        }
    });
    node.bench.settle();
    node.cluster.wait_member(0);
    let last = ["get", "last", "--print-value-only"];
    assert_eq!(node.cluster.etcdctl_ok(&last).trim(), "1");
}

#[test]
fn a_node_is_restored_from_another_ones_backup() {
    let Some(bins) = etcd("3.5") else { return };
    let mut trio = Trio::start(&bins, &NodeOptions::default());
    let stage = Stage::of(&trio.cluster);
    let share = |i: usize| trio.cluster.node_root(i).join("mnt/share");
    let (from, to) = (share(1), share(0));
    std::fs::create_dir_all(&from).expect("a share");
    stage.types("master-1", "etcd-dr backup --copy-to file:///mnt/share");
    stage.play(&page(RUNBOOK, "Another node's backup"), |typed| {
        if typed.line.starts_with("etcd-dr restore") {
            let above = to.parent().expect("a folder");
            std::fs::create_dir_all(above).expect("a folder");
            // The page's nodes have one share, these each one of their own.
            let output = Command::new("cp").arg("-a").arg(&from).arg(&to).output();
            expect_success("cp", &output.expect("running cp"));
        }
    });
    trio.cluster.wait_member(0);
    let listed = trio.cluster.etcdctl_on(0, &["member", "list"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.lines().count(), 1, "{listed}");
}

#[test]
fn a_single_node_and_an_update() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    let stage = Stage::of(&node.cluster);
    std::fs::create_dir_all(node.path("mnt/share")).expect("a share");
    stage.play(&page(RUNBOOK, "Before and after an update"), |typed| {
        if typed.line.contains("restore") && !typed.line.contains("--") {
            node.roll_out("etcd", 7, 9);
            node.cluster.wait_member(0);
        }
    });
    node.bench.settle();
    node.cluster.wait_member(0);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    stage.play(&page(RUNBOOK, "Single node"), |_| {});
    node.assert_backed_up_state();
    for file in std::fs::read_dir(node.bench.manifests()).expect("manifests") {
        let file = file.expect("a manifest").path();
        std::fs::remove_file(file).expect("losing a manifest");
    }
    node.bench.settle();
    std::fs::remove_dir_all(node.path("etc/kubernetes")).expect("losing a folder");
    stage.play(
        &page(RUNBOOK, "Everything under /etc/kubernetes is gone"),
        |_| {},
    );
    node.assert_backed_up_state();
    stage.play(&page(RUNBOOK, "Many clusters"), |_| {});
    stage.play(&page(RUNBOOK, "A cluster that is gone"), |_| {});
}

#[test]
fn all_nodes_go_back_to_a_backup() {
    let Some(bins) = etcd("3.5") else { return };
    let mut trio = Trio::start(&bins, &NodeOptions::default());
    let stage = Stage::of(&trio.cluster);
    stage.types("master-0", "etcd-dr backup");
    trio.cluster.etcdctl_ok(&["put", "later", "1"]);
    let mut joined = 1;
    stage.play(&page(RUNBOOK, "Several nodes"), |typed| {
        if typed.line == "etcd-dr enable" {
            // What etcd's own pod and its operator do there: the data of the lost cluster go aside,
            // and the member joins.
            let i: usize = typed.node[typed.node.len() - 1..]
                .parse()
                .expect("a number");
            joined += 1;
            let (name, url) = (typed.node.as_str(), trio.cluster.peer_url(i));
            let peer = format!("--peer-urls={url}");
            trio.bench(0).until("the cluster to take a member", || {
                let added = trio.cluster.etcdctl_on(0, &["member", "add", name, &peer]);
                added.status.success()
            });
            let data = trio.cluster.data_dir(i).join("member");
            std::fs::rename(&data, data.with_file_name("of-old")).expect("moving data");
            let list = trio.first(joined);
            trio.on(i, Some(list));
        } else if typed.line == "etcd-dr verify --cluster" {
            trio.assert_whole();
        }
    });
}

#[test]
fn a_disk_is_left_and_no_quorum() {
    a_disk_is_left(&NodeOptions::default());
}

#[test]
fn a_disk_is_left_and_no_quorum_on_kubeadm() {
    a_disk_is_left(&NodeOptions::kubeadm());
}

fn a_disk_is_left(options: &NodeOptions) {
    let Some(bins) = etcd("3.5") else { return };
    let mut trio = Trio::start(&bins, options);
    let stage = Stage::of(&trio.cluster);
    trio.cluster.etcdctl_ok(&["put", "last", "1"]);
    // Two machines are lost, one of them with its disk.
    trio.off(1);
    trio.off(2);
    trio.cluster.wipe(2);
    let mut joined = 1;
    stage.play(&page(RUNBOOK, "A disk is left"), |typed| {
        if typed.node == "master-1" && typed.line.contains("disable") {
            trio.on(1, None);
        } else if typed.line.contains("member-add --join --yes") {
            let i: usize = typed.node[typed.node.len() - 1..]
                .parse()
                .expect("a number");
            joined += 1;
            let list = trio.first(joined);
            trio.on(i, Some(list));
        }
    });
    trio.assert_whole();
    let last = trio
        .cluster
        .etcdctl_ok(&["get", "last", "--print-value-only"]);
    assert_eq!(last.trim(), "1");
}
