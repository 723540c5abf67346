//! A backup and a member's WAL: up to the last write.

use std::path::Path;

use serde_json::Value;

use crate::bench::{Random, cluster, hash_kv, kvs, requests, restore, save, serve, text, work};
use crate::shelf::Shelf;
use testbench::bins::{require_all, require_turn};
use testbench::bulk::block_on;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden;
use testbench::loopback::Loopback;

fn refused(error: &Value, name: &str) -> String {
    assert_eq!(error["refusal"], name, "{error}");
    error["message"].as_str().unwrap().to_owned()
}

/// Rolls a snapshot forward and starts a server on the result.
fn rolled(cluster: &Cluster, snapshot: &Path, wal: &Path, to: &Path) -> (Value, Cluster) {
    let network = Loopback::reserve();
    let url = format!("http://{}:2380", network.ip(0));
    let (wal, initial) = (text(wal), format!("default={url}"));
    let args = [
        "--roll-forward",
        wal.as_str(),
        "--bump-revision",
        "0",
        "--initial-cluster",
        &initial,
        "--initial-advertise-peer-urls",
        &url,
    ];
    let made = restore(snapshot, to, &args).expect(0).json();
    let members = [("default".to_owned(), to.to_owned())];
    (made, serve(cluster.bins(), network, &members))
}

/// Everything that a server had is there: keys, versions, leases, HashKV. It was stopped, or killed
/// with its database damaged.
#[test]
fn one_member_up_to_its_last_write() {
    for (i, bins) in require_all().iter().enumerate() {
        let mut random = Random(40 + i as u64);
        let mut cluster = cluster(bins, 1);
        work(&cluster, &mut random, 120, 60);
        let snapshot = save(&cluster);
        let before = cluster.revision(0);
        work(&cluster, &mut random, 80, 80);
        let (now, content) = (cluster.revision(0), kvs(&cluster, None));
        let hash = hash_kv(&cluster, now);
        cluster.kill(0);
        let database = cluster.data_dir(0).join("member/snap/db");
        std::fs::write(&database, b"broken").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let from = cluster.data_dir(0).to_owned();
        let (made, restored) = rolled(&cluster, &snapshot, &from, &dir.path().join("d"));
        let told = &made["rollForward"];
        assert_eq!(
            (&told["fromRevision"], &told["toRevision"]),
            (&before.into(), &now.into())
        );
        assert_eq!(made["revision"], now);
        assert_eq!(restored.revision(0), now);
        assert_eq!(kvs(&restored, None), content);
        assert_eq!(hash_kv(&restored, now), hash, "{}", bins.version);
        restored.etcdctl_ok(&["put", "after", "1"]);
        assert_eq!(restored.revision(0), now + 1);
    }
}

/// The database is broken and its WAL is not: what says so gives the command that loses nothing, as it is
/// to be typed.
#[test]
fn a_damaged_database_with_a_whole_wal_is_told_how_to_be_rolled_forward() {
    for bins in require_turn() {
        let mut random = Random(44);
        let mut cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        requests(&cluster, &mut random, 20);
        shelf.backup();
        requests(&cluster, &mut random, 20);
        let now = cluster.revision(0);
        cluster.stop(0);
        let from = text(cluster.data_dir(0));
        std::fs::write(Path::new(&from).join("member/snap/db"), b"broken").unwrap();
        let (store, to) = (text(&shelf.store()), text(&shelf.dir.path().join("d")));
        let verify = ["verify", "--data-dir", &from, "--store", &store];
        let json = golden::run(&[&verify[..], &["-o", "json"]].concat(), &[]);
        let json = json.expect(3).json();
        assert_eq!(json["rollForward"]["backup"], "backup-1", "{json}");
        let said = golden::run(&verify, &[]).expect(3).stdout;
        let command = format!("etcd-dr restore backup-1 --store {store} --roll-forward {from}");
        assert!(said.contains(&command), "{said}");
        let restore = [
            "restore",
            "--from-data-dir",
            &from,
            "--data-dir",
            &to,
            "--store",
            &store,
        ];
        let refused = golden::run(&[&restore[..], &["-o", "json"]].concat(), &[]);
        let error = &refused.expect(5).json()["error"];
        assert_eq!(error["refusal"], "damaged-survivor", "{error}");
        let hint = error["hint"].as_str().unwrap();
        let command = hint
            .lines()
            .next()
            .and_then(|line| line.split_once("etcd-dr "))
            .unwrap()
            .1;
        let words: Vec<&str> = command
            .split(' ')
            .chain(["--bump-revision", "0", "-o", "json"])
            .collect();
        let made = golden::run(&words, &[]).expect(0).json();
        assert_eq!(made["rollForward"]["toRevision"], now, "{made}");
        // Without a whole WAL there is no such hint.
        let segment = std::fs::read_dir(Path::new(&from).join("member/wal")).unwrap();
        let segment = segment
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|e| e == "wal"))
            .unwrap();
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[2000] ^= 1;
        std::fs::write(&segment, &bytes).unwrap();
        let json = golden::run(&[&verify[..], &["-o", "json"]].concat(), &[]);
        assert_eq!(json.expect(3).json()["rollForward"], Value::Null);
    }
}

