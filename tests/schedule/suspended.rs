//! A file of the operator's suspends the schedule, and what was missed is caught up once.

use crate::bench::{Bench, LIMIT, path};
use crate::metrics::{get, value};
use testbench::loopback::free_port;
use testbench::process::wait_for;

#[test]
fn while_the_file_is_there_no_run_begins() {
    let Some(bench) = Bench::new() else { return };
    let file = bench.cluster.scratch().join("suspended");
    std::fs::write(&file, "a change is going on\n").expect("a file");
    let address = free_port();
    let listen = address.to_string();
    let more = ["--suspend-file", path(&file), "--metrics-listen", &listen];
    let mut scheduled = bench.schedule("@every 1s", &more);
    let series = "etcd_dr_schedule_enabled{schedule=\"@every 1s\",timezone=\"UTC\"}";
    let wait = |wanted: f64| {
        wait_for("the metric", LIMIT, || {
            let text = get(address, "/metrics")
                .map_err(|error| error.to_string())?
                .1;
            (value(&text, series) == Some(wanted))
                .then_some(())
                .ok_or(text)
        })
        .unwrap_or_else(|error| panic!("{error}"));
    };
    wait(0.0);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(!bench.store.exists(), "a run began");
    std::fs::remove_file(&file).expect("removing it");
    let first = scheduled.next();
    assert_eq!(
        (&first["result"], &first["run"]),
        (&"taken".into(), &1.into())
    );
    wait(1.0);
    std::fs::write(&file, "").expect("a file");
    wait(0.0);
    // One may have been in progress.
    let taken = bench.sets().len();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(bench.sets().len() <= taken + 1);
    let (status, _, stderr) = scheduled.stop();
    assert_eq!(status, Some(0));
    assert!(stderr.contains("no run starts while"), "{stderr}");
    assert!(stderr.contains("the schedule continues"), "{stderr}");
}
