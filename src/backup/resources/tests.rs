mod extract;
mod hostile;
mod tools;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use tar::{Builder, EntryType, Header};

use super::*;
use crate::error::Kind;
use crate::finding::{Finding, Layer, Place, Severity};

const NODE_BASE: &str = "/etc/kubernetes";

/// A tree as one OpenShift revision has it, with all that makes archives hard.
struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let base = "static-pod-resources/etcd-pod-7";
        let long = "a-very-long-configmap-name-that-no-header-of-the-tar-format-has-room-for-itself-so-that-it-needs-help";
        tree.file(
            &format!("{base}/etcd-pod.yaml"),
            b"{\"kind\":\"Pod\"}\n",
            0o600,
        );
        tree.file(
            &format!("{base}/configmaps/scripts/run.sh"),
            b"#!/bin/sh\n",
            0o755,
        );
        tree.file(&format!("{base}/secrets/s/tls.key"), &[0xff; 70_000], 0o400);
        tree.file(&format!("{base}/secrets/s/empty"), b"", 0o600);
        tree.file(&format!("{base}/configmaps/{long}/key"), b"x", 0o600);
        tree.file(
            "static-pod-resources/kube-apiserver-pod-12/kube-apiserver-pod.yaml",
            b"{}",
            0o600,
        );
        tree.file(
            "static-pod-resources/etcd-certs/secrets/s/tls.key",
            b"k",
            0o600,
        );
        symlink("tls.key", tree.path(&format!("{base}/secrets/s/link"))).unwrap();
        symlink(
            format!("../{long}/key"),
            tree.path(&format!("{base}/configmaps/scripts/far")),
        )
        .unwrap();
        symlink(
            "/etc/kubernetes/static-pod-resources/etcd-pod-7/etcd-pod.yaml",
            tree.path(&format!("{base}/absolute")),
        )
        .unwrap();
        let sticky = tree.path(&format!("{base}/configmaps/scripts"));
        fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1750)).unwrap();
        let file = fs::File::options()
            .write(true)
            .open(tree.path(&format!("{base}/etcd-pod.yaml")));
        let past = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_600_000_000_500);
        file.unwrap().set_modified(past).unwrap();
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, content: &[u8], mode: u32) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Whether this file system and user can set such an attribute; a test that cannot says so.
    fn xattr(&self, name: &str, attribute: &str, value: &[u8]) -> bool {
        match lsetxattr(self.path(name), attribute, value, XattrFlags::empty()) {
            Ok(()) => true,
            Err(e) => {
                println!("SKIPPED attribute {attribute}: {e}");
                false
            }
        }
    }

    fn selection(&self) -> Selection {
        Selection {
            base: self.dir.path().to_path_buf(),
            node_base: Some(NODE_BASE.into()),
            entries: vec![
                "static-pod-resources/kube-apiserver-pod-12".into(),
                "static-pod-resources/etcd-pod-7".into(),
            ],
            ..Selection::default()
        }
    }
}

fn rules() -> Rules {
    Rules {
        tops: vec![STATIC_POD_RESOURCES.into()],
        node_base: Some(NODE_BASE.into()),
        ..Rules::default()
    }
}

fn written(selection: &Selection) -> (Vec<u8>, ArchiveContents) {
    let mut bytes = Vec::new();
    let contents = write_archive(selection, &mut bytes).unwrap();
    (bytes, contents)
}

fn check(bytes: &[u8]) -> ArchiveReport {
    check_archive(bytes, &rules()).unwrap()
}

fn good(bytes: &[u8]) -> ArchiveContents {
    let report = check(bytes);
    assert_eq!(report.findings, []);
    report.contents
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && errors.is_empty(),
        "{program} {arguments:?}: {errors}"
    );
    text
}

#[test]
fn what_was_written_is_found_again_and_is_the_tree() {
    let tree = Tree::new();
    let selection = tree.selection();
    let (bytes, written) = written(&selection);
    let read = good(&bytes);
    assert_eq!(read.entries, written.entries);
    assert_eq!(compare_with_tree(&read, &selection).unwrap(), []);
    let first = &read.entries[0];
    assert_eq!(
        first.name,
        Path::new("static-pod-resources/kube-apiserver-pod-12")
    );
    assert_eq!(first.kind, EntryKind::Directory);
    let manifest = read
        .entry("static-pod-resources/etcd-pod-7/etcd-pod.yaml")
        .unwrap();
    assert_eq!((manifest.mode, manifest.modified), (0o600, 1_600_000_000));
    let scripts = read
        .entry("static-pod-resources/etcd-pod-7/configmaps/scripts")
        .unwrap();
    assert_eq!(scripts.mode, 0o1750);
    assert_eq!(read.entry("static-pod-resources/etcd-certs"), None);
    assert_eq!(read.content_bytes(), 15 + 10 + 70_000 + 1 + 2);
    let revisions: Vec<_> = read
        .revisions()
        .into_iter()
        .map(|r| (r.component, r.revision, r.has_manifest))
        .collect();
    assert_eq!(
        revisions,
        [
            ("etcd".into(), 7, true),
            ("kube-apiserver".into(), 12, true)
        ]
    );
    // The same tree makes the same bytes.
    let mut again = Vec::new();
    write_archive(&selection, &mut again).unwrap();
    assert_eq!(again, bytes);
}

