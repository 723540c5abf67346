//! Unpacking, with GNU tar as the judge.

use super::hostile::Raw;
use super::tools::go_command;
use super::*;
use crate::backup::resources::extract::{Durability, extract};
use crate::sys::tree::{Node, NodeKind, Options, describe, differences, hash};

/// Everything of a tree but the root's own entry, which is the test's.
fn tree_of(dir: &Path) -> BTreeMap<PathBuf, Node> {
    let options = Options {
        modified: true,
        ..Options::default()
    };
    let mut found = describe(dir, &options).unwrap();
    found.remove(Path::new(""));
    found
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("into")).unwrap();
        Self { dir }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("into")
    }

    fn unpack(&self, bytes: &[u8], only: &[&str]) -> crate::error::Result<Extracted> {
        let archive = self.dir.path().join("a.tar.gz");
        fs::write(&archive, bytes).unwrap();
        let only: Vec<PathBuf> = only.iter().map(PathBuf::from).collect();
        extract_archive(&archive, &self.target(), &only, &rules())
    }

    /// What GNU tar makes of the same archive, beside it.
    fn gnu_tar(&self, more: &[&str]) -> PathBuf {
        let into = self.dir.path().join("gnu");
        fs::create_dir(&into).unwrap();
        let archive = self.dir.path().join("a.tar.gz");
        let fixed = [
            "-C",
            into.to_str().unwrap(),
            "-xpzf",
            archive.to_str().unwrap(),
        ];
        run("tar", &[&fixed[..], more].concat());
        into
    }

    fn is_untouched(&self) -> bool {
        let outside = fs::read_dir(self.dir.path()).unwrap().count();
        fs::read_dir(self.target()).unwrap().count() == 0 && outside == 2
    }
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED trees with owners: not root");
    }
    root
}

