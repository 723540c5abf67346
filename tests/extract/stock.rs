//! What OpenShift's own programs wrote, and what its restore script makes of a folder.

use std::collections::BTreeMap;

use etcd_dr::backup::resources::{Extracted, check_archive};

use crate::{Options, Path, PathBuf, Rules, STATIC_POD_RESOURCES, extract_archive, fs, tree};
use testbench::folder::names;
use testbench::golden;
use testbench::node;
use testbench::process::expect_success;
use testbench::stock::{self, COMPONENTS, ScriptRun, StockBackup};

/// A node as the generator makes them, and a real snapshot.
struct Node {
    dir: tempfile::TempDir,
    snapshot: PathBuf,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let output = node::generator().arg(dir.path().join("root")).output();
        expect_success("make-node.py", &output.expect("running python3"));
        let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/store/backup-1");
        Self {
            dir,
            snapshot: stock::pick(&set, "snapshot*.db"),
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn script(&self, dir: &str, run: ScriptRun<'_>) -> StockBackup {
        let dir = self.dir.path().join(dir);
        stock::script_backup(&self.root(), &self.snapshot, &dir, run)
    }

    fn go(&self, dir: &str) -> StockBackup {
        stock::go_backup(&self.root(), &self.snapshot, &self.dir.path().join(dir))
    }
}

fn rules() -> Rules {
    Rules {
        tops: vec![STATIC_POD_RESOURCES.into()],
        node_base: Some("/etc/kubernetes".into()),
        ..Rules::default()
    }
}

fn unpack(archive: &Path) -> (tempfile::TempDir, Extracted) {
    let into = tempfile::tempdir().expect("a folder");
    let done = extract_archive(archive, into.path(), &[], &rules());
    (into, done.expect("it is whole"))
}

/// A description of the resources below a directory.
fn resources(kubernetes: &Path) -> BTreeMap<PathBuf, tree::Node> {
    let path = kubernetes.join(STATIC_POD_RESOURCES);
    tree::describe(&path, &Options::default()).expect("a description")
}

#[test]
fn what_the_script_wrote_is_unpacked_as_the_script_would() {
    let node = Node::new();
    for (dir, force) in [("clean", false), ("forced", true)] {
        let zone = "America/St_Johns";
        let backup = node.script(dir, ScriptRun { zone, force });
        let there = names(&backup.dir);
        assert_eq!(there.len(), 2, "{there:?}");
        let dirty = there
            .iter()
            .filter(|name| name.contains("__POSSIBLY_DIRTY__."));
        assert_eq!(dirty.count(), if force { 2 } else { 0 });

        let restored = stock::assert_stock_restorable(&backup.dir);
        assert_eq!(restored.revisions, backup.revisions);
        assert_eq!(restored.snapshot, backup.snapshot);
        let (into, done) = unpack(&backup.archive);
        // The archive does not hold it, so it should be root's.
        let implied = PathBuf::from(STATIC_POD_RESOURCES);
        let is_root = rustix::process::geteuid().is_root();
        let skipped = (!is_root).then_some(implied);
        assert_eq!(done.skipped, Vec::from_iter(skipped));
        let ours = resources(into.path());
        let told = tree::differences(&ours, &resources(restored.kubernetes.path()));
        assert_eq!(told, []);
        let mut live = resources(&node.root().join("etc/kubernetes"));
        live.retain(|path, _| ours.contains_key(path));
        assert_eq!(tree::differences(&ours, &live), []);
        assert_eq!(tree::hash(&ours), tree::hash(&live));

        let listed = golden::run(
            &["list", backup.dir.to_str().expect("UTF-8"), "-o", "json"],
            &[],
        );
        let sets = listed.expect(0).json()["sets"].clone();
        assert_eq!(sets.as_array().expect("sets").len(), 1, "{sets}");
    }
}

#[test]
fn what_the_go_command_wrote_gets_its_directories_back() {
    let node = Node::new();
    // It takes the directories that were changed last, whatever the manifests say.
    let newer = node
        .root()
        .join("etc/kubernetes/static-pod-resources/etcd-pod-7");
    fs::write(newer.join("touched"), b"").expect("a change");
    let backup = node.go("go");
    assert_eq!(names(&backup.dir).len(), 2);
    let archive = fs::File::open(&backup.archive).expect("the archive");
    let report = check_archive(archive, &rules()).expect("it can be read");
    assert_eq!(report.findings, []);
    let revisions: BTreeMap<String, u64> = report
        .contents
        .revisions()
        .into_iter()
        .map(|found| (found.component, found.revision))
        .collect();
    assert_eq!(revisions, backup.revisions);
    assert_eq!(revisions["etcd"], 7);
    assert_eq!(revisions.len(), COMPONENTS.len());
    assert_eq!(
        stock::assert_stock_restorable(&backup.dir).revisions,
        backup.revisions
    );
    let (into, done) = unpack(&backup.archive);
    assert_eq!(done.entries, report.contents.entries.len());
    let ours = resources(into.path());
    let mut live = resources(&node.root().join("etc/kubernetes"));
    live.retain(|path, _| ours.contains_key(path));
    // On a node all of it is root's and its directories 0755, as they are made here.
    assert_eq!(tree::differences(&ours, &live), []);
}
