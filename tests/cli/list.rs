//! `list`: every kind of set, in text and as JSON, and how stale is too stale.

use crate::golden;
use crate::sample_stores::Shelf;
use testbench::golden::{Placeholders, run};

#[test]
fn every_kind_of_backup_is_listed() {
    let shelf = Shelf::one_of_each();
    let (store, hide) = (shelf.store_text(), shelf.placeholders());
    golden("list", &["list", &store], &hide).expect(0);
    let json = golden("list-json", &["list", &store, "-o", "json"], &hide)
        .expect(0)
        .json();
    assert_eq!(
        (&json["schemaVersion"], &json["command"]),
        (&1.into(), &"list".into())
    );
    assert_eq!(
        (&json["latest"], &json["newestGood"]),
        (&"backup-12".into(), &"backup-12".into())
    );
    for set in json["sets"].as_array().expect("sets") {
        let mut keys: Vec<_> = set.as_object().expect("an object").keys().collect();
        keys.sort();
        let expected = [
            "created",
            "directory",
            "files",
            "fromTheFuture",
            "latest",
            "manifest",
            "markedDirty",
            "name",
            "pinned",
            "problems",
            "reachable",
            "rehearsed",
            "sharedBytes",
            "signature",
            "size",
            "state",
            "verified",
        ];
        assert_eq!(keys, expected);
    }
    // The same store in the node's own place, found by itself and through the environment.
    let root = shelf.dir().join("root");
    std::fs::create_dir_all(root.join("etc/kubernetes")).expect("a root");
    let own = root.join("etc/kubernetes/static-pod-backups");
    std::os::unix::fs::symlink(&store, &own).expect("a link");
    let by_root = run(&["--root", root.to_str().expect("UTF-8"), "list"], &[]).expect(0);
    let by_variable = run(&["list"], &[("ETCD_DR_STORE", store.clone())]).expect(0);
    let by_argument = run(&["list", &store], &[]).expect(0);
    assert_eq!(by_root.stdout, by_argument.stdout);
    assert_eq!(by_variable.stdout, by_argument.stdout);
}

#[test]
fn an_empty_store_is_listed() {
    let shelf = Shelf::new();
    let (store, hide) = (shelf.store_text(), shelf.placeholders());
    golden("list-empty", &["list", &store], &hide).expect(0);
    golden("list-empty-json", &["list", &store, "-o", "json"], &hide).expect(0);
    golden(
        "list-empty-stale",
        &["list", &store, "--stale-after", "2h"],
        &hide,
    )
    .expect(11);
    let absent = shelf.dir().join("absent");
    let absent = absent.to_str().expect("UTF-8");
    golden("list-absent", &["list", absent], &hide).expect(6);
    golden("list-absent-json", &["list", absent, "-o", "json"], &hide).expect(6);
    // The default store need not exist before the first backup.
    let root = shelf.dir().to_str().expect("UTF-8");
    golden("list-default-absent", &["--root", root, "list"], &hide).expect(0);
    golden(
        "list-url",
        &["list", "ftp://host/path"],
        &Placeholders::default(),
    )
    .expect(2);
    std::fs::write(shelf.dir().join("file"), "x").expect("a file");
    let file = shelf.dir().join("file");
    golden("list-file", &["list", file.to_str().expect("UTF-8")], &hide).expect(6);
}

