//! Learners that are slow, and the request to stop at any moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::replace_under_load::Writer;
use crate::{Adding, assert_same_data, listed, member};
use testbench::bins::{EtcdBins, require_turn};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::Run;
use testbench::process::wait_for;

/// Writers at once, of small values.
const WRITERS: usize = 36;

/// Three members and a learner that is far behind: it has started, and was frozen while much was
/// written. A learner that starts for the first time applies what was committed before it asked to
/// be known, and only then answers; so none is ever seen behind on a quiet cluster. None of it may
/// come by a snapshot, which would bring all at once; and without TLS, whose handshakes a process
/// that hardly runs does not get done in time.
struct Behind {
    cluster: Cluster,
    /// The members before it was added.
    before: Vec<(String, String, bool)>,
    learner: usize,
    url: String,
    writers: Vec<Writer>,
}

impl Behind {
    fn make(bins: &EtcdBins) -> Self {
        let mut spec = ClusterSpec::new(bins, 3).fast().plain();
        spec.snapshot_count = 1_000_000;
        let mut cluster = Cluster::start(spec);
        let before = listed(&cluster);
        let writers = load(&cluster);
        let learner = cluster.add_slot("m3");
        let url = cluster.peer_url(learner);
        let args = ["member-add", "m3", "--peer-urls", &url, "--no-promote"];
        member(&cluster, &args).expect(0);
        let everyone = cluster.initial_cluster();
        cluster.launch(learner, &everyone, "existing");
        let answers = || {
            let output = cluster.etcdctl_on(learner, &["endpoint", "status"]);
            if output.status.success() {
                Ok(())
            } else {
                Err("no answer")
            }
        };
        wait_for("the learner to answer", Duration::from_secs(60), answers)
            .unwrap_or_else(|error| panic!("{error}"));
        cluster.pause(learner);
        std::thread::sleep(Duration::from_secs(10));
        Self {
            cluster,
            before,
            learner,
            url,
            writers,
        }
    }

    fn quiet(&mut self) {
        self.writers.drain(..).for_each(|writer| drop(writer.end()));
    }
}

/// Writes to all of them, each write an entry of the log.
fn load(cluster: &Cluster) -> Vec<Writer> {
    let writer = |n: usize| Writer::start(cluster, n % cluster.size());
    (0..WRITERS).map(writer).collect()
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

/// At first it is far behind and reported so; it is promoted only once it has caught up.
#[test]
fn a_slow_learner_is_waited_for() {
    for bins in require_turn() {
        let mut behind = Behind::make(bins);
        behind.quiet();
        let Behind {
            mut cluster,
            learner,
            url,
            ..
        } = behind;
        let run = slowed(&cluster, learner, (20, 200), || {
            let args = ["member-add", "m3", "--peer-urls", &url];
            let more = ["--wait", "3m", "--progress", "json"];
            member_of_three(&cluster, &[args, more].concat())
        })
        .expect(0);
        let lags = lags(&run.stderr);
        println!("etcd {}: behind by {lags:?}", bins.version);
        assert!(lags.iter().any(|behind| *behind > 1000), "{run}");
        assert!(
            run.stdout.contains("has caught up and was promoted"),
            "{run}"
        );
        cluster.wait_healthy();
        assert_same_data(&cluster);
        assert!(listed(&cluster).contains(&("m3".into(), url, false)));
    }
}

/// Runs against the members that were there before the learner, which may answer late.
fn member_of_three(cluster: &Cluster, args: &[&str]) -> Run {
    let urls: Vec<String> = (0..3).map(|i| cluster.client_url(i)).collect();
    let urls = urls.join(",");
    member(cluster, &[args, &["--endpoints", &urls]].concat())
}

/// It does not catch up in time: `verify --cluster` names it, the bound ends the wait, and what
/// remains is reported with the command that removes it.
#[test]
fn the_wait_for_a_slow_learner_ends_at_its_limit() {
    for bins in require_turn() {
        let mut behind = Behind::make(bins);
        let (cluster, url) = (&behind.cluster, &behind.url);
        let ended = slowed(cluster, behind.learner, (20, 200), || {
            let named = wait_for("the lag to be told", Duration::from_secs(90), || {
                let run = member_of_three(cluster, &["verify", "--cluster", "-o", "json"]);
                let named = run.stdout.contains("\"learner-lags\"");
                if named { Ok(run) } else { Err(run) }
            });
            let named = named.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(named.status, Some(11), "{named}");
            let next = format!("etcd-dr member-add m3 --peer-urls {url}");
            assert!(named.stdout.contains(&next), "{named}");
            let args = ["member-add", "m3", "--peer-urls", url];
            let more = ["--wait", "2s", "-o", "json"];
            member_of_three(cluster, &[&args[..], &more].concat())
        });
        behind.quiet();
        behind.cluster.kill(behind.learner);
        if ended.status == Some(0) {
            println!("etcd {}: it caught up all the same", bins.version);
            continue;
        }
        let ended = ended.expect(9);
        assert!(
            ended.stderr.contains("did not catch up within 2 s"),
            "{ended}"
        );
        let id = ended.json()["error"]["memberRemains"].clone();
        let id = id.as_str().expect("what remains");
        let hint = format!(" member-remove {id}\n");
        assert!(ended.stderr.contains(&hint), "{ended}");
        let words = ["member-remove", id, "--yes"];
        member(&behind.cluster, &words).expect(0);
        assert_eq!(listed(&behind.cluster), behind.before);
    }
}

/// Ctrl-C at any moment of an addition: nothing is added, or it is removed again.
#[test]
fn an_addition_interrupted_at_any_moment_is_undone() {
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
