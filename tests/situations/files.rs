//! Certificates, folders and data directories as people have them.

use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;

use super::node::{Node, assert_same, etcd};
use testbench::node::NodeOptions;

/// A user that is not root, as kubeadm's rootless control plane makes one for etcd.
const USER: u32 = 52034;

fn kinds() -> [NodeOptions; 2] {
    [NodeOptions::default(), NodeOptions::kubeadm()]
}

/// A node of a kind with one member.
fn single(options: &NodeOptions) -> Option<Node> {
    let node = Node::single(&etcd("3.5")?, options);
    if options.profile == "kubeadm" {
        // The stand-in listens where CRI-O does; this node's kubelet names containerd.
        std::fs::create_dir_all(node.path("run/containerd")).expect("a folder");
        let socket = node.path("run/containerd/containerd.sock");
        symlink("../crio/crio.sock", socket).expect("a link");
    }
    Some(node)
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = path.symlink_metadata().expect("looking at a file");
    (meta.uid(), meta.gid())
}

fn give(path: &Path) {
    chown(path, Some(USER), Some(USER)).expect("giving a file away");
}

/// Gives etcd's data away, as far as it is there.
fn give_data(data: &Path) {
    give(data);
    for below in ["member", "member/snap", "member/wal", "member/snap/db"] {
        give(&data.join(below));
    }
}

#[test]
fn what_is_not_etcds_in_the_data_directory_survives_restore_and_commit() {
    for options in kinds() {
        let Some(mut node) = single(&options) else {
            return;
        };
        let data = node.path("var/lib/etcd");
        std::fs::create_dir(data.join("backups")).expect("a folder");
        std::fs::write(data.join("backups/monday.db"), "mine").expect("a file");
        let saved = data.join("before-upgrade.db");
        let saved = saved.to_str().expect("a path").to_owned();
        node.cluster.etcdctl_ok(&["snapshot", "save", &saved]);
        node.cluster.etcdctl_ok(&["put", "later", "1"]);
        if rustix::process::geteuid().is_root() {
            give_data(&data);
        }
        let before = owner(&data.join("member"));

        let args = [
            "restore", &saved, "--scope", "etcd", "--yes", "--wait", "60s",
        ];
        let (_, err) = node.expect(0, &args);
        let stays = "stays in /var/lib/etcd, because it does not belong to etcd: backups, before-upgrade.db";
        assert!(err.contains(stays), "{err}");
        node.assert_backed_up_state();
        for made in ["member", "member/snap/db", "member/wal"] {
            assert_eq!(owner(&data.join(made)), before, "{made}");
        }
        node.expect(0, &["restore", "--rollback", "--yes"]);
        node.expect(0, &["restore", "--commit", "--yes"]);
        node.bench.settle();
        node.expect(0, &args);
        node.expect(0, &["restore", "--commit", "--yes"]);
        let monday = std::fs::read_to_string(data.join("backups/monday.db"));
        assert_eq!(monday.expect("a file"), "mine");
        assert!(Path::new(&saved).is_file());
        let inside = data.join("member/snap/copy.db");
        std::fs::copy(&saved, &inside).expect("a copy");
        let inside = inside.to_str().expect("a path");
        let (_, err) = node.expect(5, &["restore", inside, "--scope", "etcd", "--yes"]);
        assert!(err.contains("source-in-member"), "{err}");
        let unused = node.resources();
        assert_eq!(unused.exists(), options.profile == "openshift");
    }
}

