//! The store: full, running full, read-only, not ours to write, and the plain-files form.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::bench::{Node, assert_only_good, listed, text};
use testbench::bins;
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::folder::names;
use testbench::golden;
use testbench::kube::OpenShift;
use testbench::node::{NodeOptions, generator};
use testbench::process::expect_success;
use testbench::tmpfs::Tmpfs;

/// A member with some data and the node around it.
fn start(bytes: usize) -> Option<(Cluster, Node)> {
    let bins = bins::require("3.5")?;
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    Bulk::new(bytes / 500_000 + 1, 500_000).write(&cluster);
    OpenShift::default().write(&cluster);
    let node = Node::of(&cluster, 0, &NodeOptions::default());
    Some((cluster, node))
}

#[test]
fn a_full_file_system_leaves_no_backup() {
    let Some((cluster, node)) = start(20 << 20) else {
        return;
    };
    let Some(small) = Tmpfs::mount(&cluster.scratch().join("small"), "8m") else {
        return;
    };
    let store = small.path().join("store");
    let run = node.backup(&store, &[]).expect(6);
    for word in [text(small.path()), "bytes free, the backup needs"] {
        assert!(run.stderr.contains(word), "no {word:?} in {run}");
    }
    assert_eq!(run.json()["error"]["kind"], "store");
    assert_eq!(
        run.json()["error"]["refusal"],
        Value::Null,
        "nothing allows a full disk"
    );
    assert_only_good(&store, &[], &run);
    let forced = node.backup(&store, &["--force"]).expect(6);
    assert_only_good(&store, &[], &forced);

    // Space enough when it is looked at, and taken by another program while the snapshot comes.
    let Some(filling) = Tmpfs::mount(&cluster.scratch().join("filling"), "64m") else {
        return;
    };
    let store = filling.path().join("store");
    let mut running = node.start_backup(&store, &["--max-rate", "8MiB"]);
    running.wait_for_stream();
    let ballast = filling.fill("ballast");
    let run = running.finish().expect(6);
    // A write that fails, or the look at what is free before it: whichever comes first. A write that has
    // just failed may leave some pages free again.
    let causes = ["No space left on device", "must stay free"];
    assert!(
        causes.iter().any(|cause| run.stderr.contains(cause)),
        "{run}"
    );
    assert!(run.stderr.contains(text(&store)), "{run}");
    assert_only_good(&store, &[], &run);
    std::fs::remove_file(&ballast).expect("making room");
    node.good_backup(&store, &[]);

    // With one set there, a full file system still lists, verifies and says what it is.
    filling.fill("ballast");
    let run = node.backup(&store, &[]).expect(6);
    assert_only_good(&store, &["backup-1"], &run);
    let verified = node
        .run(&["verify", "--store", text(&store), "latest", "-o", "json"])
        .expect(0);
    assert_eq!(verified.json()["sets"][0]["good"], true);
}

/// What others need is not taken to the last byte: a twentieth beside etcd, which stops on a full disk,
/// and a hundredth elsewhere.
#[test]
fn a_snapshot_ends_before_its_file_system_is_full() {
    let Some((cluster, node)) = start(20 << 20) else {
        return;
    };
    let Some(filling) = Tmpfs::mount(&cluster.scratch().join("filling"), "400m") else {
        return;
    };
    let store = filling.path().join("store");
    let mut running = node.start_backup(&store, &["--max-rate", "4MiB"]);
    running.wait_for_stream();
    filling.leave_free("ballast", 19 << 19);
    let run = running.finish().expect(6);
    assert!(
        run.stderr
            .contains("bytes free, and 4194304 must stay free"),
        "{run}"
    );
    assert_only_good(&store, &[], &run);
    assert!(filling.free() >= 9 << 20, "what it took is free again");
}

#[test]
fn a_store_that_cannot_be_written_is_an_error() {
    let Some((cluster, node)) = start(1 << 20) else {
        return;
    };
    // Something else where the store should be.
    let file = cluster.scratch().join("file");
    std::fs::write(&file, "not a directory").expect("a file");
    for at in [file.clone(), file.join("below")] {
        let run = node.backup(&at, &[]).expect(6);
        assert!(run.stderr.contains(text(&file)), "{run}");
    }
    assert_eq!(
        std::fs::read_to_string(&file).expect("still there"),
        "not a directory"
    );

    let Some(mount) = Tmpfs::mount(&cluster.scratch().join("share"), "64m") else {
        return;
    };
    let store = mount.path().join("store");
    node.good_backup(&store, &[]);
    mount.remount("ro");
    let run = node.backup(&store, &[]).expect(6);
    assert!(run.stderr.contains("Read-only file system"), "{run}");
    // Reading works.
    assert_only_good(&store, &["backup-1"], &run);
    node.run(&["list", text(&store), "--stale-after", "1h"])
        .expect(0);
    let run = node
        .run(&["verify", "--store", text(&store), "--all", "-o", "json"])
        .expect(0);
    let report = &run.json()["sets"][0];
    assert_eq!(
        (&report["good"], &report["recorded"]),
        (&true.into(), &false.into()),
        "{run}"
    );
    node.backup(&store, &["--if-older-than", "1h"]).expect(0);
}

