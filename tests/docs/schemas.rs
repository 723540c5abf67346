//! docs/schemas: each is a schema, each command has one, and what the commands really print is as
//! they say, with no field that they do not name. Every other suite that reads JSON holds it
//! against them too (`support/schema.rs`).

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use etcd_dr::cli::args::Cli;
use serde_json::{Value, json};

use crate::node::{Node, etcd};
use crate::project;
use testbench::golden::{Run, run};
use testbench::node::NodeOptions;
use testbench::schema;

#[test]
fn each_command_has_a_schema_and_the_promise_names_it() {
    let names = schema::names();
    let mut tree = Cli::command();
    tree.build();
    for command in tree.get_subcommands().map(clap::Command::get_name) {
        let name = match command {
            "help" => continue,
            "man" | "completions" => "text",
            other => other,
        };
        assert!(names.iter().any(|known| known == name), "no {name}.json");
    }
    let promise = std::fs::read_to_string(project().join("docs/interface.md")).expect("text");
    for name in &names {
        let schema = schema::read(name);
        assert_eq!(
            schema["$schema"], "https://json-schema.org/draft/2020-12/schema",
            "{name}"
        );
        assert!(schema["description"].is_string(), "{name} describes itself");
        let link = format!("(schemas/{name}.json)");
        assert!(promise.contains(&link), "docs/interface.md has no {link}");
        // It can be read, and says something: nothing at all fits none but the common parts.
        let wrong = schema::complaint(name, &json!({}), false);
        assert_eq!(wrong.is_none(), name == "common", "{name}");
    }
}

#[test]
fn unknown_fields_fail_here_and_are_allowed_to_readers() {
    let mut document = json!({"schemaVersion": 1, "text": "x"});
    assert_eq!(schema::complaint("text", &document, true), None);
    document["later"] = 1.into();
    assert!(schema::complaint("text", &document, true).is_some());
    assert_eq!(schema::complaint("text", &document, false), None);
    document["schemaVersion"] = 2.into();
    assert!(schema::complaint("text", &document, false).is_some());
}

fn file(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs with `-o json`, and holds what it says against the schema.
#[track_caller]
fn shown(status: i32, args: &[&str]) -> Run {
    let run = run(&[args, &["-o", "json", "--progress", "json"]].concat(), &[]).expect(status);
    run.json();
    let events: Vec<&str> = run.stderr.lines().filter(|l| l.starts_with('{')).collect();
    schema::check_events(&events.join("\n"));
    run
}

/// A store of the real set, three times.
fn store(at: &Path) -> String {
    let from = project().join("fixtures/store/backup-1");
    for number in 1..=3 {
        let to = at.join(format!("backup-{number}"));
        std::fs::create_dir_all(&to).expect("a set");
        for file in std::fs::read_dir(&from).expect("the fixture") {
            let file = file.expect("an entry").path();
            std::fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("copying");
        }
    }
    at.to_str().expect("UTF-8").to_owned()
}

/// The folder of a set in another store.
fn remote_set(share: &Path) -> PathBuf {
    let only = |dir: &Path| {
        let entries = std::fs::read_dir(dir).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut shown = paths.filter(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            !name.starts_with('.')
        });
        shown.next().expect("one")
    };
    only(&only(&only(share)))
}