#[test]
fn attributes_and_owners_go_round() {
    let tree = Tree::new();
    let file = "static-pod-resources/etcd-pod-7/etcd-pod.yaml";
    let dir = "static-pod-resources/etcd-pod-7/secrets";
    let label = b"system_u:object_r:kubernetes_file_t:s0\0";
    let set = [
        tree.xattr(file, "security.selinux", label),
        tree.xattr(dir, "security.selinux", label),
        tree.xattr(file, "user.lines=%3D", b"one\n2 two=\n\0"),
        tree.xattr(file, "user.empty", b""),
        tree.xattr(file, "user.large", &[7; 3000]),
        tree.xattr(
            "static-pod-resources/etcd-pod-7/secrets/s/link",
            "security.selinux",
            label,
        ),
    ];
    if let Err(e) = std::os::unix::fs::lchown(tree.path(file), Some(3_000_000), Some(7)) {
        println!("SKIPPED owners: {e}");
    }
    let selection = tree.selection();
    let (bytes, contents) = written(&selection);
    let read = good(&bytes);
    assert_eq!(read.entries, contents.entries);
    assert_eq!(compare_with_tree(&read, &selection).unwrap(), []);
    let found: usize = read.entries.iter().map(|e| e.xattrs.len()).sum();
    assert_eq!(found, set.iter().filter(|set| **set).count());

    // GNU tar reads them: with its own switch it restores them.
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("a"), &bytes).unwrap();
    let (archive, target) = (out.path().join("a"), out.path().to_str().unwrap());
    run(
        "tar",
        &[
            "-C",
            target,
            "-xzf",
            archive.to_str().unwrap(),
            "static-pod-resources",
        ],
    );
    let all = [
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-C",
        target,
        "-xzf",
    ];
    run("tar", &[&all[..], &[archive.to_str().unwrap()]].concat());
    let restored = Selection {
        base: out.path().into(),
        ..selection.clone()
    };
    assert_eq!(compare_with_tree(&read, &restored).unwrap(), []);

    if set[0] {
        let other = b"system_u:object_r:etc_t:s0\0";
        assert!(tree.xattr(file, "security.selinux", other));
        let told = compare_with_tree(&read, &selection).unwrap();
        assert_eq!(
            told[0].to_string(),
            format!("{file}: different extended attributes")
        );
    }
}

#[test]
fn each_difference_from_the_tree_is_reported() {
    let tree = Tree::new();
    let selection = tree.selection();
    let read = good(&written(&selection).0);
    let at = |name: &str| tree.path(&format!("static-pod-resources/etcd-pod-7/{name}"));
    let told = |what: &str| {
        let found = compare_with_tree(&read, &selection).unwrap();
        assert!(
            found.iter().any(|d| d.what.contains(what)),
            "{what}: {found:?}"
        );
    };
    let mtime = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let manifest = at("etcd-pod.yaml");
    let before = mtime(&manifest);
    fs::write(&manifest, b"{\"kind\":\"dop\"}\n").unwrap();
    fs::File::options()
        .write(true)
        .open(&manifest)
        .unwrap()
        .set_modified(before)
        .unwrap();
    let found = compare_with_tree(&read, &selection).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].what, "different content");
    fs::set_permissions(&manifest, fs::Permissions::from_mode(0o644)).unwrap();
    told("different mode");
    fs::write(at("new"), b"").unwrap();
    told("not in the archive");
    let script = fs::File::options()
        .write(true)
        .open(at("configmaps/scripts/run.sh"))
        .unwrap();
    script.set_modified(before).unwrap();
    told("different modification time");
    fs::remove_file(at("secrets/s/empty")).unwrap();
    told("only in the archive");
    fs::remove_file(at("secrets/s/link")).unwrap();
    symlink("empty", at("secrets/s/link")).unwrap();
    told("different target");
    fs::remove_file(at("absolute")).unwrap();
    fs::write(at("absolute"), b"").unwrap();
    told("different type");
}

