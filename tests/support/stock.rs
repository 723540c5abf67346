//! Backups as OpenShift's own programs make them, and what its restore script does with a folder.
//!
//! Made and judged by the programs' described behaviour (cluster-etcd-operator,
//! `bindata/etcd/cluster-backup.sh`, `cluster-restore.sh` and `pkg/cmd/backuprestore`), with the
//! same tools: `date`, `ls -v`, GNU tar.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use crate::process::{expect_success, write_private};

/// The components, in the order in which both programs archive them.
pub const COMPONENTS: [&str; 4] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "etcd",
];

const RESOURCES: &str = "static-pod-resources";

/// How `cluster-backup.sh` is run.
#[derive(Debug, Clone, Copy)]
pub struct ScriptRun<'a> {
    /// The node's time zone, as `TZ` has it; the stamp is in local time.
    pub zone: &'a str,
    /// Whether it was run with `--force`, which shows in the file names.
    pub force: bool,
}

impl Default for ScriptRun<'_> {
    fn default() -> Self {
        Self {
            zone: "UTC",
            force: false,
        }
    }
}

/// A backup that was made.
#[derive(Debug, Clone)]
pub struct StockBackup {
    /// The folder.
    pub dir: PathBuf,
    /// The snapshot in it.
    pub snapshot: PathBuf,
    /// The archive in it.
    pub archive: PathBuf,
    /// The revision of each component in the archive.
    pub revisions: BTreeMap<String, u64>,
}

impl StockBackup {
    fn new(dir: &Path, stamp: &str, revisions: BTreeMap<String, u64>) -> Self {
        Self {
            dir: dir.to_owned(),
            snapshot: dir.join(format!("snapshot_{stamp}.db")),
            archive: dir.join(format!("static_kuberesources_{stamp}.tar.gz")),
            revisions,
        }
    }

    /// The revisions' directories, relative to `/etc/kubernetes`, in the archive's order.
    fn dirs(&self) -> Vec<PathBuf> {
        let dir = |component: &&str| {
            let revision = self.revisions[*component];
            Path::new(RESOURCES).join(format!("{component}-pod-{revision}"))
        };
        COMPONENTS.iter().map(dir).collect()
    }
}

/// What `cluster-backup.sh DIR` leaves: the pair of files and nothing else, the revisions being
/// those that the live manifests name.
pub fn script_backup(root: &Path, snapshot: &Path, dir: &Path, run: ScriptRun<'_>) -> StockBackup {
    fs::create_dir_all(dir).expect("making the backup's folder");
    let output = Command::new("date")
        .arg("+%F_%H%M%S")
        .env("TZ", run.zone)
        .output();
    let mut stamp = expect_success("date", &output.expect("running date"))
        .trim_end()
        .to_owned();
    if run.force {
        stamp.push_str("__POSSIBLY_DIRTY__");
    }
    let kubernetes = root.join("etc/kubernetes");
    let revisions =
        COMPONENTS.map(|component| (component.to_owned(), named_revision(&kubernetes, component)));
    let backup = StockBackup::new(dir, &stamp, revisions.into());
    let output = Command::new("tar")
        .arg("-cpzf")
        .arg(&backup.archive)
        .arg("-C")
        .arg(&kubernetes)
        .args(backup.dirs())
        .output();
    expect_success("tar -cpzf", &output.expect("running tar"));
    private(&backup.archive);
    copy_snapshot(snapshot, &backup.snapshot);
    backup
}

/// What the Go `cluster-backup` leaves: archives of regular files only, all root's, the revisions
/// being those whose directories were changed last. Its stamp is the container's time, UTC.
pub fn go_backup(root: &Path, snapshot: &Path, dir: &Path) -> StockBackup {
    fs::create_dir_all(dir).expect("making the backup's folder");
    let stamp = jiff::Timestamp::now().strftime("%Y-%m-%d_%H%M%S");
    let kubernetes = root.join("etc/kubernetes");
    let revisions = COMPONENTS.map(|component| {
        (
            component.to_owned(),
            newest_revision(&kubernetes, component),
        )
    });
    let backup = StockBackup::new(dir, &stamp.to_string(), revisions.into());
    copy_snapshot(snapshot, &backup.snapshot);
    let file = fs::File::create_new(&backup.archive).expect("making the archive");
    let mut tar = Builder::new(GzEncoder::new(file, Compression::default()));
    for name in backup.dirs() {
        append_files(&mut tar, &kubernetes, &name);
    }
    let gzip = tar.into_inner().expect("ending the archive");
    gzip.finish().expect("ending the gzip stream");
    private(&backup.archive);
    backup
}

fn private(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("setting a mode");
}

fn copy_snapshot(from: &Path, to: &Path) {
    write_private(to, &fs::read(from).expect("reading the snapshot"));
}

fn digits(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().ok()
}

/// The first revision directory of a component in the text of its live manifest.
fn named_revision(kubernetes: &Path, component: &str) -> u64 {
    let path = kubernetes.join(format!("manifests/{component}-pod.yaml"));
    let text = fs::read_to_string(&path).expect("reading a live manifest");
    let mark = format!("{RESOURCES}/{component}-pod-");
    let mut named = text.split(mark.as_str()).skip(1).filter_map(digits);
    named.next().expect("a revision in the live manifest")
}

