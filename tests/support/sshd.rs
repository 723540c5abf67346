//! A real sshd on loopback, with its own keys, for one user: the one who runs the tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bins::skip;
use crate::loopback::free_port;
use crate::process::{bound_command, expect_success, spawn_bound, wait_for};
use crate::s3::cache;

/// A running sshd, the directory it is to keep things in, and what a client needs.
pub struct Sshd {
    /// Where it listens.
    pub address: SocketAddr,
    /// Keys and settings of both sides.
    pub scratch: tempfile::TempDir,
    /// Whether it listens on `[::1]` too, at the same port.
    pub listens_on_ipv6: bool,
    child: Child,
}

impl Sshd {
    /// Starts one; none if that cannot be, which is announced.
    pub fn start() -> Option<Self> {
        Self::start_on(|_| {})
    }

    /// The same, once something was done to the store's directory.
    pub fn start_on(prepare: impl FnOnce(&Path)) -> Option<Self> {
        Self::start_with(&[], prepare)
    }

    /// The same with more keys, of these kinds: `host_rsa` beside `host`, which is Ed25519.
    pub fn start_with(kinds: &[&str], prepare: impl FnOnce(&Path)) -> Option<Self> {
        Self::start_as(kinds, "internal-sftp", prepare)
    }

    /// One whose clients speak with this program instead of a real SFTP server.
    pub fn start_serving(program: &str) -> Option<Self> {
        Self::start_as(&[], program, |_| {})
    }

    fn start_as(kinds: &[&str], sftp: &str, prepare: impl FnOnce(&Path)) -> Option<Self> {
        let Some(sshd) = program() else {
            skip("no sshd here: run scripts/fetch-servers.sh");
            return None;
        };
        if !rustix::process::geteuid().is_root() {
            skip("sshd is started only by root");
            return None;
        }
        // Where Debian's sshd puts itself away; it must be there, and root's.
        std::fs::create_dir_all("/run/sshd").expect("sshd's own directory");
        let scratch = tempfile::tempdir().expect("a folder");
        let dir = scratch.path();
        if !make_keys(dir, kinds) {
            skip("no ssh-keygen here");
            return None;
        }
        std::fs::copy(dir.join("user.pub"), dir.join("authorized")).expect("a copy");
        std::fs::create_dir(dir.join("store")).expect("a store");
        prepare(&dir.join("store"));
        let address = free_port();
        let listens_on_ipv6 = configure(dir, address, kinds, sftp);
        let log = std::fs::File::create(dir.join("log")).expect("a log");
        let mut command = in_own_namespace(&sshd, dir);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = spawn_bound(command).expect("starting sshd");
        let started = wait_for("sshd", Duration::from_secs(60), || {
            std::net::TcpStream::connect(address).map(drop)
        });
        if let Err(why) = started {
            panic!(
                "{why}\n{}",
                std::fs::read_to_string(dir.join("log")).unwrap_or_default()
            );
        }
        Some(Self {
            address,
            scratch,
            listens_on_ipv6,
            child,
        })
    }

    /// Kills the processes that serve those who are connected.
    pub fn kill_sessions(&self) {
        let listener = i32::try_from(self.child.id()).expect("a process");
        let children = format!("/proc/{listener}/task/{listener}/children");
        let children = std::fs::read_to_string(children).expect("its children");
        for session in children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
        {
            let Some(session) = rustix::process::Pid::from_raw(session) else {
                continue;
            };
            // One that has ended in the meantime is gone, as it should be.
            let _ = rustix::process::kill_process(session, rustix::process::Signal::KILL);
        }
    }

    /// The store's directory.
    pub fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    /// The store's URL.
    pub fn url(&self) -> String {
        format!("sftp://root@{}{}", self.address, self.store().display())
    }

    /// The variables that a client needs.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.scratch.path().join(name).display().to_string();
        vec![
            ("ETCD_DR_SFTP_IDENTITY", path("user")),
            ("ETCD_DR_SFTP_KNOWN_HOSTS", path("known_hosts")),
            ("ETCD_DR_STORE_PATIENCE", "2s".to_owned()),
        ]
    }
}

/// Makes the keys of host and user, and host keys of these kinds; false without ssh-keygen.
fn make_keys(dir: &Path, kinds: &[&str]) -> bool {
    let more = kinds.iter().map(|kind| (format!("host_{kind}"), *kind));
    let keys: Vec<_> = ["host", "user"]
        .map(|name| (name.to_owned(), "ed25519"))
        .into_iter()
        .chain(more)
        .collect();
    for (name, kind) in &keys {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-t", kind, "-f"])
            .arg(dir.join(name))
            .output();
        let Ok(made) = made else {
            return false;
        };
        expect_success("ssh-keygen", &made);
    }
    true
}

/// Writes the settings of both sides; says whether sshd will listen on `[::1]`, too.
fn configure(dir: &Path, address: SocketAddr, kinds: &[&str], sftp: &str) -> bool {
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let ipv6 = format!("[::1]:{}", address.port());
    let listens_on_ipv6 = std::net::TcpListener::bind(&ipv6).is_ok();
    let also = match listens_on_ipv6 {
        true => format!("ListenAddress {ipv6}\n"),
        false => String::new(),
    };
    let more: String = kinds
        .iter()
        .map(|kind| format!("HostKey {}\n", text(&dir.join(format!("host_{kind}")))))
        .collect();
    let config = format!(
        "ListenAddress {address}\n{also}{more}HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
         UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n\
         Subsystem sftp {sftp}\n",
        text(&dir.join("host")),
        text(&dir.join("authorized")),
    );
    std::fs::write(dir.join("config"), config).expect("settings");
    let public = std::fs::read_to_string(dir.join("host.pub")).expect("the host's key");
    let known = format!("[127.0.0.1]:{} {public}", address.port());
    std::fs::write(dir.join("known_hosts"), known).expect("known hosts");
    listens_on_ipv6
}

/// sshd in a mount namespace that has the user for its less trusted part, who is missing without
/// the package.
fn in_own_namespace(sshd: &Path, dir: &Path) -> Command {
    let users = std::fs::read_to_string("/etc/passwd").expect("the users");
    let users = format!("{users}sshd:x:65534:65534::/run/sshd:/usr/sbin/nologin\n");
    std::fs::write(dir.join("passwd"), users).expect("the users");
    let start = "mount --bind \"$0\" /etc/passwd && exec \"$@\"";
    let mut command = bound_command(Path::new("unshare"));
    command
        .args(["--mount", "sh", "-c", start])
        .arg(dir.join("passwd"))
        .arg(sshd)
        .args(["-D", "-e", "-f"])
        .arg(dir.join("config"))
        .env(
            "LD_LIBRARY_PATH",
            sshd.ancestors().nth(3).expect("its root").join("lib"),
        );
    command
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sshd that was fetched.
fn program() -> Option<PathBuf> {
    // It runs itself again for each connection, by its whole path.
    cache().join("sshd/usr/sbin/sshd").canonicalize().ok()
}
