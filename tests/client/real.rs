//! Against real etcd, every release available: the calls agree with etcdctl, a snapshot is what
//! etcd's own tool accepts, and a server that dies, freezes or refuses is reported as such.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_dr::error::{Failure, Kind};
use etcd_dr::etcd::client::{
    AlarmKind, ConnectOptions, Connection, Consistency, Credentials, Endpoint, HashKvAnswer, Pem,
    TlsConfig, probe_members,
};
use etcd_dr::etcd::download::{DownloadOptions, Progress, download};
use sha2::{Digest, Sha256};

use testbench::bins::{EtcdBins, require, require_all};
use testbench::bulk::{Bulk, put_all};
use testbench::certs::{Ca, PairFiles, strangers_client};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::process::expect_success;

fn tls(ca: &Path, client: Option<&PairFiles>) -> TlsConfig {
    let ca = Pem::read(ca).unwrap();
    let pair = client.map(|pair| {
        (
            Pem::read(&pair.cert).unwrap(),
            Pem::read(&pair.key).unwrap(),
        )
    });
    TlsConfig::new(&[ca], pair.as_ref().map(|(cert, key)| (cert, key))).unwrap()
}

fn options(cluster: &Cluster) -> ConnectOptions {
    let mut options = ConnectOptions::default();
    options.tls = cluster
        .certs()
        .map(|certs| tls(&certs.ca_file(), Some(&certs.peer(cluster.name(0)))));
    options
}

fn endpoint(cluster: &Cluster, member: usize) -> Endpoint {
    Endpoint::parse(&cluster.client_url(member), false).unwrap()
}

async fn connect(cluster: &Cluster) -> Connection {
    Connection::open(&endpoint(cluster, 0), &options(cluster))
        .await
        .unwrap()
}

