//! What disasters of names, addresses and disks do to real members, what `verify --cluster` says
//! of each, and the cure that the runbook names. Each in its own namespaces, where addresses
//! and names can be taken away.

use std::net::IpAddr;
use std::time::Duration;

use crate::verify_cluster::{found, look, pair};
use crate::{Adding, Reaper, assert_same_data, listed, member};
use testbench::bins::{self, EtcdBins, require_turn};
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::{Run, run};
use testbench::loopback::Loopback;
use testbench::namespace::{self, Namespace};
use testbench::node::{self, NodeOptions};
use testbench::node_bench::NodeBench;
use testbench::process::wait_for;

const DOMAIN: &str = "cluster.test";

/// Waits until a look finds what is expected.
#[track_caller]
fn until(what: &str, cluster: &Cluster, more: &[&str], well: impl Fn(&Run) -> bool) -> Run {
    let waited = wait_for(what, Duration::from_secs(60), || {
        let run = look(cluster, more);
        if well(&run) { Ok(run) } else { Err(run) }
    });
    waited.unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()))
}

/// The next command of the first finding of a name.
#[track_caller]
fn next(run: &Run, name: &str) -> String {
    let json = run.json();
    let findings = json["cluster"]["findings"].as_array().expect("findings");
    let finding = findings.iter().find(|finding| finding["name"] == name);
    let finding = finding.unwrap_or_else(|| panic!("no {name}: {run}"));
    finding["next"].as_str().expect("a command").to_owned()
}

/// Three members whose peers know them by names.
fn by_names(bins: &EtcdBins, namespace: &Namespace) -> (Cluster, Vec<(String, IpAddr)>) {
    let network = Loopback::reserve();
    let names: Vec<(String, IpAddr)> = (0..3)
        .map(|i| (format!("master-{i}.{DOMAIN}"), network.ip(i)))
        .collect();
    know(namespace, &names);
    let mut spec = ClusterSpec::new(bins, 3).fast();
    spec.network = Some(network);
    spec.domain = Some(DOMAIN.to_owned());
    (Cluster::start(spec), names)
}

fn know(namespace: &Namespace, names: &[(String, IpAddr)]) {
    namespace.names(names.iter().map(|(name, ip)| (name.as_str(), *ip)));
}

/// No name resolves any more. Members that are connected keep working; one that is restarted finds no peer, all
/// together no leader; and once the names are back all is well by itself.
#[test]
fn names_of_all_members_that_stop_resolving_are_found() {
    let Some(namespace) =
        namespace::enter("disasters::names_of_all_members_that_stop_resolving_are_found")
    else {
        return;
    };
    for bins in require_turn() {
        let (mut cluster, names) = by_names(bins, &namespace);
        let run = look(&cluster, &[]);
        assert_eq!(found(&run), [], "{run}");

        know(&namespace, &[]);
        let run = look(&cluster, &[]);
        let lost: Vec<_> = (0..3)
            .map(|i| pair("name-unresolved", cluster.name(i)))
            .collect();
        let mut seen = found(&run);
        seen.sort();
        assert_eq!(seen, lost, "{run}");
        for (name, _) in &names {
            assert!(
                run.stdout.contains(&format!("getent ahosts {name}")),
                "{run}"
            );
        }
        cluster.etcdctl_ok(&["put", "/without-names", "it"]);

        // All nodes are shut down, and started together.
        for i in 0..3 {
            cluster.stop(i);
        }
        cluster.relaunch_stopped();
        let run = until("no leader", &cluster, &[], |run| {
            let told = &run.stdout;
            told.contains("cluster-unreachable") || told.contains("no-quorum")
        });
        assert_eq!(run.status, Some(11), "{run}");

        know(&namespace, &names);
        cluster.wait_healthy();
        until("all to be well", &cluster, &[], |run| run.status == Some(0));
        let kept = cluster.etcdctl_ok(&["get", "/without-names", "--print-value-only"]);
        assert_eq!(kept.trim(), "it");
        assert_same_data(&cluster);
    }
}

