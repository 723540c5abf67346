//! Whose host it is: our answer compared with ssh's own on the same files.

use std::process::Command;

use crate::bench::run;
use testbench::bins::skip;
use testbench::process::expect_success;
use testbench::sshd::Sshd;

/// A host with keys of three kinds, and the words that stand for keys in the lines of a test.
struct Bench {
    server: Sshd,
    keys: Vec<(&'static str, String)>,
    dir: tempfile::TempDir,
}

impl Bench {
    fn start() -> Option<Self> {
        if Command::new("ssh").arg("-V").output().is_err() {
            skip("no ssh here");
            return None;
        }
        let server = Sshd::start_with(&["ecdsa", "rsa"], |_| {})?;
        let dir = tempfile::tempdir().expect("a folder");
        let read = |name: &str| {
            let text = std::fs::read_to_string(server.scratch.path().join(name)).expect("a key");
            let mut fields = text.split_whitespace();
            let kind = fields.next().expect("a kind");
            format!("{kind} {}", fields.next().expect("a key"))
        };
        let keys = vec![
            ("ED25519", read("host.pub")),
            ("ECDSA", read("host_ecdsa.pub")),
            ("RSA", read("host_rsa.pub")),
            ("STRANGER", read("user.pub")),
        ];
        Some(Self { server, keys, dir })
    }

    /// Writes a file of known hosts; `PORT` stands for the server's.
    fn known(&self, lines: &str) -> String {
        let mut text = lines.replace("PORT", &self.server.address.port().to_string());
        for (word, key) in &self.keys {
            text = text.replace(word, key);
        }
        let path = self.dir.path().join("known");
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }

