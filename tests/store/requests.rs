//! Faults in single requests, and what the requests are.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::bench::{Bench, assert_none, assert_same_set, files_below, listed, place, run};
use crate::wire::{Act, Wire, s3_error};
use testbench::loopback::free_port;
use testbench::s3::{BUCKET, S3, SECRET_KEY, variables};

type Env = Vec<(&'static str, String)>;

/// Bytes of the snapshot in these tests: two parts.
const BIG: usize = (9 << 20) + 345;

fn with_patience(mut env: Env, patience: &str) -> Env {
    env.retain(|(name, _)| *name != "ETCD_DR_STORE_PATIENCE");
    env.push(("ETCD_DR_STORE_PATIENCE", patience.to_owned()));
    env
}

fn good() -> (String, String) {
    (format!("{}/backup-1", place()), "good".to_owned())
}

/// The records of arrival below a bucket's folder.
fn records(bucket: &Path, folder: &str) -> usize {
    let folder = bucket.join(folder);
    if !folder.is_dir() {
        return 0;
    }
    let files = files_below(&folder);
    let records = files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "done"));
    records.count()
}

/// Fetches a set and compares it with its source.
fn comes_back(url: &str, set: &Path, env: &Env) {
    let back = tempfile::tempdir().expect("a folder");
    let to = back.path().to_str().expect("UTF-8");
    run(&["copy", url, to], env).expect(0);
    assert_same_set(&back.path().join("backup-1"), set);
}

#[test]
fn a_failure_that_stays_at_each_request() {
    let Some(server) = S3::start() else { return };
    let bench = Bench::new();
    let set = bench.big_set(1, BIG);
    let direct = variables(server.address);
    let wire = Wire::start(server.address, Act::Pass);
    let whole = format!("s3://{BUCKET}/whole");
    bench
        .copy("backup-1", &whole, &[], &variables(wire.address))
        .expect(0);
    let kinds = wire.seen();
    println!("{} requests: {}", kinds.len(), kinds.join(" "));
    let is_manifest = |kind: &&str| *kind == "manifest";
    let manifest = kinds.iter().position(is_manifest).expect("a Manifest");
    let every = std::env::var_os("ETCD_DR_EVERY").is_some();
    let mut kept = 0;
    for at in 0..kinds.len() {
        for mode in (0..3).filter(|mode| every || at % 3 == *mode) {
            let url = format!("s3://{BUCKET}/stays-{at}-{mode}");
            let count = AtomicUsize::new(0);
            let wire = Wire::start(server.address, move |request| {
                if count.fetch_add(1, Ordering::SeqCst) < at {
                    return Act::Pass(request);
                }
                match mode {
                    0 => s3_error(500, "InternalError"),
                    1 => Act::Cut,
                    _ => Act::Deaf(request),
                }
            });
            let hurried = with_patience(variables(wire.address), "300ms");
            let failed = bench.copy("backup-1", &url, &[], &hurried);
            // Once the Manifest is there it is a backup, whatever answer the client got.
            let late = at > manifest || (at == manifest && mode == 2);
            match failed.status {
                Some(0) if at > manifest => {}
                Some(6) if late => assert_eq!(listed(&url, &direct), [good()], "{at} {mode}"),
                Some(6) => assert_none(&url, &direct, &format!("{at} {mode}")),
                _ => panic!("{at} {mode}: {failed}"),
            }
            let arrived = records(&server.bucket(), &format!("stays-{at}-{mode}"));
            let second = bench
                .copy("backup-1", &url, &["-o", "json"], &direct)
                .expect(0);
            let copy = &second.json()["copy"];
            if !late {
                assert_eq!(copy["resumed"], arrived, "{at} {mode}: {second}");
                kept += arrived;
            }
            assert_eq!(listed(&url, &direct), [good()], "{at} {mode}");
            comes_back(&format!("{url}/{}", good().0), &set, &direct);
        }
    }
    assert!(kept > 5, "only {kept} files needed no second transfer");
}

