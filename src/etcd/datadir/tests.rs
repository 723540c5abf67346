use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::error::Kind;
use crate::etcd::founding::{FoundingCluster, InitialCluster};
use crate::etcd::ids::MemberId;
use crate::etcd::proto::raft::{ConfChange, ConfChangeKind, Entry, EntryKind, HardState};
use crate::etcd::proto::wal::SnapshotMark;
use crate::etcd::raftsnap;
use crate::etcd::wal::{SegmentName, SegmentWriter, SnapshotId, Tail, write_founding};
use crate::finding::{Finding, Layer, Severity};

struct Dir {
    root: tempfile::TempDir,
    cluster: FoundingCluster,
}

impl Dir {
    fn layout(&self) -> Layout {
        Layout::new(self.root.path(), None)
    }

    fn db(&self) -> DbFacts {
        DbFacts {
            consistent_index: self.cluster.commit(),
            term: Some(1),
            members: self.cluster.members.clone(),
            ..DbFacts::default()
        }
    }

    fn segment(&self, name: SegmentName) -> PathBuf {
        self.layout().wal.join(name.to_string())
    }
}

const FIRST: SegmentName = SegmentName {
    sequence: 0,
    index: 0,
};

/// A restored member's directory, with more records after those of the restore.
fn dir(more: impl FnOnce(&mut SegmentWriter<Vec<u8>>)) -> Dir {
    let root = tempfile::tempdir().unwrap();
    let cluster = InitialCluster::parse("m1=http://127.0.0.1:1,m2=http://127.0.0.1:2")
        .unwrap()
        .found("T")
        .unwrap();
    let dir = Dir { root, cluster };
    let layout = dir.layout();
    fs::create_dir_all(&layout.snap).unwrap();
    fs::create_dir_all(&layout.wal).unwrap();
    fs::write(layout.db(), b"").unwrap();
    let me = dir.cluster.member("m1").unwrap().id;
    let mut writer = write_founding(Vec::new(), &dir.cluster, me).unwrap();
    more(&mut writer);
    fs::write(dir.segment(FIRST), writer.finish().unwrap()).unwrap();
    let (name, bytes) = raftsnap::founding(&dir.cluster);
    fs::write(layout.snap.join(name.to_string()), bytes).unwrap();
    dir
}

fn entry(index: u64, term: u64, data: &[u8]) -> Entry<'_> {
    Entry {
        kind: EntryKind::Normal,
        term,
        index,
        data,
    }
}

fn state(term: u64, commit: u64) -> HardState {
    HardState {
        term,
        vote: 0,
        commit,
    }
}

fn texts(report: &Report) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_restored_member_s_directory_agrees() {
    let dir = dir(|_| {});
    let report = check(&dir.layout(), Some(&dir.db())).unwrap();
    assert_eq!(texts(&report), [""; 0]);
    assert_eq!(report.start, Some(SnapshotId { index: 2, term: 1 }));
    assert_eq!(report.raft_members.unwrap().voters.len(), 2);
    assert_eq!(report.beyond.unwrap().kinds, BTreeMap::new());
    assert!(!report.locks.any_held());
    assert_eq!(report.locks.db, LockState::Free);
    assert_eq!(report.locks.wal, LockState::Free);
}

#[test]
fn entries_beyond_the_database_are_counted() {
    // A put of an empty key, then a compaction: fields 4 and 7 of the request.
    let dir = dir(|log| {
        log.entry(&entry(3, 2, &[])).unwrap();
        log.entry(&entry(4, 2, &[0x22, 0x00])).unwrap();
        log.entry(&entry(5, 2, &[0x3a, 0x00])).unwrap();
        log.hard_state(state(2, 4)).unwrap();
    });
    let report = check(&dir.layout(), Some(&dir.db())).unwrap();
    assert_eq!(texts(&report), [""; 0]);
    let beyond = report.beyond.unwrap();
    assert_eq!(
        beyond.tail,
        Tail {
            committed: 2,
            uncommitted: 1
        }
    );
    assert_eq!(
        beyond.kinds,
        BTreeMap::from([("compaction", 1), ("empty", 1), ("put", 1)])
    );
    assert_eq!(beyond.key_writes, 1);
}

