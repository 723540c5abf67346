//! Nodes with their etcd, and a schedule that runs there.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use testbench::bins;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::{self, etcd_dr};
use testbench::kube::OpenShift;
use testbench::node::{self, NodeOptions};
use testbench::process::{kill_pid, terminate, wait_for};

/// Nothing here takes longer, on however busy a machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Nodes with a member each; commands run on the first one unless another is named.
pub struct Bench {
    pub cluster: Cluster,
    pub node: usize,
    pub store: PathBuf,
}

/// The `N` of `@every Ns`.
fn seconds(cron: &str) -> Option<u64> {
    cron.strip_prefix("@every ")?
        .strip_suffix('s')?
        .parse()
        .ok()
}

/// Such periods are counted from 1970.
fn wait_for_the_first_half(period: Duration) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let into = now.expect("a clock").as_nanos() % period.as_nanos();
    let left = period - Duration::from_nanos(u64::try_from(into).expect("less than a period"));
    if left < period / 2 {
        std::thread::sleep(left);
    }
}

impl Bench {
    /// One of a single member; none if there is no etcd.
    pub fn new() -> Option<Self> {
        Self::of(1)
    }

    /// One of so many members.
    pub fn of(members: usize) -> Option<Self> {
        let bins = bins::require("3.5")?;
        let cluster = Cluster::start(ClusterSpec::new(&bins, members).fast());
        OpenShift::default().write(&cluster);
        node::make_all(&cluster, &NodeOptions::default());
        let store = cluster.scratch().join("store");
        Some(Self {
            cluster,
            node: 0,
            store,
        })
    }

    fn args(&self, args: &[&str]) -> Vec<String> {
        let (name, root) = (
            self.cluster.name(self.node),
            self.cluster.node_root(self.node),
        );
        let node = ["--node-name", name, "--progress", "never", "--root"];
        node.iter()
            .map(|arg| (*arg).to_owned())
            .chain([root.display().to_string()])
            .chain(args.iter().map(|arg| (*arg).to_owned()))
            .collect()
    }

    /// Runs another command to its end.
    pub fn run(&self, args: &[&str]) -> golden::Run {
        golden::run(&self.args(args), &[])
    }

    /// Starts a schedule into the store.
    pub fn schedule(&self, cron: &str, more: &[&str]) -> Scheduled {
        self.schedule_with(cron, more, &[])
    }

    /// The same with variables. Where it is `@every Ns`, for some seconds, it is started in the first half
    /// of such a period: the run that it begins with then has time for all that follows a backup.
    pub fn schedule_with(&self, cron: &str, more: &[&str], env: &[(&str, String)]) -> Scheduled {
        if let Some(period) = seconds(cron).filter(|seconds| *seconds > 1) {
            wait_for_the_first_half(Duration::from_secs(period));
        }
        let mut args = vec!["schedule", cron, self.store.to_str().expect("UTF-8")];
        if !more.contains(&"--jitter") {
            args.extend(["--jitter", "0s"]);
        }
        args.extend(more);
        let mut command = etcd_dr();
        command
            .args(self.args(&args))
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("starting etcd-dr");
        let out = child.stdout.take().expect("its stdout");
        let mut err = child.stderr.take().expect("its stderr");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // The test may have failed in the meantime; then the channel has no receiver.
                let _ = sender.send(line);
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).expect("reading its stderr");
            text
        });
        Scheduled {
            child: Some(child),
            lines,
            stderr: Some(stderr),
        }
    }

    /// Names and states of all that is in the store.
    pub fn sets(&self) -> Vec<(String, String)> {
        let listed = self.run(&["list", path(&self.store), "-o", "json"]);
        let listed = listed.expect(0).json();
        let word = |value: &Value| value.as_str().expect("a word").to_owned();
        let sets = listed["sets"].as_array().expect("sets").iter();
        sets.map(|set| (word(&set["name"]), word(&set["state"])))
            .collect()
    }
}

/// A path as an argument.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A schedule that runs; killed when dropped.
pub struct Scheduled {
    child: Option<Child>,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Scheduled {
    /// The next run's line.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => read(&line),
            Err(RecvTimeoutError::Timeout) => panic!("no line in {LIMIT:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                let (status, _, stderr) = self.end();
                panic!("it has ended: {status:?}\n{stderr}")
            }
        }
    }

    /// The next line that this accepts, and those before it.
    #[track_caller]
    pub fn until(&mut self, accept: impl Fn(&Value) -> bool) -> (Value, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            let line = self.next();
            if accept(&line) {
                return (line, before);
            }
            assert!(before.len() < 200, "{before:?}");
            before.push(line);
        }
    }

    /// Whether it still runs.
    pub fn lives(&mut self) -> bool {
        let child = self.child.as_mut().expect("a child");
        child.try_wait().expect("asking for its end").is_none()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a child").id()
    }

    /// Kills it.
    pub fn kill(mut self) {
        kill_pid(self.pid());
        self.end();
    }

    /// Asks it to stop; its status, the lines that were not taken yet, and its stderr.
    #[track_caller]
    pub fn stop(mut self) -> (Option<i32>, Vec<Value>, String) {
        terminate(self.pid());
        self.end()
    }

    #[track_caller]
    fn end(&mut self) -> (Option<i32>, Vec<Value>, String) {
        let mut child = self.child.take().expect("a child");
        let ended = wait_for("its end", LIMIT, || {
            child.try_wait().expect("asking").ok_or("it runs")
        });
        let status = ended.unwrap_or_else(|error| {
            child.kill().expect("killing it");
            panic!("{error}")
        });
        let mut lines = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            lines.push(read(&line));
        }
        let stderr = self.stderr.take().expect("its stderr");
        (status.code(), lines, stderr.join().expect("its stderr"))
    }
}

/// A run's line, as its schema says.
#[track_caller]
fn read(line: &str) -> Value {
    let line = serde_json::from_str(line).expect("a line of JSON");
    testbench::schema::check_output(&line);
    line
}

impl Drop for Scheduled {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
