//! What the operator typed or configured wrongly, and what a node refuses: the message, the name
//! and the next command to type.

use std::path::Path;

use crate::golden;
use crate::sample_stores::Shelf;
use testbench::golden::{Placeholders, run};
use testbench::node::generator;
use testbench::process::expect_success;

/// Too few files let no runtime start, and each failure has a misleading cause.
#[test]
fn a_process_that_may_open_few_files_says_so() {
    let shelf = Shelf::new();
    for (limit, status) in [(5, 2), (12, 2), (63, 2), (64, 0)] {
        let script = format!("ulimit -n {limit}; exec \"$0\" list \"$1\"");
        let ran = std::process::Command::new("bash")
            .args(["-c", &script])
            .arg(testbench::golden::binary())
            .arg(shelf.store())
            .output()
            .expect("running bash");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(status), "{limit}: {said}");
        let named = said.contains(&format!("may open {limit} files, and needs at least 64"));
        assert_eq!(named, status != 0, "{limit}: {said}");
    }
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    let none = Placeholders::default();
    let cases: &[(&str, &[&str])] = &[
        ("usage-nothing", &[]),
        ("usage-command", &["bakcup"]),
        ("usage-option", &["backup", "--if-older-then", "1h"]),
        ("usage-global-option", &["--outptu", "json", "list"]),
        ("usage-value", &["backup", "--if-older-than"]),
        ("usage-duration", &["list", "--stale-after", "tomorrow"]),
        ("usage-negative-duration", &["list", "--stale-after=-2h"]),
        ("usage-size", &["backup", "--max-rate", "0"]),
        ("usage-enum", &["--profile", "openshit", "backup"]),
        ("usage-conflict", &["backup", "/store", "--flat", "/flat"]),
        ("usage-verify-nothing", &["verify"]),
        ("usage-verify-all-and-one", &["verify", "--all", "latest"]),
        ("usage-man", &["man", "bakcup"]),
        ("usage-member-urls", &["member-add", "m3"]),
        (
            "usage-member-url",
            &["member-add", "m3", "--peer-urls", "10.0.0.3:2380"],
        ),
        (
            "usage-member-allow",
            &["member-remove", "m3", "--allow", "would-loose-quorum"],
        ),
        ("usage-shell", &["completions", "tcsh"]),
    ];
    for (name, args) in cases {
        let run = golden(name, args, &none).expect(2);
        assert_eq!(run.stdout, "", "{run}");
    }
}

#[test]
fn an_unknown_check_is_refused_with_the_nearest_name() {
    let shelf = Shelf::new();
    let (store, hide) = (shelf.store_text(), shelf.placeholders());
    let with = |check| {
        [
            "--root",
            shelf.dir().to_str().expect("UTF-8"),
            "backup",
            &store,
            "--allow",
            check,
        ]
        .map(str::to_owned)
    };
    for (name, check) in [("check-near", "etcd-alarms"), ("check-far", "everything")] {
        let args = with(check);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        golden(name, &args, &hide).expect(2);
    }
}

#[test]
fn a_wrong_configuration_file_is_a_usage_error() {
    let shelf = Shelf::new();
    let path = shelf.dir().join("config.toml");
    let path = path.to_str().expect("UTF-8");
    let hide = shelf.placeholders();
    for (name, text) in [
        ("config-key", "stor = \"/backups\"\n"),
        ("config-section-key", "[backup]\nstall-time = \"1m\"\n"),
        ("config-far-key", "colour = true\n"),
        ("config-type", "endpoints = \"https://10.0.0.1:2379\"\n"),
        ("config-enum", "profile = \"k3s\"\n"),
        ("config-syntax", "store = /backups\n"),
        ("config-duration", "[backup]\nstall-timeout = \"long\"\n"),
    ] {
        std::fs::write(path, text).expect("a file");
        golden(name, &["--config", path, "list"], &hide).expect(2);
    }
    std::fs::remove_file(path).expect("removing it");
    golden("config-absent", &["--config", path, "list"], &hide).expect(2);
    golden(
        "config-absent-json",
        &["--config", path, "list", "-o", "json"],
        &hide,
    )
    .expect(2);
    // The default file is the node's, and is read just as strictly.
    let root = shelf.dir().join("root");
    std::fs::create_dir_all(root.join("etc/etcd-dr")).expect("a root");
    std::fs::write(root.join("etc/etcd-dr/config.toml"), "stoer = 1\n").expect("a file");
    golden(
        "config-default",
        &["--root", root.to_str().expect("UTF-8"), "list"],
        &hide,
    )
    .expect(2);
}

