//! The quality gate with real causes: each check that fails refuses by its name, and allowed by
//! that name it leaves a dirty set that says why.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::bench::{Node, assert_only_good, listed, text};
use testbench::bins;
use testbench::bulk::{Bulk, put_all};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::kube::{OpenShift, cluster_operator_key};
use testbench::node::NodeOptions;

/// Refused by these names, each also when all others are allowed; taken when they are allowed,
/// or with `--force`, and dirty for these reasons.
#[track_caller]
fn both_ways(node: &Node, store: &Path, names: &[&str], words: &[&str], args: &[&str]) {
    let before = listed(store)["sets"].as_array().map_or(0, Vec::len);
    let run = node.backup(store, args).expect(5);
    let error = &run.json()["error"];
    assert_eq!(error["kind"], "refused", "{run}");
    assert_eq!(error["refusal"], names[0], "{run}");
    assert_eq!(error["refusals"], serde_json::json!(names), "{run}");
    let told = format!("[{}]", names.join(", "));
    assert!(run.stderr.contains(&told), "no {told:?} in {run}");
    let hint = format!("--allow {}", names.join(","));
    assert!(run.stderr.contains(&hint), "no {hint:?} in {run}");
    for word in words {
        assert!(run.stderr.contains(word), "no {word:?} in {run}");
    }
    let all = etcd_dr::keep::quality::CHECKS;
    for name in names {
        let others: Vec<&str> = all.iter().copied().filter(|other| other != name).collect();
        let run = node
            .backup(store, &[args, &["--allow", &others.join(",")]].concat())
            .expect(5);
        assert_eq!(run.json()["error"]["refusal"], *name, "{run}");
    }
    assert_eq!(listed(store)["sets"].as_array().map_or(0, Vec::len), before);

    let allow = names.join(",");
    for allowed in [&["--allow", allow.as_str()] as &[&str], &["--force"]] {
        let run = node.backup(store, &[args, allowed].concat()).expect(0);
        let manifest = &run.json()["manifest"];
        let quality = &manifest["quality"];
        assert_eq!(quality["state"], "dirty", "{run}");
        let reasons = quality["reasons"].as_array().expect("reasons");
        let told: Vec<_> = reasons
            .iter()
            .map(|reason| reason["check"].as_str())
            .collect();
        let expected: Vec<_> = names.iter().map(|name| Some(*name)).collect();
        assert_eq!(told, expected, "{run}");
        let messages: String = reasons
            .iter()
            .filter_map(|r| r["message"].as_str())
            .collect();
        for word in words {
            assert!(messages.contains(word), "no {word:?} in {messages}");
        }
        for check in manifest["checks"].as_array().expect("checks") {
            let failed = names.iter().any(|name| check["name"] == *name);
            assert_eq!(check["result"] == "failed", failed, "{check}");
        }
    }
    let sets = listed(store);
    let sets = sets["sets"].as_array().expect("sets");
    assert_eq!(sets.len(), before + 2);
    assert!(
        sets[before..].iter().all(|set| set["state"] == "dirty"),
        "{sets:?}"
    );
    let last = sets.last().expect("a set")["name"]
        .as_str()
        .expect("a name");
    node.run(&["verify", "--store", text(store), last])
        .expect(0);
}

struct Bench {
    cluster: Cluster,
    node: Node,
    store: PathBuf,
}

impl Bench {
    fn new(cluster: Cluster, i: usize) -> Self {
        let node = Node::of(&cluster, i, &NodeOptions::default());
        let store = cluster.scratch().join("store");
        std::fs::create_dir(&store).expect("a store");
        Self {
            cluster,
            node,
            store,
        }
    }

    #[track_caller]
    fn both_ways(&self, names: &[&str], words: &[&str], args: &[&str]) {
        both_ways(&self.node, &self.store, names, words, args);
    }
}

