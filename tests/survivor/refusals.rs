//! What is refused, and what the command line says.

use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use crate::bench::{copy, etcd_dr, make, request, serve};
use etcd_dr::etcd::datadir::{self, Layout};
use etcd_dr::etcd::proto::raft::{Entry, EntryKind};
use etcd_dr::etcd::wal::SegmentWriter;
use testbench::bins::{require, require_turn};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::process::wait_for;

#[test]
fn disks_that_cannot_be_used_are_refused() {
    let Some(bins) = require("3.5") else { return };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain());
    cluster.etcdctl_ok(&["put", "a", "1"]);
    let learner = cluster.add_slot("learner");
    let peer = format!("--peer-urls={}", cluster.peer_url(learner));
    cluster.etcdctl_ok(&["member", "add", "learner", "--learner", &peer]);
    let all = cluster.initial_cluster();
    cluster.launch(learner, &all, "existing");
    // A learner answers no health check; its log says when it has joined.
    let arrived = || std::fs::read_dir(cluster.data_dir(learner).join("member/wal")).is_ok();
    for _ in 0..100 {
        if arrived() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    let scratch = tempfile::tempdir().unwrap();
    let made = scratch.path().join("made");

    let running = make(&request(cluster.data_dir(0), &made)).unwrap_err();
    assert_eq!(running.refusal(), Some("etcd-running"), "{running}");
    cluster.kill(learner);
    let failure = make(&request(cluster.data_dir(learner), &made)).unwrap_err();
    assert_eq!(failure.refusal(), Some("learner-survivor"), "{failure}");
    cluster.kill(0);

    let mut other = request(cluster.data_dir(0), &made);
    other.name = Some("somebody".to_owned());
    let failure = make(&other).unwrap_err();
    assert_eq!(failure.refusal(), Some("other-member"), "{failure}");
    let into_itself = make(&request(cluster.data_dir(0), cluster.data_dir(0))).unwrap_err();
    assert_eq!(into_itself.refusal(), Some("data-dir-not-empty"));
    let within = cluster.data_dir(0).join("not/there");
    let within = make(&request(cluster.data_dir(0), &within)).unwrap_err();
    assert_eq!(within.refusal(), Some("data-dir-not-empty"));

    // A byte of the database's root page: none of the page is trusted then.
    let source = scratch.path().join("source");
    copy(cluster.data_dir(0), &source);
    let db = source.join("member/snap/db");
    let mut bytes = std::fs::read(&db).unwrap();
    for page in 2..bytes.len() / 4096 {
        bytes[page * 4096] ^= 0x55;
    }
    std::fs::write(&db, bytes).unwrap();
    let failure = make(&request(&source, &made)).unwrap_err();
    assert_eq!(failure.refusal(), Some("damaged-survivor"), "{failure}");
    std::fs::remove_file(&db).unwrap();
    assert!(make(&request(&source, &made)).is_err());
    assert!(!made.exists());

    // By the command line, with the learner removed as well. A kill while etcd writes a `.snap` file
    // leaves it cut, without a record of it in the log.
    let snap = "member/snap/0000000000000063-0000000000000063.snap";
    std::fs::write(cluster.data_dir(0).join(snap), "cut").unwrap();
    let dir = cluster.data_dir(0).to_str().unwrap();
    let to = made.to_str().unwrap();
    let run = etcd_dr(&[
        "restore",
        "--from-data-dir",
        dir,
        "--data-dir",
        to,
        "-o",
        "json",
    ]);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("[raft-snap]"), "{}", run.stderr);
    let json = run.json();
    assert_eq!(json["member"]["name"], "master-0");
    assert_eq!(json["removed"][0]["name"], "learner");
    assert_eq!(json["removed"][0]["learner"], true);
    let judged = etcd_dr(&["verify", "--data-dir", to]);
    assert_eq!(judged.status, Some(0), "{}", judged.stdout);
    assert!(
        judged.stdout.contains("a voting member, of cluster"),
        "{}",
        judged.stdout
    );
}

#[test]
fn a_disk_is_compared_with_the_newest_backup() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).plain());
        cluster.etcdctl_ok(&["put", "a", "1"]);
        let scratch = tempfile::tempdir().unwrap();
        let store = scratch.path().join("store");
        let store = store.to_str().unwrap();
        let url = cluster.client_url(0);
        let run = etcd_dr(&["--endpoints", &url, "backup", store]);
        assert_eq!(run.status, Some(0), "{}", run.stderr);
        let revision = cluster.revision(0);
        for i in 0..30 {
            cluster.etcdctl_ok(&["put", "a", &i.to_string()]);
        }
        cluster.kill(0);
        let dir = cluster.data_dir(0).to_str().unwrap();
        let args = ["verify", "--data-dir", dir, "--store", store];
        let told = etcd_dr(&args);
        assert!(told.stdout.contains("of backup-1"), "{}", told.stdout);
        let report = etcd_dr(&[&args[..], &["-o", "json"]].concat()).json();
        let distance = &report["newestBackup"];
        assert_eq!(distance["backup"], "backup-1", "{report}");
        assert_eq!(distance["sameCluster"], true);
        assert_eq!(distance["revision"], revision);
        assert!(distance["ahead"].as_i64().unwrap() <= 30, "{distance}");
        assert!(
            distance["aheadAtMost"].as_i64().unwrap() >= 30,
            "{distance}"
        );
        assert_eq!(report["member"]["role"], "voter");
        assert!(report["lastWritten"].is_string(), "{report}");

        // Bumped above what the backup knows, too; then its revisions are those of another cluster.
        let made = scratch.path().join("made");
        let made = made.to_str().unwrap();
        let from = ["--from-data-dir", dir, "--data-dir", made, "--store", store];
        let run = etcd_dr(&[&["restore"], &from[..]].concat());
        assert_eq!(run.status, Some(0), "{}", run.stderr);
        assert!(run.stdout.contains("backup-1 says"), "{}", run.stdout);
        let after = etcd_dr(&["verify", "--data-dir", made, "--store", store, "-o", "json"]);
        assert_eq!(after.json()["newestBackup"]["sameCluster"], false);
    }
}

