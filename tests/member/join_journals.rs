//! Joins that an earlier build planned.

use crate::join::{LOST, Lost};
use testbench::bins::require;
use testbench::journals::{place, records};
use testbench::node::NodeOptions;

#[test]
fn a_join_that_an_earlier_build_planned_is_resumed() {
    let Some(bins) = require("3.5") else { return };
    for (options, name) in [
        (NodeOptions::default(), "join-openshift-completed"),
        (NodeOptions::kubeadm(), "join-kubeadm-completed"),
    ] {
        let mut lost = Lost::new(&bins, &options, true);
        let root = lost.cluster.node_root(LOST).to_owned();
        let socket = root.join("run/containerd/containerd.sock");
        std::fs::create_dir_all(socket.parent().expect("a folder")).expect("a folder");
        std::os::unix::fs::symlink("../crio/crio.sock", socket).expect("a link");
        place(&root, Some(&lost.cluster), &records(name)[..1]);
        let (out, err) = lost.expect(0, &["member-add", "--join", "--resume"]);
        assert!(out.contains("and votes"), "{name}: {out}\n{err}");
        lost.assert_joined();
        lost.expect(0, &["member-add", "--join", "--commit", "--yes"]);
    }
}
