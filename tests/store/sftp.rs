//! A directory on another host, against a real sshd.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use etcd_dr::store::objects;
use etcd_dr::store::{Address, Settings};

use crate::bench::{Bench, assert_none, assert_same_set, files_below, listed, place, run};
use crate::conformance::{Claims, conforms};
use crate::copies::there_and_back;
use crate::proxy::Proxy;
use testbench::process::{bound_command, spawn_bound};
use testbench::sshd::Sshd;
use testbench::tmpfs::Tmpfs;

fn settings(server: &Sshd) -> Settings {
    let variables = server.variables().into_iter();
    Settings {
        variables: variables
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        ..Settings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_conforms_to_the_store_trait() {
    let Some(server) = Sshd::start() else { return };
    let address = Address::parse(&server.url()).expect("an address");
    let store = objects::open(&address, &settings(&server)).await;
    let store = store.expect("a store");
    conforms(store, Claims::Exclude).await.expect("it conforms");
}

/// A server gives the number of a closed handle to the next file that is opened. A claim that lost
/// must not close its own a second time: it would close a file that somebody else writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_claim_leaves_other_files_open() {
    let Some(server) = Sshd::start() else { return };
    let address = Address::parse(&server.url()).expect("an address");
    let store = objects::open(&address, &settings(&server)).await;
    let store = store.expect("a store");
    let claim = || store.claim("c/claim", Bytes::from_static(b"mine"));
    assert!(claim().await.expect("the first claim"));
    // Each folder takes a request more, so the file is opened at another point of the claim.
    let names = (0..12).map(|depth| format!("{}object", "d/".repeat(depth)));
    for name in names.collect::<Vec<_>>().iter().cycle().take(60) {
        let (won, put) = tokio::join!(claim(), objects::put(store.as_ref(), name, "content"));
        assert!(!won.expect("an answer"));
        put.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
}

#[test]
fn backups_are_copied_listed_verified_and_pruned_over_sftp() {
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

    // The host's key is a wrong one: here the user's.
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
        refused.stderr.contains("has a different key for it"),
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
        return testbench::bins::skip("no ssh-agent here");
    };
    let added =
        testbench::process::wait_for("the agent", std::time::Duration::from_secs(10), || {
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

/// The store's URL and the variables by way of a proxy.
fn by_way_of(server: &Sshd, proxy: &Proxy, dir: &Path) -> (String, Vec<(&'static str, String)>) {
    let known = dir.join("known");
    let key = std::fs::read_to_string(server.scratch.path().join("host.pub")).expect("a key");
    let line = format!("[127.0.0.1]:{} {key}", proxy.address.port());
    std::fs::write(&known, line).expect("a file");
    let mut env = server.variables();
    env.push(("ETCD_DR_SFTP_KNOWN_HOSTS", known.display().to_string()));
    let url = format!("sftp://root@{}{}", proxy.address, server.store().display());
    (url, env)
}

#[test]
fn a_connection_that_is_cut_again_and_again_is_replaced() {
    let Some(server) = Sshd::start() else { return };
    let bench = Bench::new();
    let set = bench.big_set(1, 20 << 20);
    let name = format!("{}/backup-1", place());
    let proxy = Proxy::start(server.address);
    proxy.budget.store(3 << 20, Ordering::SeqCst);
    proxy.again.store(1000, Ordering::SeqCst);
    let (url, env) = by_way_of(&server, &proxy, bench.dir.path());
    bench.copy("backup-1", &url, &[], &env).expect(0);
    let cuts = 1000 - proxy.again.load(Ordering::SeqCst);
    assert!(cuts >= 6, "{cuts} cuts");
    // What was acknowledged is not sent again.
    let sent = proxy.passed.load(Ordering::SeqCst);
    assert!(sent < 32 << 20, "{sent} bytes for 20 MiB");
    assert_eq!(listed(&url, &env), [(name.clone(), "good".to_owned())]);
    assert!(
        files_below(&server.store())
            .iter()
            .all(|path| !path.to_string_lossy().contains(".part-"))
    );
    let back = tempfile::tempdir().expect("a folder");
    let to = back.path().to_str().expect("UTF-8");
    run(
        &["copy", &format!("{}/{name}", server.url()), to],
        &server.variables(),
    )
    .expect(0);
    assert_same_set(&back.path().join("backup-1"), &set);
}

#[test]
fn sessions_that_are_killed_on_the_host_are_replaced() {
    let Some(server) = Sshd::start() else { return };
    let bench = Bench::new();
    let set = bench.big_set(1, 48 << 20);
    let (url, env) = (server.url(), server.variables());
    let name = format!("{}/backup-1", place());
    let killed = std::thread::scope(|scope| {
        let copying = scope.spawn(|| bench.copy("backup-1", &url, &[], &env).expect(0));
        let mut killed = 0;
        while !copying.is_finished() {
            let parts = files_below(&server.store());
            let written: u64 = parts
                .iter()
                .filter(|path| path.to_string_lossy().contains(".part-"))
                .filter_map(|path| Some(path.metadata().ok()?.len()))
                .sum();
            if killed < 3 && written > (killed + 1) * (6 << 20) {
                server.kill_sessions();
                killed += 1;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        copying.join().expect("a copy");
        killed
    });
    assert!(killed > 0, "it was over too soon");
    let back = tempfile::tempdir().expect("a folder");
    let to = back.path().to_str().expect("UTF-8");
    run(&["copy", &format!("{url}/{name}"), to], &env).expect(0);
    assert_same_set(&back.path().join("backup-1"), &set);
}

#[test]
fn a_disk_that_is_full_on_the_host() {
    let mut small = None;
    let server = Sshd::start_on(|store| small = Tmpfs::mount(store, "12m"));
    let (Some(server), Some(small)) = (server, small) else {
        return;
    };
    let bench = Bench::new();
    let set = bench.big_set(1, 20 << 20);
    let (url, env) = (server.url(), server.variables());
    let failed = bench.copy("backup-1", &url, &[], &env).expect(6);
    assert!(failed.stderr.contains("writing sftp://"), "{failed}");
    assert_none(&url, &env, "a full disk");
    assert!(
        files_below(&server.store())
            .iter()
            .all(|path| !path.to_string_lossy().contains(".part-"))
    );
    small.remount("size=64m");
    bench.copy("backup-1", &url, &[], &env).expect(0);
    let back = tempfile::tempdir().expect("a folder");
    let to = back.path().to_str().expect("UTF-8");
    run(&["copy", &format!("{url}/{}/backup-1", place()), to], &env).expect(0);
    assert_same_set(&back.path().join("backup-1"), &set);
}

#[test]
fn a_cut_connection_leaves_no_backup_and_the_next_copy_resumes() {
    let Some(server) = Sshd::start() else { return };
    let bench = Bench::new();
    let set = bench.big_set(1, 5 << 20);
    let (env, name) = (server.variables(), format!("{}/backup-1", place()));
    let whole = 5i64 << 20;
    for at in [3_000, 200_000, whole / 2, whole + 20_000, whole + 60_000] {
        let proxy = Proxy::start(server.address);
        proxy.budget.store(at, Ordering::SeqCst);
        let (url, mut through) = by_way_of(&server, &proxy, bench.dir.path());
        through.push(("ETCD_DR_STORE_PATIENCE", "300ms".to_owned()));
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
