//! A kill, a failure and a loss of power at every call that changes the disk.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use crate::{Bench, differences, fs, said};
use testbench::replay::{self, Call, Disk, Replay};

/// Nothing but `into` is in the place, and the node's tree and the archive are what they were.
fn nothing_outside(bench: &Bench, place: &Path, node: &[u8; 32], what: &str) {
    let there = fs::read_dir(place).expect("the place").count();
    assert_eq!(there, 1, "{what}");
    assert_eq!(&node_hash(bench), node, "{what}");
}

fn node_hash(bench: &Bench) -> [u8; 32] {
    let options = etcd_dr::sys::tree::Options {
        modified: true,
        ..Default::default()
    };
    let tree = etcd_dr::sys::tree::describe(&bench.path("node"), &options);
    etcd_dr::sys::tree::hash(&tree.expect("a description"))
}

#[test]
fn a_kill_at_every_changing_call_leaves_nothing_outside() {
    let bench = Bench::new();
    let node = node_hash(&bench);
    let mut kills = 0;
    for call in 1.. {
        let place = bench.place(&format!("kill-{call}"));
        let mut child = bench.child(&place);
        child.env("ETCD_DR_SEAM", format!("kill:{call}"));
        let output = child.output().expect("a child");
        nothing_outside(&bench, &place, &node, &format!("killed at call {call}"));
        if output.status.success() {
            assert_eq!(differences(&bench, &place), Vec::<String>::new());
            break;
        }
        assert_eq!(output.status.signal(), Some(9), "{}", said(&output));
        kills += 1;
    }
    println!("{kills} kills");
    assert!(kills > 30);
}

#[test]
fn a_failure_of_every_changing_call_is_reported() {
    let bench = Bench::new();
    let node = node_hash(&bench);
    for (mode, words) in [("fail", ":5"), ("full", "")] {
        let mut failures = 0;
        for call in 1.. {
            let place = bench.place(&format!("{mode}-{call}"));
            let mut child = bench.child(&place);
            child.env("ETCD_DR_SEAM", format!("{mode}:{call}{words}"));
            let output = child.output().expect("a child");
            let what = format!("{mode} at call {call}");
            nothing_outside(&bench, &place, &node, &what);
            if output.status.success() {
                break;
            }
            failures += 1;
            let told = said(&output);
            assert!(
                told.contains("FAILED")
                    && (told.contains("static-pod-resources") || told.contains("/into")),
                "{what}: {told}"
            );
        }
        println!("{mode}: {failures} failures");
        assert!(failures > 30);
    }
}

#[test]
fn a_loss_of_power_after_the_report_loses_nothing() {
    let bench = Bench::new();
    let place = bench.place("record");
    let start = Disk::load(&place.join("into"));
    let record = bench.path("recording");
    let mut child = bench.child(&place);
    child.env("ETCD_DR_SEAM", format!("record:{}", record.display()));
    let output = child.output().expect("a child");
    assert!(output.status.success(), "{}", said(&output));
    let calls = replay::read(&record);
    let recorded = Replay::new(start, &calls);
    let whole = recorded.dressed_after(calls.len(), None);
    assert_eq!(whole.len(), 1, "what was reported can still be lost");
    let (tree, attributes) = whole.first().expect("one");
    assert_eq!(attributes.len(), tree.len());
    // What the replay has is what is there.
    let there = tempfile::tempdir().expect("a folder");
    replay::lay_out(tree, there.path());
    let again = Disk::load(there.path());
    let real = Disk::load(&place.join("into"));
    let of = |disk| Replay::new(disk, &[]).after(0, None);
    assert_eq!(of(again), of(real));
    // Each sync is needed: without it something is lost.
    let syncs: Vec<usize> = (0..calls.len()).filter(|&i| calls[i].is_sync()).collect();
    for &dropped in &syncs {
        let states = recorded.dressed_after(calls.len(), Some(dropped));
        assert!(states.len() > 1, "{:?} is not needed", calls[dropped]);
    }
    let kinds: HashSet<_> = calls.iter().map(std::mem::discriminant).collect();
    let all_of = |wanted: &dyn Fn(&Call) -> bool| calls.iter().filter(|call| wanted(call)).count();
    assert_eq!(all_of(&|call| matches!(call, Call::Link { .. })), 1);
    println!(
        "{} calls of {} kinds, {} syncs",
        calls.len(),
        kinds.len(),
        syncs.len()
    );
}
