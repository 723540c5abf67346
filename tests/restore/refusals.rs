//! What is refused before anything changes, each with a real cause, with and without its `--allow`.

use std::path::{Path, PathBuf};

use super::node::{Node, assert_same, copy, etcd};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::kube::OpenShift;
use testbench::node::{self, NodeOptions};
use testbench::node_bench::{Answer, NodeBench};
use testbench::stock::{ScriptRun, script_backup};
use testbench::tmpfs::Tmpfs;

/// Refused by this name, and the node is as it was; with `--allow` there is a plan.
fn refused(node: &Node, set: &str, name: &str, more: &[&str]) {
    let before = node.tree();
    let base: Vec<&str> = ["restore", set, "--yes"]
        .iter()
        .chain(more)
        .copied()
        .collect();
    let (_, err) = node.expect(5, &base);
    assert!(
        err.contains(&format!("[{name}]")) || err.contains(&format!("--allow {name}")),
        "{name}: {err}"
    );
    let allowed: Vec<&str> = base
        .iter()
        .copied()
        .filter(|word| *word != "--yes")
        .chain(["--dry-run", "--allow", name])
        .collect();
    node.expect(0, &allowed);
    assert_same(
        &without_data(before),
        &without_data(node.tree()),
        &format!("after the refusal {name}"),
    );
}

/// A running etcd writes its data all the time.
fn without_data(
    mut tree: std::collections::BTreeMap<PathBuf, etcd_dr::sys::tree::Node>,
) -> std::collections::BTreeMap<PathBuf, etcd_dr::sys::tree::Node> {
    tree.retain(|path, _| !path.starts_with("var/lib/etcd/member"));
    tree
}

fn store(node: &Node) -> PathBuf {
    let link = node.path("etc/kubernetes/static-pod-backups");
    let target = std::fs::read_link(&link).expect("the store's link");
    link.parent()
        .expect("a parent")
        .join(target)
        .canonicalize()
        .expect("the store")
}

/// A copy of the set with its Manifest changed.
fn changed_manifest(node: &Node, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let (from, to) = (store(node).join("backup-1"), store(node).join(name));
    copy(&from, &to);
    let path = to.join("backup.json");
    let mut value: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("a Manifest")).expect("JSON");
    change(&mut value);
    std::fs::write(&path, value.to_string()).expect("a Manifest");
}

#[test]
fn backups_of_other_nodes_and_clusters_are_refused() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    changed_manifest(&node, "backup-2", |manifest| {
        manifest["node"]["name"] = "master-7".into();
    });
    let told = node
        .expect(
            5,
            &["restore", "backup-2", "--yes", "--allow", "node-mismatch"],
        )
        .1;
    assert!(
        told.contains("[node-mismatch]") && told.contains("--scope etcd"),
        "{told}"
    );
    let etcd = ["restore", "backup-2", "--scope", "etcd", "--dry-run"];
    let plan = node.expect(0, &etcd).0;
    assert!(
        plan.contains("this node's own etcd manifest is kept"),
        "{plan}"
    );
    // The cluster says something else of itself now than the snapshot does.
    let other = |change: fn(&mut OpenShift)| {
        let mut openshift = OpenShift::default();
        change(&mut openshift);
        openshift.write(&node.cluster);
    };
    other(|openshift| openshift.version = "4.18.1".to_owned());
    refused(&node, "backup-1", "version-mismatch", &[]);
    other(|openshift| openshift.cluster_id = "another".to_owned());
    refused(&node, "backup-1", "cluster-mismatch", &[]);
    other(|_| {});
    // Without an API's object the ids of etcd decide.
    node.cluster.etcdctl_ok(&[
        "del",
        "--prefix",
        "/kubernetes.io/config.openshift.io/clusterversions",
    ]);
    node.expect(0, &["backup"]);
    changed_manifest(&node, "backup-4", |manifest| {
        manifest["cluster"]["etcdId"] = "1234".into();
    });
    refused(&node, "backup-4", "cluster-mismatch", &[]);
    refused(
        &node,
        "backup-1",
        "bump-too-small",
        &["--bump-revision", "1"],
    );
}