    /// Whether ssh continues and signs in to the host.
    fn ssh_accepts(&self, known: &str) -> bool {
        let asked = Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=yes",
            ])
            .args([
                "-o",
                "GlobalKnownHostsFile=/dev/null",
                "-o",
                "UpdateHostKeys=no",
            ])
            .args([
                "-o",
                &format!("UserKnownHostsFile={known}"),
                "-o",
                "LogLevel=ERROR",
            ])
            .args(["-o", "PubkeyAuthentication=no", "-p"])
            .arg(self.server.address.port().to_string())
            .args(["root@127.0.0.1", "true"])
            .env_remove("SSH_AUTH_SOCK")
            .output()
            .expect("running ssh");
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert!(
            said.contains("Host key verification failed") != said.contains("Permission denied"),
            "{said}"
        );
        said.contains("Permission denied")
    }

    fn list(&self, url: &str, more: &[(&'static str, String)]) -> testbench::golden::Run {
        let mut env = self.server.variables();
        env.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        env.extend(more.iter().cloned());
        run(&["list", url], &env)
    }
}

#[test]
fn a_hosts_key_is_judged_as_ssh_judges_it() {
    let Some(bench) = Bench::start() else { return };
    let hashed = bench.known("[127.0.0.1]:PORT ED25519");
    let made = Command::new("ssh-keygen")
        .args(["-H", "-f", &hashed])
        .output();
    expect_success("ssh-keygen -H", &made.expect("running ssh-keygen"));
    let hashed = std::fs::read_to_string(&hashed).expect("a file");
    for (lines, accepted) in [
        ("[127.0.0.1]:PORT ED25519", true),
        ("[127.0.0.1]:PORT RSA", true),
        ("[127.0.0.1]:PORT ECDSA comment", true),
        ("[127.0.0.1]:PORT STRANGER\n[127.0.0.1]:PORT ED25519", true),
        ("[127.0.0.1]:PORT STRANGER\n[127.0.0.1]:PORT RSA", false),
        ("[127.0.0.1]:PORT STRANGER", false),
        ("[127.0.0.*]:PORT ED25519", true),
        ("[127.0.0.?]:*,other ED25519", true),
        ("!*,[127.0.0.1]:PORT ED25519", false),
        ("*,![127.0.0.1]:PORT,!127.0.0.1 ED25519", false),
        // It is asked for again, without the port.
        ("*,![127.0.0.1]:PORT ED25519", true),
        ("  [127.0.0.1]:PORT\tED25519\n", true),
        ("@revoked * ED25519\n[127.0.0.1]:PORT ED25519", false),
        (
            "[127.0.0.1]:PORT ED25519\n@revoked [127.0.0.1]:PORT ED25519",
            false,
        ),
        ("@revoked * RSA\n[127.0.0.1]:PORT ED25519", true),
        ("@cert-authority * ED25519", false),
        ("@cert-authority * STRANGER\n[127.0.0.1]:PORT ED25519", true),
        ("@unknown * ED25519\n[127.0.0.1]:PORT ED25519", true),
        ("127.0.0.1 ED25519", true),
        ("127.0.0.1 STRANGER", false),
        ("[127.0.0.1]:PORT STRANGER\n127.0.0.1 ED25519", false),
        (
            "[127.0.0.1]:PORT ssh-ed25519 broken\n127.0.0.1 ED25519",
            true,
        ),
        (hashed.as_str(), true),
        ("", false),
    ] {
        let known = bench.known(lines);
        assert_eq!(bench.ssh_accepts(&known), accepted, "ssh: {lines}");
        let listed = bench.list(&bench.server.url(), &[("ETCD_DR_SFTP_KNOWN_HOSTS", known)]);
        listed.expect(if accepted { 0 } else { 6 });
    }
}

#[test]
fn a_fingerprint_of_any_of_the_hosts_keys_is_enough() {
    let Some(bench) = Bench::start() else { return };
    let empty = bench.known("");
    let fingerprint = |name: &str| {
        let shown = Command::new("ssh-keygen")
            .args(["-l", "-f"])
            .arg(bench.server.scratch.path().join(name))
            .output()
            .expect("running ssh-keygen");
        let shown = String::from_utf8(shown.stdout).expect("text");
        shown.split(' ').nth(1).expect("a fingerprint").to_owned()
    };
    let with = |fingerprint: String, known: &str| {
        let known = ("ETCD_DR_SFTP_KNOWN_HOSTS", known.to_owned());
        let given = ("ETCD_DR_SFTP_FINGERPRINT", fingerprint);
        bench.list(&bench.server.url(), &[known, given])
    };
    for name in ["host.pub", "host_ecdsa.pub", "host_rsa.pub"] {
        with(fingerprint(name), &empty).expect(0);
    }
    let strangers = with(fingerprint("user.pub"), &empty).expect(6);
    for name in ["host.pub", "host_ecdsa.pub", "host_rsa.pub"] {
        assert!(strangers.stderr.contains(&fingerprint(name)), "{strangers}");
    }
    with("MD5:00:11:22".to_owned(), &empty).expect(2);
    let revoked = bench.known("@revoked * RSA");
    let refused = with(fingerprint("host_rsa.pub"), &revoked).expect(6);
    assert!(refused.stderr.contains("is revoked by line 1"), "{refused}");
}

#[test]
fn a_host_by_its_ipv6_address_and_a_user_with_an_at_sign() {
    let Some(bench) = Bench::start() else { return };
    let (port, store) = (bench.server.address.port(), bench.server.store());
    if bench.server.listens_on_ipv6 {
        let known = bench.known("[::1]:PORT RSA");
        let url = format!("sftp://root@[::1]:{port}{}", store.display());
        bench
            .list(&url, &[("ETCD_DR_SFTP_KNOWN_HOSTS", known)])
            .expect(0);
    } else {
        skip("no IPv6 loopback here");
    }
    let url = format!(
        "sftp://svc%40corp.example@127.0.0.1:{port}{}",
        store.display()
    );
    let refused = bench.list(&url, &[]).expect(6);
    assert!(refused.stderr.contains("as svc@corp.example:"), "{refused}");
    let log = std::fs::read_to_string(bench.server.scratch.path().join("log")).expect("a log");
    assert!(log.contains("user svc@corp.example"), "{log}");

    let alias = bench
        .list("sftp://an-alias-of-ssh-config.invalid/x", &[])
        .expect(6);
    assert!(
        alias.stderr.contains("~/.ssh/config are not read"),
        "{alias}"
    );
}

#[test]
fn a_service_finds_its_files_by_the_configuration_and_without_a_home() {
    let Some(bench) = Bench::start() else { return };
    let key = bench
        .server
        .scratch
        .path()
        .join("user")
        .display()
        .to_string();
    let known = bench.known("[127.0.0.1]:PORT ED25519");
    let config = bench.dir.path().join("config.toml");
    let text = format!("[sftp]\nidentity = {key:?}\nknown-hosts = {known:?}\n");
    std::fs::write(&config, text).expect("a configuration");
    let config = config.display().to_string();
    let list = |args: &[&str], env: &[(&str, String)]| {
        let url = bench.server.url();
        run(&[&["list", url.as_str()], args].concat(), env)
    };
    list(&["--config", &config], &[("HOME", String::new())]).expect(0);
    // A variable goes before it.
    let absent = ("ETCD_DR_SFTP_IDENTITY", "/nowhere".to_owned());
    list(&["--config", &config], &[absent]).expect(6);
    // Without HOME it is the home that the users' list has.
    let refused = list(&[], &[("HOME", String::new())]).expect(6);
    assert!(
        refused.stderr.contains("/.ssh/known_hosts, /etc"),
        "{refused}"
    );
}
