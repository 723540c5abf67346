//! Each refusal with a real cause, and with and without its `--allow`.

use crate::{listed, member, refusal};
use testbench::bins::{EtcdBins, require, require_turn};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::process::expect_success;

fn cluster(bins: &EtcdBins, members: usize) -> Cluster {
    Cluster::start(ClusterSpec::new(bins, members).fast())
}

/// `-o json` behind the arguments.
fn json<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &["-o", "json"]].concat()
}

/// A URL of this cluster's network where nothing listens.
fn elsewhere(cluster: &Cluster) -> String {
    cluster.peer_url(0).replace(&cluster.ip(0).to_string(), &{
        let ip = cluster.ip(0).to_string();
        let (network, _) = ip.rsplit_once('.').expect("an IPv4 address");
        format!("{network}.7")
    })
}

#[test]
fn taken_names_and_urls_are_refused() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        let (own, free) = (cluster.peer_url(0), elsewhere(&cluster));
        let before = listed(&cluster);
        for (args, name) in [
            (
                ["member-add", "master-0", "--peer-urls", &free],
                "name-taken",
            ),
            (
                ["member-add", "other", "--peer-urls", &own],
                "peer-url-taken",
            ),
        ] {
            let run = member(&cluster, &json(&args));
            assert_eq!(refusal(run), name);
            // Nothing overrides it: two members cannot share either.
            let allowed = [&args[..], &["--allow", name]].concat();
            member(&cluster, &allowed).expect(2);
        }
        let again = ["member-add", "master-0", "--peer-urls", &own];
        let run = member(&cluster, &json(&again)).expect(0);
        assert_eq!(run.json()["result"], "votes", "it is there already: {run}");
        assert_eq!(listed(&cluster), before);
    }
}

/// etcd's own limit is one learner: etcd refuses a second one, and the refusal has our name.
#[test]
fn a_learner_beyond_the_limit_is_refused() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        let first = elsewhere(&cluster);
        let second = first.replace(".7:", ".6:");
        let args = ["member-add", "m1", "--peer-urls", &first, "--no-promote"];
        let run = member(&cluster, &json(&args)).expect(0);
        assert_eq!(run.json()["result"], "learner", "{run}");
        assert_eq!(run.json()["start"]["initialClusterState"], "existing");
        // The same again, in the other forms.
        for (form, begins) in [
            ("flags", "--name=m1 --initial-advertise-peer-urls="),
            ("pod", "- \"--name=m1\"\n- \"--initial-"),
        ] {
            let again = [&args[..], &["--print", form]].concat();
            let run = member(&cluster, &again).expect(0);
            assert!(run.stdout.starts_with(begins), "{run}");
        }
        let args = ["member-add", "m2", "--peer-urls", &second];
        let run = member(&cluster, &json(&args)).expect(5);
        assert_eq!(run.json()["error"]["refusal"], "too-many-learners", "{run}");
        assert!(run.stderr.contains(&first), "the learner is named: {run}");
        let allowed = [&args[..], &["--allow", "too-many-learners"]].concat();
        member(&cluster, &allowed).expect(2);
        assert_eq!(listed(&cluster).len(), 2);
        // It has no name yet, and goes by its URL.
        let args = ["member-remove", &first, "--yes"];
        member(&cluster, &args).expect(0);
        assert_eq!(listed(&cluster).len(), 1);
    }
}

/// A dead voting member: refused; if allowed, etcd itself refuses unless its strict check is off.
#[test]
fn an_unhealthy_cluster_is_refused_and_can_be_allowed() {
    for bins in require_turn() {
        for strict in [true, false] {
            let mut spec = ClusterSpec::new(bins, 3).fast();
            spec.extra_args = vec![format!("--strict-reconfig-check={strict}")];
            let mut cluster = Cluster::start(spec);
            cluster.kill(2);
            cluster.etcdctl_ok(&["get", "/", "--command-timeout=30s"]);
            let url = elsewhere(&cluster);
            let args = ["member-add", "m3", "--peer-urls", &url, "--no-promote"];
            let run = member(&cluster, &json(&args)).expect(5);
            assert_eq!(run.json()["error"]["refusal"], "unhealthy-cluster");
            assert!(run.stderr.contains("--allow unhealthy-cluster"), "{run}");
            assert!(run.stderr.contains("master-2"), "it is named: {run}");
            let allowed = json(&[&args[..], &["--allow", "unhealthy-cluster"]].concat()).clone();
            let run = member(&cluster, &allowed);
            if strict {
                let run = run.expect(5);
                assert_eq!(run.json()["error"]["refusal"], "unhealthy-cluster");
                assert!(run.stderr.contains("etcd itself"), "{run}");
                assert_eq!(listed(&cluster).len(), 3);
            } else {
                run.expect(0);
                assert_eq!(listed(&cluster).len(), 4);
            }
        }
    }
}

