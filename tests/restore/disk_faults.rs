//! A kill, an error and a full disk at every call of a restore that changes a disk.
//!
//! The rollback is tested on a node whose etcd does not run for this: so nothing else writes, and the
//! whole tree must be what it was, byte for byte: content, mode, owner, links, attributes. Resuming
//! is tried with a real etcd, and proved by what the tool itself proves and by the tree after an
//! undisturbed restore.
//!
//! A run of the whole suite takes a sample of the calls, spread over all of them, and says how
//! many; with `ETCD_DR_EVERY=1` it takes each one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use etcd_dr::sys::tree::Node as TreeNode;

use super::node::{Node, assert_same, copy, etcd};
use testbench::campaign::{self, killed, status};
use testbench::node::NodeOptions;

/// How many calls a sample has.
const SAMPLE: u64 = 16;

/// A node whose data, backup and disk are made once and copied for each run.
pub(super) struct Template {
    pub(super) node: Node,
    pub(super) seed: PathBuf,
    pub(super) before: BTreeMap<PathBuf, TreeNode>,
}

impl Template {
    /// With one revision that is newer, one that is gone and one that was changed.
    pub(super) fn make() -> Option<Self> {
        let node = Node::with(&etcd("3.5")?, &NodeOptions::default(), |_| {});
        node.expect(0, &["backup"]);
        node.roll_out("kube-scheduler", 6, 8);
        let changed = node
            .resources()
            .join("etcd-pod-7/configmaps/etcd-pod/version");
        std::fs::write(&changed, "changed").expect("a file");
        std::fs::remove_dir_all(node.resources().join("kube-scheduler-pod-6")).expect("a folder");
        // From here on nothing runs that could write.
        for file in std::fs::read_dir(node.bench.manifests()).expect("manifests") {
            let name = file.expect("an entry").file_name();
            node.bench.take_out(&name.to_string_lossy());
        }
        node.bench.settle();
        let aside = node.path("home/core/assets/manifests-stopped");
        let seed = node.cluster.scratch().join("seed");
        std::fs::create_dir_all(&seed).expect("a folder");
        for below in ["etc", "var"] {
            copy(&node.path(below), &seed.join(below));
        }
        for file in std::fs::read_dir(&aside).expect("manifests") {
            let path = file.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_owned();
            copy(&path, &seed.join("etc/kubernetes/manifests").join(name));
        }
        let mut template = Self {
            node,
            seed,
            before: BTreeMap::new(),
        };
        // Nor does the kubelet see the manifests that come back while the disk is described.
        template.node.bench.faults(|faults| faults.blind = true);
        template.fresh();
        template.before = template.node.tree();
        template.node.bench.no_faults();
        Some(template)
    }

    /// Puts the node's disk back to what it was before any restore. The pods that ran are stopped
    /// by their manifests' going.
    pub(super) fn fresh(&self) {
        let manifests = self.node.bench.manifests();
        if manifests.is_dir() {
            for file in std::fs::read_dir(&manifests).expect("manifests") {
                std::fs::remove_file(file.expect("an entry").path()).expect("a manifest");
            }
            self.node.bench.settle();
        }
        // The data first: the kubelet starts what it finds at once.
        for below in ["var/lib", "etc/kubernetes"] {
            let path = self.node.path(below);
            if path.exists() {
                std::fs::remove_dir_all(&path).expect("removing a tree");
            }
            copy(&self.seed.join(below), &path);
        }
    }

    pub(super) fn restore(&self, seam: Option<String>, more: &[&str]) -> Output {
        self.run(
            &[
                &[
                    "restore",
                    "backup-1",
                    "--yes",
                    "--allow",
                    "cluster-mismatch",
                ],
                more,
            ]
            .concat(),
            seam,
        )
    }

    pub(super) fn run(&self, args: &[&str], seam: Option<String>) -> Output {
        let mut command: Command = self.node.command();
        command.args(args);
        if let Some(seam) = seam {
            command.env("ETCD_DR_SEAM", seam);
        }
        command.output().expect("running etcd-dr")
    }

    fn counted(&self, run: impl FnOnce(String) -> Output) -> (u64, Output) {
        campaign::counted(&self.node.cluster.scratch(), run)
    }

    /// The first call that changes the node: what comes before reads the set in a scratch folder,
    /// as a dry run does.
    fn first(&self) -> u64 {
        self.fresh();
        let args = [
            "restore",
            "backup-1",
            "--dry-run",
            "--allow",
            "cluster-mismatch",
        ];
        let (count, output) = self.counted(|seam| self.run(&args, Some(seam)));
        assert_eq!(status(&output).0, Some(0));
        count + 1
    }

    fn assert_before(&self, when: &str) {
        assert_same(&self.before, &self.node.tree(), when);
    }
}

