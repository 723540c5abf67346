//! What a crash in the middle of `prune` leaves: every set that is listed is whole and good.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use etcd_dr::keep::catalog;
use etcd_dr::store::LocalStore;

use crate::{inspect, text};
use testbench::replay::{self, Disk, Replay};

const SETS: u64 = 4;

/// A store of good sets, a day apart.
fn filled(store: &Path) {
    std::fs::create_dir_all(store).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/store/backup-1");
    for number in 1..=SETS {
        let set = store.join(format!("backup-{number}"));
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&fixture)
            .arg(&set)
            .status();
        assert!(copied.unwrap().success());
        let path = set.join("backup.json");
        let mut manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        manifest["id"] = format!("backup-{number}").into();
        manifest["created"] = format!("2026-11-0{number}T00:00:00Z").into();
        std::fs::write(&path, manifest.to_string()).unwrap();
    }
    let latest = store.join("latest-backup");
    std::os::unix::fs::symlink(format!("backup-{SETS}"), latest).unwrap();
}

fn prune(store: &Path, seam: Option<String>) -> Output {
    let mut command = testbench::golden::etcd_dr();
    command.args(["--progress", "never", "prune", "--keep-last", "2", "--yes"]);
    command.arg(store);
    if let Some(seam) = seam {
        command.env("ETCD_DR_SEAM", seam);
    }
    command.output().unwrap()
}

/// Every numbered set there is must be good; returns them.
fn whole(store: &Path) -> Result<Vec<String>, String> {
    let sets = catalog::list(&LocalStore::at(store)).map_err(|failure| failure.to_string())?;
    let broken: Vec<_> = sets.iter().filter(|set| !set.is_good()).collect();
    if !broken.is_empty() {
        return Err(format!("listed and not whole: {broken:?}"));
    }
    let good = inspect(store)?;
    for newest in ["backup-3", "backup-4"] {
        if !good.iter().any(|name| name == newest) {
            return Err(format!("{newest} is gone; there are {good:?}"));
        }
    }
    Ok(good)
}

#[test]
fn a_kill_or_a_failure_at_every_changing_call_leaves_whole_sets_only() {
    for kind in ["kill:N", "fail:N:5"] {
        let mut runs = 0;
        for call in 1u64.. {
            let scratch = tempfile::tempdir().unwrap();
            let store = scratch.path().join("store");
            filled(&store);
            let ended = prune(&store, Some(kind.replace('N', &call.to_string())));
            if ended.status.success() {
                break;
            }
            runs += 1;
            let told = text(&ended.stderr);
            if kind.starts_with("kill") {
                assert_eq!(ended.status.signal(), Some(9), "{told}");
            } else {
                assert!([Some(6), Some(10)].contains(&ended.status.code()), "{told}");
            }
            whole(&store).unwrap_or_else(|why| panic!("{kind}, call {call}: {why}"));
            let next = prune(&store, None);
            assert!(
                next.status.success(),
                "{kind}, call {call}: {}",
                text(&next.stderr)
            );
            assert_eq!(whole(&store).unwrap(), ["backup-3", "backup-4"]);
            let left = std::fs::read_dir(&store).unwrap().flatten();
            let left: Vec<_> = left
                .map(|entry| entry.file_name())
                .filter(|name| name.to_string_lossy().starts_with(".removing"))
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
        println!("{kind}: {runs} runs");
        assert!(runs > 10);
    }
}

#[test]
fn every_legal_loss_of_unsynced_removals_is_survived() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    filled(&store);
    let base = Disk::load(scratch.path());
    let recording = tempfile::NamedTempFile::new().unwrap();
    let done = prune(
        &store,
        Some(format!("record:{}", recording.path().display())),
    );
    assert!(done.status.success(), "{}", text(&done.stderr));
    let calls = replay::read(recording.path());
    let replay = Replay::new(base, &calls);
    let mut known = std::collections::BTreeMap::new();
    let mut states = 0;
    let mut judge = |tree: &replay::Tree| -> Result<(), String> {
        let judged = known.entry(tree.clone()).or_insert_with(|| {
            let dir = tempfile::tempdir().unwrap();
            replay::lay_out(tree, dir.path());
            whole(&dir.path().join("store")).map(|_| ())
        });
        judged.clone()
    };
    for count in 0..=calls.len() {
        for tree in replay.after(count, None) {
            states += 1;
            judge(&tree).unwrap_or_else(|why| panic!("crash after call {count}: {why}"));
        }
    }
    // The one fsync, of the store after the renames, is needed.
    let syncs: Vec<usize> = (0..calls.len()).filter(|&i| calls[i].is_sync()).collect();
    assert_eq!(syncs.len(), 1, "{calls:?}");
    let noticed = (0..=calls.len()).any(|count| {
        replay
            .after(count, Some(syncs[0]))
            .iter()
            .any(|tree| judge(tree).is_err())
    });
    assert!(noticed, "the store is no worse without its fsync");
    println!("{} calls, {states} states survived", calls.len());
}
