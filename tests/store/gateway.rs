//! Ceph's Object Gateway, which knows versions and locks: only with `make test-stores`.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bench::{Bench, listed, place, run};
use crate::conformance::Claims;
use crate::emulators::whole_suite;
use crate::requests::{Meeting, two_lose_nothing};
use crate::wire::{Act, Wire};
use testbench::bins::skip;
use testbench::loopback::Loopback;
use testbench::process::{bound_command, expect_success, spawn_bound, wait_for};
use testbench::s3::{ACCESS_KEY, BUCKET, SECRET_KEY, cache, variables};

/// The gateway's port, as Ceph's documentation has it.
const PORT: u16 = 7480;

struct Gateway {
    root: PathBuf,
    network: Loopback,
    child: Child,
}

impl Gateway {
    /// Boots one, if it was asked for.
    fn start() -> Option<Self> {
        if std::env::var_os("ETCD_DR_STORES").is_none_or(|value| value != "1") {
            eprintln!("SKIPPED store: Ceph's gateway runs with make test-stores");
            return None;
        }
        let root = cache().join("rgw");
        if !root.join("usr/bin/radosgw").is_file() {
            skip("no Ceph here: run scripts/fetch-servers.sh --more");
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            skip("Ceph is started only by root");
            return None;
        }
        let network = Loopback::reserve();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/rgw.sh");
        let mut command = bound_command(Path::new("sh"));
        command
            .arg(script)
            .arg(&root)
            .args([network.ip(0).to_string(), PORT.to_string()])
            .args([ACCESS_KEY, SECRET_KEY])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = spawn_bound(command).expect("starting Ceph");
        let gateway = Self {
            root,
            network,
            child,
        };
        wait_for("Ceph's gateway", Duration::from_secs(180), || {
            TcpStream::connect((gateway.network.ip(0), PORT)).map(drop)
        })
        .expect("it listens");
        Some(gateway)
    }

    /// A request that etcd-dr has no need of, signed by curl.
    fn ask(&self, method: &str, target: &str, header: &str, body: &str) -> String {
        let asked = Command::new("chroot")
            .arg(&self.root)
            .args([
                "curl",
                "-sS",
                "--fail-with-body",
                "--aws-sigv4",
                "aws:amz:us-east-1:s3",
            ])
            .args(["-u", &format!("{ACCESS_KEY}:{SECRET_KEY}"), "-X", method])
            .args(["-H", "content-type: application/xml"])
            .args(["-H", header, "--data-binary", body])
            .arg(format!("http://{}:{PORT}/{target}", self.network.ip(0)))
            .output()
            .expect("running curl");
        expect_success(&format!("{method} {target}"), &asked);
        String::from_utf8(asked.stdout).expect("text")
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        variables((self.network.ip(0), PORT).into())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_gateway_with_versions_and_locks() {
    let Some(gateway) = Gateway::start() else {
        return;
    };
    let env = gateway.variables();
    let none = "x-nothing: to-say";
    gateway.ask("PUT", BUCKET, none, "");
    gateway.ask("PUT", "versioned", none, "");
    gateway.ask(
        "PUT",
        "versioned?versioning=",
        none,
        "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Status>Enabled</Status></VersioningConfiguration>",
    );
    gateway.ask(
        "PUT",
        "locked",
        "x-amz-bucket-object-lock-enabled: true",
        "",
    );
    gateway.ask(
        "PUT",
        "locked?object-lock=",
        none,
        "<ObjectLockConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
         <Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>",
    );
    for bucket in [BUCKET, "versioned", "locked"] {
        println!("{bucket}");
        // Where it keeps versions, 16 at one moment all win.
        let claims = match bucket {
            BUCKET => Claims::Exclude,
            _ => Claims::Race,
        };
        whole_suite("s3", bucket, &env, claims);
        prune_says_what_remains(&gateway, bucket, bucket != BUCKET);
    }

    let meeting = std::sync::Arc::new(Meeting::default());
    let met = std::sync::Arc::clone(&meeting);
    let address = (gateway.network.ip(0), PORT).into();
    let wire = Wire::start(address, move |request| {
        if request.kind() == "claim" {
            met.come();
        }
        Act::Pass(request)
    });
    for bucket in [BUCKET, "versioned", "locked"] {
        two_lose_nothing(bucket, &wire, &meeting);
    }

    let mut wrong = env.clone();
    wrong.retain(|(name, _)| *name != "AWS_SECRET_ACCESS_KEY");
    wrong.push(("AWS_SECRET_ACCESS_KEY", "notthesecretatall".to_owned()));
    let refused = run(&["list", &format!("s3://{BUCKET}/x")], &wrong).expect(6);
    assert!(
        refused.stderr.contains("the secret key does not match"),
        "{refused}"
    );
    let gone = run(&["list", "s3://nobucket/x"], &env).expect(6);
    assert!(gone.stderr.contains("there is no such bucket"), "{gone}");
}

fn prune_says_what_remains(gateway: &Gateway, bucket: &str, versions: bool) {
    let env = gateway.variables();
    let bench = Bench::new();
    let url = format!("s3://{bucket}/prune");
    for number in 1..=2 {
        bench.set(number);
        bench
            .copy(&format!("backup-{number}"), &url, &[], &env)
            .expect(0);
    }
    let done = run(&["prune", &url, "--keep-last", "1", "--yes"], &env).expect(0);
    assert_eq!(done.stdout.contains("earlier versions"), versions, "{done}");
    let name = format!("{}/backup-2", place());
    assert_eq!(listed(&url, &env), [(name, "good".to_owned())]);
    let there = gateway.ask(
        "GET",
        &format!("{bucket}?prefix=prune&versions="),
        "x-nothing: y",
        "",
    );
    let of_removed = there.matches("backup-1/backup.json").count();
    // With versions: the Manifest and the marker that hides it.
    assert_eq!(of_removed, if versions { 2 } else { 0 }, "{there}");
}
