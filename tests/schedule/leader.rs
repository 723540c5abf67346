//! The leader takes its backup after the other members.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::bench::Bench;

/// A tenth of the period.
const WINDOW: SignedDuration = SignedDuration::from_secs(2);

fn time(value: &Value) -> Timestamp {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a time")
}

/// Runs until this one's line for a period that it saw the beginning of.
fn whole_period(bench: &Bench) -> Value {
    let mut scheduled = bench.schedule("@every 20s", &["--jitter", "1m"]);
    // The first one is caught up at once, whenever the process starts.
    let first = scheduled.next();
    assert_eq!(first["result"], "taken", "{first}");
    let second = scheduled.next();
    assert_eq!(second["result"], "taken", "{second}");
    assert_eq!(scheduled.stop().0, Some(0));
    second
}

#[test]
fn a_leader_of_three_takes_its_snapshot_after_the_others() {
    let Some(mut bench) = Bench::of(3) else {
        return;
    };
    let scratch = bench.cluster.scratch();
    // On a busy machine the lead may change while a test waits.
    for round in 0..4 {
        let leader = bench.cluster.leader().expect("a leader");
        bench.node = leader;
        bench.store = scratch.join(format!("leader-{round}"));
        let line = whole_period(&bench);
        if line["manifest"]["member"]["leader"] != true {
            continue;
        }
        assert_eq!(line["gaveWay"], true, "{line}");
        let late =
            time(&line["manifest"]["created"]).duration_since(time(&line["period"]["start"]));
        assert!(late >= WINDOW, "{late:?}");

        bench.node = (leader + 1) % 3;
        bench.store = scratch.join(format!("follower-{round}"));
        let line = whole_period(&bench);
        if line["manifest"]["member"]["leader"] == true {
            continue;
        }
        assert_ne!(line["gaveWay"], true, "{line}");
        return;
    }
    panic!("the lead never stayed where it was");
}

#[test]
fn the_only_voter_waits_for_nobody() {
    let Some(bench) = Bench::new() else { return };
    assert_ne!(whole_period(&bench)["gaveWay"], true);
}
