//! The catalog of a node's folder: what it saves, and that it changes no answer, whatever it says.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::bench::{Bench, files_below, place, run};
use crate::wire::{Act, Wire, s3_error};
use testbench::s3::{BUCKET, S3, variables};

type Env = Vec<(&'static str, String)>;

const SETS: u32 = 6;
const NAME: &str = "catalog-00000000.json.zst";

/// A store of copies.
fn filled(url: &str, env: &Env) -> Bench {
    let bench = Bench::new();
    for number in 1..=SETS {
        bench.set(number);
        bench
            .copy(&format!("backup-{number}"), url, &[], env)
            .expect(0);
    }
    bench
}

/// Makes everything an hour old: what came at the moment of a catalog could have changed unseen.
fn age(dir: &Path) {
    let then = SystemTime::now() - Duration::from_secs(3600);
    for file in files_below(dir) {
        let file = std::fs::File::options().write(true).open(file);
        let aged = file.and_then(|file| file.set_modified(then));
        aged.expect("a file's time");
    }
}

fn list(url: &str, env: &Env) -> Value {
    run(&["list", url, "-o", "json"], env).expect(0).json()
}

/// How often each kind of request came: listings, reads, writes.
fn counted(wire: &Wire) -> [usize; 3] {
    let seen = wire.seen();
    let count = |kind: &str| seen.iter().filter(|other| **other == kind).count();
    let counts = ["list", "get", "put"].map(count);
    assert_eq!(counts.iter().sum::<usize>(), seen.len(), "{seen:?}");
    counts
}

#[test]
fn a_listing_reads_one_object_for_all_sets_of_a_node() {
    let Some(server) = S3::start() else { return };
    let url = format!("s3://{BUCKET}/x");
    let _bench = filled(&url, &variables(server.address));
    let first = format!("{url}/{}/backup-1", place());
    run(&["verify", &first], &variables(server.address)).expect(0);
    age(&server.bucket());
    let wire = Wire::start(server.address, Act::Pass);
    let env = variables(wire.address);
    let truth = list(&url, &env);
    assert_eq!(truth["sets"].as_array().expect("sets").len(), SETS as usize);
    // Of each set Manifest and index; of the one that was verified what was found.
    let all = SETS as usize;
    assert_eq!(counted(&wire), [1, 2 * all + 1, 1]);
    for _ in 0..2 {
        assert_eq!(list(&url, &env), truth);
        assert_eq!(counted(&wire), [1, 1, 0]);
    }
    // What changed is read, and is in the catalog the next time.
    let second = format!("{url}/{}/backup-2", place());
    run(&["verify", &second], &variables(server.address)).expect(0);
    let changed = list(&url, &env);
    assert_eq!(changed["sets"][1]["verified"]["good"], true, "{changed}");
    assert_eq!(counted(&wire), [1, 1 + 3, 1]);
    age(&server.bucket().join("x").join(place()).join("backup-2"));
    list(&url, &env);
    wire.seen();
    list(&url, &env);
    assert_eq!(counted(&wire), [1, 1, 0]);
}

#[test]
fn who_may_only_read_gets_the_same_answer() {
    let Some(server) = S3::start() else { return };
    let url = format!("s3://{BUCKET}/x");
    let direct = variables(server.address);
    let _bench = filled(&url, &direct);
    let wire = Wire::start(server.address, |request| match request.method.as_str() {
        "GET" | "HEAD" => Act::Pass(request),
        _ => s3_error(403, "AccessDenied"),
    });
    let env = variables(wire.address);
    let first = list(&url, &env);
    assert_eq!(counted(&wire), [1, 2 * SETS as usize, 1]);
    assert_eq!(list(&url, &direct), first);
}

/// The share of a test: a store, and the folder of its node.
struct Share {
    _bench: Bench,
    dir: tempfile::TempDir,
}

impl Share {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let bench = filled(&format!("file://{}", dir.path().display()), &Env::new());
        age(dir.path());
        Self { _bench: bench, dir }
    }

    fn url(&self) -> String {
        format!("file://{}", self.dir.path().display())
    }

    fn node(&self) -> PathBuf {
        self.dir.path().join(place())
    }

    /// What the catalog says.
    fn catalog(&self) -> Value {
        let packed = std::fs::read(self.node().join(NAME)).expect("a catalog");
        let mut text = Vec::new();
        let mut unpacked = zstd::Decoder::new(packed.as_slice()).expect("zstd");
        unpacked.read_to_end(&mut text).expect("zstd");
        serde_json::from_slice(&text).expect("JSON")
    }

    fn put(&self, bytes: &[u8]) {
        std::fs::write(self.node().join(NAME), bytes).expect("writing");
    }

    fn lie(&self, catalog: &Value) {
        let text = catalog.to_string();
        self.put(&zstd::encode_all(text.as_bytes(), 3).expect("zstd"));
    }

    /// What a set's folder lists, as an entry has it.
    fn listing(&self, set: &str) -> String {
        let mut hash = Sha256::new();
        let mut files = files_below(&self.node().join(set));
        files.sort();
        for file in files {
            let meta = std::fs::metadata(&file).expect("a file");
            let name = file.file_name().expect("a name").to_string_lossy();
            let modified = meta.modified().expect("a time");
            let modified = jiff::Timestamp::try_from(modified).expect("a time");
            hash.update(format!("{name} {} \"\" {modified}\n", meta.len()));
        }
        hex::encode(hash.finalize())
    }
}

