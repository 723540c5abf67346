//! Where directories are made, and what is refused before any is made.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use etcd_dr::change::datadir::{Request, evidence_of_member, run};
use etcd_dr::error::Kind;
use etcd_dr::etcd::restore::{Bump, Evidence, HIDDEN, SLACK, TargetVersion};
use etcd_dr::event::Event;

use crate::bench::{changed, context, judge, made_up, put, request, restore, scratch};
use testbench::database::writer::{Freelist, Shape, seal};
use testbench::folder::names;

struct Place {
    dir: tempfile::TempDir,
    snapshot: PathBuf,
}

impl Place {
    fn new() -> Self {
        Self::with(&made_up(&Shape::default(), 100).1)
    }

    fn with(bytes: &[u8]) -> Self {
        let dir = scratch();
        let snapshot = dir.path().join("snapshot.db");
        fs::write(&snapshot, bytes).unwrap();
        Self { dir, snapshot }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What is there besides the snapshot.
    fn names(&self) -> Vec<String> {
        names(self.dir.path())
            .into_iter()
            .filter(|name| name != "snapshot.db")
            .collect()
    }
}

#[test]
fn an_absent_directory_is_made_with_its_parents_and_private_modes() {
    let place = Place::new();
    let data_dir = place.at("a/b/data");
    let outcome = restore(&request(&place.snapshot, &data_dir)).unwrap();
    assert_eq!(outcome.member_id, "8e9e05c52164694d");
    assert_eq!(outcome.cluster_id, "cdf818194e3a8c32");
    judge(&data_dir, None);
    assert_eq!(names(&place.at("a/b")), ["data"]);
    let mode = |path: &str| {
        let meta = fs::metadata(data_dir.join(path)).unwrap();
        meta.permissions().mode() & 0o777
    };
    let wal = "member/wal/0000000000000000-0000000000000000.wal";
    for dir in [".", "member", "member/snap", "member/wal"] {
        assert_eq!(mode(dir), 0o700, "{dir}");
    }
    let snap = "member/snap/0000000000000001-0000000000000001.snap";
    for file in ["member/snap/db", snap, wal] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    let log = fs::metadata(data_dir.join(wal)).unwrap();
    assert_eq!(log.len(), 64_000_000);
    assert!(log.blocks() * 512 >= 64_000_000 || log.blocks() > 0);
}

#[test]
fn an_empty_directory_stays_the_one_it_is() {
    let place = Place::new();
    let data_dir = place.at("data");
    fs::create_dir(&data_dir).unwrap();
    fs::set_permissions(&data_dir, PermissionsExt::from_mode(0o750)).unwrap();
    let before = fs::metadata(&data_dir).unwrap();
    let link = place.at("link");
    std::os::unix::fs::symlink(&data_dir, &link).unwrap();
    restore(&request(&place.snapshot, &link)).unwrap();
    let after = fs::metadata(&data_dir).unwrap();
    assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
    judge(&data_dir, None);
    assert_eq!(names(&data_dir), ["member"]);
    assert_eq!(place.names(), ["data", "link"]);
}

#[test]
fn a_fresh_mount_of_another_user_keeps_both() {
    let place = Place::new();
    let data_dir = place.at("data");
    fs::create_dir_all(data_dir.join("lost+found")).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(&data_dir, Some(52034), Some(52035)).unwrap();
    }
    restore(&request(&place.snapshot, &data_dir)).unwrap();
    judge(&data_dir, None);
    assert_eq!(names(&data_dir), ["lost+found", "member"]);
    let owner = fs::metadata(&data_dir).unwrap();
    for made in ["member", "member/snap/db", "member/wal"] {
        let made = fs::metadata(data_dir.join(made)).unwrap();
        assert_eq!((made.uid(), made.gid()), (owner.uid(), owner.gid()));
    }
}