#[test]
fn indexes_out_of_step_are_found() {
    let dir = dir(|log| {
        log.entry(&entry(3, 2, &[])).unwrap();
        log.hard_state(state(2, 3)).unwrap();
    });
    let at = |consistent_index, term| DbFacts {
        consistent_index,
        term: Some(term),
        ..dir.db()
    };
    let found = |db: DbFacts| {
        let report = check(&dir.layout(), Some(&db)).unwrap();
        let severity = report.findings.iter().map(|f| f.severity).max();
        (texts(&report).join("; "), severity)
    };
    assert_eq!(found(at(3, 2)).0, "");
    // The layer's name is a promise.
    let report = check(&dir.layout(), Some(&at(9, 2))).unwrap();
    let layer = serde_json::to_value(report.findings[0].layer).unwrap();
    assert_eq!(layer, "agreement");
    let (ahead, severity) = found(at(9, 2));
    assert!(ahead.contains("next 6 writes"), "{ahead}");
    assert_eq!(severity, Some(Severity::Error));
    let (behind, severity) = found(at(1, 1));
    assert!(
        behind.contains("consistent index of at least 2"),
        "{behind}"
    );
    assert_eq!(severity, Some(Severity::Error));
    let (term, severity) = found(at(3, 1));
    assert!(term.contains("term 2, as in the WAL"), "{term}");
    assert_eq!(severity, Some(Severity::Warning));
    assert!(found(at(3, 7)).0.contains("at most term 2"));

    // A database that a leader sent makes up for one that is behind.
    fs::write(dir.layout().snap.join(format!("{:016x}.snap.db", 2)), b"").unwrap();
    let (behind, severity) = found(at(1, 1));
    assert!(behind.contains("instead"), "{behind}");
    assert_eq!(severity, Some(Severity::Warning));
}

#[test]
fn memberships_are_compared_at_the_databases_index() {
    let removal = |node| {
        ConfChange {
            id: 1,
            kind: ConfChangeKind::RemoveNode,
            node,
            context: Vec::new(),
        }
        .encode()
    };
    let mut gone = MemberId(0);
    let dir = {
        let cluster = InitialCluster::parse("m1=http://127.0.0.1:1,m2=http://127.0.0.1:2");
        let cluster = cluster.unwrap().found("T").unwrap();
        gone.0 = cluster.member("m2").unwrap().id.0;
        let change = removal(gone.0);
        dir(|log| {
            let removal = Entry {
                kind: EntryKind::ConfChange,
                ..entry(3, 1, &change)
            };
            log.entry(&removal).unwrap();
            log.hard_state(state(1, 3)).unwrap();
        })
    };
    let before = check(&dir.layout(), Some(&dir.db())).unwrap();
    assert_eq!(texts(&before), [""; 0]);
    let after = DbFacts {
        consistent_index: 3,
        ..dir.db()
    };
    let report = check(&dir.layout(), Some(&after)).unwrap();
    let zombie = format!("found also {gone} (m2), which etcd 3.6");
    assert!(texts(&report)[0].contains(&zombie), "{:?}", texts(&report));
    assert_eq!(report.findings[0].name.as_deref(), Some(MEMBERSHIP_DIFFERS));
    let trimmed = DbFacts {
        members: after
            .members
            .iter()
            .filter(|m| m.id != gone)
            .cloned()
            .collect(),
        removed: vec![gone],
        ..after.clone()
    };
    let report = check(&dir.layout(), Some(&trimmed)).unwrap();
    assert_eq!(texts(&report), [""; 0]);
    let both = DbFacts {
        removed: vec![dir.cluster.member("m1").unwrap().id],
        ..dir.db()
    };
    let report = check(&dir.layout(), Some(&both)).unwrap();
    assert!(texts(&report)[0].contains("in both lists"));
    // What releases from 3.5.1 to 3.5.19 leave of a promotion, and of an update of peer URLs.
    let mut forgotten = dir.db();
    forgotten.members[0].is_learner = true;
    forgotten.members[1].peer_urls = vec!["http://127.0.0.1:9".to_owned()];
    let report = check(&dir.layout(), Some(&forgotten)).unwrap();
    let found = texts(&report);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("a learner, and etcd 3.6"), "{found:?}");
    assert!(found[1].contains("http://127.0.0.1:9, which"), "{found:?}");
    // Names and client URLs that they forget are no difference.
    let mut ordinary = dir.db();
    ordinary.members[0].client_urls = vec!["http://127.0.0.1:7".to_owned()];
    ordinary.members[1].name = String::new();
    let report = check(&dir.layout(), Some(&ordinary)).unwrap();
    assert_eq!(texts(&report), [""; 0]);
    let empty = DbFacts {
        members: Vec::new(),
        ..dir.db()
    };
    let report = check(&dir.layout(), Some(&empty)).unwrap();
    assert!(texts(&report)[0].contains("do not start"));
    let facts = stored(&dir.layout().db());
    assert_eq!(facts.unwrap_err().kind(), Kind::NotChecked);
}

