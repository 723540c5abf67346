//! `verify --cluster` of clusters that agree on nothing, whose members do not reach each other, or
//! that are not asked themselves; and what `member-add` makes of them.

use std::time::Duration;

use crate::member;
use crate::verify_cluster::{found, look, pair};
use testbench::bins::{require, require_turn};
use testbench::certs::Validity;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::{Run, run};
use testbench::process::{bound_command, spawn_bound, wait_for};

/// Names and next commands of the findings.
fn next(run: &Run, name: &str) -> String {
    let json = run.json();
    let findings = json["cluster"]["findings"].as_array().expect("findings");
    let one = findings.iter().find(|finding| finding["name"] == name);
    let one = one.unwrap_or_else(|| panic!("no {name}: {run}"));
    one["next"].as_str().expect("a next command").to_owned()
}

/// Its log is gone while its database is not: it elects itself, and applies nothing that it commits.
#[test]
fn a_member_that_commits_nothing_is_not_good() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).fast());
        for i in 0..20 {
            cluster.etcdctl_ok(&["put", &format!("/k/{i}"), "v"]);
        }
        let url = cluster.client_url(0);
        cluster.kill(0);
        std::fs::remove_dir_all(cluster.data_dir(0).join("member/wal")).expect("removing the log");
        cluster.relaunch_stopped();
        let answers = wait_for("the member to answer", Duration::from_secs(60), || {
            let output = cluster.etcdctl_on(0, &["endpoint", "status"]);
            if output.status.success() {
                Ok(())
            } else {
                Err("not yet")
            }
        });
        answers.unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
        let run = look(&cluster, &["--endpoints", &url]);
        let names = found(&run);
        assert!(names.contains(&pair("cannot-commit", "")), "{run}");
        let json = run.json();
        let not = json["cluster"]["notChecked"].as_array().expect("a list");
        assert!(not.iter().any(|not| not["what"] == "alarm"), "{run}");
        let add = ["--endpoints", &url, "member-add", "m1", "--peer-urls"];
        let add = [
            &add[..],
            &["https://10.9.9.9:2380", "--dry-run", "-o", "json"],
        ]
        .concat();
        assert_eq!(crate::refusal(member(&cluster, &add)), "unhealthy-cluster");
    }
}

/// A peer certificate that is not for the member's own address: it reaches the others, and they do
/// not reach it. Raft works, and etcd takes no new member.
#[test]
fn members_that_are_connected_one_way_only() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        let certs = cluster.certs().expect("with TLS");
        let name = cluster.name(2).to_owned();
        let common_name = format!("system:etcd-peer:{name}");
        let ca = certs.ca();
        let leaf = ca.leaf_valid(&common_name, "system:etcd-peers", &[], Validity::days(900));
        leaf.write(certs.dir(), &format!("etcd-peer-{name}"));
        cluster.restart(2);
        let one_way = wait_for("the connections to break", Duration::from_secs(60), || {
            let run = look(&cluster, &[]);
            let names = found(&run);
            let named = names.contains(&pair("peer-not-connected", "master-2"));
            if named { Ok((run, names)) } else { Err(run) }
        });
        let (run, names) = one_way.unwrap_or_else(|run| panic!("{run}\n{}", cluster.logs()));
        let others: Vec<_> = names
            .iter()
            .filter(|found| found.0 == "peer-not-connected")
            .collect();
        assert_eq!(others.len(), 1, "the others reach each other: {run}");
        assert!(next(&run, "peer-not-connected").contains(":2380 "), "{run}");

        let add = ["member-add", "m3", "--peer-urls", "https://127.16.0.9:2380"];
        let url = cluster.client_url(0);
        let allow = ["--endpoints", &url, "--allow", "unhealthy-cluster"];
        // Ours, and if that is allowed, etcd's own.
        for more in [&[][..], &allow] {
            let refused = member(&cluster, &[&add[..], &["-o", "json"], more].concat());
            let error = refused.json()["error"].clone();
            assert_eq!(crate::refusal(refused), "unhealthy-cluster");
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains("to master-2"), "{message}");
            assert!(!message.contains("remove"), "{message}");
        }
    }
}

