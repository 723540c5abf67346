//! What holds for every command: JSON with its version, events a line each, colours only where
//! they are wanted, and a reader that goes away is not a disaster.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::sample_stores::Shelf;
use testbench::bins::skip;
use testbench::golden::{binary, etcd_dr, run};

#[test]
fn json_always_bears_its_version() {
    let shelf = Shelf::one_of_each();
    let store = shelf.store_text();
    let cases: &[(&[&str], &str, i32)] = &[
        (&["list", &store], "list", 0),
        (&["verify", "--store", &store, "latest"], "verify", 0),
        (&["verify", "--store", &store, "--all"], "verify", 3),
        (&["verify", "--store", &store, "none"], "verify", 2),
        (&["--profile", "bare", "backup", &store], "backup", 2),
        (&["backup", "--allow", "x"], "backup", 2),
        (&["list", "/absent"], "list", 6),
    ];
    for (args, command, status) in cases {
        let run = run(&[*args, &["-o", "json"]].concat(), &[]).expect(*status);
        let json = run.json();
        assert_eq!(json["schemaVersion"], 1, "{run}");
        assert_eq!(json["command"], *command, "{run}");
        let error = &json["error"];
        if error.is_object() {
            assert_eq!(error["exitCode"], *status, "{run}");
            let mut keys: Vec<_> = error.as_object().expect("an object").keys().collect();
            keys.sort();
            let expected = [
                "candidates",
                "chain",
                "exitCode",
                "hint",
                "kind",
                "message",
                "refusal",
                "refusals",
            ];
            assert_eq!(keys, expected, "{run}");
            // It is still on stderr, for people.
            assert!(run.stderr.starts_with("error: "), "{run}");
        }
    }
    let by_variable = run(&["list", &store], &[("ETCD_DR_OUTPUT", "json".to_owned())]).expect(0);
    assert_eq!(by_variable.json()["schemaVersion"], 1);
}

#[test]
fn events_are_one_json_object_a_line() {
    let shelf = Shelf::one_of_each();
    let store = shelf.store_text();
    let args = ["verify", "--store", &store, "latest", "--progress", "json"];
    let run = run(&args, &[]).expect(0);
    let events: Vec<Value> = run
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert!(
        events.iter().all(|event| event["schemaVersion"] == 1),
        "{run}"
    );
    let kinds: Vec<_> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    assert_eq!(kinds.len(), events.len());
    assert_eq!(kinds.first(), Some(&"phase-started"), "{run}");
    assert!(kinds.contains(&"phase-done"), "{run}");
    for event in &events {
        let mut keys: Vec<_> = event
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        let expected: &[&str] = match event["event"].as_str() {
            Some("phase-started") => &["about", "event", "phase", "schemaVersion", "total"],
            Some("phase-progress" | "phase-done") => &["done", "event", "phase", "schemaVersion"],
            Some("note") => &["event", "message", "schemaVersion"],
            other => panic!("{other:?}: {event}"),
        };
        assert_eq!(keys, expected);
    }
    // The result is not disturbed.
    assert!(run.stdout.starts_with("backup-12: good\n"), "{run}");
    let never = [&args[..4], &["--progress", "never"]].concat();
    assert_eq!(crate::run(&never, &[]).expect(0).stderr, "");
}

const ESCAPE: char = '\u{1b}';

#[test]
fn colours_are_only_where_they_are_wanted() {
    let shelf = Shelf::one_of_each();
    let store = shelf.store_text();
    let bad = ["verify", "--store", &store, "backup-4", "latest"];
    let nothing = ["verify", "--store", &store, "nothing"];
    let with = |args: &[&str], color: &[&str], no_color: Option<&str>| {
        let mut command = etcd_dr();
        command.env_remove("NO_COLOR").args(args).args(color);
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        let output = command.output().expect("running etcd-dr");
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8"))
    };
    for (color, no_color, expected) in [
        (&[] as &[&str], None, false),
        (&["--color", "auto"], None, false),
        (&["--color", "never"], None, false),
        (&["--color", "always"], None, true),
        // Our own variable has precedence over the one that all programs read.
        (&["--color", "always"], Some("1"), true),
        (&["--color", "auto"], Some("1"), false),
    ] {
        let [stdout, _] = with(&bad, color, no_color);
        assert_eq!(
            stdout.contains(ESCAPE),
            expected,
            "{color:?} {no_color:?} {stdout}"
        );
        let [_, stderr] = with(&nothing, color, no_color);
        assert_eq!(
            stderr.contains(ESCAPE),
            expected,
            "{color:?} {no_color:?} {stderr}"
        );
    }
    let [plain, _] = with(&bad, &["--color", "never"], None);
    let [coloured, _] = with(&bad, &["--color", "always"], None);
    assert_eq!(console::strip_ansi_codes(&coloured), plain);
}

#[test]
fn a_terminal_gets_colours_and_no_color_takes_them_away() {
    let shelf = Shelf::one_of_each();
    let line = format!(
        "{} verify --store {} latest",
        binary().display(),
        shelf.store().display()
    );
    let on_a_terminal = |no_color: bool| {
        let mut command = Command::new("script");
        command
            .args(["-qec", &line, "/dev/null"])
            .env_remove("NO_COLOR")
            .env("TERM", "xterm");
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let output = command.stdin(Stdio::null()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (Some(coloured), Some(plain)) = (on_a_terminal(false), on_a_terminal(true)) else {
        skip("there is no script(1) to make a terminal with");
        return;
    };
    assert!(coloured.contains("\u{1b}[32mgood"), "{coloured}");
    // A progress bar moves the cursor; nothing is painted.
    assert!(!plain.contains("\u{1b}[3"), "{plain}");
    assert!(plain.contains("backup-12: good"), "{plain}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let shelf = Shelf::one_of_each();
    let store = shelf.store_text();
    let cases: &[(&[&str], i32)] = &[
        (&["--help"], 0),
        (&["backup", "--help"], 0),
        (&["list", &store], 0),
        (&["list", &store, "-o", "json"], 0),
        (&["list", &store, "--stale-after", "1h"], 11),
        (&["verify", "--store", &store, "--all"], 3),
        (&["completions", "bash"], 0),
        (&["man"], 0),
    ];
    for (args, status) in cases {
        // Gone before the first word: every write fails.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = etcd_dr()
            .args(*args)
            .stdout(writer)
            .output()
            .expect("running etcd-dr");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*status), "{args:?}: {stderr}");
        assert!(
            !stderr.contains("panicked") && !stderr.contains("error:"),
            "{args:?}: {stderr}"
        );
        // Gone after one line, as with `| head -1`.
        let mut child = etcd_dr()
            .args(*args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting etcd-dr");
        let mut first = String::new();
        let mut out = BufReader::with_capacity(64, child.stdout.take().expect("its stdout"));
        out.read_line(&mut first).expect("a line");
        drop(out);
        let output = child.wait_with_output().expect("waiting for etcd-dr");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*status), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    }
    // stderr has no reader, either.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = etcd_dr().args(["list", "/absent"]).stderr(writer).output();
    assert_eq!(output.expect("running etcd-dr").status.code(), Some(6));
    // A result that cannot be written is a failure, not a success without a reader.
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let output = etcd_dr()
        .args(["list", &store])
        .stdout(full)
        .output()
        .expect("running etcd-dr");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("writing the result"), "{stderr}");
}
