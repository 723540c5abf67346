//! What `member-add --join` refuses because of what the node has, each with a real cause. Nothing
//! overrides these, and nothing changes.

use std::path::PathBuf;

use crate::join::{Lost, assert_same};
use crate::listed;
use testbench::bins::require;
use testbench::node::NodeOptions;
use testbench::tmpfs::Tmpfs;

/// Refused by this name, even if it is allowed; node and members are as before.
#[track_caller]
fn refused(lost: &Lost, name: &str, before: &[&str]) {
    let (files, members) = (lost.files(), listed(&lost.cluster));
    let args = [before, &["member-add", "--join", "--yes"]].concat();
    let (_, err) = lost.expect(5, &args);
    assert!(err.contains(&format!("[{name}]")), "{name}: {err}");
    lost.expect(2, &[&args[..], &["--allow", name]].concat());
    assert_eq!(listed(&lost.cluster), members, "{name}");
    assert_same(&files, &lost.files());
    assert!(lost.operations().is_empty(), "{name}");
}

/// With etcd's manifest changed for the moment.
#[track_caller]
fn refused_with(lost: &Lost, name: &str, change: impl FnOnce(&str) -> String) {
    let manifest = manifest(lost);
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let changed = change(&text);
    assert_ne!(changed, text, "{name}: the manifest is the same");
    std::fs::write(&manifest, changed).expect("a manifest");
    lost.bench.settle();
    refused(lost, name, &[]);
    std::fs::write(&manifest, text).expect("a manifest");
    lost.bench.settle();
}

fn manifest(lost: &Lost) -> PathBuf {
    lost.root.join("etc/kubernetes/manifests/etcd-pod.yaml")
}

#[test]
fn nodes_on_which_no_member_can_join() {
    let Some(bins) = require("3.5") else { return };
    let lost = Lost::new(&bins, &NodeOptions::default(), false);
    refused(&lost, "no-static-pods", &["--profile", "bare"]);
    refused_with(&lost, "separate-wal-dir", |text| {
        text.replace("--logger=zap", "--logger=zap --wal-dir=/var/lib/etcd-wal")
    });
    // As OpenShift's restore script writes it: without a revision, and with the backup's folder.
    refused_with(&lost, "restore-pod", |text| {
        text.replace("\"resource-dir\"", "\"backup-dir\"")
    });

    // Nothing is in its place, and nothing of any revision.
    let kept = lost.root.join("etc/kept");
    std::fs::create_dir(&kept).expect("a folder");
    let resources = lost.root.join("etc/kubernetes/static-pod-resources");
    let revisions = std::fs::read_dir(resources).expect("revisions");
    let mut moved = vec![manifest(&lost)];
    moved.extend(revisions.map(|entry| entry.expect("an entry").path().join("etcd-pod.yaml")));
    moved.retain(|path| path.is_file());
    assert!(moved.len() > 1, "{moved:?}");
    for (number, path) in moved.iter().enumerate() {
        std::fs::rename(path, kept.join(number.to_string())).expect("a file");
    }
    lost.bench.settle();
    refused(&lost, "no-manifest", &[]);
    for (number, path) in moved.iter().enumerate() {
        std::fs::rename(kept.join(number.to_string()), path).expect("a file");
    }
    lost.bench.settle();

    let manifests = lost.root.join("etc/kubernetes/manifests");
    let text = std::fs::read(manifest(&lost)).expect("a manifest");
    let Some(_mount) = Tmpfs::mount(&manifests, "16m") else {
        return;
    };
    std::fs::write(manifest(&lost), text).expect("a manifest");
    refused(&lost, "cross-mount", &[]);
}
