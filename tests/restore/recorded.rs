//! A node is restored to a moment between two backups: the plan says what recorded changes do not bring.

use std::process::{Child, Stdio};
use std::time::Duration;

use etcd_dr::etcd::segment::checkpoints;

use super::node::{Node, etcd};
use testbench::node::NodeOptions;
use testbench::process::{terminate, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// A recorder, which ends with the test.
struct Recorder(Child);

impl Recorder {
    fn of(node: &Node) -> Self {
        let mut command = node.command();
        command.args(["record", "--seal-every", "150ms", "--prove-every", "100ms"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("starting the recorder"))
    }

    /// Asks it to stop, and waits until it has sealed what it has.
    fn stop(mut self) {
        terminate(self.0.id());
        let ended = || match self.0.try_wait().expect("the recorder") {
            Some(_) => Ok(()),
            None => Err("it runs"),
        };
        wait_for("the recorder to end", LIMIT, ended).expect("an end");
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_plan_says_that_members_and_users_changed_after_the_backup() {
    let Some(bins) = etcd("3.5") else { return };
    let node = Node::single(&bins, &NodeOptions::default());
    node.expect(0, &["backup"]);
    let recorder = Recorder::of(&node);
    node.cluster.etcdctl_ok(&["role", "add", "reader"]);
    let peer = "--peer-urls=https://127.0.0.1:1";
    node.cluster
        .etcdctl_ok(&["member", "add", "later", "--learner", peer]);
    let changes = node.path("etc/kubernetes/static-pod-backups/changes");
    let told = || {
        node.cluster.etcdctl_ok(&["put", "later", "1"]);
        let chains = std::fs::read_dir(&changes).map_err(|error| error.to_string())?;
        let found = chains
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_dir())
            .flat_map(|chain| checkpoints(&chain, 0, i64::MAX).unwrap_or_default());
        let last = found.last().ok_or("no checkpoint")?;
        let auth = last.auth.is_some_and(|auth| auth.revision > 1);
        match last.members.len() == 2 && auth {
            true => Ok(()),
            false => Err("an earlier checkpoint".to_owned()),
        }
    };
    wait_for("a checkpoint after the changes", LIMIT, told).expect("a checkpoint");
    let to = node.cluster.revision(0).to_string();
    recorder.stop();
    // It never started: without it the node's member is the only one again.
    let listed = node.cluster.etcdctl_ok(&["member", "list"]);
    let learner = listed.lines().find(|line| line.contains("127.0.0.1:1"));
    let learner = learner.and_then(|line| line.split(',').next());
    node.cluster
        .etcdctl_ok(&["member", "remove", learner.expect("the learner")]);

    let dry = ["restore", "latest", "--to-revision", &to, "--dry-run"];
    let text = node.expect(0, &dry).0;
    let json = node.expect(0, &[&dry[..], &["-o", "json"]].concat()).0;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let notes = json["notes"].to_string();
    for shown in [&text, &notes] {
        assert!(
            shown.contains("members joined the cluster"),
            "{shown}\n{text}"
        );
        assert!(
            shown.contains("users, roles or authentication changed after the backup"),
            "{shown}\n{text}"
        );
    }
}