/// One name is gone, or leads to another machine, for good: the member gets an address instead.
#[test]
fn the_name_of_one_member_that_stops_resolving_is_found() {
    let Some(namespace) =
        namespace::enter("disasters::the_name_of_one_member_that_stops_resolving_is_found")
    else {
        return;
    };
    for bins in require_turn() {
        let (mut cluster, mut names) = by_names(bins, &namespace);
        let (name, ip) = names[1].clone();
        names[1].1 = "192.0.2.9".parse().expect("an address");
        know(&namespace, &names);
        let run = look(&cluster, &[]);
        assert_eq!(
            found(&run),
            [pair("name-resolves-elsewhere", "master-1")],
            "{run}"
        );
        assert!(run.stdout.contains("192.0.2.9"), "{run}");

        names.remove(1);
        know(&namespace, &names);
        let run = look(&cluster, &[]);
        assert_eq!(found(&run), [pair("name-unresolved", "master-1")], "{run}");
        assert_eq!(
            next(&run, "name-unresolved"),
            format!("getent ahosts {name}")
        );

        let url = format!("https://{ip}:2380");
        let dry = [
            "member-update",
            "master-1",
            "--peer-urls",
            &url,
            "--dry-run",
        ];
        member(&cluster, &dry).expect(0);
        member(&cluster, &dry[..4]).expect(0);
        cluster.restart(1);
        cluster.wait_healthy();
        until("all to be well", &cluster, &[], |run| run.status == Some(0));
        assert!(listed(&cluster).contains(&("master-1".into(), url, false)));
        cluster.etcdctl_ok(&["put", "/after", "it"]);
        assert_same_data(&cluster);
    }
}

/// Three members at addresses that can be taken away.
fn at_addresses(bins: &EtcdBins, namespace: &Namespace) -> Cluster {
    let network = Loopback::of_machines();
    for i in 0..3 {
        namespace.add_address(network.ip(i));
    }
    let mut spec = ClusterSpec::new(bins, 3).fast();
    spec.network = Some(network);
    Cluster::start(spec)
}

/// A member's machine comes back with another address, its disk whole.
fn moves(cluster: &mut Cluster, namespace: &Namespace, i: usize) {
    cluster.kill(i);
    let old = cluster.ip(i);
    let new = cluster.readdress(i);
    namespace.add_address(new);
    namespace.remove_address(old);
}

/// One member's address has changed: it says so on its own node, with the command that repairs it.
#[test]
fn a_changed_address_of_one_member_is_found() {
    let Some(namespace) = namespace::enter("disasters::a_changed_address_of_one_member_is_found")
    else {
        return;
    };
    for bins in require_turn() {
        let mut cluster = at_addresses(bins, &namespace);
        let old = cluster.ip(1);
        let everyone = cluster.initial_cluster();
        moves(&mut cluster, &namespace, 1);
        // Its own machine has its address, and not the others'.
        let others = [0, 2].map(|i| cluster.ip(i));
        cluster.launch(1, &everyone, "existing");
        // etcd gives up a write that waits for a leader that is gone; the next one counts.
        let put = ["put", "/while-away", "it", "--command-timeout=30s"];
        let written = wait_for("a write without the third", Duration::from_secs(60), || {
            let output = cluster.etcdctl(&put);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then_some(()).ok_or(said)
        });
        written.unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
        let urls = others.map(|ip| format!("https://{ip}:2379")).join(",");
        let more = ["--endpoints", &urls, "--node-name", "master-1"];
        let run = look(&cluster, &more);
        let names = found(&run);
        assert!(
            names.contains(&pair("peer-url-not-local", "master-1")),
            "{run}"
        );
        assert!(run.stdout.contains(&old.to_string()), "{run}");
        let next = next(&run, "peer-url-not-local");
        assert!(next.contains("member-update"), "{next}");
        let url = cluster.peer_url(1);
        member(
            &cluster,
            &["member-update", "master-1", "--peer-urls", &url],
        )
        .expect(0);
        cluster.wait_healthy();
        until(
            "all to be well",
            &cluster,
            &["--node-name", "master-1"],
            |run| run.status == Some(0),
        );
        assert_same_data(&cluster);
    }
}