#[test]
fn damaged_snapshots_and_alarms_are_refused() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    let dir = node.cluster.scratch().join("pair");
    let taken = store(&node).join("backup-1");
    let snapshot = std::fs::read_dir(&taken)
        .expect("a set")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|ending| ending == "db"))
        .expect("a snapshot");
    let pair = script_backup(&node.root, &snapshot, &dir, ScriptRun::default());
    let named = pair.dir.display().to_string();
    node.expect(0, &["restore", &named, "--dry-run"]);
    let bytes = std::fs::read(&pair.snapshot).expect("a snapshot");
    let before = node.tree();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    std::fs::write(&pair.snapshot, &flipped).expect("a snapshot");
    node.expect(3, &["restore", &named, "--yes"]);
    assert_same(
        &without_data(before),
        &without_data(node.tree()),
        "after a snapshot with one bit flipped",
    );
    std::fs::write(&pair.snapshot, &bytes[..bytes.len() - 32]).expect("a snapshot");
    refused(&node, &named, "no-integrity-hash", &[]);

    node.cluster.etcdctl_ok(&["alarm", "list"]);
    refused_alarm(&node);
}

/// NOSPACE, raised by a real quota, is in the backup that is taken then.
fn refused_alarm(node: &Node) {
    let bins = node.cluster.bins().clone();
    let mut spec = ClusterSpec::new(&bins, 1).fast();
    spec.quota = 2 << 20;
    let mut cluster = Cluster::start(spec);
    OpenShift::default().write(&cluster);
    let value = "x".repeat(64 << 10);
    for i in 0..60 {
        if !cluster
            .etcdctl(&["put", &format!("k{i}"), &value])
            .status
            .success()
        {
            break;
        }
    }
    let alarms = cluster.etcdctl_ok(&["alarm", "list"]);
    assert!(alarms.contains("NOSPACE"), "{alarms}");
    let root = node::make(&cluster, 0, &NodeOptions::default());
    let bench = NodeBench::adopt(&mut cluster, 0, |_| {});
    // With its alarm it never counts as healthy.
    bench.until("etcd to answer", || {
        cluster.etcdctl(&["alarm", "list"]).status.success()
    });
    let full = Node {
        bench,
        cluster,
        root,
    };
    full.expect(0, &["backup", "--allow", "etcd-alarm"]);
    refused(&full, "backup-1", "alarm-in-backup", &[]);
}

#[test]
fn running_members_and_invalid_certificates_are_refused() {
    let Some(bins) = etcd("3.5") else { return };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 3).fast());
    OpenShift::default().write(&cluster);
    let root = node::make(&cluster, 0, &NodeOptions::default());
    let bench = NodeBench::adopt(&mut cluster, 0, |_| {});
    cluster.wait_member(0);
    let mut node = Node {
        bench,
        cluster,
        root,
    };
    node.expect(0, &["backup"]);
    refused(&node, "backup-1", "other-members-running", &[]);
    for i in 1..3 {
        node.cluster.kill(i);
    }
    node.expect(0, &["restore", "backup-1", "--dry-run"]);

    // The backup's own certificates replace those that are gone.
    let secrets = node.resources().join("etcd-certs/secrets");
    let aside = node.cluster.scratch().join("secrets");
    copy(&secrets, &aside);
    std::fs::remove_dir_all(&secrets).expect("removing secrets");
    let (plan, _) = node.expect(0, &["restore", "backup-1", "--dry-run"]);
    assert!(plan.contains("restore etcd-certs"), "{plan}");
    let pair = node.cluster.scratch().join("pair");
    let taken = store(&node).join("backup-1");
    std::fs::create_dir_all(&pair).expect("a folder");
    for entry in std::fs::read_dir(&taken).expect("a set") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("snapshot_") || name.starts_with("static_kube") {
            copy(&path, &pair.join(name));
        }
    }
    refused(
        &node,
        &pair.display().to_string(),
        "certificates-invalid",
        &[],
    );
    copy(&aside, &secrets);
}

