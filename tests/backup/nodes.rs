//! The kinds of nodes: OpenShift of several releases, kubeadm, bare, and those that only look
//! like one.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Node, assert_only_good, listed, text};
use testbench::bins;
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden;
use testbench::kube::OpenShift;
use testbench::node::NodeOptions;
use testbench::process::expect_success;

fn start(members: usize) -> Option<Cluster> {
    let bins = bins::require("3.5")?;
    let cluster = Cluster::start(ClusterSpec::new(&bins, members).fast());
    Bulk::new(20, 500).write(&cluster);
    Some(cluster)
}

fn archive_names(archive: &str) -> Vec<String> {
    let output = Command::new("tar").args(["-tzf", archive]).output();
    expect_success("tar -tzf", &output.expect("running tar"))
        .lines()
        .map(|line| line.trim_end_matches('/').to_owned())
        .collect()
}

#[test]
fn every_layout_of_openshift_is_backed_up() {
    let Some(cluster) = start(3) else { return };
    OpenShift::default().write(&cluster);
    let cases = [
        (0, "4.6", "json", vec![]),
        (1, "4.16", "json", vec!["--encryption", "--on-prem"]),
        (2, "4.22", "yaml", vec!["--stale", "none"]),
    ];
    for (i, layout, form, more) in cases {
        let options = NodeOptions {
            certs_layout: layout,
            manifest_form: form,
            ..NodeOptions::default()
        };
        let node = Node::of(&cluster, i, &options.with(more));
        let store = cluster.scratch().join(format!("store-{i}"));
        let manifest = node.good_backup(&store, &[]);
        assert_eq!(manifest["node"]["profile"], "openshift");
        assert_eq!(manifest["node"]["name"], cluster.name(i));
        assert_eq!(manifest["member"]["name"], cluster.name(i));
        let components = manifest["components"].as_array().expect("components");
        assert_eq!(components.len(), 4);
        assert!(
            components
                .iter()
                .all(|c| c["revision"].is_u64() && c["image"].is_string())
        );
        node.run(&["verify", "--store", text(&store), "latest"])
            .expect(0);
    }
}

#[test]
fn a_kubeadm_node_is_backed_up() {
    let Some(mut cluster) = start(1) else { return };
    let node = Node::of(&cluster, 0, &NodeOptions::kubeadm());
    let store = cluster.scratch().join("store");
    // Nothing need be configured here: etcd's manifest names the member.
    let args = [
        "--root",
        text(&node.root),
        "backup",
        text(&store),
        "-o",
        "json",
    ];
    let run = golden::run(&args, &[]).expect(0);
    let manifest = &run.json()["manifest"];
    assert_eq!(manifest["quality"]["state"], "good", "{run}");
    assert_eq!(manifest["node"]["profile"], "kubeadm");
    assert_eq!(manifest["member"]["name"], "master-0");
    assert_eq!(manifest["cluster"]["ocpVersion"], serde_json::Value::Null);
    assert_only_good(&store, &["backup-1"], &run);
    let files = &listed(&store)["sets"][0]["files"];
    let names = archive_names(files["resources"].as_str().expect("an archive"));
    for name in [
        "manifests/etcd.yaml",
        "manifests/kube-apiserver.yaml",
        "pki/ca.key",
        "pki/etcd/ca.crt",
        "pki/etcd/healthcheck-client.key",
        "admin.conf",
        "controller-manager.conf",
    ] {
        assert!(
            names.iter().any(|there| there == name),
            "no {name} in {names:?}"
        );
    }
    assert!(names.iter().all(|name| !name.starts_with('/')), "{names:?}");
    node.run(&["verify", "--store", text(&store), "latest"])
        .expect(0);
    let environment = std::fs::read_to_string(store.join("backup-1/backup.env")).expect("a file");
    assert!(environment.starts_with("CREATED="), "{environment}");

    // The API server's etcd is elsewhere: nothing is guessed.
    let manifests = node.root.join("etc/kubernetes/manifests");
    let etcd = std::fs::read(manifests.join("etcd.yaml")).expect("etcd's manifest");
    std::fs::remove_file(manifests.join("etcd.yaml")).expect("no stacked etcd");
    let api = manifests.join("kube-apiserver.yaml");
    let stacked = std::fs::read_to_string(&api).expect("the API server's manifest");
    let line = stacked
        .lines()
        .find(|line| line.contains("--etcd-servers="))
        .expect("a flag");
    let start = line.find("--etcd-servers=").expect("a flag");
    let external = format!("{}--etcd-servers=https://192.0.2.7:2379\"", &line[..start]);
    let external = if line.ends_with('"') {
        external
    } else {
        external.trim_end_matches('"').into()
    };
    std::fs::write(&api, stacked.replace(line, &external)).expect("an external etcd");
    let run = golden::run(&args, &[]).expect(5);
    for word in [
        "[external-etcd]",
        "https://192.0.2.7:2379",
        "kube-apiserver.yaml",
    ] {
        assert!(run.stderr.contains(word), "no {word:?} in {run}");
    }
    // With its address given, the backup can be taken nevertheless.
    let url = cluster.client_url(0);
    let told = [&args[..], &["--endpoints", &url, "--force"]].concat();
    golden::run(&told, &cluster.client_env()[1..]).expect(0);
    std::fs::write(manifests.join("etcd.yaml"), etcd).expect("etcd's manifest");
    cluster.kill(0);
    golden::run(&args, &[]).expect(4);
}