/// Two of three are dead: nothing can be agreed on, and nothing overrides that.
#[test]
fn without_quorum_every_change_is_refused() {
    for bins in require_turn() {
        let mut cluster = cluster(bins, 3);
        cluster.kill(1);
        cluster.kill(2);
        let url = elsewhere(&cluster);
        crate::wait_leaderless(&cluster, 0);
        for args in [
            vec!["member-add", "m3", "--peer-urls", url.as_str()],
            vec!["member-remove", "master-2", "--yes"],
            vec!["member-update", "master-2", "--peer-urls", url.as_str()],
        ] {
            let run = member(&cluster, &json(&args));
            assert_eq!(refusal(run), "no-quorum", "{args:?}");
            let allowed = [&args[..], &["--allow", "no-quorum"]].concat();
            member(&cluster, &allowed).expect(2);
        }
    }
}

/// Healthy members of a cluster that cannot spare one; also by a voter that has not started.
#[test]
fn a_removal_that_would_lose_the_quorum_is_refused() {
    for bins in require_turn() {
        for strict in [true, false] {
            let mut spec = ClusterSpec::new(bins, 3).fast();
            spec.extra_args = vec![format!("--strict-reconfig-check={strict}")];
            let mut cluster = Cluster::start(spec);
            cluster.kill(2);
            cluster.etcdctl_ok(&["get", "/", "--command-timeout=30s"]);
            let follower = usize::from(cluster.leader() == Some(0));
            let name = cluster.name(follower).to_owned();
            let args = ["member-remove", &name, "--yes"];
            let run = member(&cluster, &json(&args)).expect(5);
            assert_eq!(run.json()["error"]["refusal"], "would-lose-quorum");
            let allowed = json(&[&args[..], &["--allow", "would-lose-quorum"]].concat());
            let run = member(&cluster, &allowed);
            if strict {
                let run = run.expect(5);
                assert_eq!(run.json()["error"]["refusal"], "would-lose-quorum");
                assert!(run.stderr.contains("etcd itself"), "{run}");
                assert_eq!(listed(&cluster).len(), 3);
            } else {
                // Two of two must agree now, and one is dead: exactly what was allowed.
                assert_ne!(run.status, Some(5), "{run}");
            }
        }
    }
}

/// A cluster of one would stop until the new voter runs.
#[test]
fn a_voter_at_once_in_a_cluster_of_one() {
    for bins in require_turn() {
        let mut cluster = cluster(bins, 1);
        let i = cluster.add_slot("m1");
        let url = cluster.peer_url(i);
        let args = ["member-add", "m1", "--peer-urls", &url, "--no-learner"];
        let run = member(&cluster, &json(&args));
        assert_eq!(refusal(run), "would-lose-quorum");
        let args = ["m1", "--peer-urls", &url, "--no-learner", "--allow"];
        let args = [&args[..], &["would-lose-quorum"]].concat();
        let mut adding = crate::Adding::start(&cluster, &args);
        let _reaper = crate::Reaper(adding.pid());
        let initial_cluster = adding.initial_cluster();
        cluster.launch(i, &initial_cluster, "existing");
        let (status, said) = adding.end();
        assert_eq!(status, Some(0), "{said}\n{}", cluster.logs());
        cluster.wait_healthy();
        crate::assert_same_data(&cluster);
    }
}

