//! The runbook's line for pipelines, typed as printed there: its statuses are those that are promised.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use testbench::bins;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::binary;
use testbench::kube::OpenShift;
use testbench::node::{self, NodeOptions};

/// The line, which the pages agree on.
fn line() -> String {
    let page = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::fs::read_to_string(path).expect("a page")
    };
    let runbook = page("docs/runbook.md");
    let typed = runbook
        .lines()
        .filter_map(|line| line.trim().strip_prefix("master-0# "));
    let mut lines = typed.filter(|line| line.contains("--if-older-than") && line.contains("json"));
    let line = lines.next().expect("a line to type").to_owned();
    for other in ["README.md", "docs/interface.md"] {
        assert!(page(other).contains(&format!("`{line}`")), "{other}");
    }
    line
}

/// What a shell makes of it on a node: the status and the document.
fn typed(root: &Path, store: &Path) -> (Option<i32>, Value) {
    let dir = binary().parent().expect("a folder");
    let paths = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command.env_clear();
    command.env("PATH", format!("{}:{paths}", dir.display()));
    command
        .env("ETCD_DR_ROOT", root)
        .env("ETCD_DR_STORE", store);
    command.env("ETCD_DR_NODE_NAME", "master-0");
    let output = command.arg("-c").arg(line()).output().expect("running sh");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|error| panic!("{error}: {said}"));
    (output.status.code(), document)
}

/// Makes the newest backup a year older.
fn age(store: &Path) {
    let path = store.join("latest-backup/backup.json");
    let text = std::fs::read_to_string(&path).expect("a Manifest");
    let mut manifest: Value = serde_json::from_str(&text).expect("JSON");
    let created = manifest["created"].as_str().expect("a time");
    let year: u32 = created[..4].parse().expect("a year");
    manifest["created"] = format!("{}{}", year - 1, &created[4..]).into();
    std::fs::write(path, manifest.to_string()).expect("writing it");
}

#[test]
fn the_line_for_pipelines_exits_as_promised() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    OpenShift::default().write(&cluster);
    let root = node::make(&cluster, 0, &NodeOptions::default());
    let store = cluster.scratch().join("store");
    let (status, document) = typed(&root, &store);
    assert_eq!(
        (status, &document["result"]),
        (Some(0), &"taken".into()),
        "{document}"
    );
    let (status, document) = typed(&root, &store);
    assert_eq!(
        (status, &document["result"]),
        (Some(0), &"young-enough".into()),
        "{document}"
    );

    // It is old, and the cluster fails the checks of a new one.
    age(&store);
    let rolling = OpenShift {
        progressing: vec!["kube-apiserver"],
        ..OpenShift::default()
    };
    rolling.write(&cluster);
    let (status, document) = typed(&root, &store);
    assert_eq!(status, Some(5), "{document}");
    assert_eq!(
        document["error"]["refusals"][0], "operator-progressing",
        "{document}"
    );
    OpenShift::default().write(&cluster);

    let full = cluster.scratch().join("file");
    std::fs::write(&full, "").expect("a file");
    assert_eq!(typed(&root, &full).0, Some(6));
    cluster.kill(0);
    let (status, document) = typed(&root, &store);
    assert_eq!(status, Some(4), "{document}");
    assert_eq!(document["error"]["exitCode"], 4);
}