#[test]
fn a_snapshot_without_its_file_is_found() {
    let dir = dir(|log| {
        log.entry(&entry(3, 1, &[])).unwrap();
        log.hard_state(state(1, 3)).unwrap();
        let mark = SnapshotMark {
            index: 3,
            term: 1,
            conf_state: None,
        };
        log.snapshot(&mark).unwrap();
    });
    let db = DbFacts {
        consistent_index: 3,
        ..dir.db()
    };
    let report = check(&dir.layout(), Some(&db)).unwrap();
    assert!(texts(&report)[0].contains("found one for 2 at most"));
    assert_eq!(report.start, Some(SnapshotId { index: 2, term: 1 }));

    let snap = dir.layout().snap;
    for name in raftsnap::list(&snap).unwrap() {
        fs::remove_file(snap.join(name.to_string())).unwrap();
    }
    let report = check(&dir.layout(), Some(&db)).unwrap();
    assert!(texts(&report)[0].contains("complete from its first entry"));
    assert_eq!(report.findings[0].severity, Severity::Warning);

    let later = SegmentName {
        sequence: 4,
        index: 2,
    };
    fs::rename(dir.segment(FIRST), dir.segment(later)).unwrap();
    let report = check(&dir.layout(), Some(&db)).unwrap();
    let worst = report.findings.iter().find(|f| f.layer == Layer::RaftSnap);
    assert_eq!(worst.unwrap().severity, Severity::Error);
    assert!(report.lacks_snap());
    // 3.7 reads none.
    let newer = DbFacts {
        storage_version: Some("3.8.0".to_owned()),
        ..db
    };
    let report = check(&dir.layout(), Some(&newer)).unwrap();
    let about = |f: &&Finding| f.layer == Layer::RaftSnap;
    assert_eq!(report.findings.iter().find(about), None);
    assert!(report.lacks_snap());
    assert_eq!(report.log_begins(), SnapshotId { index: 3, term: 1 });
    // The mark tells no members, as up to 3.4: the database does.
    assert_eq!(report.raft_members.unwrap().voters.len(), 2);
}

#[test]
fn a_snap_file_that_a_kill_truncated_is_not_damage() {
    let dir = dir(|_| {});
    let snap = dir.layout().snap;
    let name = |index| raftsnap::SnapName { term: 1, index }.to_string();
    let known = fs::read(snap.join(name(2))).unwrap();
    for cut in [0, 1, known.len() / 2, known.len() - 1] {
        // Newer than any that the WAL has a record of.
        fs::write(snap.join(name(9)), &known[..cut]).unwrap();
        let report = check(&dir.layout(), Some(&dir.db())).unwrap();
        let found = texts(&report);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("0009.snap: "), "{found:?}");
        assert!(
            found[0].contains("the WAL has no record of it"),
            "{found:?}"
        );
        assert_eq!(report.findings[0].severity, Severity::Warning);
        assert_eq!(report.start, Some(SnapshotId { index: 2, term: 1 }));
        fs::remove_file(snap.join(name(9))).unwrap();

        // The one that the WAL knows is damage, but to etcd from 3.7 on.
        fs::write(snap.join(name(2)), &known[..cut]).unwrap();
        let report = check(&dir.layout(), Some(&dir.db())).unwrap();
        assert_eq!(report.findings[0].severity, Severity::Error, "{cut}");
        let newer = DbFacts {
            storage_version: Some("3.7.0".to_owned()),
            ..dir.db()
        };
        let report = check(&dir.layout(), Some(&newer)).unwrap();
        assert_eq!(report.findings[0].severity, Severity::Warning, "{cut}");
        fs::write(snap.join(name(2)), &known).unwrap();
    }
}

#[test]
fn leftovers_are_listed_and_a_missing_directory_is_a_failure() {
    let dir = dir(|_| {});
    let layout = dir.layout();
    for name in ["db.tmp.123", "0000000000000001.snap.db", "x.snap.broken"] {
        fs::write(layout.snap.join(name), b"").unwrap();
    }
    fs::write(layout.wal.join("0.tmp"), b"").unwrap();
    fs::write(layout.wal.join("y.wal.broken"), b"").unwrap();
    let report = check(&layout, None).unwrap();
    assert_eq!(
        report.leftovers,
        [
            "0000000000000001.snap.db",
            "db.tmp.123",
            "x.snap.broken",
            "y.wal.broken"
        ]
    );
    assert_eq!(report.beyond, None);
    let nowhere = Layout::new(&dir.root.path().join("none"), None);
    assert_eq!(check(&nowhere, None).unwrap_err().kind(), Kind::NotChecked);
    assert_eq!(nowhere.locks().unwrap().wal, LockState::Absent);
}

#[test]
fn the_data_directory_that_may_be_meant_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let told = |dir: &Path| super::not_a_data_dir(dir);
    assert!(told(dir.path()).ends_with("no member/snap"));
    let real = dir.path().join("default.etcd");
    fs::create_dir_all(real.join("member/snap")).unwrap();
    let named = format!("use the directory that has it: {}", real.display());
    for meant in [
        dir.path().to_owned(),
        real.join("member"),
        real.join("member/snap"),
    ] {
        assert!(told(&meant).ends_with(&named), "{}", told(&meant));
    }
}
