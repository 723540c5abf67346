//! One etcd on a loopback address of its own, and etcd's own tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use etcd_client::Client;
use tempfile::TempDir;

/// The programs of one release.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(crate) version: String,
    bin: PathBuf,
}

/// The releases that are here: directories in `ETCD_DR_ETCD_BINS`, or `.cache/etcd/*/bin`.
pub(crate) fn releases() -> Vec<Release> {
    let dirs: Vec<PathBuf> = match std::env::var_os("ETCD_DR_ETCD_BINS") {
        Some(list) => std::env::split_paths(&list).collect(),
        None => {
            let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/etcd");
            let suites = fs::read_dir(cache).into_iter().flatten().flatten();
            suites.map(|suite| suite.path().join("bin")).collect()
        }
    };
    let mut found: Vec<_> = dirs.into_iter().filter_map(release).collect();
    found.sort_by(|a, b| a.version.cmp(&b.version));
    found
}

fn release(bin: PathBuf) -> Option<Release> {
    let output = Command::new(bin.join("etcd"))
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.lines().next()?.strip_prefix("etcd Version: ")?.into();
    Some(Release { version, bin })
}

/// The releases, or nothing after saying so. With `ETCD_DR_REQUIRE=1` there must be some.
pub(crate) fn releases_or_skip(test: &str) -> Vec<Release> {
    let found = releases();
    if found.is_empty() {
        assert!(
            std::env::var_os("ETCD_DR_REQUIRE").is_none_or(|v| v != "1"),
            "{test}: no etcd found"
        );
        println!("SKIPPED {test}: no etcd found");
    }
    found
}

impl Release {
    /// Whether it is at least so new.
    pub(crate) fn at_least(&self, minor: u32, patch: u32) -> bool {
        let numbers: Vec<u32> = self
            .version
            .split('.')
            .filter_map(|n| n.parse().ok())
            .collect();
        numbers.as_slice() >= [3, minor, patch].as_slice()
    }

    /// `etcdutl`, or the `etcdctl` that did its work in 3.4.
    pub(crate) fn utl(&self) -> Command {
        let utl = self.bin.join("etcdutl");
        let mut command = Command::new(if utl.exists() {
            utl
        } else {
            self.bin.join("etcdctl")
        });
        command.env("ETCDCTL_API", "3");
        command
    }

    /// What `snapshot status` says of a file.
    pub(crate) fn status(&self, file: &Path) -> Option<serde_json::Value> {
        let output = self
            .utl()
            .args(["snapshot", "status", "-w", "json"])
            .arg(file)
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }
}

/// A member, killed when dropped.
pub(crate) struct Member {
    child: Child,
    pub(crate) dir: TempDir,
    pub(crate) endpoint: String,
}

impl Member {
    pub(crate) fn start(release: &Release) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(release, dir)
    }

    /// Starts on what is in `data` below the directory.
    pub(crate) fn start_in(release: &Release, dir: TempDir) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        let ip = format!("127.{}.{}.{}", 1 + id / 256 % 250, id % 256, 1 + number);
        let (client, peer) = (format!("http://{ip}:2379"), format!("http://{ip}:2380"));
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(release.bin.join("etcd"))
            .args([
                "--name",
                "m",
                "--log-level",
                "warn",
                "--log-outputs",
                "stderr",
            ])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("m={peer}")])
            .args([
                "--quota-backend-bytes",
                "8000000000",
                "--max-txn-ops",
                "2000",
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            dir,
            endpoint: client,
        }
    }

    /// A client, once the member serves.
    pub(crate) async fn client(&self) -> Client {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            if let Ok(mut client) = Client::connect([&self.endpoint], None).await
                && client.get("ready", None).await.is_ok()
            {
                return client.clone();
            }
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "etcd does not start: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops it and leaves its files.
    pub(crate) fn stop(mut self) -> TempDir {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(&pid).status();
        let _ = self.child.wait();
        let empty = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.dir, empty)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Streams a snapshot to memory.
pub(crate) async fn snapshot(client: &mut Client) -> Vec<u8> {
    let mut stream = client.snapshot().await.unwrap();
    let mut file = Vec::new();
    while let Some(piece) = stream.message().await.unwrap() {
        file.extend_from_slice(piece.blob());
    }
    file
}
