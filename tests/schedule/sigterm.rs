//! SIGTERM at random points: it always ends with 0, and what it leaves is whole or nothing.

use std::time::Duration;

use crate::bench::{Bench, path};

/// How often, by default.
const ROUNDS: u64 = 12;

#[test]
fn sigterm_at_any_time_leaves_no_half_backup() {
    let Some(bench) = Bench::new() else { return };
    let share = bench.cluster.scratch().join("share");
    std::fs::create_dir(&share).expect("a share");
    let url = format!("file://{}", share.display());
    // The same points each time: a linear congruence.
    let mut random = 20_261_121_u64;
    let told = std::env::var("ETCD_DR_ROUNDS").ok();
    let rounds = told.map_or(ROUNDS, |told| told.parse().expect("a number of rounds"));
    for round in 0..rounds {
        let more = ["--keep-last", "4", "--copy-to", &url];
        let scheduled = bench.schedule("@every 1s", &more);
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        std::thread::sleep(Duration::from_millis((random >> 33) % 1200));
        let (status, lines, stderr) = scheduled.stop();
        // The kernel ends it if the signal comes before it handles signals.
        assert!(
            status == Some(0) || (status.is_none() && lines.is_empty()),
            "round {round}: {status:?} {lines:?} {stderr}"
        );
        for line in &lines {
            let kind = &line["error"]["kind"];
            assert!(kind.is_null() || kind == "interrupted", "{line}");
        }
    }
    bench
        .run(&["backup", path(&bench.store), "--copy-to", &url])
        .expect(0);
    let sets = bench.sets();
    // Whatever a signal interrupted has been caught up: each set has its copy, and all are whole.
    for (name, _) in &sets {
        let record = std::fs::read(bench.store.join(name).join("copies.json")).expect("a record");
        let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
        assert!(record["to"][&url]["made"].is_string(), "{name}: {record}");
    }
    let listed = bench.run(&["list", &url, "-o", "json"]).expect(0).json();
    let copies = listed["sets"].as_array().expect("sets").iter();
    let whole = copies.filter(|set| set["state"] == "good").count();
    assert!(whole >= sets.len(), "{listed}");
    assert!(sets.iter().all(|(_, state)| state == "good"), "{sets:?}");
    let entries = std::fs::read_dir(&bench.store).expect("the store");
    let hidden: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with('.') && name != ".etcd-dr.lock"
        })
        .collect();
    assert!(hidden.is_empty(), "{hidden:?}");
    bench
        .run(&["verify", "--all", "--store", path(&bench.store)])
        .expect(0);
}
