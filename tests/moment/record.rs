//! Recorded changes: a recorder next to a real etcd, killed, disconnected and overtaken; and restores to the
//! revisions between two backups.

use std::path::Path;
use std::time::Duration;

use etcd_dr::etcd::segment::{Cause, Segment};
use serde_json::Value;

use crate::bench::{Past, Random, cluster, kvs, requests, serve, text};
use crate::shelf::{LIMIT, Shelf};
use testbench::bins::{require_all, require_turn};
use testbench::cluster::Cluster;
use testbench::golden;
use testbench::loopback::Loopback;
use testbench::process::wait_for;

pub(crate) fn compact(cluster: &Cluster) -> i64 {
    let revision = cluster.revision(0) - 2;
    cluster.etcdctl_ok(&["compact", &revision.to_string(), "--physical"]);
    revision
}

/// Restores to a revision from the store, and holds what a server then has against what there was.
fn holds(cluster: &Cluster, shelf: &Shelf, revision: i64, then: &Value) -> Value {
    let network = Loopback::reserve();
    let url = format!("http://{}:2380", network.ip(0));
    let data_dir = shelf.dir.path().join(format!("d{revision}"));
    let (to, initial) = (revision.to_string(), format!("default={url}"));
    let args = [
        "--to-revision",
        &to,
        "--bump-revision",
        "0",
        "--initial-cluster",
        &initial,
        "--initial-advertise-peer-urls",
        &url,
    ];
    let made = shelf.restore("latest", &data_dir, &args).expect(0).json();
    let restored = serve(cluster.bins(), network, &[("default".to_owned(), data_dir)]);
    assert_eq!(restored.revision(0), revision);
    assert_eq!(kvs(&restored, None), *then, "revision {revision}");
    let listed = restored.etcdctl_ok(&["lease", "list"]);
    for kv in then.as_array().into_iter().flatten() {
        if let Some(lease) = kv["lease"].as_i64() {
            assert!(
                listed.contains(&format!("{lease:016x}")),
                "{lease:x}: {listed}"
            );
        }
    }
    restored.etcdctl_ok(&["put", "after", "1"]);
    assert_eq!(restored.revision(0), revision + 1);
    made
}

/// Between two backups, and after the second one, with the recorder killed, etcd restarted, compacted
/// and defragmented in the meantime.
#[test]
fn every_revision_between_two_backups() {
    for (i, bins) in require_all().iter().enumerate() {
        let mut random = Random(90 + i as u64);
        let mut cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        requests(&cluster, &mut random, 40);
        shelf.backup();
        let mut recorder = shelf.record(None);
        let mut past = Vec::new();
        for _ in 0..3 {
            requests(&cluster, &mut random, 25);
            let revision = cluster.revision(0);
            past.push((revision, Past::of(&cluster, revision)));
            // Once before and twice after something of this round is sealed.
            if random.below(3) > 0 {
                shelf.wait(revision);
            }
            recorder.kill();
            recorder = shelf.record(None);
        }
        shelf.wait(cluster.revision(0));
        compact(&cluster);
        cluster.etcdctl_ok(&["defrag"]);
        requests(&cluster, &mut random, 20);
        shelf.wait(cluster.revision(0));
        cluster.stop(0);
        cluster.restart(0);
        cluster.wait_healthy();
        requests(&cluster, &mut random, 20);
        shelf.backup();
        // From here on changes arrive as they are written, so that their times are known.
        shelf.wait(cluster.revision(0));
        requests(&cluster, &mut random, 10);
        let after = (cluster.revision(0), kvs(&cluster, None));
        let told = recorder.stop();
        assert_eq!(told["lastRevision"], after.0);
        assert_eq!(told["gaps"], serde_json::json!([]));
        assert_eq!(shelf.chains().len(), 1);
        let segments = shelf.check();
        assert_eq!(
            segments[0].header().begun.map(|begun| begun.cause),
            Some(Cause::First)
        );

        for (revision, past) in &past {
            let data_dir = shelf.dir.path().join(format!("r{revision}"));
            let to = revision.to_string();
            // Of the first backup: the second has the last of these, too, and another compaction.
            let made = shelf.restore("backup-1", &data_dir, &["--to-revision", &to]);
            let made = made.expect(0).json();
            assert_eq!(made["moment"]["hashKv"], past.hash, "revision {revision}");
            let recorded = &made["recorded"];
            assert_eq!(
                (&recorded["hashkv"], &recorded["backup"]),
                (&"equal".into(), &"backup-2".into())
            );
            golden::run(&["verify", "--data-dir", &text(&data_dir)], &[]).expect(0);
        }
        let store = text(&shelf.store());
        let listed = golden::run(&["list", &store, "--ranges", "-o", "json"], &[])
            .expect(0)
            .json();
        let reachable = &listed["clusters"][0];
        assert_eq!(reachable["gaps"], serde_json::json!([]));
        assert_eq!(
            (
                &reachable["ranges"][0]["from"],
                &reachable["ranges"][0]["to"]
            ),
            (&1.into(), &after.0.into())
        );
        let verified = golden::run(&["verify", "--ranges", &store, "-o", "json"], &[])
            .expect(0)
            .json();
        assert_eq!(verified["proofs"][0]["hashkv"], "equal", "{verified}");
        assert_eq!(verified["proofs"][1]["hashkv"], "notChecked", "{verified}");
        let logged = golden::run(&["log", "backup-2", "--store", &store, "-o", "json"], &[]);
        let logged = logged.expect(0).json();
        assert_eq!(logged["reachable"]["to"], after.0);
        assert_eq!(logged["reachable"]["clock"]["source"], "recorder");
        let (revision, past) = &past[1];
        holds(&cluster, &shelf, *revision, &past.kvs);
        let made = holds(&cluster, &shelf, after.0, &after.1);
        assert_eq!(made["recorded"]["hashkv"], "notChecked");
        assert_eq!(made["recorded"]["why"], "no later good backup has them");
    }
}

