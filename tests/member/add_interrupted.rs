//! Additions that fail, are stopped or are killed: the cluster is as before, or what remains is
//! reported, and the next run uses it.

use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::{Adding, Reaper, assert_same_data, listed, member};
use testbench::bins::{EtcdBins, require_turn};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::process::wait_for;

fn cluster(bins: &EtcdBins) -> Cluster {
    Cluster::start(ClusterSpec::new(bins, 3).fast())
}

/// Three members, a place for a fourth one that is not added yet, and its peer URL.
fn with_place(bins: &EtcdBins) -> (Cluster, usize, String) {
    let mut cluster = cluster(bins);
    let i = cluster.add_slot("m3");
    let url = cluster.peer_url(i);
    (cluster, i, url)
}

/// It never starts: time runs out, and it is removed again.
#[test]
fn an_addition_that_cannot_catch_up_is_undone() {
    for bins in require_turn() {
        let (mut cluster, i, url) = with_place(bins);
        let before = listed(&cluster);
        let args = [
            "member-add",
            "m3",
            "--peer-urls",
            &url,
            "--wait",
            "3s",
            "-o",
            "json",
        ];
        let run = member(&cluster, &args).expect(8);
        assert_eq!(run.json()["error"]["kind"], "rolled-back", "{run}");
        assert!(run.stderr.contains("m3 has not started"), "{run}");
        assert!(run.stderr.contains("was removed again"), "{run}");
        assert_eq!(listed(&cluster), before);
        // One that starts and freezes at once, likewise.
        let mut adding = Adding::start(&cluster, &["m3", "--peer-urls", &url, "--wait", "25s"]);
        let _reaper = Reaper(adding.pid());
        let initial_cluster = adding.initial_cluster();
        cluster.launch(i, &initial_cluster, "existing");
        cluster.pause(i);
        let (status, said) = adding.end();
        assert_eq!(status, Some(8), "{said}");
        cluster.kill(i);
        assert_eq!(listed(&cluster), before);
    }
}

/// Ctrl-C during the wait: removed again, and reported.
#[test]
fn an_interrupted_addition_is_undone() {
    for bins in require_turn() {
        let (cluster, _, url) = with_place(bins);
        let before = listed(&cluster);
        let mut adding = Adding::start(&cluster, &["m3", "--peer-urls", &url]);
        let _reaper = Reaper(adding.pid());
        adding.initial_cluster();
        assert_eq!(listed(&cluster).len(), 4);
        kill_process(adding.pid(), Signal::INT).expect("signalling etcd-dr");
        let (status, said) = adding.end();
        assert_eq!(status, Some(130), "{said}");
        assert!(said.contains("was removed again"), "{said}");
        assert_eq!(listed(&cluster), before);
    }
}

/// Killed after the addition: the next run of the same continues with the learner that is there; one
/// that gives up says what remains and how to remove it, for it was not the one that added it.
#[test]
fn a_killed_addition_is_continued_by_the_next() {
    for bins in require_turn() {
        let (mut cluster, i, url) = with_place(bins);
        let mut adding = Adding::start(&cluster, &["m3", "--peer-urls", &url]);
        adding.initial_cluster();
        kill_process(adding.pid(), Signal::KILL).expect("killing etcd-dr");
        assert_eq!(adding.end().0, None);
        assert_eq!(listed(&cluster).len(), 4);

        let args = [
            "member-add",
            "m3",
            "--peer-urls",
            &url,
            "--wait",
            "2s",
            "-o",
            "json",
        ];
        let run = member(&cluster, &args).expect(9);
        let id = run.json()["error"]["memberRemains"].clone();
        let id = id.as_str().expect("what remains");
        assert!(
            run.stderr
                .contains(&format!("etcd-dr --profile bare member-remove {id}")),
            "{run}"
        );
        assert_eq!(listed(&cluster).len(), 4);

        let mut adding = Adding::start(&cluster, &["m3", "--peer-urls", &url]);
        let _reaper = Reaper(adding.pid());
        let initial_cluster = adding.initial_cluster();
        cluster.launch(i, &initial_cluster, "existing");
        let (status, said) = adding.end();
        assert_eq!(status, Some(0), "{said}\n{}", cluster.logs());
        cluster.wait_healthy();
        assert_same_data(&cluster);
        assert!(listed(&cluster).contains(&("m3".into(), url.clone(), false)));
        // And again, when all is done.
        let args = ["member-add", "m3", "--peer-urls", &url, "-o", "json"];
        assert_eq!(member(&cluster, &args).expect(0).json()["result"], "votes");
    }
}

/// A removal that is killed at any time leaves a member that is there or gone; again, it is gone.
#[test]
fn a_killed_removal_is_finished_by_the_next() {
    let bins = testbench::bins::require_all();
    for (bins, after) in bins.iter().zip([5u64, 30, 120]) {
        let mut cluster = cluster(bins);
        cluster.kill(2);
        let mut child = testbench::golden::etcd_dr()
            .args(["--profile", "bare", "member-remove", "master-2", "--yes"])
            .envs(cluster.client_env())
            .spawn()
            .expect("starting etcd-dr");
        std::thread::sleep(Duration::from_millis(after));
        // It may have ended by then.
        let _ = child.kill();
        child.wait().expect("waiting for etcd-dr");
        let left = listed(&cluster).len();
        let run = member(
            &cluster,
            &["member-remove", "master-2", "--yes", "-o", "json"],
        );
        if left == 3 {
            run.expect(0);
        } else {
            assert_eq!(crate::refusal(run), "member-unknown");
        }
        wait_for("two members", Duration::from_secs(60), || {
            match listed(&cluster).len() {
                2 => Ok(()),
                more => Err(more),
            }
        })
        .unwrap_or_else(|error| panic!("{error}"));
    }
}
