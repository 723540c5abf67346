//! Azure Blob and Google Cloud Storage, which no machine of one's own has: stand-ins for both.
//!
//! Azure's is Azurite, Microsoft's emulator, from npm. Google's XML API has no emulator in the
//! registries that knows its multipart uploads; a fake of our own translates the few headers in
//! which that API differs from S3's, before a real S3 server that asks for no signature.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_dr::store::objects;
use etcd_dr::store::{Address, Settings};

use crate::conformance::{Claims, conforms};
use crate::copies::there_and_back;
use crate::wire::{Act, Wire};
use testbench::bins::skip;
use testbench::process::{bound_command, expect_success, spawn_bound, wait_for};
use testbench::s3::{BUCKET, S3, cache, free_port};

type Env = Vec<(&'static str, String)>;

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

struct Azurite {
    address: SocketAddr,
    child: Child,
    _scratch: tempfile::TempDir,
}

impl Azurite {
    fn start() -> Option<Self> {
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

    fn variables(&self) -> Env {
        let endpoint = format!("http://{}/{ACCOUNT}", self.address);
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

/// Holds a store to the suite at the root of its bucket and below a path in it, and runs the
/// commands there.
pub fn whole_suite(scheme: &str, bucket: &str, env: &Env, claims: Claims) {
    let variables = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()));
    let settings = Settings {
        variables: variables.collect(),
        ..Settings::default()
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for path in ["", "/some/path"] {
        let url = format!("{scheme}://{bucket}{path}");
        let address = Address::parse(&url).expect("an address");
        runtime.block_on(async {
            let store = objects::open(&address, &settings).await.expect("a store");
            conforms(store, claims).await.expect("it conforms");
        });
    }
    there_and_back(&format!("{scheme}://{bucket}/etcd"), env);
}

#[test]
fn azure_conforms_by_its_emulator() {
    let Some(server) = Azurite::start() else {
        return;
    };
    whole_suite("az", BUCKET, &server.variables(), Claims::Exclude);

    let mut env = server.variables();
    env.retain(|(name, _)| *name != "AZURE_STORAGE_ACCOUNT_KEY");
    let wrong = "bm90IHRoZSBrZXkgYXQgYWxsLCBidXQgYXMgbG9uZyBhcyBvbmU=";
    env.push(("AZURE_STORAGE_ACCOUNT_KEY", wrong.to_owned()));
    let refused = crate::bench::run(&["list", &format!("az://{BUCKET}/etcd")], &env).expect(6);
    assert!(!refused.stderr.contains(wrong), "{refused}");
    crate::bench::run(&["list", "az://nocontainer/x"], &server.variables()).expect(6);
}

#[test]
fn google_conforms_by_a_fake() {
    let Some(server) = S3::anonymous() else {
        return;
    };
    let wire = Wire::start(server.address, |mut request| {
        // An account without a token service sends none, or an empty one.
        request.take("authorization");
        if let Some(generation) = request.take("x-goog-if-generation-match") {
            assert_eq!(generation, "0", "there must be none yet");
            request
                .headers
                .push(("if-none-match".to_owned(), "*".to_owned()));
        }
        Act::Pass(request)
    });
    // What object_store takes for an account without a token service.
    let account = r#"{"private_key":"none","private_key_id":"none","client_email":"none","disable_oauth":true}"#;
    let env = vec![
        ("GOOGLE_BASE_URL", format!("http://{}", wire.address)),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", account.to_owned()),
        ("ETCD_DR_STORE_PATIENCE", "2s".to_owned()),
    ];
    whole_suite("gs", BUCKET, &env, Claims::Race);
}
