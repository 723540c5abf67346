//! The terminal dies, the operator changes his mind, the process is killed.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::node::{Node, assert_same, etcd, text};
use testbench::node::NodeOptions;

fn node() -> Option<Node> {
    let node = Node::single(&etcd("3.5")?, &NodeOptions::default());
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    node.roll_out("kube-scheduler", 6, 8);
    Some(node)
}

/// A restore in its own session, which has come to this step.
fn running(node: &Node, until: &str) -> Child {
    let mut command = node.command();
    command
        .args(["restore", "backup-1", "--yes", "--wait", "60s"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().expect("starting etcd-dr");
    let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let mut told = Vec::new();
    for line in lines {
        let line = line.expect("a line");
        told.push(line.clone());
        if line.contains(until) && line.starts_with('[') {
            // The pipe goes with the reader: later output has no reader.
            return child;
        }
    }
    let ended = child.wait();
    panic!(
        "it never came to {until:?}, {ended:?}:\n{}",
        told.join("\n")
    );
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("sending a signal");
}

#[test]
fn a_restore_continues_when_its_terminal_is_gone() {
    let Some(mut node) = node() else { return };
    let mut child = running(&node, "stop the static pods");
    send(&child, Signal::HUP);
    drop(child.stdout.take());
    // From a new session, to the end.
    let (out, told) = node.expect(0, &["restore", "--status"]);
    let status = child.wait().expect("its end");
    assert!(status.success(), "{status:?}");
    assert!(
        out.contains("completed") || out.contains("accepts writes"),
        "{out}\n{told}"
    );
    node.assert_backed_up_state();
}

#[test]
fn ctrl_c_rolls_a_restore_back() {
    let Some(mut node) = node() else { return };
    let before = node.tree_of("etc/kubernetes");
    let mut child = running(&node, "wait until their containers are gone");
    send(&child, Signal::INT);
    send(&child, Signal::INT);
    let status = child.wait().expect("its end");
    assert_eq!(status.code(), Some(130));
    assert_same(&before, &node.tree_of("etc/kubernetes"), "after Ctrl-C");
    node.bench.settle();
    node.cluster.wait_member(0);
    node.restore(&[]);
    node.assert_backed_up_state();
}

#[test]
fn a_killed_restore_resumes_by_the_hint() {
    let Some(mut node) = node() else { return };
    let mut child = running(&node, "wait until etcd serves");
    send(&child, Signal::KILL);
    child.wait().expect("its end");
    let output = node.run(&["restore", "--status"]);
    assert_eq!(output.status.code(), Some(7));
    let told = text(&output.stdout);
    assert!(
        told.contains("to resume: etcd-dr restore --resume"),
        "{told}"
    );
    let (out, _) = node.expect(0, &["restore", "--resume"]);
    assert!(out.contains("accepts writes"), "{out}");
    node.assert_backed_up_state();
}

/// `systemd-run`, as far as the tool uses it: the command continues in its own session. There
/// is no systemd on the machines that the suites run on.
fn stand_in_systemd(node: &Node) -> PathBuf {
    let dir = node.cluster.scratch().join("bin");
    std::fs::create_dir_all(&dir).expect("a folder");
    let script = dir.join("systemd-run");
    std::fs::write(
        &script,
        "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do [ \"$1\" = --unit ] && shift; shift; done\nsetsid \"$@\" >/dev/null 2>&1 </dev/null &\n",
    )
    .expect("a script");
    let status = Command::new("chmod")
        .arg("+x")
        .arg(&script)
        .status()
        .expect("chmod");
    assert!(status.success());
    dir
}

#[test]
fn a_restore_in_a_unit_outlives_its_session() {
    let Some(mut node) = node() else { return };
    let dir = stand_in_systemd(&node);
    let path = format!(
        "{}:{}",
        dir.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let begin = |node: &Node| {
        let mut command = node.command();
        command
            .args(["restore", "backup-1", "--yes", "--wait", "60s"])
            .args(["--detach", "always"])
            .env("PATH", &path);
        command
    };
    let output = begin(&node).output().expect("running etcd-dr");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(
        err.contains("running as the unit") && err.contains("[5/"),
        "{err}"
    );
    assert!(out.contains("accepts writes"), "{out}");
    node.assert_backed_up_state();
    node.expect(0, &["restore", "--rollback", "--yes"]);
    node.expect(0, &["restore", "--commit", "--yes"]);
    node.bench.settle();
    node.cluster.wait_member(0);

    // Killed while it watches, from a new session it is followed to its end.
    let mut child = begin(&node)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting etcd-dr");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let stops = |line: &str| line.starts_with('[') && line.contains("stop the static pods");
    assert!(lines.any(|line| stops(&line.expect("a line"))));
    send(&child, Signal::KILL);
    child.wait().expect("its end");
    let (out, err) = node.expect(0, &["restore", "--status"]);
    assert!(
        out.contains("accepts writes") || out.contains("completed"),
        "{out}{err}"
    );
    node.assert_backed_up_state();
}
