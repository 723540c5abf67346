//! A real API server on the node, and a client of it that holds a cache through a restore, its way
//! back, and a restore again.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use etcd_dr::node::runtime::ContainerState;
use serde_json::Value;

use crate::bench::{NAME, RealNode, boot};
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

    /// Runs `etcd-dr`, and says how long it was from the first manifest that went to an API server
    /// that is ready.
    fn measured(&self, args: &[&str]) -> Duration {
        let manifest = self
            .node
            .path("/etc/kubernetes/manifests/kube-apiserver-pod.yaml");
        let gone = std::thread::spawn(move || {
            let begun = Instant::now();
            while manifest.exists() && begun.elapsed() < Duration::from_secs(120) {
                std::thread::sleep(Duration::from_millis(10));
            }
            Instant::now()
        });
        self.node.etcd_dr(args).expect(0);
        self.wait_ready();
        let ready = Instant::now();
        ready.duration_since(gone.join().expect("a time"))
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
    for scope in ["control-plane", "etcd"] {
        let restore = ["restore", "backup-1", "--yes", "--scope", scope];
        let took = api.measured(&restore);
        eprintln!(
            "MEASURED restore --scope {scope}: {took:.1?} from the first manifest to a ready API"
        );
        api.assert_known("restored");
        api.ok(&["create", &format!("restored-{scope}")]);
        api.assert_known("restored and written to");

        let took = api.measured(&["restore", "--rollback", "--yes"]);
        eprintln!(
            "MEASURED restore --rollback of {scope}: {took:.1?} from the first manifest to a ready API"
        );
        api.assert_known("rolled back");
        assert!(api.ok(&["list"]).contains("later"));
        api.ok(&["create", &format!("back-{scope}")]);
        api.assert_known("rolled back and written to");
        node.etcd_dr(&["restore", "--commit", "--yes"]).expect(0);
    }
    drop(follower);
}