#[test]
fn the_last_member_and_a_leader_without_successor_are_refused() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        let run = member(&cluster, &json(&["member-remove", "master-0", "--yes"]));
        assert_eq!(refusal(run), "last-member");
        let args = [
            "member-remove",
            "master-0",
            "--yes",
            "--allow",
            "last-member",
        ];
        member(&cluster, &args).expect(2);
    }
    let Some(bins) = require("3.5") else { return };
    // The follower is frozen: the leader would lose its quorum by going, and has no heir.
    let mut spec = ClusterSpec::new(&bins, 3).fast();
    spec.extra_args = vec!["--strict-reconfig-check=false".to_owned()];
    let cluster = Cluster::start(spec);
    let leader = cluster.leader().expect("a leader");
    for i in (0..3).filter(|i| *i != leader) {
        cluster.pause(i);
    }
    let name = cluster.name(leader).to_owned();
    let args = [
        "--endpoints",
        &cluster.client_url(leader),
        "member-remove",
        &name,
        "--yes",
    ];
    let run = member(&cluster, &json(&args));
    // Which of the two comes first depends on how soon the leader notices.
    assert!(
        ["would-lose-quorum", "no-quorum", "leader-cannot-move"].contains(&refusal(run).as_str())
    );
}

#[test]
fn unknown_and_ambiguous_members_are_refused() {
    let Some(bins) = require("3.5") else { return };
    let cluster = cluster(&bins, 3);
    for word in ["master", "master-", "MASTER-0", "deadbeef", "*", " "] {
        let run = member(&cluster, &json(&["member-remove", word, "--yes"])).expect(5);
        let error = &run.json()["error"];
        assert_eq!(error["refusal"], "member-unknown", "{run}");
        assert_eq!(error["candidates"].as_array().map(Vec::len), Some(3));
    }
    // Two members of one name: etcd allows it.
    let mut twins = ClusterSpec::new(&bins, 1).fast().plain();
    twins.names = vec!["twin".to_owned()];
    let mut twins = Cluster::start(twins);
    let i = twins.add_slot("twin-b");
    let url = twins.peer_url(i);
    let added = twins.etcdctl(&["member", "add", "twin-b", &format!("--peer-urls={url}")]);
    expect_success("etcdctl member add", &added);
    // A server compares the others' URLs with the list, not their names.
    let everyone = format!("first={},twin={url}", twins.peer_url(0));
    twins.launch_named(i, "twin", &everyone);
    twins.wait_healthy();
    let run = member(&twins, &json(&["member-remove", "twin", "--yes"])).expect(5);
    assert_eq!(run.json()["error"]["refusal"], "member-ambiguous", "{run}");
    assert_eq!(
        run.json()["error"]["candidates"].as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(listed(&twins).len(), 2);
}

#[test]
fn invalid_names_and_urls_are_usage_errors() {
    let Some(bins) = require("3.5") else { return };
    let cluster = cluster(&bins, 1);
    for args in [
        ["member-add", "a=b", "--peer-urls", "https://127.0.0.1:1"],
        ["member-add", "m", "--peer-urls", "127.0.0.1:2380"],
        ["member-add", "m", "--peer-urls", "https://127.0.0.1"],
        [
            "member-update",
            "master-0",
            "--peer-urls",
            "https://0.0.0.0:2380",
        ],
    ] {
        member(&cluster, &args).expect(2);
    }
    let run = member(&cluster, &["member-remove", "master-0"]).expect(5);
    assert!(run.stderr.contains("last-member"), "{run}");
}

/// A member that is added without waiting has not started; the result says what it must start with.
#[test]
fn an_addition_without_promotion_returns_at_once() {
    let Some(bins) = require("3.5") else { return };
    let cluster = cluster(&bins, 3);
    let url = elsewhere(&cluster);
    let args = ["member-add", "m3", "--peer-urls", &url, "--no-promote"];
    let at_once = [&args[..], &["--no-learner", "--progress", "json"]].concat();
    let run = member(&cluster, &json(&at_once)).expect(0);
    assert_eq!(run.json()["result"], "voter-not-started", "{run}");
    assert_eq!(run.json()["start"]["name"], "m3", "{run}");
    assert!(run.stderr.contains("\"event\":\"must-start\""), "{run}");
    member(&cluster, &["member-remove", &url, "--yes"]).expect(0);
    member(&cluster, &args).expect(0);
    let run = member(&cluster, &json(&["verify", "--upgrade-to", "3.6"])).expect(11);
    let obstacles = run.json()["upgrade"]["obstacles"].clone();
    let obstacles = obstacles.as_array().expect("obstacles");
    let learner = obstacles
        .iter()
        .any(|found| found["name"] == "learner-present");
    assert!(learner, "{run}");
}