/// The kubelet sees no manifest in this node while `work` runs.
fn unseen<T>(template: &Template, work: impl FnOnce() -> T) -> T {
    // The stand-in reads the manifests' directory; what it starts would write.
    template.node.bench.faults(|faults| faults.blind = true);
    let done = work();
    template.node.bench.no_faults();
    done
}

#[test]
fn a_restore_killed_at_any_call_rolls_back() {
    let Some(template) = Template::make() else {
        return;
    };
    unseen(&template, || {
        let short = ["--wait", "1s", "--keep-failed"];
        let first = template.first();
        template.fresh();
        let (all, output) = template.counted(|seam| template.restore(Some(seam), &short));
        let (code, told) = status(&output);
        // Nothing starts: it comes as far as the wait for etcd.
        assert_eq!(code, Some(7), "{told}");
        let chosen = campaign::calls(first, all, SAMPLE);
        let (mut kills, mut backs) = (0, 0);
        for call in &chosen {
            template.fresh();
            let output = template.restore(Some(format!("kill:{call}")), &short);
            assert!(killed(&output), "call {call}: {output:?}");
            kills += 1;
            if template.run(&["restore", "--status"], None).status.code() == Some(2) {
                // Killed before the journal was there: nothing to roll back.
                template.assert_before(&format!("killed at call {call}, before the journal"));
                continue;
            }
            let output = template.run(&["restore", "--rollback"], None);
            let (code, told) = status(&output);
            assert_eq!(code, Some(0), "after a kill at call {call}: {told}");
            template.assert_before(&format!("killed at call {call}, rolled back"));
            backs += 1;
        }
        println!(
            "rolled back: {all} changing calls counted, of the node from {first} on, {kills} kills of {} chosen, {backs} rolled back",
            chosen.len()
        );
        assert_eq!(kills, chosen.len());
        assert!(all > 100);

        // The rollback killed at each of its own calls.
        template.fresh();
        template.restore(None, &short);
        let saved = template.node.cluster.scratch().join("half");
        save(&template, &saved);
        let (all, output) =
            template.counted(|seam| template.run(&["restore", "--rollback"], Some(seam)));
        assert_eq!(status(&output).0, Some(0));
        template.assert_before("rolled back");
        let chosen = campaign::calls(1, all, SAMPLE);
        let mut kills = 0;
        for call in &chosen {
            load(&template, &saved);
            let output = template.run(&["restore", "--rollback"], Some(format!("kill:{call}")));
            assert!(killed(&output), "call {call} of the rollback: {output:?}");
            kills += 1;
            let output = template.run(&["restore", "--rollback"], None);
            let (code, told) = status(&output);
            // The last calls only say that it is done.
            assert!(
                code == Some(0) || told.contains("rolled-back"),
                "call {call}: {told}"
            );
            template.assert_before(&format!("the rollback killed at call {call}"));
        }
        println!(
            "the rollback: {all} changing calls counted, {kills} kills of {} chosen",
            chosen.len()
        );
    });
}

fn save(template: &Template, to: &Path) {
    std::fs::create_dir_all(to.join("var")).expect("a folder");
    std::fs::create_dir_all(to.join("etc")).expect("a folder");
    for below in ["etc/kubernetes", "var/lib"] {
        copy(&template.node.path(below), &to.join(below));
    }
}

fn load(template: &Template, from: &Path) {
    for below in ["etc/kubernetes", "var/lib"] {
        let path = template.node.path(below);
        std::fs::remove_dir_all(&path).expect("removing a tree");
        copy(&from.join(below), &path);
    }
}

#[test]
fn an_error_or_a_full_disk_at_any_call_rolls_back() {
    let Some(template) = Template::make() else {
        return;
    };
    unseen(&template, || {
        let short = ["--wait", "1s"];
        let first = template.first();
        template.fresh();
        let kept = ["--wait", "1s", "--keep-failed"];
        let (all, _) = template.counted(|seam| template.restore(Some(seam), &kept));
        for (kind, words) in [("fail", ":5"), ("full", "")] {
            let chosen = campaign::calls(first, all, SAMPLE);
            let mut failed = 0;
            for call in &chosen {
                template.fresh();
                let output = template.restore(Some(format!("{kind}:{call}{words}")), &short);
                let (code, told) = status(&output);
                let when = format!("{kind} at call {call}: {code:?} {told}");
                match code {
                    // Before the journal, and after it.
                    Some(6 | 8) => {}
                    // The rollback met the same disk.
                    Some(9) => {
                        assert!(told.contains("restore --rollback"), "{when}");
                        let output = template.run(&["restore", "--rollback"], None);
                        assert_eq!(status(&output).0, Some(0), "{when}");
                    }
                    _ => panic!("{when}"),
                }
                failed += 1;
                template.assert_before(&when);
            }
            println!(
                "{kind}: {all} changing calls counted, of the node from {first} on, {failed} of {} chosen failed",
                chosen.len()
            );
        }
    });
}

