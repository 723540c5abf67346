//! Real etcd, started on directories that were made for it: each release's snapshot, started by
//! that release and every later one.

use std::path::Path;
use std::time::Duration;

use etcd_client::WatchOptions;
use etcd_dr::change::datadir::Outcome;
use etcd_dr::etcd::founding::InitialCluster;
use etcd_dr::etcd::restore::Bump;

use crate::bench::{
    Content, Made, corruption_check, hash_kv, judge, made, network, reference, request, restore,
    serve, verifying,
};
use testbench::bins::{EtcdBins, require_all, skip};
use testbench::bulk::block_on;
use testbench::cluster::Cluster;
use testbench::process::expect_success;

const BUMP: i64 = 1_000_000_000;

/// A server on a directory, with the first write it takes; the revision and the hash of that.
struct Started {
    cluster: Cluster,
    revision: i64,
    hash: u64,
}

fn start(bins: &EtcdBins, made: &Made, bump: i64, ours: Option<bool>, dir: &Path) -> Started {
    let (network, peer) = network();
    let url = peer(0);
    let initial = format!("one={url}");
    let expected = made.revision + bump;
    let data_dir = dir.join("data");
    let founded = InitialCluster::parse(&initial).unwrap().found("T").unwrap();
    match ours {
        Some(compact) => {
            let mut request = request(&made.snapshot, &data_dir);
            request.name = "one".into();
            request.initial_cluster = initial;
            request.advertise_peer_urls = url;
            request.token = Some("T".into());
            request.options.bump = Some(Bump::By(bump));
            request.options.mark_compacted = bump > 0;
            request.compact = compact;
            let outcome = restore(&request).unwrap();
            assert_eq!(outcome.revision, expected);
            assert_eq!(outcome.cluster_id, founded.id.to_string());
            judge(&data_dir, None);
        }
        None => {
            let bump = bump.to_string();
            let mut args = vec!["--name", "one", "--initial-cluster", &initial];
            args.extend(["--initial-cluster-token", "T"]);
            args.extend(["--initial-advertise-peer-urls", &url]);
            if bump != "0" {
                args.extend(["--bump-revision", &bump, "--mark-compacted"]);
            }
            reference(bins, &made.snapshot, &data_dir, &args);
        }
    }
    let bins = verifying(bins, dir);
    let check = corruption_check(&bins);
    let cluster = serve(&bins, network, &[("one".to_owned(), data_dir)], &[check]);
    let status = cluster.status(0);
    assert_eq!(status["header"]["revision"], expected);
    assert_eq!(status["header"]["cluster_id"], founded.id.0);
    assert_eq!(status["header"]["member_id"], founded.members[0].id.0);
    assert_eq!(Content::of(&cluster), made.content);
    cluster.etcdctl_ok(&["put", "after", "the restore"]);
    let revision = cluster.revision(0);
    assert_eq!(revision, expected + 1);
    Started {
        hash: hash_kv(&cluster, 0, revision),
        revision,
        cluster,
    }
}

/// A watch from before the bump gets the error that its revision is compacted, with the bump's revision.
fn watch_from_before(cluster: &Cluster, from: i64, compacted: i64) {
    block_on(async {
        let client = cluster.client().await;
        let mut watch = client.watch_client();
        let options = WatchOptions::new().with_start_revision(from);
        let mut stream = watch
            .watch("/kubernetes.io/pods", Some(options))
            .await
            .unwrap();
        let deadline = Duration::from_secs(20);
        loop {
            let next = tokio::time::timeout(deadline, stream.message()).await;
            let answer = next.expect("an answer to the watch").unwrap().unwrap();
            if answer.canceled() {
                assert_eq!(answer.compact_revision(), compacted);
                return;
            }
        }
    });
}

/// Stops cleanly, starts again, and takes another member that then holds the data too.
fn live_on(mut started: Started, made: &Made) {
    let cluster = &mut started.cluster;
    cluster.stop(0);
    cluster.relaunch_stopped();
    cluster.wait_healthy();
    assert_eq!(cluster.revision(0), started.revision);
    assert_eq!(hash_kv(cluster, 0, started.revision), started.hash);
    let joined = cluster.add_slot("two");
    let url = format!("--peer-urls={}", cluster.peer_url(joined));
    let added = cluster.etcdctl_on(0, &["member", "add", "two", &url]);
    expect_success("adding a member", &added);
    let everyone = cluster.initial_cluster();
    cluster.launch(joined, &everyone, "existing");
    cluster.wait_healthy();
    cluster.etcdctl_ok(&["put", "after", "the join"]);
    let revision = cluster.revision(0);
    assert_eq!(hash_kv(cluster, 0, revision), hash_kv(cluster, 1, revision));
    let mut now = Content::of(cluster);
    let kvs = now.kvs.as_array_mut().unwrap();
    kvs.retain(|kv| kv["key"] != "YWZ0ZXI=");
    assert_eq!(now, made.content);
}

