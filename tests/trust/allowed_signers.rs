//! `--allowed-signers`: each refusal with its cause, before anything is touched, with and without
//! `--allow`.

use std::path::{Path, PathBuf};

use testbench::golden::{self, Run};

use crate::bench::{Bench, origin, run, sign, text, touch};

/// A store with one backup of each kind.
struct Store {
    bench: Bench,
    signers: PathBuf,
}

/// What the backups are called, and how each is refused.
const REFUSED: [(&str, &str); 3] = [
    ("backup-2", "unsigned-backup"),
    ("backup-3", "unknown-signer"),
    ("backup-4", "wrong-signer"),
];

impl Store {
    fn new() -> Self {
        let bench = Bench::new();
        let (_, node) = origin();
        let [own, stranger, neighbour] =
            ["own", "stranger", "neighbour"].map(|name| bench.key(name, &["-t", "ed25519"]));
        for (number, key) in [
            (1, Some(&own)),
            (2, None),
            (3, Some(&stranger)),
            (4, Some(&neighbour)),
        ] {
            let created = format!("2026-06-0{number}T02:00:00Z");
            let dir = bench.set(number, &created, |_| ());
            if let Some(key) = key {
                sign(key, &dir.join("backup.json"));
            }
            touch(&dir.join("backup.json"), &created);
        }
        let signers = bench.signers("signers", &[(&node, &own), ("another-node", &neighbour)]);
        Self { bench, signers }
    }

    fn run(&self, args: &[&str]) -> Run {
        let mut all = args.to_vec();
        all.extend(["--allowed-signers", text(&self.signers)]);
        self.bench.run(&all)
    }
}

fn names_below(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            names.extend(names_below(&path));
        } else {
            names.push(path.display().to_string());
        }
    }
    names
}

#[test]
fn a_directory_of_backups() {
    let store = Store::new();
    let before = names_below(&store.bench.store());
    let data = store.bench.path("data");
    let url = store.bench.url();
    for (set, refusal) in REFUSED {
        let restore = ["restore", set, "--data-dir", text(&data)];
        for args in [&["verify", set][..], &["copy", set, &url], &restore] {
            let refused = store.run(args).expect(5);
            assert!(
                refused.stderr.contains(&format!("[{refusal}]")),
                "{refused}"
            );
            assert!(!data.exists() && names_below(&store.bench.path("share")).is_empty());
            // Another name overrides nothing.
            let other = REFUSED
                .iter()
                .find(|(_, name)| *name != refusal)
                .expect("another")
                .1;
            store.run(&[args, &["--allow", other]].concat()).expect(5);
        }
        assert_eq!(names_below(&store.bench.store()), before, "{set}");
        store
            .run(&[&restore[..], &["--allow", refusal]].concat())
            .expect(0);
        std::fs::remove_dir_all(&data).expect("a data directory");
    }
    for (set, refusal) in REFUSED {
        store.run(&["verify", set, "--allow", refusal]).expect(0);
        store
            .run(&["copy", set, &url, "--allow", refusal])
            .expect(0);
    }
    let typo = store
        .run(&["verify", "backup-2", "--allow", "unsigned"])
        .expect(2);
    assert!(
        typo.stderr.contains("did you mean \"unsigned-backup\""),
        "{typo}"
    );
    // The newest is by another signer: the newest that counts is meant.
    let latest = store.run(&["verify", "latest"]).expect(0);
    assert!(latest.stdout.starts_with("backup-1: good"), "{latest}");
    let all = store.run(&["verify", "--all"]).expect(5);
    assert!(all.stderr.contains("[unsigned-backup]"), "{all}");
}

#[test]
fn a_listing_names_the_signer_or_the_refusal() {
    let store = Store::new();
    let listed = store.run(&["list", "-o", "json"]).expect(0).json();
    assert_eq!(listed["newestGood"], "backup-1");
    let sets = listed["sets"].as_array().expect("sets");
    assert_eq!(sets[0]["signature"]["signer"], origin().1);
    for (set, (_, refusal)) in sets[1..].iter().zip(REFUSED) {
        assert_eq!(set["signature"]["refusal"], refusal);
        assert_eq!(set["state"], "good");
    }
    let text = store.run(&["list"]).expect(0);
    assert!(text.stdout.contains("SIGNER"), "{text}");
    assert!(text.stderr.contains("backup-4: the key SHA256:"), "{text}");
    // Without allowed signers no signer is named, and all count.
    let plain = store.bench.run(&["list", "-o", "json"]).expect(0).json();
    assert_eq!(plain["newestGood"], "backup-4");
    assert_eq!(plain["sets"][0]["signature"]["state"], "fits");
    assert_eq!(plain["sets"][1]["signature"]["state"], "none");
}

