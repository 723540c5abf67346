//! `prune`: what it shows, asks and removes; and what `list` shows of a pinned set.

use std::path::Path;

use crate::golden;
use crate::shelf::{self, Shelf};
use testbench::golden::run;

/// Four good ones of four days, a dirty one between, and what is none of ours.
fn filled() -> Shelf {
    let shelf = Shelf::new();
    for number in 1..=5 {
        shelf.good(number);
        shelf.edit(number, |manifest| {
            manifest["created"] = format!("2025-06-0{number}T02:00:00Z").into();
        });
    }
    shelf.edit(3, |manifest| {
        manifest["created"] = "2025-06-03T02:00:00Z".into();
        manifest["quality"] = serde_json::json!({"state": "dirty", "reasons": [
            {"check": "before-first-cert-rotation", "message": "the cluster was created less than a day ago"}]});
    });
    shelf.pair(&shelf.store(), "2025-01-02_030405");
    std::os::unix::fs::symlink("backup-5", shelf.store().join("latest-backup")).expect("a link");
    shelf
}

fn sets(store: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(store).expect("the store");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name.starts_with("backup-") || name.starts_with(".removing"))
        .collect();
    names.sort();
    names
}

#[test]
fn what_would_go_is_shown_and_then_goes() {
    let shelf = filled();
    let (store, hide) = (shelf.store_text(), shelf.placeholders());
    std::fs::write(shelf.store().join("backup-1/pinned"), "").expect("a pin");
    golden(
        "prune-dry-run",
        &["prune", &store, "--keep-last", "2", "--dry-run"],
        &hide,
    )
    .expect(0);
    golden(
        "prune-explain",
        &[
            "prune",
            &store,
            "--keep-last",
            "2",
            "--dry-run",
            "--explain",
        ],
        &hide,
    )
    .expect(0);
    golden(
        "prune-json",
        &[
            "prune",
            &store,
            "--keep-last",
            "2",
            "--dry-run",
            "-o",
            "json",
        ],
        &hide,
    )
    .expect(0);
    assert_eq!(sets(&shelf.store()).len(), 5, "a dry run removes nothing");
    golden(
        "prune-unasked",
        &["prune", &store, "--keep-last", "2"],
        &hide,
    )
    .expect(2);
    assert_eq!(
        sets(&shelf.store()).len(),
        5,
        "nor does one that may not ask"
    );
    golden(
        "prune",
        &["prune", &store, "--keep-last", "2", "--yes"],
        &hide,
    )
    .expect(0);
    assert_eq!(sets(&shelf.store()), ["backup-1", "backup-4", "backup-5"]);
    golden(
        "prune-nothing",
        &["prune", &store, "--keep-last", "2"],
        &hide,
    )
    .expect(0);
    golden("list-pinned", &["list", &store], &hide).expect(0);
    let foreign = shelf.store().join("snapshot_2025-01-02_030405.db");
    assert!(foreign.is_file(), "what others made is not touched");
}

#[test]
fn a_rule_must_be_given() {
    let shelf = filled();
    let (store, hide) = (shelf.store_text(), shelf.placeholders());
    golden("prune-no-rule", &["prune", &store, "--yes"], &hide).expect(2);
    run(&["prune", &store, "--min-keep", "2", "--yes"], &[]).expect(2);
    run(&["prune", &store, "--keep-last", "0", "--yes"], &[]).expect(2);
    run(&["prune", &store, "--all", "--yes"], &[]).expect(2);
    run(
        &[
            "prune",
            &store,
            "--keep-daily",
            "2",
            "--time-zone",
            "Mars/Olympus",
        ],
        &[],
    )
    .expect(2);
    // A backup refuses what would be no rule before it takes anything.
    let backup = ["backup", &store, "--min-keep", "2", "--profile", "bare"];
    run(&backup, &[]).expect(2);
    assert_eq!(sets(&shelf.store()).len(), 5);
    let absent = shelf.dir().join("absent");
    let absent = absent.to_str().expect("UTF-8");
    run(&["prune", absent, "--keep-last", "1"], &[]).expect(6);
}

#[test]
fn the_rules_of_the_configuration_hold_where_no_option_says_one() {
    let shelf = filled();
    let store = shelf.store_text();
    let config = shelf.dir().join("config.toml");
    let with = |keep: &str, args: &[&str]| {
        std::fs::write(&config, keep).expect("a configuration");
        let path = config.to_str().expect("UTF-8");
        let mut all = vec!["--config", path, "prune", &store, "--yes"];
        all.extend(args);
        run(&all, &[])
    };
    let none = with("[copy]\ncompress = true\n", &[]).expect(2);
    assert!(none.stderr.contains("no rule says"), "{none}");
    with("[keep]\nlast = 1\n", &["--keep-last", "9", "--explain"]).expect(0);
    // The command line's replaces it; the dirty one goes by any rule.
    let four = ["backup-1", "backup-2", "backup-4", "backup-5"];
    assert_eq!(sets(&shelf.store()), four);
    with("[keep]\ndaily = 2\ntime-zone = \"UTC\"\n", &[]).expect(0);
    assert_eq!(sets(&shelf.store()), ["backup-4", "backup-5"]);
}

