//! Stores to show: every kind of set there is, made of the one real set among the fixtures.

use std::path::{Path, PathBuf};

use serde_json::Value;

use testbench::golden::Placeholders;

/// When the sets claim to have been taken: long ago on whatever clock.
pub const CREATED: &str = "2025-06-01T02:00:00Z";

/// A folder that is gone with the test, and what is in it.
pub struct Shelf {
    dir: tempfile::TempDir,
}

impl Shelf {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("store")).expect("a store");
        Self { dir }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn store(&self) -> PathBuf {
        self.dir().join("store")
    }

    /// The store as an argument.
    pub fn store_text(&self) -> String {
        self.store().to_str().expect("UTF-8").to_owned()
    }

    /// What differs from run to run.
    pub fn placeholders(&self) -> Placeholders {
        Placeholders::default().with(self.dir().to_str().expect("UTF-8"), "DIR")
    }

    /// A copy of the real set, under a number.
    pub fn good(&self, number: u32) -> PathBuf {
        let to = self.store().join(format!("backup-{number}"));
        copy_set(&to);
        self.edit(number, |manifest| {
            manifest["id"] = format!("backup-{number}").into()
        });
        to
    }

    /// Changes a set's Manifest.
    pub fn edit(&self, number: u32, edit: impl FnOnce(&mut Value)) {
        let path = self.store().join(format!("backup-{number}/backup.json"));
        let mut manifest: Value =
            serde_json::from_slice(&std::fs::read(&path).expect("a Manifest")).expect("JSON");
        manifest["created"] = CREATED.into();
        edit(&mut manifest);
        std::fs::write(&path, format!("{manifest:#}\n")).expect("writing a Manifest");
    }

    /// A set that was taken although something was wrong.
    pub fn dirty(&self, number: u32) {
        self.good(number);
        self.edit(number, |manifest| {
            manifest["quality"] = serde_json::json!({"state": "dirty", "reasons": [
                {"check": "etcd-unhealthy-member", "message": "member master-1 does not answer: refused"},
                {"check": "before-first-cert-rotation", "message": "the cluster was created less than a day ago"},
            ]});
        });
    }

    /// Snapshot and archive as another program names them.
    pub fn pair(&self, dir: &Path, stamp: &str) {
        std::fs::create_dir_all(dir).expect("a folder");
        let copy = |from: PathBuf, to: String| {
            std::fs::copy(from, dir.join(to)).expect("copying");
        };
        copy(snapshot(&fixture()), format!("snapshot_{stamp}.db"));
        copy(
            resources(&fixture()),
            format!("static_kuberesources_{stamp}.tar.gz"),
        );
    }

    /// One of everything.
    pub fn one_of_each() -> Self {
        let shelf = Self::new();
        let store = shelf.store();
        shelf.good(1);
        shelf.dirty(2);
        std::fs::remove_file(shelf.good(3).join("backup.json")).expect("losing a Manifest");
        std::fs::remove_file(resources(&store.join("backup-3"))).expect("losing an archive");
        cut(&snapshot(&shelf.good(4)), 4096);
        shelf.pair(&store.join("backup-5"), "2025-05-05_050505");
        std::fs::remove_file(snapshot(&shelf.good(6))).expect("losing a snapshot");
        std::fs::write(shelf.good(7).join("backup.json"), "{\"schemaVersion\": 1, ").expect("half");
        shelf.good(8);
        shelf.edit(8, |manifest| manifest["schemaVersion"] = 2.into());
        shelf.good(12);
        std::os::unix::fs::symlink("backup-12", store.join("latest-backup")).expect("a link");

        shelf.pair(&store, "2025-01-02_030405");
        shelf.pair(&store, "2025-01-02_030405__POSSIBLY_DIRTY__");
        let job = store.join("backup-nightly-2025-03-01_020000");
        shelf.pair(&job, "2025-03-01_020004");
        let alone = "static_kuberesources_2025-04-04_040404.tar.gz";
        std::fs::copy(resources(&fixture()), store.join(alone)).expect("copying");
        std::fs::copy(snapshot(&fixture()), store.join("before-upgrade.db")).expect("copying");
        std::fs::create_dir(store.join(".staging-13")).expect("a staging directory");
        std::fs::write(store.join(".staging-13/snapshot"), [0; 2048]).expect("a part");
        // It is not ours, and is not shown.
        std::fs::create_dir(store.join("lost+found")).expect("a folder");
        std::fs::write(store.join("notes.txt"), "remember the milk\n").expect("a file");
        std::fs::write(store.join("snapshot_2025-01-02_030405.db.part"), "x").expect("a file");
        shelf
    }
}

/// The real set.
pub fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/store/backup-1")
}

fn copy_set(to: &Path) {
    std::fs::create_dir(to).expect("a set");
    for entry in std::fs::read_dir(fixture()).expect("the fixture") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copying");
    }
}

/// The file of a set whose name begins so.
pub fn file(set: &Path, prefix: &str) -> PathBuf {
    let mut found = std::fs::read_dir(set)
        .unwrap_or_else(|e| panic!("{}: {e}", set.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(prefix))
        });
    found
        .next()
        .unwrap_or_else(|| panic!("no {prefix} in {}", set.display()))
}

pub fn snapshot(set: &Path) -> PathBuf {
    file(set, "snapshot_")
}

pub fn resources(set: &Path) -> PathBuf {
    file(set, "static_kuberesources_")
}

/// Cuts so many bytes off a file's end.
pub fn cut(path: &Path, bytes: u64) {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a file");
    let length = file.metadata().expect("its length").len();
    file.set_len(length - bytes).expect("cutting it");
}

/// Flips the bits of one byte, counted from the end where negative.
pub fn flip(path: &Path, at: i64) {
    let mut bytes = std::fs::read(path).expect("a file");
    let length = i64::try_from(bytes.len()).expect("a small file");
    let at = usize::try_from(if at < 0 { length + at } else { at }).expect("an offset");
    bytes[at] ^= 0xff;
    std::fs::write(path, bytes).expect("a file");
}
