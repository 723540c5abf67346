//! `verify --cluster`: each problem, made to happen to real members.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use etcd_dr::cluster::connect::Target;
use etcd_dr::context::{Cancel, Context};
use etcd_dr::event::Silent;
use etcd_dr::inspect::diagnose;
use etcd_dr::inspect::diagnose::names::Resolver;
use etcd_dr::node::layout::NodeLayout;
use etcd_dr::node::overrides::{AccessOverrides, Sourced};
use etcd_dr::node::profile::Profile;
use serde_json::Value;

use crate::member;
use testbench::bins::{require, require_turn};
use testbench::certs::Validity;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::Run;
use testbench::process::wait_for;

/// Looks with further arguments.
pub(crate) fn look(cluster: &Cluster, more: &[&str]) -> Run {
    let args = [&["verify", "--cluster", "-o", "json"], more].concat();
    member(cluster, &args)
}

/// Name and member of each finding; each has evidence and a next command.
#[track_caller]
pub(crate) fn found(run: &Run) -> Vec<(String, String)> {
    let json = run.json();
    assert_eq!(json["schemaVersion"], 1);
    let findings = json["cluster"]["findings"]
        .as_array()
        .expect("findings")
        .clone();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for finding in &findings {
        assert!(!word(&finding["evidence"]).is_empty(), "{run}");
        assert!(!word(&finding["next"]).is_empty(), "{run}");
    }
    let good = findings.is_empty();
    assert_eq!(json["good"], good);
    assert_eq!(run.status, Some(if good { 0 } else { 11 }), "{run}");
    let pair = |finding: &Value| (word(&finding["name"]), word(&finding["member"]));
    findings.iter().map(pair).collect()
}

pub(crate) fn pair(name: &str, member: &str) -> (String, String) {
    (name.to_owned(), member.to_owned())
}

#[test]
fn a_healthy_cluster_has_no_findings() {
    for bins in require_turn() {
        for members in [1, 3] {
            let cluster = Cluster::start(ClusterSpec::new(bins, members).fast());
            let run = look(&cluster, &["--node-name", "master-0"]);
            assert_eq!(found(&run), [], "{run}");
            let json = run.json();
            assert_eq!(
                json["cluster"]["notChecked"],
                serde_json::json!([]),
                "{run}"
            );
            assert_eq!(json["cluster"]["votes"]["voters"], members);
            if members > 1 {
                // One machine, one clock.
                let apart = json["cluster"]["clockSpread"]["milliseconds"].as_u64();
                assert!(apart.expect("a spread") <= 2500, "{run}");
            }
            let text = member(&cluster, &["verify", "--cluster"]).expect(0);
            assert!(text.stdout.contains(": good"), "{text}");
        }
    }
}

/// Clocks and quotas are on the page of metrics, which a server that serves gRPC alone at its client
/// URL has elsewhere: where the node's settings say, or at a usual port.
#[test]
fn metrics_are_read_where_a_server_serves_them() {
    for bins in testbench::bins::require_all() {
        // `--listen-client-http-urls` came with 3.4.25 and 3.5.8.
        let apart = bins.numbers() >= (3, 5, 8);
        let network = testbench::loopback::Loopback::reserve();
        let ip = network.ip(0);
        let mut spec = ClusterSpec::new(bins, 1).fast();
        spec.network = Some(network);
        let url = match apart {
            true => format!("https://{ip}:7001"),
            false => format!("http://{ip}:7001"),
        };
        spec.extra_args = match apart {
            true => vec![
                format!("--listen-client-http-urls={url}"),
                format!("--listen-metrics-urls=http://{ip}:7002"),
            ],
            false => vec![format!("--listen-metrics-urls={url}")],
        };
        let cluster = Cluster::start(spec);
        let root = cluster.node_root(0).to_str().unwrap().to_owned();
        let of = |run: &Run| run.json()["cluster"]["notChecked"].clone();
        let run = look(&cluster, &["--root", &root, "--node-name", "master-0"]);
        assert_eq!(of(&run) == serde_json::json!([]), !apart, "{run}");
        if apart {
            // Every address that was tried is named.
            let told = of(&run).to_string();
            for port in ["2379", "9978", "9979", "2381"] {
                assert!(told.contains(&format!("{ip}:{port}")), "{told}");
            }
        }
        let env = cluster.node_root(0).join("etc/etcd.env");
        std::fs::create_dir_all(env.parent().unwrap()).unwrap();
        for configured in [
            format!("ETCD_LISTEN_CLIENT_HTTP_URLS={url}\n"),
            format!("ETCD_LISTEN_METRICS_URLS=http://{ip}:7002\n"),
        ] {
            if configured.contains("7002") && !apart {
                continue;
            }
            std::fs::write(&env, &configured).unwrap();
            let run = look(&cluster, &["--root", &root, "--node-name", "master-0"]);
            assert_eq!(of(&run), serde_json::json!([]), "{configured}: {run}");
            assert_eq!(found(&run), [], "{run}");
        }
    }
}

