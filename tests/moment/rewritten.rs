//! Recorded changes are applied to a backup, and the result is rewritten without what was deleted.

use crate::bench::{Past, Random, cluster, hash_kv, kvs, requests, serve, text};
use crate::shelf::Shelf;
use testbench::bins::require_all;
use testbench::cluster::Cluster;
use testbench::golden;
use testbench::loopback::Loopback;

/// What etcd has after its own compaction, and what it has of a revision then.
fn compacted(cluster: &Cluster, at: i64, revision: i64) -> u64 {
    cluster.etcdctl_ok(&["compact", &at.to_string(), "--physical"]);
    hash_kv(cluster, revision)
}

#[test]
fn a_compact_restore_between_two_backups_is_what_etcd_had() {
    for (i, bins) in require_all().iter().enumerate() {
        let mut random = Random(60 + i as u64);
        let cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        requests(&cluster, &mut random, 60);
        shelf.backup();
        let recorder = shelf.record(None);
        requests(&cluster, &mut random, 30);
        let revision = cluster.revision(0);
        let past = Past::of(&cluster, revision);
        requests(&cluster, &mut random, 10);
        shelf.wait(cluster.revision(0));
        recorder.stop();
        shelf.backup();

        let network = Loopback::reserve();
        let url = format!("http://{}:2380", network.ip(0));
        let (to, initial) = (revision.to_string(), format!("default={url}"));
        let mut args = vec!["--to-revision", &to, "--bump-revision", "0"];
        args.extend(["--initial-cluster", &initial]);
        args.extend(["--initial-advertise-peer-urls", &url]);
        let restored = |name: &str, more: &[&str]| {
            let data_dir = shelf.dir.path().join(name);
            let made = shelf.restore("backup-1", &data_dir, &[&args[..], more].concat());
            (made.expect(0).json(), data_dir)
        };
        let (plain, _) = restored("plain", &[]);
        let (made, data_dir) = restored("compact", &["--compact"]);
        for made in [&plain, &made] {
            assert_eq!(made["moment"]["hashKv"], past.hash, "{made}");
            assert_eq!(made["recorded"]["hashkv"], "equal", "{made}");
            assert_eq!(made["recorded"]["backup"], "backup-2", "{made}");
        }
        assert_eq!(made["keys"], plain["keys"]);
        let size = |made: &serde_json::Value| made["databaseSize"].as_u64().unwrap();
        assert!(size(&made) < size(&plain), "{made}, {plain}");
        golden::run(&["verify", "--data-dir", &text(&data_dir)], &[]).expect(0);
        // The copy between the two is gone.
        let snap = std::fs::read_dir(data_dir.join("member/snap")).unwrap();
        for name in snap.map(|entry| entry.unwrap().file_name()) {
            let name = name.to_str().unwrap();
            assert!(name == "db" || name.ends_with(".snap"), "{name}");
        }
        let served = serve(bins, network, &[("default".to_owned(), data_dir)]);
        assert_eq!(served.revision(0), revision);
        assert_eq!(kvs(&served, None), past.kvs, "revision {revision}");
        assert_eq!(hash_kv(&served, revision), past.hash);
        let at = revision - 2;
        let own = compacted(&cluster, at, revision);
        assert_eq!(compacted(&served, at, revision), own);
    }
}
