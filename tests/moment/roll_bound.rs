//! Rolling forward: memory does not grow with the length of the WAL's tail.

use etcd_dr::etcd::bbolt::FileSource;
use etcd_dr::etcd::hashkv::At;
use etcd_dr::etcd::snapshot::hash_kv as hash_kv_of;
use testbench::bins::require_turn;
use testbench::bulk::Bulk;
use testbench::golden::run_within;

use crate::bench::{cluster, hash_kv, save, text};

/// Keys of an ordinary length that the tail changes twice and then deletes.
const KEYS: usize = 60_000;
/// Bytes of private memory: 64 MiB, 16 bytes for each distinct key, and threads' stacks of 2 MiB, which count
/// whether they are used or not.
const LIMIT: u64 = (64 << 20) + 16 * KEYS as u64 + STACKS;
const STACKS: u64 = 8 << 20;

/// Some 300 MiB of WAL: large values, small ones, and one entry that deletes all keys.
#[test]
fn a_tail_much_longer_than_the_memory_is_applied() {
    for bins in require_turn() {
        let mut cluster = cluster(bins, 1);
        Bulk::new(KEYS, 100).write(&cluster);
        let snapshot = save(&cluster);
        for seed in 1..3 {
            Bulk::new(KEYS, 100).seeded(seed).write(&cluster);
            Bulk::new(2200, 60_000).seeded(seed).write(&cluster);
        }
        let now = cluster.revision(0);
        let hash = hash_kv(&cluster, now);
        let left = "/kubernetes.io/configmaps/project-00300/";
        cluster.etcdctl_ok(&["del", "/kubernetes.io/configmaps/", left]);
        let deleted = hash_kv(&cluster, now + 1);
        cluster.stop(0);
        let dir = tempfile::tempdir().unwrap();
        let to = text(&dir.path().join("d"));
        let (snapshot, wal) = (text(&snapshot), text(cluster.data_dir(0)));
        let mut args = vec!["restore", &snapshot, "--data-dir", &to];
        args.extend(["--roll-forward", &wal, "--bump-revision", "0", "-o", "json"]);
        let made = run_within(&args, &[], LIMIT).expect(0).json();
        assert_eq!(made["revision"], now + 1);
        let database = dir.path().join("d/member/snap/db");
        let database = FileSource::open(&database).unwrap();
        for (revision, expected) in [(now, hash), (now + 1, deleted)] {
            let at = At {
                revision: Some(revision),
                compacted_at: None,
            };
            let found = hash_kv_of(&database, at).unwrap().unwrap();
            assert_eq!(u64::from(found.hash), expected, "revision {revision}");
        }
    }
}
