//! The command lines of the manifests, run as processes next to a real etcd, one after the other as
//! the kubelet would.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_yaml_ng::Value;

use crate::{deploy, text, words};
use testbench::bins;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::{self, Run};
use testbench::kube::OpenShift;
use testbench::node::{self, NodeOptions};
use testbench::process::expect_success;

/// A node with its etcd, and what its pods mount.
struct Bench {
    cluster: Cluster,
    root: PathBuf,
    scratch: PathBuf,
    /// Where copies go.
    url: String,
}

impl Bench {
    fn new() -> Option<Self> {
        let bins = bins::require("3.5")?;
        let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
        OpenShift::default().write(&cluster);
        let root = node::make(&cluster, 0, &NodeOptions::default());
        let scratch = cluster.scratch();
        let share = scratch.join("share");
        std::fs::create_dir(&share).expect("a share");
        Some(Self {
            cluster,
            root,
            scratch,
            url: format!("file://{}", share.display()),
        })
    }

    /// An empty volume, as each pod gets one.
    fn volume(&self, name: &str) -> PathBuf {
        let dir = self.scratch.join(name);
        std::fs::create_dir(&dir).expect("a volume");
        dir
    }

    /// Runs a container's arguments with its volumes where they are here; the newest two stay
    /// instead of the newest twenty.
    fn run(&self, container: &Value, shared: &Path, from: &str) -> Run {
        let place = |arg: String| {
            arg.replace("$(NODE_NAME)", self.cluster.name(0))
                .replace("$(ETCD_DR_COPY_TO)", &self.url)
                .replace("$(ETCD_DR_COPY_FROM)", from)
                .replace("/host", &self.root.display().to_string())
                .replace("/shared", &shared.display().to_string())
                .replace("--keep-last=20", "--keep-last=2")
        };
        let args: Vec<String> = words(&container["args"]).into_iter().map(place).collect();
        golden::run(&args, &[])
    }

    /// Puts a backup of another node where copies go.
    fn copy_of_another(&self) {
        let store = self.volume("theirs");
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/store/backup-1");
        let mut command = Command::new("cp");
        let output = command.arg("-a").arg(fixture).arg(&store).output();
        expect_success("cp", &output.expect("running cp"));
        let path = store.join("backup-1/backup.json");
        let manifest = std::fs::read(&path).expect("a Manifest");
        let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
        manifest["node"]["name"] = "master-9".into();
        std::fs::write(&path, manifest.to_string()).expect("writing it");
        let store = store.to_str().expect("UTF-8");
        golden::run(&["copy", "backup-1", &self.url, "--store", store], &[]).expect(0);
    }

    /// The sets of a store.
    fn sets(&self, store: &str) -> Vec<String> {
        let listed = golden::run(&["list", store, "-o", "json"], &[])
            .expect(0)
            .json();
        let sets = listed["sets"].as_array().expect("sets").iter();
        sets.map(|set| {
            assert_eq!(set["state"], "good", "{set}");
            set["name"].as_str().expect("a name").to_owned()
        })
        .collect()
    }
}

/// The pod that a file of deploy/ makes.
fn pod(file: &str) -> Value {
    let document: Value = serde_yaml_ng::from_str(&text(file)).expect("YAML");
    document["spec"]["jobTemplate"]["spec"]["template"]["spec"].clone()
}

#[test]
fn etcd_dr_in_both_containers() {
    let Some(bench) = Bench::new() else { return };
    let pod = pod("kubernetes/two-containers/cronjob.yaml");
    let (first, second) = (&pod["initContainers"][0], &pod["containers"][0]);
    // This job leaves another node's backup in the same bucket alone.
    bench.copy_of_another();
    let theirs = bench.sets(&bench.url);
    for round in 1..=4 {
        let shared = bench.volume(&format!("shared-{round}"));
        bench.run(first, &shared, "").expect(0);
        let second = bench.run(second, &shared, "").expect(0).json();
        assert_eq!(second["result"], "copied", "{second}");
        let gone = second["pruned"]["removed"].as_array().map_or(0, Vec::len);
        assert_eq!(gone, usize::from(round > 2), "{second}");
    }
    let sets = bench.sets(&bench.url);
    assert_eq!(sets.len(), 3, "{sets:?}");
    assert!(sets.contains(&theirs[0]), "{sets:?}");

    // The mirror brings the newest, once.
    let ours = sets
        .iter()
        .find(|set| **set != theirs[0])
        .expect("one of ours");
    let (place, _) = ours.rsplit_once('/').expect("a place");
    let from = format!("{}/{place}/latest", bench.url);
    let mirror = crate::containers::pod("kubernetes/overlays/mirrors/mirror.yaml");
    let unused = bench.volume("unused");
    for result in ["fetched", "already-there"] {
        let run = bench
            .run(&mirror["containers"][0], &unused, &from)
            .expect(0);
        assert_eq!(run.json()["result"], result, "{run}");
    }
    let here = bench.root.join("var/lib/etcd-dr/mirror");
    let here = here.to_str().expect("UTF-8");
    assert_eq!(bench.sets(here), ["backup-1"]);
    golden::run(&["verify", "--store", here, "latest"], &[]).expect(0);
}

/// The second container of the overlay own-store.
fn script(shared: &Path, archive: &Path) -> Output {
    let script = deploy("kubernetes/overlays/own-store/store.sh");
    let mut command = Command::new("/bin/sh");
    command.arg(script).env("KEEP", "2");
    command.env("SHARED", shared).env("ARCHIVE", archive);
    command.output().expect("running sh")
}

#[test]
fn a_shell_script_in_the_second() {
    let Some(bench) = Bench::new() else { return };
    let pod = pod("kubernetes/two-containers/cronjob.yaml");
    let archive = bench.volume("archive");
    let kept = || {
        let entries = std::fs::read_dir(&archive).expect("the archive");
        let mut names: Vec<PathBuf> = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        names.sort();
        names
    };
    let mut last = PathBuf::new();
    for round in 1..=3 {
        last = bench.volume(&format!("shared-{round}"));
        bench.run(&pod["initContainers"][0], &last, "").expect(0);
        expect_success("store.sh", &script(&last, &archive));
        // It names them by the second.
        std::thread::sleep(Duration::from_millis(1100));
    }
    let before = kept();
    assert_eq!(before.len(), 2, "{before:?}");
    for set in &before {
        golden::run(&["verify", set.to_str().expect("UTF-8")], &[]).expect(0);
    }
    // Run again, as a retried job is, it changes nothing.
    expect_success("store.sh", &script(&last, &archive));
    assert_eq!(kept(), before);
    // An incomplete backup is not mirrored, and the job fails.
    let set = last.join("backup-1");
    std::fs::write(set.join("backup.env"), "altered").expect("writing it");
    assert!(!script(&last, &archive).status.success());
    std::fs::remove_file(set.join("backup.json")).expect("removing it");
    assert!(!script(&last, &archive).status.success());
    assert_eq!(kept(), before);
}
