//! Retention against forged times, as in github.com/restic/restic/issues/22057: somebody may only add
//! backups to a store, chooses their times, and leaves the removal of the real ones to whoever prunes.

use serde_json::Value;

use testbench::golden::Run;

use crate::bench::{Bench, origin, run, sign, text};

/// The real backups: one a day.
const DAYS: [&str; 6] = [
    "2026-06-01T02:00:00Z",
    "2026-06-02T02:00:00Z",
    "2026-06-03T02:00:00Z",
    "2026-06-04T02:00:00Z",
    "2026-06-05T02:00:00Z",
    "2026-06-06T02:00:00Z",
];

/// A share with the real backups, which arrived in time, and six by an intruder.
fn attacked(
    bench: &Bench,
    key: Option<&std::path::Path>,
    forged: impl Fn(u32) -> (String, String),
) {
    bench.chain(&DAYS, key);
    for (number, day) in (1..).zip(DAYS) {
        bench.share(number, day);
    }
    for number in 7..=12 {
        let (created, arrived) = forged(number - 6);
        let dir = bench.set(number, &created, |_| ());
        if let Some(key) = key {
            sign(key, &dir.join("backup.json"));
        }
        bench.share(number, &arrived);
    }
}

/// Which of the backups a prune removes, and the first reason for each that it keeps.
fn pruned(run: &Run) -> (Vec<u32>, Vec<(u32, String)>) {
    let document = run.json();
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for decision in document["decisions"].as_array().expect("decisions") {
        let word = |value: &Value| value.as_str().expect("text").to_owned();
        let name = word(&decision["name"]);
        let number = name
            .rsplit('-')
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a number");
        match word(&decision["verdict"]).as_str() {
            "remove" => gone.push(number),
            _ => kept.push((number, word(&decision["reasons"][0]["rule"]))),
        }
    }
    (gone, kept)
}

fn prune(bench: &Bench, rule: &[&str]) -> Run {
    let url = bench.url();
    let prune = ["prune", &url, "--dry-run", "-o", "json"];
    run(&[&prune[..], rule].concat()).expect(0)
}

#[test]
fn backups_dated_into_the_future_displace_none_even_when_their_time_has_come() {
    let bench = Bench::new();
    // Still to come.
    attacked(&bench, None, |n| {
        (format!("2999-01-0{n}T02:00:00Z"), DAYS[5].to_owned())
    });
    let (gone, kept) = pruned(&prune(&bench, &["--keep-last", "3"]));
    assert_eq!(gone, [1, 2, 3], "{kept:?}");
    assert!(
        kept[3..].iter().all(|(_, rule)| rule == "from-the-future"),
        "{kept:?}"
    );
    assert_eq!(kept.len(), 9);

    // They waited for their time: it was a week ahead when they arrived.
    let bench = Bench::new();
    attacked(&bench, None, |n| {
        (format!("2026-06-1{n}T02:00:00Z"), DAYS[5].to_owned())
    });
    for rule in [["--keep-last", "3"], ["--keep-daily", "3"]] {
        let (gone, kept) = pruned(&prune(&bench, &rule));
        assert_eq!(gone, [1, 2, 3], "{kept:?}");
        assert!(
            kept[3..].iter().all(|(_, rule)| rule == "dated-ahead"),
            "{kept:?}"
        );
    }
    // Really done, the real ones are still there, and latest of them is the newest that counts.
    let url = bench.url();
    run(&["prune", &url, "--keep-last", "3", "--yes"]).expect(0);
    for number in 4..=12 {
        assert!(
            bench.shared(number).join("backup.json").exists(),
            "{number}"
        );
    }
}

#[test]
fn backups_dated_into_the_past_by_a_stolen_key_take_no_places() {
    let bench = Bench::new();
    let key = bench.key("stolen", &["-t", "ed25519"]);
    let signers = bench.signers("signers", &[(&origin().1, &key)]);
    // Later on each of the real days, so that they are the newest of them; all came on the last day.
    attacked(&bench, Some(&key), |n| {
        (
            format!("2026-06-0{n}T20:00:00Z"),
            "2026-06-07T01:00:00Z".to_owned(),
        )
    });
    // Nobody asks who: a time in the past may be a copy that was made late.
    let daily = ["--keep-daily", "6"];
    assert_eq!(pruned(&prune(&bench, &daily)).0, [1, 2, 3, 4, 5, 6]);
    let trusting = ["--keep-daily", "6", "--allowed-signers", text(&signers)];
    let (gone, kept) = pruned(&prune(&bench, &trusting));
    assert_eq!(gone, [0u32; 0], "{kept:?}");
    let dated: Vec<u32> = kept
        .iter()
        .filter(|(_, rule)| rule == "dated-back")
        .map(|(n, _)| *n)
        .collect();
    assert_eq!(dated, [7, 8, 9, 10, 11, 12], "{kept:?}");
}

#[test]
fn a_chain_vouches_for_copies_that_came_late() {
    let bench = Bench::new();
    let key = bench.key("key", &["-t", "ed25519"]);
    let signers = bench.signers("signers", &[(&origin().1, &key)]);
    bench.chain(&DAYS, Some(&key));
    for number in 1..=5 {
        bench.share(number, "2026-06-06T01:00:00Z");
    }
    let rule = ["--keep-last", "2", "--allowed-signers", text(&signers)];
    // None that came in time names them yet, and nothing that does not count goes.
    assert_eq!(pruned(&prune(&bench, &rule)).0, [0u32; 0]);
    bench.share(6, DAYS[5]);
    assert_eq!(pruned(&prune(&bench, &rule)).0, [1, 2, 3, 4]);
    // They do so over what was pruned, too.
    let url = bench.url();
    let pin = bench.shared(2).join("pinned");
    std::fs::write(&pin, "").expect("a pin");
    run(&[
        &["prune", &url, "--yes", "--sign-key", text(&key)][..],
        &rule,
    ]
    .concat())
    .expect(0);
    std::fs::remove_file(&pin).expect("no pin");
    assert_eq!(pruned(&prune(&bench, &rule)).0, [2]);
}

#[test]
fn a_time_before_the_backup_that_is_followed_does_not_count() {
    let bench = Bench::new();
    let key = bench.key("key", &["-t", "ed25519"]);
    let signers = bench.signers("signers", &[(&origin().1, &key)]);
    bench.chain(&DAYS, Some(&key));
    bench.link(7, "2026-06-03T12:00:00Z", Some(6), Some(&key));
    for (number, day) in (1..).zip(DAYS) {
        bench.share(number, day);
    }
    // With write access to the share its time there can be forged as well; the chain cannot.
    bench.share(7, "2026-06-03T12:00:00Z");
    let (gone, kept) = pruned(&prune(
        &bench,
        &["--keep-last", "6", "--allowed-signers", text(&signers)],
    ));
    assert_eq!(gone, [0u32; 0]);
    assert_eq!(
        kept.last().expect("the forged one"),
        &(7, "out-of-order".to_owned())
    );
    // On the node the same rules hold for its own store.
    let local = bench.run(&[
        "prune",
        "--keep-last",
        "6",
        "--dry-run",
        "-o",
        "json",
        "--allowed-signers",
        text(&signers),
    ]);
    let (_, kept) = pruned(&local.expect(0));
    assert_eq!(
        kept.last().expect("the forged one"),
        &(7, "out-of-order".to_owned())
    );
}
