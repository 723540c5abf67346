//! Rounds of load and kill.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::bench::{
    Chain, Chains, Random, client, copy, etcd_dr, fingerprint, heads, lengthen, lost, make,
    members, request, runtime, serve, serve_on,
};
use testbench::bins::{EtcdBins, require_turn};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::loopback::Loopback;
use testbench::process::wait_for;
use testbench::same::assert_same_data;

/// Chains a round.
const CHAINS: usize = 6;

/// What the rounds came to.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    acknowledged: u64,
    /// Rounds whose survivor had entries beyond its own commit index.
    with_tail: u64,
    lost: u64,
    /// Lost by `--force-new-cluster`, and in how many rounds.
    force_lost: u64,
    force_rounds: u64,
}

fn rounds(releases: usize) -> usize {
    let asked = std::env::var("ETCD_DR_ROUNDS").ok();
    match asked.and_then(|text| text.parse::<usize>().ok()) {
        Some(all) => all.div_ceil(releases.max(1)),
        None => 2,
    }
}

/// Puts load on a cluster and kills all of it at a random moment.
fn load_and_kill(cluster: &mut Cluster, chains: &Chains, random: &mut Random) {
    let runtime = runtime();
    let stop = Arc::new(AtomicBool::new(false));
    let work: Vec<_> = (0..CHAINS)
        .map(|i| {
            let (chains, stop) = (chains.clone(), stop.clone());
            let client = runtime.block_on(client(cluster, i % cluster.size()));
            runtime.spawn(lengthen(client, format!("c{i}"), chains, stop))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200 + random.below(1500)));
    let mut order: Vec<usize> = (0..cluster.size()).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    for i in order {
        cluster.kill(i);
        std::thread::sleep(Duration::from_millis(random.below(25)));
    }
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for one in work {
            one.await.unwrap();
        }
    });
}

/// Asks each disk, and names the best: which member it is, and its report.
fn choose(cluster: &Cluster, scratch: &Path) -> (usize, serde_json::Value) {
    let mut files = Vec::new();
    let mut reports = Vec::new();
    for i in 0..cluster.size() {
        let dir = cluster.data_dir(i).to_str().unwrap();
        let run = etcd_dr(&[
            "verify",
            "--data-dir",
            dir,
            "-o",
            "json",
            "--store",
            "/none",
        ]);
        assert_eq!(run.status, Some(0), "{}\n{}", run.stdout, run.stderr);
        let file = scratch.join(format!("{i}.json"));
        std::fs::write(&file, &run.stdout).unwrap();
        reports.push(run.json());
        files.push(file.to_str().unwrap().to_owned());
    }
    let mut args = vec!["verify", "--compare"];
    args.extend(files.iter().map(String::as_str));
    args.extend(["-o", "json"]);
    let verdict = etcd_dr(&args);
    assert_eq!(
        verdict.status,
        Some(0),
        "{}\n{}",
        verdict.stdout,
        verdict.stderr
    );
    let verdict = verdict.json();
    assert_eq!(verdict["mayLackWrites"], false, "{verdict}");
    let best = &verdict["ranking"][0];
    let end = |report: &serde_json::Value| {
        let wal = &report["wal"];
        (wal["lastTerm"].as_u64(), wal["lastIndex"].as_u64())
    };
    let highest = reports.iter().map(end).max().unwrap();
    let i = reports
        .iter()
        .position(|report| report["member"]["id"] == best["id"])
        .unwrap();
    assert_eq!(end(&reports[i]), highest, "{verdict}");
    assert_eq!(
        reports[i]["membership"].as_array().unwrap().len(),
        cluster.size()
    );
    (i, reports.swap_remove(i))
}

