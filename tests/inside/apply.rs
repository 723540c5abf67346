//! `get --for-apply` against a real API server: what it prints is accepted by an empty cluster, and what is there then is
//! what was there before. The server is Kubernetes 1.20, as Debian's source package has it (`scripts/fetch-node.sh`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use testbench::bins::{require, skip};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::run;
use testbench::process::expect_success;

const TOKEN: &str = "token";

/// An etcd with an API server on it, and nothing else.
struct Server {
    cluster: Cluster,
    dir: tempfile::TempDir,
    api: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already; that may be why the test failed.
        let _ = self.api.kill();
        let _ = self.api.wait();
    }
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/node/bin/kube-apiserver")
}

impl Server {
    fn start(cluster: Cluster) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(
            at("tokens"),
            format!("{TOKEN},admin,admin,system:masters\n"),
        )
        .expect("a file");
        let key = rcgen::KeyPair::generate().expect("a key");
        std::fs::write(at("sa.key"), key.serialize_pem()).expect("a file");
        std::fs::write(at("sa.pub"), key.public_key_pem()).expect("a file");
        let log = std::fs::File::create(at("api.log")).expect("a file");
        let api = Command::new(program())
            .arg(format!("--etcd-servers={}", cluster.client_url(0)))
            .arg(format!("--bind-address={}", cluster.ip(0)))
            .arg(format!("--cert-dir={}", at("certs")))
            .arg(format!("--service-account-key-file={}", at("sa.pub")))
            .arg(format!(
                "--service-account-signing-key-file={}",
                at("sa.key")
            ))
            .arg(format!("--token-auth-file={}", at("tokens")))
            .args([
                "--secure-port=6443",
                "--service-account-issuer=https://test",
                "--authorization-mode=RBAC",
            ])
            .args([
                "--service-cluster-ip-range=10.96.0.0/16",
                "--endpoint-reconciler-type=none",
            ])
            .arg("--disable-admission-plugins=ServiceAccount")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starting kube-apiserver");
        let server = Self { cluster, dir, api };
        let began = Instant::now();
        while !server
            .kubectl(&["get", "--raw", "/readyz"], "")
            .status
            .success()
        {
            let log = std::fs::read_to_string(server.dir.path().join("api.log"));
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "not ready: {log:?}"
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        server
    }

    fn kubectl(&self, args: &[&str], input: &str) -> Output {
        let file = self.dir.path().join("input.yaml");
        std::fs::write(&file, input).expect("a file");
        Command::new("kubectl")
            .arg(format!("--server=https://{}:6443", self.cluster.ip(0)))
            .args(["--insecure-skip-tls-verify", "--token", TOKEN])
            .args(args)
            .stdin(std::fs::File::open(&file).expect("a file"))
            .env("HOME", self.dir.path())
            .output()
            .expect("running kubectl")
    }

    /// Applies documents, and returns how many objects the server took.
    fn apply(&self, documents: &str) -> usize {
        let output = self.kubectl(&["apply", "--server-side", "-f", "-"], documents);
        expect_success("kubectl apply", &output);
        let told = String::from_utf8_lossy(&output.stdout);
        told.lines()
            .filter(|line| line.ends_with("serverside-applied"))
            .count()
    }

    fn snapshot(&self) -> String {
        let path = self.dir.path().join("snapshot.db").display().to_string();
        self.cluster.etcdctl_ok(&["snapshot", "save", &path]);
        path
    }
}

#[test]
fn a_namespace_comes_back_in_an_empty_cluster() {
    let Some(bins) = require("3.5") else { return };
    if std::env::var_os("ETCD_DR_REAL_NODE").is_none_or(|value| value != "1") {
        // The API server takes minutes to build, so the test belongs to `make test-node`.
        eprintln!("SKIPPED inside: the API server is asked for by itself, with make test-node");
        return;
    }
    if !program().is_file() {
        return skip("no kube-apiserver here: run scripts/fetch-node.sh");
    }
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
    {
        return skip("there is no kubectl");
    }
    let etcd = || Cluster::start(ClusterSpec::new(&bins, 1).plain());
    let given = include_str!("shop.yaml");
    let first = Server::start(etcd());
    let count = first.apply(given);
    assert_eq!(count, given.matches("\nkind: ").count());
    let args = |path: &str| {
        ["get", path, "-n", "shop", "--for-apply", "--show-secrets"].map(str::to_owned)
    };
    let before = run(&args(&first.snapshot()), &[]).expect(0).stdout;
    assert_eq!(before.matches("\nkind: ").count(), count, "{before}");
    let second = Server::start(etcd());
    assert_eq!(second.apply(&before), count);
    // Once the namespace is there, the server can be asked without applying.
    let dry = second.kubectl(
        &["apply", "--server-side", "--dry-run=server", "-f", "-"],
        &before,
    );
    expect_success("kubectl apply --dry-run=server", &dry);
    let after = run(&args(&second.snapshot()), &[]).expect(0).stdout;
    assert_eq!(after, before);
}
