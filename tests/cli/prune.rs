//! `prune`: what it shows, asks and removes; and what `list` shows of a pinned set.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::golden;
use crate::sample_stores::{self, Shelf};
use testbench::folder::names;
use testbench::golden::run;

/// Four good backups from four days, a dirty one between them, and files of others.
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
    let mut names = names(store);
    names.retain(|name| name.starts_with("backup-") || name.starts_with(".removing"));
    names
}

#[test]
fn prune_shows_what_it_removes_and_removes_it() {
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
    // A backup refuses an invalid rule before it takes anything.
    let backup = ["backup", &store, "--min-keep", "2", "--profile", "bare"];
    run(&backup, &[]).expect(2);
    assert_eq!(sets(&shelf.store()).len(), 5);
    let absent = shelf.dir().join("absent");
    let absent = absent.to_str().expect("UTF-8");
    run(&["prune", absent, "--keep-last", "1"], &[]).expect(6);
}

#[test]
fn the_configurations_rules_hold_if_no_option_gives_one() {
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
    sample_stores::flip(
        &sample_stores::snapshot(&shelf.store().join("backup-5")),
        -40,
    );
    run(&["verify", "backup-5", "--store", &store], &[]).expect(3);
    run(&["verify", "backup-2", "--store", &store], &[]).expect(0);
    run(&["prune", &store, "--keep-last", "1", "--yes"], &[]).expect(0);
    // 4 is the newest good one, 2 the newest verified, and no good backup is newer than 5.
    assert_eq!(sets(&shelf.store()), ["backup-2", "backup-4", "backup-5"]);
}

#[test]
fn all_backups_of_one_cluster_are_removed_on_request() {
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
    // The leftovers of an earlier removal are removed first, and reported.
    std::fs::create_dir(shelf.store().join(".removing-9")).expect("a leftover");
    let done = run(&["prune", &store, "--keep-last", "3", "--yes"], &[]).expect(0);
    assert!(
        done.stderr.contains(".removing-9 from an interrupted run"),
        "{done}"
    );
    std::fs::create_dir(shelf.store().join(".removing-9")).expect("a leftover");
    let events = [
        "--progress",
        "json",
        "prune",
        &store,
        "--keep-last",
        "2",
        "--yes",
    ];
    let done = run(&events, &[]).expect(0);
    assert!(
        done.stderr.contains("\"event\":\"leftover-removed\""),
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

/// The rules that the page of promises names, of which `prune` gives each decision at least one.
fn promised_reasons() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/interface.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, section) = page.split_once("## What prune removes").expect("a section");
    let (_, table) = section.split_once("| reason |").expect("its table");
    let (table, _) = table.split_once("| elsewhere |").expect("the next table");
    let (rows, rest): (Vec<&str>, Vec<&str>) =
        table.lines().partition(|line| line.starts_with('|'));
    let first = rows.iter().filter_map(|row| row.split('|').nth(1));
    let named: Vec<&str> = first.chain(rest).collect();
    let named = named.join("\n");
    let words = named.split('`').skip(1).step_by(2);
    words
        .filter(|word| !word.starts_with("--"))
        .map(str::to_owned)
        .collect()
}

/// Ten sets, of which each rule has something to say.
fn of_every_standing(now: jiff::Timestamp) -> Shelf {
    let shelf = Shelf::new();
    let ago = |hours: i64| (now - jiff::SignedDuration::from_hours(hours)).to_string();
    let created = |number: u32, at: String| {
        shelf.good(number);
        shelf.edit(number, |manifest| manifest["created"] = at.into());
    };
    let dirty = |number: u32, at: String| {
        shelf.good(number);
        shelf.edit(number, |manifest| {
            manifest["created"] = at.into();
            manifest["quality"] = serde_json::json!({"state": "dirty", "reasons": [
                {"check": "etcd-alarm", "message": "NOSPACE"}]});
        });
    };
    let store = shelf.store_text();
    created(1, ago(900));
    run(&["verify", "backup-1", "--store", &store], &[]).expect(0);
    created(2, ago(800));
    dirty(3, ago(700));
    created(4, ago(600));
    std::fs::remove_file(sample_stores::snapshot(&shelf.store().join("backup-4"))).expect("a part");
    created(5, ago(500));
    sample_stores::flip(
        &sample_stores::snapshot(&shelf.store().join("backup-5")),
        -40,
    );
    run(&["verify", "backup-5", "--store", &store], &[]).expect(3);
    std::fs::write(shelf.store().join("backup-5/pinned"), "").expect("a pin");
    created(6, ago(3));
    std::fs::remove_file(sample_stores::snapshot(&shelf.store().join("backup-6"))).expect("a part");
    created(7, ago(2));
    dirty(8, ago(1));
    created(9, ago(-900));
    shelf.pair(&shelf.store(), "2025-01-02_030405");
    std::os::unix::fs::symlink("backup-7", shelf.store().join("latest-backup")).expect("a link");
    shelf
}