/// One round on a running cluster, which is down afterwards.
fn round(cluster: &mut Cluster, chains: &Chains, random: &mut Random, tally: &mut Tally) {
    let before: BTreeMap<String, Chain> = chains.lock().unwrap().clone();
    load_and_kill(cluster, chains, random);
    let known = chains.lock().unwrap().clone();
    let sum = |chains: &BTreeMap<String, Chain>| -> u64 {
        chains.values().map(|chain| chain.acknowledged).sum()
    };
    tally.rounds += 1;
    tally.acknowledged += sum(&known) - sum(&before);
    let scratch = tempfile::tempdir().unwrap();
    let (i, report) = choose(cluster, scratch.path());
    let bins = cluster.bins().clone();
    let name = cluster.name(i).to_owned();
    let runtime = runtime();

    let forced = scratch.path().join("forced");
    copy(cluster.data_dir(i), &forced);
    let server = serve(&bins, &name, &forced, &["--force-new-cluster"]);
    let there = runtime.block_on(async { heads(&mut client(&server, 0).await).await });
    let gone = lost(&known, &there);
    tally.force_lost += gone;
    tally.force_rounds += u64::from(gone > 0);
    drop(server);

    let made = scratch.path().join("made");
    let untouched = fingerprint(cluster.data_dir(i));
    let outcome = make(&request(cluster.data_dir(i), &made)).unwrap();
    assert_eq!(
        fingerprint(cluster.data_dir(i)),
        untouched,
        "the source was written to"
    );
    tally.with_tail += u64::from(outcome.tail_uncommitted > 0);
    let mut server = serve(&bins, &name, &made, &[]);
    let there = runtime.block_on(async { heads(&mut client(&server, 0).await).await });
    tally.lost += lost(&known, &there);
    // How far the log leads was reported before.
    let revision = server.revision(0);
    let at_most = report["revisions"]["atMost"].as_i64().unwrap();
    let database = report["revisions"]["database"].as_i64().unwrap();
    assert!(
        database <= revision && revision <= at_most,
        "{database} {revision} {at_most}"
    );
    let alone = members(&server);
    assert_eq!(alone.0.len(), 1);
    assert_eq!(format!("{:x}", alone.0[0]), outcome.member.id);
    assert_eq!(format!("{:x}", alone.1), outcome.cluster_id);
    assert_ne!(outcome.cluster_id, outcome.former_cluster_id);

    // It stays the same over an orderly end and a kill.
    server.stop(0);
    server.relaunch_stopped();
    server.wait_healthy();
    server.restart(0);
    assert_eq!(members(&server), alone);
    assert_eq!(server.revision(0), revision);
    let again = runtime.block_on(async { heads(&mut client(&server, 0).await).await });
    assert_eq!(again, there);
    drop(server);
    raised(cluster, i, scratch.path(), &there, revision);
}

/// The same disk with the tail applied here and the revision raised: the same data.
fn raised(
    cluster: &Cluster,
    i: usize,
    scratch: &Path,
    there: &BTreeMap<String, u64>,
    revision: i64,
) {
    let made = scratch.join("raised");
    let mut wanted = request(cluster.data_dir(i), &made);
    wanted.options.bump = None;
    let outcome = make(&wanted).unwrap();
    // What etcd made of the tail, and what was made of it here.
    assert_eq!(outcome.applied_revision, Some(revision));
    assert!(outcome.bumped && outcome.revision > revision + 999_999_999);
    let mut server = serve(cluster.bins(), cluster.name(i), &made, &[]);
    for _ in 0..2 {
        let heads = runtime().block_on(async { heads(&mut client(&server, 0).await).await });
        assert_eq!(&heads, there);
        assert_eq!(server.revision(0), outcome.revision);
        assert_eq!(members(&server).0.len(), 1);
        let old = server.etcdctl(&["get", "/", "--rev", &revision.to_string()]);
        let told = String::from_utf8_lossy(&old.stderr).into_owned();
        assert!(told.contains("has been compacted"), "{told}");
        server.restart(0);
    }
}

fn chaos(bins: &EtcdBins, rounds: usize, seed: u64) -> Tally {
    let mut random = Random(seed);
    let mut spec = ClusterSpec::new(bins, 3).plain();
    // Snapshots and new terms come by while the rounds continue.
    spec.snapshot_count = 700;
    let mut cluster = Cluster::start(spec);
    let chains = Chains::default();
    let mut tally = Tally::default();
    for number in 0..rounds {
        if number > 0 {
            cluster.relaunch_stopped();
            cluster.wait_healthy();
            // What was not answered has been decided by now.
            let runtime = runtime();
            let there = runtime.block_on(async { heads(&mut client(&cluster, 0).await).await });
            for (name, chain) in chains.lock().unwrap().iter_mut() {
                chain.acknowledged = there.get(name).copied().unwrap_or(0);
                chain.attempted = chain.acknowledged;
            }
        }
        round(&mut cluster, &chains, &mut random, &mut tally);
    }
    println!("{}: {tally:?}", bins.version);
    tally
}

