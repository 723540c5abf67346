//! docs/runbook-members.md.

use super::stage::{Stage, Trio};
use super::typed::{Typed, section};
use crate::node::{KEYS, etcd};
use crate::project;
use testbench::bulk::Bulk;
use testbench::certs::Validity;
use testbench::node::NodeOptions;

fn page(heading: &str) -> Vec<Typed> {
    section(&project().join("docs/runbook-members.md"), heading)
}

/// The nodes whose addresses are others now, and off; their manifests and certificates are made
/// for those.
fn readdressed(trio: &mut Trio, stage: &mut Stage, nodes: &[usize]) {
    // The first goes last, so that no log is longer than its own.
    for i in nodes.iter().rev() {
        trio.off(*i);
    }
    for i in nodes {
        let old = trio.cluster.ip(*i).to_string();
        let new = trio.cluster.readdress(*i).to_string();
        stage.word(&format!("10.0.0.{}", 11 + i), &new);
        let manifest = "etc/kubernetes/manifests/etcd.yaml";
        let manifest = trio.cluster.node_root(*i).join(manifest);
        let text = std::fs::read_to_string(&manifest).expect("a manifest");
        std::fs::write(&manifest, text.replace(&old, &new)).expect("a manifest");
    }
}

#[test]
fn one_node_has_another_address() {
    let Some(bins) = etcd("3.5") else { return };
    let mut trio = Trio::start(&bins, &NodeOptions::kubeadm());
    let mut stage = Stage::of(&trio.cluster);
    readdressed(&mut trio, &mut stage, &[2]);
    stage.play(&page("One member's address has changed"), |typed| {
        if typed.line.starts_with("systemctl start") {
            trio.on(2, None);
            trio.cluster.wait_member(2);
        }
    });
    trio.assert_whole();
}

#[test]
fn all_nodes_have_other_addresses() {
    let Some(bins) = etcd("3.5") else { return };
    let mut trio = Trio::start(&bins, &NodeOptions::kubeadm());
    let mut stage = Stage::of(&trio.cluster);
    readdressed(&mut trio, &mut stage, &[0, 1, 2]);
    stage.play(&page("Every member's address has changed"), |typed| {
        let words: Vec<&str> = typed.line.split(' ').collect();
        let root = trio.cluster.node_root(number(&typed.node)).to_owned();
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        match words.as_slice() {
            ["mv", from, to] => std::fs::rename(at(from), at(to)).expect("moving data"),
            ["systemctl", "start", "kubelet"] => {
                trio.on(0, None);
                trio.cluster.wait_member(0);
            }
            _ => {}
        }
    });
    let keys = Bulk::new(KEYS, 64).count_present(&trio.cluster);
    assert_eq!(keys, KEYS, "nothing is lost");
}

/// The node that a line is about, by its number.
fn number(node: &str) -> usize {
    node[node.len() - 1..].parse().expect("a number")
}

#[test]
fn trouble_that_leaves_the_quorum() {
    let Some(bins) = etcd("3.5") else { return };
    let mut trio = Trio::start(&bins, &NodeOptions::default());
    let stage = Stage::of(&trio.cluster);

    // All were off; they come back one after the other.
    (0..3).for_each(|i| trio.off(i));
    stage.play(
        &page("All nodes were shut down and started together"),
        |typed| {
            if typed.line.starts_with("systemctl start") {
                trio.on(number(&typed.node), None);
            } else if typed.status == 0 {
                (0..3).for_each(|i| trio.cluster.wait_member(i));
            }
        },
    );

    // A certificate that has ended.
    let renew = |trio: &Trio, i: usize, validity| {
        let cluster = &trio.cluster;
        let certs = cluster.certs().expect("with TLS");
        let name = cluster.name(i);
        let common = format!("system:etcd-server:{name}");
        let leaf =
            certs
                .ca()
                .leaf_valid(&common, "system:etcd-servers", &[cluster.ip(i)], validity);
        leaf.write(certs.dir(), &format!("etcd-serving-{name}"));
    };
    renew(&trio, 1, Validity::expired());
    stage.play(&page("Certificates have expired"), |typed| {
        if typed.line.starts_with("oc delete secret") {
            renew(&trio, 1, Validity::days(900));
        } else if typed.status == 0 && typed.line.contains("--cluster") {
            trio.cluster.wait_member(1);
        }
    });

    // A name that is gone.
    let moved = ["member", "list", "-w", "json"];
    let members: serde_json::Value =
        serde_json::from_str(&trio.cluster.etcdctl_ok(&moved)).expect("JSON");
    let id = members["members"]
        .as_array()
        .expect("members")
        .iter()
        .find(|member| member["name"] == "master-1")
        .and_then(|member| member["ID"].as_u64())
        .expect("an id");
    let url = "--peer-urls=https://master-1.invalid:2380";
    trio.cluster
        .etcdctl_ok(&["member", "update", &format!("{id:x}"), url]);
    stage.play(&page("Names do not resolve"), |_| {});

    // A data directory that is damaged.
    trio.bench(2).take_out("etcd-pod.yaml");
    trio.bench(2).settle();
    let database = trio.cluster.data_dir(2).join("member/snap/db");
    let mut bytes = std::fs::read(&database).expect("a database");
    let middle = bytes.len() / 2;
    bytes[..4096].fill(0xa5);
    bytes[4096..middle].fill(0xa5);
    std::fs::write(&database, bytes).expect("a database");
    trio.bench(2).put_back("etcd-pod.yaml");
    let everyone = trio.first(3);
    let join = |trio: &mut Trio, typed: &Typed| {
        let machine_is_on = typed.line.contains("member-add --join --yes");
        if typed.line.contains("member-add --join --dry-run") || machine_is_on {
            trio.on(2, Some(everyone.clone()));
        }
    };
    stage.play(&page("A bad data directory"), |typed| {
        join(&mut trio, typed)
    });
    trio.assert_whole();

    // A machine that is lost with its disk.
    trio.off(2);
    trio.cluster.wipe(2);
    stage.play(&page("One member is lost"), |typed| join(&mut trio, typed));
    trio.assert_whole();
}