/// Any member's WAL continues a snapshot of any other, while all of them run: nothing is locked.
#[test]
fn the_wal_of_another_member_that_runs() {
    for bins in require_turn() {
        let mut random = Random(9);
        let cluster = cluster(bins, 3);
        work(&cluster, &mut random, 60, 40);
        let snapshot = save(&cluster);
        work(&cluster, &mut random, 40, 40);
        let now = cluster.revision(0);
        let content = kvs(&cluster, None);
        let wal = cluster.data_dir(2).join("member/wal");
        let dir = tempfile::tempdir().unwrap();
        let (_, restored) = rolled(&cluster, &snapshot, &wal, &dir.path().join("d"));
        assert_eq!(restored.revision(0), now);
        assert_eq!(kvs(&restored, None), content);
        // The members continue, and their WAL with them.
        cluster.etcdctl_ok(&["put", "later", "1"]);
        testbench::same::assert_same_data(&cluster);
    }
}

/// Writes under way when the member is killed: every one that was acknowledged is there.
#[test]
fn no_acknowledged_write_is_lost() {
    for bins in require_turn() {
        let spec = ClusterSpec::new(bins, 1).plain();
        let mut cluster = Cluster::start(spec);
        cluster.etcdctl_ok(&["put", "first", "0"]);
        let snapshot = save(&cluster);
        let (send, acknowledged) = std::sync::mpsc::channel();
        let options = cluster.client_options();
        let endpoints = cluster.endpoints();
        let writer = std::thread::spawn(move || {
            block_on(async {
                let client = etcd_client::Client::connect(endpoints, Some(options))
                    .await
                    .unwrap();
                let mut kv = client.kv_client();
                for i in 0..100_000u64 {
                    let put = kv.put(format!("k{}", i % 50), i.to_string(), None).await;
                    let Ok(put) = put else { return };
                    let revision = put.header().unwrap().revision();
                    if send.send((revision, i)).is_err() {
                        return;
                    }
                }
            });
        });
        std::thread::sleep(std::time::Duration::from_millis(1500));
        cluster.kill(0);
        writer.join().unwrap();
        let all: Vec<(i64, u64)> = acknowledged.iter().collect();
        let (last, value) = *all.last().unwrap();
        assert!(all.len() > 50, "{}", all.len());
        let dir = tempfile::tempdir().unwrap();
        let from = cluster.data_dir(0).to_owned();
        let (made, restored) = rolled(&cluster, &snapshot, &from, &dir.path().join("d"));
        let reached = made["revision"].as_i64().unwrap();
        assert!((last..=last + 1).contains(&reached), "{reached} of {last}");
        let key = format!("k{}", value % 50);
        let at = format!("--rev={last}");
        let got = restored.etcdctl_ok(&["get", &key, &at, "--print-value-only"]);
        assert_eq!(got.trim(), value.to_string());
    }
}

/// A tail of several parts is what one part would be.
#[test]
fn a_long_tail_is_applied_part_by_part() {
    for bins in require_turn() {
        let mut cluster = cluster(bins, 1);
        cluster.etcdctl_ok(&["put", "first", "0"]);
        let snapshot = save(&cluster);
        // Three parts of 24 MiB.
        testbench::bulk::Bulk::new(1000, 60_000).write(&cluster);
        testbench::bulk::Bulk::new(300, 60_000)
            .seeded(1)
            .write(&cluster);
        let now = cluster.revision(0);
        let hash = hash_kv(&cluster, now);
        cluster.stop(0);
        let dir = tempfile::tempdir().unwrap();
        let from = cluster.data_dir(0).to_owned();
        let (made, restored) = rolled(&cluster, &snapshot, &from, &dir.path().join("d"));
        assert_eq!(made["revision"], now);
        assert_eq!(hash_kv(&restored, now), hash);
    }
}

#[test]
fn what_does_not_continue_the_backup_is_refused() {
    for bins in require_turn() {
        let mut cluster = cluster(bins, 1);
        work(&cluster, &mut Random(1), 40, 20);
        let early = cluster.scratch().join("early");
        copy(&cluster.data_dir(0).join("member/wal"), &early);
        work(&cluster, &mut Random(2), 40, 20);
        let snapshot = save(&cluster);
        cluster.etcdctl_ok(&["put", "later", "1"]);
        cluster.stop(0);
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("d");
        let roll = |wal: &Path, status| {
            let wal = text(wal);
            let run = restore(&snapshot, &to, &["--roll-forward", &wal]).expect(status);
            assert!(!to.exists());
            run.json()["error"].clone()
        };
        // It ends before the backup.
        assert!(refused(&roll(&early, 5), "wal-gap").contains("ends with entry"));
        // Another cluster's.
        let other = crate::bench::cluster(bins, 1);
        other.etcdctl_ok(&["put", "x", "1"]);
        let error = roll(&other.data_dir(0).join("member/wal"), 5);
        assert!(refused(&error, "wal-mismatch").contains("whom the snapshot does not know"));
        // Damaged before its end.
        let wal = cluster.data_dir(0).join("member/wal");
        let damaged = dir.path().join("damaged");
        copy(&wal, &damaged);
        let segment = std::fs::read_dir(&damaged)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[2000] ^= 1;
        std::fs::write(&segment, &bytes).unwrap();
        refused(&roll(&damaged, 5), "damaged-wal");
        // None at all.
        roll(&dir.path().join("nowhere"), 12);
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        let error = roll(&dir.path().join("empty"), 2);
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains("there is no WAL")
        );
        // The history after a restore is another one.
        let again = dir.path().join("again");
        restore(&snapshot, &again, &["--bump-revision", "0"]).expect(0);
        refused(&roll(&again, 5), "wal-mismatch");
        // And the very WAL is taken.
        let wal = text(&wal);
        restore(&snapshot, &to, &["--roll-forward", &wal]).expect(0);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
