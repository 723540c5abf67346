//! `verify` against real members: a set compared with the running cluster, a stopped or killed
//! member's own files, and what is recorded of a verification.

mod rehearse;

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use testbench::bins::EtcdBins;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::{Run, run};

/// A one-member cluster without TLS, and a store beside it.
struct Bench {
    cluster: Cluster,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn start(bins: &EtcdBins) -> Self {
        let cluster = Cluster::start(ClusterSpec::new(bins, 1).plain());
        for i in 0..20 {
            cluster.etcdctl_ok(&["put", &format!("/registry/configmaps/k{i}"), "value"]);
        }
        cluster.etcdctl_ok(&["del", "/registry/configmaps/k3"]);
        Self {
            cluster,
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    fn etcd_dr(&self, args: &[&str]) -> Run {
        let url = self.cluster.client_url(0);
        let mut all = vec![
            "--profile",
            "bare",
            "--progress",
            "never",
            "--endpoints",
            &url,
        ];
        all.extend(args);
        run(&all, &[])
    }

    fn backup(&self) {
        self.etcd_dr(&["backup", self.store().to_str().unwrap()])
            .expect(0);
    }

    fn live(&self, set: &str) -> (Option<i32>, String) {
        let store = self.store();
        let args = [
            "verify",
            set,
            "--live",
            "-o",
            "json",
            "--store",
            store.to_str().unwrap(),
        ];
        let run = self.etcd_dr(&args);
        let state = run.json()["sets"][0]["live"]["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (run.status, state)
    }
}

#[test]
fn a_set_is_of_the_running_members_history_or_not() {
    for bins in testbench::bins::require_all() {
        let mut bench = Bench::start(bins);
        bench.backup();
        assert_eq!(
            bench.live("backup-1"),
            (Some(0), "same".to_owned()),
            "{}",
            bins.version
        );

        // Later writes change nothing of what the backup holds.
        bench
            .cluster
            .etcdctl_ok(&["put", "/registry/configmaps/k4", "later"]);
        bench
            .cluster
            .etcdctl_ok(&["del", "/registry/configmaps/k5"]);
        assert_eq!(
            bench.live("backup-1"),
            (Some(0), "same".to_owned()),
            "{}",
            bins.version
        );

        // Compacted below the backup's revision: the snapshot's hash is made with that compaction.
        bench.cluster.etcdctl_ok(&["compact", "10"]);
        assert_eq!(
            bench.live("backup-1"),
            (Some(0), "same".to_owned()),
            "{}",
            bins.version
        );

        // Compacted at the newest revision and not written to since: the hash that the compaction
        // made is of another compaction, and a new one is asked for.
        bench.backup();
        let newest = bench.cluster.revision(0).to_string();
        bench
            .cluster
            .etcdctl_ok(&["compact", &newest, "--physical"]);
        bench.backup();
        assert_eq!(
            bench.live("latest"),
            (Some(0), "same".to_owned()),
            "{}",
            bins.version
        );

        // Compacted beyond it, nothing can be said.
        bench.cluster.etcdctl_ok(&["put", "x", "z"]);
        bench
            .cluster
            .etcdctl_ok(&["compact", &bench.cluster.revision(0).to_string()]);
        bench.cluster.etcdctl_ok(&["put", "x", "y"]);
        let compacted = bench.live("backup-1");
        assert_eq!(
            compacted,
            (Some(12), "not-checked".to_owned()),
            "{}",
            bins.version
        );

        bench.cluster.kill(0);
        assert_eq!(bench.live("backup-3"), (Some(12), "not-checked".to_owned()));
    }
}

#[test]
fn another_history_is_distinguished() {
    let Some(bins) = testbench::bins::require("3.5") else {
        return;
    };
    let bench = Bench::start(&bins);
    bench.backup();
    // Another cluster: told by its id.
    let other = Bench::start(&bins);
    let store = bench.store();
    let store = store.to_str().unwrap();
    let foreign = other.etcd_dr(&["verify", "backup-1", "--live", "--store", store]);
    assert_eq!(foreign.status, Some(11), "{}", foreign.stdout);
    assert!(
        foreign.stdout.contains("the backup belongs to cluster"),
        "{}",
        foreign.stdout
    );
    // The bare file has no id: told by the data.
    let snapshot = std::fs::read_dir(bench.store().join("backup-1"))
        .unwrap()
        .flatten();
    let snapshot = snapshot
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "db"));
    let copy = bench.scratch.path().join("copy.db");
    std::fs::copy(snapshot.unwrap(), &copy).unwrap();
    let behind = Cluster::start(ClusterSpec::new(&bins, 1).plain());
    let url = behind.client_url(0);
    let args = [
        "--profile",
        "bare",
        "--endpoints",
        &url,
        "--progress",
        "never",
        "verify",
        copy.to_str().unwrap(),
        "--live",
    ];
    let run_behind = run(&args, &[]);
    assert_eq!(run_behind.status, Some(11), "{}", run_behind.stdout);
    assert!(
        run_behind.stdout.contains("but the member is only at 1"),
        "{}",
        run_behind.stdout
    );
    for i in 0..30 {
        behind.etcdctl_ok(&["put", &format!("other{i}"), "value"]);
    }
    let run_differs = run(&args, &[]);
    assert_eq!(run_differs.status, Some(11), "{}", run_differs.stdout);
    assert!(
        run_differs.stdout.contains("in the backup and"),
        "{}",
        run_differs.stdout
    );
}

#[test]
fn a_members_own_files_are_judged_once_it_has_stopped() {
    for bins in testbench::bins::require_all() {
        let mut bench = Bench::start(bins);
        let revision = bench.cluster.revision(0);
        let dir = bench.cluster.data_dir(0).to_owned();
        let check = |bench: &Bench| {
            bench.etcd_dr(&["verify", "--data-dir", dir.to_str().unwrap(), "-o", "json"])
        };

        let running = check(&bench);
        assert_eq!(running.status, Some(12), "{}", running.stderr);
        assert!(
            running.stderr.contains("a running etcd holds"),
            "{}",
            running.stderr
        );

        bench.cluster.kill(0);
        let killed = check(&bench);
        assert_eq!(
            killed.status,
            Some(0),
            "{}\n{}",
            killed.stdout,
            killed.stderr
        );
        let report = killed.json();
        assert_eq!(report["good"], true);
        let known = report["database"]["facts"]["revision"].as_i64().unwrap();
        let beyond = report["wal"]["beyondDatabase"]["keyWrites"]
            .as_i64()
            .unwrap();
        assert!(
            known <= revision && known + beyond >= revision,
            "{known} + {beyond}, served {revision}"
        );

        // A crash in mid-write leaves a torn tail, which etcd repairs; a changed byte in the
        // middle is corruption.
        let wal = newest_segment(&dir.join("member/wal"));
        let bytes = std::fs::read(&wal).unwrap();
        let mut damaged = OpenOptions::new().write(true).open(&wal).unwrap();
        let at = bytes
            .windows(7)
            .position(|part| part == b"configm")
            .unwrap();
        damaged.seek(SeekFrom::Start(at as u64)).unwrap();
        damaged.write_all(b"X").unwrap();
        let corrupt = check(&bench);
        assert_eq!(corrupt.status, Some(3), "{}", corrupt.stdout);
        let corrupt = corrupt.json();
        let layers = corrupt["layers"].as_array().unwrap();
        let failed: Vec<_> = layers
            .iter()
            .filter(|layer| layer["state"] == "failed")
            .collect();
        assert!(
            failed.iter().any(|layer| layer["layer"] == "wal"),
            "{failed:?}"
        );
        let finding = &corrupt["findings"][0];
        assert!(
            finding["file"].as_str().unwrap().ends_with(".wal") && !finding["place"].is_null(),
            "{finding}"
        );
    }
}

fn newest_segment(dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.extension().is_some_and(|e| e == "wal"))
        .max()
        .unwrap()
}

