//! A long time: periods of a second, one after the other, and nothing grows.

use std::path::Path;

use crate::bench::{Bench, path};
use testbench::loopback::free_port;

/// How many periods, by default.
const PERIODS: usize = 20;
/// Periods before anything is counted: what is allocated once is there by then.
const WARM: usize = 8;
/// How much the memory may grow, in KiB: an allocator keeps some of what it had.
const GROWTH: u64 = 8 << 10;

/// Descriptors, threads, and resident memory in KiB.
#[derive(Debug, Clone, Copy)]
struct Holds {
    descriptors: u64,
    threads: u64,
    memory: u64,
}

impl Holds {
    fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).expect("a number")
        };
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
        Self {
            descriptors: open.count() as u64,
            threads: number("Threads:"),
            memory: number("VmRSS:"),
        }
    }

    fn descriptors(&self) -> u64 {
        self.descriptors
    }

    fn threads(&self) -> u64 {
        self.threads
    }

    fn memory(&self) -> u64 {
        self.memory
    }
}

/// How many files and directories are below one.
fn entries(dir: &Path) -> usize {
    let inside = std::fs::read_dir(dir).expect("a directory");
    let count = |entry: std::fs::DirEntry| match entry.file_type().expect("a type").is_dir() {
        true => 1 + entries(&entry.path()),
        false => 1,
    };
    inside.map(|entry| count(entry.expect("an entry"))).sum()
}

/// Threads of copies and verifications beside a run stay idle for some seconds before they end; one that
/// leaked in each period would be more by far.
const IDLE: u64 = 2;

#[test]
fn files_threads_and_memory_do_not_grow() {
    let Some(bench) = Bench::new() else { return };
    let told = std::env::var("ETCD_DR_PERIODS").ok();
    let periods = told.map_or(PERIODS, |told| told.parse().expect("a number of periods"));
    let scratch = bench.cluster.scratch();
    let temporary = scratch.join("tmp");
    std::fs::create_dir(&temporary).expect("a folder");
    let (share, file) = (scratch.join("share"), scratch.join("etcd-dr.prom"));
    std::fs::create_dir(&share).expect("a share");
    let (url, listen) = (
        format!("file://{}", share.display()),
        free_port().to_string(),
    );
    let more = [
        "--keep-last",
        "3",
        "--copy-to",
        &url,
        "--textfile",
        path(&file),
        "--metrics-listen",
        &listen,
    ];
    let env = [("TMPDIR", path(&temporary).to_owned())];
    let mut scheduled = bench.schedule_with("@every 1s", &more, &env);
    let mut samples = Vec::new();
    for period in 1..=periods {
        let (line, _) = scheduled.until(|line| line["result"] == "taken");
        // Where the machine is busy, a copy may not fit into what is left of a second.
        let errors: Vec<_> = line["copies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|copy| copy["error"].as_str())
            .collect();
        let late = |error: &&str| error.contains("nothing more was sent");
        let status = if errors.is_empty() { 0 } else { 10 };
        assert!(
            line["status"] == status && errors.iter().all(late),
            "{line}"
        );
        if period >= WARM {
            samples.push(Holds::of(scheduled.pid()));
        }
    }
    let (status, _, stderr) = scheduled.stop();
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let half = samples.len() / 2;
    let (early, late) = samples.split_at(half);
    // A run may be under way when it is looked: what is held in the quietest moment counts.
    let least = |samples: &[Holds], of: fn(&Holds) -> u64| samples.iter().map(of).min();
    let told = |samples: &[Holds]| {
        [Holds::descriptors, Holds::threads, Holds::memory].map(|of| least(samples, of))
    };
    let quarters: Vec<_> = samples
        .chunks(samples.len().div_ceil(4))
        .map(told)
        .collect();
    println!("{periods} periods, least descriptors, threads and KiB by quarters: {quarters:?}");
    for (of, more) in [
        (Holds::descriptors as fn(&Holds) -> u64, 0),
        (Holds::threads, IDLE),
        (Holds::memory, GROWTH),
    ] {
        let (before, after) = (least(early, of), least(late, of));
        assert!(after <= before.map(|before| before + more), "{samples:?}");
    }
    // Three sets, the one that may have been taken while it was asked to stop, lock and link.
    let sets = bench.sets();
    assert!((3..=4).contains(&sets.len()), "{sets:?}");
    assert_eq!(entries(&temporary), 0);
    let state = bench.cluster.node_root(0).join("var/lib/etcd-dr");
    assert!(
        !state.exists() || entries(&state) == 0,
        "{}",
        entries(&state)
    );
    let per_set = entries(&bench.store.join(&sets[0].0));
    let expected = sets.len() * (per_set + 1) + 2;
    let there = entries(&bench.store);
    assert!(
        there.abs_diff(expected) <= sets.len(),
        "{there}, expected {expected}"
    );
}