#[test]
fn a_store_away_from_the_node() {
    let store = Store::new();
    let url = store.bench.url();
    for set in ["backup-1", "backup-2", "backup-3", "backup-4"] {
        store.bench.run(&["copy", set, &url]).expect(0);
    }
    let (cluster, node) = origin();
    let place = format!("{url}/{cluster}/{node}");
    let signers = ["--allowed-signers", text(&store.signers)];
    let scratch = store.bench.path("scratch");
    std::fs::create_dir(&scratch).expect("a folder");
    let back = store.bench.path("back");
    for (set, refusal) in REFUSED {
        let from = format!("{place}/{set}");
        let verify = ["verify", &from, "--scratch", text(&scratch)];
        let copy = ["copy", &from, text(&back)];
        for args in [&verify[..], &copy] {
            let refused = run(&[args, &signers].concat()).expect(5);
            assert!(
                refused.stderr.contains(&format!("[{refusal}]")),
                "{refused}"
            );
            run(&[args, &signers, &["--allow", refusal]].concat()).expect(0);
        }
    }
    assert_eq!(std::fs::read_dir(&scratch).expect("a folder").count(), 0);
    let latest = run(&[&["verify", &format!("{place}/latest")][..], &signers].concat()).expect(0);
    assert!(latest.stdout.contains("backup-1: good"), "{latest}");
    // The same if the environment or the configuration names the file.
    let env = [("ETCD_DR_ALLOWED_SIGNERS", text(&store.signers).to_owned())];
    let from = format!("{place}/backup-2");
    golden::run(&["verify", &from, "--progress", "never"], &env).expect(5);
}

#[test]
fn an_encrypted_copy_must_be_encrypted_by_a_trusted_signer() {
    let bench = Bench::new();
    let (cluster, node) = origin();
    let [own, stranger] = ["own", "stranger"].map(|name| bench.key(name, &["-t", "ed25519"]));
    // An SSH key is an age identity as well.
    let reader = bench.key("reader", &["-t", "ed25519"]);
    let recipient = std::fs::read_to_string(reader.with_extension("pub")).expect("a key");
    let signers = bench.signers("signers", &[(&node, &own)]);
    let dir = bench.set(1, "2026-06-01T02:00:00Z", |_| ());
    sign(&own, &dir.join("backup.json"));
    let expected = [
        (None, Some("unsigned-backup")),
        (Some(&stranger), Some("unknown-signer")),
        (Some(&own), None),
    ];
    for (key, refusal) in expected {
        let share = tempfile::tempdir().expect("a share");
        let url = format!("file://{}", share.path().display());
        let mut copy = vec!["copy", "backup-1", &url, "--recipient", recipient.trim()];
        if let Some(key) = key {
            copy.extend(["--sign-key", text(key)]);
        }
        bench.run(&copy).expect(0);
        let from = format!("{url}/{cluster}/{node}/backup-1");
        let verify = [
            "verify",
            &from,
            "--identity",
            text(&reader),
            "--allowed-signers",
            text(&signers),
        ];
        match refusal {
            None => drop(run(&verify).expect(0)),
            Some(name) => {
                let refused = run(&verify).expect(5);
                assert!(refused.stderr.contains(&format!("[{name}]")), "{refused}");
                run(&[&verify[..], &["--allow", name]].concat()).expect(0);
            }
        }
        // The list decides what is decrypted.
        if refusal.is_none() {
            let index = share
                .path()
                .join(&cluster)
                .join(&node)
                .join("backup-1/remote.json");
            let text = std::fs::read_to_string(&index).expect("an index");
            std::fs::write(&index, text + " ").expect("writing");
            let refused = run(&verify).expect(5);
            assert!(
                refused.stderr.contains("remote.json, is not signed"),
                "{refused}"
            );
        }
    }
}

#[test]
fn the_configuration_judges_what_is_signed_and_requires_it_on_request() {
    let store = Store::new();
    let config = store.bench.path("config.toml");
    let write = |require: &str| {
        let text = format!(
            "[sign]\nallowed-signers = {:?}\n{require}",
            text(&store.signers)
        );
        std::fs::write(&config, text).expect("writing");
    };
    let verify = |set: &str| store.bench.run(&["verify", set, "--config", text(&config)]);
    write("");
    verify("backup-1").expect(0);
    verify("backup-2").expect(0);
    verify("backup-3").expect(5);
    write("require = true\n");
    verify("backup-1").expect(0);
    verify("backup-2").expect(5);
    std::fs::write(&config, "[sign]\nrequire = true\n").expect("writing");
    let refused = verify("backup-1").expect(2);
    assert!(
        refused.stderr.contains("needs allowed-signers"),
        "{refused}"
    );
    std::fs::write(&store.signers, "node cert-authority ssh-ed25519 AAAA\n").expect("writing");
    let refused = store.run(&["list"]).expect(2);
    assert!(
        refused
            .stderr
            .contains("line 1: cert-authority is not supported"),
        "{refused}"
    );
}

#[test]
fn an_unsigned_backup_pushes_out_no_signed_one() {
    let store = Store::new();
    let prune = |more: &[&str]| {
        let rule = [
            "prune",
            "--keep-last",
            "1",
            "--dry-run",
            "--explain",
            "-o",
            "json",
        ];
        store.run(&[&rule[..], more].concat()).expect(0).json()
    };
    let plan = prune(&[]);
    let verdicts = |plan: &serde_json::Value| -> Vec<(String, String)> {
        let word = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let decisions = plan["decisions"].as_array().expect("decisions").clone();
        let each = decisions.iter();
        each.map(|d| (word(&d["verdict"]), word(&d["reasons"][0]["rule"])))
            .collect()
    };
    let keep = |rule: &str| ("keep".to_owned(), rule.to_owned());
    assert_eq!(
        verdicts(&plan),
        [
            keep("newest-good"),
            keep("unsigned-backup"),
            keep("unknown-signer"),
            keep("wrong-signer")
        ]
    );
    let allowed = prune(&["--allow", "unsigned-backup"]);
    assert_eq!(verdicts(&allowed)[0].0, "remove", "{allowed}");
    assert_eq!(verdicts(&allowed)[1], keep("newest-good"));
}