#[test]
fn kms_plugins_and_other_etcds_are_warned_of() {
    let Some(cluster) = start(1) else { return };
    let node = Node::of(&cluster, 0, &NodeOptions::kubeadm());
    let store = cluster.scratch().join("store");
    let api = node
        .root
        .join("etc/kubernetes/manifests/kube-apiserver.yaml");
    let text_of = std::fs::read_to_string(&api).expect("the API server's manifest");
    let line = text_of
        .lines()
        .find(|line| line.contains("--etcd-servers="));
    let line = line.expect("a flag");
    let more = |flag: &str| line.replace("--etcd-servers=", flag);
    let config = node.root.join("etc/kubernetes/pki/kms.yaml");
    let kms = "resources:\n- resources: [secrets]\n  providers:\n  - kms: {name: vault}\n";
    std::fs::write(&config, kms).expect("a configuration");
    let start = line.find("--etcd-servers=").expect("a flag");
    let end = if line.ends_with('"') { "\"" } else { "" };
    let encryption = format!(
        "{}--encryption-provider-config=/etc/kubernetes/pki/kms.yaml{end}",
        &line[..start]
    );
    let lines = [
        line,
        &more("--etcd-servers-overrides=/events#"),
        &encryption,
    ];
    std::fs::write(&api, text_of.replace(line, &lines.join("\n"))).expect("a manifest");
    let args = [
        "--root",
        text(&node.root),
        "backup",
        text(&store),
        "-o",
        "json",
    ];
    let run = golden::run(&args, &[]).expect(0);
    for name in ["[partial-cluster]", "[kms-encryption]"] {
        assert!(run.stderr.contains(name), "no {name} in {run}");
    }
    let manifest = &run.json()["manifest"];
    assert_eq!(manifest["otherEtcds"][0]["resource"], "/events", "{run}");
    assert_eq!(manifest["kmsPlugins"][0], "vault", "{run}");
    // A restore warns again.
    let dir = cluster.scratch().join("made");
    let args = [
        "restore",
        "latest",
        "--store",
        text(&store),
        "--data-dir",
        text(&dir),
    ];
    let run = golden::run(&args, &[]).expect(0);
    assert!(run.stderr.contains("[partial-cluster]"), "{run}");
}

#[test]
fn a_bare_etcd_is_backed_up_with_options_alone() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain().fast());
    Bulk::new(20, 500).write(&cluster);
    let scratch = cluster.scratch();
    let (root, store) = (scratch.join("root"), scratch.join("store"));
    std::fs::create_dir(&root).expect("a root");
    let url = cluster.client_url(0);
    let base = ["--root", text(&root), "backup", text(&store), "-o", "json"];
    let run = golden::run(&base, &[]).expect(2);
    assert!(
        run.stderr.contains("--endpoints"),
        "the hint names the flag: {run}"
    );

    let flags = [&base[..], &["--endpoints", &url]].concat();
    let run = golden::run(&flags, &[]).expect(0);
    let manifest = &run.json()["manifest"];
    assert_eq!(manifest["node"]["profile"], "bare");
    assert_eq!(manifest["quality"]["state"], "good", "{run}");
    let kinds: Vec<_> = manifest["files"]
        .as_array()
        .expect("files")
        .iter()
        .map(|f| f["kind"].clone())
        .collect();
    assert_eq!(kinds, ["snapshot", "environment", "sums"]);
    golden::run(&["verify", "--store", text(&store), "latest"], &[]).expect(0);

    // The same from each other place, the nearer one winning.
    let nowhere = "http://127.0.0.1:1".to_owned();
    let config = scratch.join("config.toml");
    std::fs::write(
        &config,
        format!("endpoints = [{url:?}]\nstore = {:?}\n", text(&store)),
    )
    .expect("a file");
    let file = ["--root", text(&root), "--config", text(&config), "backup"];
    golden::run(&file, &[]).expect(0);
    golden::run(&file, &[("ETCDCTL_ENDPOINTS", nowhere.clone())]).expect(4);
    golden::run(&base, &[("ETCDCTL_ENDPOINTS", url.clone())]).expect(0);
    let both = [
        ("ETCDCTL_ENDPOINTS", nowhere.clone()),
        ("ETCD_DR_ENDPOINTS", url.clone()),
    ];
    golden::run(&base, &both).expect(0);
    golden::run(&flags, &[("ETCD_DR_ENDPOINTS", nowhere)]).expect(0);
    // Without a node it has no business with, `--root` may even be the machine's own.
    let own = [
        "--profile",
        "bare",
        "--endpoints",
        &url,
        "backup",
        text(&store),
    ];
    golden::run(&own, &[]).expect(0);
    assert_eq!(listed(&store)["sets"].as_array().map(Vec::len), Some(6));
}

