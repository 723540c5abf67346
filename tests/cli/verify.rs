//! `verify`: whole sets, and each layer broken in its own way. No damage may pass as good, and the
//! broken layer must be the one that is named.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::golden;
use crate::sample_stores::{Shelf, cut, file, flip, resources, snapshot};
use testbench::golden::{Run, run};
use testbench::process::expect_success;

/// Offsets of the layers that failed.
fn failed(run: &Run) -> Vec<String> {
    let report = &run.json()["sets"][0];
    let layers = report["layers"].as_array().expect("layers");
    let failed = layers.iter().filter(|layer| layer["state"] == "failed");
    failed
        .map(|layer| layer["layer"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn a_good_backup_verifies() {
    let shelf = Shelf::one_of_each();
    let (store, hide) = (shelf.store_text(), shelf.placeholders());
    let at = ["verify", "--store", &store];
    let with = |more: &[&'static str]| [&at[..], more].concat();
    golden("verify-good", &with(&["backup-1"]), &hide).expect(0);
    golden("verify-good-json", &with(&["latest", "-o", "json"]), &hide).expect(0);
    golden("verify-dirty", &with(&["2"]), &hide).expect(0);
    golden("verify-foreign", &with(&["backup-5"]), &hide).expect(0);
    golden(
        "verify-two",
        &with(&["backup-12", "before-upgrade.db"]),
        &hide,
    )
    .expect(0);
    let bare = shelf.store().join("before-upgrade.db");
    golden(
        "verify-bare",
        &["verify", bare.to_str().expect("UTF-8")],
        &hide,
    )
    .expect(0);
    let job = shelf.store().join("backup-nightly-2025-03-01_020000");
    golden(
        "verify-job",
        &["verify", job.to_str().expect("UTF-8")],
        &hide,
    )
    .expect(0);
    for word in ["2025-01-02_030405", "backup-nightly-2025-03-01_020000"] {
        run(&[&at[..], &[word]].concat(), &[]).expect(0);
    }
    golden("verify-all", &with(&["--all"]), &hide).expect(3);
    // The result is shown with the sets.
    golden("list-verified", &["list", &store], &hide).expect(0);
}

#[test]
fn wrong_arguments_of_verify_are_refused() {
    let shelf = Shelf::one_of_each();
    let (store, hide) = (shelf.store_text(), shelf.placeholders());
    let at = ["verify", "--store", &store];
    let with = |more: &[&'static str]| [&at[..], more].concat();
    golden("verify-unknown", &with(&["backup-11"]), &hide).expect(2);
    golden(
        "verify-unknown-json",
        &with(&["backup-11", "-o", "json"]),
        &hide,
    )
    .expect(2);
    let (mut several, empty) = (at.to_vec(), shelf.dir().join("empty"));
    let loose = shelf.dir().join("loose");
    shelf.pair(&loose, "2025-01-02_030405");
    shelf.pair(&loose, "2025-01-03_030405");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let loose = text(&loose);
    several.push(&loose);
    let run = golden("verify-several", &several, &hide).expect(2);
    // The candidates are words that can be typed.
    let one = format!("{loose}/2025-01-03_030405");
    assert!(run.stderr.contains(&one), "{run}");
    let run = golden("verify-one-of-several", &["verify", &one], &hide).expect(0);
    assert!(
        run.stdout.contains("both names have the same timestamp"),
        "{run}"
    );
    std::fs::create_dir(&empty).expect("a folder");
    let empty = text(&empty);
    golden("verify-no-snapshot", &["verify", &empty], &hide).expect(2);
    golden(
        "verify-none",
        &["verify", "--store", &empty, "latest"],
        &hide,
    )
    .expect(2);
    golden(
        "verify-all-none",
        &["verify", "--store", &empty, "--all"],
        &hide,
    )
    .expect(2);
    let absent = text(&shelf.dir().join("absent.db"));
    golden("verify-absent", &["verify", &absent], &hide).expect(2);
}

/// One harm: the golden's name, what is done to the set, the layers that must be named.
type Harm = (&'static str, fn(&Path), &'static [&'static str]);

const HARMS: &[Harm] = &[
    // A value's byte: bbolt's pages have no checksum, so the trailer alone knows.
    (
        "flipped-value",
        |set| flip(&value_in(&snapshot(set)).0, value_in(&snapshot(set)).1),
        &["trailer", "manifest"],
    ),
    (
        "flipped-trailer",
        |set| flip(&snapshot(set), -1),
        &["trailer", "manifest"],
    ),
    (
        "flipped-meta",
        |set| flip(&snapshot(set), 20),
        &["trailer", "meta", "manifest"],
    ),
    (
        "truncated",
        |set| cut(&snapshot(set), 4096),
        &["trailer", "meta", "pages", "manifest"],
    ),
    ("trailer-lost", |set| cut(&snapshot(set), 32), &["manifest"]),
    (
        "no-snapshot",
        |set| std::fs::write(snapshot(set), "no snapshot\n").expect("a file"),
        &["trailer", "meta", "manifest"],
    ),
    (
        "empty-snapshot",
        |set| std::fs::write(snapshot(set), "").expect("a file"),
        &["meta", "manifest"],
    ),
    (
        "lost-snapshot",
        |set| std::fs::remove_file(snapshot(set)).expect("loss"),
        &["trailer", "manifest"],
    ),
    (
        "flipped-archive",
        |set| flip(&resources(set), 4000),
        &["archive", "manifest"],
    ),
    (
        "truncated-archive",
        |set| cut(&resources(set), 100),
        &["archive", "manifest"],
    ),
    (
        "archive-leaves",
        |set| leaving(&resources(set)),
        &["archive", "manifest"],
    ),
    (
        "archive-of-another",
        |set| {
            std::fs::copy(file(set, "static_certs_"), resources(set)).expect("copying");
        },
        &["manifest"],
    ),
    (
        "lost-certificates",
        |set| std::fs::remove_file(file(set, "static_certs_")).expect("loss"),
        &["archive", "manifest"],
    ),
    (
        "flipped-environment",
        |set| flip(&set.join("backup.env"), 3),
        &["manifest"],
    ),
    (
        "flipped-sums",
        |set| flip(&set.join("SHA256SUMS"), 3),
        &["manifest"],
    ),
    (
        "lost-sums",
        |set| std::fs::remove_file(set.join("SHA256SUMS")).expect("loss"),
        &["manifest"],
    ),
    (
        "half-manifest",
        |set| cut(&set.join("backup.json"), 100),
        &["manifest"],
    ),
];

/// Where a value is in a snapshot.
fn value_in(snapshot: &Path) -> (PathBuf, i64) {
    let bytes = std::fs::read(snapshot).expect("the snapshot");
    let at = bytes
        .windows(7)
        .rposition(|window| window == b"value 1")
        .expect("the value");
    (
        snapshot.to_owned(),
        i64::try_from(at).expect("a small file"),
    )
}

/// An archive that would write outside of where it is unpacked.
fn leaving(archive: &Path) {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("inside")).expect("a folder");
    std::fs::write(dir.path().join("escaped"), "x").expect("a file");
    let output = Command::new("tar")
        .args(["--absolute-names", "-czf"])
        .arg(archive)
        .args(["--format=ustar", "../escaped"])
        .current_dir(dir.path().join("inside"))
        .output();
    expect_success("tar", &output.expect("running tar"));
}

#[test]
fn each_layer_broken_in_its_own_way() {
    let mut wrong = Vec::new();
    for (name, harm, layers) in HARMS {
        let shelf = Shelf::new();
        harm(&shelf.good(1));
        let (store, hide) = (shelf.store_text(), shelf.placeholders());
        let args = ["verify", "--store", &store, "backup-1"];
        golden(&format!("broken-{name}"), &args, &hide).expect(3);
        let json = run(&[&args[..], &["-o", "json"]].concat(), &[]).expect(3);
        assert_eq!(json.json()["good"], false);
        if failed(&json) != *layers {
            wrong.push(format!(
                "{name}: expected {layers:?}, found {:?}",
                failed(&json)
            ));
        }
        // Nor does list call it good when sizes or files are wrong, or a Manifest cannot be read.
        run(&["list", &store], &[]).expect(0);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is changed in a Manifest, and the golden's name.
type Edit = (&'static str, fn(&mut serde_json::Value));

#[test]
fn a_changed_manifest_is_found() {
    let cases: [Edit; 4] = [
        ("size", |m| m["files"][0]["size"] = 1.into()),
        ("digest", |m| {
            m["files"][1]["sha256"] = "0".repeat(64).into()
        }),
        ("newer", |m| m["schemaVersion"] = 2.into()),
        ("leaves", |m| {
            m["files"][0]["name"] = "../../etc/shadow".into()
        }),
    ];
    for (name, edit) in cases {
        let shelf = Shelf::new();
        shelf.good(1);
        shelf.edit(1, edit);
        let store = shelf.store_text();
        let args = ["verify", "--store", &store, "backup-1"];
        golden(&format!("altered-{name}"), &args, &shelf.placeholders()).expect(3);
        let json = run(&[&args[..], &["-o", "json"]].concat(), &[]).expect(3);
        assert_eq!(failed(&json), ["manifest"], "{name}");
    }
}

#[test]
fn no_name_or_value_controls_the_terminal() {
    let escape = "\u{1b}[2J\u{1b}]0;owned\u{7}";
    let shelf = Shelf::new();
    shelf.good(1);
    shelf.edit(1, |manifest| {
        manifest["cluster"]["ocpVersion"] = format!("4.17{escape}").into();
        manifest["files"][0]["sha256"] = escape.into();
    });
    let named = shelf.store().join(format!("old{escape}.db"));
    std::fs::copy(snapshot(&shelf.store().join("backup-1")), named).expect("copying");
    shelf.good(2);
    shelf.edit(2, |manifest| manifest["schemaVersion"] = escape.into());
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join(escape), "x").expect("a file");
    let output = Command::new("tar")
        .arg("-czf")
        .arg(resources(&shelf.good(3)))
        .args(["--format=ustar", escape])
        .current_dir(dir.path())
        .output();
    expect_success("tar", &output.expect("running tar"));
    let store = shelf.store_text();
    for (args, status) in [
        (&["list", &store] as &[&str], 0),
        (&["verify", "--store", &store, "--all"], 3),
        (&["verify", "--store", &store, &format!("x{escape}")], 2),
    ] {
        let run = run(args, &[]).expect(status);
        let both = format!("{}{}", run.stdout, run.stderr);
        let raw = both.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(raw, None, "{both:?}");
        assert!(
            both.contains("owned"),
            "what it says is shown all the same: {both}"
        );
    }
}