/// With mutual TLS and without.
fn single(bins: &EtcdBins, tls: bool) -> Cluster {
    let spec = ClusterSpec::new(bins, 1).fast();
    Cluster::start(if tls { spec } else { spec.plain() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_agree_with_etcdctl() {
    for bins in require_all() {
        for tls in [true, false] {
            let cluster = single(bins, tls);
            put_all(
                &cluster,
                [
                    ("/a/1", b"one".to_vec()),
                    ("/a/2", b"two".to_vec()),
                    ("/b", b"three".to_vec()),
                ],
            );
            let connection = connect(&cluster).await;
            agree_on_status(&cluster, &connection, bins).await;
            agree_on_keys(&connection).await;
            agree_on_hash(&cluster, &connection).await;
        }
    }
}

async fn agree_on_status(cluster: &Cluster, connection: &Connection, bins: &EtcdBins) {
    // What the last write freed is known when etcd has committed it, a tenth of a second later.
    let mut theirs = cluster.status(0);
    let mut ours = connection.status().await.unwrap();
    for _ in 0..50 {
        if Some(ours.db_size_in_use) == theirs["dbSizeInUse"].as_u64() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        theirs = cluster.status(0);
        ours = connection.status().await.unwrap();
    }
    assert_eq!(ours.version, bins.version);
    assert_eq!(
        Some(ours.header.member_id.0),
        theirs["header"]["member_id"].as_u64()
    );
    assert_eq!(
        Some(ours.header.cluster_id.0),
        theirs["header"]["cluster_id"].as_u64()
    );
    assert_eq!(
        Some(ours.header.revision),
        theirs["header"]["revision"].as_i64()
    );
    assert_eq!(Some(ours.db_size), theirs["dbSize"].as_u64());
    assert_eq!(Some(ours.db_size_in_use), theirs["dbSizeInUse"].as_u64());
    assert_eq!(Some(ours.raft_term), theirs["raftTerm"].as_u64());
    assert!(ours.raft_applied_index > 0 && ours.raft_index >= ours.raft_applied_index);
    assert!(ours.is_leader() && !ours.is_learner && ours.errors.is_empty());

    for consistency in [Consistency::Linearizable, Consistency::Local] {
        let list = connection.member_list(consistency).await.unwrap();
        assert_eq!(list.members.len(), 1);
        let member = &list.members[0];
        assert_eq!(member.id, ours.header.member_id);
        assert_eq!(member.name, cluster.name(0));
        assert_eq!(member.client_urls, [cluster.client_url(0)]);
        assert_eq!(member.peer_urls, [cluster.peer_url(0)]);
    }
    assert_eq!(connection.alarms().await.unwrap(), []);
    let probes = probe_members(
        connection
            .member_list(Consistency::Local)
            .await
            .unwrap()
            .members,
        &options(cluster),
    )
    .await;
    assert_eq!(probes.len(), 1);
    assert_eq!(
        probes[0].status.as_ref().unwrap().header.member_id,
        ours.header.member_id
    );
}

async fn agree_on_keys(connection: &Connection) {
    for consistency in [Consistency::Linearizable, Consistency::Local] {
        let key = connection.get(b"/b", consistency).await.unwrap().unwrap();
        assert_eq!(key.value, b"three");
        assert_eq!(key.create_revision, key.mod_revision);
        assert!(connection.get(b"/c", consistency).await.unwrap().is_none());
        let all = connection.get_prefix(b"/a/", 0, consistency).await.unwrap();
        let values: Vec<_> = all.kvs.iter().map(|kv| kv.value.as_slice()).collect();
        assert_eq!(values, [b"one", b"two"]);
        assert!(!all.more && all.count == 2);
        let cut = connection.get_prefix(b"/", 1, consistency).await.unwrap();
        assert!(cut.more && cut.count == 3 && cut.kvs.len() == 1);
        assert!(!format!("{cut:?}").contains("one"));
        let everything = connection.get_prefix(b"", 0, consistency).await.unwrap();
        assert_eq!(everything.count, 3);
    }
}

async fn agree_on_hash(cluster: &Cluster, connection: &Connection) {
    let HashKvAnswer::Hash(ours) = connection.hash_kv(3).await.unwrap() else {
        panic!("the revision is there");
    };
    let output = cluster.etcdctl_on(0, &["endpoint", "hashkv", "--rev=3", "-w", "json"]);
    let text = expect_success("etcdctl endpoint hashkv", &output);
    let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
    let theirs = &theirs[0]["HashKV"];
    assert_eq!(Some(u64::from(ours.hash)), theirs["hash"].as_u64());
    assert_eq!(
        Some(ours.compact_revision),
        theirs["compact_revision"].as_i64()
    );
    assert_eq!(ours.header.revision, 4);

    assert_eq!(connection.hash_kv(99).await.unwrap(), HashKvAnswer::Future);
    cluster.etcdctl_ok(&["compaction", "4", "--physical"]);
    assert_eq!(
        connection.hash_kv(2).await.unwrap(),
        HashKvAnswer::Compacted
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_what_etcd_restores() {
    for bins in require_all() {
        for tls in [true, false] {
            let cluster = single(bins, tls);
            Bulk::new(4000, 4000).write(&cluster);
            let path = cluster.scratch().join("snapshot.db");
            let connection = connect(&cluster).await;
            let file = File::create_new(&path).unwrap();
            let (file, downloaded) = download(&connection, file, &DownloadOptions::default())
                .await
                .unwrap();
            file.sync_all().unwrap();

            let bytes = std::fs::read(&path).unwrap();
            assert!(bytes.len() > 16 << 20);
            assert_eq!(downloaded.size, bytes.len() as u64);
            assert_eq!(downloaded.file_sha256, *Sha256::digest(&bytes));
            let (database, trailer) = bytes.split_at(bytes.len() - 32);
            assert_eq!(downloaded.database_sha256, trailer);
            assert_eq!(*Sha256::digest(database), *trailer);
            assert_eq!(downloaded.storage_version, None);

            let target = cluster.scratch().join("restored");
            let output = Command::new(bins.snapshot_tool())
                .env("ETCDCTL_API", "3")
                .args(["snapshot", "restore"])
                .arg(&path)
                .arg("--data-dir")
                .arg(&target)
                .output()
                .unwrap();
            expect_success("restoring the snapshot", &output);
        }
    }
}

/// Begins a download, does something to the server once some MiB have come, and hands back the
/// failure. The rate is held low so that there is a middle to interfere in.
async fn interfered(cluster: Cluster, act: fn(&mut Cluster)) -> (Failure, Duration) {
    let connection = connect(&cluster).await;
    let mut options = DownloadOptions::default();
    options.stall_timeout = Duration::from_secs(2);
    options.max_rate = std::num::NonZeroU64::new(8 << 20);
    let begun = Arc::new(AtomicBool::new(false));
    options.on_progress = Some(Arc::new({
        let begun = begun.clone();
        move |progress: Progress| {
            assert!(progress.total.is_some_and(|total| total > 32 << 20));
            begun.store(progress.received > 2 << 20, Ordering::Relaxed);
        }
    }));
    let acting = tokio::task::spawn_blocking(move || {
        let mut cluster = cluster;
        while !begun.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        act(&mut cluster);
        (cluster, Instant::now())
    });
    let failure = download(&connection, tempfile::tempfile().unwrap(), &options)
        .await
        .map(|(_, downloaded)| downloaded)
        .unwrap_err();
    let (_cluster, acted) = acting.await.unwrap();
    (failure, acted.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_during_a_download_is_an_error() {
    for bins in require_all() {
        for tls in [true, false] {
            let cluster = single(bins, tls);
            Bulk::new(800, 100_000).write(&cluster);
            let (failure, _) = interfered(cluster, |cluster| cluster.kill(0)).await;
            let text = failure.to_string();
            assert_eq!(failure.kind(), Kind::Unreachable, "{text}");
            assert!(
                text.contains("downloading the snapshot from http"),
                "{text}"
            );
            assert!(
                text.contains("connection broke") || text.contains("closed the connection"),
                "{text}"
            );
            assert!(text.contains(" of ") && text.contains(" bytes"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_frozen_during_a_download_is_a_stall() {
    let Some(bins) = require("3.5") else { return };
    for tls in [true, false] {
        let cluster = single(&bins, tls);
        Bulk::new(800, 100_000).write(&cluster);
        let (failure, took) = interfered(cluster, |cluster| cluster.pause(0)).await;
        let text = failure.to_string();
        assert_eq!(failure.kind(), Kind::Unreachable, "{text}");
        assert!(text.contains("stalled: no byte received for 2 s"), "{text}");
        // What was on its way is still taken in, at the rate, before the silence begins.
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

async fn refused(cluster: &Cluster, tls: Option<TlsConfig>, words: &[&str]) {
    let mut options = ConnectOptions::default();
    options.tls = tls;
    let endpoint = endpoint(cluster, 0);
    // A rejection comes after the handshake, and once with the first call: both must tell it.
    for _ in 0..10 {
        let asked = async { Connection::open(&endpoint, &options).await?.status().await };
        let failure = asked.await.unwrap_err();
        let text = failure.to_string();
        assert_eq!(failure.kind(), Kind::Unreachable, "{text}");
        assert!(text.contains(endpoint.as_str()), "{text}");
        assert!(!text.contains("PRIVATE KEY"), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_client_certificate_is_explained() {
    for bins in require_all() {
        let cluster = single(bins, true);
        let certs = cluster.certs().unwrap();
        let ca = certs.ca_file();
        refused(
            &cluster,
            Some(tls(&ca, None)),
            &["requires a client certificate, and none was given"],
        )
        .await;
        let dir = cluster.scratch();
        let stranger = strangers_client().write(&dir, "stranger");
        let words = [
            "the server rejected the client certificate",
            "stranger.crt",
            "CN=another-signer",
        ];
        refused(&cluster, Some(tls(&ca, Some(&stranger))), &words).await;
        let expired = certs.ca().expired_client().write(&dir, "expired");
        let words = [
            "the server rejected the client certificate",
            "expired.crt",
            "valid until 20",
        ];
        refused(&cluster, Some(tls(&ca, Some(&expired))), &words).await;

        let other = dir.join("other-ca.crt");
        std::fs::write(&other, Ca::new("other").cert).unwrap();
        let words = ["it is not signed by a trusted certificate", "other-ca.crt"];
        refused(
            &cluster,
            Some(tls(&other, Some(&certs.peer("master-0")))),
            &words,
        )
        .await;
        let wrong_name = tls(&ca, Some(&certs.peer("master-0")))
            .with_server_name("etcd.example")
            .unwrap();
        refused(&cluster, Some(wrong_name), &["it is not for etcd.example"]).await;

        let plain = cluster.client_url(0).replace("https", "http");
        let plain = Endpoint::parse(&plain, false).unwrap();
        let asked = async {
            Connection::open(&plain, &ConnectOptions::default())
                .await?
                .status()
                .await
        };
        let failure = asked.await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Unreachable);
        assert!(
            failure
                .to_string()
                .contains("or it expects TLS on this port"),
            "{failure}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_a_plain_server_is_named() {
    let Some(bins) = require("3.5") else { return };
    let cluster = single(&bins, false);
    let ca = Ca::new("ca");
    let endpoint = cluster.client_url(0).replace("http", "https");
    let endpoint = Endpoint::parse(&endpoint, false).unwrap();
    let mut options = ConnectOptions::default();
    options.tls = Some(TlsConfig::new(&[Pem::new("ca.crt", ca.cert.as_str())], None).unwrap());
    let failure = Connection::open(&endpoint, &options).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Unreachable);
    assert!(
        failure
            .to_string()
            .contains("or it does not speak TLS on this port"),
        "{failure}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authentication_of_etcd_users_is_respected() {
    let Some(bins) = require("3.5") else { return };
    let cluster = single(&bins, false);
    for command in [
        &["user", "add", "root:right"][..],
        &["user", "add", "reader:right"],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        cluster.etcdctl_ok(command);
    }
    let open = |name: &str, password: &str| {
        let mut options = options(&cluster);
        options.credentials = Some(Credentials {
            name: name.to_owned(),
            password: password.to_owned(),
        });
        let endpoint = endpoint(&cluster, 0);
        async move { Connection::open(&endpoint, &options).await }
    };
    let root = open("root", "right").await.unwrap();
    root.member_list(Consistency::Linearizable).await.unwrap();
    let (file, _) = download(&root, Vec::new(), &DownloadOptions::default())
        .await
        .unwrap();
    assert!(file.len() > 4096);

    let wrong = open("root", "wrong-password")
        .await
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("to log in as \"root\""), "{wrong}");
    assert!(wrong.contains("authentication failed"), "{wrong}");
    assert!(!wrong.contains("wrong-password"), "{wrong}");
    let reader = open("reader", "right").await.unwrap();
    let failure = reader
        .get(b"/a", Consistency::Linearizable)
        .await
        .unwrap_err();
    assert!(
        failure.to_string().contains("permission denied"),
        "{failure}"
    );
    let refused = download(&reader, Vec::new(), &DownloadOptions::default()).await;
    let failure = refused.map(|(_, downloaded)| downloaded).unwrap_err();
    assert!(
        failure.to_string().contains("permission denied"),
        "{failure}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_probed_side_by_side() {
    let Some(bins) = require("3.5") else { return };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 3).fast());
    let connection = connect(&cluster).await;
    let members = connection
        .member_list(Consistency::Linearizable)
        .await
        .unwrap()
        .members;
    cluster.pause(1);
    cluster.kill(2);
    let mut options = options(&cluster);
    options.connect_timeout = Duration::from_secs(1);
    options.call_timeout = Duration::from_secs(1);
    let start = Instant::now();
    let probes = probe_members(members, &options).await;
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    for probe in &probes {
        let told = probe.status.as_ref().map(|status| status.version.clone());
        let told = told.map_err(ToString::to_string);
        match probe.member.name.as_str() {
            "master-0" => assert_eq!(told, Ok(bins.version.clone())),
            "master-1" => assert!(told.unwrap_err().contains("timed out")),
            _ => assert!(told.unwrap_err().contains("connection refused")),
        }
    }
    // Without a quorum the member still answers for itself, and a linearizable list does not.
    let quick = connection.with_call_timeout(Duration::from_secs(2));
    assert_eq!(
        quick
            .member_list(Consistency::Local)
            .await
            .unwrap()
            .members
            .len(),
        3
    );
    let failure = quick
        .member_list(Consistency::Linearizable)
        .await
        .unwrap_err();
    assert_eq!(failure.kind(), Kind::Unreachable);
    cluster.resume(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_is_seen() {
    let Some(bins) = require("3.5") else { return };
    let mut spec = ClusterSpec::new(&bins, 1).fast().plain();
    spec.quota = 2 << 20;
    let cluster = Cluster::start(spec);
    let value = "x".repeat(100_000);
    for i in 0..100 {
        if !cluster
            .etcdctl(&["put", &i.to_string(), &value])
            .status
            .success()
        {
            break;
        }
    }
    let connection = connect(&cluster).await;
    let alarms = connection.alarms().await.unwrap();
    assert_eq!(alarms.len(), 1);
    assert_eq!(alarms[0].kind, AlarmKind::NoSpace);
    let status = connection.status().await.unwrap();
    assert_eq!(alarms[0].member_id, status.header.member_id);
    assert!(!status.errors.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_outlives_a_restart() {
    let Some(bins) = require("3.5") else { return };
    let mut cluster = single(&bins, true);
    let connection = connect(&cluster).await;
    connection.status().await.unwrap();
    cluster.kill(0);
    let failure = connection.status().await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Unreachable);
    cluster.restart(0);
    let mut answered = connection.status().await;
    for _ in 0..3 {
        if answered.is_err() {
            answered = connection.status().await;
        }
    }
    answered.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_ends_up_as_sent_though_its_pages_are_dropped() {
    let Some(bins) = require("3.5") else { return };
    let cluster = single(&bins, false);
    Bulk::new(1500, 100_000).write(&cluster);
    let connection = connect(&cluster).await;
    let path = cluster.scratch().join("snapshot.db");
    let file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let (mut file, downloaded) = download(&connection, file, &DownloadOptions::default())
        .await
        .unwrap();
    assert!(downloaded.size > 140 << 20);
    file.rewind().unwrap();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    assert_eq!(downloaded.file_sha256, *hash.finalize());
}
