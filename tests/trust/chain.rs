//! `verify --chain`: each way to take a backup away or put another in its place is found, and what prune
//! removes is not.

use serde_json::Value;

use testbench::golden::Run;

use crate::bench::{Bench, run, sign, text, touch};

const TIMES: [&str; 6] = [
    "2026-06-01T01:00:00Z",
    "2026-06-01T02:00:00Z",
    "2026-06-01T03:00:00Z",
    "2026-06-01T04:00:00Z",
    "2026-06-01T05:00:00Z",
    "2026-06-01T06:00:00Z",
];

fn findings(run: &Run) -> Vec<(String, String)> {
    let document = run.json();
    let word = |value: &Value| value.as_str().expect("text").to_owned();
    let chains = document["chains"].as_array().expect("chains").clone();
    let all = chains
        .iter()
        .flat_map(|chain| chain["findings"].as_array().expect("findings"));
    all.map(|found| (word(&found["name"]), word(&found["set"])))
        .collect()
}

fn found(name: &str, set: &str) -> (String, String) {
    (name.to_owned(), set.to_owned())
}

#[test]
fn what_is_done_to_a_chain_is_found() {
    let bench = Bench::new();
    let verify = || bench.run(&["verify", "--chain", "-o", "json"]);
    bench.chain(&TIMES, None);
    assert_eq!(findings(&verify().expect(0)), []);
    let store = bench.store();
    let manifest = |number: u32| store.join(format!("backup-{number}/backup.json"));

    // Missing.
    std::fs::rename(store.join("backup-3"), bench.path("aside")).expect("moving");
    assert_eq!(
        findings(&verify().expect(11)),
        [found("missing-backup", "backup-4")]
    );
    let shown = bench.run(&["verify", "--chain"]).expect(11);
    assert!(
        shown.stdout.contains("BROKEN") && shown.stdout.contains("[missing-backup]"),
        "{shown}"
    );
    std::fs::rename(bench.path("aside"), store.join("backup-3")).expect("moving");
    verify().expect(0);

    // Re-dated, which makes it another Manifest.
    let whole = std::fs::read_to_string(manifest(3)).expect("a Manifest");
    std::fs::write(manifest(3), whole.replace(TIMES[2], "2026-06-01T03:30:00Z")).expect("writing");
    assert_eq!(
        findings(&verify().expect(11)),
        [found("replaced-backup", "backup-3")]
    );
    std::fs::write(manifest(3), &whole).expect("writing");
    touch(&manifest(3), TIMES[2]);

    // Replaced by an older one under its name.
    let older = std::fs::read_to_string(manifest(2)).expect("a Manifest");
    std::fs::write(manifest(3), older).expect("writing");
    let after = verify().expect(11);
    assert!(
        findings(&after).contains(&found("missing-backup", "backup-4")),
        "{after}"
    );
    std::fs::write(manifest(3), &whole).expect("writing");
    touch(&manifest(3), TIMES[2]);
    verify().expect(0);

    // Taken after the newest, and dated before it; and one that arrived before its time.
    bench.link(7, "2026-06-01T02:30:00Z", Some(6), None);
    assert_eq!(
        findings(&verify().expect(11)),
        [found("redated-backup", "backup-7")]
    );
    bench.link(8, "2026-06-01T08:00:00Z", Some(7), None);
    std::fs::remove_dir_all(store.join("backup-7")).expect("removing");
    touch(&manifest(8), "2026-06-01T06:30:00Z");
    let twice = findings(&verify().expect(11));
    assert_eq!(
        twice,
        [
            found("redated-backup", "backup-8"),
            found("missing-backup", "backup-8")
        ]
    );
    std::fs::remove_dir_all(store.join("backup-8")).expect("removing");

    // Two that follow the same one.
    bench.link(7, "2026-06-01T07:00:00Z", Some(5), None);
    let forked = findings(&verify().expect(11));
    assert_eq!(
        forked,
        [
            found("reordered-backup", "backup-6"),
            found("reordered-backup", "backup-7")
        ]
    );
}

