//! A real S3 server on loopback: s3s-fs, which checks signatures, checksums and conditions.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::bins::skip;
use crate::loopback::free_port;
use crate::process::{bound_command, spawn_bound, wait_for};

/// The access key that servers are started with.
pub const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";
/// The secret key that goes with it.
pub const SECRET_KEY: &str = "secretsecretsecretsecretsecret";
/// The bucket that is there.
pub const BUCKET: &str = "backups";

/// A server whose buckets are directories.
pub struct S3 {
    /// Where the buckets are.
    pub root: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    _scratch: tempfile::TempDir,
}

impl S3 {
    /// Starts one; none if the program is not there, which is announced.
    pub fn start() -> Option<Self> {
        let scratch = tempfile::tempdir().expect("a folder");
        let root = scratch.path().join("root");
        std::fs::create_dir(&root).expect("a root");
        Self::at(root, scratch)
    }

    /// One that requires no signature, and accepts none.
    pub fn anonymous() -> Option<Self> {
        let scratch = tempfile::tempdir().expect("a folder");
        Self::with_keys(&[], scratch.path().join("root"), scratch)
    }

    /// One with its buckets in a directory that is there.
    pub fn at(root: PathBuf, scratch: tempfile::TempDir) -> Option<Self> {
        let keys = ["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY];
        Self::with_keys(&keys, root, scratch)
    }

    fn with_keys(keys: &[&str], root: PathBuf, scratch: tempfile::TempDir) -> Option<Self> {
        let Some(program) = program() else {
            skip("no s3s-fs here: run scripts/fetch-servers.sh");
            return None;
        };
        std::fs::create_dir_all(root.join(BUCKET)).expect("a bucket");
        let address = free_port();
        let mut command = bound_command(&program);
        command
            .args(["--host", "127.0.0.1", "--port"])
            .arg(address.port().to_string())
            .args(keys)
            .arg(&root)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = spawn_bound(command).expect("starting s3s-fs");
        wait_for("s3s-fs", Duration::from_secs(60), || {
            TcpStream::connect(address).map(drop)
        })
        .expect("s3s-fs listens");
        Some(Self {
            root,
            address,
            child,
            _scratch: scratch,
        })
    }

    /// The bucket's directory.
    pub fn bucket(&self) -> PathBuf {
        self.root.join(BUCKET)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The variables that lead to a server at an address.
pub fn variables(address: SocketAddr) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("ETCD_DR_STORE_PATIENCE", "2s".to_owned()),
    ]
}

/// Where `scripts/fetch-servers.sh` lays what it fetches.
pub fn cache() -> PathBuf {
    let project = crate::project();
    std::env::var_os("ETCD_DR_CACHE")
        .map_or_else(|| project.join(".cache"), |dir| project.join(dir))
}

fn program() -> Option<PathBuf> {
    let program = cache().join("s3s/bin/s3s-fs");
    program.is_file().then_some(program)
}