/// A tree with owners, set-id bits, attributes, and directories that cannot be written to.
fn hard_tree() -> Tree {
    let tree = Tree::new();
    let base = "static-pod-resources/etcd-pod-7";
    let key = format!("{base}/secrets/s/tls.key");
    tree.file(&format!("{base}/set-id"), b"#!/bin/sh\n", 0o6755);
    tree.file(&format!("{base}/none"), b"x", 0o000);
    tree.xattr(&key, "user.note", b"a\n=%\0");
    let label = b"system_u:object_r:kubernetes_file_t:s0\0";
    tree.xattr(&key, "security.selinux", label);
    tree.xattr(&format!("{base}/secrets/s"), "security.selinux", label);
    tree.xattr(&format!("{base}/secrets/s/link"), "security.selinux", label);
    let own = |name: &str, uid, gid| {
        std::os::unix::fs::lchown(tree.path(&format!("{base}/{name}")), uid, gid).unwrap();
    };
    own("secrets/s/link", Some(12), Some(13));
    own("secrets/s", Some(3_000_000), Some(7));
    own("set-id", Some(14), Some(15));
    let mode = |name: &str, mode| {
        let path = tree.path(&format!("{base}/{name}"));
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // A change of owner took the bits away.
    mode("set-id", 0o6755);
    mode("secrets/s", 0o500);
    mode("secrets", 0o3575);
    tree
}

#[test]
fn what_was_written_comes_back_and_makes_the_same_archive() {
    if !root() {
        return;
    }
    let tree = hard_tree();
    let selection = tree.selection();
    let (bytes, contents) = written(&selection);
    let place = Place::new();
    let done = place.unpack(&bytes, &[]).unwrap();
    assert_eq!(done.entries, contents.entries.len());
    assert_eq!(done.bytes, contents.content_bytes());
    assert_eq!(done.skipped, Vec::<PathBuf>::new());
    let restored = Selection {
        base: place.target(),
        ..selection
    };
    assert_eq!(compare_with_tree(&contents, &restored).unwrap(), []);
    let (again, _) = written(&restored);
    assert!(again == bytes, "another archive of the same tree");
    let top = fs::metadata(place.target().join(STATIC_POD_RESOURCES)).unwrap();
    assert_eq!(top.mode() & 0o7777, 0o755);
    let failure = place.unpack(&bytes, &[]).unwrap_err();
    assert_eq!(failure.refusal(), Some("target-not-empty"));
}

#[test]
fn to_look_at_it_the_same_tree_is_made() {
    if !root() {
        return;
    }
    let (bytes, _) = written(&hard_tree().selection());
    let (kept, looked_at) = (Place::new(), Place::new());
    let done = kept.unpack(&bytes, &[]).unwrap();
    let archive = kept.dir.path().join("a.tar.gz");
    assert_eq!(
        extract_to_look(&archive, &looked_at.target(), &rules()).unwrap(),
        done
    );
    // The top is in no archive, and is as old as its making.
    let tree = |place: &Place| {
        let mut tree = tree_of(&place.target());
        assert!(tree.remove(Path::new("static-pod-resources")).is_some());
        tree
    };
    assert_eq!(tree(&looked_at), tree(&kept));
}

fn stock(tree: &Tree, format: &str) -> Vec<u8> {
    let out = tree.path("stock.tar.gz");
    run(
        "tar",
        &[
            "-cpzf",
            out.to_str().unwrap(),
            &format!("--format={format}"),
            "-C",
            tree.dir.path().to_str().unwrap(),
            "static-pod-resources/kube-apiserver-pod-12",
            "static-pod-resources/etcd-pod-7",
        ],
    );
    fs::read(out).unwrap()
}

#[test]
fn what_gnu_tar_wrote_becomes_what_gnu_tar_makes_of_it() {
    if !root() {
        return;
    }
    let tree = hard_tree();
    let base = tree.path("static-pod-resources/etcd-pod-7/configmaps/scripts");
    fs::hard_link(base.join("run.sh"), base.join("zz")).unwrap();
    fs::hard_link(base.join("run.sh"), base.join("aa")).unwrap();
    fs::hard_link(base.join("run.sh"), base.join("../../mm")).unwrap();
    for format in ["gnu", "oldgnu", "posix"] {
        let place = Place::new();
        let done = place.unpack(&stock(&tree, format), &[]).unwrap();
        let gnu = place.gnu_tar(&["--numeric-owner", "--delay-directory-restore"]);
        let (mut ours, mut theirs) = (tree_of(&place.target()), tree_of(&gnu));
        for tree in [&mut ours, &mut theirs] {
            for node in tree.values_mut() {
                // POSIX format has fractions, which the archive's reader rounds down; what is
                // not in the archive has the time it was made at.
                node.modified = node.modified.map(|(seconds, _)| (seconds, 0));
            }
            tree.get_mut(Path::new(STATIC_POD_RESOURCES))
                .unwrap()
                .modified = None;
        }
        assert_eq!(differences(&ours, &theirs), [], "{format}");
        assert_eq!(hash(&ours), hash(&theirs));
        let name = "static-pod-resources/etcd-pod-7/mm";
        let links = |dir: &Path| fs::metadata(dir.join(name)).unwrap().nlink();
        assert_eq!((links(&place.target()), links(&gnu)), (4, 4));
        let content: u64 = 70_000 + 15 + 10 + 1 + 2 + 10 + 1;
        assert_eq!(done.bytes, content, "a link's content counts once");
    }
}

#[test]
fn attributes_come_back_as_gnu_tar_puts_them() {
    if !root() {
        return;
    }
    let tree = hard_tree();
    let place = Place::new();
    place.unpack(&written(&tree.selection()).0, &[]).unwrap();
    let gnu = place.gnu_tar(&["--numeric-owner", "--xattrs", "--xattrs-include=*"]);
    let (mut ours, mut theirs) = (tree_of(&place.target()), tree_of(&gnu));
    let top = Path::new(STATIC_POD_RESOURCES);
    assert!(ours.remove(top).is_some() && theirs.remove(top).is_some());
    let with = ours.values().filter(|node| !node.xattrs.is_empty()).count();
    println!("{with} nodes with attributes");
    assert_eq!(differences(&ours, &theirs), []);
}

#[test]
fn what_the_go_command_wrote_gets_its_directories() {
    let tree = Tree::new();
    let place = Place::new();
    let done = place.unpack(&go_command(&tree), &[]).unwrap();
    let gnu = place.gnu_tar(&["--numeric-owner"]);
    let (mut ours, mut theirs) = (tree_of(&place.target()), tree_of(&gnu));
    let files = |tree: &BTreeMap<PathBuf, Node>| {
        let is_file = |node: &&Node| matches!(node.kind, NodeKind::File { .. });
        tree.values().filter(is_file).count()
    };
    assert_eq!((files(&ours), done.entries), (6, 6));
    for tree in [&mut ours, &mut theirs] {
        for node in tree.values_mut().filter(|n| n.kind == NodeKind::Directory) {
            node.modified = None;
        }
    }
    let told = differences(&ours, &theirs);
    // GNU tar's directories have the umask's mode; these have 0755 whatever it is.
    let others: Vec<_> = told
        .iter()
        .filter(|d| !d.what.starts_with("mode 0755"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    for node in ours.values().filter(|n| n.kind == NodeKind::Directory) {
        assert_eq!(node.mode, 0o755);
        assert!((node.uid, node.gid) == (0, 0) || !root());
    }
}

#[test]
fn a_part_is_unpacked_alone_and_links_to_the_rest_become_files() {
    let tree = Tree::new();
    let key = tree.path("static-pod-resources/kube-apiserver-pod-12/a.key");
    fs::write(&key, b"secret").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o440)).unwrap();
    for name in ["l1", "configmaps/l2"] {
        let to = tree.path("static-pod-resources/etcd-pod-7").join(name);
        fs::hard_link(&key, to).unwrap();
    }
    let bytes = stock(&tree, "gnu");
    let whole = good(&bytes);
    let links = |e: &&Entry| matches!(e.kind, EntryKind::HardLink { .. });
    assert_eq!(whole.entries.iter().filter(links).count(), 2);
    let place = Place::new();
    let done = place
        .unpack(&bytes, &["static-pod-resources/etcd-pod-7"])
        .unwrap();
    let expected = whole
        .entries
        .iter()
        .filter(|e| e.name.starts_with("static-pod-resources/etcd-pod-7"))
        .count();
    assert_eq!(done.entries, expected);
    let gone = place
        .target()
        .join("static-pod-resources/kube-apiserver-pod-12");
    assert!(!gone.exists());
    let mut restored = Selection {
        base: place.target(),
        ..tree.selection()
    };
    restored.entries.remove(0);
    let mut mine = tree.selection();
    mine.entries.remove(0);
    let (_, of_tree) = written(&mine);
    assert_eq!(compare_with_tree(&of_tree, &restored).unwrap(), []);
    let meta = |name: &str| {
        let path = "static-pod-resources/etcd-pod-7";
        fs::metadata(place.target().join(path).join(name)).unwrap()
    };
    assert_eq!(meta("l1").ino(), meta("configmaps/l2").ino());
    assert_eq!(meta("l1").mode() & 0o7777, 0o440);

    let place = Place::new();
    let one = "static-pod-resources/etcd-pod-7/secrets/s/tls.key";
    let done = place.unpack(&bytes, &[one]).unwrap();
    assert_eq!((done.entries, done.bytes), (1, 70_000));
    let place = Place::new();
    for missing in ["static-pod-resources/etcd-pod-8", "..", "/etc", "static"] {
        let failure = place.unpack(&bytes, &[one, missing]).unwrap_err();
        assert_eq!(failure.kind(), Kind::BadBackup);
        assert!(failure.to_string().contains(missing), "{failure}");
        assert!(place.is_untouched());
    }
}

fn refused(bytes: &[u8], what: &str) {
    let place = Place::new();
    let failure = match place.unpack(bytes, &[]) {
        Err(failure) => failure,
        Ok(done) => panic!("{what}: unpacked {done:?}"),
    };
    assert_eq!(failure.kind(), Kind::BadBackup, "{failure}");
    let text = failure.to_string();
    assert!(
        text.contains("a.tar.gz") && text.contains("expected"),
        "{text}"
    );
    assert!(place.is_untouched(), "{what}: {text}");
}

#[test]
fn hostile_archives_leave_nothing() {
    let top = "static-pod-resources/etcd-pod-1";
    let below = |name: &str| format!("{top}/{name}");
    let link = |to: &str| {
        Raw::default()
            .entry(b'2', below("l").as_bytes(), to.as_bytes(), b"")
            .file(&below("l/x"))
    };
    let special = |kind| {
        Raw::default()
            .file(&below("f"))
            .entry(kind, below("s").as_bytes(), b"", b"")
    };
    let cases = [
        ("absolute", Raw::default().file("/etc/passwd")),
        ("dots", Raw::default().file(&below("../../../x"))),
        ("a write through a link out", link("/etc")),
        ("a write through a relative link out", link("../../..")),
        ("a write through a link inside", link("m")),
        (
            "a link in place of a directory",
            Raw::default()
                .file(&below("l/x"))
                .entry(b'2', below("l").as_bytes(), b"/etc", b""),
        ),
        (
            "a hard link out",
            Raw::default().entry(b'1', below("h").as_bytes(), b"/etc/shadow", b""),
        ),
        (
            "a hard link to a link",
            Raw::default()
                .entry(b'2', below("l").as_bytes(), b"f", b"")
                .entry(b'1', below("h").as_bytes(), below("l").as_bytes(), b""),
        ),
        ("a character device", special(b'3')),
        ("a block device", special(b'4')),
        ("a named pipe", special(b'6')),
        (
            "a name twice",
            Raw::default().file(&below("f")).file(&below("f")),
        ),
        (
            "a file that is a directory, too",
            Raw::default().file(&below("f")).file(&below("f/g")),
        ),
        (
            "an owner that the system takes for none",
            Raw::default()
                .entry(b'x', b"x", b"", b"18 uid=4294967295\n")
                .file(&below("f")),
        ),
        ("another top", Raw::default().file("manifests/evil.yaml")),
    ];
    for (what, raw) in cases {
        refused(&raw.end(), what);
    }
}

#[test]
fn bombs_are_refused_before_anything_is_written() {
    let name = "static-pod-resources/etcd-pod-1/f";
    let small = |change: &dyn Fn(&mut Rules)| {
        let place = Place::new();
        let archive = place.dir.path().join("a.tar.gz");
        let many = (0..20).fold(Raw::default(), |raw, i| raw.file(&format!("{name}{i}")));
        fs::write(&archive, many.end()).unwrap();
        let mut rules = rules();
        change(&mut rules);
        let failure = extract_archive(&archive, &place.target(), &[], &rules).unwrap_err();
        assert_eq!(failure.kind(), Kind::BadBackup, "{failure}");
        assert!(place.is_untouched());
        failure.to_string()
    };
    small(&|rules| rules.max_entries = 19);
    small(&|rules| rules.max_unpacked = 10_000);
    small(&|rules| rules.max_file = 0);
    small(&|rules| rules.max_kept = 500);
    // Within all other bounds, but a thousandfold of its own size.
    let zeros = vec![0; 20 << 20];
    refused(
        &Raw::default()
            .entry(b'0', name.as_bytes(), b"", &zeros)
            .end(),
        "a dense archive",
    );
    let deep = format!("static-pod-resources/{}f", "a/".repeat(30));
    assert!(deep.len() < 100);
    let long = [deep.as_bytes(), &b"/a".repeat(40), b"\0"].concat();
    refused(
        &Raw::default()
            .entry(b'L', b"././@LongLink", b"", &long)
            .file("x")
            .end(),
        "too deep a name",
    );
}

#[test]
fn a_cut_or_flipped_archive_leaves_nothing() {
    let tree = Tree::new();
    // Small, so that every bit can be tried.
    let selection = Selection {
        entries: vec!["static-pod-resources/kube-apiserver-pod-12".into()],
        ..tree.selection()
    };
    let (bytes, _) = written(&selection);
    for cut in 0..bytes.len() {
        refused(&bytes[..cut], &format!("cut to {cut}"));
    }
    let mut harmless = 0;
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let place = Place::new();
        match place.unpack(&flipped, &[]) {
            Err(_) => assert!(place.is_untouched(), "bit {bit}"),
            Ok(_) => {
                // Some bits of gzip's header and of its tables mean nothing for the content.
                harmless += 1;
                let restored = Selection {
                    base: place.target(),
                    ..selection.clone()
                };
                assert_eq!(written(&restored).0, bytes);
            }
        }
    }
    println!("{harmless} harmless bits of {}", bytes.len() * 8);
    assert!(harmless < bytes.len());

    // The tar stream cut at each of its blocks, in a gzip member that is whole.
    let mut stream = Vec::new();
    GzDecoder::new(bytes.as_slice())
        .read_to_end(&mut stream)
        .unwrap();
    for blocks in 0..stream.len() / 512 {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&stream[..blocks * 512]).unwrap();
        refused(&gzip.finish().unwrap(), &format!("{blocks} blocks"));
    }
}