/// A user who may not: refused by name before anything is tried, and allowed by it the node's own
/// files say no.
#[test]
fn root_is_needed_on_a_node() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        return bins::skip("only root can become somebody else");
    }
    // All but the node's own files is open to everybody.
    let dir = tempfile::tempdir().expect("a folder");
    let open = |path: &Path| {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("opening it to everybody");
    };
    open(dir.path());
    let (root, program) = (dir.path().join("root"), dir.path().join("etcd-dr"));
    let made = generator()
        .arg(&root)
        .args(["--nodes", "master-0=127.1.9.4"])
        .output();
    expect_success("make-node.py", &made.expect("running python3"));
    open(&root);
    std::fs::copy(golden::binary(), &program).expect("copying the binary");
    open(&program);
    let store = dir.path().join("store");
    std::fs::create_dir(&store).expect("a store");
    let run = |more: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--",
        ]);
        command
            .arg(&program)
            .args(["--root", text(&root), "--node-name", "master-0", "backup"]);
        let output = command.arg(&store).args(more).env("NO_COLOR", "1").output();
        let output = output.expect("running setpriv");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (status, said) = run(&[]);
    assert_eq!(status, Some(5), "{said}");
    assert!(said.contains("[root-required]"), "{said}");
    assert!(said.contains("to run it as root: sudo "), "{said}");
    let (status, said) = run(&["--allow", "root-required"]);
    assert!(matches!(status, Some(2 | 6)), "{status:?} {said}");
    assert!(said.contains("Permission denied"), "{said}");
    assert!(said.contains("to run it as root: sudo "), "{said}");
    assert_eq!(std::fs::read_dir(&store).expect("the store").count(), 0);
}

#[test]
fn the_age_of_the_newest_good_set_decides() {
    let Some((cluster, node)) = start(1 << 20) else {
        return;
    };
    let store = cluster.scratch().join("store");
    // There is no store yet: one must be taken.
    let run = node.backup(&store, &["--if-older-than", "1h"]).expect(0);
    assert_eq!(run.json()["result"], "taken");
    let run = node.backup(&store, &["--if-older-than", "1h"]).expect(0);
    let result = run.json();
    assert_eq!(result["result"], "young-enough", "{run}");
    assert_eq!(result["set"], "backup-1");
    assert!(result["ageSeconds"].as_u64() < Some(600), "{run}");
    assert_only_good(&store, &["backup-1"], &run);
    // It is recent enough, even if etcd cannot be asked.
    let nowhere = [
        "--if-older-than",
        "1h",
        "--endpoints",
        "https://127.0.0.1:1",
    ];
    node.backup(&store, &nowhere).expect(0);

    std::thread::sleep(std::time::Duration::from_millis(1100));
    let run = node.backup(&store, &["--if-older-than", "1s"]).expect(0);
    assert_eq!(run.json()["result"], "taken");
    assert_only_good(&store, &["backup-1", "backup-2"], &run);

    // A dirty one does not count, nor one from the future, nor one with a file missing.
    age_manifests(&store, "2020-01-01T00:00:00Z");
    let young = OpenShift {
        created: jiff::Timestamp::now().to_string(),
        ..OpenShift::default()
    };
    young.write(&cluster);
    node.backup(&store, &["--allow", "before-first-cert-rotation"])
        .expect(0);
    OpenShift::default().write(&cluster);
    let run = node.backup(&store, &["--if-older-than", "1h"]).expect(0);
    assert_eq!(run.json()["result"], "taken");
    age_manifests(&store, "2120-01-01T00:00:00Z");
    let run = node.backup(&store, &["--if-older-than", "1h"]).expect(0);
    assert_eq!(run.json()["result"], "taken");
    let snapshot = listed(&store)["sets"][4]["files"]["snapshot"].clone();
    std::fs::remove_file(snapshot.as_str().expect("a path")).expect("losing the snapshot");
    for set in 1..5 {
        std::fs::remove_dir_all(store.join(format!("backup-{set}"))).expect("losing a set");
    }
    let run = node.backup(&store, &["--if-older-than", "1h"]).expect(0);
    assert_eq!(run.json()["result"], "taken");
    assert_eq!(
        run.json()["manifest"]["id"],
        "backup-6",
        "numbers only grow"
    );
}

