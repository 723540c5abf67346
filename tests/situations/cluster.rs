//! Clusters that cannot commit, members that others cannot reach, questions that are interrupted.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::node::{Node, etcd};
use testbench::bins::skip;
use testbench::golden::binary;
use testbench::node::NodeOptions;
use testbench::process::{terminate, wait_for};
use testbench::terminal::Terminal;

/// Names and next commands that `verify --cluster` gives.
fn findings(node: &Node) -> Vec<(String, String)> {
    let output = node.run(&["verify", "--cluster", "-o", "json"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    testbench::schema::check_output(&json);
    let findings = json["cluster"]["findings"].as_array().expect("findings");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    findings
        .iter()
        .map(|finding| (word(&finding["name"]), word(&finding["next"])))
        .collect()
}

/// A playbook runs both again and again.
#[test]
fn disable_and_enable_may_be_repeated() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::single(&bins, &NodeOptions::default());
    let told = node.expect(0, &["enable", "-o", "json"]).0;
    assert!(told.contains("\"disabled\": false"), "{told}");
    let told = node.expect(0, &["disable", "--dry-run", "-o", "json"]).0;
    let json: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(json["votes"]["before"]["healthy"], 1, "{told}");
    assert_eq!(json["votes"]["after"]["tolerance"], Value::Null, "{told}");
    // There is no terminal to ask on: it continues, and says what that costs.
    let told = node.expect(0, &["disable"]).1;
    assert!(told.contains("[would-lose-quorum]"), "{told}");
    node.expect(0, &["disable", "--yes"]);
    let found = findings(&node);
    let disabled = ("etcd-disabled".to_owned(), "etcd-dr enable".to_owned());
    assert!(found.contains(&disabled), "{found:?}");
    node.expect(0, &["enable", "--dry-run", "-o", "json"]);
    assert!(!node.bench.runs("etcd"));
    for _ in 0..2 {
        let told = node.expect(0, &["enable", "--yes"]).0;
        assert!(told.contains("serves"), "{told}");
        assert!(node.bench.runs("etcd"));
    }
    let manifest = node.path("etc/kubernetes/manifests/etcd-pod.yaml");
    std::fs::remove_file(&manifest).expect("removing a manifest");
    let told = node.expect(2, &["enable"]).1;
    assert!(told.contains("has no manifest"), "{told}");
}

/// etcd that answers and commits nothing does not serve; nor does one that ends as soon as it is
/// started, of which the container runtime knows more than its port.
#[test]
fn enable_waits_for_what_etcd_commits_and_says_why_it_does_not() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::with(&bins, &NodeOptions::default(), |spec| {
        // As kubeadm's manifest says of the first node.
        let launch = spec.etcd.as_mut().expect("etcd");
        launch.extra.push("--initial-cluster-state=new".to_owned());
    });
    node.expect(0, &["disable"]);
    let member = node.path("var/lib/etcd/member");
    std::fs::remove_dir_all(member.join("wal")).expect("removing the log");
    let told = node.expect(4, &["enable", "--wait", "15s"]).1;
    assert!(told.contains("commits nothing"), "{told}");
    node.expect(0, &["disable"]);
    std::fs::write(member.join("snap/db"), [7; 40_000]).expect("breaking the database");
    let told = node.expect(4, &["enable", "--wait", "15s"]).1;
    assert!(
        told.contains("its container has exited") && told.contains("crictl logs "),
        "{told}"
    );
}

/// The process with a word in its arguments.
fn process_of(word: &str) -> Pid {
    let has_word = |pid: &i32| {
        let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        arguments.is_ok_and(|arguments| arguments.contains(word))
    };
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = pids.into_iter().find(has_word);
    found.and_then(Pid::from_raw).expect("a process")
}

