//! Each hint is true: the whole command that it names is typed, with its words in capitals filled
//! in, and the failure is gone.

use std::process::Command;

use clap::Parser;
use etcd_dr::cli::args::Cli;

use crate::errors::{NODES, node};
use crate::sample_stores::{self, Shelf};
use testbench::bins::skip;
use testbench::certs::Ca;
use testbench::golden::{Run, run};

/// What a run says to type next, without the list of choices.
fn hint(run: &Run) -> String {
    let line = run.stderr.lines().find(|line| line.starts_with("  hint: "));
    let line = line.unwrap_or_else(|| panic!("no hint: {run}"));
    let line = line.split("  (one of").next().unwrap_or(line);
    let (_, command) = line
        .trim_start_matches("  hint: ")
        .split_once(": ")
        .unwrap_or_else(|| panic!("no command: {run}"));
    command.to_owned()
}

/// Types the hint, with other words for its placeholders.
#[track_caller]
fn typed(failed: &Run, fill: &[(&str, &str)]) -> Run {
    let mut words = hint(failed);
    for (word, value) in fill {
        assert!(words.contains(word), "{words} has no {word}");
        words = words.replace(word, value);
    }
    let words: Vec<&str> = words.split(' ').collect();
    assert_eq!(words.first(), Some(&"etcd-dr"), "{failed}");
    let next = run(&words[1..], &[]);
    let first = |run: &Run| run.stderr.lines().next().map(str::to_owned);
    assert_ne!(
        first(failed),
        first(&next),
        "the hint changed nothing: {next}"
    );
    next
}

#[test]
fn hints_say_what_is_missing_and_where_the_node_is_mounted() {
    let shelf = Shelf::new();
    let store = shelf.store_text();
    let empty = shelf.dir().join("empty");
    std::fs::create_dir(&empty).expect("a root");
    let empty = empty.to_str().expect("UTF-8");

    let ca = Ca::new("somebody");
    let leaf = ca.leaf(
        "client",
        "nobody",
        &["127.1.9.1".parse().expect("an address")],
    );
    let files = leaf.write(shelf.dir(), "client");
    let (cert, key) = (
        files.cert.to_str().expect("UTF-8"),
        files.key.to_str().expect("UTF-8"),
    );

    // From nothing at all to a server that does not answer, by hints alone.
    let no_endpoint = run(&["--root", empty, "backup", &store], &[]).expect(2);
    let no_ca = typed(&no_endpoint, &[("ADDRESS", "127.1.9.1")]);
    let context = ["--root", empty, "--endpoints", "https://127.1.9.1:2379"];
    let down = typed(&no_ca.expect(2), &[("FILE", cert)]);
    assert_eq!(down.status, Some(4), "{down}");
    let half = run(
        &[
            &["--cacert", cert, "--cert", cert],
            &context[..],
            &["backup", &store],
        ]
        .concat(),
        &[],
    )
    .expect(2);
    let fill = [
        ("--cert FILE", format!("--cert {cert}")),
        ("--key FILE", format!("--key {key}")),
    ];
    let fill: Vec<_> = fill
        .iter()
        .map(|(word, value)| (*word, value.as_str()))
        .collect();
    assert_eq!(typed(&half, &fill).status, Some(4));

    let root = node(&shelf.dir().join("openshift"), &["--nodes", NODES]);
    let named = ["--root", &root, "--endpoints", "http://127.1.9.1:2379"];
    let args = [
        &["--node-name", "master-7"],
        &named[..],
        &["backup", &store],
    ]
    .concat();
    let unknown = run(&args, &[]).expect(5);
    let known = typed(&unknown, &[("NAME", "master-0")]);
    assert_eq!(known.status, Some(4), "{known}");

    let pod = shelf.dir().join("pod");
    std::fs::create_dir(&pod).expect("a root");
    std::os::unix::fs::symlink(&root, pod.join("host")).expect("a mount, nearly");
    let pod = pod.to_str().expect("UTF-8");
    let named = [
        "--endpoints",
        "http://127.1.9.1:2379",
        "--node-name",
        "master-0",
    ];
    let args = [&named[..], &["--root", pod, "backup", &store]].concat();
    let mounted = run(&args, &[]).expect(2);
    assert_eq!(typed(&mounted, &[]).status, Some(4));
}

#[test]
fn hints_name_other_backups() {
    let shelf = Shelf::new();
    let store = shelf.store_text();
    let at = ["--profile", "bare", "--endpoints", "http://127.1.9.1:2379"];
    let args = [&at[..], &["verify", "--store", &store, "latest"]].concat();
    let nothing = run(&args, &[]).expect(2);
    // It is taken as soon as there is an etcd.
    assert_eq!(typed(&nothing, &[]).status, Some(4));

    shelf.good(1);
    sample_stores::flip(&sample_stores::snapshot(&shelf.good(2)), 5000);
    let data = shelf.dir().join("data");
    let data = data.to_str().expect("UTF-8");
    let args = ["restore", "backup-2", "--data-dir", data, "--store", &store];
    let broken = run(&args, &[]).expect(3);
    let all = typed(&broken, &[]).expect(3);
    assert!(all.stdout.contains("backup-1: good"), "{all}");

    // Of several names one is to be chosen; each is a backup.
    let unknown = run(&["verify", "--store", &store, "backup-7"], &[]).expect(2);
    let (_, names) = unknown.stderr.split_once("one of: ").expect("names");
    for name in names.trim().split(", ") {
        let run = run(&["verify", "--store", &store, name], &[]);
        assert!(matches!(run.status, Some(0 | 3)), "{run}");
    }
}

