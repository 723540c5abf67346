//! Members that go, and members that move, while all is well.

use crate::{assert_same_data, listed, member};
use testbench::bins::{require, require_turn};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::run;
use testbench::node::{NodeOptions, make};

/// From five down to one, the leader each time: leadership goes first, and no write fails after.
#[test]
fn leaders_are_removed_one_after_the_other() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 5).fast());
        for left in (1..5).rev() {
            let leader = cluster.leader().expect("a leader");
            let name = cluster.name(leader).to_owned();
            let dry = ["member-remove", &name, "--dry-run", "-o", "json"];
            let dry = member(&cluster, &dry).expect(0).json();
            assert_eq!(dry["plan"]["leads"], true);
            assert_eq!(listed(&cluster).len(), left + 1);
            let args = ["member-remove", &name, "--yes", "-o", "json"];
            let json = member(&cluster, &args).expect(0).json();
            assert_eq!(json["nextLeader"], dry["plan"]["nextLeader"]);
            assert_eq!(json["after"]["voters"], left);
            cluster.kill(leader);
            assert_eq!(listed(&cluster).len(), left);
            cluster.etcdctl_ok(&["put", "/left", &left.to_string()]);
            // etcd wants its members connected for a while before the next change; so it waits.
            assert_same_data(&cluster);
        }
    }
}

/// By name, by both spellings of the id, by peer URL.
#[test]
fn a_member_is_named_by_name_id_or_peer_url() {
    let Some(bins) = require("3.5") else { return };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 3).fast());
    let status = cluster.status(1);
    let id = status["header"]["member_id"].as_u64().expect("an id");
    for word in [
        "master-1".to_owned(),
        format!("{id:x}"),
        format!("{id:016x}"),
        id.to_string(),
        cluster.peer_url(1),
    ] {
        let args = ["member-remove", &word, "--dry-run", "-o", "json"];
        let json = member(&cluster, &args).expect(0).json();
        assert_eq!(json["plan"]["member"]["name"], "master-1", "{word}");
    }
    // Without a terminal to ask on, --yes is needed.
    let run = member(&cluster, &["member-remove", "master-1", "-o", "json"]).expect(2);
    assert!(run.stderr.contains("there is no terminal"), "{run}");
    assert!(run.stderr.contains("--yes"), "{run}");
    assert_eq!(listed(&cluster).len(), 3);
}

/// On an OpenShift node the remaining steps are printed, with the names filled in.
#[test]
fn a_removal_on_openshift_lists_the_remaining_steps() {
    let Some(bins) = require("3.5") else { return };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 3).fast());
    cluster.kill(2);
    let root = make(&cluster, 0, &NodeOptions::default());
    let root = root.to_str().expect("UTF-8");
    let args = [
        "--root",
        root,
        "--profile",
        "openshift",
        "--node-name",
        "master-0",
    ];
    let args = [&args[..], &["member-remove", "master-2", "--yes"]].concat();
    let run = run(&args, &[]).expect(0);
    assert!(
        run.stdout.contains(
            "oc -n openshift-etcd delete secret etcd-peer-master-2 etcd-serving-master-2 \
             etcd-serving-metrics-master-2"
        ),
        "{run}"
    );
    assert!(run.stdout.contains("oc delete node master-2"), "{run}");
    assert_eq!(listed(&cluster).len(), 2);
}

/// A member whose address has changed: its data stays, its peers learn the address.
#[test]
fn member_update_moves_a_member() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        let everyone = cluster.initial_cluster();
        cluster.kill(1);
        let old = cluster.peer_url(1);
        cluster.readdress(1);
        let new = cluster.peer_url(1);
        let taken = [
            "member-update",
            "master-1",
            "--peer-urls",
            &cluster.peer_url(0),
        ];
        let run = member(&cluster, &[&taken[..], &["-o", "json"]].concat());
        assert_eq!(crate::refusal(run), "peer-url-taken");
        let args = [
            "member-update",
            "master-1",
            "--peer-urls",
            &new,
            "-o",
            "json",
        ];
        let dry = member(&cluster, &[&args[..], &["--dry-run"]].concat()).expect(0);
        assert_eq!(dry.json()["plan"]["silent"][0], new.as_str(), "{dry}");
        assert!(listed(&cluster).contains(&("master-1".into(), old, false)));
        member(&cluster, &args).expect(0);
        assert!(listed(&cluster).contains(&("master-1".into(), new.clone(), false)));
        cluster.launch(1, &everyone, "existing");
        cluster.wait_healthy();
        cluster.etcdctl_ok(&["put", "/moved", "yes"]);
        assert_same_data(&cluster);
        let again = member(&cluster, &args).expect(0);
        assert_eq!(again.json()["plan"]["unchanged"], true, "{again}");
    }
}

/// Moving a healthy member to an address where nothing listens may cost the quorum, by name.
#[test]
fn a_move_to_nowhere_is_refused_where_it_costs_the_quorum() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        cluster.kill(2);
        cluster.etcdctl_ok(&["get", "/", "--command-timeout=30s"]);
        let (own, nowhere) = (
            cluster.peer_url(1),
            cluster.peer_url(1).replace(":2380", ":2399"),
        );
        let args = ["member-update", "master-1", "-o", "json", "--peer-urls"];
        let run = member(&cluster, &[&args[..], &[&nowhere]].concat());
        assert_eq!(crate::refusal(run), "would-lose-quorum");
        assert!(listed(&cluster).contains(&("master-1".into(), own, false)));
        let allow = ["--allow", "would-lose-quorum"];
        member(&cluster, &[&args[..], &[&nowhere], &allow].concat()).expect(0);
        let told = cluster.etcdctl_on(0, &["member", "list"]);
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.contains(&nowhere), "{told}");
    }
}
