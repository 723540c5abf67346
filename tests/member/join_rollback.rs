//! `member-add --join --rollback` of a join that is done: what comes back.

use std::process::Command;

use etcd_dr::change::datadir::evidence_of_data;

use crate::join::{LOST, Lost};
use crate::member;
use testbench::bins::require;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::node::NodeOptions;

/// A node that has run its own cluster joins another one, whose revisions its clients then see.
/// Its own data comes back above them, so that these clients list again.
#[test]
fn what_was_there_before_a_join_comes_back_bumped() {
    let Some(bins) = require("3.5") else { return };
    let mut lost = Lost::new(&bins, &NodeOptions::default(), true);
    lost.bench.take_out("etcd-pod.yaml");
    lost.bench.settle();
    let mut alone = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    alone.etcdctl_ok(&["put", "own", "1"]);
    alone.stop(0);
    let data_dir = lost.cluster.data_dir(LOST).to_owned();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(alone.data_dir(0).join("member"))
        .arg(&data_dir)
        .status();
    assert!(copied.expect("running cp").success());
    let revision = || {
        let evidence = evidence_of_data(&data_dir).expect("its data");
        evidence.expect("a revision").revision
    };
    let own = revision();

    lost.expect(0, &["member-add", "--join", "--yes"]);
    lost.assert_joined();
    let served = lost.cluster.revision(LOST);
    assert!(served > own, "{served} {own}");
    let name = lost.cluster.name(LOST).to_owned();
    member(&lost.cluster, &["member-remove", &name, "--yes"]).expect(0);
    let (out, _) = lost.expect(0, &["member-add", "--join", "--rollback", "--yes"]);
    let bumped = revision();
    assert!(bumped > served, "{bumped} {served}");
    assert!(out.contains(&format!("bumped to {bumped}")), "{out}");
    // Its own bytes are kept.
    let kept = lost.operations().remove(0).join("data");
    let kept = evidence_of_data(&kept).expect("the data from before");
    assert_eq!(kept.expect("a revision").revision, own);
}