/// A cluster that was founded at `localhost` cannot grow: no other machine finds it there.
#[test]
fn a_peer_url_of_every_machine_is_named_and_no_member_is_added_to_it() {
    for bins in require_turn() {
        let cluster = Cluster::start(ClusterSpec::new(bins, 1).fast());
        let own = cluster.peer_url(0);
        let loopback = "https://localhost:2380";
        member(
            &cluster,
            &["member-update", "master-0", "--peer-urls", loopback],
        )
        .expect(0);
        let run = look(&cluster, &[]);
        assert_eq!(
            found(&run),
            [pair("peer-url-loopback", "master-0")],
            "{run}"
        );
        let id = run.json()["cluster"]["findings"][0]["memberId"].clone();
        let id = id.as_str().expect("an id");
        let ip = cluster.ip(0);
        assert_eq!(
            next(&run, "peer-url-loopback"),
            format!("etcd-dr member-update {id} --peer-urls https://{ip}:2380")
        );

        let add = |more: &[&str]| {
            let add = ["member-add", "m1", "--peer-urls", "https://127.16.0.9:2380"];
            member(
                &cluster,
                &[&add[..], &["--dry-run", "-o", "json"], more].concat(),
            )
        };
        let refused = add(&[]);
        let hint = refused.json()["error"]["hint"].clone();
        assert_eq!(crate::refusal(refused), "peer-url-loopback");
        let hint = hint.as_str().expect("a hint");
        let first = format!("member-update {id} --peer-urls https://ADDRESS:2380\n");
        assert!(
            hint.starts_with("first: etcd-dr ") && hint.contains(&first),
            "{hint}"
        );
        add(&["--allow", "peer-url-loopback"]).expect(0);
        member(
            &cluster,
            &["member-update", "master-0", "--peer-urls", &own],
        )
        .expect(0);
        add(&[]).expect(0);
        // The other way round, the new member would be looked for there.
        let args = ["member-add", "m1", "--peer-urls", "https://127.0.0.1:2380"];
        let args = [&args[..], &["--dry-run", "-o", "json"]].concat();
        assert_eq!(crate::refusal(member(&cluster, &args)), "peer-url-loopback");
    }
}

#[test]
fn a_grpc_proxy_is_not_a_member() {
    let Some(bins) = require("3.5") else { return };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain().fast());
    let listen = format!("{}:23790", cluster.ip(0));
    let mut command = bound_command(&bins.etcd);
    command
        .args(["grpc-proxy", "start", "--endpoints", &cluster.client_url(0)])
        .args(["--listen-addr", &listen, "--advertise-client-url", &listen])
        .current_dir(cluster.scratch())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut proxy = spawn_bound(command).expect("starting a proxy");
    let url = format!("http://{listen}");
    let up = wait_for("the proxy to listen", Duration::from_secs(30), || {
        std::net::TcpStream::connect(&listen)
    });
    up.expect("a proxy");
    let at = ["--profile", "bare", "--endpoints", &url, "-o", "json"];
    let ask = |more: &[&str]| run(&[&at[..], more].concat(), &[]);
    let told = ask(&["verify", "--cluster"]);
    assert_eq!(found(&told), [pair("cluster-unreachable", "")], "{told}");
    assert!(told.stdout.contains("a gRPC proxy"), "{told}");
    let expected = "etcd-dr --endpoints https://ADDRESS:2379 ";
    assert!(
        next(&told, "cluster-unreachable").contains(expected),
        "{told}"
    );
    let store = cluster.scratch().join("store");
    let store = store.to_str().expect("UTF-8");
    let backup = ask(&["backup", store]).expect(4);
    assert!(backup.stdout.contains("a gRPC proxy"), "{backup}");
    proxy.kill().expect("ending the proxy");
    proxy.wait().expect("the proxy's end");
}

/// etcd's own authentication is on, and the certificate available names none of its users.
#[test]
fn a_certificate_without_a_user_of_etcd_is_named() {
    let Some(bins) = require("3.5") else { return };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    for args in [
        &["user", "add", "root", "--no-password"][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        cluster.etcdctl_ok(args);
    }
    let run = look(&cluster, &[]);
    assert_eq!(found(&run), [pair("cluster-unreachable", "")], "{run}");
    let expected = "etcd-dr --cert FILE --key FILE ";
    assert!(
        next(&run, "cluster-unreachable").contains(expected),
        "{run}"
    );
    let store = cluster.scratch().join("store");
    let store = store.to_str().expect("UTF-8");
    let backup = member(&cluster, &["backup", store, "-o", "json"]).expect(4);
    let hint = backup.json()["error"]["hint"].clone();
    assert!(
        hint.as_str().expect("a hint").contains("role root"),
        "{backup}"
    );
    let root = cluster.certs().expect("with TLS").ca();
    let root = root.leaf_valid("root", "x", &[], Validity::days(900));
    let root = root.write(&cluster.scratch(), "root");
    let path = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (cert, key) = (path(&root.cert), path(&root.key));
    assert_eq!(
        found(&look(&cluster, &["--cert", &cert, "--key", &key])),
        []
    );
}