#[test]
fn what_the_cluster_and_the_node_say() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    OpenShift::default().write(&cluster);
    let bench = Bench::new(cluster, 0);
    bench.node.good_backup(&bench.store, &[]);

    let rolling = OpenShift {
        progressing: vec!["kube-apiserver"],
        ..OpenShift::default()
    };
    rolling.write(&bench.cluster);
    let words = [
        "operator kube-apiserver is progressing",
        "1 node is at revision 6",
    ];
    bench.both_ways(&["operator-progressing"], &words, &[]);

    let created = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(23);
    let young = OpenShift {
        created: created.to_string(),
        ..OpenShift::default()
    };
    young.write(&bench.cluster);
    bench.both_ways(
        &["before-first-cert-rotation"],
        &["the cluster was created at"],
        &[],
    );
    let created = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(25);
    OpenShift {
        created: created.to_string(),
        ..OpenShift::default()
    }
    .write(&bench.cluster);
    bench.node.good_backup(&bench.store, &[]);

    // An operator of which nothing is known is not one that is at rest.
    let key = cluster_operator_key("kube-scheduler");
    bench.cluster.etcdctl_ok(&["del", &key]);
    bench.both_ways(
        &["operator-progressing"],
        &["kube-scheduler", "cannot tell"],
        &[],
    );
    put_all(&bench.cluster, [(key.as_str(), b"{\"broken\":".to_vec())]);
    bench.both_ways(
        &["operator-progressing"],
        &["kube-scheduler", "cannot tell"],
        &[],
    );
    OpenShift::default().write(&bench.cluster);

    let manifests = bench.node.root.join("etc/kubernetes/manifests");
    let (live, aside) = (
        manifests.join("kube-scheduler-pod.yaml"),
        bench.node.root.join("aside"),
    );
    std::fs::rename(&live, &aside).expect("setting a manifest aside");
    bench.both_ways(&["static-pods-incomplete"], &["kube-scheduler"], &[]);
    std::fs::rename(&aside, &live).expect("putting it back");
    let revision = bench
        .node
        .root
        .join("etc/kubernetes/static-pod-resources/etcd-pod-7");
    std::fs::rename(&revision, &aside).expect("setting a revision aside");
    bench.both_ways(&["static-pods-incomplete"], &["etcd-pod-7"], &[]);
    std::fs::rename(&aside, &revision).expect("putting it back");

    // Two at once: both named, both needed.
    rolling.write(&bench.cluster);
    std::fs::rename(&live, &aside).expect("setting a manifest aside");
    bench.both_ways(
        &["operator-progressing", "static-pods-incomplete"],
        &["kube-scheduler"],
        &[],
    );
}

#[test]
fn an_alarm_is_refused_and_can_be_allowed() {
    for bins in bins::require_all() {
        eprintln!("with etcd {}", bins.version);
        let mut spec = ClusterSpec::new(bins, 1).fast();
        spec.quota = 4 << 20;
        let cluster = Cluster::start(spec);
        OpenShift::default().write(&cluster);
        let bench = Bench::new(cluster, 0);
        let value = "x".repeat(100_000);
        let full = (0..200).any(|i| {
            let put = bench
                .cluster
                .etcdctl(&["put", &format!("/fill/{i}"), &value]);
            String::from_utf8_lossy(&put.stderr).contains("database space exceeded")
        });
        assert!(full, "the quota holds nothing back");
        bench.both_ways(&["etcd-alarm"], &["master-0 raised NOSPACE"], &[]);
    }
}