#[test]
fn skipped_directories_stay_out_and_others_keep_their_names() {
    let tree = Tree::new();
    tree.file(
        "static-pod-resources/etcd-certs/staging/cert-sync/x",
        b"half",
        0o600,
    );
    tree.file("srv/enc.yaml", b"secret", 0o600);
    let selection = Selection {
        entries: vec!["static-pod-resources/etcd-certs".into()],
        skip: vec!["static-pod-resources/etcd-certs/staging".into()],
        elsewhere: vec![(tree.path("srv/enc.yaml"), "outside/srv/enc.yaml".into())],
        ..tree.selection()
    };
    let (bytes, _) = written(&selection);
    let report = check_archive(bytes.as_slice(), &Rules::default()).unwrap();
    assert_eq!(report.findings, []);
    let names: Vec<_> = report
        .contents
        .entries
        .iter()
        .map(|e| e.name.to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "static-pod-resources/etcd-certs",
            "static-pod-resources/etcd-certs/secrets",
            "static-pod-resources/etcd-certs/secrets/s",
            "static-pod-resources/etcd-certs/secrets/s/tls.key",
            "outside/srv/enc.yaml",
        ]
    );
    assert_eq!(compare_with_tree(&report.contents, &selection).unwrap(), []);
}

#[test]
fn what_cannot_be_archived_is_left_out_and_named() {
    let left = |make: &dyn Fn(&Tree)| {
        let tree = Tree::new();
        make(&tree);
        let selection = tree.selection();
        let contents = good(&written(&selection).0);
        assert_eq!(compare_with_tree(&contents, &selection).unwrap(), []);
        let mut left = selection.left_out().unwrap();
        assert!(left.len() <= 1, "{left:?}");
        left.pop().map(|left| (left.why, left.harmless))
    };
    let pipe = |tree: &Tree, kind| {
        let path = tree.path("static-pod-resources/etcd-pod-7/special");
        mknodat(CWD, path, kind, Mode::RUSR, rustix::fs::makedev(1, 3)).unwrap();
    };
    let (why, harmless) = left(&|tree| pipe(tree, FileType::Fifo)).unwrap();
    assert!(why.contains("a named pipe") && !harmless, "{why}");
    let (why, harmless) = left(&|tree| pipe(tree, FileType::Socket)).unwrap();
    assert!(why.contains("a socket") && harmless, "{why}");
    let big = |tree: &Tree| {
        let path = tree.path("static-pod-resources/etcd-pod-7/big");
        fs::File::create(path)
            .unwrap()
            .set_len((256 << 20) + 1)
            .unwrap();
    };
    let (why, harmless) = left(&big).unwrap();
    assert!(why.contains("larger than 256 MiB") && !harmless, "{why}");
    let link = |tree: &Tree, target: &str| {
        symlink(target, tree.path("static-pod-resources/etcd-pod-7/out")).unwrap();
    };
    let (why, harmless) = left(&|tree| link(tree, "/etc/absent")).unwrap();
    assert!(
        why.contains("/etc/absent, which does not exist") && !harmless,
        "{why}"
    );
    let (why, harmless) = left(&|tree| link(tree, "../../../no-such-file")).unwrap();
    assert!(why.contains("does not exist") && !harmless, "{why}");

    // What an external PKI links to comes as its content.
    let external = tempfile::tempdir().unwrap();
    fs::write(external.path().join("ca.crt"), "external").unwrap();
    let external = external.path().to_str().unwrap();
    for target in [external.to_owned(), format!("{external}/ca.crt")] {
        let tree = Tree::new();
        link(&tree, &target);
        assert_eq!(tree.selection().left_out().unwrap(), []);
        let contents = good(&written(&tree.selection()).0);
        let mut name = PathBuf::from("static-pod-resources/etcd-pod-7/out");
        if !target.ends_with("crt") {
            name.push("ca.crt");
        }
        let entry = contents.entry(&name).unwrap();
        assert!(
            matches!(entry.kind, EntryKind::File { size: 8, .. }),
            "{entry:?}"
        );
        assert_eq!(compare_with_tree(&contents, &tree.selection()).unwrap(), []);
    }

    let tree = Tree::new();
    let mut selection = tree.selection();
    selection.entries.push("absent".into());
    let failure = write_archive(&selection, io::sink()).unwrap_err();
    assert_eq!(failure.io_kind(), Some(io::ErrorKind::NotFound));
    selection.entries = vec!["../x".into()];
    let left = selection.left_out().unwrap();
    assert!(left[0].why.contains("\"..\""), "{left:?}");
}