/// A restore of this node that was made from a set and can still be rolled back.
fn restored_from(shelf: &Shelf, set: &str, now: jiff::Timestamp) -> String {
    use etcd_dr::journal::Begin;
    use etcd_dr::journal::{Journal, Record, SCHEMA};
    let root = shelf.dir().join("node");
    let dir = root.join("var/lib/etcd-dr/restore-1");
    std::fs::create_dir_all(&dir).expect("a folder");
    let begin = Begin {
        schema: SCHEMA,
        tool: "1.0.0".to_owned(),
        id: "restore-1".to_owned(),
        kind: "restore".to_owned(),
        about: serde_json::json!({"set": {"dir": shelf.store().join(set)}}),
        steps: Vec::new(),
    };
    let mut journal = Journal::create(&dir, begin, now).expect("a journal");
    journal.append(Record::Completed, now).expect("a record");
    root.to_str().expect("UTF-8").to_owned()
}

#[test]
fn every_promised_reason_is_given_for_a_set_that_has_it() {
    let now = jiff::Timestamp::now();
    let shelf = of_every_standing(now);
    let store = shelf.store_text();
    let root = restored_from(&shelf, "backup-2", now);
    let every = "--keep-last 1 --keep-hourly 1 --keep-daily 1 --keep-weekly 1 --keep-monthly 1 \
                 --keep-within 1d --min-keep 1 --keep-ocp-versions";
    let mut given: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let elsewhere = shelf.dir().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).expect("a node without operations");
    let elsewhere = elsewhere.display().to_string();
    let mut decide = |root: &str, rules: &str| {
        let mut args = vec!["--root", root, "prune", store.as_str()];
        args.extend(rules.split(' '));
        args.extend(["--dry-run", "-o", "json"]);
        let document = run(&args, &[]).expect(0).json();
        for decision in document["decisions"].as_array().expect("decisions") {
            for reason in decision["reasons"].as_array().expect("reasons") {
                let word = |value: &serde_json::Value| value.as_str().expect("a word").to_owned();
                let sets = given.entry(word(&reason["rule"])).or_default();
                sets.insert(word(&decision["name"]));
            }
        }
    };
    decide(&root, every);
    decide(&root, "--keep-last 1");
    decide(&elsewhere, "--keep-last 1");
    decide(&root, "--max-size 1TiB");
    decide(&root, "--keep-within 5000d --max-size 1");
    shelf.edit(1, |manifest| manifest["cluster"]["uuid"] = "5b1e".into());
    decide(&root, "--cluster 5b1e --all");
    for (rule, set) in [
        ("newest-verified", "backup-1"),
        ("in-use", "backup-2"),
        ("unwanted", "backup-2"),
        ("cluster", "backup-1"),
        ("dirty", "backup-3"),
        ("incomplete", "backup-4"),
        ("pinned", "backup-5"),
        ("failed-verification", "backup-5"),
        ("recent-incomplete", "backup-6"),
        ("newest-good", "backup-7"),
        ("no-newer-good", "backup-8"),
        ("from-the-future", "backup-9"),
    ] {
        let sets = given.get(rule);
        assert!(
            sets.is_some_and(|sets| sets.contains(set)),
            "{rule}: {sets:?}"
        );
    }
    let mut given: BTreeSet<String> = given.into_keys().collect();
    // The suite `schedule` has it, with a real etcd.
    given.insert("newest-rehearsed".to_owned());
    // The suite `moment` has it, with recorded changes.
    given.insert("keep-moments".to_owned());
    // The suite `trust` has these, with keys and signatures.
    let of_trust = [
        "unsigned-backup",
        "unknown-signer",
        "wrong-signer",
        "dated-back",
        "out-of-order",
    ];
    given.extend(of_trust.map(str::to_owned));
    assert_eq!(given, promised_reasons());
}