#[test]
fn a_pod_of_another_user_gets_data_that_is_its_own() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED situations: only root gives files away");
        return;
    }
    let Some(mut node) = single(&NodeOptions::kubeadm()) else {
        return;
    };
    let data = node.path("var/lib/etcd");
    let manifest = node.path("etc/kubernetes/manifests/etcd.yaml");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let rootless = text.replacen(
        "\n  securityContext:\n",
        &format!("\n  securityContext:\n    runAsGroup: {USER}\n    runAsUser: {USER}\n"),
        1,
    );
    assert_ne!(rootless, text);
    node.bench.take_out("etcd.yaml");
    node.bench.settle();
    std::fs::write(&manifest, rootless).expect("a manifest");
    node.cluster.wait_member(0);
    node.expect(0, &["backup"]);
    // The disk is lost, and what replaces it is root's.
    node.bench.take_out("etcd.yaml");
    node.bench.settle();
    std::fs::remove_dir_all(data.join("member")).expect("losing the data");
    node.bench.put_back("etcd.yaml");
    let (_, err) = node.restore(&[]);
    assert!(err.contains("which etcd's pod runs as"), "{err}");
    for made in ["", "member", "member/snap/db", "member/wal"] {
        assert_eq!(owner(&data.join(made)), (USER, USER), "{made:?}");
    }
    node.assert_backed_up_state();
    node.expect(0, &["restore", "--rollback", "--yes"]);
    assert_eq!(owner(&data).0, rustix::process::geteuid().as_raw());
}

/// Everything below a folder of the node is lost, also while pods run on.
fn lose(node: &Node, below: &str) {
    std::fs::remove_dir_all(node.path(below)).expect("losing a folder");
}

#[test]
fn a_node_without_its_certificates_is_restored_from_a_backup_that_has_them() {
    for options in kinds() {
        let Some(mut node) = single(&options) else {
            return;
        };
        let kubeadm = options.profile == "kubeadm";
        node.expect(0, &["backup"]);
        node.cluster.etcdctl_ok(&["put", "later", "1"]);
        let certificates = if kubeadm {
            "etc/kubernetes/pki"
        } else {
            "etc/kubernetes/static-pod-resources"
        };
        lose(&node, certificates);
        let (plan, err) = node.expect(0, &["restore", "latest", "--dry-run"]);
        assert!(err.contains("[certificates-from-backup]"), "{err}");
        assert!(plan.contains("back"), "{plan}");
        node.restore(&[]);
        node.assert_backed_up_state();
        node.expect(0, &["restore", "--commit", "--yes"]);
        if kubeadm {
            // One of them is lost, of which etcd itself has no need.
            let key = node.path("etc/kubernetes/pki/apiserver-kubelet-client.key");
            std::fs::remove_file(&key).expect("losing a file");
            let args = [
                "restore",
                "backup-1",
                "--dry-run",
                "--allow",
                "cluster-mismatch",
            ];
            let (plan, _) = node.expect(0, &args);
            let back = "restore pki/apiserver-kubelet-client.key, which is missing";
            assert!(plan.contains(back), "{plan}");
        }

        // The machine is installed again: nothing is left but the backups.
        node.cluster.etcdctl_ok(&["put", "later", "1"]);
        for file in std::fs::read_dir(node.bench.manifests()).expect("manifests") {
            let file = file.expect("a manifest").path();
            std::fs::remove_file(file).expect("losing a manifest");
        }
        node.bench.settle();
        lose(&node, "etc/kubernetes");
        lose(&node, "var/lib/etcd");
        let (_, err) = node.restore(&[]);
        assert!(err.contains("[access-from-backup]"), "{err}");
        node.assert_backed_up_state();
        let names = ["pki", "admin.conf", "static-pod-resources"];
        let back = names.map(|name| node.path("etc/kubernetes").join(name).exists());
        assert_eq!(back, [kubeadm, kubeadm, !kubeadm]);
        node.expect(0, &["restore", "--commit", "--yes"]);
        node.expect(0, &["backup"]);
    }
}

/// A kubeadm node whose certificates are where minikube has them.
fn with_certificates_elsewhere() -> Option<Node> {
    let node = single(&NodeOptions::kubeadm())?;
    let (pki, certs) = ("etc/kubernetes/pki", "var/lib/minikube/certs");
    std::fs::create_dir_all(node.path("var/lib/minikube")).expect("a folder");
    std::fs::rename(node.path(pki), node.path(certs)).expect("moving certificates");
    for manifest in std::fs::read_dir(node.bench.manifests()).expect("manifests") {
        let manifest = manifest.expect("a manifest").path();
        let text = std::fs::read_to_string(&manifest).expect("a manifest");
        let text = text.replace(&format!("/{pki}"), &format!("/{certs}"));
        let beside = node.path("etc/kubernetes/beside");
        std::fs::write(&beside, text).expect("a manifest");
        std::fs::rename(&beside, &manifest).expect("a manifest");
    }
    node.bench.settle();
    Some(node)
}

