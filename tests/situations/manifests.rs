//! Manifests and static pods as people write them.

use std::path::{Path, PathBuf};

use super::node::{KEYS, Node, etcd};
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::kube::OpenShift;
use testbench::node::{self, NodeOptions};
use testbench::node_bench::{BenchSpec, NodeBench};

/// A node with one member whose files were changed before its kubelet started.
fn made(
    options: &NodeOptions,
    files: impl FnOnce(&Path),
    change: impl FnOnce(&mut BenchSpec),
) -> Option<Node> {
    let bins = etcd("3.5")?;
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    Bulk::new(KEYS, 64).write(&cluster);
    if options.profile == "openshift" {
        OpenShift::default().write(&cluster);
    }
    let root = node::make(&cluster, 0, options);
    // The stand-in listens where CRI-O does; a kubeadm node's kubelet names containerd.
    if options.profile == "kubeadm" {
        std::fs::create_dir_all(root.join("run/containerd")).expect("a folder");
        let socket = root.join("run/containerd/containerd.sock");
        std::os::unix::fs::symlink("../crio/crio.sock", socket).expect("a link");
    }
    files(&root);
    let bench = NodeBench::adopt(&mut cluster, 0, change);
    cluster.wait_member(0);
    Some(Node {
        bench,
        cluster,
        root,
    })
}

/// The two kinds of node, and the name of etcd's manifest.
fn kinds() -> [(NodeOptions, &'static str); 2] {
    [
        (NodeOptions::kubeadm(), "etcd.yaml"),
        (NodeOptions::default(), "etcd-pod.yaml"),
    ]
}

fn manifests(root: &Path) -> PathBuf {
    root.join("etc/kubernetes/manifests")
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(path).expect("a file");
    std::fs::write(path, change(text)).expect("a file");
}

/// Takes a backup that must be good, restores it, and sees that etcd has what it had.
fn backs_up_and_restores(node: &mut Node) -> String {
    let (out, err) = node.expect(0, &["backup"]);
    assert!(out.contains("(good)"), "{out}{err}");
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    let (out, _) = node.restore(&[]);
    node.assert_backed_up_state();
    out
}

/// An API server that names its etcds as members do, a second etcd's pod whose name begins as
/// etcd's, and then copies of etcd's manifest.
#[test]
fn pods_beside_etcds_stay_and_copies_of_it_are_refused() {
    for (options, file) in kinds() {
        let files = |root: &Path| {
            let dir = manifests(root);
            let namespace = match options.profile {
                "kubeadm" => "kube-system",
                _ => "openshift-etcd",
            };
            let events = format!(
                "kind: Pod\nmetadata: {{name: etcd-events, namespace: {namespace}}}\nspec:\n  \
                 containers: [{{name: etcd, image: x, command: [etcd, --data-dir=/var/lib/e]}}]\n"
            );
            std::fs::write(dir.join("etcd-events.yaml"), events).expect("a manifest");
            if options.profile == "kubeadm" {
                edit(&dir.join("kube-apiserver.yaml"), |text| {
                    let servers = "https://master-0.example:2379,https://192.0.2.8:2379";
                    text.replace("https://127.0.0.1:2379", servers)
                });
            }
        };
        let Some(mut node) = made(&options, files, |_| {}) else {
            return;
        };
        backs_up_and_restores(&mut node);
        node.expect(0, &["restore", "--rollback", "--yes"]);
        node.expect(0, &["disable", "--wait", "30s"]);
        assert!(!node.bench.runs("etcd") && node.bench.runs("etcd-events"));
        for what in [
            &["restore", "backup-1", "--dry-run"][..],
            &[
                "restore",
                "--from-data-dir",
                &node.path("var/lib/etcd").display().to_string(),
                "--dry-run",
            ],
            &["member-add", "--join", "--dry-run"],
        ] {
            let output = node.run(what);
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!err.contains("external-etcd"), "{what:?}: {err}");
            assert!(!err.contains("No such file"), "{what:?}: {err}");
        }
        node.expect(0, &["enable"]);
        node.bench.settle();

        let etcd = node.bench.pid("etcd", "etcd");
        let copy = manifests(&node.root).join(format!("{file}.bak"));
        std::fs::copy(manifests(&node.root).join(file), &copy).expect("a copy");
        let (_, err) = node.expect(0, &["backup"]);
        assert!(err.contains("[manifest-copy]"), "{err}");
        for what in [
            &["restore", "backup-1", "--yes"][..],
            &["restore", "backup-1", "--scope", "etcd", "--dry-run"],
            &["disable"],
        ] {
            let (_, err) = node.expect(5, what);
            let moved = format!("mv /etc/kubernetes/manifests/{file}.bak /root/");
            assert!(
                err.contains("[manifest-copy]") && err.contains(&moved),
                "{err}"
            );
        }
        assert_eq!(node.bench.pid("etcd", "etcd"), etcd, "nothing was stopped");
        std::fs::remove_file(copy).expect("removing a copy");
        node.restore(&[]);
        node.assert_backed_up_state();
        assert!(node.bench.runs("etcd-events"));
    }
}

