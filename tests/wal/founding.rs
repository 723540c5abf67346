//! What a restored member starts from: byte for byte as the real tools write it, and started.

use std::fs;
use std::path::Path;
use std::time::Duration;

use etcd_dr::etcd::datadir::{self, DbFacts, Layout};
use etcd_dr::etcd::founding::{FoundingCluster, InitialCluster};
use etcd_dr::etcd::raftsnap;
use etcd_dr::etcd::wal::{SEGMENT_SIZE, SegmentName, write_founding};

use crate::etcd::{PEER_PORT, Release, Server, Start, address, copy_dir, runtime, save_snapshot};

const FIRST: SegmentName = SegmentName {
    sequence: 0,
    index: 0,
};

/// A snapshot with one key, made by a release.
fn snapshot(release: &Release, dir: &Path) -> std::path::PathBuf {
    let server = Server::single(release, &dir.join("source"), &[]);
    let path = dir.join("snapshot.db");
    runtime().block_on(async {
        let mut client = server.client().await;
        client.put("foo", "bar", None).await.unwrap();
        save_snapshot(&mut client, &path).await;
    });
    server.stop();
    path
}

fn segment(cluster: &FoundingCluster, name: &str) -> Vec<u8> {
    let me = cluster.member(name).unwrap().id;
    write_founding(Vec::new(), cluster, me)
        .unwrap()
        .finish_padded(SEGMENT_SIZE)
        .unwrap()
}

#[test]
fn files_are_those_of_the_real_tools() {
    for release in Release::all() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = snapshot(&release, dir.path());
        let cases = [
            ("one", "one=http://127.0.0.1:1", "t"),
            ("a&b<é", "a&b<é=http://127.0.0.1:1", "etcd-cluster"),
            (
                "b",
                "c=https://10.0.0.3:2380,b=https://10.0.0.2:2380,b=https://[fd00::2]:2380,\
                 a=https://10.0.0.1:2380",
                "openshift-etcd-0b9d",
            ),
        ];
        for (i, (name, text, token)) in cases.into_iter().enumerate() {
            let data_dir = dir.path().join(format!("restored-{i}"));
            let parsed = InitialCluster::parse(text).unwrap();
            let urls = parsed.urls(name).unwrap().to_string();
            let args = [
                ["--name", name],
                ["--initial-cluster", text],
                ["--initial-cluster-token", token],
                ["--initial-advertise-peer-urls", &urls],
            ];
            release.restore(&snapshot, &data_dir, &args.concat());
            let cluster = parsed.found(token).unwrap();
            let layout = Layout::new(&data_dir, None);

            let theirs = fs::read(layout.wal.join(FIRST.to_string())).unwrap();
            let ours = segment(&cluster, name);
            if release.is_3_4() {
                // 3.4 ends with a snapshot record that lacks the membership.
                let differ = ours.iter().zip(&theirs).position(|(a, b)| a != b);
                let common = &ours[..differ.unwrap()];
                assert!(common.len() > 200, "{}", release.version);
            } else {
                assert!(ours == theirs, "{} {text}", release.version);
            }

            let report = datadir::check(&layout, None).unwrap();
            assert_eq!(report.findings, [], "{} {text}", release.version);
            let (snap_name, snap) = raftsnap::founding(&cluster);
            let ours = raftsnap::SnapFile::parse(snap_name, &snap);
            assert_eq!(report.snaps, [ours], "{} {text}", release.version);
            assert_eq!(report.start, Some(snap_name.snapshot()));
        }
    }
}

/// Takes a restored directory's WAL and `.snap` away and puts ours there.
fn replace(layout: &Layout, cluster: &FoundingCluster, name: &str, padded: bool) {
    fs::remove_dir_all(&layout.wal).unwrap();
    fs::create_dir(&layout.wal).unwrap();
    let me = cluster.member(name).unwrap().id;
    let writer = write_founding(Vec::new(), cluster, me).unwrap();
    let bytes = match padded {
        true => writer.finish_padded(SEGMENT_SIZE),
        false => writer.finish(),
    };
    fs::write(layout.wal.join(FIRST.to_string()), bytes.unwrap()).unwrap();
    let (snap_name, snap) = raftsnap::founding(cluster);
    fs::write(layout.snap.join(snap_name.to_string()), snap).unwrap();
    assert_eq!(raftsnap::list(&layout.snap).unwrap(), [snap_name]);
}

