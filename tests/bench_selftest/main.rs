//! Proves the test bench itself: the other suites' findings are only as good as their servers.

#[path = "../support/mod.rs"]
mod support;

use support::bins::{self, EtcdBins};
use support::bulk::Bulk;
use support::certs;
use support::cluster::{Cluster, ClusterSpec};
use support::golden::Placeholders;
use support::kube::{self, OpenShift};

fn each_version(test: impl Fn(&EtcdBins)) {
    for bins in bins::require_all() {
        eprintln!("with etcd {}", bins.version);
        test(bins);
    }
}

#[test]
fn three_members_survive_kills() {
    each_version(|bins| {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3));
        let bulk = Bulk::new(500, 256);
        bulk.write(&cluster);
        let leader = cluster.leader().expect("a healthy cluster has a leader");
        cluster.kill(leader);
        assert!(!cluster.is_running(leader));
        cluster.wait_healthy();
        Bulk::new(50, 256).seeded(1).write(&cluster);
        cluster.restart(leader);
        // The one that was down has caught up: its own reads are linearizable.
        let output = cluster.etcdctl_on(leader, &["get", "--print-value-only", &Bulk::key(0)]);
        let mut expected = Bulk::new(50, 256).seeded(1).value(0);
        expected.push(b'\n');
        assert_eq!(output.stdout, expected);
        let kept = Bulk::new(500, 256).count_present(&cluster);
        assert_eq!(kept, 450, "500 written, of which 50 overwritten");
    });
}

#[test]
fn one_member_keeps_its_data_over_a_kill_and_refuses_strangers() {
    each_version(|bins| {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1));
        OpenShift::default().write(&cluster);
        cluster.restart(0);
        let stored = cluster.etcdctl_ok(&["get", "--print-value-only", kube::CLUSTER_VERSION_KEY]);
        let version: serde_json::Value =
            serde_json::from_str(&stored).expect("ClusterVersion is JSON");
        assert_eq!(version["status"]["desired"]["version"], "4.17.12");
        assert_eq!(version, OpenShift::default().cluster_version());

        let own = cluster.certs().expect("TLS is on");
        let scratch = cluster.scratch();
        for (stem, pair) in [
            ("stranger", certs::strangers_client()),
            ("expired", own.ca().expired_client()),
        ] {
            let files = pair.write(&scratch, stem);
            let output = cluster
                .etcdctl_command()
                .env("ETCDCTL_CERT", &files.cert)
                .env("ETCDCTL_KEY", &files.key)
                .args(["get", "x", "--command-timeout=3s"])
                .output()
                .expect("running etcdctl");
            assert!(!output.status.success(), "{stem} certificate was accepted");
        }
        // An expired certificate must be refused for its age, not for some other flaw.
        assert!(
            cluster.logs().contains("expired"),
            "the server says why:\n{}",
            cluster.logs()
        );
        let other_ca = certs::Ca::new("another-signer");
        let wrong_ca = scratch.join("wrong-ca.crt");
        support::process::write_private(&wrong_ca, other_ca.cert.as_bytes());
        let output = cluster
            .etcdctl_command()
            .env("ETCDCTL_CACERT", &wrong_ca)
            .args(["get", "x", "--command-timeout=3s"])
            .output()
            .expect("running etcdctl");
        assert!(
            !output.status.success(),
            "a server of another CA was trusted"
        );
    });
}

#[test]
fn a_paused_member_is_silent_until_resumed() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain());
    cluster.pause(0);
    let output = cluster.etcdctl(&["get", "x", "--command-timeout=1s"]);
    assert!(!output.status.success());
    cluster.resume(0);
    cluster.wait_healthy();
    cluster.stop(0);
    assert!(!cluster.is_running(0));
}

#[test]
fn a_further_member_can_join() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    let i = cluster.add_slot("master-9");
    cluster.etcdctl_on(0, &["get", "x"]);
    let peers = format!("--peer-urls={}", cluster.peer_url(i));
    let added = cluster.etcdctl_on(0, &["member", "add", "master-9", &peers]);
    assert!(added.status.success(), "{added:?}");
    let everyone = cluster.initial_cluster();
    cluster.launch(i, &everyone, "existing");
    cluster.wait_healthy();
    let members = cluster.etcdctl_ok(&["member", "list"]);
    assert!(members.contains("master-9"), "{members}");
}

#[test]
fn servers_end_with_the_thread_of_no_test() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    // Started by a thread that is gone: the server must live as long as the process all the same.
    let mut cluster = std::thread::spawn(move || Cluster::start(ClusterSpec::new(&bins, 1).fast()))
        .join()
        .expect("the cluster starts");
    std::thread::sleep(std::time::Duration::from_millis(300));
    cluster.wait_healthy();
    let root = cluster.node_root(0).to_owned();
    assert!(root.is_dir());
    drop(cluster);
    assert!(!root.exists(), "a cluster leaves nothing behind");
}

#[test]
fn placeholders_hide_what_differs_from_run_to_run() {
    let placeholders = Placeholders::default()
        .with("/tmp/x", "DIR")
        .with("/tmp/x/store", "STORE");
    assert_eq!(
        placeholders.apply(
            "/tmp/x/store/backup-12/snapshot_2026-11-21_061530.db of /tmp/x: 20.5 MiB, 4096 bytes, \
             member 8e9e05c52164694d at 2026-11-21T06:15:30.123456Z in 1.25s; revision 4711"
        ),
        "[STORE]/backup-12/snapshot_[STAMP].db of [DIR]: [SIZE], [SIZE], \
         member [ID] at [TIME] in [DURATION]; revision 4711"
    );
}

#[test]
fn placeholders_leave_words_alone() {
    let text = "a deadbeefdeadbeefdead 1.5x v3.5.16 4.17.12 cafe";
    assert_eq!(Placeholders::default().apply(text), text);
}
