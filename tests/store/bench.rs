//! A store of real sets, made of the fixture, and runs of the command on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use testbench::golden::{self, Run};

/// The cluster and node that the fixture's Manifest names.
pub fn place() -> String {
    let manifest = fixture_manifest();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let cluster = match &manifest["cluster"]["uuid"] {
        serde_json::Value::Null => text(&manifest["cluster"]["etcdId"]),
        uuid => text(uuid),
    };
    let node = match &manifest["node"]["name"] {
        serde_json::Value::Null => text(&manifest["node"]["host"]),
        name => text(name),
    };
    format!("{cluster}/{node}")
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/store/backup-1")
}

fn fixture_manifest() -> serde_json::Value {
    let bytes = std::fs::read(fixture().join("backup.json")).expect("the fixture");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The node's own store.
pub struct Bench {
    pub dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("store")).expect("a store");
        Self { dir }
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A copy of the real set under a number and a day.
    pub fn set(&self, number: u32) -> PathBuf {
        let to = self.store().join(format!("backup-{number}"));
        let copied = Command::new("cp")
            .arg("-a")
            .arg(fixture())
            .arg(&to)
            .status();
        assert!(copied.expect("running cp").success());
        let mut manifest = fixture_manifest();
        manifest["id"] = format!("backup-{number}").into();
        manifest["created"] = format!("2025-06-{number:02}T02:00:00Z").into();
        std::fs::write(to.join("backup.json"), manifest.to_string()).expect("a Manifest");
        to
    }

    /// The same with a snapshot of so many bytes, which is a snapshot by its name and hash only.
    pub fn big_set(&self, number: u32, bytes: usize) -> PathBuf {
        let dir = self.set(number);
        let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ u64::from(number);
        let content: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(bytes)
        .collect();
        let path = dir.join("backup.json");
        let mut manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).expect("a Manifest")).expect("JSON");
        for file in manifest["files"].as_array_mut().expect("files") {
            if file["kind"] == "snapshot" {
                file["size"] = bytes.into();
                file["sha256"] = hex::encode(Sha256::digest(&content)).into();
                let name = file["name"].as_str().expect("a name");
                std::fs::write(dir.join(name), &content).expect("a snapshot");
            }
        }
        std::fs::write(&path, manifest.to_string()).expect("a Manifest");
        dir
    }

    /// Copies a set of this store to a URL.
    pub fn copy(&self, set: &str, url: &str, more: &[&str], env: &[(&str, String)]) -> Run {
        let store = self.store();
        let mut args = vec!["copy", set, url, "--progress", "never", "--store"];
        args.push(store.to_str().expect("UTF-8"));
        args.extend(more);
        golden::run(&args, env)
    }
}

/// Runs a command without a report of its progress.
pub fn run(args: &[&str], env: &[(&str, String)]) -> Run {
    let mut all = args.to_vec();
    all.extend(["--progress", "never"]);
    golden::run(&all, env)
}

/// The names and states that `list` shows of a URL.
pub fn listed(url: &str, env: &[(&str, String)]) -> Vec<(String, String)> {
    let listed = run(&["list", url, "-o", "json"], env).expect(0).json();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let sets = listed["sets"].as_array().expect("sets");
    sets.iter()
        .map(|set| (text(&set["name"]), text(&set["state"])))
        .collect()
}

/// No set is listed as good or dirty.
pub fn assert_none(url: &str, env: &[(&str, String)], what: &str) {
    let sets = listed(url, env);
    assert!(
        sets.iter().all(|(_, state)| state == "incomplete"),
        "{what}: {sets:?}"
    );
}

/// Whether two directories hold the same set.
pub fn assert_same_set(one: &Path, other: &Path) {
    let files = |dir: &Path| -> Vec<(std::ffi::OsString, Vec<u8>)> {
        let entries = std::fs::read_dir(dir).expect("a set");
        let mut files: Vec<_> = entries
            .map(|entry| entry.expect("an entry"))
            .map(|entry| {
                (
                    entry.file_name(),
                    std::fs::read(entry.path()).expect("a file"),
                )
            })
            .collect();
        files.sort();
        files
    };
    assert!(
        files(one) == files(other),
        "{} and {} differ",
        one.display(),
        other.display()
    );
}

/// Every file below a directory.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("its type").is_dir() {
                dirs.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}