#[test]
fn what_prune_removes_is_not_missing_and_a_record_counts_only_if_it_is_signed() {
    let bench = Bench::new();
    let key = bench.key("key", &["-t", "ed25519"]);
    let admin = bench.key("admin", &["-t", "ed25519"]);
    let signers = bench.signers("signers", &[("*", &key), ("*", &admin)]);
    bench.chain(&TIMES, Some(&key));
    let rule = ["prune", "--keep-last", "1", "--yes"];
    let trusting = ["--allowed-signers", text(&signers)];
    let verify = |more: &[&str]| bench.run(&[&["verify", "--chain", "-o", "json"], more].concat());
    // Pinned ones stay: the chain leads from one to the next over what is gone.
    for number in [2, 4] {
        std::fs::write(bench.store().join(format!("backup-{number}/pinned")), "").expect("a pin");
    }
    bench
        .run(&[&rule[..], &trusting, &["--sign-key", text(&admin)]].concat())
        .expect(0);
    let whole = verify(&trusting).expect(0);
    assert_eq!(findings(&whole), []);
    assert_eq!(whole.json()["chains"][0]["pruned"], 3, "{whole}");
    assert_eq!(whole.json()["chains"][0]["backups"], 3);

    // One more goes; the record is replaced by one that still knows the rest.
    std::fs::remove_file(bench.store().join("backup-4/pinned")).expect("no pin");
    bench
        .run(&[&rule[..], &trusting, &["--sign-key", text(&admin)]].concat())
        .expect(0);
    verify(&trusting).expect(0);
    let records = || -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(bench.store()).expect("a store");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths
            .filter(|path| text(path).contains("/pruned-"))
            .collect()
    };
    assert_eq!(
        records().len(),
        2,
        "a record and its signature: {:?}",
        records()
    );

    // Whoever can write and delete makes a record of his own: it proves nothing if signers are asked for.
    for record in records().iter().filter(|path| text(path).ends_with(".sig")) {
        std::fs::remove_file(record).expect("removing");
    }
    verify(&[]).expect(0);
    let missing = ["backup-2", "backup-6"].map(|set| found("missing-backup", set));
    assert_eq!(findings(&verify(&trusting).expect(11)), missing);
    let stranger = bench.key("stranger", &["-t", "ed25519"]);
    let record = records().remove(0);
    sign(&stranger, &record);
    verify(&trusting).expect(11);
    sign(&admin, &record);
    verify(&trusting).expect(0);
}

#[test]
fn a_chain_that_starts_again_is_a_warning() {
    let bench = Bench::new();
    bench.chain(&TIMES[..2], None);
    bench.link(3, TIMES[2], None, None);
    let again = bench.run(&["verify", "--chain", "-o", "json"]).expect(0);
    assert_eq!(findings(&again), [found("chain-restarted", "backup-3")]);
}

#[test]
fn a_chain_away_from_the_node() {
    let bench = Bench::new();
    let key = bench.key("key", &["-t", "ed25519"]);
    let signers = bench.signers("signers", &[("*", &key)]);
    bench.chain(&TIMES, Some(&key));
    for (number, time) in (1..).zip(TIMES) {
        bench.share(number, time);
    }
    let url = bench.url();
    let args = ["--allowed-signers", text(&signers)];
    let verify = || run(&[&["verify", "--chain", &url, "-o", "json"][..], &args].concat());
    assert_eq!(findings(&verify().expect(0)), []);
    let prune = [
        "prune",
        &url,
        "--keep-last",
        "2",
        "--yes",
        "--sign-key",
        text(&key),
    ];
    run(&[&prune[..], &args].concat()).expect(0);
    let pruned = verify().expect(0);
    assert_eq!(pruned.json()["chains"][0]["backups"], 2, "{pruned}");
    // One that no prune removed.
    std::fs::remove_dir_all(bench.shared(5)).expect("removing");
    let name = format!(
        "{}/{}/backup-6",
        crate::bench::origin().0,
        crate::bench::origin().1
    );
    assert_eq!(
        findings(&verify().expect(11)),
        [found("missing-backup", &name)]
    );
    // The signature of one is taken away.
    std::fs::remove_file(bench.shared(6).join("backup.json.sig")).expect("removing");
    assert!(findings(&verify().expect(11)).contains(&found("unsigned-backup", &name)));
}