#[test]
fn paths_of_pods_in_etcdctls_variables_are_found_on_the_host() {
    let Some(cluster) = start(3) else { return };
    OpenShift::default().write(&cluster);
    let node = Node::of(&cluster, 1, &NodeOptions::default());
    let store = cluster.scratch().join("store");
    let certs = "/etc/kubernetes/static-pod-certs";
    let leaf = format!("{certs}/secrets/etcd-all-certs/etcd-peer-master-1");
    let env = [
        ("ETCDCTL_ENDPOINTS", cluster.endpoints().join(",")),
        (
            "ETCDCTL_CACERT",
            format!("{certs}/configmaps/etcd-all-bundles/server-ca-bundle.crt"),
        ),
        ("ETCDCTL_CERT", format!("{leaf}.crt")),
        ("ETCDCTL_KEY", format!("{leaf}.key")),
    ];
    let args = node.args(&["backup", text(&store), "-o", "json"]);
    let run = golden::run(&args, &env).expect(0);
    let member = &run.json()["manifest"]["member"];
    assert_eq!(
        member["name"], "master-1",
        "of several endpoints the local one: {run}"
    );
    assert_eq!(member["endpoint"], cluster.client_url(1).as_str());
    let env = [&env[..3], &[("ETCDCTL_KEY", format!("{certs}/absent.key"))]].concat();
    let run = golden::run(&args, &env).expect(2);
    assert!(
        run.stderr.contains("ETCDCTL_KEY") && run.stderr.contains("absent.key"),
        "{run}"
    );
}

#[test]
fn odd_nodes_are_recognised() {
    let Some(cluster) = start(1) else { return };
    OpenShift::default().write(&cluster);
    let node = Node::of(&cluster, 0, &NodeOptions::default());
    let store = cluster.scratch().join("store");

    // A debug pod: the node's file system is below its own root.
    let pod = cluster.scratch().join("pod");
    std::fs::create_dir(&pod).expect("a root");
    std::os::unix::fs::symlink(&node.root, pod.join("host")).expect("a mount, nearly");
    let args = ["--root", text(&pod), "backup", text(&store)];
    let run = golden::run(&args, &[]).expect(2);
    let hint = format!("etcd-dr --root {} backup", pod.join("host").display());
    assert!(run.stderr.contains(&hint), "no {hint:?} in {run}");
    assert!(!store.exists(), "nothing is made: {run}");

    // Pacemaker owns etcd: a backup is harmless, but whoever restores it must know.
    let sign = "etc/kubernetes/static-pod-resources/etcd-certs/configmaps/external-etcd-pod";
    let sign = node.root.join(sign);
    std::fs::create_dir_all(&sign).expect("a folder");
    std::fs::write(sign.join("pod.yaml"), "{}").expect("a pod");
    let run = node.backup(&store, &[]).expect(0);
    assert!(run.stderr.contains("[two-node-fencing]"), "{run}");
    assert!(run.stderr.contains("Pacemaker"), "{run}");
    assert_only_good(&store, &["backup-1"], &run);
    std::fs::remove_dir_all(&sign).expect("removing the sign");
    let run = node.backup(&store, &[]).expect(0);
    assert_eq!(run.stderr, "");
}

#[test]
fn a_node_whose_name_is_not_known() {
    let Some(cluster) = start(1) else { return };
    OpenShift::default().write(&cluster);
    let node = Node::of(&cluster, 0, &NodeOptions::default());
    let store: PathBuf = cluster.scratch().join("store");
    let args = ["--root", text(&node.root), "backup", text(&store)];
    // The bench's addresses are no interface's, so that only a flag can tell.
    let run = golden::run(&args, &[]);
    if run.status == Some(0) {
        return;
    }
    assert_eq!(run.status, Some(5), "{run}");
    assert!(run.stderr.contains("--node-name"), "{run}");
    golden::run(&args, &[("ETCD_DR_NODE_NAME", "master-0".to_owned())]).expect(0);
    let wrong = [&args[..], &["--node-name", "master-7"]].concat();
    let run = golden::run(&wrong, &[]);
    assert_ne!(run.status, Some(0), "{run}");
    assert!(run.stderr.contains("master-7"), "{run}");
    assert!(Path::new(&store).join("backup-1").is_dir());
}