#[test]
fn an_archive_that_changes_between_the_readings_is_noticed() {
    let tree = Tree::new();
    let (bytes, _) = written(&tree.selection());
    tree.file(
        "static-pod-resources/etcd-pod-7/secrets/s/empty",
        b"x",
        0o600,
    );
    let (other, _) = written(&tree.selection());
    let place = Place::new();
    let archive = place.dir.path().join("a.tar.gz");
    fs::write(&archive, &bytes).unwrap();
    let swap = || fs::write(&archive, &other).unwrap();
    let synced = Durability::Synced;
    let failure = extract(&archive, &place.target(), &[], &rules(), synced, swap).unwrap_err();
    assert_eq!(failure.kind(), Kind::BadBackup);
    assert!(failure.to_string().contains("a moment ago"), "{failure}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tree_goes_round(
        files in prop::collection::btree_map("[a-c]{1,2}(/[d-f]{1,2}){0,3}", (0u32..0o10000, prop::collection::vec(any::<u8>(), 0..300)), 0..12)
    ) {
        let tree = Tree::new();
        for (name, (mode, content)) in &files {
            let path = format!("static-pod-resources/etcd-pod-7/any/{name}");
            let full = tree.path(&path);
            if full.exists() || full.ancestors().skip(1).any(|p| p.is_file()) {
                continue;
            }
            tree.file(&path, content, *mode);
        }
        let place = Place::new();
        if rustix::process::geteuid().is_root() {
            let (bytes, contents) = written(&tree.selection());
            place.unpack(&bytes, &[]).unwrap();
            let restored = Selection { base: place.target(), ..tree.selection() };
            prop_assert_eq!(compare_with_tree(&contents, &restored).unwrap(), vec![]);
            prop_assert_eq!(written(&restored).0, bytes);
        }
    }
}