/// Every member's address has changed: no member finds another. One becomes its own cluster
/// at its new address, from its own disk, and the others join it: nothing that was written is lost.
#[test]
fn changed_addresses_of_all_members_are_found() {
    let Some(namespace) = namespace::enter("disasters::changed_addresses_of_all_members_are_found")
    else {
        return;
    };
    for bins in require_turn() {
        let mut cluster = at_addresses(bins, &namespace);
        let data = Bulk::new(500, 1000);
        data.write(&cluster);
        let everyone = cluster.initial_cluster();
        for i in 0..3 {
            moves(&mut cluster, &namespace, i);
        }
        for i in 1..3 {
            cluster.launch(i, &everyone, "existing");
        }
        // The first is a kubeadm node, whose manifest its operator has given the new address.
        let root = node::make(&cluster, 0, &NodeOptions::kubeadm());
        let socket = root.join("run/containerd");
        std::fs::create_dir_all(&socket).expect("a folder");
        std::os::unix::fs::symlink("../crio/crio.sock", socket.join("containerd.sock"))
            .expect("a link");
        let bench = NodeBench::adopt(&mut cluster, 0, |_| {});
        let own = cluster.client_url(0);
        let on_node = |status: i32, args: &[&str]| {
            let root = root.to_str().expect("UTF-8");
            let global = [
                "--root",
                root,
                "--node-name",
                "master-0",
                "--endpoints",
                &own,
            ];
            let env = [("ETCD_DR_DETACH", "never".to_owned())];
            run(&[&global[..], args].concat(), &env).expect(status)
        };
        let told = on_node(11, &["verify", "--cluster"]);
        assert!(told.stdout.contains("[cluster-unreachable]"), "{told}");
        for i in 1..3 {
            cluster.kill(i);
        }

        let url = cluster.peer_url(0);
        let dir = cluster.data_dir(0).to_str().expect("UTF-8").to_owned();
        let from = [
            "restore",
            "--from-data-dir",
            &dir,
            "--peer-urls",
            &url,
            "--wait",
            "60s",
            "--yes",
        ];
        // The others' old addresses are in a network that is gone: nothing answers there.
        let told = on_node(5, &from);
        assert!(told.stderr.contains("[other-members-unknown]"), "{told}");
        let allowed = [&from[..], &["--allow", "other-members-unknown"]].concat();
        let told = on_node(0, &allowed);
        assert!(told.stdout.contains("accepts writes"), "{told}");
        cluster.wait_member(0);
        assert_eq!(listed(&cluster), [("master-0".to_owned(), url, false)]);
        assert_eq!(data.count_present(&cluster), data.keys);

        for i in 1..3 {
            let old = cluster.data_dir(i).join("member");
            let aside = cluster.scratch().join(format!("old-{i}"));
            std::fs::rename(&old, &aside).expect("setting old data aside");
            let (name, url) = (cluster.name(i).to_owned(), cluster.peer_url(i));
            let mut adding = Adding::start(&cluster, &[&name, "--peer-urls", &url]);
            let _reaper = Reaper(adding.pid());
            let initial_cluster = adding.initial_cluster();
            cluster.launch(i, &initial_cluster, "existing");
            let (status, said) = adding.end();
            assert_eq!(status, Some(0), "{said}\n{}", cluster.logs());
        }
        cluster.wait_healthy();
        let run = look(&cluster, &[]);
        assert_eq!(found(&run), [], "{run}");
        assert_eq!(data.count_present(&cluster), data.keys);
        assert_same_data(&cluster);
        drop(bench);
    }
}

/// The clock of one member is half a minute ahead: seen in what the members themselves serve.
#[test]
fn a_clock_that_is_ahead_is_found() {
    let Some(qemu) = bins::skewed() else { return };
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        let program = cluster.scratch().join("etcd-ahead");
        qemu.write(&program, &bins.etcd, 30);
        cluster.kill(2);
        cluster.run_by(2, &program);
        cluster.restart(2);
        let run = until("the skew to be told", &cluster, &[], |run| {
            run.stdout.contains("\"clock-skew\"")
        });
        assert_eq!(found(&run), [pair("clock-skew", "")], "{run}");
        let apart = run.json()["cluster"]["clockSpread"]["milliseconds"].as_u64();
        let apart = apart.expect("a spread");
        assert!((25_000..=35_000).contains(&apart), "{run}");
        assert_eq!(next(&run, "clock-skew"), "on master-2: chronyc tracking");
    }
}