#[test]
fn refusals_that_cannot_be_allowed_stay() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    let before = without_data(node.tree());
    let same = |when: &str| assert_same(&before, &without_data(node.tree()), when);

    let set = store(&node).join("backup-1");
    let files: Vec<PathBuf> = std::fs::read_dir(&set)
        .expect("a set")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    // Every layer of the set, broken by one byte.
    for file in files {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if matches!(name.as_str(), "backup.env" | "verified.json") {
            continue;
        }
        let whole = std::fs::read(&file).expect("a file");
        let mut broken = whole.clone();
        let at = broken.len() / 2;
        broken[at] ^= 0xff;
        std::fs::write(&file, &broken).expect("a file");
        let output = node.run(&["restore", "backup-1", "--yes"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{name}: {told}");
        std::fs::write(&file, &whole).expect("a file");
        same(&format!("with {name} broken"));
    }

    node.bench
        .faults(|faults| faults.answer = Answer::Error(13, "not today".to_owned()));
    let told = node.expect(4, &["restore", "backup-1", "--yes"]).1;
    assert!(told.contains("not today"), "{told}");
    node.bench.no_faults();
    same("without a runtime");

    let only = std::fs::read_dir(&set)
        .expect("a set")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|ending| ending == "db"))
        .expect("a snapshot");
    let only = only.display().to_string();
    let told = node.expect(2, &["restore", &only, "--yes"]).1;
    assert!(told.contains("--scope etcd"), "{told}");
    node.expect(0, &["restore", &only, "--scope", "etcd", "--dry-run"]);
    let told = node.expect(2, &["restore", "backup-1"]).1;
    assert!(told.contains("--yes"), "{told}");
    let told = node.expect(2, &["restore", "--rollback"]).1;
    assert!(told.contains("no restore was started"), "{told}");

    locks(&node);
    same("after all of it");
    node.expect(0, &["restore", "backup-1", "--dry-run"]);
    let configmap = node
        .resources()
        .join("etcd-certs/configmaps/external-etcd-pod");
    std::fs::create_dir_all(configmap).expect("a folder");
    let told = node.expect(5, &["restore", "backup-1", "--yes"]).1;
    assert!(told.contains("Pacemaker"), "{told}");
}

/// Each refusal of a manifest has its name, as it has for a join.
#[test]
fn a_restore_pod_and_a_missing_manifest_are_refused() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    let set = store(&node).join("backup-1");
    let mut files = std::fs::read_dir(set).expect("a set").flatten();
    let snapshot = files
        .find(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|ending| ending == "db")
        })
        .expect("a snapshot");
    let snapshot = snapshot.path().display().to_string();
    let restore = ["restore", &snapshot, "--scope", "etcd", "--dry-run"];
    node.expect(0, &restore);
    let live = node.path("etc/kubernetes/manifests/etcd-pod.yaml");
    let text = std::fs::read_to_string(&live).expect("a manifest");
    let changed = text.replace("\"resource-dir\"", "\"backup-dir\"");
    assert_ne!(text, changed);
    std::fs::write(&live, changed).expect("a manifest");
    node.bench.settle();
    let told = node.expect(5, &restore).1;
    assert!(told.contains("[restore-pod]"), "{told}");
    std::fs::remove_file(&live).expect("removing a manifest");
    node.bench.settle();
    let told = node.expect(5, &restore).1;
    assert!(told.contains("[no-manifest]"), "{told}");
}

