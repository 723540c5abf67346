//! A backup of a node that a kubelet runs.

use std::process::Command;

use crate::bench::{NAME, boot};
use testbench::process::expect_success;

#[test]
fn a_backup_needs_no_options() {
    let Some(node) = boot() else { return };
    node.put("/registry/configmaps/default/one", b"1");
    let status = node.status();

    let manifest = node.etcd_dr(&["backup", "-o", "json"]).expect(0).json()["manifest"].clone();
    assert_eq!(manifest["quality"]["state"], "good", "{manifest:#}");
    assert_eq!(manifest["node"]["profile"], "openshift");
    assert_eq!(manifest["node"]["name"], NAME);
    assert_eq!(manifest["member"]["name"], NAME);
    assert_eq!(manifest["member"]["etcdVersion"], node.bins().version);
    assert_eq!(
        manifest["database"]["kvRevision"], status["header"]["revision"],
        "{manifest:#}"
    );
    node.etcd_dr(&["verify", "latest", "--live"]).expect(0);

    // The container's own program serves the backup, by the loader of its image if it has one.
    let rehearsed = node.etcd_dr(&["verify", "latest", "--rehearse", "-o", "json"]);
    let rehearsal = rehearsed.expect(0).json()["sets"][0]["rehearsal"].clone();
    assert_eq!(rehearsal["good"], true, "{rehearsal:#}");
    assert_eq!(rehearsal["etcd"]["from"], "node");
    assert_eq!(rehearsal["etcd"]["version"], node.bins().version);

    // The node's own path of the default store is a link; seen from outside it is below root.
    let set = node.path("/var/lib/etcd-dr/static-pod-backups/backup-1");
    let sums = Command::new("sha256sum")
        .args(["--check", "--quiet", "SHA256SUMS"])
        .current_dir(&set)
        .output();
    expect_success("sha256sum", &sums.expect("running sha256sum"));
}
