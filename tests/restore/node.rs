//! A node with one real etcd member, run by the stand-in kubelet, and what is done to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use etcd_dr::sys::tree::{self, Node as TreeNode, Options};

use testbench::bins::{self, EtcdBins};
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden;
use testbench::kube::OpenShift;
use testbench::node::{self, NodeOptions};
use testbench::node_bench::{BenchSpec, NodeBench};
use testbench::schema;

/// Keys that every backup here holds, besides OpenShift's objects.
pub(crate) const KEYS: usize = 50;

/// A node that is restored. The bench goes first, so that it ends before the cluster.
pub(crate) struct Node {
    pub(crate) bench: NodeBench,
    pub(crate) cluster: Cluster,
    pub(crate) root: PathBuf,
}

pub(crate) fn etcd(family: &str) -> Option<EtcdBins> {
    bins::require(family)
}

impl Node {
    /// One member, `master-0`, behind a node of this kind.
    pub(crate) fn single(bins: &EtcdBins, options: &NodeOptions) -> Self {
        Self::with(bins, options, |_| {})
    }

    pub(crate) fn with(
        bins: &EtcdBins,
        options: &NodeOptions,
        change: impl FnOnce(&mut BenchSpec),
    ) -> Self {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).fast());
        Bulk::new(KEYS, 64).write(&cluster);
        if options.profile == "openshift" {
            OpenShift::default().write(&cluster);
        }
        let root = node::make(&cluster, 0, options);
        let bench = NodeBench::adopt(&mut cluster, 0, change);
        cluster.wait_member(0);
        Self {
            bench,
            cluster,
            root,
        }
    }

    /// The program on this node, without colours or questions.
    pub(crate) fn command(&self) -> Command {
        let mut command = golden::etcd_dr();
        // On machines with and without systemd.
        command.env("ETCD_DR_DETACH", "never");
        command
            .args(["--node-name", self.cluster.name(0), "--progress", "auto"])
            .arg("--root")
            .arg(&self.root);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("running etcd-dr")
    }

    /// Runs, and demands a status.
    pub(crate) fn expect(&self, status: i32, args: &[&str]) -> (String, String) {
        let output = self.run(args);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(
            output.status.code(),
            Some(status),
            "{args:?}\n{out}\n{err}\n{}",
            self.bench.log().join("\n")
        );
        if args.contains(&"json") {
            schema::check_output(&serde_json::from_str(&out).expect("JSON"));
        }
        (out, err)
    }

    pub(crate) fn restore(&self, more: &[&str]) -> (String, String) {
        let args: Vec<&str> = ["restore", "backup-1", "--yes", "--wait", "60s"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        self.expect(0, &args)
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    pub(crate) fn resources(&self) -> PathBuf {
        self.path("etc/kubernetes/static-pod-resources")
    }

    /// What a rollout does: a newer revision of a component on the disk, and its manifest live.
    pub(crate) fn roll_out(&self, component: &str, from: u32, to: u32) {
        let old = self.resources().join(format!("{component}-pod-{from}"));
        let new = self.resources().join(format!("{component}-pod-{to}"));
        copy(&old, &new);
        let file = format!("{component}-pod.yaml");
        let live = self.path("etc/kubernetes/manifests").join(&file);
        let text = std::fs::read_to_string(&live).expect("a manifest");
        let text = text
            .replace(
                &format!("{component}-pod-{from}"),
                &format!("{component}-pod-{to}"),
            )
            .replace(
                &format!("\"revision\":\"{from}\""),
                &format!("\"revision\":\"{to}\""),
            );
        std::fs::write(new.join(&file), &text).expect("a manifest");
        // As the installer: the old one goes first, so that the kubelet sees a new pod.
        std::fs::remove_file(&live).expect("removing a manifest");
        self.bench.settle();
        let beside = live.with_file_name(format!(".{file}"));
        std::fs::write(&beside, &text).expect("a manifest");
        std::fs::rename(&beside, &live).expect("a manifest");
        self.bench.settle();
    }

    /// The revision that a live manifest runs.
    pub(crate) fn live_revision(&self, component: &str) -> String {
        let file = self
            .path("etc/kubernetes/manifests")
            .join(format!("{component}-pod.yaml"));
        let text = std::fs::read_to_string(file).expect("a manifest");
        let at = text
            .find(&format!("{component}-pod-"))
            .expect("a revision in it");
        let digits = text[at..]
            .trim_start_matches(&format!("{component}-pod-"))
            .chars()
            .take_while(char::is_ascii_digit);
        digits.collect()
    }

    /// The names of what is in static-pod-resources.
    pub(crate) fn revisions(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.resources())
            .expect("resources")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }

    /// `/etc/kubernetes` but the store, and the data directory, with everything about them.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, TreeNode> {
        tree_at(&self.root)
    }

    pub(crate) fn tree_of(&self, below: &str) -> BTreeMap<PathBuf, TreeNode> {
        tree_below(&self.root, below)
    }

    /// Whether etcd has exactly the keys that the backup holds.
    pub(crate) fn assert_backed_up_state(&mut self) {
        self.cluster.wait_member(0);
        assert_eq!(Bulk::new(KEYS, 64).count_present(&self.cluster), KEYS);
        let later = self
            .cluster
            .etcdctl_ok(&["get", "--prefix", "later", "--keys-only"]);
        assert_eq!(
            later.trim(),
            "",
            "what was written after the backup is gone"
        );
    }
}

/// What [`Node::tree`] says, of any root.
pub(crate) fn tree_at(root: &Path) -> BTreeMap<PathBuf, TreeNode> {
    let mut all = BTreeMap::new();
    for below in ["etc/kubernetes", "var/lib/etcd", "var/lib/etcd-dr"] {
        all.extend(
            tree_below(root, below)
                .into_iter()
                .map(|(path, node)| (Path::new(below).join(path), node)),
        );
    }
    all
}

/// One directory of a root.
pub(crate) fn tree_below(root: &Path, below: &str) -> BTreeMap<PathBuf, TreeNode> {
    let root = root.join(below);
    let mut tree = tree::describe(&root, &Options::default()).expect("describing a tree");
    tree.retain(|path, _| {
        let name = path.iter().next().map(|name| name.to_string_lossy());
        // The store, and the records of operations: their journals stay.
        !name.is_some_and(|name| name == "static-pod-backups" || name.starts_with("restore-"))
    });
    tree
}

/// Copies a tree with everything about it.
pub(crate) fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .expect("running cp");
    assert!(status.success());
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Demands that two trees are the same, and says where not.
pub(crate) fn assert_same(
    before: &BTreeMap<PathBuf, TreeNode>,
    after: &BTreeMap<PathBuf, TreeNode>,
    when: &str,
) {
    let told: Vec<String> = tree::differences(before, after)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(told.is_empty(), "{when}:\n{}", told.join("\n"));
}
