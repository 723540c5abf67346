//! A kill, a failure or a full disk at every changing call: the directory is absent or complete.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use etcd_dr::etcd::datadir::Layout;

use crate::bench::{judge, made_up, scratch};
use testbench::database::model::{Op, Store};
use testbench::database::writer::{Shape, seal, write};
use testbench::golden::etcd_dr;
use testbench::replay::{self, Disk, Replay, Tree};

/// How a run is set up.
#[derive(Debug, Clone, Copy)]
struct Setup {
    name: &'static str,
    /// Whether the data directory is there, empty.
    existing: bool,
    outer_wal: bool,
    compact: bool,
}

const SETUPS: [Setup; 3] = [
    Setup {
        name: "absent",
        existing: false,
        outer_wal: false,
        compact: false,
    },
    Setup {
        name: "existing",
        existing: true,
        outer_wal: false,
        compact: true,
    },
    Setup {
        name: "outer",
        existing: false,
        outer_wal: true,
        compact: false,
    },
];

struct Run {
    dir: tempfile::TempDir,
    setup: Setup,
}

impl Run {
    fn new(setup: Setup, snapshot: &[u8]) -> Self {
        let dir = scratch();
        fs::write(dir.path().join("snapshot.db"), snapshot).unwrap();
        fs::create_dir(dir.path().join("place")).unwrap();
        if setup.existing {
            fs::create_dir(dir.path().join("place/data")).unwrap();
        }
        Self { dir, setup }
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("place/data")
    }

    fn wal_dir(&self) -> Option<PathBuf> {
        self.setup
            .outer_wal
            .then(|| self.dir.path().join("place/wal"))
    }

    fn go(&self, seam: Option<String>) -> Output {
        let mut command = etcd_dr();
        command
            .args(["--progress", "never", "restore"])
            .arg(self.dir.path().join("snapshot.db"))
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--store")
            .arg(self.dir.path().join("none"))
            .args(["--bump-revision", "1000", "--mark-compacted"]);
        if let Some(wal) = self.wal_dir() {
            command.arg("--wal-dir").arg(wal);
        }
        if self.setup.compact {
            command.arg("--compact");
        }
        if let Some(seam) = seam {
            command.env("ETCD_DR_SEAM", seam);
        }
        command.output().unwrap()
    }

    /// Whether the directory is complete; if not, nothing of it is there.
    fn complete(&self) -> bool {
        complete(&self.data_dir(), self.wal_dir().as_deref())
    }

    /// What is in or next to the directory and does not belong there.
    fn hidden(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for dir in [self.dir.path().join("place"), self.data_dir()] {
            for entry in fs::read_dir(dir).into_iter().flatten() {
                let entry = entry.unwrap();
                if entry.file_name().to_string_lossy().starts_with('.') {
                    found.push(entry.path());
                }
            }
        }
        found
    }
}

fn complete(data_dir: &Path, wal_dir: Option<&Path>) -> bool {
    if !data_dir.join("member").exists() {
        let visible = fs::read_dir(data_dir)
            .into_iter()
            .flatten()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                !name.to_string_lossy().starts_with(".etcd-dr-restore-")
            });
        assert_eq!(visible.count(), 0);
        return false;
    }
    // The log's zeros are many calls, and are tested elsewhere.
    let wal = Layout::new(data_dir, wal_dir).wal;
    let log = wal.join("0000000000000000-0000000000000000.wal");
    let log = fs::OpenOptions::new().write(true).open(log).unwrap();
    log.set_len(log.metadata().unwrap().len().min(65_536))
        .unwrap();
    judge(data_dir, wal_dir).is_good()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn snapshot() -> Vec<u8> {
    made_up(&Shape::default(), 30).1
}

#[test]
fn a_kill_at_every_changing_call_leaves_all_or_nothing() {
    let snapshot = snapshot();
    for setup in SETUPS {
        let counting = Run::new(setup, &snapshot);
        let counted = counting.dir.path().join("calls");
        let output = counting.go(Some(format!("count:{}", counted.display())));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(counting.complete());
        let calls: u64 = fs::read_to_string(&counted).unwrap().parse().unwrap();
        assert!(calls > 20, "{calls}");
        let (mut nothing, mut all) = (0, 0);
        for call in 1..=calls {
            let what = format!("{} killed at call {call}", setup.name);
            let run = Run::new(setup, &snapshot);
            let killed = run.go(Some(format!("kill:{call}")));
            assert_eq!(killed.status.signal(), Some(9), "{what}");
            if run.complete() {
                all += 1;
                continue;
            }
            nothing += 1;
            let left = run.hidden().len();
            let again = run.go(None);
            let told = text(&again.stderr);
            assert!(again.status.success(), "{what}: {told}");
            assert!(run.complete(), "{what}");
            assert_eq!(run.hidden(), Vec::<PathBuf>::new(), "{what}");
            assert!(
                told.matches("interrupted run").count() >= left,
                "{what}: {told}"
            );
        }
        println!(
            "{}: {calls} kills, {nothing} left nothing, {all} all",
            setup.name
        );
        assert!(nothing > 20 && all >= 1);
    }
}

