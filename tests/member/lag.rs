//! Learners that are slow, and the wish to stop at any moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::Client;
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::checkup::look;
use crate::support::bins::{EtcdBins, require_turn};
use crate::support::bulk::block_on;
use crate::support::cluster::{Cluster, ClusterSpec};
use crate::support::golden::run;
use crate::support::process::wait_for;
use crate::{Adding, Reaper, assert_same_data, listed, member};

/// Entries of the log: fewer than lead to a snapshot, which would bring them all at once.
const ENTRIES: usize = 6000;

/// Three members with a log that is long, each put an entry.
fn busy(bins: &EtcdBins) -> Cluster {
    let cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
    block_on(async {
        let client = cluster.client().await;
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..24 {
            let client: Client = client.clone();
            tasks.spawn(async move {
                let mut kv = client.kv_client();
                for i in 0..ENTRIES / 24 {
                    let key = format!("/long/{writer}/{i}");
                    kv.put(key, vec![b'x'; 4000], None).await.expect("writing");
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("a writer");
        }
    });
    cluster
}

/// Does something while a member runs only for `runs` of every `of` milliseconds.
fn slowed<T>(cluster: &Cluster, i: usize, (runs, of): (u64, u64), work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let throttle = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                cluster.pause(i);
                std::thread::sleep(Duration::from_millis(of - runs));
                cluster.resume(i);
                std::thread::sleep(Duration::from_millis(runs));
            }
        });
        let came = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        throttle.join().expect("the throttle");
        came.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What the lines of a wait said of how far it was behind.
fn lags(said: &str) -> Vec<u64> {
    said.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == "phase-status")
        .filter_map(|event| {
            let message = event["message"].as_str()?.to_owned();
            let (before, after) = message.split_once(" raft entries behind (")?;
            assert!(
                after.contains(" of ") && after.contains(" a second"),
                "{message}"
            );
            assert!(after.contains(" s left"), "{message}");
            before.rsplit(' ').next()?.parse().ok()
        })
        .collect()
}

/// It is far behind at first, told to be, and promoted only once it is not.
#[test]
fn a_slow_learner_is_waited_for() {
    for bins in require_turn() {
        let mut cluster = busy(bins);
        let i = cluster.add_slot("m3");
        let url = cluster.peer_url(i);
        let args = [
            "m3",
            "--peer-urls",
            &url,
            "--wait",
            "3m",
            "--progress",
            "json",
        ];
        let mut adding = Adding::start(&cluster, &args);
        let _reaper = Reaper(adding.pid());
        let initial_cluster = adding.initial_cluster();
        cluster.launch(i, &initial_cluster, "existing");
        let (status, said) = slowed(&cluster, i, (40, 200), || adding.end());
        assert_eq!(status, Some(0), "{said}\n{}", cluster.logs());
        let lags = lags(&said);
        let (first, last) = (lags.first().copied(), lags.last().copied());
        println!("etcd {}: behind by {lags:?}", bins.version);
        assert!(first > last, "{said}");
        assert!(last.expect("a lag") <= 1000, "{said}");
        assert!(said.contains("has caught up and votes"), "{said}");
        cluster.wait_healthy();
        assert_same_data(&cluster);
        assert!(listed(&cluster).contains(&("m3".into(), url, false)));
    }
}

/// It does not catch up in time: `verify --cluster` names it, and the bound ends the wait. One that
/// this run has added is removed; of one that was there before the command that removes it is told.
#[test]
fn the_bound_ends_the_wait_for_a_slow_one() {
    for bins in require_turn() {
        let mut cluster = busy(bins);
        let before = listed(&cluster);
        let i = cluster.add_slot("m3");
        let url = cluster.peer_url(i);
        let args = [
            "m3",
            "--peer-urls",
            &url,
            "--wait",
            "6s",
            "--progress",
            "json",
        ];
        let mut adding = Adding::start(&cluster, &args);
        let _reaper = Reaper(adding.pid());
        let initial_cluster = adding.initial_cluster();
        cluster.launch(i, &initial_cluster, "existing");
        let (status, said) = slowed(&cluster, i, (4, 400), || adding.end());
        assert_eq!(status, Some(8), "{said}");
        assert!(said.contains("did not catch up within 6 s"), "{said}");
        assert!(said.contains("was removed again"), "{said}");
        cluster.kill(i);
        cluster.wipe(i);
        assert_eq!(listed(&cluster), before);

        let args = ["member-add", "m3", "--peer-urls", &url];
        member(&cluster, &[&args[..], &["--no-promote"]].concat()).expect(0);
        cluster.launch(i, &initial_cluster, "existing");
        let run_again = slowed(&cluster, i, (12, 300), || {
            let named = wait_for("the lag to be told", Duration::from_secs(40), || {
                let run = look(&cluster, &["--endpoints", &cluster.client_url(0)]);
                let named = run.stdout.contains("\"learner-lags\"");
                if named { Ok(run) } else { Err(run) }
            });
            let named = named.unwrap_or_else(|error| panic!("{error}"));
            let next = format!("etcd-dr member-add m3 --peer-urls {url}");
            assert!(named.stdout.contains(&next), "{named}");
            member(
                &cluster,
                &[&args[..], &["--wait", "2s", "-o", "json"]].concat(),
            )
        });
        cluster.kill(i);
        if run_again.status == Some(9) {
            let error = &run_again.json()["error"];
            let id = error["memberRemains"].as_str().expect("what remains");
            let hint = format!("etcd-dr member-remove {id}");
            assert!(run_again.stderr.contains(&hint), "{run_again}");
            let mut words: Vec<&str> = hint.split(' ').skip(1).collect();
            words.extend(["--profile", "bare", "--yes"]);
            run(&words, &cluster.client_env()).expect(0);
            assert_eq!(listed(&cluster), before);
        } else {
            // It has caught up after all, on a machine that is quick.
            run_again.expect(0);
        }
    }
}

/// Ctrl-C at any moment of an addition: nothing is added, or it is removed again.
#[test]
fn stopped_at_any_moment_it_is_as_before() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        let before = listed(&cluster);
        let i = cluster.add_slot("m3");
        let url = cluster.peer_url(i);
        for after in [30, 60, 90, 130, 200, 300, 500, 900, 1500] {
            let adding = Adding::start(&cluster, &["m3", "--peer-urls", &url]);
            std::thread::sleep(Duration::from_millis(after));
            kill_process(adding.pid(), Signal::INT).expect("signalling etcd-dr");
            let (status, said) = adding.end();
            // Before it listens for signals, one ends it at once.
            let logs = cluster.logs();
            assert!(
                matches!(status, Some(130) | None),
                "{after} ms: {status:?} {said}\n{logs}"
            );
            assert_eq!(listed(&cluster), before, "{after} ms: {status:?} {said}");
        }
    }
}