#[test]
fn no_acknowledged_write_is_lost() {
    let releases = require_turn();
    let rounds = rounds(releases.len());
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for bins in releases {
        seed ^= u64::from(std::process::id()) << 20;
        let tally = chaos(bins, rounds, seed);
        assert_eq!(tally.lost, 0, "{}: {tally:?}", bins.version);
        assert!(tally.acknowledged > 0, "{}: {tally:?}", bins.version);
    }
}

/// A cluster whose load is over: three disks, and what was acknowledged.
pub(crate) fn killed(bins: &EtcdBins, seed: u64) -> (Cluster, BTreeMap<String, Chain>) {
    let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).plain());
    let chains = Chains::default();
    load_and_kill(&mut cluster, &chains, &mut Random(seed));
    let known = chains.lock().unwrap().clone();
    (cluster, known)
}

#[test]
fn two_new_members_join_and_the_old_ones_never_come_back() {
    for bins in require_turn() {
        let what = &bins.version;
        let (mut old, known) = killed(bins, 0x1234_5678_9abc);
        let scratch = tempfile::tempdir().unwrap();
        let (i, _) = choose(&old, scratch.path());
        let made: PathBuf = scratch.path().join("made");
        let network = Loopback::reserve();
        let url = format!("http://{}:2380", network.ip(0));
        let mut wanted = request(old.data_dir(i), &made);
        wanted.peer_urls = Some(url.clone());
        wanted.name = Some(old.name(i).to_owned());
        // As `restore` does by default. The log goes back to its beginning: a member that joins must get
        // what the revision was raised in, not only the log.
        wanted.options.bump = None;
        let outcome = make(&wanted).unwrap();
        assert!(outcome.bumped, "{what}");
        assert_eq!(
            outcome.member.peer_urls,
            std::slice::from_ref(&url),
            "{what}"
        );
        assert_eq!(outcome.removed.len(), 2);
        let mut server = serve_on(network, bins, old.name(i), &made, &[]);
        let list = server.etcdctl_ok(&["member", "list"]);
        assert!(list.contains(&url), "{what}: {list}");
        for name in ["new-1", "new-2"] {
            let new = server.add_slot(name);
            let peer = server.peer_url(new);
            // A member counts as healthy when it has been connected for five seconds.
            let add = ["member", "add", name, &format!("--peer-urls={peer}")];
            wait_for(
                "the new member to be taken",
                Duration::from_secs(60),
                || {
                    let output = server.etcdctl(&add);
                    match output.status.success() {
                        true => Ok(()),
                        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
                    }
                },
            )
            .unwrap();
            let all = server.initial_cluster();
            server.launch(new, &all, "existing");
            server.wait_member(new);
        }
        let runtime = runtime();
        for member in 0..server.size() {
            let there = runtime.block_on(async { heads(&mut client(&server, member).await).await });
            assert_eq!(lost(&known, &there), 0, "{what}");
            assert_eq!(server.revision(member), outcome.revision, "{what}");
        }
        assert_same_data(&server);
        // The two that were left behind are their own majority, and continue as such: neither
        // side takes anything from the other.
        let revision = server.revision(0);
        for other in (0..old.size()).filter(|other| *other != i) {
            let join = old.initial_cluster();
            old.launch(other, &join, "existing");
        }
        for other in (0..old.size()).filter(|other| *other != i) {
            old.wait_member(other);
        }
        let url = old.client_url((i + 1) % 3);
        old.etcdctl_command()
            .env("ETCDCTL_ENDPOINTS", url)
            .args(["put", "stale", "x"])
            .output()
            .unwrap();
        assert_eq!(server.revision(0), revision, "{what}");
        let got = server.etcdctl_ok(&["get", "stale"]);
        assert_eq!(got.trim(), "", "{what}");
        let ids = members(&server).0;
        for gone in &outcome.removed {
            let id = u64::from_str_radix(&gone.id, 16).unwrap();
            assert!(!ids.contains(&id), "{what}");
        }
        // A restart of the whole cluster keeps all of that.
        for member in 0..server.size() {
            server.kill(member);
        }
        server.relaunch_stopped();
        server.wait_healthy();
        assert_eq!(members(&server).0, ids, "{what}");
    }
}
