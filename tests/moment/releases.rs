//! Releases without a program here: files that their servers wrote, and what these said of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use etcd_dr::etcd::bbolt::FileSource;
use etcd_dr::etcd::hashkv::At;
use etcd_dr::etcd::snapshot::hash_kv;
use serde_json::Value;

use crate::bench::restore;

fn fixture(name: &str) -> PathBuf {
    testbench::project().join("fixtures/releases").join(name)
}

fn told(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap()
}

fn unpack(name: &str, to: &Path) {
    let packed = File::open(fixture(name)).unwrap();
    zstd::stream::copy_decode(packed, File::create(to).unwrap()).unwrap();
}

/// HashKV at every revision at which the server was asked, restored to it.
#[test]
fn snapshots_of_newer_releases_at_their_revisions() {
    let mut checked = 0;
    for version in ["3.6", "3.6-auth", "3.7", "3.7-auth"] {
        let told = told(&format!("etcd-{version}.json"));
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("snapshot.db");
        unpack(&format!("etcd-{version}.db.zst"), &snapshot);
        for (name, hash) in told["hashkv"].as_object().unwrap() {
            // The server kept a hash of this one from before its compaction.
            if hash["compact"] == -1 {
                continue;
            }
            let revision = told["revisions"][name].as_i64().unwrap();
            let to = revision.to_string();
            let data_dir = dir.path().join(name);
            let args = ["--to-revision", to.as_str(), "--bump-revision", "0"];
            let made = restore(&snapshot, &data_dir, &args).expect(0).json();
            assert_eq!(made["moment"]["hashKv"], hash["hash"], "{version} {name}");
            checked += 1;
        }
    }
    assert!(checked >= 16, "{checked}");
}

/// A killed member's database as the base, and its WAL: up to where its server got.
#[test]
fn directories_of_newer_releases_are_rolled_forward() {
    for version in ["3.6", "3.7"] {
        let told = told(&format!("datadir-{version}/told.json"));
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source/member/wal");
        fs::create_dir_all(&source).unwrap();
        for entry in fs::read_dir(fixture(&format!("datadir-{version}"))).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if let Some(own) = name.strip_suffix(".wal.zst") {
                let segment = source.join(format!("{own}.wal"));
                unpack(&format!("datadir-{version}/{name}"), &segment);
                let file = File::options().write(true).open(&segment).unwrap();
                file.set_len(64_000_000).unwrap();
            }
        }
        let base = dir.path().join("base.db");
        unpack(&format!("datadir-{version}/db.zst"), &base);
        let size = told["databaseSize"].as_u64();
        let file = File::options().write(true).open(&base).unwrap();
        file.set_len(size.unwrap_or(file.metadata().unwrap().len()))
            .unwrap();
        let data_dir = dir.path().join("d");
        let wal = dir.path().join("source").display().to_string();
        let args = ["--roll-forward", wal.as_str(), "--bump-revision", "0"];
        let made = restore(&base, &data_dir, &args).expect(0).json();
        assert_eq!(made["revision"], told["headRevision"], "{version}");
        assert_eq!(made["keys"], told["keys"], "{version}");
        let made = FileSource::open(&data_dir.join("member/snap/db")).unwrap();
        for (revision, hash) in told["hashkv"].as_object().unwrap() {
            let at = At {
                revision: revision.parse().ok(),
                compacted_at: hash["compact"].as_i64(),
            };
            let found = hash_kv(&made, at).unwrap().unwrap();
            let expected = hash["hash"].as_u64();
            assert_eq!(
                Some(u64::from(found.hash)),
                expected,
                "{version} at {revision}"
            );
        }
    }
}