fn newest_revision(kubernetes: &Path, component: &str) -> u64 {
    let prefix = format!("{component}-pod-");
    let mut found: Vec<(SystemTime, u64)> = Vec::new();
    for entry in fs::read_dir(kubernetes.join(RESOURCES)).expect("listing the resources") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        if let Some(revision) = name.strip_prefix(&prefix).and_then(digits) {
            let changed = entry.metadata().and_then(|meta| meta.modified());
            found.push((changed.expect("a time"), revision));
        }
    }
    found.iter().max().expect("a revision on the disk").1
}

fn append_files<W: Write>(tar: &mut Builder<W>, kubernetes: &Path, name: &Path) {
    let path = kubernetes.join(name);
    let meta = fs::symlink_metadata(&path).expect("looking at a resource");
    if meta.is_dir() {
        let entries = fs::read_dir(&path).expect("listing a resource");
        let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name()).collect();
        names.sort();
        for below in names {
            append_files(tar, kubernetes, &name.join(below));
        }
        return;
    }
    if !meta.is_file() {
        return;
    }
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(meta.mtime()).expect("a time after 1970"));
    header.set_size(meta.size());
    let text = name.to_str().expect("UTF-8");
    if header.set_path(text).is_err() {
        // Go writes such a name as a PAX record, and what fits of it into the header.
        tar.append_pax_extensions([("path", text.as_bytes())])
            .expect("a PAX header");
        header.set_path(&text[..100]).expect("a short name");
    }
    header.set_cksum();
    let content = fs::File::open(&path).expect("opening a resource");
    tar.append(&header, content).expect("archiving a resource");
}

/// What OpenShift's restore script takes out of a folder.
#[derive(Debug)]
pub struct StockRestore {
    /// The snapshot that it picks.
    pub snapshot: PathBuf,
    /// The archive that it picks.
    pub archive: PathBuf,
    /// What it unpacks into `/etc/kubernetes`, with the manifests of releases up to 4.17.
    pub kubernetes: tempfile::TempDir,
    /// The revision of each component there.
    pub revisions: BTreeMap<String, u64>,
}

/// The newest of the files that a glob matches, by version sort: how OpenShift's script picks each
/// of the two, independently.
pub fn pick(dir: &Path, glob: &str) -> PathBuf {
    let script = format!(r#"ls -vd "$1"/{glob} | tail -1"#);
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script, "bash"])
        .arg(dir)
        .output()
        .expect("running bash");
    PathBuf::from(expect_success("ls -vd", &output).trim_end())
}

/// Does with a folder what `cluster-restore.sh` does, into a scratch `/etc/kubernetes`, and fails
/// where the script of any release would.
pub fn assert_stock_restorable(dir: &Path) -> StockRestore {
    let archive = pick(dir, "static_kuberesources*.tar.gz");
    let snapshot = pick(dir, "snapshot*.db");
    let size = fs::metadata(&snapshot).expect("a snapshot").len();
    assert_eq!(size % 512, 32, "a snapshot with its digest behind it");
    let kubernetes = tempfile::tempdir().expect("a folder");
    fs::create_dir(kubernetes.path().join("manifests")).expect("a folder");
    let output = Command::new("tar")
        .arg("-C")
        .arg(kubernetes.path())
        .arg("-xzf")
        .arg(&archive)
        .arg(RESOURCES)
        .output()
        .expect("running tar");
    expect_success("tar -xzf", &output);
    let mut revisions = BTreeMap::new();
    for entry in fs::read_dir(kubernetes.path().join(RESOURCES)).expect("what was unpacked") {
        let name = entry.expect("an entry").file_name();
        let name = name.into_string().expect("UTF-8");
        let (component, number) = name.rsplit_once("-pod-").expect("a revision");
        let number = number.parse().expect("a number");
        let before = revisions.insert(component.to_owned(), number);
        assert_eq!(before, None, "two revisions of {component}");
    }
    let mut expected = COMPONENTS.to_vec();
    expected.sort_unstable();
    assert_eq!(revisions.keys().collect::<Vec<_>>(), expected);
    for component in COMPONENTS {
        unpack_manifest(&archive, kubernetes.path(), component, revisions[component]);
    }
    StockRestore {
        snapshot,
        archive,
        kubernetes,
        revisions,
    }
}

/// Releases up to 4.17 take the live manifest out of the archive: the one entry whose name, the
/// sixth word of its line, ends as the manifest's, without its first two directories.
fn unpack_manifest(archive: &Path, kubernetes: &Path, component: &str, revision: u64) {
    let output = Command::new("tar").arg("-tvzf").arg(archive).output();
    let listed = expect_success("tar -tvzf", &output.expect("running tar"));
    let ending = format!("{component}-pod.yaml");
    let names: Vec<&str> = listed
        .lines()
        .filter(|line| line.ends_with(&ending))
        .map(|line| line.split_whitespace().nth(5).expect("a sixth word"))
        .collect();
    let [name] = names.as_slice() else {
        panic!("expected one entry that ends in {ending}, found {names:?}");
    };
    let manifests = kubernetes.join("manifests");
    let output = Command::new("tar")
        .arg("-C")
        .arg(&manifests)
        .args(["--strip-components=2", "-xzf"])
        .arg(archive)
        .arg(name)
        .output()
        .expect("running tar");
    expect_success("tar --strip-components=2", &output);
    assert!(
        manifests.join(&ending).is_file(),
        "{name} is not three deep"
    );
    assert_eq!(named_revision(kubernetes, component), revision);
}
