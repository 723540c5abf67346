//! Any revision since the compaction: the restored store is what the server had at it.

use std::path::PathBuf;

use serde_json::Value;

use crate::bench::{Past, Random, cluster, hash_kv, kvs, restore, save, serve, text, work};
use testbench::bins::{EtcdBins, require_all};
use testbench::cluster::Cluster;
use testbench::golden;
use testbench::loopback::Loopback;

/// Revisions asked of each server.
const ASKED: usize = 12;

/// Revisions above the compaction, the first and the last among them.
fn revisions(random: &mut Random, cluster: &Cluster, compacted: i64) -> Vec<i64> {
    let now = cluster.revision(0);
    let mut asked = vec![compacted + 1, now];
    while asked.len() < ASKED {
        asked.push(compacted + 1 + random.below((now - compacted) as u64) as i64);
    }
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// Where a snapshot is compacted, as the refusal of an impossible revision says.
fn compacted(snapshot: &std::path::Path) -> i64 {
    let dir = tempfile::tempdir().unwrap();
    let refused = restore(snapshot, &dir.path().join("d"), &["--to-revision", "1"]).expect(5);
    let message = refused.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_, rest) = message.split_once("revisions ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

fn leases(cluster: &Cluster) -> Vec<i64> {
    let listed = cluster.etcdctl_ok(&["lease", "list"]);
    let ids = listed
        .lines()
        .filter_map(|line| i64::from_str_radix(line, 16).ok());
    ids.collect()
}

/// A server on what was restored, without a bump: it has the keys, the leases and HashKV of then.
fn started(bins: &EtcdBins, data_dir: PathBuf, network: Loopback, revision: i64, past: &Past) {
    let restored = serve(bins, network, &[("default".to_owned(), data_dir)]);
    assert_eq!(restored.revision(0), revision);
    assert_eq!(kvs(&restored, None), past.kvs, "revision {revision}");
    assert_eq!(
        hash_kv(&restored, revision),
        past.hash,
        "revision {revision}"
    );
    let there = leases(&restored);
    for lease in past.leases() {
        assert!(there.contains(&lease), "lease {lease:x} of {there:x?}");
    }
    let users = restored.etcdctl_ok(&["user", "list"]);
    assert_eq!(users.trim(), "somebody");
    // It accepts writes, and counts on from there.
    restored.etcdctl_ok(&["put", "after", "1"]);
    assert_eq!(restored.revision(0), revision + 1);
}

fn one_member(bins: &EtcdBins, seed: u64) {
    let mut random = Random(seed);
    let cluster = cluster(bins, 1);
    cluster.etcdctl_ok(&["user", "add", "somebody:secret"]);
    work(&cluster, &mut random, 250, 250);
    let snapshot = save(&cluster);
    let compacted = compacted(&snapshot);
    let asked = revisions(&mut random, &cluster, compacted);
    let dir = tempfile::tempdir().unwrap();
    for (i, revision) in asked.iter().enumerate() {
        let past = Past::of(&cluster, *revision);
        let data_dir = dir.path().join(format!("d{revision}"));
        let network = Loopback::reserve();
        let url = format!("http://{}:2380", network.ip(0));
        let initial = format!("default={url}");
        let to = revision.to_string();
        let mut args = vec!["--to-revision", &to, "--bump-revision", "0"];
        args.extend([
            "--initial-cluster",
            &initial,
            "--initial-cluster-token",
            "T",
        ]);
        args.extend(["--initial-advertise-peer-urls", &url]);
        if i % 2 == 1 {
            args.push("--compact");
        }
        let made = restore(&snapshot, &data_dir, &args).expect(0).json();
        assert_eq!(made["revision"], *revision);
        assert_eq!(made["moment"]["revision"], *revision);
        assert_eq!(made["moment"]["hashKv"], past.hash, "revision {revision}");
        let count = past.kvs.as_array().map_or(0, Vec::len);
        assert_eq!(made["keys"], count, "revision {revision}");
        golden::run(&["verify", "--data-dir", &text(&data_dir)], &[]).expect(0);
        if i % 4 == 0 || i + 1 == asked.len() {
            started(bins, data_dir, network, *revision, &past);
        }
    }
}

#[test]
fn every_revision_of_one_member() {
    for (i, bins) in require_all().iter().enumerate() {
        one_member(bins, 11 + i as u64);
    }
}

/// The compact revision itself is still there: etcd keeps what was alive at it.
#[test]
fn the_compact_revision_is_the_first_that_is_reached() {
    for bins in require_all() {
        let mut random = Random(5);
        let cluster = cluster(bins, 1);
        work(&cluster, &mut random, 120, 60);
        let snapshot = save(&cluster);
        let compacted = compacted(&snapshot);
        let then = kvs(&cluster, Some(compacted));
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("d");
        let to = compacted.to_string();
        let args = ["--to-revision", to.as_str(), "--bump-revision", "0"];
        let made = restore(&snapshot, &data_dir, &args).expect(0).json();
        assert_eq!(made["revision"], compacted);
        let count = then.as_array().map_or(0, Vec::len);
        assert_eq!(made["keys"], count);
    }
}

/// Each of three members is restored to the same revision, with a bump; together they serve it.
#[test]
fn three_members_at_one_revision() {
    for bins in require_all().iter().rev().step_by(2) {
        let mut random = Random(77);
        let cluster = cluster(bins, 3);
        work(&cluster, &mut random, 150, 150);
        let snapshot = save(&cluster);
        let compacted = compacted(&snapshot);
        let now = cluster.revision(0);
        let revision = compacted + 1 + random.below((now - compacted) as u64) as i64;
        let past = Past::of(&cluster, revision);
        let dir = tempfile::tempdir().unwrap();
        let network = Loopback::reserve();
        let names = ["a", "b", "c"];
        let url = |i: usize| format!("http://{}:2380", network.ip(i));
        let initial: Vec<String> = (0..3).map(|i| format!("{}={}", names[i], url(i))).collect();
        let initial = initial.join(",");
        let mut members = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let data_dir = dir.path().join(name);
            let (to, url) = (revision.to_string(), url(i));
            let args = [
                "--to-revision",
                &to,
                "--bump-revision",
                "1000000",
                "--mark-compacted",
                "--name",
                name,
                "--initial-cluster",
                &initial,
                "--initial-cluster-token",
                "T",
                "--initial-advertise-peer-urls",
                &url,
            ];
            let made = restore(&snapshot, &data_dir, &args).expect(0).json();
            assert_eq!(made["revision"], revision + 1_000_000);
            assert_eq!(made["moment"]["hashKv"], past.hash);
            members.push(((*name).to_owned(), data_dir));
        }
        let restored = serve(bins, network, &members);
        assert_eq!(restored.revision(0), revision + 1_000_000);
        assert_eq!(kvs(&restored, None), past.kvs);
        restored.etcdctl_ok(&["put", "after", "1"]);
        testbench::same::assert_same_data(&restored);
    }
}

/// A key whose lease was revoked later comes back with a lease, and expires; one whose lease is still
/// there stays. A lease that was granted later has no key.
#[test]
fn keys_with_leases_expire_after_the_restore() {
    for bins in require_all() {
        let cluster = cluster(bins, 1);
        let grant = |ttl: &str| {
            let granted = cluster.etcdctl_ok(&["lease", "grant", ttl, "-w", "json"]);
            let granted: Value = serde_json::from_str(&granted).unwrap();
            format!("{:x}", granted["ID"].as_i64().unwrap())
        };
        let (gone, kept) = (grant("36000"), grant("36000"));
        cluster.etcdctl_ok(&["put", "/a/gone", "1", &format!("--lease={gone}")]);
        cluster.etcdctl_ok(&["put", "/a/kept", "1", &format!("--lease={kept}")]);
        let revision = cluster.revision(0);
        cluster.etcdctl_ok(&["lease", "revoke", &gone]);
        let later = grant("36000");
        cluster.etcdctl_ok(&["put", "/a/later", "1", &format!("--lease={later}")]);
        let snapshot = save(&cluster);
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("d");
        let network = Loopback::reserve();
        let url = format!("http://{}:2380", network.ip(0));
        let (to, initial) = (revision.to_string(), format!("default={url}"));
        let args = [
            "--to-revision",
            to.as_str(),
            "--initial-cluster",
            &initial,
            "--initial-advertise-peer-urls",
            &url,
        ];
        let made = restore(&snapshot, &data_dir, &args).expect(0).json();
        let notes = made["notes"].to_string();
        assert!(
            notes.contains("are recreated") && notes.contains(&gone),
            "{notes}"
        );
        assert_eq!(made["moment"]["recreatedLeases"][0], gone.as_str());
        assert_eq!(made["moment"]["idleLeases"], 1);
        let restored = serve(bins, network, &[("default".to_owned(), data_dir)]);
        let ttl = |lease: &str| {
            let told = restored.etcdctl_ok(&["lease", "timetolive", lease, "--keys", "-w", "json"]);
            serde_json::from_str::<Value>(&told).unwrap()
        };
        let (told, still) = (ttl(&gone), ttl(&kept));
        // In base64.
        assert_eq!(told["keys"][0], "L2EvZ29uZQ==");
        assert!((1..=60).contains(&told["ttl"].as_i64().unwrap()), "{told}");
        assert!(still["ttl"].as_i64().unwrap() > 30_000, "{still}");
        assert!(ttl(&later)["keys"].is_null());
        // It goes when its lease does.
        restored.etcdctl_ok(&["lease", "revoke", &gone]);
        let left = restored.etcdctl_ok(&["get", "", "--prefix", "--keys-only"]);
        assert_eq!(left.split_whitespace().collect::<Vec<_>>(), ["/a/kept"]);
    }
}