/// 3.5.1 to 3.5.19 do not write a promotion to the database, from which 3.6 takes its members.
#[test]
fn a_promotion_that_was_not_written_down_is_named_before_an_upgrade() {
    for bins in testbench::bins::require_all() {
        if bins.numbers() < (3, 5, 0) {
            continue;
        }
        let forgets = ((3, 5, 1)..(3, 5, 20)).contains(&bins.numbers());
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).fast());
        let i = cluster.add_slot("master-1");
        let url = cluster.peer_url(i);
        let mut adding = crate::Adding::start(&cluster, &["master-1", "--peer-urls", &url]);
        let initial_cluster = adding.initial_cluster();
        cluster.launch(i, &initial_cluster, "existing");
        let (status, said) = adding.end();
        assert_eq!(status, Some(0), "{said}");
        cluster.wait_healthy();
        let (url, dir) = (cluster.client_url(0), cluster.data_dir(0));
        let dir = dir.to_str().unwrap().to_owned();
        let more = [
            "--endpoints",
            &url,
            "--node-name",
            "master-0",
            "--data-dir",
            &dir,
        ];
        let names = |list: &Value| -> Vec<String> {
            let list = list.as_array().expect("a list").iter();
            list.map(|one| one["name"].as_str().expect("a name").to_owned())
                .collect()
        };
        // The database records its progress only with the next write, within 100 ms.
        cluster.etcdctl_ok(&["put", "/after", "the promotion"]);
        wait_for("the database", Duration::from_secs(20), || {
            let run = look(&cluster, &more);
            // It is advice, not a problem of the running cluster.
            assert_eq!(found(&run), [], "{run}");
            let differs =
                names(&run.json()["cluster"]["advice"]).contains(&"membership-differs".to_owned());
            if differs == forgets {
                Ok(())
            } else {
                Err(run.stdout)
            }
        })
        .expect("what the database has");
        let args = [&["verify", "--upgrade-to", "3.6", "-o", "json"], &more[..]].concat();
        let run = member(&cluster, &args).expect(if forgets { 11 } else { 0 });
        let upgrade = &run.json()["upgrade"];
        assert_eq!(upgrade["ready"], !forgets, "{run}");
        let expected: &[&str] = match forgets {
            true => &["membership-differs", "patch-first", "known-bad-version"],
            false => &["known-bad-version"],
        };
        assert_eq!(names(&upgrade["obstacles"]), expected, "{run}");
        let text = member(
            &cluster,
            &[&["verify", "--upgrade-to", "3.7"], &more[..]].concat(),
        );
        let text = text.expect(11);
        assert!(text.stdout.contains("[one-minor-at-a-time]"), "{text}");
        // The same for the stopped member.
        cluster.stop(0);
        let args = [
            "verify",
            "--upgrade-to",
            "3.6",
            "--data-dir",
            &dir,
            "-o",
            "json",
        ];
        let run = member(&cluster, &args).expect(if forgets { 11 } else { 12 });
        let differs = names(&run.json()["upgrade"]["obstacles"]);
        assert_eq!(
            differs.contains(&"membership-differs".to_owned()),
            forgets,
            "{run}"
        );
    }
}

