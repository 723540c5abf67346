//! etcd, the store and the certificates go and come back: it reports, waits, and continues.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::bench::{Bench, path};
use testbench::process::write_private;
use testbench::tmpfs::Tmpfs;

fn taken(line: &Value) -> bool {
    line["result"] == "taken"
}

/// To how many periods these lines belong.
fn periods(lines: &[Value]) -> usize {
    let starts = lines.iter().map(|line| line["period"]["start"].to_string());
    starts.collect::<BTreeSet<_>>().len()
}

#[test]
fn an_etcd_that_is_down_for_three_periods_is_backed_up_afterwards() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let mut scheduled = bench.schedule("@every 2s", &[]);
    scheduled.until(taken);
    bench.cluster.kill(0);
    let mut failed = Vec::new();
    while periods(&failed) < 3 {
        let line = scheduled.next();
        // One may have been in progress.
        if !taken(&line) {
            assert_eq!(line["error"]["kind"], "unreachable", "{line}");
            assert_eq!(line["status"], 4, "{line}");
            failed.push(line);
        }
    }
    assert!(scheduled.lives());
    bench.cluster.restart(0);
    let (line, _) = scheduled.until(taken);
    assert_eq!(line["status"], 0, "{line}");
    let (status, _, stderr) = scheduled.stop();
    assert_eq!(status, Some(0));
    // Every failure is in the log.
    assert!(
        stderr.matches("error: ").count() >= failed.len(),
        "{stderr}"
    );
    assert!(bench.sets().iter().all(|(_, state)| state == "good"));
}

#[test]
fn a_store_that_was_full_gets_its_backup() {
    let Some(bench) = Bench::new() else { return };
    let Some(small) = Tmpfs::mount(&bench.store, "32k") else {
        return;
    };
    let mut scheduled = bench.schedule("@every 2s", &[]);
    for _ in 0..2 {
        let line = scheduled.next();
        assert_eq!(line["error"]["kind"], "store", "{line}");
        assert_eq!(line["status"], 6, "{line}");
    }
    assert_eq!(bench.sets(), []);
    small.remount("size=512m");
    scheduled.until(taken);
    let (status, _, _) = scheduled.stop();
    assert_eq!(status, Some(0));
    assert!(bench.sets().iter().all(|(_, state)| state == "good"));
}

#[test]
fn each_run_reads_the_certificates_again() {
    let Some(bench) = Bench::new() else { return };
    let mut pair = Vec::new();
    for (name, at) in bench.cluster.client_env() {
        let option = match name {
            "ETCDCTL_CERT" => "--cert",
            "ETCDCTL_KEY" => "--key",
            _ => continue,
        };
        let copy = bench.cluster.scratch().join(option.trim_start_matches('-'));
        std::fs::copy(&at, &copy).expect("copying a certificate");
        pair.push((option, at, copy));
    }
    assert_eq!(pair.len(), 2);
    let more: Vec<&str> = pair
        .iter()
        .flat_map(|(option, _, copy)| [*option, path(copy)])
        .collect();
    let mut scheduled = bench.schedule("@every 2s", &more);
    scheduled.until(taken);
    // A rotation caught half-way: the key is not there yet.
    std::fs::remove_file(&pair[1].2).expect("a key");
    let (line, _) = scheduled.until(|line| !taken(line));
    assert!(line["error"]["message"].as_str().is_some(), "{line}");
    std::fs::copy(&pair[1].1, &pair[1].2).expect("the key again");
    scheduled.until(taken);
    // And one to another pair: a mismatch is reported, a pair that matches is used.
    let ca = bench.cluster.certs().expect("with TLS").ca();
    let fresh = ca.leaf("system:etcd-peer:fresh", "system:etcd-peers", &[]);
    write_private(&pair[1].2, fresh.key.as_bytes());
    let (line, _) = scheduled.until(|line| !taken(line));
    assert!(line["error"]["message"].as_str().is_some(), "{line}");
    write_private(&pair[0].2, fresh.cert.as_bytes());
    scheduled.until(taken);
    assert_eq!(scheduled.stop().0, Some(0));
}