fn every_starter(maker: &EtcdBins) {
    let made = made(maker);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let newest = require_all().last().unwrap();
    for bump in [0, BUMP] {
        // The tool of 3.4 cannot bump the revision; the data is the same with either tool.
        let tool = if maker.etcdutl.is_some() {
            maker
        } else {
            newest
        };
        let theirs = start(tool, &made, bump, None, &at(&format!("theirs-{bump}")));
        let starters: Vec<_> = require_all()
            .iter()
            .filter(|s| s.numbers() >= maker.numbers())
            .collect();
        for (i, starter) in starters.iter().enumerate() {
            let compact = (i + usize::from(bump > 0)) % 2 == 1;
            let place = at(&format!("ours-{bump}-{}", starter.version));
            let ours = start(starter, &made, bump, Some(compact), &place);
            assert_eq!(
                (ours.revision, ours.hash),
                (theirs.revision, theirs.hash),
                "{} on {} bump {bump}",
                maker.version,
                starter.version
            );
            if bump > 0 {
                watch_from_before(&ours.cluster, made.revision - 5, made.revision + bump);
                live_on(ours, &made);
            }
        }
    }
}

fn family(family: &str, which: usize) {
    let of: Vec<_> = require_all().iter().filter(|b| b.is_of(family)).collect();
    match of.get(which) {
        Some(maker) => every_starter(maker),
        None => skip(&format!("no etcd {family} here, or only one")),
    }
}

#[test]
fn snapshots_of_3_4_start_everywhere() {
    family("3.4", 0);
}

#[test]
fn snapshots_of_an_older_3_5_start_everywhere() {
    family("3.5", 0);
}

#[test]
fn snapshots_of_a_newer_3_5_start_everywhere() {
    family("3.5", 1);
}

/// Each member is restored separately; together they are a cluster, and survive the loss of one.
#[test]
fn three_members_form_a_cluster_and_survive_a_loss() {
    for bins in require_all().iter().rev().step_by(2) {
        let made = made(bins);
        let dir = tempfile::tempdir().unwrap();
        let (network, peer) = network();
        let names = ["a", "b", "c"];
        let initial: Vec<String> = (0..3)
            .map(|i| format!("{}={}", names[i], peer(i)))
            .collect();
        let initial = initial.join(",");
        let restored: Vec<Outcome> = (0..3)
            .map(|i| {
                let mut request = request(&made.snapshot, &dir.path().join(names[i]));
                request.name = names[i].into();
                request.initial_cluster = initial.clone();
                request.advertise_peer_urls = peer(i);
                request.token = Some("three".into());
                request.options.bump = Some(Bump::By(BUMP));
                request.options.mark_compacted = true;
                request.compact = i == 1;
                restore(&request).unwrap()
            })
            .collect();
        assert!(
            restored
                .iter()
                .all(|r| r.cluster_id == restored[0].cluster_id)
        );
        let members: Vec<_> = names
            .iter()
            .map(|name| ((*name).to_owned(), dir.path().join(name)))
            .collect();
        let check = corruption_check(bins);
        let mut cluster = serve(bins, network, &members, &[check]);
        cluster.etcdctl_ok(&["put", "after", "the restore"]);
        let revision = cluster.revision(0);
        assert_eq!(revision, made.revision + BUMP + 1);
        let hashes: Vec<u64> = (0..3).map(|i| hash_kv(&cluster, i, revision)).collect();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
        for (i, restored) in restored.iter().enumerate() {
            let id = cluster.status(i)["header"]["member_id"].as_u64().unwrap();
            assert_eq!(format!("{id:x}"), restored.member_id);
        }
        cluster.kill(2);
        cluster.wait_healthy();
        cluster.etcdctl_ok(&["put", "after", "the loss"]);
        cluster.restart(2);
        let mut now = Content::of(&cluster);
        let kvs = now.kvs.as_array_mut().unwrap();
        kvs.retain(|kv| kv["key"] != "YWZ0ZXI=");
        assert_eq!(now, made.content);
    }
}
