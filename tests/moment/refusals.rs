//! What cannot be reached is refused with what can, and changes nothing.

use serde_json::Value;

use crate::bench::{Random, cluster, restore, save, text, work};
use testbench::bins::require_turn;
use testbench::golden;

fn refused(error: &Value) -> String {
    assert_eq!(error["refusal"], "unreachable-target");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn revisions_that_are_not_there() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        work(&cluster, &mut Random(3), 80, 40);
        let snapshot = save(&cluster);
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("d");
        let now = cluster.revision(0);
        for revision in [1, 2, now + 1, i64::MAX] {
            let to = revision.to_string();
            let run = restore(&snapshot, &data_dir, &["--to-revision", &to]).expect(5);
            let message = refused(&run.json()["error"]);
            assert!(
                message.contains(&format!("revision {revision} cannot be reached")),
                "{message}"
            );
            assert!(
                message.contains(&format!(" to {now} (no object in it has a time)")),
                "{message}"
            );
            assert!(!data_dir.exists());
        }
        let run = restore(&snapshot, &data_dir, &["--to-time", "10m"]).expect(5);
        assert!(refused(&run.json()["error"]).contains("no times are known"));
        let run = restore(&snapshot, &data_dir, &["--to-before", "pod/prod/none"]).expect(5);
        assert!(refused(&run.json()["error"]).contains("neither deleted nor changed"));
        assert!(!data_dir.exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn words_that_mean_nothing_or_too_much() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        cluster.etcdctl_ok(&["put", "/registry/a.example.com/things/x/one", "1"]);
        cluster.etcdctl_ok(&["put", "/registry/b.example.com/things/x/one", "1"]);
        let snapshot = save(&cluster);
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("d");
        let run = restore(&snapshot, &data_dir, &["--to-before", "things/x/one"]).expect(2);
        let message = run.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains("names several keys: /registry/a.example.com/"),
            "{message}"
        );
        let args = ["--to-before", "things.b.example.com/x/one"];
        let made = restore(&snapshot, &data_dir, &args).expect(0).json();
        assert_eq!(made["moment"]["revision"], 2);
        for args in [
            &["--to-revision", "0"] as &[&str],
            &["--to-revision", "x"],
            &["--to-time", "yesterday"],
            &["--to-revision", "5", "--to-time", "5m"],
        ] {
            restore(&snapshot, &dir.path().join("e"), args).expect(2);
        }
        let own = text(cluster.data_dir(0));
        let to = text(&dir.path().join("f"));
        let args = [
            "restore",
            "--from-data-dir",
            &own,
            "--data-dir",
            &to,
            "--to-revision",
            "3",
        ];
        golden::run(&args, &[]).expect(2);
    }
}

/// A broken snapshot stays a broken snapshot.
#[test]
fn a_damaged_snapshot_is_not_restored_to_a_moment() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        work(&cluster, &mut Random(4), 80, 40);
        let snapshot = save(&cluster);
        let mut bytes = std::fs::read(&snapshot).unwrap();
        let middle = bytes.len() / 2;
        for byte in &mut bytes[middle..middle + 4096] {
            *byte ^= 0x55;
        }
        std::fs::write(&snapshot, &bytes).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("d");
        let to = (cluster.revision(0) - 1).to_string();
        restore(&snapshot, &data_dir, &["--to-revision", &to]).expect(3);
        std::fs::write(&snapshot, b"\x1f\x8b and more").unwrap();
        restore(&snapshot, &data_dir, &["--to-revision", &to]).expect(3);
        assert!(!data_dir.exists());
    }
}