/// The leader changes, the watched member is stopped and comes back: one chain, and no gap.
#[test]
fn three_members_of_which_the_watched_one_is_restarted() {
    for bins in require_turn() {
        let mut random = Random(7);
        let mut cluster = cluster(bins, 3);
        let shelf = Shelf::new(&cluster);
        requests(&cluster, &mut random, 10);
        shelf.backup();
        let recorder = shelf.record(None);
        requests(&cluster, &mut random, 20);
        shelf.wait(cluster.revision(0));
        let leader = cluster.leader().unwrap();
        cluster.kill(leader);
        cluster.restart(leader);
        cluster.wait_healthy();
        requests(&cluster, &mut random, 20);
        cluster.stop(0);
        cluster.restart(0);
        cluster.wait_healthy();
        requests(&cluster, &mut random, 20);
        let (revision, then) = (cluster.revision(0), kvs(&cluster, None));
        shelf.wait(revision);
        let told = recorder.stop();
        assert!(told["reconnects"].as_u64().unwrap() > 0, "{told}");
        assert_eq!(shelf.chains().len(), 1);
        shelf.check();
        holds(&cluster, &shelf, revision, &then);
    }
}

/// Begun behind a compaction: what follows the newest backup is a gap with that cause.
#[test]
fn a_recorder_that_begins_behind_a_compaction_says_so() {
    for bins in require_turn() {
        let mut random = Random(4);
        let cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        shelf.backup();
        let before = cluster.revision(0);
        requests(&cluster, &mut random, 20);
        compact(&cluster);
        let recorder = shelf.record(None);
        let sealed = || {
            requests(&cluster, &mut random, 1);
            shelf.chains().pop().map(drop).ok_or("no chain")
        };
        wait_for("a chain", LIMIT, sealed).unwrap();
        let told = recorder.stop();
        let gap = serde_json::json!({
            "after": before,
            "until": shelf.chains()[0].1[0].first,
            "cause": "compacted",
        });
        assert_eq!(told["gaps"], serde_json::json!([gap]));
        let warned = told["stderr"].as_str().unwrap();
        assert!(
            warned.contains(&format!("what comes after revision {before} cannot be")),
            "{warned}"
        );
        shelf.backup();
        let store = text(&shelf.store());
        let listed = golden::run(&["list", &store, "--ranges", "-o", "json"], &[]);
        let listed = listed.expect(0).json();
        let listed = &listed["clusters"][0]["gaps"][0];
        assert_eq!(
            (&listed["after"], &listed["cause"]),
            (&before.into(), &"compacted".into())
        );
    }
}

