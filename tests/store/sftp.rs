//! A directory on another host, against a real sshd.

use std::process::{Command, Stdio};

use etcd_dr::store::objects;
use etcd_dr::store::{Address, Settings};

use crate::bench::{Bench, assert_same_set, listed, place, run};
use crate::conformance::conforms;
use crate::copies::there_and_back;
use crate::support::process::{bound_command, spawn_bound};
use crate::support::sshd::Sshd;

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let Some(server) = Sshd::start() else { return };
    let settings = Settings {
        variables: server
            .variables()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        ..Settings::default()
    };
    let address = Address::parse(&server.url()).expect("an address");
    let store = objects::open(&address, &settings).await.expect("a store");
    conforms(store, true).await.expect("it conforms");
}

#[test]
fn the_commands_on_it() {
    let Some(server) = Sshd::start() else { return };
    there_and_back(&server.url(), &server.variables());
}

#[test]
fn a_host_that_is_not_known_is_refused() {
    let Some(server) = Sshd::start() else { return };
    let bench = Bench::new();
    bench.set(1);
    let url = server.url();
    let with = |name: &'static str, value: String| {
        let mut env = server.variables();
        env.retain(|(other, _)| *other != name);
        env.push((name, value));
        env
    };
    let empty = bench.dir.path().join("empty");
    std::fs::write(&empty, "").expect("a file");
    let unknown = with("ETCD_DR_SFTP_KNOWN_HOSTS", empty.display().to_string());
    let refused = bench.copy("backup-1", &url, &[], &unknown).expect(6);
    assert!(refused.stderr.contains("is in none of"), "{refused}");

    // The host's key is another one's: the user's, here.
    let other = std::fs::read_to_string(server.scratch.path().join("user.pub")).expect("a key");
    let changed = bench.dir.path().join("changed");
    std::fs::write(
        &changed,
        format!("[127.0.0.1]:{} {other}", server.address.port()),
    )
    .expect("a file");
    let changed = with("ETCD_DR_SFTP_KNOWN_HOSTS", changed.display().to_string());
    let refused = bench.copy("backup-1", &url, &[], &changed).expect(6);
    assert!(
        refused.stderr.contains("has another one for it"),
        "{refused}"
    );

    // A fingerprint that is given is enough, if it is the host's.
    let shown = Command::new("ssh-keygen")
        .args(["-l", "-f"])
        .arg(server.scratch.path().join("host.pub"))
        .output()
        .expect("running ssh-keygen");
    let shown = String::from_utf8(shown.stdout).expect("text");
    let fingerprint = shown.split(' ').nth(1).expect("a fingerprint").to_owned();
    let mut given = unknown.clone();
    given.push(("ETCD_DR_SFTP_FINGERPRINT", fingerprint));
    bench.copy("backup-1", &url, &[], &given).expect(0);
    let mut wrong = unknown;
    wrong.push(("ETCD_DR_SFTP_FINGERPRINT", "SHA256:nonsense".to_owned()));
    bench.copy("backup-1", &url, &[], &wrong).expect(6);

    // A key that the host does not take, and no key at all.
    let stranger = with(
        "ETCD_DR_SFTP_IDENTITY",
        server.scratch.path().join("host").display().to_string(),
    );
    let refused = bench.copy("backup-1", &url, &[], &stranger).expect(6);
    assert!(refused.stderr.contains("(refused)"), "{refused}");
    let absent = with("ETCD_DR_SFTP_IDENTITY", "/nowhere".to_owned());
    bench.copy("backup-1", &url, &[], &absent).expect(6);
    run(&["list", &format!("{url}/absent")], &server.variables()).expect(6);
}

#[test]
fn a_key_that_only_an_agent_has() {
    let Some(server) = Sshd::start() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("agent");
    let mut agent = bound_command(std::path::Path::new("ssh-agent"));
    agent
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut agent) = spawn_bound(agent) else {
        return crate::support::bins::skip("no ssh-agent here");
    };
    let added =
        crate::support::process::wait_for("the agent", std::time::Duration::from_secs(10), || {
            let added = Command::new("ssh-add")
                .arg(server.scratch.path().join("user"))
                .env("SSH_AUTH_SOCK", &socket)
                .output()
                .map_err(|e| e.to_string())?;
            let said = String::from_utf8_lossy(&added.stderr).into_owned();
            if added.status.success() {
                Ok(())
            } else {
                Err(said)
            }
        });
    added.expect("the agent takes the key");
    let bench = Bench::new();
    bench.set(1);
    let mut env = server.variables();
    env.retain(|(name, _)| *name != "ETCD_DR_SFTP_IDENTITY");
    env.push(("HOME", dir.path().display().to_string()));
    env.push(("SSH_AUTH_SOCK", socket.display().to_string()));
    bench.copy("backup-1", &server.url(), &[], &env).expect(0);
    // It may have ended already.
    let _ = agent.kill();
    let _ = agent.wait();
}

#[test]
fn a_connection_that_is_cut_leaves_no_backup_and_the_next_copy_goes_on() {
    let Some(server) = Sshd::start() else { return };
    let bench = Bench::new();
    let set = bench.big_set(1, 5 << 20);
    let (env, name) = (server.variables(), format!("{}/backup-1", place()));
    let whole = 5i64 << 20;
    for at in [3_000, 200_000, whole / 2, whole + 20_000, whole + 60_000] {
        let proxy = crate::faults::Proxy::start(server.address);
        proxy.budget.store(at, std::sync::atomic::Ordering::SeqCst);
        let known = bench.dir.path().join("known");
        let key = std::fs::read_to_string(server.scratch.path().join("host.pub")).expect("a key");
        std::fs::write(
            &known,
            format!("[127.0.0.1]:{} {key}", proxy.address.port()),
        )
        .expect("a file");
        let mut through = env.clone();
        through.push(("ETCD_DR_SFTP_KNOWN_HOSTS", known.display().to_string()));
        let url = format!("sftp://root@{}{}", proxy.address, server.store().display());
        let cut = bench.copy("backup-1", &url, &[], &through);
        assert!(matches!(cut.status, Some(0 | 6)), "{cut}");
        if cut.status == Some(6) {
            let sets = listed(&server.url(), &env);
            assert!(
                sets.iter().all(|(_, state)| state == "incomplete"),
                "{at}: {sets:?}"
            );
        }
        bench.copy("backup-1", &server.url(), &[], &env).expect(0);
        assert_eq!(
            listed(&server.url(), &env),
            [(name.clone(), "good".to_owned())]
        );
        let back = tempfile::tempdir().expect("a folder");
        let to = back.path().to_str().expect("UTF-8");
        run(&["copy", &format!("{}/{name}", server.url()), to], &env).expect(0);
        assert_same_set(&back.path().join("backup-1"), &set);
        let cluster = name.split('/').next().expect("a cluster");
        std::fs::remove_dir_all(server.store().join(cluster)).expect("it is there");
    }
}