#[test]
fn entries_whose_effect_is_unknown_are_left_to_etcd() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).plain().fast());
        cluster.etcdctl_ok(&["put", "a", "1"]);
        // The database is copied while the log continues with requests that are known here by name only.
        std::thread::sleep(std::time::Duration::from_millis(400));
        let scratch = tempfile::tempdir().unwrap();
        let source = scratch.path().join("source");
        let early = scratch.path().join("early");
        std::fs::copy(cluster.data_dir(0).join("member/snap/db"), &early).unwrap();
        cluster.etcdctl_ok(&["role", "add", "reader"]);
        cluster.etcdctl_ok(&["put", "b", "2"]);
        cluster.kill(0);
        copy(cluster.data_dir(0), &source);
        std::fs::copy(&early, source.join("member/snap/db")).unwrap();
        let made = scratch.path().join("made");
        let mut wanted = request(&source, &made);
        wanted.options.bump = None;
        let failure = make(&wanted).unwrap_err();
        assert_eq!(failure.refusal(), Some("unknown-entry"), "{failure}");
        assert!(failure.to_string().contains("\"auth\""), "{failure}");
        assert!(!made.exists());
        let (from, to) = (source.to_str().unwrap(), made.to_str().unwrap());
        let args = ["restore", "--from-data-dir", from, "--data-dir", to];
        let told = etcd_dr(&args);
        assert_eq!(told.status, Some(5));
        assert!(told.stderr.contains("--bump-revision 0"), "{}", told.stderr);
        let run = etcd_dr(&[&args[..], &["--bump-revision", "0"]].concat());
        assert_eq!(run.status, Some(0), "{}", run.stderr);
        let server = serve(bins, "master-0", &made, &[]);
        assert_eq!(server.etcdctl_ok(&["role", "list"]).trim(), "reader");
        assert_eq!(
            server
                .etcdctl_ok(&["get", "b", "--print-value-only"])
                .trim(),
            "2"
        );
    }
}

#[test]
fn the_disk_of_a_removed_member_is_refused() {
    let Some(bins) = require("3.5") else { return };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 2).plain());
    cluster.etcdctl_ok(&["put", "a", "1"]);
    let members = cluster.etcdctl_ok(&["member", "list"]);
    let removed = members.lines().find(|line| line.contains("master-1"));
    let id = removed
        .and_then(|line| line.split(',').next())
        .expect("its id");
    // etcd refuses a change of members until they have been connected for five seconds
    // (`HealthInterval`, server/etcdserver/server.go).
    let removed = wait_for("its removal", Duration::from_secs(30), || {
        let output = cluster.etcdctl(&["member", "remove", id]);
        let told = String::from_utf8_lossy(&output.stderr);
        // An earlier call may have removed it after etcdctl gave up on the answer.
        match output.status.success() || told.contains("member not found") {
            true => Ok(()),
            false => Err(told.into_owned()),
        }
    });
    removed.unwrap();
    // Its log says that it was removed, and then it ends by itself.
    let address = (cluster.ip(1), 2379);
    let ended = wait_for(
        "its end",
        Duration::from_secs(20),
        || match std::net::TcpStream::connect(address) {
            Ok(_) => Err("it serves"),
            Err(_) => Ok(()),
        },
    );
    ended.unwrap();
    cluster.kill(0);
    let scratch = tempfile::tempdir().unwrap();
    let made = scratch.path().join("made");
    let failure = make(&request(cluster.data_dir(1), &made)).unwrap_err();
    assert_eq!(failure.refusal(), Some("not-a-member"), "{failure}");
    assert!(!made.exists());
}

/// Appends an entry to a stopped member's WAL, in the term of the last one.
fn append_entry(data_dir: &Path, kind: EntryKind, data: &[u8]) {
    let layout = Layout::new(data_dir, None);
    let wal = datadir::check(&layout, None).unwrap().wal;
    let newest = wal.scan.segments.last().unwrap();
    let path = layout.wal.join(newest.name.to_string());
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(newest.good)).unwrap();
    let mut writer = SegmentWriter::resume(file, newest.crc, newest.good);
    let last = wal.last_entry();
    let entry = Entry {
        kind,
        term: last.term,
        index: last.index + 1,
        data,
    };
    writer.entry(&entry).unwrap();
    writer.finish().unwrap();
}

/// etcd proposes one change of members at a time. What a change of several would mean for who votes
/// is not known here.
#[test]
fn a_wal_with_a_change_of_several_members_at_once_is_refused() {
    let Some(bins) = require("3.5") else { return };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain());
    cluster.etcdctl_ok(&["put", "a", "1"]);
    cluster.kill(0);
    let scratch = tempfile::tempdir().unwrap();
    let (source, made) = (scratch.path().join("source"), scratch.path().join("made"));
    copy(cluster.data_dir(0), &source);
    // raftpb.ConfChangeV2: two of `changes` (2), each of a type (1: add) and a node (2).
    let add = |node: u8| [0x12, 4, 0x08, 0, 0x10, node];
    let several = [add(7), add(8)].concat();
    append_entry(&source, EntryKind::ConfChangeV2, &several);
    let failure = make(&request(&source, &made)).unwrap_err();
    assert_eq!(failure.refusal(), Some("unknown-membership"), "{failure}");
    assert!(!made.exists());
}
