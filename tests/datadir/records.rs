//! Data directories of ours and of etcd's own tool, record by record.

use std::path::Path;

use etcd_dr::etcd::bbolt::write::{digests, small_bucket};
use etcd_dr::etcd::bbolt::{Metas, Origin};
use etcd_dr::etcd::datadir::Layout;
use etcd_dr::etcd::raftsnap::{self, SnapFile};
use etcd_dr::etcd::restore::Bump;
use etcd_dr::finding::Findings;

use crate::bench::{judge, made, reference, request, restore};
use testbench::bins::require_all;

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn bucket(data_dir: &Path, name: &str) -> Entries {
    let bytes = std::fs::read(Layout::new(data_dir, None).db()).unwrap();
    let data = bytes.len() as u64;
    let metas = Metas::read(&bytes, data, Origin::File, &mut Findings::default());
    let meta = metas.unwrap().unwrap().chosen;
    small_bucket(&bytes, data, &meta, name.as_bytes()).unwrap()
}

fn wal(data_dir: &Path) -> Vec<u8> {
    let name = "0000000000000000-0000000000000000.wal";
    std::fs::read(Layout::new(data_dir, None).wal.join(name)).unwrap()
}

fn snap(data_dir: &Path) -> SnapFile {
    let dir = Layout::new(data_dir, None).snap;
    let names = raftsnap::list(&dir).unwrap();
    let [name] = names.as_slice() else {
        panic!("{names:?}")
    };
    SnapFile::read(&dir, *name).unwrap()
}

const CLUSTER: &str = "m1=http://127.0.0.1:1,m2=http://127.0.0.1:2,m2=http://127.0.0.1:9";

#[test]
fn records_are_those_of_etcd_s_own_tool() {
    for tool in require_all() {
        let made = made(tool);
        let dir = tempfile::tempdir().unwrap();
        for (name, urls, cluster, bump) in [
            (
                "default",
                "http://localhost:2380",
                "default=http://localhost:2380",
                0,
            ),
            ("m2", "http://127.0.0.1:9,http://127.0.0.1:2", CLUSTER, 0),
            ("m1", "http://127.0.0.1:1", CLUSTER, 1_000_000),
        ] {
            if bump > 0 && tool.etcdutl.is_none() {
                continue;
            }
            let what = format!("{} {name} {bump}", tool.version);
            let theirs = dir.path().join(format!("theirs-{name}-{bump}"));
            let bump_text = bump.to_string();
            let mut args = vec![
                "--name",
                name,
                "--initial-advertise-peer-urls",
                urls,
                "--initial-cluster",
                cluster,
                "--initial-cluster-token",
                "T",
            ];
            if bump > 0 {
                args.extend(["--bump-revision", &bump_text, "--mark-compacted"]);
            }
            reference(tool, &made.snapshot, &theirs, &args);
            for compact in [false, true] {
                let ours = dir.path().join(format!("ours-{name}-{bump}-{compact}"));
                let mut request = request(&made.snapshot, &ours);
                request.name = name.into();
                request.advertise_peer_urls = urls.into();
                request.initial_cluster = cluster.into();
                request.token = Some("T".into());
                request.options.bump = Some(Bump::By(bump));
                request.options.mark_compacted = bump > 0;
                request.compact = compact;
                restore(&request).unwrap();
                let report = judge(&ours, None);
                assert!(report.is_good());
                compare(&ours, &theirs, tool.numbers() < (3, 5, 0), &what);
            }
        }
    }
}

fn compare(ours: &Path, theirs: &Path, old: bool, what: &str) {
    let (own, other) = (wal(ours), wal(theirs));
    assert_eq!(own.len(), other.len(), "{what}");
    if old {
        // 3.4's last record has no membership in it; everything before is the same.
        let differs = own.iter().zip(&other).position(|(a, b)| a != b).unwrap();
        let ends = own.iter().rposition(|byte| *byte != 0).unwrap();
        assert!(differs + 60 > ends, "{what}: {differs} of {ends}");
    } else {
        assert!(own == other, "{what}: the logs differ");
    }

    let (own, other) = (snap(ours), snap(theirs));
    assert_eq!(own.findings, [], "{what}");
    let (own, other) = (own.snap.unwrap(), other.snap.unwrap());
    assert_eq!(own.id, other.id, "{what}");
    assert_eq!(own.conf_state, other.conf_state, "{what}");
    let (own, other) = (own.store.unwrap(), other.store.unwrap());
    assert_eq!(own.removed, other.removed, "{what}");
    // Names are published by the members themselves.
    let urls = |store: &raftsnap::V2Store| -> Vec<_> {
        let member = |m: &etcd_dr::etcd::membership::Member| (m.id, m.peer_urls.clone());
        store.members.iter().map(member).collect()
    };
    assert_eq!(urls(&own), urls(&other), "{what}");

    if !old {
        for name in ["members", "members_removed", "cluster"] {
            assert_eq!(bucket(ours, name), bucket(theirs, name), "{what} {name}");
        }
    }
    let rest = |dir: &Path| -> Entries {
        let mut entries = bucket(dir, "meta");
        // Theirs keep the old cluster's, which no release reads; 3.4 keeps its term.
        entries.retain(|(key, _)| key != b"confState" && !(old && key == b"term"));
        entries
    };
    assert_eq!(rest(ours), rest(theirs), "{what}");

    let of = |dir: &Path| {
        let bytes = std::fs::read(Layout::new(dir, None).db()).unwrap();
        let data = bytes.len() as u64;
        let metas = Metas::read(&bytes, data, Origin::File, &mut Findings::default());
        let meta = metas.unwrap().unwrap().chosen;
        let mut all = digests(&bytes, data, &meta).unwrap();
        for name in ["members", "members_removed", "meta", "cluster"] {
            all.remove(name.as_bytes());
        }
        all
    };
    assert_eq!(of(ours), of(theirs), "{what}");
}