/// kubeadm's external etcd nodes and arbiters: the kubelet runs etcd and nothing else.
#[test]
fn a_node_that_runs_only_etcd_is_backed_up_and_restored() {
    for (options, file) in kinds() {
        let files = |root: &Path| {
            for entry in std::fs::read_dir(manifests(root))
                .expect("manifests")
                .flatten()
            {
                if entry.file_name() != file {
                    std::fs::remove_file(entry.path()).expect("no other component");
                }
            }
            let kubernetes = root.join("etc/kubernetes");
            let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
            let resources = kubernetes.join("static-pod-resources");
            for entry in entries(&kubernetes)
                .chain(entries(&resources))
                .chain(entries(&kubernetes.join("pki")))
            {
                let name = entry.file_name().to_string_lossy().into_owned();
                let others = name.starts_with("kube-") || name.starts_with("apiserver.");
                if entry.path().is_dir() && others {
                    std::fs::remove_dir_all(entry.path()).expect("no other component");
                } else if others || name.ends_with(".conf") {
                    std::fs::remove_file(entry.path()).expect("no other component");
                }
            }
        };
        let Some(mut node) = made(&options, files, |_| {}) else {
            return;
        };
        let out = backs_up_and_restores(&mut node);
        let kubeadm = options.profile == "kubeadm";
        assert_eq!(out.contains("On the control-plane nodes"), kubeadm, "{out}");
        node.expect(0, &["restore", "--rollback", "--yes"]);
        let (out, _) = node.expect(0, &["restore", "latest", "--dry-run"]);
        assert!(out.contains("this node runs only etcd"), "{out}");
        node.expect(0, &["disable", "--wait", "30s"]);
        node.expect(0, &["enable"]);
    }
}

/// The kubelet's own `staticPodPath`, a manifest by another ending, one that is a link, and YAML as
/// people and editors leave it.
#[test]
fn manifests_elsewhere_and_by_other_names() {
    let files = |root: &Path| {
        let (usual, other) = (manifests(root), root.join("etc/kubernetes/static"));
        std::fs::rename(&usual, &other).expect("another folder");
        std::fs::rename(other.join("etcd.yaml"), other.join("etcd.yml")).expect("another name");
        let kept = root.join("etc/kubernetes/gitops");
        std::fs::create_dir(&kept).expect("a folder");
        let scheduler = other.join("kube-scheduler.yaml");
        std::fs::rename(&scheduler, kept.join("scheduler.yaml")).expect("a file");
        std::os::unix::fs::symlink("../gitops/scheduler.yaml", scheduler).expect("a link");
        edit(&other.join("etcd.yml"), |text| {
            format!("\u{feff}# R&D, *D\n---\n{text}---\n")
        });
        edit(&root.join("var/lib/kubelet/config.yaml"), |text| {
            let lines = text
                .lines()
                .filter(|line| !line.starts_with("staticPodPath"));
            let lines: Vec<&str> = lines.collect();
            format!(
                "{}\nstaticPodPath: /etc/kubernetes/static\n",
                lines.join("\n")
            )
        });
    };
    let change = |spec: &mut BenchSpec| spec.manifests = PathBuf::from("etc/kubernetes/static");
    let Some(mut node) = made(&NodeOptions::kubeadm(), files, change) else {
        return;
    };
    let out = backs_up_and_restores(&mut node);
    assert!(out.contains("etcd"), "{out}");
    assert!(
        !manifests(&node.root).exists(),
        "nothing is put where the kubelet does not look"
    );
    let etcd = node.path("etc/kubernetes/static/etcd.yml");
    assert!(etcd.is_file() && !etcd.with_extension("yaml").exists());
    node.expect(0, &["restore", "--rollback", "--yes"]);
    let (plan, _) = node.expect(0, &["restore", "latest", "--dry-run"]);
    assert!(
        plan.contains("kube-scheduler.yaml is a symbolic link"),
        "{plan}"
    );
    assert!(
        node.path("etc/kubernetes/static/kube-scheduler.yaml")
            .is_symlink()
    );
    node.expect(0, &["disable", "--wait", "30s"]);
    assert!(!etcd.exists());
    node.expect(0, &["enable"]);
    assert!(etcd.is_file());
}
