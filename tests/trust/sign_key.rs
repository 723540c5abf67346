//! `--sign-key`: what is signed, that ssh-keygen accepts it, and what changes it.

use std::path::Path;

use testbench::bins;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden;
use testbench::kube::OpenShift;
use testbench::node::{self, NodeOptions};

use crate::bench::{Bench, run, sha256, sign, stock_verify, text, touch};

const KINDS: [(&str, &[&str]); 3] = [
    ("ed25519", &["-t", "ed25519"]),
    ("p256", &["-t", "ecdsa", "-b", "256"]),
    ("rsa", &["-t", "rsa", "-b", "3072"]),
];

#[test]
fn a_backup_is_signed_chained_and_copied_with_its_signature() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    OpenShift::default().write(&cluster);
    let root = node::make(&cluster, 0, &NodeOptions::default());
    let name = cluster.name(0);
    let bench = Bench::new();
    let store = bench.store();
    let backup = |args: &[&str]| {
        let mut all = vec![
            "--root",
            text(&root),
            "--node-name",
            name,
            "backup",
            text(&store),
        ];
        all.extend(["-o", "json", "--progress", "never"]);
        all.extend(args);
        golden::run(&all, &[])
    };
    let first = backup(&[]).expect(0).json();
    assert!(first["manifest"].get("previous").is_none(), "{first}");
    assert!(!store.join("backup-1/backup.json.sig").exists());
    let age = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    let url = bench.url();
    for (place, (kind, args)) in KINDS.into_iter().enumerate() {
        let key = bench.key(kind, args);
        let copy = [
            "--sign-key",
            text(&key),
            "--copy-to",
            &url,
            "--recipient",
            age,
        ];
        let taken = backup(&copy).expect(0).json();
        let id = taken["manifest"]["id"].as_str().expect("an id").to_owned();
        assert_eq!(id, format!("backup-{}", place + 2));

        // Each names the one before it by its hash.
        let before = store.join(format!("backup-{}/backup.json", place + 1));
        let previous = &taken["manifest"]["previous"];
        assert_eq!(previous["id"], format!("backup-{}", place + 1));
        assert_eq!(previous["sha256"], sha256(&before), "{kind}");

        let signers = bench.signers("signers", &[(name, &key)]);
        let manifest = store.join(&id).join("backup.json");
        let signature = store.join(&id).join("backup.json.sig");
        let said = stock_verify(&signers, name, &manifest, &signature);
        assert!(
            said.starts_with("Good \"etcd-dr\" signature"),
            "{kind}: {said}"
        );
        let verified = run(&[
            "verify",
            &id,
            "--store",
            text(&store),
            "--allowed-signers",
            text(&signers),
        ]);
        assert!(verified.expect(0).stdout.contains(", signed by SHA256:"));

        // The copy has it, and the list of what is stored there is signed as well.
        let copied = taken["copies"][0]["url"].as_str().expect("a URL");
        let copied = Path::new(copied.strip_prefix("file://").expect("a directory"));
        let same = std::fs::read(copied.join("backup.json.sig")).expect("a signature");
        assert_eq!(same, std::fs::read(&signature).expect("a signature"));
        let index = copied.join("remote.json");
        let digits = &sha256(&index)[..16];
        let of_index = copied.join(format!("remote-{digits}.json.sig"));
        let said = stock_verify(&signers, name, &index, &of_index);
        assert!(said.starts_with("Good"), "{kind}: {said}");
    }
    // Plain files have no Manifest that could be signed.
    let flat = bench.path("flat");
    let key = bench.path("ed25519");
    let refused = run(&[
        "--root",
        text(&root),
        "backup",
        "--flat",
        text(&flat),
        "--sign-key",
        text(&key),
    ]);
    assert!(refused.expect(2).stderr.contains("cannot be signed"));
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let bench = Bench::new();
    let key = bench.key("key", &["-t", "ed25519"]);
    let signers = bench.signers("signers", &[("*", &key)]);
    let dir = bench.set(1, "2026-06-01T02:00:00Z", |_| ());
    sign(&key, &dir.join("backup.json"));
    let verify = || bench.run(&["verify", "backup-1", "--allowed-signers", text(&signers)]);
    verify().expect(0);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .expect("a set")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let whole = std::fs::read(&file).expect("a file");
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        for at in [0, whole.len() / 3, whole.len() / 2] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&file, &bytes).expect("writing");
            let found = verify();
            match name.as_str() {
                "verified.json" | "pinned" | "shared.json" => {}
                // Not signed any more, or not readable at all.
                "backup.json" | "backup.json.sig" => {
                    assert!(matches!(found.status, Some(3 | 5)), "{name} {at}: {found}");
                }
                _ => assert_eq!(found.status, Some(3), "{name} {at}: {found}"),
            }
        }
        std::fs::write(&file, &whole).expect("writing");
    }
    verify().expect(0);
}

