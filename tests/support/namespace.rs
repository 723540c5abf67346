//! A test in its own namespaces: addresses that come and go, and a machine's own hosts file
//! and resolver, without a change to the machine that the suite runs on.
//!
//! The test's process starts itself again, that one test only, below `unshare --net --mount`; all
//! that it starts in turn, servers and etcd-dr alike, sees the same.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bins::skip;
use crate::process::{bound_command, expect_success, spawn_bound};

/// Says to the process that was started again where its hosts file is.
const VARIABLE: &str = "ETCD_DR_TEST_NAMESPACE";
/// The first lines of every hosts file.
const LOCAL: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// What a test may change in it.
pub struct Namespace {
    dir: PathBuf,
}

/// In the separate process, the namespace; in the test's first process nothing, once the other
/// has ended well. `test` is the test's path in its suite, `module::name`.
///
/// Panics where the other process fails; says that the test is skipped where no namespace is to
/// be had.
pub fn enter(test: &str) -> Option<Namespace> {
    if let Some(dir) = std::env::var_os(VARIABLE) {
        return Some(Namespace { dir: dir.into() });
    }
    let possible = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", "ip link set lo up"])
        .stderr(Stdio::null())
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        skip(&format!("{test} needs root, unshare and ip"));
        return None;
    }
    let dir = tempfile::tempdir().expect("making a folder");
    std::fs::write(dir.path().join("hosts"), LOCAL).expect("writing a hosts file");
    // Nothing listens there: a name that is not in the hosts file is unknown at once.
    let resolv = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
    std::fs::write(dir.path().join("resolv.conf"), resolv).expect("writing a resolver's file");
    let script = r#"ip link set lo up
for file in hosts resolv.conf; do mount --bind "$0/$file" "/etc/$file"; done
exec "$@""#;
    let mut command = bound_command(Path::new("unshare"));
    command
        .args(["--net", "--mount", "--propagation", "private"])
        .args(["sh", "-ec", script])
        .arg(dir.path())
        .arg(std::env::current_exe().expect("the suite's own program"))
        .args(["--exact", test, "--nocapture"])
        .env(VARIABLE, dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = spawn_bound(command).expect("starting the test again");
    let output = child.wait_with_output().expect("waiting for the test");
    let said = expect_success(test, &output);
    assert!(said.contains("1 passed"), "there is no test {test}: {said}");
    print!("{said}");
    None
}

impl Namespace {
    /// Makes these all the names that the machine knows, besides its own.
    pub fn names<'a>(&self, known: impl IntoIterator<Item = (&'a str, IpAddr)>) {
        let lines = known.into_iter().map(|(name, ip)| format!("{ip} {name}\n"));
        // In its place: what is mounted is the file, not its name.
        std::fs::write(
            self.dir.join("hosts"),
            LOCAL.to_owned() + &lines.collect::<String>(),
        )
        .expect("writing a hosts file");
    }

    /// Gives the machine an address, unless it has it.
    pub fn add_address(&self, ip: IpAddr) {
        address("replace", ip);
    }

    /// Takes an address from the machine.
    pub fn remove_address(&self, ip: IpAddr) {
        address("del", ip);
    }
}

fn address(what: &str, ip: IpAddr) {
    let output = Command::new("ip")
        .args(["address", what, &format!("{ip}/32"), "dev", "lo"])
        .output()
        .expect("running ip");
    expect_success(&format!("ip address {what} {ip}"), &output);
}
