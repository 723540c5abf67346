//! What the tests of this suite share: a node to run on, runs that can be harmed half-way, and
//! the state in which a store must be found afterwards.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use testbench::cluster::Cluster;
use testbench::folder;
use testbench::golden::{self, Run, etcd_dr};
use testbench::node::{self, NodeOptions};

/// Nothing here takes longer, on however busy a machine.
const LIMIT: Duration = Duration::from_secs(240);

/// A node that commands are run on.
pub struct Node {
    pub root: PathBuf,
    pub name: String,
}

impl Node {
    /// Makes the node of a member.
    pub fn of(cluster: &Cluster, i: usize, options: &NodeOptions) -> Self {
        Self {
            root: node::make(cluster, i, options),
            name: cluster.name(i).to_owned(),
        }
    }

    /// The arguments that mean this node, and then others.
    pub fn args(&self, args: &[&str]) -> Vec<String> {
        let root = self.root.to_str().expect("a path in UTF-8");
        ["--root", root, "--node-name", &self.name]
            .iter()
            .chain(args)
            .map(|arg| (*arg).to_owned())
            .collect()
    }

    /// Runs a command to its end, with nothing on stderr but what matters.
    pub fn run(&self, args: &[&str]) -> Run {
        let mut all = self.args(args);
        all.extend(["--progress", "never"].map(str::to_owned));
        golden::run(&all, &[])
    }

    /// Takes a backup into a store; the result is JSON.
    pub fn backup(&self, store: &Path, args: &[&str]) -> Run {
        let mut all = vec!["backup", text(store), "-o", "json"];
        all.extend(args);
        self.run(&all)
    }

    /// Starts a backup whose events can be waited for.
    pub fn start_backup(&self, store: &Path, args: &[&str]) -> Running {
        let mut all = vec!["backup", text(store), "--progress", "json"];
        all.extend(args);
        Running::start(self.args(&all))
    }

    /// The Manifest of the backup that just has to succeed.
    pub fn good_backup(&self, store: &Path, args: &[&str]) -> Value {
        let run = self.backup(store, args).expect(0);
        let manifest = run.json()["manifest"].clone();
        assert_eq!(manifest["quality"]["state"], "good", "{run}");
        manifest
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A run that continues.
pub struct Running {
    args: Vec<String>,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    stdout: JoinHandle<String>,
}

impl Running {
    /// Starts one.
    pub fn start(args: Vec<String>) -> Self {
        let mut child = etcd_dr()
            .args(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting etcd-dr");
        let mut out = child.stdout.take().expect("its stdout");
        let err = child.stderr.take().expect("its stderr");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                // The test may have failed in the meantime, and nobody listens.
                let _ = sender.send(line);
            }
        });
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).expect("reading its stdout");
            text
        });
        Self {
            args,
            child,
            lines,
            seen: Vec::new(),
            stdout,
        }
    }

    /// Waits until an event comes that this accepts.
    #[track_caller]
    pub fn wait(&mut self, what: &str, accept: impl Fn(&Value) -> bool) {
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => {
                    let event: Value = serde_json::from_str(&line).unwrap_or_default();
                    self.seen.push(line);
                    if accept(&event) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {what} in {LIMIT:?}: {:?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended without {what}: {:?}", self.seen)
                }
            }
        }
    }

    /// Waits until some of the snapshot has come.
    #[track_caller]
    pub fn wait_for_stream(&mut self) {
        self.wait("progress of the snapshot", |event| {
            event["event"] == "phase-progress"
                && event["phase"] == "snapshot"
                && event["done"].as_u64() > Some(0)
        });
    }

    /// Waits until a phase begins.
    #[track_caller]
    pub fn wait_for_phase(&mut self, phase: &str) {
        self.wait(phase, |event| {
            event["event"] == "phase-started" && event["phase"] == phase
        });
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("signalling etcd-dr");
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Run {
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.child.kill().expect("killing etcd-dr");
                    panic!("it did not end in {LIMIT:?}: {:?}", self.seen);
                }
            }
        }
        let status = self.child.wait().expect("waiting for etcd-dr");
        let mut stderr = self.seen.join("\n");
        stderr.push('\n');
        Run {
            args: self.args,
            status: status.code(),
            stdout: self.stdout.join().expect("reading its stdout"),
            stderr,
        }
    }
}

/// What `list` says of a store.
#[track_caller]
pub fn listed(store: &Path) -> Value {
    golden::run(&["list", text(store), "-o", "json"], &[])
        .expect(0)
        .json()
}

/// Names and states of the sets in a store.
#[track_caller]
pub fn states(store: &Path) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    listed(store)["sets"]
        .as_array()
        .expect("a list of sets")
        .iter()
        .map(|set| (word(&set["name"]), word(&set["state"])))
        .collect()
}

/// The store holds exactly these good sets and nothing else, staged, hidden or otherwise.
#[track_caller]
pub fn assert_only_good(store: &Path, names: &[&str], run: &Run) {
    let expected: Vec<_> = names
        .iter()
        .map(|name| ((*name).to_owned(), "good".to_owned()))
        .collect();
    let mut there = folder::names(store);
    there.retain(|name| name != ".etcd-dr.lock" && name != "latest-backup");
    assert_eq!(there, names, "{run}");
    assert_eq!(states(store), expected, "{run}");
}
