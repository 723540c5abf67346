//! `backup --pin` and `backup --keep-…`: what follows a backup changes nothing of it.

use std::path::Path;

use serde_json::Value;

use crate::bench::{Node, listed, text};
use testbench::bins;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden;
use testbench::kube::OpenShift;
use testbench::node::NodeOptions;

#[test]
fn a_backup_prunes_once_it_is_taken_and_a_pinned_one_stays() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    OpenShift::default().write(&cluster);
    let node = Node::of(&cluster, 0, &NodeOptions::default());
    let store = cluster.scratch().join("store");
    let sets = || listed(&store)["sets"].as_array().expect("sets").clone();
    let names = || -> Vec<Value> { sets().iter().map(|set| set["name"].clone()).collect() };

    node.backup(&store, &["--pin"]).expect(0);
    node.backup(&store, &[]).expect(0);
    let third = node.backup(&store, &["--keep-last", "1"]).expect(0);
    let removed = &third.json()["pruned"]["removed"];
    assert_eq!(*removed, serde_json::json!(["backup-2"]), "{third}");
    assert_eq!(names(), ["backup-1", "backup-3"]);
    assert_eq!(sets()[0]["pinned"], true);
    node.run(&["verify", "--all", "--store", text(&store)])
        .expect(0);

    // What cannot be removed is told by its own status, and the backup exists nevertheless. The
    // removal's calls come last.
    let counted = cluster.scratch().join("calls");
    let seamed = |seam: String| {
        let args = [
            "backup",
            text(&store),
            "--keep-last",
            "1",
            "--progress",
            "never",
        ];
        golden::run(&node.args(&args), &[("ETCD_DR_SEAM", seam)])
    };
    seamed(format!("count:{}", counted.display())).expect(0);
    let calls = std::fs::read_to_string(&counted).expect("a count");
    let calls: u64 = calls.parse().expect("a number");
    // The stream comes in as many pieces as it likes: the call that is meant is looked for.
    let partly = (calls - 8..calls + 20)
        .map(|call| seamed(format!("fail:{call}:5")))
        .find(|run| run.status == Some(10) && run.stderr.contains("error: pruning:"))
        .expect("a run whose removal fails");
    let partly = partly.expect(10);
    assert!(partly.stderr.contains("error: pruning:"), "{partly}");
    let left = names();
    let newest = left[left.len() - 1].as_str().expect("a name");
    assert_eq!(left[0], "backup-1");
    assert!(
        partly.stdout.contains(&format!("{newest} (good)")),
        "{partly}"
    );
}

#[test]
fn a_backup_is_copied_once_it_is_taken_and_a_copy_that_fails_harms_nothing() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    OpenShift::default().write(&cluster);
    let node = Node::of(&cluster, 0, &NodeOptions::default());
    let store = cluster.scratch().join("store");
    let shares = ["one", "two"].map(|name| cluster.scratch().join(name));
    let urls = shares.clone().map(|share| {
        std::fs::create_dir(&share).expect("a share");
        format!("file://{}", share.display())
    });
    let both = ["--copy-to", &urls[0], "--copy-to", &urls[1], "--compress"];
    let run = node.backup(&store, &both).expect(0);
    assert_eq!(
        run.json()["copies"].as_array().map(Vec::len),
        Some(2),
        "{run}"
    );
    for url in &urls {
        let listed = node.run(&["list", url, "-o", "json"]).expect(0).json();
        let name = listed["sets"][0]["name"]
            .as_str()
            .expect("a name")
            .to_owned();
        assert!(name.ends_with("/master-0/backup-1"), "{name}");
        node.run(&["verify", &format!("{url}/{name}")]).expect(0);
    }
    // One share is gone: the other has its copy, and the backup is there.
    std::fs::remove_dir_all(&shares[0]).expect("a share to lose");
    let partly = node.backup(&store, &both).expect(10);
    assert!(
        partly.stderr.contains("there is no such directory"),
        "{partly}"
    );
    assert_eq!(listed(&store)["sets"].as_array().map(Vec::len), Some(2));
    let there = node.run(&["list", &urls[1], "-o", "json"]).expect(0).json();
    assert_eq!(there["sets"].as_array().map(Vec::len), Some(2), "{there}");
    the_configuration_says_it_all(&cluster, &node, &urls[1], &shares[1]);
    // What cannot be meant is refused before anything is taken.
    node.backup(&store, &["--copy-to", "ftp://host/x"])
        .expect(2);
    assert_eq!(listed(&store)["sets"].as_array().map(Vec::len), Some(2));
}

/// The same of two lines of configuration: a copy, and what stays afterwards; plain files get neither.
fn the_configuration_says_it_all(cluster: &Cluster, node: &Node, url: &str, share: &Path) {
    let config = cluster.scratch().join("config.toml");
    let text =
        format!("[keep]\nlast = 1\nafter-backup = true\n[copy]\nto = [{url:?}]\ncompress = true\n");
    std::fs::write(&config, text).expect("a configuration");
    let run = |args: &[&str]| {
        let mut all = vec!["--config", crate::bench::text(&config)];
        all.extend(args);
        node.run(&all)
    };
    let plain = cluster.scratch().join("plain");
    let before = copies(share);
    let flat = run(&["backup", "--flat", crate::bench::text(&plain), "-o", "json"]).expect(0);
    assert_eq!(flat.json()["copies"], serde_json::json!([]));
    assert_eq!(copies(share), before);

    let store = cluster.scratch().join("kept");
    for number in 1..=2 {
        let taken = run(&["backup", crate::bench::text(&store), "-o", "json"]).expect(0);
        let copy = &taken.json()["copies"][0]["url"];
        assert!(
            copy.as_str().is_some_and(|copy| copy.starts_with(url)),
            "{taken}"
        );
        let kept = listed(&store);
        assert_eq!(kept["sets"].as_array().map(Vec::len), Some(1), "{kept}");
        assert_eq!(kept["sets"][0]["name"], format!("backup-{number}"));
    }
    assert!(copies(share) > before);
}

/// Compressed snapshots below a folder.
fn copies(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| match path.is_dir() {
            true => copies(&path),
            false => usize::from(path.extension().is_some_and(|ext| ext == "zst")),
        })
        .sum()
}