#[test]
fn a_set_that_failed_its_verification_does_not_count() {
    let shelf = filled();
    let store = shelf.store_text();
    shelf::flip(&shelf::snapshot(&shelf.store().join("backup-5")), -40);
    run(&["verify", "backup-5", "--store", &store], &[]).expect(3);
    run(&["verify", "backup-2", "--store", &store], &[]).expect(0);
    run(&["prune", &store, "--keep-last", "1", "--yes"], &[]).expect(0);
    // 4 is the newest good one, 2 the newest verified, and no good backup is newer than 5.
    assert_eq!(sets(&shelf.store()), ["backup-2", "backup-4", "backup-5"]);
}

#[test]
fn a_cluster_that_is_gone_is_cleared() {
    let shelf = filled();
    let store = shelf.store_text();
    shelf.edit(2, |manifest| {
        manifest["created"] = "2025-06-02T02:00:00Z".into();
        manifest["cluster"]["etcdId"] = "abc".into();
        manifest["cluster"]["uuid"] = "0c11".into();
    });
    run(&["prune", &store, "--cluster", "0c11", "--all"], &[]).expect(2);
    run(&["prune", &store, "--cluster", "0c11", "--yes"], &[]).expect(2);
    run(
        &["prune", &store, "--cluster", "0c11", "--all", "--yes"],
        &[],
    )
    .expect(0);
    assert_eq!(
        sets(&shelf.store()),
        ["backup-1", "backup-3", "backup-4", "backup-5"]
    );
}

#[test]
fn a_locked_store_is_busy_and_one_that_cannot_be_written_says_so() {
    let shelf = filled();
    let store = shelf.store_text();
    let lock = etcd_dr::store::LocalStore::at(shelf.store())
        .lock("backup")
        .expect("the lock");
    run(&["prune", &store, "--keep-last", "1", "--yes"], &[]).expect(7);
    drop(lock);
    // What an earlier removal left goes first, and says so.
    std::fs::create_dir(shelf.store().join(".removing-9")).expect("a leftover");
    let done = run(&["prune", &store, "--keep-last", "3", "--yes"], &[]).expect(0);
    assert!(
        done.stderr.contains(".removing-9 from an interrupted run"),
        "{done}"
    );
}

#[test]
fn backups_from_the_future_are_shown_and_take_no_place() {
    let shelf = Shelf::new();
    let created = [
        "2131-01-01T00:00:00Z",
        "2132-01-01T00:00:00Z",
        "2133-01-01T00:00:00Z",
        "2025-06-04T02:00:00Z",
        "2025-06-05T02:00:00Z",
    ];
    for (number, created) in (1..).zip(created) {
        shelf.good(number);
        shelf.edit(number, |manifest| manifest["created"] = created.into());
    }
    std::os::unix::fs::symlink("backup-3", shelf.store().join("latest-backup")).expect("a link");
    let store = shelf.store_text();
    let rules = ["--keep-last", "3", "--min-keep", "3", "--yes"];
    run(&[&["prune", store.as_str()][..], &rules].concat(), &[]).expect(0);
    assert_eq!(sets(&shelf.store()).len(), 5);
    run(&["prune", &store, "--keep-last", "1", "--yes"], &[]).expect(0);
    let left = ["backup-1", "backup-2", "backup-3", "backup-5"];
    assert_eq!(sets(&shelf.store()), left);

    let listed = run(&["list", &store], &[]).expect(0);
    assert!(listed.stdout.contains("backup-5 *"), "{}", listed.stdout);
    for name in &left[..3] {
        let told = format!("{name}: its time, 213");
        assert!(listed.stderr.contains(&told), "{}", listed.stderr);
    }
    assert!(!listed.stderr.contains("backup-5"), "{}", listed.stderr);
    let stale = run(&["list", &store, "--stale-after", "1h", "-o", "json"], &[]).expect(11);
    let stale: serde_json::Value = serde_json::from_str(&stale.stdout).expect("JSON");
    assert_eq!(stale["newestGood"], "backup-5");
    assert_eq!(stale["sets"][0]["fromTheFuture"], true);
    assert_eq!(stale["sets"][3]["fromTheFuture"], false);
    let verified = run(&["verify", "latest", "--store", &store], &[]);
    assert!(verified.stdout.contains("backup-5"), "{}", verified.stdout);
}

#[test]
fn a_directory_of_several_nodes_keeps_the_newest_of_each() {
    let shelf = Shelf::new();
    for number in 1..=4 {
        shelf.good(number);
        shelf.edit(number, |manifest| {
            manifest["created"] = format!("2025-06-0{number}T02:00:00Z").into();
        });
    }
    shelf.edit(1, |manifest| manifest["node"]["name"] = "another".into());
    shelf.edit(2, |manifest| {
        manifest["cluster"]["uuid"] = "another".into();
    });
    let store = shelf.store_text();
    run(&["prune", &store, "--keep-last", "1", "--yes"], &[]).expect(0);
    assert_eq!(sets(&shelf.store()), ["backup-1", "backup-2", "backup-4"]);
}