#[test]
fn certificates_elsewhere_are_archived_and_put_back() {
    let Some(mut node) = with_certificates_elsewhere() else {
        return;
    };
    node.cluster.wait_member(0);
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    let before = node.tree_of("var/lib/minikube/certs");
    assert!(before.contains_key(Path::new("etcd/ca.key")));
    for manifest in std::fs::read_dir(node.bench.manifests()).expect("manifests") {
        std::fs::remove_file(manifest.expect("a manifest").path()).expect("losing a manifest");
    }
    node.bench.settle();
    lose(&node, "var/lib/minikube");
    let (plan, _) = node.expect(0, &["restore", "latest", "--dry-run"]);
    let back = "restore /var/lib/minikube/certs: it is missing";
    assert!(plan.contains(back), "{plan}");
    assert!(!node.path("var/lib/minikube").exists());
    node.restore(&[]);
    node.assert_backed_up_state();
    assert_same(&before, &node.tree_of("var/lib/minikube/certs"), "restored");
    node.expect(0, &["restore", "--rollback", "--yes"]);
    assert!(!node.path("var/lib/minikube/certs").exists());
    node.expect(0, &["restore", "--commit", "--yes"]);

    // What no manifest of this node uses may be another program's.
    let foreign = node.path("var/lib/minikube/certs");
    std::fs::create_dir_all(&foreign).expect("a folder");
    std::fs::write(foreign.join("ca.crt"), "another's").expect("a file");
    let (_, err) = node.expect(5, &["restore", "latest", "--yes"]);
    assert!(err.contains("[outside-in-the-way]"), "{err}");
    node.restore(&["--allow", "outside-in-the-way"]);
    node.assert_backed_up_state();
    node.expect(0, &["restore", "--commit", "--yes"]);
}

#[test]
fn odd_files_among_certificates_do_not_end_all_backups() {
    let Some(node) = single(&NodeOptions::kubeadm()) else {
        return;
    };
    let pki = node.path("etc/kubernetes/pki");
    let make = |name: &str, kind| {
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, pki.join(name), kind, mode, 0)
            .expect("a special file");
    };
    make("kms.sock", rustix::fs::FileType::Socket);
    std::fs::create_dir_all(node.path("usr/share/ca-certificates")).expect("a folder");
    symlink("/usr/share/ca-certificates", pki.join("extra")).expect("a link");
    std::fs::create_dir_all(node.path("opt/vault")).expect("a folder");
    std::fs::write(node.path("opt/vault/root.crt"), "external").expect("a file");
    symlink("/opt/vault/root.crt", pki.join("root.crt")).expect("a link");
    let zeros = std::fs::File::create(pki.join("zeros")).expect("a file");
    zeros.set_len(20 << 20).expect("room");
    node.expect(0, &["backup"]);
    node.expect(0, &["verify", "backup-1"]);
    let shown = std::fs::read_to_string(
        node.path("etc/kubernetes/static-pod-backups/backup-1/backup.json"),
    );
    let shown = shown.expect("a Manifest");
    assert!(shown.contains("pki/kms.sock: it is a socket"), "{shown}");
    assert!(shown.contains("which every installation has"), "{shown}");

    make("pipe", rustix::fs::FileType::Fifo);
    symlink("/opt/vault/absent", pki.join("gone.crt")).expect("a link");
    let huge = std::fs::File::create(pki.join("huge")).expect("a file");
    huge.set_len(1 << 40).expect("a length");
    let (_, err) = node.expect(5, &["backup"]);
    assert!(err.contains("[static-pods-incomplete]"), "{err}");
    assert!(err.contains("pki/pipe: it is a named pipe"), "{err}");
    assert!(
        err.contains("/opt/vault/absent, which does not exist"),
        "{err}"
    );
    assert!(err.contains("pki/huge: it is larger than"), "{err}");
    let (out, _) = node.expect(0, &["backup", "--allow", "static-pods-incomplete"]);
    assert!(out.contains("dirty"), "{out}");
    node.expect(0, &["verify", "backup-2"]);
}
