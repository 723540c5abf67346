//! A real API server on the node, and a client of it that holds a cache through a restore, its
//! rollback, and another restore.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use etcd_dr::node::runtime::ContainerState;
use serde_json::Value;

use crate::bench::{IP, NAME, RealNode, boot};
use testbench::process::expect_success;

/// Where the API server's container finds that it is to be the real one, and with what.
const REAL: &str = "/var/log/kube-apiserver/real";
/// How long a client may hold what is not so.
const SOON: Duration = Duration::from_secs(60);

/// What a test asks of the API server.
struct Api<'a> {
    node: &'a RealNode,
}

impl<'a> Api<'a> {
    /// Makes the node's API server a real one.
    fn start(node: &'a RealNode) -> Self {
        let certs = node.path("/etc/kubernetes/static-pod-resources/etcd-certs");
        let real = node.path(REAL);
        fs::create_dir_all(&real).expect("a folder");
        let peer = certs.join("secrets/etcd-all-certs");
        for (from, to) in [
            (
                certs.join("configmaps/etcd-all-bundles/server-ca-bundle.crt"),
                "ca.crt",
            ),
            (peer.join(format!("etcd-peer-{NAME}.crt")), "client.crt"),
            (peer.join(format!("etcd-peer-{NAME}.key")), "client.key"),
        ] {
            fs::copy(from, real.join(to)).expect("a certificate");
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_node/api.py");
        fs::copy(script, node.path("/run/api.py")).expect("the client");
        for container in node.containers("kube-apiserver", &ContainerState::Running) {
            let mut kill = node.inside("/opt/node/bin/ctr");
            kill.args([
                "-n",
                "k8s.io",
                "tasks",
                "kill",
                "--signal",
                "KILL",
                &container.id,
            ]);
            expect_success("ctr", &kill.output().expect("running ctr"));
        }
        let api = Self { node };
        api.wait_ready();
        api
    }

    fn ask(&self, args: &[&str]) -> Result<String, String> {
        let mut python = self.node.inside("python3");
        let output = python.arg("/run/api.py").args(args).output();
        let output = output.expect("running python3");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn ok(&self, args: &[&str]) -> String {
        self.ask(args)
            .unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    fn wait_ready(&self) {
        self.node.wait("the API server to be ready", || {
            self.ask(&["ready"]).map(drop)
        });
    }

    /// Changes the node, prints what happened when, and says how long it was from the first manifest
    /// that went to an API that is ready.
    fn measured(&self, what: &str, change: impl FnOnce()) -> f64 {
        let mut python = self.node.inside("python3");
        python.args(["/run/api.py", "timeline"]);
        let mut child = python.stdout(Stdio::piped()).spawn();
        let child = child.as_mut().expect("running python3");
        let mut lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
        let first = lines.next().expect("a line").expect("text");
        assert_eq!(first, "watching");
        change();
        let marks = lines.next().expect("the marks").expect("text");
        assert!(child.wait().expect("waiting for python3").success());
        let marks: Vec<(String, f64)> = serde_json::from_str(&marks).expect("JSON");
        let load = fs::read_to_string("/proc/loadavg").expect("the load");
        eprintln!(
            "MEASURED {what}: seconds after the first manifest went (load {})",
            load.trim()
        );
        for (mark, at) in &marks {
            eprintln!("MEASURED {at:8.2}  {mark}");
        }
        let (last, at) = marks.last().expect("a mark");
        assert_eq!(last, "the API is ready");
        *at
    }

    /// The same of a command of `etcd-dr`.
    fn measured_etcd_dr(&self, args: &[&str]) -> f64 {
        self.measured(&args.join(" "), || {
            let begun = Instant::now();
            self.node.etcd_dr(args).expect(0);
            eprintln!("MEASURED the command took {:.1?}", begun.elapsed());
        })
    }

    /// The client's cache and the API server's own come to be what etcd has.
    #[track_caller]
    fn assert_known(&self, when: &str) {
        let file = self.node.path("/run/cache.json");
        let begun = Instant::now();
        loop {
            let there: Value = serde_json::from_str(&self.ok(&["list"])).expect("JSON");
            let cached: Value = serde_json::from_str(&self.ok(&["list", "cached"])).expect("JSON");
            let held = fs::read(&file).unwrap_or_default();
            let held: Value = serde_json::from_slice(&held).unwrap_or_default();
            if there == cached && there == held {
                eprintln!("real_node: {when}: known after {:.1?}", begun.elapsed());
                return;
            }
            assert!(
                begun.elapsed() < SOON,
                "{when}: etcd has {there}\nthe API server's cache {cached}\nthe client's {held}\n{}",
                self.node.logs()
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

/// The client; dropped, it ends.
struct Follower(Child);

impl Follower {
    fn start(node: &RealNode) -> Self {
        let mut python = node.inside("python3");
        python.args(["/run/api.py", "follow", "/run/cache.json"]);
        let child = python.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.expect("running python3"))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Restores the backup without `etcd-dr`.
fn by_hand(node: &RealNode) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_node/by-hand.sh");
    fs::copy(script, node.path("/run/by-hand.sh")).expect("the script");
    let mut command = node.inside("bash");
    command.args(["/run/by-hand.sh", &snapshot(node), NAME]);
    command.arg(format!("https://{IP}:2380"));
    command.env("PATH", "/opt/node/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    expect_success("by-hand.sh", &command.output().expect("running bash"));
}

/// The node path of the backup's snapshot.
fn snapshot(node: &RealNode) -> String {
    let set = "/etc/kubernetes/static-pod-backups/backup-1";
    let entries = fs::read_dir(node.path(set)).expect("listing the backup");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names = names.map(|name| name.to_string_lossy().into_owned());
    let name = names.find(|name| name.ends_with(".db"));
    format!("{set}/{}", name.expect("a snapshot"))
}

#[test]
fn clients_of_a_real_api_server_notice_each_change_of_history() {
    let Some(node) = boot() else { return };
    let api = Api::start(&node);
    for i in 0..5 {
        api.ok(&["create", &format!("then-{i}")]);
    }
    node.etcd_dr(&["backup"]).expect(0);
    api.ok(&["create", "later"]);
    api.ok(&["delete", "then-3"]);
    let follower = Follower::start(&node);
    api.assert_known("before");
    let mut slowest = f64::MAX;
    for scope in ["control-plane", "etcd"] {
        let restore = api.measured_etcd_dr(&["restore", "backup-1", "--yes", "--scope", scope]);
        api.assert_known("restored");
        api.ok(&["create", &format!("restored-{scope}")]);
        api.assert_known("restored and written to");

        let rollback = api.measured_etcd_dr(&["restore", "--rollback", "--yes"]);
        if scope == "control-plane" {
            slowest = restore.max(rollback);
        }
        api.assert_known("rolled back");
        assert!(api.ok(&["list"]).contains("later"));
        api.ok(&["create", &format!("back-{scope}")]);
        api.assert_known("rolled back and written to");
        node.etcd_dr(&["restore", "--commit", "--yes"]).expect(0);
    }
    let by_hand = api.measured("the procedure by hand", || by_hand(&node));
    api.assert_known("restored by hand");
    assert!(slowest < by_hand, "{slowest} s, {by_hand} s by hand");
    drop(follower);
}
