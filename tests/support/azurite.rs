//! Azurite, Microsoft's emulator of Azure Blob, from npm.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bins::skip;
use crate::loopback::free_port;
use crate::process::{bound_command, expect_success, spawn_bound, wait_for};
use crate::s3::{BUCKET, cache};

/// Azurite's own account, and the key that it documents.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container, as "Authorize with Shared Key" of Azure's documentation says.
const MAKE_CONTAINER: &str = r#"
const [port, account, key, container] = process.argv.slice(1);
const date = new Date().toUTCString(), version = "2021-08-06";
const path = `/${account}/${container}`;
const text = `PUT${"\n".repeat(12)}x-ms-date:${date}\nx-ms-version:${version}\n/${account}${path}\nrestype:container`;
const hash = require("crypto").createHmac("sha256", Buffer.from(key, "base64")).update(text, "utf8");
const headers = { "x-ms-date": date, "x-ms-version": version, "content-length": 0,
  authorization: `SharedKey ${account}:${hash.digest("base64")}` };
const options = { host: "127.0.0.1", port, method: "PUT", path: `${path}?restype=container`, headers };
require("http").request(options, answer => process.exit(answer.statusCode == 201 ? 0 : 1)).end();
"#;

/// A running one, with the bucket as its container.
pub struct Azurite {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    _scratch: tempfile::TempDir,
}

impl Azurite {
    /// Starts one; none where the program is not there, which is announced.
    pub fn start() -> Option<Self> {
        let program: PathBuf = cache().join("azurite/node_modules/azurite/dist/src/blob/main.js");
        if !program.is_file() {
            skip("no Azurite here: run scripts/fetch-servers.sh");
            return None;
        }
        let scratch = tempfile::tempdir().expect("a folder");
        let address = free_port();
        let port = address.port().to_string();
        let mut command = bound_command(Path::new("node"));
        command
            .arg(program)
            .args(["--silent", "--disableTelemetry", "--inMemoryPersistence"])
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port])
            .current_dir(scratch.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = spawn_bound(command).expect("starting Azurite");
        let started = Self {
            address,
            child,
            _scratch: scratch,
        };
        wait_for("Azurite", Duration::from_secs(60), || {
            TcpStream::connect(address).map(drop)
        })
        .expect("Azurite listens");
        let made = Command::new("node")
            .args(["-e", MAKE_CONTAINER, "--", &port, ACCOUNT, KEY, BUCKET])
            .output();
        expect_success("making a container", &made.expect("node runs"));
        Some(started)
    }

    /// The variables that lead to it.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        Self::variables_at(self.address)
    }

    /// The variables that lead to it through something else.
    pub fn variables_at(address: SocketAddr) -> Vec<(&'static str, String)> {
        let endpoint = format!("http://{address}/{ACCOUNT}");
        vec![
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_owned()),
            ("AZURE_STORAGE_ENDPOINT", endpoint),
            ("ETCD_DR_STORE_PATIENCE", "2s".to_owned()),
        ]
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