/// A question on a terminal shows the quorum, and the first Ctrl-C or SIGTERM ends it: nothing has
/// changed, and nothing is locked.
#[test]
fn a_signal_ends_every_question_at_once() {
    let Some(bins) = etcd("3.5") else { return };
    if !Terminal::is_there() {
        return skip("there is no tmux");
    }
    let node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    let (root, pid) = (node.root.display(), node.root.join("pid"));
    let ask = |command: &str| {
        let inner = format!(
            "echo $$ > {}; exec {} --node-name master-0 --root {root} {command}",
            pid.display(),
            binary().display()
        );
        // The shell outlives the key, which is the whole terminal's.
        let line = format!("trap : INT; sh -c '{inner}'; echo \"[exit $?]\"; sleep 100");
        let env = [("ETCD_DR_DETACH", "never"), ("NO_COLOR", "1")];
        let terminal = Terminal::start((120, 60), &env, &["sh", "-c", &line]);
        let screen = terminal.wait("the question", |screen| screen.contains("[y/N]"));
        (terminal, screen)
    };
    for (command, shown) in [
        ("disable", "The cluster loses quorum"),
        (
            "restore latest --scope etcd",
            "Restore backup-1 to this node?",
        ),
        (
            "member-add m1 --peer-urls https://127.16.9.9:2380",
            "Add member m1?",
        ),
    ] {
        for by_key in [true, false] {
            let (terminal, screen) = ask(command);
            assert!(screen.contains(shown), "{command}:\n{screen}");
            if command.starts_with("restore") {
                // What would be lost, and where the rest is.
                assert!(
                    screen.contains("Compared with the running etcd, revision")
                        && screen.contains("for the rest: etcd-dr diff latest"),
                    "{screen}"
                );
            }
            if by_key {
                terminal.keys(&["C-c"]);
            } else {
                let written = std::fs::read_to_string(&pid).expect("a process id");
                terminate(written.trim().parse().expect("a process id"));
            }
            let screen = terminal.wait("the end", |screen| screen.contains("[exit "));
            assert!(screen.contains("[exit 130]"), "{command}:\n{screen}");
            assert!(screen.contains("nothing was changed"), "{screen}");
        }
    }
    // An etcd that hangs is not waited for.
    let etcd = process_of(&node.cluster.data_dir(0).display().to_string());
    kill_process(etcd, Signal::STOP).expect("stopping etcd");
    let (terminal, screen) = ask("restore latest --scope etcd");
    assert!(
        screen.contains("Not compared with the running etcd"),
        "{screen}"
    );
    terminal.keys(&["C-c"]);
    terminal.wait("the end", |screen| screen.contains("[exit 130]"));
    kill_process(etcd, Signal::CONT).expect("continuing etcd");
    let free = wait_for("the lock", Duration::from_secs(5), || {
        let output = node.run(&["disable", "--dry-run"]);
        if output.status.success() {
            Ok(())
        } else {
            Err("held")
        }
    });
    free.expect("nobody holds it");
    assert!(node.bench.runs("etcd"));
}

/// Each line of the progress is an event: the plan, the failure and its hint, too.
#[test]
fn progress_as_json_is_nothing_but_json_and_never_is_quiet() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    let told_as = |form: &str, args: &[&str]| {
        let mut command = testbench::golden::etcd_dr();
        command
            .args(["--progress", form, "--node-name", "master-0", "--root"])
            .arg(&node.root)
            .args(args)
            .env("ETCD_DR_DETACH", "never");
        command.output().expect("running etcd-dr")
    };
    let events = |args: &[&str]| -> Vec<Value> {
        let output = told_as("json", args);
        let text = super::node::text(&output.stderr);
        testbench::schema::check_events(&text);
        let read =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        text.lines().map(read).collect()
    };
    let has = |events: &[Value], kind: &str| events.iter().any(|event| event["event"] == kind);
    let restore = ["restore", "backup-1", "--scope", "etcd", "--yes"];
    let told = events(&restore);
    assert!(has(&told, "plan") && has(&told, "step"), "{told:?}");
    let failed = events(&["restore", "backup-9", "--yes"]);
    assert!(has(&failed, "error"), "{failed:?}");
    node.expect(0, &["restore", "--commit", "--yes"]);
    let output = told_as("never", &restore);
    assert_eq!(output.status.code(), Some(0));
    let quiet = super::node::text(&output.stderr);
    assert!(
        !quiet.contains("[1/") && !quiet.contains("waiting for"),
        "{quiet}"
    );
}
