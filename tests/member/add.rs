//! From one member to five, and what happens to all of them at once.

use std::time::Duration;

use serde_json::Value;

use crate::{Adding, Reaper, assert_same_data, listed, member};
use testbench::bins::require_turn;
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::process::wait_for;

/// Each comes as a learner; the next is asked for at once, and waits until etcd takes it.
#[test]
fn a_cluster_grows_from_one_to_five() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).fast());
        Bulk::new(500, 500).write(&cluster);
        for members in 2..=5 {
            let name = format!("master-{}", members - 1);
            let i = cluster.add_slot(&name);
            let url = cluster.peer_url(i);
            let args = [&name, "--peer-urls", &url, "--progress", "json"];
            let mut adding = Adding::start(&cluster, &args);
            let _reaper = Reaper(adding.pid());
            let initial_cluster = adding.initial_cluster();
            cluster.launch(i, &initial_cluster, "existing");
            let (status, said) = adding.end();
            assert_eq!(status, Some(0), "{said}\n{}", cluster.logs());
            let events: Vec<Value> = said
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect();
            let waits = |event: &&Value| event["event"] == "phase-status";
            assert!(events.iter().any(|event| waits(&event)), "{said}");
            cluster.wait_healthy();
            assert_eq!(listed(&cluster).len(), members);
            assert_same_data(&cluster);
        }
        let run = member(&cluster, &["verify", "--cluster", "-o", "json"]).expect(0);
        let votes = &run.json()["cluster"]["votes"];
        assert_eq!(
            (&votes["voters"], &votes["tolerance"]),
            (&5.into(), &2.into())
        );
    }
}

/// All nodes shut down and started together: no problem is found.
#[test]
fn a_grown_cluster_restarts() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        cluster.etcdctl_ok(&["put", "/before", "it"]);
        let url = cluster.client_url(0);
        // Shut down in order, and by a power cut.
        for orderly in [true, false] {
            for i in 0..3 {
                match orderly {
                    true => cluster.stop(i),
                    false => cluster.kill(i),
                }
            }
            let down = ["verify", "--cluster", "--endpoints", &url];
            let told = member(&cluster, &down).expect(11);
            assert!(told.stdout.contains("[cluster-unreachable]"), "{told}");
            cluster.relaunch_stopped();
            cluster.wait_healthy();
            member(&cluster, &["verify", "--cluster"]).expect(0);
            let kept = cluster.etcdctl_ok(&["get", "/before", "--print-value-only"]);
            assert_eq!(kept.trim(), "it");
            assert_same_data(&cluster);
        }
    }
}

/// Every address has changed at once: no member finds another, and one that is alone answers no
/// client until it sees a leader. That is reported, and no change can be made; only a restore
/// helps.
#[test]
fn a_grown_cluster_moves_to_other_addresses() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        let everyone = cluster.initial_cluster();
        for i in 0..3 {
            cluster.kill(i);
        }
        for i in 0..3 {
            cluster.readdress(i);
            cluster.launch(i, &everyone, "existing");
        }
        let dir = cluster.data_dir(0).to_str().expect("UTF-8").to_owned();
        wait_for("etcd to hold its data", Duration::from_secs(30), || {
            let args = ["verify", "--cluster", "-o", "json", "--data-dir", &dir];
            let run = member(&cluster, &args).expect(11);
            let cluster = &run.json()["cluster"];
            assert_eq!(
                cluster["findings"][0]["name"], "cluster-unreachable",
                "{run}"
            );
            assert_eq!(
                cluster["findings"].as_array().map(Vec::len),
                Some(1),
                "{run}"
            );
            // Data that a running etcd writes is not judged.
            let held = cluster["notChecked"]
                .to_string()
                .contains("a running etcd holds");
            if held { Ok(()) } else { Err(run) }
        })
        .unwrap_or_else(|error| panic!("{error}"));
        let url = cluster.peer_url(0);
        let args = ["member-update", "master-0", "--peer-urls", &url];
        member(&cluster, &args).expect(4);
    }
}