/// Up to 3.5 etcd may serve the v2 API, with whose keys 3.6 does not start.
#[test]
fn keys_of_the_v2_api_block_an_upgrade_to_3_6() {
    let Some(bins) = require("3.5") else { return };
    let mut spec = ClusterSpec::new(&bins, 1).plain();
    spec.snapshot_count = 10;
    spec.extra_args = vec!["--enable-v2".to_owned()];
    let mut cluster = Cluster::start(spec);
    let mut etcd = TcpStream::connect((cluster.ip(0), 2379)).expect("etcd");
    let put = "PUT /v2/keys/a HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\n\
               Content-Length: 7\r\n\r\nvalue=1";
    etcd.write_all(put.as_bytes()).expect("sending");
    let mut answer = String::new();
    etcd.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains(" 201 "), "{answer}");
    // The v2 store is written with the next `.snap` file.
    for n in 0..30 {
        cluster.etcdctl_ok(&["put", "/n", &n.to_string()]);
    }
    let dir = cluster.data_dir(0).to_owned();
    wait_for("a .snap file", Duration::from_secs(20), || {
        let files = std::fs::read_dir(dir.join("member/snap")).expect("its folder");
        let mut names = files.flatten().map(|file| file.file_name());
        let found = names.any(|name| name.to_string_lossy().ends_with(".snap"));
        if found { Ok(()) } else { Err("none yet") }
    })
    .expect("a snapshot");
    cluster.stop(0);
    let dir = dir.to_str().expect("a path");
    let args = ["verify", "--upgrade-to", "3.6", "--data-dir", dir];
    let run = member(&cluster, &args).expect(11);
    assert!(run.stdout.contains("[v2-content]"), "{run}");
}

#[test]
fn dead_absent_and_foreign_members_are_found() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        cluster.kill(2);
        cluster.etcdctl_ok(&["get", "/", "--command-timeout=30s"]);
        assert_eq!(
            found(&look(&cluster, &[])),
            [pair("member-unreachable", "master-2")]
        );

        // A member of the same name and address that has founded its own cluster.
        let alone = format!("master-2={}", cluster.peer_url(2));
        cluster.wipe(2);
        cluster.launch(2, &alone, "new");
        cluster.wait_member(2);
        let url = cluster.client_url(0);
        let run = look(&cluster, &["--endpoints", &url]);
        assert_eq!(found(&run), [pair("foreign-cluster", "master-2")], "{run}");

        cluster.kill(2);
        cluster.kill(1);
        crate::wait_leaderless(&cluster, 0);
        let names = found(&look(&cluster, &[]));
        for expected in [
            pair("no-quorum", ""),
            pair("member-leaderless", "master-0"),
            pair("member-unreachable", "master-1"),
            pair("member-unreachable", "master-2"),
        ] {
            assert!(names.contains(&expected), "{expected:?} in {names:?}");
        }
    }
}

/// A machine came back with the address that another member had.
#[test]
fn another_member_at_a_members_address_is_found() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        let everyone = cluster.initial_cluster();
        cluster.kill(1);
        cluster.kill(2);
        let taken = cluster.ip(1);
        cluster.readdress_to(2, taken);
        cluster.launch(2, &everyone, "existing");
        let url = cluster.client_url(0);
        let told = wait_for(
            "the wrong member to answer",
            Duration::from_secs(60),
            || {
                let run = look(&cluster, &["--endpoints", &url]);
                let named = run.stdout.contains("\"wrong-member-answers\"");
                if named { Ok(run) } else { Err(run) }
            },
        );
        let told = told.unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
        let names = found(&told);
        assert!(
            names.contains(&pair("wrong-member-answers", "master-1")),
            "{told}"
        );
    }
}

