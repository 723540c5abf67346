//! `--secrets-recipient`: the archives are readable to fewer than the snapshot.

use std::path::Path;

use crate::bench::{Bench, origin, run, sign, text};

fn public(key: &Path) -> String {
    let text = std::fs::read_to_string(key.with_extension("pub")).expect("a public key");
    text.trim().to_owned()
}

#[test]
fn whoever_reads_the_data_need_not_hold_the_keys() {
    let bench = Bench::new();
    let [reader, keeper, signer] =
        ["reader", "keeper", "signer"].map(|name| bench.key(name, &["-t", "ed25519"]));
    let signers = bench.signers("signers", &[("*", &signer)]);
    let dir = bench.set(1, "2026-06-01T02:00:00Z", |_| ());
    sign(&signer, &dir.join("backup.json"));
    let (all, secrets) = (public(&reader), public(&keeper));
    let url = bench.url();
    let copy = [
        "copy",
        "backup-1",
        &url,
        "--recipient",
        &all,
        "--secrets-recipient",
        &secrets,
        "--sign-key",
        text(&signer),
    ];
    bench.run(&copy).expect(0);
    // The same again is the same copy.
    assert!(bench.run(&copy).expect(0).stdout.contains("exists already"));
    let (cluster, node) = origin();
    let from = format!("{url}/{cluster}/{node}/backup-1");
    let with = |args: &[&str], keys: &[&Path]| {
        let mut all = args.to_vec();
        for key in keys {
            all.extend(["--identity", text(key)]);
        }
        all.extend(["--allowed-signers", text(&signers)]);
        run(&all)
    };
    // The data alone.
    let data = bench.path("data");
    with(&["restore", &from, "--data-dir", text(&data)], &[&reader]).expect(0);
    assert!(data.join("member/snap/db").is_file());
    // Everything else needs both, and says which is missing.
    let refused = with(&["verify", &from], &[&reader]).expect(2);
    assert!(
        refused.stderr.contains("recipients of secrets"),
        "{refused}"
    );
    assert!(refused.stderr.contains("--identity FILE"), "{refused}");
    let refused = with(&["verify", &from], &[&keeper]);
    assert_ne!(refused.status, Some(0), "{refused}");
    with(&["verify", &from], &[&reader, &keeper]).expect(0);
    let back = bench.path("back");
    with(&["copy", &from, text(&back)], &[&reader]).expect(2);
    assert!(!back.join("backup-1").exists());
    with(&["copy", &from, text(&back)], &[&reader, &keeper]).expect(0);
    for file in std::fs::read_dir(&dir).expect("a set") {
        let file = file.expect("an entry");
        let name = file.file_name();
        if !["verified.json", "shared.json", "copies.json"].contains(&text(Path::new(&name))) {
            let one = std::fs::read(file.path()).expect("a file");
            let other = std::fs::read(back.join("backup-1").join(&name));
            assert_eq!(one, other.expect("the same file"), "{name:?}");
        }
    }
    // A copy that protects the archives better is right for one who asks for less.
    let plain = ["copy", "backup-1", &url, "--recipient", &all];
    bench.run(&plain).expect(0);
    let alone = ["copy", "backup-1", &url, "--secrets-recipient", &secrets];
    let refused = bench.run(&alone).expect(2);
    assert!(refused.stderr.contains("add --recipient"), "{refused}");
}