#[test]
fn temporary_failures_are_retried() {
    let Some(server) = S3::start() else { return };
    let bench = Bench::new();
    let set = bench.big_set(1, BIG);
    // Each request's first try fails.
    let seen = Mutex::new(HashSet::new());
    let wire = Wire::start(server.address, move |request| {
        let mut seen = seen.lock().expect("nobody panics with it");
        let key = (request.method.clone(), request.target.clone());
        let size = request.body.len();
        match seen.insert((key, size)) {
            true if seen.len() % 2 == 0 => s3_error(500, "InternalError"),
            true => s3_error(503, "SlowDown"),
            false => Act::Pass(request),
        }
    });
    let env = with_patience(variables(wire.address), "60s");
    let url = format!("s3://{BUCKET}/a");
    bench.copy("backup-1", &url, &[], &env).expect(0);
    comes_back(&format!("{url}/{}", good().0), &set, &env);

    let nowhere = variables(free_port());
    bench.copy("backup-1", &url, &[], &nowhere).expect(6);
    run(&["list", &url], &nowhere).expect(6);
}

#[test]
fn what_a_service_refuses_is_explained() {
    let Some(server) = S3::start() else { return };
    let bench = Bench::new();
    bench.set(1);
    let url = format!("s3://{BUCKET}/x");
    for (status, code, word) in [
        (403, "RequestTimeTooSkewed", "clock"),
        (403, "QuotaExceeded", "quota"),
        (507, "InsufficientStorage", "full"),
        (403, "ExpiredToken", "expired"),
        (503, "SlowDown", "503"),
    ] {
        let wire = Wire::start(server.address, move |_| s3_error(status, code));
        let env = with_patience(variables(wire.address), "300ms");
        for refused in [
            bench.copy("backup-1", &url, &["-v"], &env).expect(6),
            run(&["list", &url, "-o", "json"], &env).expect(6),
            run(&["verify", &format!("{url}/{}", good().0)], &env).expect(6),
            run(&["prune", &url, "--keep-last", "1", "--yes"], &env).expect(6),
        ] {
            let said = format!("{}{}", refused.stdout, refused.stderr);
            assert!(said.contains(word), "{code}: {said}");
            assert!(!said.contains(SECRET_KEY), "{said}");
        }
        assert_none(&url, &variables(server.address), code);
    }
}

/// A fake refuses one kind of request with what stands for a full disk, and for a bucket that is gone.
#[test]
fn each_kind_of_request_refused_for_good() {
    let Some(server) = S3::start() else { return };
    let bench = Bench::new();
    let set = bench.big_set(1, BIG);
    let direct = variables(server.address);
    for (status, code, word) in [
        (507, "InsufficientStorage", "full"),
        (404, "NoSuchBucket", "there is no such bucket"),
    ] {
        for kind in [
            "claim", "begin", "part", "complete", "put", "record", "index", "manifest",
        ] {
            let url = format!("s3://{BUCKET}/{kind}-{status}");
            let wire = Wire::start(server.address, move |request| match request.kind() {
                seen if seen == kind => s3_error(status, code),
                _ => Act::Pass(request),
            });
            let env = with_patience(variables(wire.address), "300ms");
            let failed = bench.copy("backup-1", &url, &[], &env).expect(6);
            assert!(failed.stderr.contains(word), "{kind}: {failed}");
            assert_none(&url, &direct, kind);
            bench.copy("backup-1", &url, &[], &direct).expect(0);
            comes_back(&format!("{url}/{}", good().0), &set, &direct);
        }
    }
}