/// Overtaken by a compaction: the gap is named, and the revisions in it are refused.
#[test]
fn a_recorder_that_was_away_for_too_long_begins_again() {
    for bins in require_turn() {
        let mut random = Random(3);
        let cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        shelf.backup();
        let recorder = shelf.record(None);
        requests(&cluster, &mut random, 10);
        let before = cluster.revision(0);
        shelf.wait(before);
        recorder.kill();
        requests(&cluster, &mut random, 20);
        compact(&cluster);
        let recorder = shelf.record(None);
        let begun = || match shelf.chains().len() {
            2 => Ok(()),
            _ => {
                requests(&cluster, &mut Random(cluster.revision(0) as u64), 2);
                Err("one chain")
            }
        };
        wait_for("a second chain", LIMIT, begun).unwrap();
        let told = recorder.stop();
        let warned = told["stderr"].as_str().unwrap();
        assert!(
            warned.contains("recording-gap") || warned.contains("cannot be recorded"),
            "{warned}"
        );
        let gap = &told["gaps"][0];
        assert_eq!(
            (&gap["after"], &gap["cause"]),
            (&before.into(), &"compacted".into())
        );
        let until = gap["until"].as_i64().unwrap();
        let to = shelf.dir.path().join("d");
        let reached = shelf.restore("latest", &to, &["--to-revision", &before.to_string()]);
        assert_eq!(reached.expect(0).json()["moment"]["revision"], before);
        let away = shelf.dir.path().join("away");
        let store = text(&shelf.store());
        let listed = golden::run(&["list", &store, "--ranges"], &[])
            .expect(0)
            .stdout;
        assert!(
            listed.contains(&format!("revisions 1 to {before} ")),
            "{listed}"
        );
        for missing in [before + 1, until] {
            let refused = shelf.restore("latest", &away, &["--to-revision", &missing.to_string()]);
            let refused = refused.expect(5).json();
            assert_eq!(
                refused["error"]["refusal"], "unreachable-target",
                "{refused}"
            );
        }
        // The next backup makes what follows reachable, and its own history what was before it.
        shelf.backup();
        let reached = shelf.restore("latest", &away, &["--to-revision", &until.to_string()]);
        assert_eq!(reached.expect(0).json()["moment"]["revision"], until);
        shelf.check();
        let listed = golden::run(&["list", &store, "--ranges", "-o", "json"], &[])
            .expect(0)
            .json();
        let gap = &listed["clusters"][0]["gaps"][0];
        assert_eq!(
            (&gap["after"], &gap["cause"]),
            (&before.into(), &"compacted".into())
        );
        let text = golden::run(&["list", &store, "--ranges"], &[])
            .expect(0)
            .stdout;
        assert!(
            text.contains("GAP: revisions") && text.contains("had compacted it"),
            "{text}"
        );
        // The last backup keeps its changes; the first chain leads nowhere without its own.
        let prune = [
            "prune",
            &store,
            "--keep-moments",
            "1h",
            "--explain",
            "-o",
            "json",
        ];
        let planned = golden::run(&[&prune[..], &["--dry-run"]].concat(), &[])
            .expect(0)
            .json();
        assert!(
            planned["decisions"].to_string().contains("keep-moments"),
            "{planned}"
        );
        assert_eq!(planned["changes"][0]["remove"], 0, "{planned}");
        let prune = ["prune", &store, "--keep-last", "1", "--yes", "-o", "json"];
        let pruned = golden::run(&prune, &[]).expect(0).json();
        assert_eq!(pruned["removed"], serde_json::json!(["backup-1"]));
        assert_eq!(shelf.chains().len(), 1, "{pruned}");
        shelf.check_left();
    }
}

/// Next to a schedule: each backup proves what was recorded since the one before, and the end seals.
#[test]
fn a_schedule_records_beside_its_backups() {
    for bins in require_turn() {
        let mut random = Random(6);
        let cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        let textfile = shelf.dir.path().join("etcd.prom");
        let schedule = shelf.schedule("@every 2s", &textfile);
        let proven = || {
            requests(&cluster, &mut random, 3);
            let metrics = std::fs::read_to_string(&textfile).unwrap_or_default();
            let has = |line: &str| metrics.lines().any(|known| known.starts_with(line));
            match has("etcd_dr_recording_proven 1") && has("etcd_dr_recording 1") {
                true => Ok(()),
                false => Err(metrics),
            }
        };
        wait_for("a backup to prove the changes", LIMIT, proven).unwrap();
        let revision = cluster.revision(0);
        schedule.end();
        assert_eq!(shelf.last(), revision);
        shelf.check();
    }
}

/// Killed at each changing call: every segment that is there is whole, and the next recorder continues.
#[test]
fn killed_at_each_changing_call() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        std::fs::create_dir(shelf.store()).unwrap();
        for call in 1..=14 {
            let recorder = shelf.record(Some(&format!("kill:{call}")));
            let mut recorder = Some(recorder);
            for i in 0..40 {
                cluster.etcdctl_ok(&["put", "k", &format!("{call}-{i}")]);
                let child = recorder.as_mut().and_then(|recorder| recorder.0.as_mut());
                if child.unwrap().try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(40));
            }
            recorder.take().unwrap().ended();
            shelf.check();
        }
        let revision = cluster.revision(0);
        let recorder = shelf.record(None);
        shelf.wait(revision);
        recorder.kill();
        shelf.check();
        assert_eq!(shelf.chains().len(), 1);
    }
}