/// What a node has, or is, that no backup can be restored on; nothing overrides these.
#[test]
fn nodes_that_cannot_be_restored_are_refused() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    let refused = |name: &str, before: &[&str]| {
        let trees = without_data(node.tree());
        let args = [before, &["restore", "backup-1", "--yes"]].concat();
        let (_, err) = node.expect(5, &args);
        assert!(err.contains(&format!("[{name}]")), "{name}: {err}");
        node.expect(2, &[&args[..], &["--allow", name]].concat());
        assert_same(&trees, &without_data(node.tree()), name);
    };
    refused("profile-mismatch", &["--profile", "kubeadm"]);
    refused("no-static-pods", &["--profile", "bare"]);

    let drop_in = node.path("etc/systemd/system/kubelet.service.d/20-role.conf");
    std::fs::create_dir_all(drop_in.parent().expect("a folder")).expect("a folder");
    let role = "[Service]\nEnvironment=X=--node-labels=node-role.kubernetes.io/arbiter=\n";
    std::fs::write(&drop_in, role).expect("a drop-in");
    refused("arbiter-node", &[]);
    std::fs::remove_file(&drop_in).expect("removing a drop-in");

    let Some(_mount) = mount_over(&node.path("etc/kubernetes/manifests")) else {
        return;
    };
    refused("cross-mount", &[]);
}

#[test]
fn a_separate_wal_directory_is_refused() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::single(&bins, &NodeOptions::kubeadm());
    // The stand-in listens where CRI-O does; this node's kubelet names containerd.
    std::fs::create_dir_all(node.path("run/containerd")).expect("a folder");
    let socket = node.path("run/containerd/containerd.sock");
    std::os::unix::fs::symlink("../crio/crio.sock", socket).expect("a link");
    let manifest = node.path("etc/kubernetes/manifests/etcd.yaml");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let flag = "    - \"--wal-dir=/var/lib/etcd-wal\"\n    - \"--data-dir=";
    let apart = text.replace("    - \"--data-dir=", flag);
    assert_ne!(apart, text);
    node.expect(0, &["backup"]);
    std::fs::write(&manifest, apart).expect("a manifest");
    node.bench.settle();
    let before = without_data(node.tree());
    let data = node.path("var/lib/etcd").display().to_string();
    for what in [&["backup-1"][..], &["--from-data-dir", &data]] {
        let args = [&["restore"], what, &["--yes"]].concat();
        let (_, err) = node.expect(5, &args);
        assert!(err.contains("[separate-wal-dir]"), "{what:?}: {err}");
    }
    assert_same(&before, &without_data(node.tree()), "after the refusals");
}

/// Its own mount in a folder's place, with what was in the folder.
fn mount_over(dir: &Path) -> Option<Tmpfs> {
    let beside = dir.with_extension("beside");
    copy(dir, &beside);
    let mount = Tmpfs::mount(dir, "16m");
    if mount.is_some() {
        for entry in std::fs::read_dir(&beside).expect("a folder") {
            let entry = entry.expect("an entry");
            copy(&entry.path(), &dir.join(entry.file_name()));
        }
    }
    std::fs::remove_dir_all(&beside).expect("removing the copies");
    mount
}

/// Our own lock and an installer's.
fn locks(node: &Node) {
    use etcd_dr::sys::lock::Lock;
    let own = node.path("run/etcd-dr.lock");
    let held = Lock::acquire(&own, "something else").expect("a lock");
    let told = node.expect(7, &["restore", "backup-1", "--yes"]).1;
    assert!(told.contains("something else"), "{told}");
    drop(held);
    let locks = node.path("var/lock");
    std::fs::create_dir_all(&locks).expect("a folder");
    let path = locks.join("etcd-installer.lock");
    let held = Lock::hold(&path).expect("a lock").expect("a file of ours");
    let told = node.expect(7, &["restore", "backup-1", "--yes"]).1;
    assert!(told.contains("etcd-installer.lock"), "{told}");
    drop(held);
    assert!(Path::new(&own).exists());
}