#[test]
fn a_bucket_that_is_deleted_during_a_copy_is_an_error() {
    let Some(server) = S3::start() else { return };
    let bench = Bench::new();
    let set = bench.big_set(1, BIG);
    let (bucket, away) = (server.bucket(), server.root.join("away"));
    let (from, to) = (bucket.clone(), away.clone());
    // The last look before the Manifest finds no bucket.
    let looks = AtomicUsize::new(0);
    let wire = Wire::start(server.address, move |request| {
        if request.kind() == "list" && looks.fetch_add(1, Ordering::SeqCst) == 2 {
            std::fs::rename(&from, &to).expect("it goes");
        }
        Act::Pass(request)
    });
    let direct = variables(server.address);
    let url = format!("s3://{BUCKET}/x");
    let failed = bench
        .copy("backup-1", &url, &[], &variables(wire.address))
        .expect(6);
    assert!(
        failed.stderr.contains("there is no such bucket"),
        "{failed}"
    );
    let gone = run(&["list", &url], &direct).expect(6);
    assert!(gone.stderr.contains("there is no such bucket"), "{gone}");
    std::fs::rename(&away, &bucket).expect("it comes back");
    assert_none(&url, &direct, "a bucket that went");
    let second = bench
        .copy("backup-1", &url, &["-o", "json"], &direct)
        .expect(0);
    assert_eq!(second.json()["copy"]["sent"], 0, "{second}");
    comes_back(&format!("{url}/{}", good().0), &set, &direct);
}

/// Two different sets that want one number, with both looks at what is there before either claim.
pub fn two_lose_nothing(bucket: &str, server: &Wire, meeting: &Meeting) {
    let env = variables(server.address);
    for round in 0..4 {
        let url = format!("s3://{bucket}/two-{round}");
        let benches = [Bench::new(), Bench::new()];
        let mut sets = Vec::new();
        for (bench, more) in benches.iter().zip(0..) {
            sets.push(bench.big_set(1, 50_000 + more));
        }
        meeting.begin();
        let runs: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = benches
                .iter()
                .map(|bench| scope.spawn(|| bench.copy("backup-1", &url, &["-o", "json"], &env)))
                .collect();
            let runs = threads
                .into_iter()
                .map(|thread| thread.join().expect("a run"));
            runs.collect()
        });
        for (run, set) in runs.into_iter().zip(&sets) {
            let url = run.expect(0).json()["copy"]["url"]
                .as_str()
                .expect("a URL")
                .to_owned();
            comes_back(&url, set, &env);
        }
        let states: Vec<_> = listed(&url, &env)
            .into_iter()
            .map(|(_, state)| state)
            .collect();
        assert_eq!(states, ["good", "good"], "round {round}");
    }
}

/// Two that wait for each other once a round, for a while.
#[derive(Default)]
pub struct Meeting {
    here: Mutex<usize>,
    more: Condvar,
}

impl Meeting {
    /// Before a round.
    pub fn begin(&self) {
        *self.here.lock().expect("nobody panics with it") = 0;
    }

    /// Comes, and waits for the other.
    pub fn come(&self) {
        let mut here = self.here.lock().expect("nobody panics with it");
        *here += 1;
        self.more.notify_all();
        let wait = Duration::from_secs(10);
        let met = self.more.wait_timeout_while(here, wait, |here| *here < 2);
        drop(met.expect("nobody panics with it"));
    }
}

#[test]
fn two_sets_that_want_one_number() {
    let Some(server) = S3::start() else { return };
    let meeting = Arc::new(Meeting::default());
    let met = Arc::clone(&meeting);
    let wire = Wire::start(server.address, move |request| {
        if request.kind() == "claim" {
            met.come();
        }
        Act::Pass(request)
    });
    two_lose_nothing(BUCKET, &wire, &meeting);
}

/// A fake: what stands before the server takes the condition away from each request (and the
/// signature with it, so that the server is one that asks for none).
#[test]
fn two_sets_on_a_server_that_ignores_conditions() {
    let Some(server) = S3::anonymous() else {
        return;
    };
    let meeting = Arc::new(Meeting::default());
    let met = Arc::clone(&meeting);
    let ignored = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ignored);
    let wire = Wire::start(server.address, move |mut request| {
        request.take("authorization");
        if request.take("if-none-match").is_some() {
            count.fetch_add(1, Ordering::SeqCst);
        }
        if request.kind() == "claim" {
            met.come();
        }
        Act::Pass(request)
    });
    two_lose_nothing(BUCKET, &wire, &meeting);
    assert!(
        ignored.load(Ordering::SeqCst) >= 16,
        "each claim and Manifest has a condition"
    );
}
