//! One backup a period: neither fewer nor more, restarts or not.

use serde_json::Value;

use crate::bench::{Bench, path};

#[test]
fn each_period_has_one_backup_with_all_that_follows_it() {
    let Some(bench) = Bench::new() else { return };
    let share = bench.cluster.scratch().join("share");
    std::fs::create_dir(&share).expect("a share");
    let url = format!("file://{}", share.display());
    let more = ["--keep-last", "3", "--copy-to", &url];
    let mut scheduled = bench.schedule("@every 4s", &more);
    let lines: Vec<Value> = (0..5).map(|_| scheduled.next()).collect();
    let (status, rest, stderr) = scheduled.stop();
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{rest:?}");
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["command"], "schedule");
        assert_eq!(line["schemaVersion"], 1);
        assert_eq!(line["result"], "taken", "{line}");
        assert_eq!(line["status"], 0, "{line}");
        assert_eq!(line["run"], i + 1);
        assert_eq!(line["copies"].as_array().map(Vec::len), Some(1), "{line}");
        let verified = line["verified"].as_array().expect("a list");
        assert_eq!(verified.len(), usize::from(i > 0), "{line}");
        assert!(verified.iter().all(|one| one["good"] == true), "{line}");
    }
    let mut starts: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["period"]["start"].as_str())
        .collect();
    starts.dedup();
    assert_eq!(starts.len(), 5, "two in one period: {starts:?}");
    // The old ones were verified before they were pruned: another one each time.
    let turns: Vec<&Value> = lines[1..]
        .iter()
        .map(|line| &line["verified"][0]["set"])
        .collect();
    assert_eq!(turns[0], "backup-1");
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
    let sets = bench.sets();
    assert!((3..=4).contains(&sets.len()), "{sets:?}");
    assert!(sets.iter().all(|(_, state)| state == "good"), "{sets:?}");
    let copies = bench.run(&["list", &url, "-o", "json"]).expect(0).json();
    assert!(copies["sets"].as_array().map(Vec::len) >= Some(5));
}

#[test]
fn a_restart_repeats_no_backup_and_catches_up_once() {
    let Some(bench) = Bench::new() else { return };
    let mut first = bench.schedule("@yearly", &[]);
    assert_eq!(first.next()["result"], "taken");
    first.kill();
    // The second finds this year's backup, and waits.
    let mut second = bench.schedule("@yearly", &[]);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(second.lives());
    let (status, lines, stderr) = second.stop();
    assert_eq!((status, lines.len(), stderr.as_str()), (Some(0), 0, ""));
    assert_eq!(bench.sets().len(), 1);
    // The year before had one, this one has none: one is missed, and one is made up for.
    age(&bench.store.join("backup-1/backup.json"));
    let mut third = bench.schedule("@yearly", &[]);
    assert_eq!(third.next()["result"], "taken");
    std::thread::sleep(std::time::Duration::from_millis(700));
    let (status, lines, _) = third.stop();
    assert_eq!((status, lines.len()), (Some(0), 0), "{lines:?}");
    assert_eq!(bench.sets().len(), 2);
}

/// Makes a Manifest two years older.
fn age(manifest: &std::path::Path) {
    let text = std::fs::read_to_string(manifest).expect("a Manifest");
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    let created = value["created"].as_str().expect("a time");
    let year: u32 = created[..4].parse().expect("a year");
    value["created"] = format!("{}{}", year - 2, &created[4..]).into();
    std::fs::write(manifest, value.to_string()).expect("writing it");
}

#[test]
fn wrong_schedules_are_refused_at_the_start() {
    let store = tempfile::tempdir().expect("a folder");
    let at = path(store.path());
    for args in [
        &["schedule", "often", at] as &[&str],
        &["schedule", "0 0 31 2 *", at],
        &["schedule", "@hourly", "--flat", at],
        &["schedule", "@hourly", at, "--if-older-than", "1h"],
        &["schedule", "@hourly", at, "--copy-to", "ftp://host/x"],
        &["schedule", "@hourly", at, "--metrics-listen", "0.0.0.0:0"],
    ] {
        let run = testbench::golden::run(args, &[]).expect(2);
        assert_eq!(run.stdout, "", "{run}");
    }
}
