//! `list`: every kind of set, in text and as JSON, and how stale is too stale.

use crate::golden;
use crate::shelf::Shelf;
use crate::support::golden::{Placeholders, run};

#[test]
fn one_of_each_kind() {
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
            "sharedBytes",
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
fn nothing_to_list() {
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
fn stale_or_not() {
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
    // A broken one does not count, however good it was.
    std::fs::remove_file(crate::shelf::snapshot(&shelf.store().join("backup-2"))).expect("loss");
    run(&["list", &store, "--stale-after", "90000d"], &[]).expect(11);
}
