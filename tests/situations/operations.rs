//! Several changes of one node, other members that live, backups of other nodes and addresses.

use std::path::PathBuf;

use serde_json::Value;

use super::node::{KEYS, Node, etcd};
use super::support::bulk::Bulk;
use super::support::cluster::{Cluster, ClusterSpec};
use super::support::node::{self, NodeOptions};
use super::support::node_bench::NodeBench;

/// The stand-in listens where CRI-O does; a kubeadm node's kubelet names containerd.
fn containerd(root: &std::path::Path) {
    std::fs::create_dir_all(root.join("run/containerd")).expect("a folder");
    let link = root.join("run/containerd/containerd.sock");
    std::os::unix::fs::symlink("../crio/crio.sock", link).expect("a link");
}

/// kubeadm's nodes, the first run by the stand-in kubelet; `change` may look at the roots first.
fn kubeadm(mut cluster: Cluster, change: impl FnOnce(&Cluster, &[PathBuf])) -> Node {
    Bulk::new(KEYS, 64).write(&cluster);
    let roots = node::make_all(&cluster, &NodeOptions::kubeadm());
    change(&cluster, &roots);
    let bench = NodeBench::adopt(&mut cluster, 0, |_| {});
    cluster.wait_member(0);
    containerd(&roots[0]);
    Node {
        bench,
        cluster,
        root: roots[0].clone(),
    }
}

fn three(family: &str) -> Option<Node> {
    let cluster = Cluster::start(ClusterSpec::new(&etcd(family)?, 3).fast());
    Some(kubeadm(cluster, |_, _| {}))
}

fn single() -> Option<Node> {
    let cluster = Cluster::start(ClusterSpec::new(&etcd("3.5")?, 1).fast());
    Some(kubeadm(cluster, |_, _| {}))
}

/// The one word that a document of `restore --status` has for an operation.
fn unsettled(node: &Node) -> Vec<(String, String)> {
    let output = node.run(&["restore", "--status", "-o", "json"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    super::support::schema::check_output(&json);
    let all = json["unsettled"].as_array().expect("a list");
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    all.iter()
        .map(|one| (word(&one["id"]), word(&one["state"])))
        .collect()
}

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
            told.contains("living-voters")
                && told.contains("master-1")
                && told.contains("master-2"),
            "{told}"
        );
        let data = node.path("var/lib/etcd").display().to_string();
        let told = node
            .expect(5, &["restore", "--from-data-dir", &data, "--yes"])
            .1;
        assert!(told.contains("living-voters"), "{told}");

        // One that hangs cannot be told from one that runs.
        node.cluster.kill(2);
        node.cluster.pause(1);
        let told = node.expect(5, &["restore", "backup-1", "--yes"]).1;
        assert!(
            told.contains("other-members-unknown") && !told.contains("living-voters"),
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
    let network = super::support::loopback::Loopback::reserve();
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
fn a_second_change_waits_until_the_first_is_committed_or_rolled_back() {
    let Some(mut node) = single() else { return };
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    node.restore(&[]);
    let data = node.path("var/lib/etcd").display().to_string();
    let changes: [&[&str]; 3] = [
        &["restore", "backup-1", "--yes"],
        &["restore", "--from-data-dir", &data, "--yes"],
        &["member-add", "--join", "--yes"],
    ];
    let (id, state) = unsettled(&node).pop().expect("the restore");
    assert_eq!(state, "completed");
    for change in changes {
        let told = node.expect(7, change).1;
        assert!(told.contains(&format!("restore --commit {id}")), "{told}");
        assert!(told.contains(&format!("restore --rollback {id}")), "{told}");
    }
    node.expect(0, &["restore", "--rollback", "--yes"]);
    node.bench.settle();
    node.cluster.wait_member(0);
    let later = node
        .cluster
        .etcdctl_ok(&["get", "later", "--print-value-only"]);
    assert_eq!(later.trim(), "1");

    // What was written after the restore is kept, shown, and goes with a clean-up.
    assert_eq!(unsettled(&node), [(id.clone(), "rolled-back".to_owned())]);
    let told = node.expect(0, &["restore", "--commit", &id, "--yes"]).0;
    assert!(
        told.contains("removed what") && !told.contains("committed restore"),
        "{told}"
    );
    assert_eq!(unsettled(&node), []);
}

/// Journals of releases that let one restore follow another.
#[test]
fn a_stack_of_restores_is_rolled_back_to_its_first_state() {
    let Some(mut node) = single() else { return };
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "first", "1"]);
    node.restore(&[]);
    let first = unsettled(&node).pop().expect("a restore").0;
    node.cluster.wait_member(0);
    // As before the refusal: the first one's journal was no reason to wait.
    let folder = node.path("var/lib/etcd-dr").join(&first);
    let aside = node.cluster.scratch().join(&first);
    std::fs::rename(&folder, &aside).expect("hiding a journal");
    node.cluster.etcdctl_ok(&["put", "second", "2"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    node.restore(&["--allow", "other-cluster"]);
    std::fs::rename(&aside, &folder).expect("the journal again");
    let ids: Vec<String> = unsettled(&node).into_iter().map(|(id, _)| id).collect();
    let [_, second] = ids.as_slice() else {
        panic!("{ids:?}");
    };

    // Each still holds its backup; the later one goes first.
    let pruned = node
        .expect(0, &["prune", "--keep-last", "1", "--dry-run", "--explain"])
        .0;
    assert!(pruned.contains("in-use"), "{pruned}");
    let told = node
        .expect(7, &["restore", "--rollback", &first, "--yes"])
        .1;
    assert!(told.contains(second.as_str()), "{told}");
    let told = node.expect(0, &["restore", "--rollback", "--yes"]).0;
    assert!(told.contains(&format!("also {first}: completed")), "{told}");
    node.expect(0, &["restore", "--rollback", "--yes"]);
    node.bench.settle();
    node.cluster.wait_member(0);
    for (key, value) in [("first", "1"), ("second", "")] {
        let found = node.cluster.etcdctl_ok(&["get", key, "--print-value-only"]);
        assert_eq!(found.trim(), value, "{key}");
    }
    node.expect(0, &["restore", "--commit", &first, "--yes"]);
    node.expect(0, &["restore", "--commit", "--yes"]);
    assert_eq!(unsettled(&node), []);
    let hidden = node.path("etc/kubernetes/.etcd-dr");
    assert!(!hidden.exists(), "nothing is left in {}", hidden.display());
}

#[test]
fn what_the_tool_itself_put_back_is_not_said_to_be_others_doing() {
    let Some(mut node) = single() else { return };
    node.expect(0, &["backup"]);
    node.expect(0, &["disable"]);
    node.restore(&[]);
    node.cluster.wait_member(0);
    let listed = node.expect(0, &["list"]).1;
    assert!(!listed.contains("disabled"), "{listed}");
    let told = node.expect(0, &["enable"]).0;
    assert!(
        told.contains("restore-") && !told.contains("others"),
        "{told}"
    );
    // Rolled back it is what it was before: disabled.
    node.expect(0, &["restore", "--rollback", "--yes"]);
    assert!(!node.bench.runs("etcd"));
    let listed = node.expect(0, &["list"]).1;
    assert!(listed.contains("etcd is disabled on this node"), "{listed}");
    node.expect(0, &["restore", "--commit", "--yes"]);
    node.restore(&[]);
    node.expect(0, &["restore", "--commit", "--yes"]);
    assert!(!node.path("etc/kubernetes/.etcd-dr").exists());
    let told = node.expect(2, &["enable"]).1;
    assert!(told.contains("not disabled"), "{told}");
}
