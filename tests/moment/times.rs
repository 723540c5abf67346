//! Times, by the clocks in the objects.

use crate::bench::{cluster, lease, object, restore, save};
use testbench::bins::require_turn;
use testbench::bulk::block_on;
use testbench::cluster::Cluster;

/// 2026-01-02T03:04:05Z, in milliseconds.
const DAY: i64 = 1_767_323_045_000;

/// Five minutes of a cluster of five nodes whose Leases are renewed every ten seconds, with four
/// writes besides each second; one node's clock is an hour ahead. Says at which revision each second
/// ends.
fn five_minutes(cluster: &Cluster, leases: bool) -> Vec<i64> {
    block_on(async {
        let mut kv = cluster.client().await.kv_client();
        let mut ends = Vec::new();
        for second in 0..300i64 {
            let node = second % 10;
            if node < 5 && leases {
                let ahead = if node == 2 { 3_600_000 } else { 0 };
                let key = format!("/registry/leases/kube-node-lease/node-{node}");
                let value = lease(DAY + second * 1000 + ahead + 100);
                kv.put(key, value, None).await.unwrap();
            }
            let mut last = 0;
            for i in 0..4 {
                let name = format!("e-{second}-{i}");
                let value = match leases {
                    true => b"{}".to_vec(),
                    false => object(&name, DAY + second * 1000, None),
                };
                let put = kv
                    .put(format!("/registry/events/x/{name}"), value, None)
                    .await;
                last = put.unwrap().header().unwrap().revision();
            }
            ends.push(last);
        }
        ends
    })
}

fn to_time(snapshot: &std::path::Path, when: &str, dir: &tempfile::TempDir) -> serde_json::Value {
    let data_dir = dir.path().join(when);
    let args = ["--to-time", when, "--bump-revision", "0"];
    restore(snapshot, &data_dir, &args).expect(0).json()["moment"].clone()
}

#[test]
fn a_time_is_found_by_the_nodes_leases() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        let ends = five_minutes(&cluster, true);
        let snapshot = save(&cluster);
        let dir = tempfile::tempdir().unwrap();
        for (when, second) in [
            ("2026-01-02T03:04:45Z", 40),
            ("2026-01-02T03:06:05.5Z", 120),
            ("2026-01-02T04:08:05+01:00", 240),
        ] {
            let moment = to_time(&snapshot, when, &dir);
            let clock = &moment["reachable"]["clock"];
            assert_eq!(clock["source"], "leases");
            assert_eq!(
                (&clock["writers"], &clock["leftOut"]),
                (&4.into(), &1.into())
            );
            let within = clock["withinSeconds"].as_i64().unwrap();
            assert!(within <= 8, "{clock}");
            // No further off than it says.
            let found = moment["revision"].as_i64().unwrap();
            let early = ends[(second - within) as usize];
            let late = ends[(second + within) as usize];
            assert!(
                (early..=late).contains(&found),
                "{when}: {found} of {early} to {late}"
            );
        }
    }
}

#[test]
fn a_time_is_found_by_the_objects_alone() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        let ends = five_minutes(&cluster, false);
        let snapshot = save(&cluster);
        let dir = tempfile::tempdir().unwrap();
        let moment = to_time(&snapshot, "2026-01-02T03:06:05Z", &dir);
        let clock = &moment["reachable"]["clock"];
        assert_eq!(
            (&clock["source"], &clock["writers"]),
            (&"objects".into(), &1.into())
        );
        let found = moment["revision"].as_i64().unwrap();
        assert!((ends[117]..=ends[123]).contains(&found), "{found}");
    }
}

#[test]
fn a_time_outside_of_the_history_is_refused() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        five_minutes(&cluster, true);
        let snapshot = save(&cluster);
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("d");
        for (when, what) in [
            ("2026-01-02T03:00:00Z", "is before its history"),
            ("2026-01-02T03:20:00Z", "is after its end"),
            ("1s", "is after its end"),
            ("2026-01-03T00:00:00Z", "is after its end"),
        ] {
            let refused = restore(&snapshot, &data_dir, &["--to-time", when])
                .expect(5)
                .json();
            let error = &refused["error"];
            assert_eq!(error["refusal"], "unreachable-target");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(what), "{message}");
            assert!(message.contains("reachable: revisions 1 to "), "{message}");
            assert!(
                message.contains(", 2026-01-02T03:04:05Z to 2026-01-02T03:0"),
                "{message}"
            );
            assert!(!data_dir.exists());
        }
    }
}