#[test]
fn real_etcd_starts_from_our_files() {
    let releases = Release::all();
    for release in &releases {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = snapshot(release, dir.path());
        for padded in [true, false] {
            let address = address();
            let text = format!("one=http://{address}:{PEER_PORT}");
            let url = format!("http://{address}:{PEER_PORT}");
            let data_dir = dir.path().join(format!("restored-{padded}"));
            let args = [
                ["--name", "one"],
                ["--initial-cluster", &text],
                ["--initial-advertise-peer-urls", &url],
            ];
            release.restore(&snapshot, &data_dir, &args.concat());
            let cluster = InitialCluster::parse(&text)
                .unwrap()
                .found("etcd-cluster")
                .unwrap();
            let layout = Layout::new(&data_dir, None);
            replace(&layout, &cluster, "one", padded);

            // Each newer release starts from it too; only etcdctl 3.4 leaves the old cluster's
            // members in the database.
            for starter in releases.iter().filter(|s| s.version >= release.version) {
                let copy = dir.path().join(format!("{padded}-{}", starter.version));
                copy_dir(&data_dir, &copy);
                let mut server = Server::spawn(starter, &copy, "one", &address, &[]);
                let start = server.wait(Duration::from_secs(90));
                assert_eq!(start, Start::Serves, "{}", server.log());
                let status = runtime().block_on(async {
                    let mut client = server.client().await;
                    let got = client.get("foo", None).await.unwrap();
                    assert_eq!(got.kvs()[0].value(), b"bar");
                    client.put("after", "restore", None).await.unwrap();
                    let members = client.member_list().await.unwrap();
                    assert_eq!(members.members().len(), 1);
                    assert_eq!(members.members()[0].id(), cluster.members[0].id.0);
                    client.status().await.unwrap()
                });
                let header = status.header().unwrap();
                assert_eq!(header.cluster_id(), cluster.id.0);
                server.stop();
                let facts = DbFacts {
                    consistent_index: status.raft_applied_index(),
                    term: None,
                    members: cluster.members.clone(),
                    ..DbFacts::default()
                };
                let report = datadir::check(&Layout::new(&copy, None), Some(&facts)).unwrap();
                assert_eq!(report.findings, []);
                assert_eq!(report.wal.last_entry().index, status.raft_index());
            }
        }
    }
}

#[test]
fn three_members_form_a_cluster_from_our_files() {
    let releases = Release::all();
    for release in &releases {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = snapshot(release, dir.path());
        let members: Vec<(String, String)> =
            (1..=3).map(|i| (format!("m{i}"), address())).collect();
        let text: Vec<String> = members
            .iter()
            .map(|(name, address)| format!("{name}=http://{address}:{PEER_PORT}"))
            .collect();
        let text = text.join(",");
        let cluster = InitialCluster::parse(&text).unwrap().found("T").unwrap();
        let mut servers = Vec::new();
        for (name, address) in &members {
            let data_dir = dir.path().join(name);
            let url = format!("http://{address}:{PEER_PORT}");
            let args = [
                ["--name", name],
                ["--initial-cluster", &text],
                ["--initial-cluster-token", "T"],
                ["--initial-advertise-peer-urls", &url],
            ];
            release.restore(&snapshot, &data_dir, &args.concat());
            replace(&Layout::new(&data_dir, None), &cluster, name, false);
            servers.push(Server::spawn(release, &data_dir, name, address, &[]));
        }
        for server in &mut servers {
            let start = server.wait(Duration::from_secs(90));
            assert_eq!(start, Start::Serves, "{}", server.log());
        }
        runtime().block_on(async {
            let mut client = servers[0].client().await;
            client.put("after", "restore", None).await.unwrap();
            let got = servers[2].client().await.get("after", None).await.unwrap();
            assert_eq!(got.kvs()[0].value(), b"restore");
            let status = client.status().await.unwrap();
            assert_eq!(status.header().unwrap().cluster_id(), cluster.id.0);
        });
    }
}