/// Does something to the tree once the archive has begun.
struct Meddler<'a> {
    act: Option<&'a dyn Fn()>,
}

impl Write for Meddler<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if let Some(act) = self.act.take() {
            act();
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_during_the_backup_is_named() {
    type Act = (&'static str, fn(&Path));
    let acts: [Act; 5] = [
        ("tls.key", |path| fs::write(path, [1; 80_000]).unwrap()),
        ("tls.key", |path| fs::write(path, b"short").unwrap()),
        ("tls.key", |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, [0xff; 70_000]).unwrap();
        }),
        ("empty", |path| fs::write(path, b"x").unwrap()),
        ("link", |path| {
            fs::remove_file(path).unwrap();
            symlink("empty", path).unwrap();
        }),
    ];
    for (name, act) in acts {
        let tree = Tree::new();
        let path = tree
            .path("static-pod-resources/etcd-pod-7/secrets/s")
            .join(name);
        // Large enough that the archive is under way when the file's turn comes.
        let noise: Vec<u8> = (0..400_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        tree.file(
            "static-pod-resources/kube-apiserver-pod-12/noise",
            &noise,
            0o600,
        );
        let failure = write_archive(
            &tree.selection(),
            Meddler {
                act: Some(&|| act(&path)),
            },
        );
        let failure = failure.unwrap_err();
        assert_eq!(
            failure.refusal(),
            Some("resources-changed"),
            "{name}: {failure}"
        );
        assert!(failure.to_string().contains("secrets/s"), "{failure}");
    }
}

#[test]
fn a_full_store_is_the_stores_failure() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.0 < buf.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= buf.len();
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let tree = Tree::new();
    let size = written(&tree.selection()).0.len();
    for room in [0, 1, 100, size / 2, size - 1] {
        let failure = write_archive(&tree.selection(), Full(room)).unwrap_err();
        assert_eq!(failure.kind(), Kind::Store, "{failure}");
        assert_eq!(
            failure.io_kind(),
            Some(io::ErrorKind::StorageFull),
            "{room}"
        );
    }
    assert!(write_archive(&tree.selection(), Full(size)).is_ok());
}

#[test]
fn certificates_in_an_archive_are_read() {
    let tree = Tree::new();
    let mut params = rcgen::CertificateParams::new(vec!["etcd".into()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2031, 5, 6);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    tree.file(
        "static-pod-resources/etcd-pod-7/secrets/s/tls.crt",
        pem.as_bytes(),
        0o600,
    );
    let read = good(&written(&tree.selection()).0);
    let leaf = read.certificates.earliest_leaf().unwrap();
    assert_eq!(leaf.not_after, "2031-05-06T00:00:00Z".parse().unwrap());
    assert!(leaf.path.ends_with("secrets/s/tls.crt"));
}

fn arbitrary_tree() -> impl Strategy<Value = Vec<(String, Vec<u8>, u32, i64)>> {
    let name = prop::collection::vec("[a-z \u{e4}\\\\%=.-]{1,60}", 1..5).prop_map(|parts| {
        let parts: Vec<String> = parts.iter().map(|part| format!("x{part}")).collect();
        parts.join("/")
    });
    let file = (
        name,
        prop::collection::vec(any::<u8>(), 0..2000),
        0u32..0o7777,
        0i64..1 << 33,
    );
    prop::collection::vec(file, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_goes_round(files in arbitrary_tree()) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join(STATIC_POD_RESOURCES).join("etcd-pod-1");
        fs::create_dir_all(&base).unwrap();
        for (name, content, mode, time) in &files {
            let path = base.join(name);
            if fs::create_dir_all(path.parent().unwrap()).is_err() || fs::write(&path, content).is_err() {
                continue;
            }
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(*time as u64);
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            prop_assert!(fs::metadata(&path).unwrap().mode() & 0o7777 == *mode);
        }
        let selection = Selection {
            base: dir.path().into(),
            entries: vec![Path::new(STATIC_POD_RESOURCES).join("etcd-pod-1")],
            ..Selection::default()
        };
        let (bytes, contents) = written(&selection);
        let report = check(&bytes);
        prop_assert_eq!(&report.findings, &vec![]);
        prop_assert_eq!(&report.contents.entries, &contents.entries);
        prop_assert_eq!(compare_with_tree(&report.contents, &selection).unwrap(), vec![]);
    }
}