#[test]
fn a_hint_names_the_holder_of_a_lock() {
    let shelf = Shelf::new();
    let store = shelf.store_text();
    let root = node(&shelf.dir().join("openshift"), &["--nodes", NODES]);
    let lock = shelf.store().join(".etcd-dr.lock");
    let held = std::fs::File::create(&lock).expect("a lock file");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("locking it");
    std::fs::write(&lock, format!("{} backup\n", std::process::id())).expect("who holds it");
    let args = ["--root", &root, "--node-name", "master-0", "backup", &store];
    let busy = run(&args, &[]).expect(7);
    let words = hint(&busy);
    let words: Vec<&str> = words.split(' ').collect();
    match Command::new(words[0]).args(&words[1..]).output() {
        Ok(output) => assert!(output.status.success(), "{words:?}: {output:?}"),
        Err(error) => skip(&format!("there is no ps: {error}")),
    }
}

#[test]
fn a_hint_overrides_an_allowable_refusal() {
    let shelf = Shelf::new();
    shelf.good(1);
    shelf.good(2);
    // Another backup of the store has seen far more than this one.
    shelf.edit(2, |manifest| {
        manifest["database"]["kvRevision"] = 2_000_000_000.into()
    });
    let store = shelf.store_text();
    let data = shelf.dir().join("data");
    let data = data.to_str().expect("UTF-8");
    let tail = [
        "--data-dir",
        data,
        "--store",
        &store,
        "--bump-revision",
        "1",
        "--mark-compacted",
    ];
    let low = run(&[&["restore", "backup-1"], &tail[..]].concat(), &[]).expect(5);
    let safe = hint(&low);
    let (_, over) = low
        .stderr
        .split_once("to override the refusal: ")
        .expect("an override below the safe way");
    for words in [over.trim(), &safe] {
        let words: Vec<&str> = words.split(' ').skip(1).collect();
        run(&words, &[]).expect(0);
        std::fs::remove_dir_all(data).expect("what was made");
    }
}

/// Every hint that a golden file of any suite shows is a line that the command tree takes.
#[test]
fn every_hint_that_is_shown_can_be_typed() {
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut seen = 0;
    for suite in std::fs::read_dir(tests).expect("the suites") {
        let golden = suite.expect("an entry").path().join("golden");
        let Ok(files) = std::fs::read_dir(golden) else {
            continue;
        };
        for file in files {
            let path = file.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("text");
            let hints = text
                .lines()
                .filter(|line| line.starts_with("  hint: ") || line.starts_with("        to "));
            for line in hints {
                let Some((_, words)) = line.split_once(": etcd-dr ") else {
                    continue;
                };
                let words = words.split("  (one of").next().unwrap_or(words);
                let words = words.replace("openshift|kubeadm|bare", "bare");
                let words = std::iter::once("etcd-dr").chain(words.split(' '));
                let parsed = Cli::try_parse_from(words);
                // What names a set or a member is the operator's to add.
                let fine = parsed.as_ref().err().is_none_or(|error| {
                    error.kind() == clap::error::ErrorKind::MissingRequiredArgument
                });
                assert!(fine, "{}: {line}: {:?}", path.display(), parsed.err());
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "only {seen} hints were found");
}

/// Every command in the documents is one that this command line takes.
#[test]
fn every_command_in_the_documents_can_be_typed() {
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for file in ["README.md", "docs/runbook.md", "docs/runbook-members.md"] {
        let text = std::fs::read_to_string(project.join(file)).expect("a document");
        let inline = text.split('`').skip(1).step_by(2);
        let prompts = text.lines().filter_map(|line| line.split_once("# "));
        let typed = prompts.map(|(_, command)| command);
        for words in inline.chain(typed).map(str::trim) {
            if !words.starts_with("etcd-dr ") || words.contains("...") {
                continue;
            }
            // What follows two blanks is a remark, what follows a redirection the shell's.
            let command = words.replace('\n', " ");
            let command = command.split("  ").next().unwrap_or_default();
            let command = command.split(" >").next().unwrap_or_default();
            let parsed = Cli::try_parse_from(command.split_whitespace());
            let fine = parsed.as_ref().err().is_none_or(|error| {
                matches!(
                    error.kind(),
                    clap::error::ErrorKind::MissingRequiredArgument
                        | clap::error::ErrorKind::MissingSubcommand
                        | clap::error::ErrorKind::DisplayHelp
                )
            });
            assert!(
                fine,
                "{file}: {command:?}: {}",
                parsed.err().map(|e| e.to_string()).unwrap_or_default()
            );
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} commands were found");
}
