//! A lost member replaced end to end.

use crate::{Adding, Reaper, assert_same_data, listed, member};
use testbench::bins::{EtcdBins, require_turn};
use testbench::bulk::{Bulk, put_all};
use testbench::cluster::{Cluster, ClusterSpec};

/// Removes a member that is lost, and adds it again from what `--print` says.
pub(crate) fn replace(cluster: &mut Cluster, i: usize) {
    let name = cluster.name(i).to_owned();
    let removed = member(cluster, &["member-remove", &name, "--yes", "-o", "json"]).expect(0);
    let json = removed.json();
    assert_eq!(json["schemaVersion"], 1);
    assert_eq!(json["member"]["name"], name.as_str());
    assert_eq!(json["before"]["tolerance"], 0, "{removed}");
    assert_eq!(json["after"]["voters"], 2, "{removed}");
    assert_eq!(json["goneFrom"].as_array().map(Vec::len), Some(2));
    join(cluster, i);
}

fn join(cluster: &mut Cluster, i: usize) {
    let name = cluster.name(i).to_owned();
    let url = cluster.peer_url(i);
    let mut adding = Adding::start(cluster, &[&name, "--peer-urls", &url, "--wait", "4m"]);
    let _reaper = Reaper(adding.pid());
    let initial_cluster = adding.initial_cluster();
    assert!(
        listed(cluster).contains(&(String::new(), url.clone(), true)),
        "it is added as a learner"
    );
    cluster.launch(i, &initial_cluster, "existing");
    let (status, said) = adding.end();
    assert_eq!(status, Some(0), "{said}\n{}", cluster.logs());
    assert!(said.contains("has caught up and was promoted"), "{said}");
    cluster.wait_healthy();
    assert!(listed(cluster).contains(&(name, url, false)));
}

fn lose_and_replace(bins: &EtcdBins, data: &Bulk, readdress: bool) {
    let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
    data.write(&cluster);
    let lost = 2;
    cluster.kill(lost);
    cluster.wipe(lost);
    if readdress {
        cluster.readdress(lost);
    }
    replace(&mut cluster, lost);
    assert_same_data(&cluster);
    put_all(&cluster, [("/after", b"it".to_vec())]);
    assert_same_data(&cluster);
    assert_eq!(listed(&cluster).len(), 3);
}

#[test]
fn a_lost_member_is_replaced() {
    for bins in require_turn() {
        // Some hundred MB on one release; snapshots are sent and received the same way by all.
        let keys = if bins.is_of("3.5.30") { 60_000 } else { 2_000 };
        lose_and_replace(bins, &Bulk::new(keys, 4000), false);
    }
}

#[test]
fn a_lost_member_comes_back_at_another_address() {
    for bins in require_turn() {
        lose_and_replace(bins, &Bulk::new(2_000, 1000), true);
    }
}