#[test]
fn a_stale_listing_exits_with_11() {
    let shelf = Shelf::new();
    let (store, hide) = (shelf.store_text(), shelf.placeholders());
    shelf.dirty(1);
    golden(
        "stale-only-dirty",
        &["list", &store, "--stale-after", "9999d"],
        &hide,
    )
    .expect(11);
    shelf.good(2);
    golden("stale", &["list", &store, "--stale-after", "2h"], &hide).expect(11);
    let stale = run(&["list", &store, "--stale-after", "2h", "-o", "json"], &[]).expect(11);
    assert_eq!(stale.json()["stale"], true, "{stale}");
    let fresh = run(
        &["list", &store, "--stale-after", "90000d", "-o", "json"],
        &[],
    )
    .expect(0);
    assert_eq!(fresh.json()["stale"], false, "{fresh}");
    assert_eq!(fresh.stderr, "");
    let unasked = run(&["list", &store, "-o", "json"], &[]).expect(0);
    assert_eq!(unasked.json()["stale"], serde_json::Value::Null);
    // A broken one does not count, even if it was good once.
    std::fs::remove_file(crate::sample_stores::snapshot(
        &shelf.store().join("backup-2"),
    ))
    .expect("loss");
    run(&["list", &store, "--stale-after", "90000d"], &[]).expect(11);
}

/// The store is an argument of some commands and an option of others; both are accepted.
#[test]
fn a_store_is_taken_as_an_argument_and_as_an_option() {
    let shelf = Shelf::new();
    shelf.good(1);
    let store = shelf.store_text();
    let by_argument = run(&["list", &store], &[]).expect(0);
    assert!(by_argument.stdout.contains("backup-1"), "{by_argument}");
    let by_option = run(&["list", "--store", &store], &[]).expect(0);
    assert_eq!(by_option.stdout, by_argument.stdout);
    // An option wins over the environment.
    let variable = [("ETCD_DR_STORE", "/nonexistent".to_owned())];
    let by_option = run(&["list", "--store", &store], &variable).expect(0);
    assert_eq!(by_option.stdout, by_argument.stdout);
    let pruned = run(
        &["prune", "--store", &store, "--keep-last", "1", "--dry-run"],
        &[],
    );
    pruned.expect(0);
    let twice = run(&["list", "/elsewhere", "--store", &store], &[]).expect(2);
    assert!(twice.stderr.contains("given twice"), "{twice}");
}

/// A script's `VAR=$UNSET`: no command has a value of nothing.
#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let shelf = Shelf::new();
    shelf.good(1);
    let store = shelf.store_text();
    let empty = [
        "ETCD_DR_ROOT",
        "ETCD_DR_CONFIG",
        "ETCD_DR_PROFILE",
        "ETCD_DR_NODE_NAME",
        "ETCD_DR_ENDPOINTS",
        "ETCD_DR_CACERT",
        "ETCD_DR_CERT",
        "ETCD_DR_KEY",
        "ETCD_DR_OUTPUT",
        "ETCD_DR_PROGRESS",
        "ETCD_DR_COLOR",
        "ETCD_DR_STORE",
        "ETCD_DR_STORE_CA",
        "ETCD_DR_STORE_PATIENCE",
        "ETCD_DR_DETACH",
        "ETCDCTL_ENDPOINTS",
        "ETCDCTL_CACERT",
        "ETCDCTL_CERT",
        "ETCDCTL_KEY",
    ]
    .map(|name| (name, String::new()));
    let listed = run(&["list", &store], &empty).expect(0);
    assert_eq!(listed.stdout, run(&["list", &store], &[]).expect(0).stdout);
    let asked = ["--profile", "bare", "--endpoints", "http://127.0.0.1:1"];
    let asked = [&asked[..], &["verify", "--cluster"]].concat();
    let with = run(&asked, &empty);
    assert_eq!(with.stdout, run(&asked, &[]).stdout, "{with}");
}