#[test]
fn an_existing_data_directory_is_never_replaced() {
    let place = Place::new();
    let data_dir = place.at("data");
    let refused = |request: &Request| {
        let failure = restore(request).unwrap_err();
        assert_eq!(failure.kind(), Kind::Refused, "{failure}");
        failure.refusal().unwrap()
    };
    fs::create_dir(&data_dir).unwrap();
    fs::write(data_dir.join("mine"), b"x").unwrap();
    let mut plain = request(&place.snapshot, &data_dir);
    plain.options.allow = vec!["data-dir-not-empty".into()];
    assert_eq!(refused(&plain), "data-dir-not-empty");
    fs::remove_file(data_dir.join("mine")).unwrap();
    fs::write(data_dir.join("lost+found"), b"").unwrap();
    assert_eq!(refused(&plain), "data-dir-not-empty");
    fs::remove_file(data_dir.join("lost+found")).unwrap();
    fs::remove_dir(&data_dir).unwrap();
    fs::write(&data_dir, b"").unwrap();
    assert_eq!(refused(&plain), "data-dir-not-empty");
    fs::remove_file(&data_dir).unwrap();

    let wal = place.at("wal");
    fs::create_dir(&wal).unwrap();
    let mut outer = request(&place.snapshot, &data_dir);
    outer.options.wal_dir = Some(wal);
    assert_eq!(refused(&outer), "wal-dir-not-absent");
    for wal in ["data/member/other", "data/member", "data", "."] {
        outer.options.wal_dir = Some(place.at(wal));
        assert_eq!(refused(&outer), "wal-dir-in-the-way", "{wal}");
    }
    assert_eq!(place.names(), ["wal"]);
    let root = request(&place.snapshot, Path::new("/"));
    assert_eq!(refused(&root), "data-dir-not-empty");
}

#[test]
fn the_wal_may_have_a_directory_of_its_own() {
    for (wal, existing) in [
        ("wal", false),
        ("deep/er/wal", false),
        ("data/wal", false),
        ("data/deep/wal", false),
        ("data/member/wal", false),
        ("data/x/../member/wal", false),
        ("wal", true),
        ("data/wal", true),
        ("data/member/wal", true),
    ] {
        let place = Place::new();
        let data_dir = place.at("data");
        if existing {
            fs::create_dir(&data_dir).unwrap();
        }
        let wal_dir = place.at(wal);
        let mut request = request(&place.snapshot, &data_dir);
        request.options.wal_dir = Some(wal_dir.clone());
        restore(&request).unwrap_or_else(|failure| panic!("{wal}: {failure}"));
        if wal.contains("..") {
            judge(&data_dir, None);
            continue;
        }
        judge(&data_dir, Some(&wal_dir));
        assert_eq!(names(&wal_dir), ["0000000000000000-0000000000000000.wal"]);
        assert!(
            names(&data_dir).iter().all(|n| !n.starts_with('.')),
            "{wal}"
        );
        assert!(place.names().iter().all(|n| !n.starts_with('.')), "{wal}");
    }
    let place = Place::new();
    fs::create_dir(place.at("data")).unwrap();
    let mut deeper = request(&place.snapshot, &place.at("data"));
    deeper.options.wal_dir = Some(place.at("data/a/wal"));
    let failure = restore(&deeper).unwrap_err();
    assert_eq!(failure.refusal(), Some("wal-dir-in-the-way"));
    assert_eq!(names(&place.at("data")), [""; 0]);
}

