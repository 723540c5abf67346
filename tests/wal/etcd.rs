//! Real etcd: found, started on its own address, asked, killed when dropped.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) const CLIENT_PORT: u16 = 2379;
pub(crate) const PEER_PORT: u16 = 2380;

/// One release's binaries.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(crate) version: String,
    bin: PathBuf,
}

impl Release {
    /// Every available release; says so if no release is available.
    pub(crate) fn all() -> Vec<Release> {
        let mut dirs: Vec<PathBuf> = match env::var_os("ETCD_DR_ETCD_BINS") {
            Some(dirs) => env::split_paths(&dirs).collect(),
            None => {
                let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/etcd");
                let suites = fs::read_dir(cache).into_iter().flatten().flatten();
                suites.map(|suite| suite.path().join("bin")).collect()
            }
        };
        dirs.sort();
        let mut releases: Vec<Release> = dirs.into_iter().filter_map(Release::at).collect();
        releases.sort_by(|a, b| a.version.cmp(&b.version));
        if releases.is_empty() {
            let required = env::var_os("ETCD_DR_REQUIRE").is_some_and(|value| value == "1");
            assert!(!required, "no etcd binaries, and ETCD_DR_REQUIRE=1");
            eprintln!("SKIPPED: no etcd binaries");
        }
        releases
    }

    fn at(bin: PathBuf) -> Option<Release> {
        let output = Command::new(bin.join("etcd")).arg("--version").output();
        let text = String::from_utf8(output.ok()?.stdout).ok()?;
        let version = text.lines().next()?.rsplit(' ').next()?.to_owned();
        Some(Release { version, bin })
    }

    pub(crate) fn is_3_4(&self) -> bool {
        self.version.starts_with("3.4.")
    }

    /// The tool that restores: `etcdutl`, or `etcdctl` before it existed.
    pub(crate) fn restore(&self, snapshot: &Path, data_dir: &Path, args: &[&str]) {
        let tool = if self.is_3_4() { "etcdctl" } else { "etcdutl" };
        let output = Command::new(self.bin.join(tool))
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore"])
            .arg(snapshot)
            .arg("--data-dir")
            .arg(data_dir)
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// A fresh loopback address, which no other process of the suites uses.
pub(crate) fn address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(
        "127.{}.{}.{}",
        100 + pid % 100,
        pid / 100 % 250 + 1,
        next + 1
    )
}

/// How a start went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Serves,
    Exits,
    Hangs,
}

/// A running etcd.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) data_dir: PathBuf,
    child: Child,
    log: PathBuf,
}

impl Server {
    pub(crate) fn spawn(
        release: &Release,
        data_dir: &Path,
        name: &str,
        address: &str,
        args: &[&str],
    ) -> Server {
        let client = format!("http://{address}:{CLIENT_PORT}");
        let peer = format!("http://{address}:{PEER_PORT}");
        let mut log = data_dir.as_os_str().to_owned();
        log.push(".log");
        let log = PathBuf::from(log);
        let out = File::create(&log).unwrap();
        let child = Command::new(release.bin.join("etcd"))
            .env_clear()
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--name", name, "--logger", "zap"])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Server {
            address: address.to_owned(),
            data_dir: data_dir.to_owned(),
            child,
            log,
        }
    }

    /// A cluster of one, serving.
    pub(crate) fn single(release: &Release, data_dir: &Path, args: &[&str]) -> Server {
        let address = address();
        let cluster = format!("default=http://{address}:{PEER_PORT}");
        let mut all = vec!["--initial-cluster", cluster.as_str()];
        all.extend(args);
        let mut server = Server::spawn(release, data_dir, "default", &address, &all);
        let start = server.wait(Duration::from_secs(90));
        assert_eq!(start, Start::Serves, "{}", server.log());
        server
    }

    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        File::open(&self.log)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    /// Waits until it serves, which takes a leader, or exits.
    pub(crate) fn wait(&mut self, limit: Duration) -> Start {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if self.child.try_wait().unwrap().is_some() {
                return Start::Exits;
            }
            if self.log().contains("serving client traffic insecurely") {
                return Start::Serves;
            }
            sleep(Duration::from_millis(20));
        }
        Start::Hangs
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}:{CLIENT_PORT}", self.address)
    }

    pub(crate) async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.endpoint()], None)
            .await
            .unwrap()
    }

    fn end(&mut self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        if self.child.try_wait().unwrap().is_none() {
            kill_process(pid, signal).unwrap();
        }
        self.child.wait().unwrap();
    }

    /// A clean stop.
    pub(crate) fn stop(mut self) {
        self.end(Signal::TERM);
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.end(Signal::KILL);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Saves a snapshot over the API.
pub(crate) async fn save_snapshot(client: &mut etcd_client::Client, path: &Path) {
    let mut stream = client.snapshot().await.unwrap();
    let mut bytes = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        bytes.extend_from_slice(part.blob());
    }
    fs::write(path, bytes).unwrap();
}

/// Copies a tree of small or sparse files.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .args(["-r", "--sparse=always"])
        .arg(from)
        .arg(to)
        .status();
    assert!(status.unwrap().success());
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
