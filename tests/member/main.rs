//! Members added, removed and moved in real clusters, by the built binary, on every available
//! release.

mod add;
mod add_interrupted;
mod add_slow;
mod disasters;
mod join;
mod join_faults;
mod join_journals;
mod join_refusals;
mod join_rollback;
mod refusals;
mod remove_update;
mod replace;
mod replace_under_load;
mod verify_cluster;
mod verify_cluster_divided;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use testbench::cluster::Cluster;
use testbench::golden::{Run, etcd_dr, run};
use testbench::process::wait_for;
use testbench::same::assert_same_data;

/// Runs etcd-dr against all running members of a cluster.
fn member(cluster: &Cluster, args: &[&str]) -> Run {
    let args = [&["--profile", "bare"], args].concat();
    run(&args, &cluster.client_env())
}

/// The refusal's name in the JSON of a run that failed.
#[track_caller]
fn refusal(run: Run) -> String {
    let run = run.expect(5);
    run.json()["error"]["refusal"]
        .as_str()
        .unwrap_or_else(|| panic!("no refusal: {run}"))
        .to_owned()
}

/// `member list` as etcdctl has it: name, peer URL, whether it is a learner.
fn listed(cluster: &Cluster) -> Vec<(String, String, bool)> {
    let text = cluster.etcdctl_ok(&["member", "list", "-w", "json"]);
    let list: Value = serde_json::from_str(&text).expect("reading etcdctl's JSON");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut members: Vec<_> = list["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|member| {
            (
                word(&member["name"]),
                word(&member["peerURLs"][0]),
                member["isLearner"].as_bool().unwrap_or(false),
            )
        })
        .collect();
    members.sort();
    members
}

/// Waits until a member has noticed that there is no leader.
fn wait_leaderless(cluster: &Cluster, i: usize) {
    let gone = wait_for("no leader", Duration::from_secs(90), || {
        match cluster.status(i)["leader"].as_u64() {
            Some(leader) if leader != 0 => Err(leader),
            _ => Ok(()),
        }
    });
    gone.unwrap_or_else(|error| panic!("{error}"));
}

/// A running etcd-dr, with the settings that it printed for the new member.
struct Adding {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Adding {
    fn start(cluster: &Cluster, args: &[&str]) -> Self {
        let mut child = etcd_dr()
            .args(["--profile", "bare", "member-add"])
            .args(args)
            .args(["--print", "env"])
            .envs(cluster.client_env())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting etcd-dr");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, out }
    }

    /// Reads what it printed: the value of `ETCD_INITIAL_CLUSTER`.
    fn initial_cluster(&mut self) -> String {
        let mut initial_cluster = None;
        for _ in 0..4 {
            let mut line = String::new();
            self.out.read_line(&mut line).expect("reading a line");
            let (name, value) = line.trim_end().split_once('=').unwrap_or_else(|| {
                panic!("etcd-dr printed {line:?}, then {:?}", self.child.wait())
            });
            let value = value.trim_matches('"');
            match name {
                "ETCD_INITIAL_CLUSTER" => initial_cluster = Some(value.to_owned()),
                "ETCD_INITIAL_CLUSTER_STATE" => assert_eq!(value, "existing"),
                _ => {}
            }
        }
        initial_cluster.expect("ETCD_INITIAL_CLUSTER")
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Its status and what it wrote to standard error.
    fn end(self) -> (Option<i32>, String) {
        // The reader goes last, or the pipe breaks.
        let Self { child, out } = self;
        let output = child.wait_with_output().expect("waiting for etcd-dr");
        drop(out);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::KILL);
    }
}

/// Kills a process when a test ends before it.
struct Reaper(rustix::process::Pid);
