//! `backup --pin` and `backup --keep-…`: what follows a backup changes nothing of it.

use serde_json::Value;

use crate::bench::{Node, listed, text};
use crate::support::bins;
use crate::support::cluster::{Cluster, ClusterSpec};
use crate::support::golden;
use crate::support::kube::OpenShift;
use crate::support::node::NodeOptions;

#[test]
fn a_backup_prunes_once_it_is_taken_and_a_pinned_one_stays() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    OpenShift::default().write(&cluster);
    let node = Node::of(&cluster, 0, &NodeOptions::default());
    let store = cluster.scratch().join("store");
    let sets = || listed(&store)["sets"].as_array().expect("sets").clone();
    let names = || -> Vec<Value> { sets().iter().map(|set| set["name"].clone()).collect() };

    node.backup(&store, &["--pin"]).expect(0);
    node.backup(&store, &[]).expect(0);
    let third = node.backup(&store, &["--keep-last", "1"]).expect(0);
    let removed = &third.json()["pruned"]["removed"];
    assert_eq!(*removed, serde_json::json!(["backup-2"]), "{third}");
    assert_eq!(names(), ["backup-1", "backup-3"]);
    assert_eq!(sets()[0]["pinned"], true);
    node.run(&["verify", "--all", "--store", text(&store)])
        .expect(0);

    // What cannot be removed is told by a status of its own, and the backup is there all the
    // same. The removal's calls come last.
    let counted = cluster.scratch().join("calls");
    let seamed = |seam: String| {
        let args = [
            "backup",
            text(&store),
            "--keep-last",
            "1",
            "--progress",
            "never",
        ];
        golden::run(&node.args(&args), &[("ETCD_DR_SEAM", seam)])
    };
    seamed(format!("count:{}", counted.display())).expect(0);
    let calls = std::fs::read_to_string(&counted).expect("a count");
    let calls: u64 = calls.parse().expect("a number");
    // The stream comes in as many pieces as it likes: the call that is meant is looked for.
    let partly = (calls - 8..calls + 20)
        .map(|call| seamed(format!("fail:{call}:5")))
        .find(|run| run.status != Some(6))
        .expect("a run whose backup is taken");
    let partly = partly.expect(10);
    assert!(partly.stderr.contains("error: pruning:"), "{partly}");
    let left = names();
    let newest = left[left.len() - 1].as_str().expect("a name");
    assert_eq!(left[0], "backup-1");
    assert!(
        partly.stdout.contains(&format!("{newest} (good)")),
        "{partly}"
    );
}