#[test]
fn members_that_are_down_or_differ_are_refused_and_can_be_allowed() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 3).fast());
    OpenShift::default().write(&cluster);
    Bulk::new(50, 500).write(&cluster);
    let marker = "the-value-that-will-differ-on-one-member";
    cluster.etcdctl_ok(&["put", "/marker", marker]);
    let mut bench = Bench::new(cluster, 0);
    let manifest = bench.node.good_backup(&bench.store, &["--check-members"]);
    assert_eq!(manifest["member"]["name"], "master-0");

    // Bit rot on another member's disk, which etcd does not notice by itself.
    bench.cluster.kill(2);
    rot(&bench.cluster.data_dir(2).join("member/snap/db"), marker);
    bench.cluster.relaunch_stopped();
    bench.cluster.wait_healthy();
    bench.both_ways(
        &["hashkv-mismatch"],
        &["master-2", "hash"],
        &["--check-members"],
    );
    bench.node.good_backup(&bench.store, &[]);

    bench.cluster.kill(1);
    wait_until_led(&bench);
    bench.both_ways(&["etcd-unhealthy-member"], &["master-1", "refused"], &[]);
    let words = ["master-1", "returned no hash"];
    let both = ["etcd-unhealthy-member", "hashkv-mismatch"];
    bench.both_ways(&both, &words, &["--check-members"]);

    bench.cluster.kill(2);
    wait_until_leaderless(&bench);
    let both = ["etcd-unhealthy-member", "etcd-no-leader"];
    bench.both_ways(&both, &["master-1", "master-2", "has no leader"], &[]);
}

/// Changes a value where it is in the database file.
fn rot(db: &Path, marker: &str) {
    let bytes = std::fs::read(db).expect("the database");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(db)
        .expect("the database");
    let mut places = 0;
    for (at, window) in bytes.windows(marker.len()).enumerate() {
        if window == marker.as_bytes() {
            file.write_all_at(b"T", at as u64).expect("changing a byte");
            places += 1;
        }
    }
    assert!(places > 0, "the value has not reached the database file");
}

fn wait_until_led(bench: &Bench) {
    let leader = || {
        bench.cluster.status(0)["leader"]
            .as_u64()
            .filter(|id| *id != 0)
    };
    wait("a leader", || {
        leader().is_some() && bench.cluster.leader().is_some()
    });
}

fn wait_until_leaderless(bench: &Bench) {
    wait("no leader", || {
        bench.cluster.status(0)["leader"]
            .as_u64()
            .is_none_or(|id| id == 0)
    });
}

fn wait(what: &str, check: impl Fn() -> bool) {
    let limit = std::time::Duration::from_secs(60);
    testbench::process::wait_for(
        what,
        limit,
        || if check() { Ok(()) } else { Err("not yet") },
    )
    .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_learner_as_the_source_is_refused_and_can_be_allowed() {
    for bins in bins::require_all() {
        eprintln!("with etcd {}", bins.version);
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).fast());
        OpenShift::default().write(&cluster);
        Bulk::new(50, 500).write(&cluster);
        let i = cluster.add_slot("master-9");
        let peers = format!("--peer-urls={}", cluster.peer_url(i));
        let added = cluster.etcdctl_on(0, &["member", "add", "master-9", "--learner", &peers]);
        assert!(added.status.success(), "{added:?}");
        let everyone = cluster.initial_cluster();
        cluster.launch(i, &everyone, "existing");
        let caught_up = cluster.revision(0);
        wait("the learner to catch up", || {
            let status = cluster.etcdctl_on(i, &["endpoint", "status", "-w", "json"]);
            let told: serde_json::Value =
                serde_json::from_slice(&status.stdout).unwrap_or_default();
            told[0]["Status"]["header"]["revision"].as_i64() >= Some(caught_up)
        });
        let bench = Bench::new(cluster, i);
        if bins.numbers() >= (3, 5, 0) {
            bench.both_ways(&["learner-source"], &["master-9 is a learner"], &[]);
        } else {
            let run = bench.node.backup(&bench.store, &[]).expect(5);
            assert_eq!(run.json()["error"]["refusal"], "learner-source");
            // Allowed, it is this server itself that gives no snapshot.
            let allowed = ["--allow", "learner-source"];
            let run = bench.node.backup(&bench.store, &allowed).expect(4);
            assert!(run.stderr.contains("not supported for learner"), "{run}");
            assert_only_good(&bench.store, &[], &run);
        }
        // A learner beside the source is nothing bad.
        let voter = Node::of(&bench.cluster, 0, &NodeOptions::default());
        voter.good_backup(&bench.store, &["--check-members"]);
    }
}