#[test]
fn a_full_disk_and_a_failing_one_leave_all_or_nothing() {
    let snapshot = snapshot();
    for setup in SETUPS {
        for mode in ["full", "fail"] {
            let mut failures = 0;
            for call in 1.. {
                let what = format!("{} {mode} at call {call}", setup.name);
                let run = Run::new(setup, &snapshot);
                let words = if mode == "fail" { ":5" } else { "" };
                let failed = run.go(Some(format!("{mode}:{call}{words}")));
                if failed.status.success() {
                    break;
                }
                failures += 1;
                let told = text(&failed.stderr);
                assert_eq!(failed.status.code(), Some(6), "{what}: {told}");
                let done = run.complete();
                if mode == "fail" && !done {
                    // The disk works again, so that it cleans up.
                    assert_eq!(run.hidden(), Vec::<PathBuf>::new(), "{what}");
                    assert!(run.wal_dir().is_none_or(|wal| !wal.exists()), "{what}");
                }
                if !done && call % 4 == 0 {
                    let again = run.go(None);
                    assert!(again.status.success(), "{what}: {}", text(&again.stderr));
                    assert!(run.complete());
                }
            }
            println!("{} {mode}: {failures} failures", setup.name);
            assert!(failures > 20);
        }
    }
}

/// Replays a recording with every legal loss of what was not yet fsynced.
#[test]
fn a_power_cut_at_every_call_leaves_all_or_nothing() {
    for setup in SETUPS {
        let run = Run::new(setup, &snapshot());
        let base = run.dir.path().join("place");
        let start = Disk::load(&base);
        let record = run.dir.path().join("record");
        let output = run.go(Some(format!("record:{}", record.display())));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let calls = replay::read(&record);
        let recorded = Replay::new(start, &calls);
        let mut known: BTreeMap<Tree, bool> = BTreeMap::new();
        let mut judged = |tree: &Tree| -> bool {
            if let Some(known) = known.get(tree) {
                return *known;
            }
            let dir = scratch();
            replay::lay_out(tree, dir.path());
            let wal = setup.outer_wal.then(|| dir.path().join("wal"));
            let data_dir = dir.path().join("data");
            let whole = std::panic::catch_unwind(|| complete(&data_dir, wal.as_deref()));
            let whole = whole.unwrap_or_else(|_| {
                panic!("{}: what is left is neither: {:?}", setup.name, tree.keys())
            });
            known.insert(tree.clone(), whole);
            whole
        };
        let mut states = 0;
        for count in 0..=calls.len() {
            for tree in recorded.after(count, None) {
                states += 1;
                let whole = judged(&tree);
                assert!(count < calls.len() || whole, "reported, and not there");
            }
        }
        println!("{}: {} calls, {states} states", setup.name, calls.len());
    }
}

/// What is written in order is judged as it comes back from the disk, and nothing else stands between
/// such a disk and a directory that is reported as made.
#[test]
fn a_disk_that_changes_loses_or_moves_what_is_rewritten_makes_no_directory() {
    let mut store = Store::new();
    for n in 0..4000 {
        let key = format!("/registry/pods/{n}").into_bytes();
        store.txn(vec![Op::Put(key, vec![n as u8; 1900], 0)]);
    }
    let snapshot = seal(write(&store.buckets(), &Shape::default()).bytes);
    assert!(snapshot.len() > 7 << 20, "{} bytes", snapshot.len());
    let run = Run::new(SETUPS[1], &snapshot);
    for lie in ["flip:1", "flip:2", "drop:1", "drop:3", "swap:1", "swap:2"] {
        let failed = run.go(Some(lie.to_owned()));
        let told = text(&failed.stderr);
        assert_eq!(failed.status.code(), Some(1), "{lie}: {told}");
        assert!(
            told.contains("the disk returns other bytes than were written"),
            "{lie}: {told}"
        );
        assert!(!run.complete() && run.hidden().is_empty(), "{lie}");
    }
    // A lie that never comes: so it is the lies that fail, not the seam.
    let made = run.go(Some("flip:1000".to_owned()));
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(run.complete());
}
