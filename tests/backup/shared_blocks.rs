//! Blocks that consecutive snapshots share, on a file system that can share them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Node, text};
use testbench::bins::{self, skip};
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::kube::OpenShift;
use testbench::node::NodeOptions;

/// A loop-mounted XFS image; unmounted when dropped.
struct Xfs(PathBuf);

impl Xfs {
    /// None where that cannot be, which is announced.
    fn mount(scratch: &Path) -> Option<Self> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cache = std::env::var_os("ETCD_DR_CACHE")
            .map_or_else(|| project.join(".cache"), |dir| project.join(dir));
        let mkfs = cache.join("xfs/sbin/mkfs.xfs");
        if !mkfs.is_file() {
            skip(
                "no mkfs.xfs here, so that sharing blocks is not tried: run scripts/fetch-servers.sh",
            );
            return None;
        }
        let (image, at) = (scratch.join("image"), scratch.join("xfs"));
        std::fs::create_dir(&at).expect("a mount point");
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(512 << 20).expect("its size");
        let made = Command::new(mkfs)
            .args(["-q", "-m", "reflink=1"])
            .arg(&image)
            .env("LD_LIBRARY_PATH", cache.join("xfs/lib"))
            .output()
            .expect("running mkfs.xfs");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mounted = Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&at)
            .output();
        let mounted = mounted.expect("running mount");
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
            skip(&format!(
                "no XFS image can be mounted, so that sharing blocks is not tried: {why}"
            ));
            return None;
        }
        Some(Self(at))
    }

    fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).expect("its space");
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        // The test may have failed with something open: lazily, then.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn blocks_are_shared_with_the_backup_before() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let scratch = tempfile::tempdir().expect("a folder");
    let Some(xfs) = Xfs::mount(scratch.path()) else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    Bulk::new(60, 500_000).write(&cluster);
    OpenShift::default().write(&cluster);
    let node = Node::of(&cluster, 0, &NodeOptions::default());
    let store = xfs.0.join("store");
    let first = node.backup(&store, &[]).expect(0).json();
    assert_eq!(
        first["sharedBytes"],
        serde_json::Value::Null,
        "there is none before"
    );
    let size = first["manifest"]["database"]["size"]
        .as_u64()
        .expect("a size");
    let before = xfs.used();
    for key in 0..5 {
        cluster.etcdctl_ok(&["put", &format!("/registry/x/{key}"), "changed"]);
    }
    let second = node.backup(&store, &[]).expect(0).json();
    let shared = second["sharedBytes"].as_u64().expect("bytes");
    let listed = node.run(&["list", text(&store), "-v"]).expect(0);
    assert!(
        listed
            .stdout
            .lines()
            .next()
            .is_some_and(|head| head.contains(" SHARED ")),
        "{listed}"
    );
    let listed = node
        .run(&["list", text(&store), "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(listed["sets"][1]["sharedBytes"], shared, "{listed}");
    let cost = xfs.used() - before;
    println!("a database of {size} bytes: {shared} shared, the second backup costs {cost}");
    assert!(
        shared > size / 2 && cost < size / 2,
        "{shared} shared, {cost} used of {size}"
    );
    node.run(&["verify", "--all", "--store", text(&store)])
        .expect(0);

    // The files are plain and independent: one goes, the other is whole; one changes, the other
    // does not.
    let snapshot = |set: &str| -> PathBuf {
        let entries = std::fs::read_dir(store.join(set)).expect("a set");
        let mut paths = entries.map(|entry| entry.expect("an entry").path());
        paths
            .find(|path| path.extension().is_some_and(|e| e == "db"))
            .expect("a snapshot")
    };
    std::fs::write(snapshot("backup-1"), vec![0; 1 << 20]).expect("harm");
    node.run(&["verify", "backup-2", "--store", text(&store)])
        .expect(0);
    std::fs::remove_dir_all(store.join("backup-1")).expect("a loss");
    node.run(&["verify", "backup-2", "--store", text(&store)])
        .expect(0);
    // Without one before that is whole there is nothing to share with.
    std::fs::remove_file(store.join("backup-2/backup.json")).expect("harm");
    let third = node.backup(&store, &[]).expect(0).json();
    assert_eq!(third["sharedBytes"], serde_json::Value::Null, "{third}");
}
