//! Looking inside a backup: what `get` and `diff` show of databases that a real API server 1.36 wrote, compared with what that server
//! answered (fixtures/objects).

mod apply;
mod bound;
mod browser;
mod diff;
mod get;
mod places;
mod two_step;

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testbench::golden::{Run, run};

/// A file of fixtures/objects.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/objects")
        .join(name)
}

/// The answers of the API server.
fn answers(name: &str) -> Vec<Value> {
    let file = File::open(fixture(&format!("{name}.json.zst"))).expect("the fixture");
    let text = zstd::decode_all(file).expect("a compressed file");
    serde_json::from_slice(&text).expect("answers")
}

/// An unpacked database in its own folder.
struct Unpacked {
    dir: tempfile::TempDir,
    answers: Vec<Value>,
}

impl Unpacked {
    fn of(name: &str) -> Self {
        let answers = answers(name);
        Self {
            answers,
            ..Self::database(name)
        }
    }

    /// One that no API server was asked about.
    fn database(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let file = File::open(fixture(&format!("{name}.db.zst"))).expect("the fixture");
        let bytes = zstd::decode_all(file).expect("a compressed file");
        std::fs::write(dir.path().join("snapshot.db"), bytes).expect("the database");
        let answers = Vec::new();
        Self { dir, answers }
    }

    fn path(&self) -> String {
        self.dir.path().join("snapshot.db").display().to_string()
    }

    /// Runs `etcd-dr COMMAND snapshot.db …`.
    fn run(&self, command: &str, args: &[&str]) -> Run {
        let path = self.path();
        let all: Vec<&str> = [command, &path]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        run(&all, &[])
    }

    fn objects(&self, kind: &str) -> Vec<&Value> {
        let objects = self.answers.iter().map(|answer| &answer["object"]);
        objects.filter(|object| object["kind"] == kind).collect()
    }
}