#[test]
fn a_signature_that_does_not_fit_is_an_error_whoever_asks() {
    let bench = Bench::new();
    let key = bench.key("key", &["-t", "ed25519"]);
    let one = bench.set(1, "2026-06-01T02:00:00Z", |_| ());
    let two = bench.set(2, "2026-06-01T03:00:00Z", |_| ());
    sign(&key, &one.join("backup.json"));
    bench.run(&["verify", "backup-1"]).expect(0);
    std::fs::copy(one.join("backup.json.sig"), two.join("backup.json.sig")).expect("copying");
    let found = bench.run(&["verify", "backup-2"]).expect(3);
    assert!(
        found.stdout.contains("it does not fit the content"),
        "{found}"
    );
    let data = bench.path("data");
    let refused = bench.run(&["restore", "backup-2", "--data-dir", text(&data)]);
    assert!(refused.expect(3).stderr.contains("does not fit"));
    assert!(!data.exists());
    // In a store away from the node, too.
    bench.run(&["copy", "backup-1", &bench.url()]).expect(0);
    let (cluster, node) = crate::bench::origin();
    let there = bench
        .path("share")
        .join(&cluster)
        .join(&node)
        .join("backup-1");
    std::fs::write(there.join("backup.json.sig"), "nothing of the kind").expect("writing");
    let copy = format!("{}/{cluster}/{node}/backup-1", bench.url());
    let refused = run(&["verify", &copy]).expect(3);
    assert!(refused.stderr.contains("ssh-keygen -Y sign"), "{refused}");
}

/// The cache of a node's folder is untrusted like all of a store: no signature counts because it says so.
#[test]
fn a_catalog_replaces_no_signature() {
    let bench = Bench::new();
    let key = bench.key("key", &["-t", "ed25519"]);
    let stranger = bench.key("stranger", &["-t", "ed25519"]);
    let signers = bench.signers("signers", &[("*", &key)]);
    let days = ["01", "02", "03", "04"].map(|day| format!("2026-06-{day}T02:00:00Z"));
    let days: Vec<&str> = days.iter().map(String::as_str).collect();
    bench.chain(&days, Some(&key));
    // The fourth is signed by another key, and the third is not signed.
    sign(&stranger, &bench.store().join("backup-4/backup.json"));
    std::fs::remove_file(bench.store().join("backup-3/backup.json.sig")).expect("a signature");
    (1..)
        .zip(&days)
        .for_each(|(number, day)| bench.share(number, day));
    let place = bench
        .shared(1)
        .parent()
        .expect("a node's folder")
        .to_owned();
    for number in 1..=4 {
        for file in std::fs::read_dir(bench.shared(number)).expect("a set") {
            touch(&file.expect("a file").path(), "2026-06-05T00:00:00Z");
        }
    }
    let url = bench.url();
    let list = || {
        let command = [
            "list",
            &url,
            "-o",
            "json",
            "--allowed-signers",
            text(&signers),
        ];
        run(&command).expect(0).json()["sets"].clone()
    };
    let truth = list();
    let judged = |set: &serde_json::Value| set["signature"]["refusal"].as_str().map(str::to_owned);
    let refusals: Vec<_> = truth.as_array().expect("sets").iter().map(judged).collect();
    let refusal = |name: &str| Some(name.to_owned());
    let expected = [
        None,
        None,
        refusal("unsigned-backup"),
        refusal("unknown-signer"),
    ];
    assert_eq!(refusals, expected);

    let catalog = place.join("catalog-00000000.json.zst");
    let packed = std::fs::read(&catalog).expect("a catalog");
    let honest = zstd::decode_all(packed.as_slice()).expect("zstd");
    let honest: serde_json::Value = serde_json::from_slice(&honest).expect("JSON");
    let signature = |set: &str| honest["sets"][set]["documents"]["backup.json.sig"].clone();
    let with = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut lie = honest.clone();
        edit(&mut lie["sets"]);
        lie
    };
    let lies = [
        // A good backup with a signature that does not fit.
        with(&|sets| sets["backup-1"]["documents"]["backup.json.sig"] = signature("backup-2")),
        // A whole backup of a trusted key in the place of one that nobody trusts.
        with(&|sets| sets["backup-4"]["documents"] = sets["backup-1"]["documents"].clone()),
        // A signature for one that has none.
        with(&|sets| sets["backup-3"]["documents"]["backup.json.sig"] = signature("backup-1")),
        // None for one that has one.
        with(&|sets| {
            let documents = sets["backup-4"]["documents"].as_object_mut();
            documents.expect("documents").remove("backup.json.sig");
        }),
    ];
    for (number, lie) in lies.iter().enumerate() {
        let packed = zstd::encode_all(lie.to_string().as_bytes(), 3).expect("zstd");
        std::fs::write(&catalog, packed).expect("a catalog");
        assert_eq!(list(), truth, "{number}");
    }
}