#[test]
fn a_member_that_never_started_is_found() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).fast());
        let i = cluster.add_slot("m1");
        let url = cluster.peer_url(i);
        let args = ["member-add", "m1", "--peer-urls", &url, "--no-promote"];
        member(&cluster, &args).expect(0);
        let run = look(&cluster, &[]);
        let names: Vec<String> = found(&run).into_iter().map(|found| found.0).collect();
        assert_eq!(names, ["member-not-started"], "{run}");
        let next = &run.json()["cluster"]["findings"][0]["next"];
        assert_eq!(next, &format!("etcd-dr member-add NAME --peer-urls {url}"));
    }
}

/// All are down: the data directory of this node's member is looked at, whole and broken.
#[test]
fn with_all_members_down_a_bad_data_directory_is_found() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1));
        cluster.etcdctl_ok(&["put", "/a", "b"]);
        let url = cluster.client_url(0);
        cluster.stop(0);
        let dir = cluster.data_dir(0).to_owned();
        let dir = dir.to_str().expect("UTF-8");
        let more = ["--endpoints", &url, "--data-dir", dir];
        let run = look(&cluster, &more);
        assert_eq!(found(&run), [pair("cluster-unreachable", "")], "{run}");
        let db = cluster.data_dir(0).join("member/snap/db");
        let bytes = std::fs::read(&db).expect("reading the database");
        // The file may be longer than what is in use; the third page is in use.
        std::fs::write(&db, &bytes[..9000]).expect("cutting the database");
        let run = look(&cluster, &more);
        let expected = [pair("cluster-unreachable", ""), pair("bad-data-dir", "")];
        assert_eq!(found(&run), expected, "{run}");
        cluster.wipe(0);
        let run = look(&cluster, &more);
        assert_eq!(found(&run), expected, "{run}");
    }
}

#[test]
fn a_database_near_its_quota_is_found() {
    for bins in require_turn() {
        let mut spec = ClusterSpec::new(bins, 1).fast();
        spec.quota = 20 << 20;
        let cluster = Cluster::start(spec);
        let value = "x".repeat(100_000);
        let mut near = false;
        for i in 0..400 {
            let put = cluster.etcdctl(&["put", &format!("/fill/{i}"), &value]);
            if i % 10 == 0 && !near {
                near = found(&look(&cluster, &[])) == [pair("database-near-quota", "master-0")];
            }
            if !put.status.success() {
                break;
            }
        }
        assert!(near, "it was near its quota before it was full");
        let run = look(&cluster, &[]);
        let names = found(&run);
        assert!(names.contains(&pair("alarm", "master-0")), "{run}");
        assert!(run.stdout.contains("NOSPACE"), "{run}");
    }
}

/// A server reads its certificate's file again for each connection.
#[test]
fn certificates_as_members_present_them() {
    for bins in require_turn() {
        let cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        let certs = cluster.certs().expect("with TLS");
        let renew = |i: usize, ips: &[IpAddr], validity: Validity| {
            let name = cluster.name(i);
            let stem = format!("etcd-serving-{name}");
            let common_name = format!("system:etcd-server:{name}");
            let leaf = certs
                .ca()
                .leaf_valid(&common_name, "system:etcd-servers", ips, validity);
            leaf.write(certs.dir(), &stem);
        };
        renew(0, &[cluster.ip(0)], Validity::days(10));
        let run = look(&cluster, &[]);
        assert_eq!(
            found(&run),
            [pair("certificate-expires-soon", "master-0")],
            "{run}"
        );
        renew(0, &[cluster.ip(0)], Validity::days(1000));
        renew(1, &[], Validity::days(1000));
        renew(2, &[cluster.ip(2)], Validity::expired());
        let url = cluster.client_url(0);
        let run = look(&cluster, &["--endpoints", &url]);
        let expected = [
            pair("member-unreachable", "master-1"),
            pair("member-unreachable", "master-2"),
            pair("certificate-lacks-name", "master-1"),
            pair("certificate-expired", "master-2"),
        ];
        let mut names = found(&run);
        // Of two that do not answer a quorum of three is short, too.
        names.retain(|found| found.0 != "no-quorum");
        names.sort();
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(names, expected, "{run}");
        // Our own certificate, from its file.
        renew(1, &[cluster.ip(1)], Validity::days(1000));
        renew(2, &[cluster.ip(2)], Validity::days(1000));
        let soon = certs
            .ca()
            .leaf_valid("system:etcd-peer", "x", &[], Validity::days(3));
        let soon = soon.write(&cluster.scratch(), "client");
        let (cert, key) = (
            soon.cert.to_str().expect("UTF-8"),
            soon.key.to_str().expect("UTF-8"),
        );
        let run = look(&cluster, &["--cert", cert, "--key", key]);
        assert_eq!(found(&run), [pair("certificate-expires-soon", "")], "{run}");
        assert_eq!(run.json()["cluster"]["findings"][0]["path"], cert);
    }
}

