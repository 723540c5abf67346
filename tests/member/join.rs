//! `member-add --join` on a node whose member is lost: real members, one of them run by the
//! stand-in kubelet of its node.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::fs::XattrFlags;
use rustix::process::{Pid, Signal, kill_process};

use etcd_dr::sys::tree::{self, Node as TreeNode, Options};

use crate::{assert_same_data, listed, member};
use testbench::bins::{EtcdBins, require, require_all};
use testbench::bulk::Bulk;
use testbench::certs::{Ca, Validity};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::etcd_dr;
use testbench::node::{self, NodeOptions};
use testbench::node_bench::{Empty, NodeBench};
use testbench::process::{expect_success, wait_for};
use testbench::schema;

pub(crate) const LOST: usize = 2;

/// A cluster of two that had three, and the node of the third. The bench goes first, so that it
/// ends before the cluster.
pub(crate) struct Lost {
    pub(crate) bench: NodeBench,
    pub(crate) cluster: Cluster,
    pub(crate) root: PathBuf,
    /// Flags before the command.
    global: Vec<String>,
}

impl Lost {
    /// Three members with TLS, one killed, its disk wiped and the member removed; its node's
    /// kubelet starts etcd again and again. What is left of the disk is a file that is not etcd's.
    pub(crate) fn new(bins: &EtcdBins, options: &NodeOptions, joins: bool) -> Self {
        Self::with(bins, options, joins, true)
    }