/// The node's store is a link below /etc, which is lost with it; its backups are not.
#[test]
fn backups_are_found_without_the_link_and_a_dangling_link_is_not_an_empty_store() {
    let shelf = Shelf::new();
    shelf.good(1);
    let root = shelf.dir().join("root");
    let kept = root.join("var/lib/etcd-dr");
    std::fs::create_dir_all(root.join("etc/kubernetes")).expect("a root");
    std::fs::create_dir_all(&kept).expect("a root");
    std::fs::rename(shelf.store(), kept.join("static-pod-backups")).expect("moving the store");
    let root_text = root.to_str().expect("UTF-8");
    let listed = run(&["--root", root_text, "list"], &[]).expect(0);
    assert!(listed.stdout.contains("backup-1"), "{listed}");
    assert!(
        listed.stderr.contains("static-pod-backups is missing") && listed.stderr.contains("link"),
        "{listed}"
    );
    run(&["--root", root_text, "verify", "latest"], &[]).expect(0);
    let link = root.join("etc/kubernetes/static-pod-backups");
    std::os::unix::fs::symlink("/nonexistent/volume", &link).expect("a link");
    let dangling = run(&["--root", root_text, "list"], &[]).expect(6);
    assert!(
        dangling.stderr.contains("/nonexistent/volume"),
        "{dangling}"
    );
    let nowhere = run(&["--root", "/nonexistent", "list"], &[]).expect(2);
    assert!(
        nowhere.stderr.contains("there is no such directory"),
        "{nowhere}"
    );
}

#[test]
fn a_path_and_its_url_show_the_same() {
    let shelf = Shelf::new();
    shelf.good(1);
    let store = shelf.store_text();
    let share = shelf.dir().join("share");
    std::fs::create_dir(&share).expect("a share");
    let share = share.to_str().expect("UTF-8");
    let url = |path: &str| format!("file://{path}");
    run(&["copy", "backup-1", &url(share), "--store", &store], &[]).expect(0);
    for place in [share, &store] {
        let by_path = run(&["list", place], &[]).expect(0);
        assert!(by_path.stdout.contains("backup-1"), "{by_path}");
        let by_url = run(&["list", &url(place)], &[]).expect(0);
        assert_eq!(by_path.stdout, by_url.stdout);
    }
}

/// What is nearly a URL is not taken for a path, and the error says so.
#[test]
fn a_mistyped_url_says_what_was_expected() {
    let shelf = Shelf::new();
    let share = shelf.store_text();
    for (typed, expected) in [
        (
            format!("{share}://x"),
            "expected s3, gs, az, sftp or file before ://",
        ),
        ("s3:/bucket/etcd".to_owned(), "two slashes and a bucket"),
        ("S3:bucket".to_owned(), "two slashes and a bucket"),
        ("file:share".to_owned(), "expected file:///PATH"),
        (
            "sftp:host/etcd".to_owned(),
            "expected sftp://USER@HOST/PATH",
        ),
        (
            "s4://bucket/etcd".to_owned(),
            "the schemes are s3, gs, az, sftp and file",
        ),
    ] {
        for command in ["list", "backup"] {
            let run = run(&[command, &typed], &[]).expect(2);
            assert!(run.stderr.contains(expected), "{run}");
            assert!(!run.stderr.contains("without a base"), "{run}");
        }
    }
    let below = run(&["verify", &format!("file://{share}/x/y/latest")], &[]).expect(2);
    assert!(below.stderr.contains("CLUSTER/NODE/backup-N"), "{below}");
}

/// Pipes under the names of a set's files: opening one waits for who writes to it.
#[test]
fn a_pipe_in_a_set_is_a_problem_of_that_set_alone() {
    let shelf = Shelf::new();
    for number in 1..=5 {
        shelf.good(number);
    }
    let names = ["backup.json", "verified.json", "shared.json", "copies.json"];
    for (number, name) in (2..).zip(names) {
        let path = shelf.store().join(format!("backup-{number}")).join(name);
        let _ = std::fs::remove_file(&path);
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo").success());
    }
    let store = shelf.store_text();
    let listed = run(&["list", &store, "-o", "json"], &[]).expect(0);
    let sets: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let states: Vec<_> = (0..5).map(|place| &sets["sets"][place]["state"]).collect();
    assert_eq!(states, ["good", "incomplete", "good", "good", "good"]);
    assert!(listed.stderr.contains("not a plain file"), "{listed}");
    run(&["prune", &store, "--keep-last", "9"], &[]).expect(0);
    run(&["verify", "backup-3", "--store", &store], &[]).expect(0);
}
