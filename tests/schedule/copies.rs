//! A copy that fails is tried again in its period, then in the next, and for each set that lacks it.

use serde_json::Value;

use crate::bench::{Bench, path};

/// The sets of a list of copies, and whether each was made.
fn copied(list: &Value) -> Vec<(String, bool)> {
    let list = list.as_array().expect("a list").iter();
    list.map(|one| {
        let set = one["set"].as_str().expect("a name").to_owned();
        (set, one["error"].is_null())
    })
    .collect()
}

fn set(number: u32, made: bool) -> (String, bool) {
    (format!("backup-{number}"), made)
}

#[test]
fn failed_copies_are_made_later_and_no_copy_twice() {
    let Some(bench) = Bench::new() else { return };
    let share = bench.cluster.scratch().join("share");
    let url = format!("file://{}", share.display());
    // A plain file where the share's directory should be.
    std::fs::write(&share, "").expect("a file");
    let mut scheduled = bench.schedule("@every 8s", &["--copy-to", &url]);
    let first = scheduled.next();
    assert_eq!(
        (&first["result"], &first["status"]),
        (&"taken".into(), &10.into()),
        "{first}"
    );
    assert!(first["copies"][0]["error"].is_string(), "{first}");
    // The next period's backup is taken in any case, whether it begins before the copy is tried
    // again or after; a store that failed is asked once a run, for the newest set.
    let (mut taken, mut again) = (1, 0);
    while taken < 2 || again < 1 {
        let line = scheduled.next();
        if line["result"] == "caught-up" {
            again += 1;
            assert_eq!(line["status"], 10, "{line}");
            assert_eq!(copied(&line["caughtUp"]), [set(taken, false)], "{line}");
        } else {
            taken += 1;
            assert_eq!(line["result"], "taken", "{line}");
            assert_eq!(line["copies"].as_array().map(Vec::len), Some(1), "{line}");
            assert!(line["caughtUp"].is_null(), "{line}");
        }
    }
    scheduled.kill();

    // Owed copies survive a restart. The newest set is copied first.
    std::fs::remove_file(&share).expect("removing the file");
    std::fs::create_dir(&share).expect("a share");
    let mut scheduled = bench.schedule("@yearly", &["--copy-to", &url]);
    let line = scheduled.next();
    assert_eq!(line["result"], "caught-up", "{line}");
    assert_eq!(
        (&line["status"], &line["run"]),
        (&0.into(), &1.into()),
        "{line}"
    );
    let sets = bench.sets().len();
    let expected: Vec<_> = (1..=sets as u32)
        .rev()
        .map(|number| set(number, true))
        .collect();
    assert!(sets >= 2);
    assert_eq!(copied(&line["caughtUp"]), expected, "{line}");
    assert_eq!(scheduled.stop().1, Vec::<Value>::new());
    let listed = || {
        let copies = bench.run(&["list", &url, "-o", "json"]).expect(0).json();
        copies["sets"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(listed(), sets);
    let record = std::fs::read(bench.store.join("backup-1/copies.json")).expect("a record");
    let record: Value = serde_json::from_slice(&record).expect("JSON");
    testbench::schema::check("copies", &record);
    assert!(record["to"][&url]["made"].is_string(), "{record}");

    // A copy that was removed there counts as made, and stays removed.
    bench
        .run(&["prune", &url, "--keep-last", "1", "--yes"])
        .expect(0);
    assert_eq!(listed(), 1);
    let scheduled = bench.schedule("@yearly", &["--copy-to", &url]);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let (status, lines, stderr) = scheduled.stop();
    assert_eq!(
        (status, lines.len(), stderr.as_str()),
        (Some(0), 0, ""),
        "{lines:?}"
    );
    assert_eq!(listed(), 1);
}

#[test]
fn one_command_keeps_recent_backups_here_and_there() {
    let Some(bench) = Bench::new() else { return };
    let share = bench.cluster.scratch().join("share");
    let url = format!("file://{}", share.display());
    let store = path(&bench.store).to_owned();
    bench.run(&["backup", &store]).expect(0);
    let line = [
        "backup",
        &store,
        "--if-older-than",
        "1h",
        "--copy-to",
        &url,
        "-o",
        "json",
    ];
    std::fs::write(&share, "").expect("a file");
    let run = bench.run(&line).expect(10).json();
    assert_eq!(run["result"], "young-enough", "{run}");
    assert!(run["copies"][0]["error"].is_string(), "{run}");
    // The result, and what failed, as for any failure.
    assert_eq!(run["error"]["kind"], "partial", "{run}");
    assert_eq!(run["error"]["exitCode"], 10, "{run}");
    assert_eq!(run["error"]["message"], run["copies"][0]["error"], "{run}");
    std::fs::remove_file(&share).expect("removing the file");
    std::fs::create_dir(&share).expect("a share");
    let run = bench.run(&line).expect(0).json();
    assert_eq!(run["result"], "young-enough", "{run}");
    assert_eq!(run["copies"][0]["alreadyThere"], false, "{run}");
    let copies = bench.run(&["list", &url, "-o", "json"]).expect(0).json();
    assert_eq!(copies["sets"].as_array().map(Vec::len), Some(1), "{copies}");
    let run = bench.run(&line).expect(0).json();
    assert!(run["copies"].is_null(), "{run}");
    // A broken file is reported once, and not copied.
    let other = format!("file://{}", bench.cluster.scratch().join("other").display());
    std::fs::create_dir(bench.cluster.scratch().join("other")).expect("a share");
    spoil(&bench.store.join("backup-1"));
    let line = [
        "backup",
        &store,
        "--if-older-than",
        "1h",
        "--copy-to",
        &other,
        "-o",
        "json",
    ];
    let run = bench.run(&line).expect(10).json();
    assert!(run["copies"][0]["error"].is_string(), "{run}");
    let run = bench.run(&line).expect(0).json();
    assert!(run["copies"].is_null(), "{run}");
}

/// Turns a byte of a set's snapshot.
fn spoil(set: &std::path::Path) {
    let entries = std::fs::read_dir(set).expect("a set");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let snapshot = paths.filter(|path| path.extension().is_some_and(|end| end == "db"));
    let snapshot = snapshot.last().expect("a snapshot");
    let mut bytes = std::fs::read(&snapshot).expect("a snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&snapshot, bytes).expect("writing it");
}

/// A store that accepts connections and never answers.
#[test]
fn a_store_that_hangs_costs_no_backup() {
    let Some(bench) = Bench::new() else { return };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("its address");
    let (sender, held) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in silent.incoming() {
            if sender.send(stream).is_err() {
                return;
            }
        }
    });
    let env = [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", "a".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "b".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    let more = ["--copy-to", "s3://bucket/etcd", "--store-patience", "1h"];
    let mut scheduled = bench.schedule_with("@every 4s", &more, &env);
    let mut starts = Vec::new();
    for _ in 0..3 {
        // A run that begins just before its period ends leaves no time for a copy: none is tried.
        let tried = |line: &Value| line["copies"].as_array().is_some_and(|all| !all.is_empty());
        let (line, before) = scheduled.until(|line| line["result"] == "taken" && tried(line));
        assert!(before.len() < 6, "{before:?}");
        assert_eq!(line["status"], 10, "{line}");
        let why = line["copies"][0]["error"].as_str().expect("an error");
        assert!(why.contains("nothing more was sent"), "{line}");
        starts.push(line["period"]["start"].as_str().expect("a time").to_owned());
    }
    starts.dedup();
    assert_eq!(starts.len(), 3, "each in a period of its own");
    assert!(held.try_iter().count() > 0, "the store was asked");
    let (status, ..) = scheduled.stop();
    assert_eq!(status, Some(0));
}

#[test]
fn the_rules_prune_the_copies_only_where_that_is_asked_for() {
    let Some(bench) = Bench::new() else { return };
    let share = bench.cluster.scratch().join("share");
    std::fs::create_dir(&share).expect("a share");
    let url = format!("file://{}", share.display());
    let (store, file) = (
        path(&bench.store),
        bench.cluster.scratch().join("etcd-dr.prom"),
    );
    let rules = ["--keep-last", "1", "--textfile", path(&file), "-o", "json"];
    let line = [&["backup", store, "--copy-to", &url], &rules[..]].concat();
    let copies = || {
        let listed = bench.run(&["list", &url, "-o", "json"]).expect(0).json();
        listed["sets"].as_array().map_or(0, Vec::len)
    };
    for taken in 1..=2 {
        let run = bench.run(&line).expect(0).json();
        assert!(run["copies"][0]["pruned"].is_null(), "{run}");
        assert_eq!((bench.sets().len(), copies()), (1, taken));
    }
    let line = [&line[..], &["--keep-copies"]].concat();
    let run = bench.run(&line).expect(0).json();
    let removed = run["copies"][0]["pruned"]["removed"].as_array();
    assert_eq!(removed.map(Vec::len), Some(2), "{run}");
    assert_eq!((bench.sets().len(), copies()), (1, 1));
    let told = std::fs::read_to_string(&file).expect("the metrics");
    let of = |name: &str| {
        let series = format!("{name}{{store=\"{url}\"}}");
        crate::metrics::value(&told, &series).unwrap_or_else(|| panic!("{series}\n{told}"))
    };
    assert_eq!(of("etcd_dr_copies_reachable"), 1.0);
    assert!(of("etcd_dr_copies_size_bytes") > 1000.0);
    assert!(of("etcd_dr_copies_newest_timestamp_seconds") > 1.7e9);
    // A rule must be there to be applied.
    let line = ["backup", store, "--copy-to", &url, "--keep-copies"];
    bench.run(&line).expect(2);
}
