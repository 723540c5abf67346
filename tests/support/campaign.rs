//! Faults at each call that changes a disk, or at a sample of them: which calls, and the result of
//! a run. The calls are counted and met by the seam of the program itself (`ETCD_DR_SEAM`).

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

/// Every call from one on, or so many of them, spread over all, that the first and the last belong
/// to. Of `ETCD_DR_EVERY=K/N` every Nth, beginning with the Kth (from 0): so that several processes
/// share the work.
pub fn calls(first: u64, all: u64, sample: u64) -> Vec<u64> {
    if let Some((part, of)) = share() {
        return (first + part as u64..=all).step_by(of).collect();
    }
    let step = ((all + 1 - first) / sample).max(1);
    let chosen = (first..=all).filter(|call| (call - first).is_multiple_of(step));
    let last = (!(all - first).is_multiple_of(step)).then_some(all);
    chosen.chain(last).collect()
}

/// The share of a campaign that `ETCD_DR_EVERY` asks for: the part, from 0, and of how many; `1` is
/// the whole, as `0/1` is. None: a sample.
pub fn share() -> Option<(usize, usize)> {
    let asked = std::env::var("ETCD_DR_EVERY").ok()?;
    let Some((part, of)) = asked.split_once('/') else {
        return Some((0, 1));
    };
    let number = |text: &str| text.parse().expect("ETCD_DR_EVERY: 1, or K/N");
    Some((number(part), number(of)))
}

/// Of all there is to try: this process's share of it, or a sample, spread over all, of at most so many.
pub fn shared<T>(all: Vec<T>, sample: usize) -> Vec<T> {
    let (part, of) = share().unwrap_or((0, all.len().div_ceil(sample).max(1)));
    all.into_iter().skip(part).step_by(of).collect()
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