    fn with(bins: &EtcdBins, options: &NodeOptions, joins: bool, removed: bool) -> Self {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        Bulk::new(500, 1000).write(&cluster);
        let root = node::make_all(&cluster, options).swap_remove(LOST);
        let everyone = cluster.initial_cluster();
        cluster.kill(LOST);
        cluster.wipe(LOST);
        std::fs::write(cluster.data_dir(LOST).join("of-old"), "old").expect("a file");
        if removed {
            let name = cluster.name(LOST).to_owned();
            member(&cluster, &["member-remove", &name, "--yes"]).expect(0);
        }
        let bench = NodeBench::adopt(&mut cluster, LOST, |spec| {
            spec.empty = match joins {
                true => Empty::Join(everyone),
                false => Empty::Refuse,
            };
        });
        Self {
            bench,
            cluster,
            root,
            global: Vec::new(),
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = etcd_dr();
        command
            .args(["--node-name", self.cluster.name(LOST)])
            .args(["--progress", "auto", "--root"])
            .arg(&self.root)
            .args(&self.global)
            .args(args);
        command
    }

    /// Runs, and demands a status: both outputs.
    #[track_caller]
    pub(crate) fn expect(&self, status: i32, args: &[&str]) -> (String, String) {
        let output = self.command(args).output().expect("running etcd-dr");
        let (out, err) = texts(&output);
        let logs = self.cluster.logs();
        let log = self.bench.log().join("\n");
        assert_eq!(
            output.status.code(),
            Some(status),
            "{args:?}\n{out}\n{err}\n{log}\n{logs}"
        );
        if args.contains(&"json") {
            schema::check_output(&serde_json::from_str(&out).expect("JSON"));
        }
        (out, err)
    }

    #[track_caller]
    fn join(&self, status: i32, more: &[&str]) -> (String, String) {
        let args = [&["member-add", "--join", "--yes"], more].concat();
        self.expect(status, &args)
    }

    /// Begins to join, and is killed when it has come to this step.
    fn killed_at(&self, step: &str) {
        assert_eq!(self.signalled_at(step, Signal::KILL).0, None);
    }

    /// Begins to join, and gets a signal when it has come to this step. Its status, and what it
    /// reported.
    fn signalled_at(&self, step: &str, signal: Signal) -> (Option<i32>, String) {
        let mut child = self
            .command(&["member-add", "--join", "--yes", "--wait", "90s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("starting etcd-dr");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut told = Vec::new();
        let mut there = false;
        for line in lines {
            let line = line.expect("a line");
            let now = line.starts_with('[') && line.contains(step);
            told.push(line);
            if now && !there {
                there = true;
                // One that has ended by itself is not collected yet: the id is still its own.
                kill_process(Pid::from_child(&child), signal).expect("signalling etcd-dr");
            }
        }
        let told = told.join("\n");
        let status = child.wait().expect("its end");
        assert!(there, "it never came to {step:?}:\n{told}");
        (status.code(), told)
    }

    /// It votes, with the others' data, and answers by itself.
    pub(crate) fn assert_joined(&mut self) {
        self.cluster.wait_member(LOST);
        assert_same_data(&self.cluster);
        let name = self.cluster.name(LOST).to_owned();
        let url = self.cluster.peer_url(LOST);
        let all = listed(&self.cluster);
        assert_eq!(all.len(), 3);
        assert!(all.contains(&(name, url, false)), "{all:?}");
    }

    /// The node's files that a join may change, without the store of journals.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, TreeNode> {
        self.files_but(&[])
    }

    /// The same, without these of the data directory: an etcd that is started again and again
    /// writes them.
    pub(crate) fn files_but(&self, moving: &[&str]) -> BTreeMap<PathBuf, TreeNode> {
        let options = Options {
            skip: moving.iter().map(PathBuf::from).collect(),
            ..Options::default()
        };
        let mut all = BTreeMap::new();
        for below in ["etc/kubernetes", "var/lib/etcd"] {
            let root = self.root.join(below);
            let tree = tree::describe(&root, &options).expect("describing a tree");
            all.extend(tree.into_iter().map(|(path, node)| (root.join(path), node)));
        }
        all
    }

    /// Operations that have a folder.
    pub(crate) fn operations(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.root.join("var/lib/etcd-dr"));
        let paths = entries.into_iter().flatten().flatten().map(|e| e.path());
        let mut found: Vec<PathBuf> = paths.filter(|path| path.join("journal").exists()).collect();
        found.sort();
        found
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
pub(crate) fn assert_same(
    before: &BTreeMap<PathBuf, TreeNode>,
    after: &BTreeMap<PathBuf, TreeNode>,
) {
    let differences = tree::differences(before, after);
    let told: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn a_lost_member_joins_again_from_its_node() {
    for bins in require_all() {
        let mut lost = Lost::new(bins, &NodeOptions::default(), true);
        let (out, _) = lost.expect(0, &["member-add", "--join", "--dry-run"]);
        assert!(out.contains("add the member as a learner"), "{out}");
        assert!(lost.operations().is_empty());
        let (out, err) = lost.join(0, &[]);
        assert!(out.contains("and votes"), "{out}\n{err}");
        assert!(out.contains("by HashKV"), "{out}\n{err}");
        assert!(err.contains("[operator-in-charge]"), "{err}");
        lost.assert_joined();
        let operation = lost.operations().remove(0);
        let own = lost.cluster.data_dir(LOST).join("of-old");
        assert!(own.exists() && !operation.join("data/of-old").exists());
        let (out, _) = lost.expect(0, &["member-add", "--join", "--status"]);
        assert!(out.contains(": completed"), "{out}");
        // What votes is counted on.
        let (_, err) = lost.expect(5, &["member-add", "--join", "--rollback", "--yes"]);
        assert!(err.contains("[already-voting]"), "{err}");
        assert!(err.contains("member-remove"), "{err}");
        // One change of a node waits for the last.
        let (_, err) = lost.join(7, &[]);
        assert!(err.contains("--join --commit"), "{err}");
        lost.expect(0, &["member-add", "--join", "--commit", "--yes"]);
        let (_, err) = lost.join(5, &[]);
        assert!(err.contains("[already-voting]"), "{err}");
        assert!(err.contains("is already a voting member"), "{err}");
        assert!(own.exists() && !operation.join("data").exists());
        assert!(!lost.root.join("etc/kubernetes/.etcd-dr").exists());
    }
}

#[test]
fn a_killed_join_resumes() {
    let Some(bins) = require("3.5") else { return };
    let mut lost = Lost::new(&bins, &NodeOptions::default(), true);
    lost.killed_at("in place");
    let (_, err) = lost.expect(7, &["restore", "--resume"]);
    assert!(err.contains(" member-add --join --resume"), "{err}");
    let (out, _) = lost.expect(7, &["member-add", "--join", "--status"]);
    assert!(out.contains("member-add --join --rollback"), "{out}");
    lost.join(7, &[]);
    let (out, _) = lost.expect(0, &["member-add", "--join", "--resume"]);
    assert!(out.contains("and votes"), "{out}");
    lost.assert_joined();
}

#[test]
fn a_killed_join_rolls_back() {
    let Some(bins) = require("3.5") else { return };
    let lost = Lost::new(&bins, &NodeOptions::default(), false);
    let (files, members) = (lost.files(), listed(&lost.cluster));
    for step in ["add the member", "in place", "wait until the member serves"] {
        lost.killed_at(step);
        lost.expect(0, &["member-add", "--join", "--rollback"]);
        assert_eq!(listed(&lost.cluster), members, "{step}");
        assert_same(&files, &lost.files());
    }
}

/// Ctrl-C at each of its steps: the node and the members are as before, or what remains is said.
#[test]
fn a_join_interrupted_at_any_step_is_undone() {
    let Some(bins) = require("3.5") else { return };
    let lost = Lost::new(&bins, &NodeOptions::default(), false);
    let (files, members) = (lost.files(), listed(&lost.cluster));
    for step in [
        "make ",
        "stop etcd",
        "wait until their containers",
        "move /var/lib/etcd/member",
        "add the member",
        "in place",
        "wait until the member serves",
    ] {
        let (status, told) = lost.signalled_at(step, Signal::INT);
        assert_eq!(status, Some(130), "{step}: {told}");
        assert!(told.contains("are as before"), "{step}: {told}");
        assert_eq!(listed(&lost.cluster), members, "{step}");
        assert_same(&files, &lost.files());
    }
}

/// Ctrl-C once the member votes: it stays, and the same command continues.
#[test]
fn a_join_interrupted_after_the_promotion_stays() {
    let Some(bins) = require("3.5") else { return };
    let mut lost = Lost::new(&bins, &NodeOptions::default(), true);
    let (status, told) = lost.signalled_at("prove that", Signal::INT);
    match status {
        // It had finished before the signal came.
        Some(0) => {}
        Some(7) => {
            assert!(told.contains("is a voting member by now"), "{told}");
            assert!(told.contains(" member-add --join --resume"), "{told}");
            lost.expect(0, &["member-add", "--join", "--resume"]);
        }
        other => panic!("{other:?}: {told}"),
    }
    lost.assert_joined();
}

/// A bad data directory: found on its node, set aside by the join, and the member is whole again.
#[test]
fn a_bad_data_directory_is_replaced() {
    let Some(bins) = require("3.5") else { return };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 3).fast());
    Bulk::new(500, 1000).write(&cluster);
    let root = node::make_all(&cluster, &NodeOptions::default()).swap_remove(LOST);
    let everyone = cluster.initial_cluster();
    cluster.stop(LOST);
    let db = cluster.data_dir(LOST).join("member/snap/db");
    let bytes = std::fs::read(&db).expect("reading the database");
    std::fs::write(&db, &bytes[..9000]).expect("cutting the database");
    // Its kubelet restarts etcd again and again, in vain.
    let bench = NodeBench::adopt(&mut cluster, LOST, |spec| {
        spec.empty = Empty::Join(everyone)
    });
    let mut lost = Lost {
        bench,
        cluster,
        root,
        global: Vec::new(),
    };
    // Its container holds the directory for moments only.
    let found = wait_for(
        "the directory to be judged",
        Duration::from_secs(60),
        || {
            let output = lost.command(&["verify", "--cluster"]).output();
            let output = output.expect("running etcd-dr");
            let (out, err) = texts(&output);
            assert_eq!(output.status.code(), Some(11), "{out}\n{err}");
            if out.contains("[bad-data-dir]") {
                Ok(out)
            } else {
                Err(out)
            }
        },
    );
    let found = found.unwrap_or_else(|error| panic!("{error}"));
    assert!(found.contains("[member-unreachable]"), "{found}");
    assert!(found.contains("next: etcd-dr verify --data-dir"), "{found}");
    let name = lost.cluster.name(LOST).to_owned();
    let (_, err) = lost.join(5, &[]);
    assert!(err.contains("[peer-url-taken]"), "{err}");
    member(&lost.cluster, &["member-remove", &name, "--yes"]).expect(0);
    lost.join(0, &[]);
    lost.assert_joined();
    let aside = lost.operations().remove(0).join("data/member/snap/db");
    assert_eq!(std::fs::read(&aside).expect("the bad one").len(), 9000);
    lost.expect(0, &["verify", "--cluster"]);
}

#[test]
fn a_join_that_cannot_catch_up_rolls_back() {
    let Some(bins) = require("3.5") else { return };
    let lost = Lost::new(&bins, &NodeOptions::default(), false);
    let (files, members) = (lost.files(), listed(&lost.cluster));
    let (_, err) = lost.join(8, &["--wait", "6s"]);
    assert!(err.contains("has not started"), "{err}");
    assert_eq!(listed(&lost.cluster), members);
    assert_same(&files, &lost.files());
    // The member of an earlier attempt is used, and keeps its place.
    let url = lost.cluster.peer_url(LOST);
    let name = lost.cluster.name(LOST);
    let peer = format!("--peer-urls={url}");
    let added = ["member-add", name, &peer, "--no-promote"];
    member(&lost.cluster, &added).expect(0);
    let members = listed(&lost.cluster);
    let (_, err) = lost.join(8, &["--wait", "6s"]);
    assert!(err.contains("stays in the member list"), "{err}");
    assert_eq!(listed(&lost.cluster), members);
    assert_same(&files, &lost.files());
}

#[test]
fn a_manifest_that_was_moved_away_comes_back() {
    let Some(bins) = require("3.5") else { return };
    let mut lost = Lost::new(&bins, &NodeOptions::default(), true);
    lost.expect(0, &["member-add", "--join", "--dry-run", "-o", "json"]);
    let place = lost.root.join("etc/kubernetes/manifests/etcd-pod.yaml");
    let before = std::fs::read(&place).expect("a manifest");
    lost.bench.take_out("etcd-pod.yaml");
    lost.bench.settle();
    lost.join(0, &["-o", "json"]);
    lost.assert_joined();
    lost.expect(0, &["member-add", "--join", "--status", "-o", "json"]);
    assert_eq!(std::fs::read(&place).expect("a manifest"), before);
    // Once the member has been removed the node can have its old data back.
    let name = lost.cluster.name(LOST).to_owned();
    member(&lost.cluster, &["member-remove", &name, "--yes"]).expect(0);
    let members = listed_by_first(&lost.cluster);
    let (out, _) = lost.expect(0, &["member-add", "--join", "--rollback", "--yes"]);
    assert!(out.contains("the member's data is kept in"), "{out}");
    assert!(!place.exists());
    assert!(lost.cluster.data_dir(LOST).join("of-old").exists());
    assert_eq!(listed_by_first(&lost.cluster), members);
    let commit = ["member-add", "--join", "--commit", "--yes", "-o", "json"];
    lost.expect(0, &commit);
    lost.expect(0, &commit);
    assert!(!lost.root.join("etc/kubernetes/.etcd-dr").exists());
}

/// The member list as the first member has it: the removed one may still listen.
fn listed_by_first(cluster: &Cluster) -> String {
    let output = cluster.etcdctl_on(0, &["member", "list"]);
    expect_success("etcdctl member list", &output)
}

#[test]
fn the_peer_url_of_a_started_member_is_refused() {
    let Some(bins) = require("3.5") else { return };
    let lost = Lost::with(&bins, &NodeOptions::default(), false, false);
    let (files, members) = (lost.files(), listed(&lost.cluster));
    let (_, err) = lost.join(5, &[]);
    assert!(err.contains("[peer-url-taken]"), "{err}");
    let (_, err) = lost.expect(2, &["member-add", "other", "--join", "--yes"]);
    assert!(err.contains("is named"), "{err}");
    let (_, err) = lost.expect(5, &["member-add", "--join", "--wait", "5s"]);
    assert!(err.contains("[peer-url-taken]"), "{err}");
    assert_eq!(listed(&lost.cluster), members);
    assert_same(&files, &lost.files());
    assert!(lost.operations().is_empty());
}

#[test]
fn certificates_that_do_not_fit_are_refused() {
    let Some(bins) = require("3.5") else { return };
    let lost = Lost::new(&bins, &NodeOptions::default(), false);
    let secrets = "etc/kubernetes/static-pod-resources/etcd-certs/secrets/etcd-all-certs";
    let secrets = lost.root.join(secrets);
    let own = secrets.join("etcd-peer-master-2.crt");
    let certs = lost.cluster.certs().expect("certificates");
    std::fs::copy(certs.peer("master-1").cert, &own).expect("another's certificate");
    let (files, members) = (lost.files(), listed(&lost.cluster));
    let (_, err) = lost.join(5, &[]);
    assert!(err.contains("is not for the address"), "{err}");
    let hint = " member-add --join --yes --allow certificates-invalid";
    assert!(err.contains(hint), "{err}");
    std::fs::remove_file(&own).expect("removing a certificate");
    let (_, err) = lost.join(5, &[]);
    assert!(err.contains("does not exist"), "{err}");
    // One that has expired, and one of another authority, each with its key.
    let ips = [lost.cluster.ip(LOST)];
    let name = "system:etcd-peer:master-2";
    let over = certs.ca().leaf_valid(name, "x", &ips, Validity::expired());
    let foreign = Ca::new("openshift-etcd_etcd-signer").leaf(name, "x", &ips);
    for (pair, why) in [(over, "expired"), (foreign, "not signed by")] {
        pair.write(&secrets, "etcd-peer-master-2");
        let (_, err) = lost.join(5, &[]);
        assert!(err.contains("[certificates-invalid]"), "{err}");
        assert!(err.contains(why), "{why}: {err}");
    }
    assert_eq!(listed(&lost.cluster), members);
    assert!(lost.operations().is_empty());
    assert_eq!(files.len(), lost.files().len());
}

#[test]
fn a_join_on_kubeadm_edits_the_manifest() {
    let Some(bins) = require("3.5") else { return };
    let mut lost = Lost::new(&bins, &NodeOptions::kubeadm(), true);
    // The stand-in listens where CRI-O does; this node's kubelet names containerd.
    let run = lost.root.join("run/containerd");
    std::fs::create_dir_all(&run).expect("a folder");
    std::os::unix::fs::symlink("../crio/crio.sock", run.join("containerd.sock")).expect("a link");
    let living = [lost.cluster.client_url(0), lost.cluster.client_url(1)].join(",");
    lost.global = vec!["--endpoints".to_owned(), living];
    let manifest = lost.root.join("etc/kubernetes/manifests/etcd.yaml");
    let before = std::fs::read_to_string(&manifest).expect("a manifest");
    let marked = mark(&manifest);
    let (out, err) = lost.join(0, &[]);
    assert!(out.contains("by HashKV"), "{out}\n{err}");
    assert_eq!(marks(&manifest), marked);
    lost.assert_joined();
    let after = std::fs::read_to_string(&manifest).expect("a manifest");
    assert!(
        after.contains("--initial-cluster-state=existing"),
        "{after}"
    );
    for i in 0..3 {
        let pair = format!("{}={}", lost.cluster.name(i), lost.cluster.peer_url(i));
        assert!(after.contains(&pair), "{after}");
    }
    let rest = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.contains("--initial-cluster"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(rest(&before), rest(&after));
}

/// Gives a file a mode, a group and, where that is possible, its own label.
fn mark(path: &Path) -> Marks {
    std::fs::set_permissions(path, Permissions::from_mode(0o640)).expect("a mode");
    std::os::unix::fs::chown(path, Some(0), Some(12)).expect("a group");
    let label = b"system_u:object_r:etc_t:s0\0";
    let set = rustix::fs::setxattr(path, "security.selinux", label, XattrFlags::empty());
    if let Err(error) = set {
        eprintln!("SKIPPED member: labels cannot be set here: {error}");
    }
    marks(path)
}

type Marks = (u32, u32, u32, BTreeMap<String, Vec<u8>>);

fn marks(path: &Path) -> Marks {
    let meta = path.metadata().expect("a file");
    let labels = etcd_dr::sys::xattr::xattrs(path).expect("attributes");
    (meta.mode() & 0o7777, meta.uid(), meta.gid(), labels)
}