#[test]
fn leftovers_are_removed_unless_their_run_still_builds() {
    for existing in [false, true] {
        let place = Place::new();
        let data_dir = place.at("data");
        let beside = if existing {
            fs::create_dir(&data_dir).unwrap();
            data_dir.clone()
        } else {
            place.dir.path().to_owned()
        };
        let left = beside.join(format!("{HIDDEN}0000000000000001"));
        fs::create_dir_all(left.join("member/snap")).unwrap();
        fs::write(left.join("member/snap/db"), b"half").unwrap();
        let holder = fs::File::open(&left).unwrap();
        rustix::fs::flock(&holder, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let (context, events) = context();
        let request = request(&place.snapshot, &data_dir);
        let busy = run(&context, &request).unwrap_err();
        assert_eq!(busy.kind(), Kind::Busy, "{busy}");
        assert!(left.join("member/snap/db").exists());
        drop(holder);
        run(&context, &request).unwrap();
        assert!(!left.exists());
        assert!(events.events().contains(&Event::LeftoverRemoved(left)));
        judge(&data_dir, None);
    }
    // The WAL directory was put in place, and the run interrupted before the data directory was.
    let place = Place::new();
    let wal = place.at("wal");
    let mut request = request(&place.snapshot, &place.at("data"));
    request.options.wal_dir = Some(wal.clone());
    fs::create_dir(&wal).unwrap();
    fs::write(wal.join("0.wal"), b"").unwrap();
    fs::write(wal.join(format!("{HIDDEN}unfinished")), b"").unwrap();
    restore(&request).unwrap();
    judge(&place.at("data"), Some(&wal));
}

#[test]
fn a_bad_snapshot_is_refused_and_nothing_is_left() {
    let (_, good) = made_up(
        &Shape {
            gaps: 1,
            ..Shape::default()
        },
        100,
    );
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("not a database", vec![7; 8192 + 32]),
        ("cut", good[..good.len() - 4096].to_vec()),
        ("cut odd", good[..good.len() - 100].to_vec()),
        ("grown", [&good[..], &[0; 7]].concat()),
        ("trailer", {
            let mut bytes = good.clone();
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        }),
        ("both metas", {
            let mut bytes = good[..good.len() - 32].to_vec();
            bytes[40] ^= 1;
            bytes[4096 + 40] ^= 1;
            seal(bytes)
        }),
    ];
    let flips = (8192..good.len() - 32).step_by(97).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        ("flip", bytes)
    });
    for (what, bytes) in cases.into_iter().chain(flips) {
        for existing in [false, true] {
            let place = Place::with(&bytes);
            let data_dir = place.at("data");
            if existing {
                fs::create_dir(&data_dir).unwrap();
            }
            for compact in [false, true] {
                let mut request = request(&place.snapshot, &data_dir);
                request.compact = compact;
                let failure = restore(&request).unwrap_err();
                if what == "empty" {
                    assert_eq!(failure.refusal(), Some("no-integrity-hash"));
                } else {
                    assert_eq!(failure.kind(), Kind::BadBackup, "{what}: {failure}");
                }
            }
            if existing {
                assert_eq!(names(&data_dir), [""; 0], "{what}");
                fs::remove_dir(&data_dir).unwrap();
            }
            assert_eq!(place.names(), [""; 0], "{what}");
        }
    }
    let place = Place::new();
    let none = restore(&request(&place.at("none"), &place.at("data"))).unwrap_err();
    assert_eq!(none.kind(), Kind::NotChecked);
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn the_hash_is_skipped_only_when_asked() {
    let (_, good) = made_up(&Shape::default(), 100);
    let unsealed = [&good[..good.len() - 32], &[0; 8192]].concat();
    let mut wrong = good.clone();
    *wrong.last_mut().unwrap() ^= 1;
    for (bytes, kind) in [(&unsealed, Kind::Refused), (&wrong, Kind::BadBackup)] {
        let place = Place::with(bytes);
        let mut request = request(&place.snapshot, &place.at("data"));
        let failure = restore(&request).unwrap_err();
        assert_eq!(failure.kind(), kind, "{failure}");
        request.skip_hash_check = true;
        restore(&request).unwrap();
        judge(&place.at("data"), None);
        // Neither trailer nor padding is carried over.
        let database = fs::metadata(place.at("data/member/snap/db")).unwrap();
        assert_eq!(database.len() % 4096, 0);
    }
    let place = Place::with(&unsealed);
    let mut request = request(&place.snapshot, &place.at("data"));
    request.options.allow = vec!["no-integrity-hash".into()];
    restore(&request).unwrap();
    // Damage is found nevertheless.
    let mut broken = unsealed;
    broken[8192 + 8] ^= 0xff;
    let place = Place::with(&broken);
    let mut request = self::request(&place.snapshot, &place.at("data"));
    request.skip_hash_check = true;
    assert_eq!(restore(&request).unwrap_err().kind(), Kind::BadBackup);
}

#[test]
fn the_token_is_random_and_the_bump_automatic_for_one_member() {
    let place = Place::new();
    let mut request = request(&place.snapshot, &place.at("one"));
    request.token = None;
    request.options.bump = None;
    let one = restore(&request).unwrap();
    assert_eq!(
        one.token,
        format!("etcd-dr-{:032x}", request.options.random)
    );
    assert_eq!(one.revision, one.snapshot_revision + SLACK);
    let facts = judge(&place.at("one"), None).facts.unwrap();
    assert_eq!(facts.revision, one.revision);
    assert_eq!(facts.scheduled_compact_revision, Some(one.revision));
    request.options.random += 1;
    request.options.data_dir = place.at("two");
    request.options.evidence = vec![Evidence {
        source: "backup-9".into(),
        revision: one.snapshot_revision + 77,
    }];
    let two = restore(&request).unwrap();
    assert_ne!(one.cluster_id, two.cluster_id);
    assert_ne!(one.member_id, two.member_id);
    assert_eq!(two.revision, two.snapshot_revision + 77 + SLACK);
    let known = evidence_of_member(&place.at("two/member/snap/db")).unwrap();
    assert_eq!(known.unwrap().revision, two.revision);
    assert_eq!(evidence_of_member(&place.at("no/db")).unwrap(), None);

    request.options.data_dir = place.at("three");
    request.options.bump = Some(Bump::By(5));
    request.options.mark_compacted = true;
    let low = restore(&request).unwrap_err();
    assert_eq!(low.refusal(), Some("bump-too-small"));
    request.options.allow = vec!["bump-too-small".into()];
    assert_eq!(
        restore(&request).unwrap().revision,
        one.snapshot_revision + 5
    );

    let mut several = self::request(&place.snapshot, &place.at("four"));
    several.initial_cluster = "default=http://localhost:2380,b=http://localhost:2381".into();
    let refusal = |request: &Request| restore(request).unwrap_err().refusal();
    several.token = None;
    assert_eq!(refusal(&several), Some("token-not-given"));
    several.token = Some("T".into());
    for bump in [None, Some(Bump::Auto { slack: SLACK })] {
        several.options.bump = bump;
        assert_eq!(refusal(&several), Some("bump-not-given"));
    }
    several.options.bump = Some(Bump::By(0));
    restore(&several).unwrap();
    several.name = "c".into();
    several.options.data_dir = place.at("five");
    assert_eq!(restore(&several).unwrap_err().kind(), Kind::Usage);
    several.name = "b".into();
    assert_eq!(restore(&several).unwrap_err().kind(), Kind::Usage);
    assert!(!place.at("five").exists());
}

