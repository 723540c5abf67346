//! Starts a real three-member etcd with mutual TLS and scratch OpenShift nodes around its members,
//! the first behind a stand-in kubelet and container runtime, prints how to reach it as shell
//! assignments, and ends with its standard input. A line `lose` there causes the disaster: the
//! other two members and their disks are lost, and the first one's data, too. Then it prints
//! `DEMO_LOST`.
//!
//! `scripts/demo.sh` runs it. It uses the test suites' bench, so that there is one way to start a
//! cluster. Argument: how many keys to write in addition to the OpenShift objects.

use std::io::{BufRead, Write};

use testbench::bins;
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::kube::OpenShift;
use testbench::node::{self, NodeOptions};
use testbench::node_bench::NodeBench;

fn main() {
    let keys = std::env::args()
        .nth(1)
        .map_or(5000, |text| text.parse().expect("a number of keys"));
    let Some(bins) = bins::require("") else {
        std::process::exit(1);
    };
    eprintln!("starting three members of etcd {}", bins.version);
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 3));
    eprintln!("writing {keys} keys, the ClusterVersion and the ClusterOperators");
    Bulk::new(keys, 1024).write(&cluster);
    OpenShift::default().write(&cluster);
    node::make_all(&cluster, &NodeOptions::default());
    eprintln!("handing the first member to its node's kubelet");
    let bench = NodeBench::adopt(&mut cluster, 0, |_| {});
    cluster.wait_member(0);
    say("DEMO_ETCD_VERSION", &bins.version);
    say("DEMO_NODE", cluster.name(0));
    say("DEMO_ROOT", &cluster.node_root(0).to_string_lossy());
    say("DEMO_ETCDCTL", &bins.etcdctl.to_string_lossy());
    if let Some(etcdutl) = &bins.etcdutl {
        say("DEMO_ETCDUTL", &etcdutl.to_string_lossy());
    }
    for (name, value) in cluster.client_env() {
        say(&format!("DEMO_{name}"), &value);
    }
    say("DEMO_READY", "1");

    // Ends with the script that holds the other end, however that ends.
    for line in std::io::stdin().lock().lines() {
        match line.as_deref() {
            Ok("lose") => lose(&mut cluster, &bench),
            Ok(other) => eprintln!("no such request: {other}"),
            Err(error) => {
                eprintln!("reading stdin: {error}");
                break;
            }
        }
    }
    bench.stop();
    drop(cluster);
}

/// Two of three members and all data.
fn lose(cluster: &mut Cluster, bench: &NodeBench) {
    for i in 1..cluster.size() {
        cluster.kill(i);
        std::fs::remove_dir_all(cluster.data_dir(i)).expect("losing a disk");
    }
    bench.take_out("etcd-pod.yaml");
    bench.settle();
    std::fs::remove_dir_all(bench.root().join("var/lib/etcd/member")).expect("losing the data");
    bench.put_back("etcd-pod.yaml");
    say("DEMO_LOST", "1");
}

fn say(name: &str, value: &str) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{name}={}", quoted(value))
        .and_then(|()| stdout.flush())
        .expect("writing to stdout");
}

/// A shell word that means this text.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
