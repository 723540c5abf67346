//! The command line as others see it: each golden file shows arguments, status, stdout and stderr
//! of one run. Needs no etcd: the one real set is a fixture, and all others are made of it.

mod errors;
mod every_command;
mod hints;
mod list;
mod old_names;
mod prune;
mod sample_stores;
mod verify;

use testbench::golden::{Placeholders, Run, assert_golden, run};

/// Runs and compares; the name is the golden file's.
#[track_caller]
fn golden(name: &str, args: &[&str], placeholders: &Placeholders) -> Run {
    let run = run(args, &[]);
    assert_golden("cli", name, &squeezed(&run), placeholders);
    run
}

/// The widths of columns depend on how old things are; the words do not. Help pages keep their
/// layout, which is compared, too.
fn squeezed(run: &Run) -> Run {
    let mut run = run.clone();
    if run.stdout.starts_with("BACKUP ") {
        let columns = |line: &str| {
            line.split("  ")
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .collect::<Vec<_>>()
                .join("  ")
        };
        run.stdout = run
            .stdout
            .lines()
            .map(|line| columns(line) + "\n")
            .collect();
    }
    run
}

#[test]
fn the_help_of_each_command() {
    let none = Placeholders::default();
    for (name, args) in [
        ("help", &["--help"] as &[&str]),
        ("help-short", &["-h"]),
        ("help-backup", &["backup", "--help"]),
        ("help-schedule", &["schedule", "--help"]),
        ("help-list", &["list", "--help"]),
        ("help-log", &["log", "--help"]),
        ("help-verify", &["verify", "--help"]),
        ("help-member-add", &["member-add", "--help"]),
        ("help-member-remove", &["member-remove", "--help"]),
        ("help-member-update", &["member-update", "--help"]),
        ("help-prune", &["prune", "--help"]),
        ("help-restore", &["restore", "--help"]),
        ("help-disable", &["disable", "--help"]),
        ("help-enable", &["enable", "--help"]),
        ("help-copy", &["copy", "--help"]),
        ("help-completions", &["completions", "--help"]),
        ("help-man", &["man", "--help"]),
    ] {
        let run = golden(name, args, &none).expect(0);
        let wide = run.stdout.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{name} does not fit 80 columns");
        // A rescue console may know nothing else.
        assert!(run.stdout.is_ascii(), "{name}: {run}");
    }
    let version = run(&["--version"], &[]).expect(0);
    assert_eq!(
        version.stdout,
        format!("etcd-dr {}\n", env!("CARGO_PKG_VERSION"))
    );
}