#[test]
fn versions_decide_who_can_start() {
    let (_, good) = made_up(&Shape::default(), 50);
    let of = |storage: &str, cluster: &str| {
        let bytes = changed(&good, &put("meta", b"storageVersion", storage.as_bytes()));
        changed(
            &bytes,
            &put("cluster", b"clusterVersion", cluster.as_bytes()),
        )
    };
    for (storage, target, kept) in [
        ("3.7.0", None, true),
        ("3.7.0", Some(TargetVersion::V3_7), true),
        ("3.7.0", Some(TargetVersion::V3_6), false),
        ("3.6.0", Some(TargetVersion::V3_5), false),
        ("3.6.0", Some(TargetVersion::V3_7), true),
    ] {
        for compact in [false, true] {
            let place = Place::with(&of(storage, storage));
            let mut request = request(&place.snapshot, &place.at("data"));
            request.target = target;
            request.compact = compact;
            let outcome = restore(&request).unwrap();
            let facts = judge(&place.at("data"), None).facts.unwrap();
            assert_eq!(facts.storage_version.is_some(), kept);
            assert_eq!(facts.cluster_version.is_some(), kept);
            assert_eq!(outcome.notes.is_empty(), kept, "{:?}", outcome.notes);
        }
    }
    for target in TargetVersion::ALL {
        let place = Place::with(&of("3.8.0", "3.8.0"));
        let mut request = request(&place.snapshot, &place.at("data"));
        request.target = Some(target);
        let refused = restore(&request).unwrap_err();
        assert_eq!(refused.refusal(), Some("unknown-version"));
        assert_eq!(place.names(), [""; 0]);
        request.options.allow = vec!["unknown-version".into()];
        restore(&request).unwrap();
        let facts = judge(&place.at("data"), None).facts.unwrap();
        assert_eq!(facts.storage_version, None);
    }
}

#[test]
fn odd_databases_are_restored() {
    let shapes = [
        Shape {
            page_size: 16_384,
            fill: 16_384,
            ..Shape::default()
        },
        Shape {
            page_size: 65_536,
            ..Shape::default()
        },
        Shape {
            freelist: Freelist::Stored,
            gaps: 3,
            ..Shape::default()
        },
        Shape {
            freelist: Freelist::StoredLong,
            gaps: 3,
            inline: false,
            txid: 9,
            ..Shape::default()
        },
    ];
    for shape in shapes {
        for txns in [0, 1, 400] {
            let (store, bytes) = made_up(&shape, txns);
            let place = Place::with(&bytes);
            for compact in [false, true] {
                for bump in [0, 1000] {
                    let data_dir = place.at(&format!("{compact}-{bump}"));
                    let mut request = request(&place.snapshot, &data_dir);
                    request.compact = compact;
                    request.options.bump = Some(Bump::By(bump));
                    request.options.mark_compacted = bump > 0;
                    let outcome = restore(&request).unwrap();
                    assert_eq!(outcome.revision, store.revision + bump);
                    let report = judge(&data_dir, None);
                    let facts = report.facts.unwrap();
                    assert_eq!(facts.page_size, shape.page_size);
                    assert!(!facts.freelist_stored);
                    assert_eq!(facts.revision, store.revision + bump);
                    assert_eq!(facts.keys, store.live.len() as u64);
                    if bump == 0 {
                        let compact = store.compact.unwrap_or(-1);
                        let expected = store.hash_kv(store.revision, compact, true);
                        assert_eq!(report.hash_kv.unwrap().hash, expected);
                    }
                    if compact {
                        assert!(facts.free_pages == 0, "{}", facts.free_pages);
                    }
                }
            }
        }
    }
}