#[test]
fn a_restore_killed_at_any_call_resumes() {
    let Some(template) = Template::make() else {
        return;
    };
    let wait = ["--wait", "60s"];
    let first = template.first();
    template.fresh();
    let (all, output) = template.counted(|seam| template.restore(Some(seam), &wait));
    let (code, told) = status(&output);
    assert_eq!(code, Some(0), "{told}");
    let after = etc(&template.node.tree());
    let chosen = campaign::calls(first, all, SAMPLE);
    let (mut kills, mut resumed) = (0, 0);
    for call in &chosen {
        template.fresh();
        let output = template.restore(Some(format!("kill:{call}")), &wait);
        assert!(killed(&output), "call {call}: {output:?}");
        kills += 1;
        let state = template.run(&["restore", "--status", "-o", "json"], None);
        if state.status.code() == Some(2) {
            continue;
        }
        let state: serde_json::Value = serde_json::from_slice(&state.stdout).expect("JSON");
        if state["state"] == "running" {
            let output = template.run(&["restore", "--resume"], None);
            let (code, told) = status(&output);
            assert_eq!(code, Some(0), "after a kill at call {call}: {told}");
            resumed += 1;
        } else {
            // The last record was written whole.
            assert_eq!(state["state"], "completed", "call {call}");
        }
        assert_same(
            &after,
            &etc(&template.node.tree()),
            &format!("killed at call {call}, resumed"),
        );
    }
    println!(
        "resumed: {all} changing calls counted, of the node from {first} on, {kills} kills of {} chosen, {resumed} resumed",
        chosen.len()
    );
    assert_eq!(kills, chosen.len());
}

/// `/etc/kubernetes` without what is kept for the rollback.
fn etc(tree: &BTreeMap<PathBuf, TreeNode>) -> BTreeMap<PathBuf, TreeNode> {
    let mut tree = tree.clone();
    tree.retain(|path, _| {
        path.starts_with("etc/kubernetes") && !path.starts_with("etc/kubernetes/.etcd-dr")
    });
    tree
}

#[test]
fn a_rollback_killed_at_any_call_still_bumps_above_all_that_was_served() {
    let Some(template) = Template::make() else {
        return;
    };
    template.fresh();
    // How long each rollback waits for an etcd that nothing starts here.
    let output = template.restore(None, &["--wait", "20s"]);
    let (code, told) = status(&output);
    assert_eq!(code, Some(0), "{told}");
    unseen(&template, || {
        template.node.bench.settle();
        let saved = template.node.cluster.scratch().join("completed");
        save(&template, &saved);
        let before = etc(&template.before);
        let back = ["restore", "--rollback", "--yes", "-o", "json"];
        let (all, output) = template.counted(|seam| template.run(&back, Some(seam)));
        let (code, told) = status(&output);
        assert_eq!(code, Some(0), "{told}");
        let chosen = campaign::calls(1, all, SAMPLE / 8);
        for call in &chosen {
            load(&template, &saved);
            let output = template.run(&back, Some(format!("kill:{call}")));
            assert!(killed(&output), "call {call} of the rollback: {output:?}");
            let output = template.run(&back, None);
            let (code, told) = status(&output);
            assert!(
                code == Some(0) || told.contains("rolled-back"),
                "call {call}: {told}"
            );
            let data = template.node.path("var/lib/etcd");
            let known = |dir: &Path| {
                let known = etcd_dr::change::datadir::evidence_of_data(dir).expect("a database");
                known.expect("a database").revision
            };
            let kept = operation(&template);
            let when = format!("killed at call {call}");
            assert!(known(&data) > known(&kept.join("data-new")), "{when}");
            assert!(known(&data) > known(&kept.join("data")), "{when}");
            assert!(!kept.join("data-bumped").exists(), "{when}");
            let dir = data.display().to_string();
            let output = template.run(&["verify", "--data-dir", &dir], None);
            assert_eq!(status(&output).0, Some(0), "{when}: {}", status(&output).1);
            assert_same(&before, &etc(&template.node.tree()), &when);
        }
        println!(
            "a rollback that bumps: {all} changing calls counted, {} kills",
            chosen.len()
        );
        assert!(!chosen.is_empty());
    });
}

/// The folder of the one operation.
fn operation(template: &Template) -> PathBuf {
    let state = template.node.path("var/lib/etcd-dr");
    let mut entries = std::fs::read_dir(state).expect("operations").flatten();
    let found = entries.find(|entry| entry.file_name().to_string_lossy().starts_with("restore-"));
    found.expect("an operation").path()
}