pub(crate) fn node(at: &Path, args: &[&str]) -> String {
    let output = generator()
        .arg(at)
        .args(args)
        .output()
        .expect("running python3");
    expect_success("make-node.py", &output);
    at.to_str().expect("UTF-8").to_owned()
}

/// Nothing listens on these addresses.
pub(crate) const NODES: &str = "master-0=127.1.9.1,master-1=127.1.9.2,master-2=127.1.9.3";

#[test]
fn a_node_that_cannot_be_backed_up_is_refused() {
    let shelf = Shelf::new();
    let (store, hide) = (shelf.store_text(), shelf.placeholders());
    let root = node(&shelf.dir().join("openshift"), &["--nodes", NODES]);
    let backup = ["--progress", "never", "--root", &root, "backup", &store];
    let named = |name| [&["--node-name", name], &backup[..]].concat();
    golden("node-unknown", &named("master-7"), &hide).expect(5);
    // The tree's keys are placeholders, so that TLS would stop before the network does.
    let plain = ["--endpoints", "http://127.1.9.1:2379"];
    let down = [&plain[..], &named("master-0")].concat();
    golden("etcd-down", &down, &hide).expect(4);
    let json = [&down[..], &["-o", "json"]].concat();
    golden("etcd-down-json", &json, &hide).expect(4);
    assert_eq!(
        std::fs::read_dir(&store).expect("the store").count(),
        1,
        "only the lock"
    );

    // The debug pod's own file system, with the node's mounted in it.
    let pod = shelf.dir().join("pod");
    std::fs::create_dir(&pod).expect("a root");
    std::os::unix::fs::symlink(&root, pod.join("host")).expect("a mount, nearly");
    let pod = pod.to_str().expect("UTF-8");
    golden("debug-pod", &["--root", pod, "backup", &store], &hide).expect(2);

    // Nothing at all.
    let empty = shelf.dir().join("empty");
    std::fs::create_dir(&empty).expect("a root");
    let empty = empty.to_str().expect("UTF-8");
    golden("no-endpoint", &["--root", empty, "backup", &store], &hide).expect(2);
    let bare = [
        "--root",
        empty,
        "--endpoints",
        "https://127.1.9.1:2379",
        "backup",
        &store,
    ];
    golden("no-ca", &bare, &hide).expect(2);
    let half = ["--cert", "/absent.crt"];
    golden("half-identity", &[&half[..], &bare[..]].concat(), &hide).expect(2);

    let root = node(
        &shelf.dir().join("kubeadm"),
        &["--profile", "kubeadm", "--nodes", NODES],
    );
    let manifests = Path::new(&root).join("etc/kubernetes/manifests");
    std::fs::remove_file(manifests.join("etcd.yaml")).expect("no stacked etcd");
    let api = manifests.join("kube-apiserver.yaml");
    let text = std::fs::read_to_string(&api).expect("a manifest");
    let text: String = text
        .lines()
        .map(|line| match line.find("--etcd-servers=") {
            Some(at) => {
                let quote = if line.ends_with('"') { "\"" } else { "" };
                format!(
                    "{}--etcd-servers=https://192.0.2.7:2379{quote}\n",
                    &line[..at]
                )
            }
            None => format!("{line}\n"),
        })
        .collect();
    std::fs::write(&api, text).expect("a manifest");
    golden("external-etcd", &["--root", &root, "backup", &store], &hide).expect(5);
}

#[test]
fn a_locked_store_is_busy() {
    let shelf = Shelf::new();
    let (store, hide) = (shelf.store_text(), shelf.placeholders());
    let root = node(&shelf.dir().join("openshift"), &["--nodes", NODES]);
    let lock = shelf.store().join(".etcd-dr.lock");
    let held = std::fs::File::create(&lock).expect("a lock file");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("locking it");
    std::fs::write(&lock, "4242 backup\n").expect("who holds it");
    let args = [
        "--progress",
        "never",
        "--root",
        &root,
        "--node-name",
        "master-0",
        "backup",
        &store,
    ];
    golden("busy", &args, &hide).expect(7);
    golden("busy-json", &[&args[..], &["-o", "json"]].concat(), &hide).expect(7);
    drop(held);
    run(&args, &[]).expect(2);
    assert_eq!(std::fs::read_dir(&store).expect("the store").count(), 1);
}
