//! What other programs keep: listed by their names, read by verify and `restore --data-dir`. The files are the
//! snapshot among the fixtures, named and packed as those programs do it (by gzip, python's zlib, Go's `compress/lzw`).

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Bench, run, text};

/// The snapshot of the fixtures as Gardener's policy `lzw` packs it.
const LZW: &[u8] = include_bytes!("../../fixtures/foreign/snapshot.Z");

/// The database file of the real set.
fn snapshot(bench: &Bench) -> Vec<u8> {
    let dir = bench.set(1, "2026-06-01T02:00:00Z", |_| ());
    let found = std::fs::read_dir(&dir)
        .expect("a set")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|ending| ending == "db"))
        .expect("a snapshot");
    let bytes = std::fs::read(found).expect("a snapshot");
    std::fs::remove_dir_all(dir).expect("removing");
    bytes
}

fn pack(file: &Path, program: &[&str]) {
    let packed = Command::new(program[0])
        .args(&program[1..])
        .arg(file)
        .status();
    assert!(packed.expect("running it").success());
}

/// Packs as Go's archive/zip does it for k3s: deflated, sizes behind the data.
const ZIP: &str = "
import io, sys, zipfile
class Pipe(io.RawIOBase):
    def __init__(self, to): self.to = to
    def writable(self): return True
    def write(self, data): return self.to.write(data)
path = sys.argv[1]; data = open(path, 'rb').read()
with open(path, 'wb') as out, zipfile.ZipFile(Pipe(out), 'w', zipfile.ZIP_DEFLATED) as made:
    made.writestr('../../etc/on-demand-cp-1-1744272484', data)
";

/// Puts one of each into a directory.
fn shelve(bench: &Bench, dir: &Path) {
    let bytes = snapshot(bench);
    let put = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, bytes).expect("writing");
        path
    };
    put("Full-00000000-00009002-1518427675", &bytes);
    let packed = put("Full-00000000-00009003-1518427676", &bytes);
    pack(&packed, &["gzip", "-n"]);
    let zlib = put("Full-00000000-00009004-1518427677.zlib", &bytes);
    let code = "import sys, zlib; p = sys.argv[1]; d = open(p, 'rb').read(); open(p, 'wb').write(zlib.compress(d))";
    pack(&zlib, &["python3", "-c", code]);
    put("etcd-snapshot-cp-1-1744272483", &bytes);
    let zip = put("on-demand-cp-1-1744272484.zip", &bytes);
    pack(&zip, &["python3", "-c", ZIP]);
    // Packed by Go itself: fixtures/INDEX.md.
    put("Full-00000000-00009005-1518427678.Z.final", LZW);
    // A copy of the database file: no trailer.
    put("snapshot-20260611103000.db", &bytes[..bytes.len() - 32]);
    put("Incr-00009003-00009010-1518427700", b"[]");
    put("notes.txt", b"nothing");
}