/// Rewrites when the sets of a store claim to be from.
fn age_manifests(store: &Path, created: &str) {
    for entry in std::fs::read_dir(store).expect("the store") {
        let path = entry.expect("an entry").path().join("backup.json");
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        let mut manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
        manifest["created"] = created.into();
        std::fs::write(&path, manifest.to_string()).expect("writing a Manifest");
    }
}

#[test]
fn runs_within_one_second_are_two_backups() {
    let Some((cluster, node)) = start(1 << 20) else {
        return;
    };
    let store = cluster.scratch().join("store");
    let runs: Vec<_> = (0..4).map(|_| node.backup(&store, &[]).expect(0)).collect();
    let names = ["backup-1", "backup-2", "backup-3", "backup-4"];
    for (run, name) in runs.iter().zip(names) {
        assert_eq!(run.json()["manifest"]["id"], name);
        assert_only_good(&store, &names, run);
    }
    node.run(&["verify", "--all", "--store", text(&store)])
        .expect(0);
    let latest = std::fs::read_link(store.join("latest-backup")).expect("a link");
    assert_eq!(latest, Path::new("backup-4"));

    // All at once: each either is done or says that it is busy; none is lost or mixed.
    let store = cluster.scratch().join("crowded");
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| node.backup(&store, &[])))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a run"))
            .collect::<Vec<_>>()
    });
    let done = all.iter().filter(|run| run.status == Some(0)).count();
    assert!(
        done >= 1 && all.iter().all(|run| matches!(run.status, Some(0 | 7))),
        "{all:?}"
    );
    let names: Vec<_> = (1..=done).map(|n| format!("backup-{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_only_good(&store, &names, &all[0]);
    node.run(&["verify", "--all", "--store", text(&store)])
        .expect(0);
}

#[test]
fn plain_files_as_the_stock_script_leaves_them() {
    let Some((cluster, node)) = start(1 << 20) else {
        return;
    };
    let dir = cluster.scratch().join("flat");
    let run = node
        .run(&["backup", "--flat", text(&dir), "-o", "json"])
        .expect(0);
    let result = run.json();
    assert_eq!(
        (&result["isSet"], &result["directory"]),
        (&false.into(), &text(&dir).into())
    );
    let names = |dir: &Path| {
        let mut names = names(dir);
        names.retain(|name| !name.starts_with('.'));
        names
    };
    let stamp = {
        let created: jiff::Timestamp = result["manifest"]["created"]
            .as_str()
            .expect("a time")
            .parse()
            .expect("RFC 3339");
        created.strftime("%Y-%m-%d_%H%M%S").to_string()
    };
    assert_eq!(
        names(&dir),
        [
            format!("snapshot_{stamp}.db"),
            format!("static_certs_{stamp}.tar.gz"),
            format!("static_kuberesources_{stamp}.tar.gz"),
        ]
    );
    for name in names(&dir) {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.join(&name))
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    let sets = listed(&dir);
    assert_eq!(sets["sets"].as_array().map(Vec::len), Some(1), "{sets}");
    let set = &sets["sets"][0];
    assert_eq!(
        (&set["state"], &set["markedDirty"]),
        (&"foreign".into(), &false.into())
    );
    for kind in ["snapshot", "resources", "certificates"] {
        assert!(set["files"][kind].is_string(), "{set}");
    }
    node.run(&["verify", text(&dir)]).expect(0);

    // What was not well when it was taken shows in the names, as the script's --force did.
    let rolling = OpenShift {
        progressing: vec!["etcd"],
        ..OpenShift::default()
    };
    rolling.write(&cluster);
    let dirty = cluster.scratch().join("dirty");
    let run = node.run(&["backup", "--flat", text(&dirty)]).expect(5);
    assert!(names(&dirty).is_empty(), "{run}");
    node.run(&["backup", "--flat", text(&dirty), "--force"])
        .expect(0);
    let left = names(&dirty);
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(
        left.iter().all(|name| name.contains("__POSSIBLY_DIRTY__.")),
        "{left:?}"
    );
    let set = &listed(&dirty)["sets"][0];
    assert_eq!(
        (&set["state"], &set["markedDirty"]),
        (&"foreign".into(), &true.into())
    );
}