/// A peer URL of a name that is gone, and one of another machine's address.
#[test]
fn peer_urls_that_lead_nowhere_are_found() {
    for bins in require_turn() {
        let cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        let move_to = |url: &str| {
            let moved = ["member-update", "master-1", "--peer-urls", url];
            member(&cluster, &moved).expect(0);
        };
        move_to("https://master-1.invalid:2380");
        let run = look(&cluster, &["--node-name", "master-1"]);
        let names = found(&run);
        assert!(
            names.contains(&pair("name-unresolved", "master-1")),
            "{run}"
        );
        move_to("https://192.0.2.1:2380");
        let run = look(&cluster, &["--node-name", "master-1"]);
        let names = found(&run);
        assert!(
            names.contains(&pair("peer-url-not-local", "master-1")),
            "{run}"
        );
        // Not this node's own: not this node's matter.
        let names = found(&look(&cluster, &["--node-name", "master-0"]));
        assert!(
            !names.iter().any(|found| found.0 == "peer-url-not-local"),
            "{names:?}"
        );
    }
}

/// A resolver that knows one name, of another machine.
struct Stale;

impl Resolver for Stale {
    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        match name {
            "master-1.example" => Ok(vec!["192.0.2.9".parse().expect("an address")]),
            other => Err(format!("no such name: {other}")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_resolves_elsewhere_is_found() {
    let Some(bins) = require("3.5") else { return };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 3).fast());
    let url = "https://master-1.example:2380";
    member(&cluster, &["member-update", "master-1", "--peer-urls", url]).expect(0);
    let certs = cluster.certs().expect("with TLS");
    let peer = certs.peer("master-0");
    let told = |path: std::path::PathBuf| Some(Sourced::new(path, "the test"));
    let target = Target {
        layout: NodeLayout::new("/"),
        profile: Some(Profile::Bare),
        overrides: AccessOverrides {
            endpoints: Some(Sourced::new(vec![cluster.client_url(0)], "the test")),
            ca: told(certs.ca_file()),
            cert: told(peer.cert),
            key: told(peer.key),
            node: Some(Sourced::new("master-1".to_owned(), "the test")),
            data_dir: None,
            local_addresses: vec!["10.0.0.1".parse().expect("an address")],
        },
    };
    let context = Context {
        observer: Arc::new(Silent),
        now: jiff::Timestamp::now(),
        cancel: Cancel::default(),
    };
    let report = diagnose::run(&context, &target, Arc::new(Stale), None)
        .await
        .expect("a report");
    let names: Vec<&str> = report.findings.iter().map(|found| found.name).collect();
    for expected in [
        diagnose::NAME_RESOLVES_ELSEWHERE,
        diagnose::PEER_URL_NOT_LOCAL,
    ] {
        assert!(
            names.contains(&expected),
            "{expected} in {:?}",
            report.findings
        );
    }
}
