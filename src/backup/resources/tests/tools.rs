//! What other programs write and read: GNU tar, Go, Python.

use super::*;

#[test]
fn gnu_tar_extracts_what_was_written() {
    let tree = Tree::new();
    let (bytes, contents) = written(&tree.selection());
    let out = tempfile::tempdir().unwrap();
    let archive = out.path().join("a.tar.gz");
    fs::write(&archive, &bytes).unwrap();
    let target = out.path().join("etc");
    fs::create_dir(&target).unwrap();
    let (archive, target_text) = (archive.to_str().unwrap(), target.to_str().unwrap());
    let listed = run("tar", &["-tzf", archive]);
    assert!(
        listed.starts_with("static-pod-resources/kube-apiserver-pod-12/\n"),
        "{listed}"
    );
    run(
        "tar",
        &["-C", target_text, "-xzf", archive, "static-pod-resources"],
    );
    let restored = Selection {
        base: target.clone(),
        ..tree.selection()
    };
    assert_eq!(compare_with_tree(&contents, &restored).unwrap(), []);
    let numeric = run("tar", &["-tvzf", archive]);
    assert!(numeric.contains("root/root"), "{numeric}");
}

#[test]
fn what_gnu_tar_writes_is_accepted() {
    let tree = Tree::new();
    let base = tree.path("static-pod-resources/etcd-pod-7/secrets/s");
    fs::hard_link(base.join("tls.key"), base.join("zz-again")).unwrap();
    fs::hard_link(base.join("tls.key"), base.join("aa-again")).unwrap();
    for format in ["gnu", "posix", "pax", "oldgnu"] {
        let out = tree.path("stock.tar.gz");
        let flag = format!("--format={format}");
        run(
            "tar",
            &[
                "-cpzf",
                out.to_str().unwrap(),
                &flag,
                "-C",
                tree.dir.path().to_str().unwrap(),
                "static-pod-resources/kube-apiserver-pod-12",
                "static-pod-resources/etcd-pod-7",
            ],
        );
        let read = good(&fs::read(&out).unwrap());
        assert!(
            read.entries
                .iter()
                .any(|e| matches!(e.kind, EntryKind::HardLink { .. }))
        );
        assert_eq!(
            compare_with_tree(&read, &tree.selection()).unwrap(),
            [],
            "{format}"
        );
    }
    // Written by this crate, each name is its own file.
    let (bytes, _) = written(&tree.selection());
    let read = good(&bytes);
    assert!(
        !read
            .entries
            .iter()
            .any(|e| matches!(e.kind, EntryKind::HardLink { .. }))
    );
    assert_eq!(compare_with_tree(&read, &tree.selection()).unwrap(), []);
}

/// Regular files only, all root's, in the order of a walk: cluster-etcd-operator,
/// `pkg/cmd/backuprestore`.
pub(super) fn go_command(tree: &Tree) -> Vec<u8> {
    let (_, contents) = written(&tree.selection());
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for entry in &contents.entries {
        let EntryKind::File { size, .. } = entry.kind else {
            continue;
        };
        let mut header = Header::new_ustar();
        header.set_mode(entry.mode);
        header.set_size(size);
        header.set_mtime(entry.modified as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root").unwrap();
        header.set_entry_type(EntryType::Regular);
        let content = fs::read(tree.path(entry.name.to_str().unwrap())).unwrap();
        tar.append_data(&mut header, &entry.name, content.as_slice())
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn what_the_go_command_writes_is_accepted() {
    let tree = Tree::new();
    let read = good(&go_command(&tree));
    assert!(
        read.entries
            .iter()
            .all(|e| matches!(e.kind, EntryKind::File { .. }))
    );
    assert_eq!(read.revisions().len(), 2);
    let told = compare_with_tree(&read, &tree.selection()).unwrap();
    let texts: Vec<String> = told.iter().map(Difference::to_string).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(
        texts
            .iter()
            .all(|text| text.ends_with("not in the archive")),
        "{texts:?}"
    );
}

#[test]
fn pythons_pax_archives_are_accepted() {
    let tree = Tree::new();
    let out = tree.path("pax.tar.gz");
    let script = "import sys,tarfile\n\
        t=tarfile.open(sys.argv[1],'w:gz',format=tarfile.PAX_FORMAT)\n\
        t.add(sys.argv[2]+'/static-pod-resources/etcd-pod-7','static-pod-resources/etcd-pod-7')\n\
        t.close()\n";
    run(
        "python3",
        &[
            "-c",
            script,
            out.to_str().unwrap(),
            tree.dir.path().to_str().unwrap(),
        ],
    );
    let read = good(&fs::read(&out).unwrap());
    let mut selection = tree.selection();
    selection.entries.remove(0);
    assert_eq!(compare_with_tree(&read, &selection).unwrap(), []);
}