#[test]
fn documents_that_need_no_etcd_fit_their_schemas() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(&dir.path().join("store"));
    let share = dir.path().join("share");
    std::fs::create_dir(&share).expect("a share");
    let url = format!("file://{}", share.display());
    let of = |command: &'static str| [command, "--store", &store].map(str::to_owned);
    let verify: Vec<String> = of("verify").into();
    let verify: Vec<&str> = verify.iter().map(String::as_str).collect();

    let mut checked = Vec::new();
    shown(0, &["list", &store]);
    shown(11, &["list", &store, "--stale-after", "1h"]);
    shown(0, &[&verify[..], &["backup-1"]].concat());
    schema::check(
        "verified",
        &file(&Path::new(&store).join("backup-1/verified.json")),
    );
    schema::check(
        "manifest",
        &file(&Path::new(&store).join("backup-1/backup.json")),
    );
    let copy = ["copy", "--store", &store, "backup-1", &url];
    shown(0, &[&copy[..], &["--compress"]].concat());
    shown(0, &copy);
    let there = remote_set(&share);
    for entry in std::fs::read_dir(&there).expect("a set there") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let schema = match name.as_ref() {
            "backup.json" => "manifest",
            "remote.json" => "remote",
            claim if claim.starts_with("claim-") => "claim",
            _ => continue,
        };
        schema::check(schema, &file(&path));
        checked.push(schema);
    }
    checked.sort_unstable();
    assert_eq!(checked, ["claim", "manifest", "remote"]);
    shown(0, &["list", &url]);
    let set = format!(
        "{url}/{}",
        there.strip_prefix(&share).expect("below").display()
    );
    shown(0, &["verify", &set]);
    shown(0, &["list", &url]);
    let other = dir.path().join("other").display().to_string();
    shown(0, &["copy", &set, &other]);
    shown(0, &["prune", &url, "--keep-last", "1", "--yes"]);
    shown(0, &["prune", &store, "--keep-last", "1", "--dry-run"]);
    shown(0, &["prune", &store, "--keep-last", "1", "--yes"]);
    let data = dir.path().join("data").display().to_string();
    let restore = ["restore", "--store", &store, "latest", "--data-dir", &data];
    shown(0, &restore);
    shown(5, &restore);
    let of_member = shown(0, &["verify", "--data-dir", &data, "--store", &store]);
    let report = dir.path().join("report.json");
    std::fs::write(&report, &of_member.stdout).expect("a report");
    shown(0, &["verify", "--compare", report.to_str().expect("UTF-8")]);
    let alone = dir.path().join("alone").display().to_string();
    shown(
        0,
        &["restore", "--from-data-dir", &data, "--data-dir", &alone],
    );
    // Broken ones have findings, with their places.
    let snapshot = std::fs::read_dir(Path::new(&store).join("backup-3"))
        .expect("a set")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|ending| ending == "db"))
        .expect("a snapshot");
    let mut bytes = std::fs::read(&snapshot).expect("a snapshot");
    bytes[5000] ^= 0xff;
    std::fs::write(&snapshot, &bytes).expect("a snapshot");
    shown(3, &[&verify[..], &["backup-3"]].concat());
    std::fs::write(&snapshot, &bytes[..bytes.len() - 100]).expect("a snapshot");
    shown(3, &[&verify[..], &["backup-3"]].concat());
    shown(2, &["verify", "--data-dir", &store]);
    shown(0, &["man"]);
    shown(0, &["completions", "bash"]);
}

#[test]
fn documents_of_a_node_fit_their_schemas() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = Node::single(&bins, &NodeOptions::default());
    let json = |node: &Node, status: i32, args: &[&str]| {
        let (_, err) = node.expect(
            status,
            &[args, &["-o", "json", "--progress", "json"]].concat(),
        );
        let events: Vec<&str> = err.lines().filter(|line| line.starts_with('{')).collect();
        schema::check_events(&events.join("\n"))
    };
    assert!(json(&node, 0, &["backup"]) > 3);
    json(&node, 0, &["backup", "--if-older-than", "1h"]);
    json(&node, 0, &["backup", "--keep-last", "1"]);
    json(&node, 0, &["list"]);
    json(&node, 0, &["verify", "latest", "--live"]);
    json(&node, 0, &["verify", "--cluster"]);
    json(&node, 0, &["restore", "latest", "--dry-run"]);
    assert!(json(&node, 0, &["restore", "latest", "--yes", "--wait", "60s"]) > 10);
    let entries = std::fs::read_dir(node.path("var/lib/etcd-dr")).expect("the state");
    let mut logs = entries.map(|entry| entry.expect("an entry").path().join("log"));
    let log = logs.find(|log| log.is_file()).expect("a log");
    assert!(schema::check_events(&std::fs::read_to_string(log).expect("a log")) > 10);
    json(&node, 0, &["restore", "--status"]);
    json(&node, 0, &["restore", "--rollback", "--yes"]);
    json(&node, 0, &["restore", "--commit", "--yes"]);
    json(&node, 0, &["restore", "--commit", "--yes"]);
    json(
        &node,
        0,
        &["restore", "latest", "--scope", "etcd", "--dry-run"],
    );
    node.bench.settle();
    node.cluster.wait_member(0);
    json(&node, 0, &["disable", "--dry-run"]);
    json(&node, 0, &["disable"]);
    json(&node, 0, &["disable"]);
    let data = node.path("var/lib/etcd").display().to_string();
    json(&node, 0, &["verify", "--data-dir", &data]);
    json(
        &node,
        0,
        &["restore", "--from-data-dir", &data, "--dry-run"],
    );
    json(&node, 0, &["enable", "--dry-run"]);
    json(&node, 0, &["enable"]);
    json(&node, 0, &["enable"]);
    json(&node, 2, &["restore", "backup-9", "--dry-run"]);
}