/// Of another history, damaged, or not there: refused by name, and nothing is made.
#[test]
fn changes_that_are_not_sound_are_refused() {
    for bins in require_turn() {
        let mut random = Random(5);
        let cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        requests(&cluster, &mut random, 5);
        shelf.backup();
        let recorder = shelf.record(None);
        let mut revisions = Vec::new();
        for _ in 0..3 {
            requests(&cluster, &mut random, 8);
            revisions.push(cluster.revision(0));
            shelf.wait(cluster.revision(0));
        }
        shelf.backup();
        recorder.stop();
        let (dir, names) = shelf.chains().remove(0);
        assert!(names.len() >= 3, "{names:?}");
        let to = shelf.dir.path().join("d");
        let refused = |set: &str, revision: i64| {
            let run = shelf.restore(set, &to, &["--to-revision", &revision.to_string()]);
            let error = run.expect(5).json()["error"].clone();
            assert!(!to.exists());
            error["refusal"].as_str().unwrap().to_owned()
        };
        let path = dir.join(names[1].to_string());
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let inside = names[1].first;
        assert_eq!(refused("backup-1", inside), "damaged-segment");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(refused("backup-1", names[2].last), "unreachable-target");
        std::fs::write(&path, &whole).unwrap();
        // One that is sound by itself, of other content: the next backup knows better.
        let first = dir.join(names[0].to_string());
        let content = std::fs::read(&first).unwrap();
        let forged = forged(&content);
        std::fs::write(&first, forged).unwrap();
        assert_eq!(refused("backup-1", names[0].first), "segment-mismatch");
        std::fs::write(&first, content).unwrap();
        let run = shelf.restore("backup-1", &to, &["--to-revision", &inside.to_string()]);
        assert_eq!(run.expect(0).json()["recorded"]["backup"], "backup-2");
    }
}

/// The node is gone with its store; what was copied away, encrypted, leads to its last write.
#[test]
fn from_another_store_to_the_last_write() {
    for bins in require_turn() {
        let mut random = Random(8);
        let cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        let at = |name: &str| shelf.dir.path().join(name);
        let share = shelf.share();
        let (url, recipient) = (share.url.as_str(), share.recipient.as_str());
        let copies = ["--copy-to", url, "--compress", "--recipient", recipient];
        requests(&cluster, &mut random, 10);
        let store = text(&shelf.store());
        let backup = [&["backup", &store][..], &copies].concat();
        golden::run(&shelf.args(&backup), &[]).expect(0);
        let recorder = shelf.record_with(None, &copies);
        requests(&cluster, &mut random, 20);
        shelf.wait(cluster.revision(0));
        requests(&cluster, &mut random, 20);
        let (revision, then) = (cluster.revision(0), kvs(&cluster, None));
        shelf.wait(revision);
        recorder.stop();
        std::fs::remove_dir_all(shelf.store()).unwrap();

        let folder = |dir: &Path| {
            let entries = std::fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            entries.filter(|path| path.is_dir()).min().unwrap()
        };
        let node = folder(&folder(&share.dir));
        for entry in std::fs::read_dir(node.join("changes")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                name.ends_with(".age") && name.contains(".changes.zst."),
                "{name}"
            );
        }
        let set = format!("file://{}/latest", node.display());
        let (to, scratch) = (revision.to_string(), text(shelf.dir.path()));
        let network = Loopback::reserve();
        let peer = format!("http://{}:2380", network.ip(0));
        let initial = format!("default={peer}");
        let data_dir = at("d");
        let mut args = vec![
            "--to-revision",
            &to,
            "--bump-revision",
            "0",
            "--scratch",
            &scratch,
        ];
        args.extend([
            "--initial-cluster",
            &initial,
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        shelf.restore(&set, &at("x"), &args).expect(2);
        args.extend(["--identity", &share.identity]);
        let made = shelf.restore(&set, &data_dir, &args).expect(0).json();
        assert_eq!(made["recorded"]["toRevision"], revision);
        let restored = serve(bins, network, &[("default".to_owned(), data_dir)]);
        assert_eq!(restored.revision(0), revision);
        assert_eq!(kvs(&restored, None), then);
    }
}

/// The same segment with another byte in a value, and a hash that fits.
fn forged(content: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let segment = Segment::parse(content.to_vec()).unwrap();
    let puts = segment.records().filter(|record| !record.key.tombstone);
    let value = puts
        .map(|record| record.value.to_vec())
        .max_by_key(Vec::len)
        .unwrap();
    let at = content
        .windows(value.len())
        .position(|window| window == value)
        .unwrap();
    let mut forged = content[..content.len() - 32].to_vec();
    // Inside the user's value, which is the longest part of it.
    forged[at + value.len() / 2] ^= 1;
    let hash = Sha256::digest(&forged);
    forged.extend_from_slice(&hash);
    Segment::parse(forged.clone()).unwrap();
    forged
}
