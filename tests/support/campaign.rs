//! Faults at each call that changes a disk, or at a sample of them: which calls, and what came of a
//! run. The calls are counted and met by the seam of the program itself (`ETCD_DR_SEAM`).

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

/// Every call from one on, or so many of them, spread over all, that the first and the last belong
/// to. Of `ETCD_DR_EVERY=K/N` every Nth, beginning with the Kth (from 0): so that several processes
/// share the work.
pub fn calls(first: u64, all: u64, sample: u64) -> Vec<u64> {
    let asked = std::env::var("ETCD_DR_EVERY").ok();
    let part = asked.as_deref().and_then(|text| {
        let (part, of) = text.split_once('/')?;
        Some((part.parse::<u64>().ok()?, of.parse::<u64>().ok()?))
    });
    let (from, step) = match (part, asked) {
        (Some((part, of)), _) => (first + part, of.max(1)),
        (None, Some(_)) => (first, 1),
        (None, None) => (first, ((all + 1 - first) / sample).max(1)),
    };
    let chosen = (from..=all).filter(|call| (call - from).is_multiple_of(step));
    let last = (part.is_none() && !(all - first).is_multiple_of(step)).then_some(all);
    chosen.chain(last).collect()
}

/// Runs with the seam counting, which `run` is given to set: how many calls there were.
pub fn counted(scratch: &Path, run: impl FnOnce(String) -> Output) -> (u64, Output) {
    let file = scratch.join("calls");
    let output = run(format!("count:{}", file.display()));
    let count = std::fs::read_to_string(&file).expect("a count");
    (count.trim().parse().expect("a number"), output)
}

/// Whether the seam killed it.
pub fn killed(output: &Output) -> bool {
    output.status.signal() == Some(9)
}

/// Its status, and what it wrote to standard error.
pub fn status(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}
