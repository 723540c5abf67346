//! What a state is held against: the program runs on a scratch node that is laid out from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use etcd_dr::sys::tree::{Node as TreeNode, NodeKind};

use super::STATE;
use crate::node::tree_at;
use testbench::campaign::status;
use testbench::golden;
use testbench::replay::{self, Dressed};

/// How many scratch nodes are worked on at once: most of their time they wait.
const AT_ONCE: usize = 6;

pub(super) type Found = BTreeMap<PathBuf, TreeNode>;

/// What is done on a scratch node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Way {
    Back,
    /// Resumed up to the wait for etcd's pod, then rolled back.
    OnAndBack,
}

/// What states are held against.
pub(super) struct Judge {
    pub(super) name: String,
    pub(super) socket: PathBuf,
    pub(super) before: Found,
    /// What a restore leaves that waits for etcd's pod.
    pub(super) half: Found,
}

impl Judge {
    /// Lays a state out and demands that it is or becomes what it was before the restore.
    pub(super) fn judge(&self, state: &Dressed, way: Way) -> Result<(), String> {
        let dir = self.lay_out(state);
        let root = dir.path();
        let begun = state.0.keys().any(|path| is_journal(path));
        if begun && way == Way::OnAndBack {
            let (code, told) = self.insist(root, &["restore", "--resume", "--keep-failed"]);
            // The others' manifests wait until the kubelet has begun to start etcd.
            if code != Some(7) || !told.contains("for etcd's pod to start") {
                return Err(format!("resuming: {code:?} {told}"));
            }
            same(&self.half, &outline(tree_at(root))).map_err(|why| format!("went on: {why}"))?;
        }
        if begun {
            let (code, told) = self.insist(root, &["restore", "--rollback"]);
            // The last record may have got through.
            if code != Some(0) && !told.contains("rolled-back") {
                return Err(format!("going back: {code:?} {told}"));
            }
        }
        same(&self.before, &tree_at(root))?;
        left_over(root)
    }

    /// A scratch node in this state, with the same container runtime.
    pub(super) fn lay_out(&self, state: &Dressed) -> tempfile::TempDir {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("a scratch directory");
        let root = dir.path();
        replay::lay_out_dressed(state, root);
        std::fs::create_dir_all(root.join("run/crio")).expect("a folder");
        std::os::unix::fs::symlink(&self.socket, root.join("run/crio/crio.sock")).expect("a link");
        dir
    }

    pub(super) fn command(&self, root: &Path, args: &[&str]) -> Command {
        let mut command = golden::etcd_dr();
        command
            .args(["--node-name", &self.name, "--progress", "never", "--root"])
            .arg(root)
            .args(args);
        command
    }

    fn run(&self, root: &Path, args: &[&str]) -> Output {
        self.command(root, args).output().expect("running etcd-dr")
    }

    /// Runs it; again where the three seconds that a restore here waits for its pods were too short: on a
    /// busy machine the container runtime's answer may take longer, and then it says so and stops.
    fn insist(&self, root: &Path, args: &[&str]) -> (Option<i32>, String) {
        for _ in 0..9 {
            let (code, told) = status(&self.run(root, args));
            if code == Some(0) || !told.contains("waited 3 s for the static pods") {
                return (code, told);
            }
        }
        status(&self.run(root, args))
    }

    /// Judges many, some at once; the first that is wrong ends it.
    pub(super) fn judge_all(&self, states: &[(String, Dressed)], way: Way) {
        let wrong = self.first_wrong(states, way);
        assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
    }

    pub(super) fn first_wrong(&self, states: &[(String, Dressed)], way: Way) -> Option<String> {
        let next = AtomicUsize::new(0);
        let wrong = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::SeqCst);
                        let Some((when, state)) = states.get(at) else {
                            return;
                        };
                        if let Err(why) = self.judge(state, way) {
                            let mut wrong = wrong.lock().expect("a lock");
                            wrong.get_or_insert_with(|| format!("{when}, {way:?}: {why}"));
                            next.store(states.len(), Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        wrong.into_inner().expect("a lock")
    }
}

pub(super) fn is_journal(path: &Path) -> bool {
    path.starts_with(STATE) && path.ends_with("journal")
}

fn same(wanted: &Found, found: &Found) -> Result<(), String> {
    let told: Vec<String> = etcd_dr::sys::tree::differences(wanted, found)
        .iter()
        .map(ToString::to_string)
        .collect();
    match told.is_empty() {
        true => Ok(()),
        false => Err(told.join("\n")),
    }
}

/// A tree without what differs from one attempt to another: the content of etcd's new data, and
/// what is in the safety folders.
pub(super) fn outline(tree: Found) -> Found {
    tree.into_iter()
        .filter(|(path, _)| !path.starts_with("etc/kubernetes/.etcd-dr"))
        .map(|(path, mut node)| {
            if path.starts_with("var/lib/etcd/member")
                && let NodeKind::File { size, sha256 } = &mut node.kind
            {
                (*size, *sha256) = (0, [0; 32]);
            }
            (path, node)
        })
        .collect()
}

/// Of a restore that was taken back its records stay, and nothing else.
fn left_over(root: &Path) -> Result<(), String> {
    let Ok(entries) = std::fs::read_dir(root.join(STATE)) else {
        return Ok(());
    };
    for folder in entries.map(|entry| entry.expect("an entry").path()) {
        let Ok(files) = std::fs::read_dir(&folder) else {
            continue;
        };
        for name in files.map(|entry| entry.expect("an entry").file_name()) {
            if !["journal", ".journal.new", "log"]
                .iter()
                .any(|known| name == *known)
            {
                return Err(format!("{name:?} is left in {}", folder.display()));
            }
        }
    }
    Ok(())
}