/// Replaces a part of a text by another of the same length.
fn replaced(text: &Value, from: &str, to: &str) -> Value {
    assert_eq!(from.len(), to.len());
    let text = text.as_str().expect("text");
    assert!(text.contains(from), "{from}: {text}");
    text.replace(from, to).into()
}

#[test]
fn a_false_catalog_changes_no_answer() {
    let share = Share::new();
    let (url, env) = (share.url(), Env::new());
    let truth = list(&url, &env);
    let honest = share.catalog();
    assert_eq!(
        honest["sets"].as_object().expect("sets").len(),
        SETS as usize
    );
    assert_eq!(
        honest["sets"]["backup-1"]["listing"],
        share.listing("backup-1")
    );
    let documents = |lie: &mut Value, set: &str| lie["sets"][set]["documents"].clone();
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut lie = honest.clone();
        edit(&mut lie);
        lie
    };
    let lies = [
        (
            "a Manifest of another time",
            with(&|lie| {
                let manifest = &mut lie["sets"]["backup-3"]["documents"]["backup.json"];
                *manifest = replaced(manifest, "2025-06-03", "2029-06-03");
            }),
        ),
        (
            "a Manifest of another backup",
            with(&|lie| {
                lie["sets"]["backup-3"]["documents"] = documents(lie, "backup-4");
            }),
        ),
        (
            "an invented set",
            with(&|lie| {
                lie["sets"]["backup-99"] = lie["sets"]["backup-3"].clone();
            }),
        ),
        (
            "a missing set",
            with(&|lie| {
                lie["sets"]
                    .as_object_mut()
                    .expect("sets")
                    .remove("backup-3");
            }),
        ),
        (
            "a set that is said to be broken",
            with(&|lie| {
                let index = &mut lie["sets"]["backup-3"]["documents"]["remote.json"];
                *index = replaced(index, "SHA256SUMS", "SHA256SUMX");
            }),
        ),
        (
            "a signature that is not there",
            with(&|lie| {
                lie["sets"]["backup-3"]["documents"]["backup.json.sig"] = "x".into();
            }),
        ),
        (
            "a verification that is not there",
            with(&|lie| {
                let found = json!({"schemaVersion": 1, "time": "2026-01-01T00:00:00Z", "good": true, "toolVersion": "0"});
                lie["sets"]["backup-3"]["documents"]["verified.json"] = found.to_string().into();
            }),
        ),
        (
            "another listing",
            with(&|lie| {
                lie["sets"]["backup-3"]["listing"] = "0".repeat(64).into();
            }),
        ),
        (
            "a later schema",
            with(&|lie| lie["schemaVersion"] = 2.into()),
        ),
        ("no sets", json!({"schemaVersion": 1})),
    ];
    for (what, lie) in lies {
        share.lie(&lie);
        assert_eq!(list(&url, &env), truth, "{what}");
    }
    for bytes in [&b""[..], b"nothing of the kind", &[0x28, 0xb5, 0x2f, 0xfd]] {
        share.put(bytes);
        assert_eq!(list(&url, &env), truth);
    }
    // It unpacks to more than any catalog has.
    share.put(&zstd::encode_all(std::io::repeat(b' ').take(200 << 20), 1).expect("zstd"));
    assert_eq!(list(&url, &env), truth);

    // A set that lost a file, in a catalog that was made for what is left.
    let lost = share.node().join("backup-3");
    for file in files_below(&lost) {
        if file.extension().is_some_and(|ending| ending == "db") {
            std::fs::remove_file(file).expect("removing");
        }
    }
    share.lie(&with(&|lie| {
        lie["sets"]["backup-3"]["listing"] = share.listing("backup-3").into()
    }));
    let found = list(&url, &env);
    assert_eq!(found["sets"][2]["state"], "incomplete", "{found}");
    // The next catalog is right again.
    assert!(share.catalog()["sets"]["backup-3"].is_null());
}
