//! Starts a real three-member etcd with mutual TLS and a scratch OpenShift node around its first
//! member, prints how to reach both as shell assignments, and ends with its standard input.
//!
//! `scripts/demo.sh` drives it; it shares the test suites' bench, so that there is one way to
//! start a cluster. Arguments: how many keys to write besides the OpenShift objects.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};

use support::bins;
use support::bulk::Bulk;
use support::cluster::{Cluster, ClusterSpec};
use support::kube::OpenShift;
use support::node::{self, NodeOptions};

fn main() {
    let keys = std::env::args()
        .nth(1)
        .map_or(5000, |text| text.parse().expect("a number of keys"));
    let Some(bins) = bins::require("") else {
        std::process::exit(1);
    };
    eprintln!("starting three members of etcd {}", bins.version);
    let cluster = Cluster::start(ClusterSpec::new(&bins, 3));
    eprintln!("writing {keys} keys, the ClusterVersion and the ClusterOperators");
    Bulk::new(keys, 1024).write(&cluster);
    OpenShift::default().write(&cluster);
    node::make_all(&cluster, &NodeOptions::default());

    let mut stdout = std::io::stdout();
    let mut say = |name: &str, value: &str| {
        writeln!(stdout, "{name}={}", quoted(value)).expect("writing to stdout");
    };
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
    stdout.flush().expect("writing to stdout");

    // Ends with the script that holds the other end, however that ends.
    let mut rest = Vec::new();
    if let Err(error) = std::io::stdin().read_to_end(&mut rest) {
        eprintln!("reading stdin: {error}");
    }
    drop(cluster);
}

/// A shell word that means this text.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