#[test]
fn a_verification_is_recorded_beside_a_manifest_that_never_changes() {
    let Some(bins) = testbench::bins::require("3.5") else {
        return;
    };
    let bench = Bench::start(&bins);
    bench.backup();
    let set = bench.store().join("backup-1");
    let manifest = std::fs::read(set.join("backup.json")).unwrap();
    let store = bench.store();
    let store = store.to_str().unwrap();
    assert!(bench.etcd_dr(&["list", "-o", "json", store]).json()["sets"][0]["verified"].is_null());

    bench
        .etcd_dr(&["verify", "latest", "--store", store])
        .expect(0);
    let verified = &bench.etcd_dr(&["list", "-o", "json", store]).json()["sets"][0]["verified"];
    assert_eq!(verified["good"], true, "{verified}");

    let snapshot = newest_with(&set, "db");
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    bench
        .etcd_dr(&["verify", "backup-1", "--store", store])
        .expect(3);
    let verified = &bench.etcd_dr(&["list", "-o", "json", store]).json()["sets"][0]["verified"];
    assert_eq!(verified["good"], false, "{verified}");
    let failed = verified["failed"].as_array().unwrap();
    assert!(
        failed.iter().any(|layer| layer == "trailer")
            && failed.iter().any(|layer| layer == "manifest")
    );
    assert_eq!(std::fs::read(set.join("backup.json")).unwrap(), manifest);
}

fn newest_with(dir: &Path, ending: &str) -> PathBuf {
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .max()
        .unwrap()
}