/// What is listed: name, state, time.
fn listed(document: &serde_json::Value) -> Vec<(String, String, String)> {
    let word = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let sets = document["sets"].as_array().expect("sets");
    let all = sets.iter().map(|set| {
        (
            word(&set["name"]),
            word(&set["state"]),
            word(&set["created"]),
        )
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}

fn expected() -> Vec<(String, String, String)> {
    let all = [
        ("Full-00000000-00009002-1518427675", "2018-02-12T09:27:55Z"),
        (
            "Full-00000000-00009003-1518427676.gz",
            "2018-02-12T09:27:56Z",
        ),
        (
            "Full-00000000-00009004-1518427677.zlib",
            "2018-02-12T09:27:57Z",
        ),
        (
            "Full-00000000-00009005-1518427678.Z.final",
            "2018-02-12T09:27:58Z",
        ),
        ("etcd-snapshot-cp-1-1744272483", "2025-04-10T08:08:03Z"),
        ("on-demand-cp-1-1744272484.zip", "2025-04-10T08:08:04Z"),
        ("snapshot-20260611103000.db", "2026-06-11T10:30:00Z"),
    ];
    let owned =
        |(name, time): (&str, &str)| (name.to_owned(), "foreign".to_owned(), time.to_owned());
    all.map(owned).to_vec()
}

#[test]
fn what_others_keep_is_listed_and_read() {
    let bench = Bench::new();
    shelve(&bench, &bench.store());
    shelve(&bench, &bench.path("share"));
    let here = bench.run(&["list", "-o", "json"]).expect(0).json();
    assert_eq!(listed(&here), expected());
    assert!(here["newestGood"].is_null(), "{here}");
    assert!(here["sets"][0]["size"].as_u64().expect("a size") > 0);
    let url = bench.url();
    let there = run(&["list", &url, "-o", "json"]).expect(0).json();
    assert_eq!(listed(&there), expected());

    let scratch = bench.path("scratch");
    std::fs::create_dir(&scratch).expect("a folder");
    for (number, (name, _, _)) in expected().iter().enumerate() {
        let from = [
            bench.store().join(name).display().to_string(),
            format!("{url}/{name}"),
        ];
        for (place, source) in from.iter().enumerate() {
            let verified = run(&["verify", source, "--scratch", text(&scratch)]);
            let data = bench.path(&format!("data-{number}-{place}"));
            let restore = [
                "restore",
                source,
                "--data-dir",
                text(&data),
                "--scratch",
                text(&scratch),
            ];
            let verified = verified.expect(0);
            assert!(verified.stdout.contains("good"), "{verified}");
            if name.starts_with("snapshot-") {
                assert!(verified.stdout.contains("no hash"), "{verified}");
                // It has no hash that could be checked.
                run(&restore).expect(5);
                run(&[&restore[..], &["--allow", "no-integrity-hash"]].concat()).expect(0);
            } else {
                run(&restore).expect(0);
            }
            assert!(data.join("member/snap/db").is_file(), "{source}");
        }
    }
    assert_eq!(std::fs::read_dir(&scratch).expect("a folder").count(), 0);
    // No rule counts or removes what is not ours.
    let pruned = run(&["prune", &url, "--keep-last", "1", "--yes"]).expect(0);
    assert!(pruned.stdout.starts_with("0 removed"), "{pruned}");
}

#[test]
fn a_wrongly_packed_snapshot_is_a_bad_backup_and_unsigned() {
    let bench = Bench::new();
    let name = "Full-00000000-00009003-1518427676.gz";
    std::fs::write(bench.store().join(name), b"\x1f\x8b\x08nothing of the kind").expect("writing");
    bench.run(&["verify", name]).expect(3);
    // By compress(1), whose files have the same ending.
    let other = "Full-00000000-00009003-1518427676.Z";
    std::fs::write(
        bench.store().join(other),
        b"\x1f\x9d\x90nothing of the kind",
    )
    .expect("writing");
    bench.run(&["verify", other]).expect(3);
    let key = bench.key("key", &["-t", "ed25519"]);
    let signers = bench.signers("signers", &[("*", &key)]);
    let refused = bench
        .run(&["verify", name, "--allowed-signers", text(&signers)])
        .expect(5);
    assert!(refused.stderr.contains("[unsigned-backup]"), "{refused}");
}

/// Archives with several files, with none, and with one whose checksum is wrong.
#[test]
fn a_zip_that_is_not_one_snapshot_is_a_bad_backup() {
    let bench = Bench::new();
    let made = |code: &str| {
        let path = bench.store().join("on-demand-cp-1-1744272484.zip");
        let code = format!(
            "import sys, zipfile\nmade = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED)\n{code}"
        );
        let python = Command::new("python3")
            .args(["-c", &code, text(&path)])
            .status();
        assert!(python.expect("running python3").success());
        path
    };
    let refused = |path: &Path, told: &str| {
        let run = run(&["verify", text(path)]).expect(3);
        assert!(run.stderr.contains(told), "{told}: {run}");
    };
    refused(
        &made("[made.writestr(n, 'x') for n in 'ab']; made.close()"),
        "expected one file in the archive, found more",
    );
    let altered = made("made.writestr('a', 'x' * 5000); made.close()");
    let mut bytes = std::fs::read(&altered).expect("an archive");
    let checksum = bytes
        .windows(4)
        .rposition(|four| four == b"PK\x01\x02")
        .expect("a list")
        + 16;
    bytes[checksum] ^= 1;
    std::fs::write(&altered, bytes).expect("writing");
    refused(&altered, "unpacking ");
}
