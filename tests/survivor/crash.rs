//! A kill, a failure or a full disk at every changing call: the directory is absent or whole, and
//! the source is what it was.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

use crate::bench::{copy, etcd_dr as judge, fingerprint};
use testbench::bins::require;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::etcd_dr;

fn go(from: &Path, to: &Path, seam: Option<String>) -> Output {
    let mut command = etcd_dr();
    command
        .args(["--progress", "never", "restore", "--store", "/none"])
        .arg("--from-data-dir")
        .arg(from)
        .arg("--data-dir")
        .arg(to);
    if let Some(seam) = seam {
        command.env("ETCD_DR_SEAM", seam);
    }
    command.output().unwrap()
}

/// Whether the directory is there; then it must be whole, and nothing may be beside it otherwise.
fn whole(to: &Path) -> bool {
    if !to.exists() {
        return false;
    }
    let run = judge(&["verify", "--data-dir", to.to_str().unwrap()]);
    assert_eq!(run.status, Some(0), "{}{}", run.stdout, run.stderr);
    true
}

#[test]
fn a_crash_leaves_all_or_nothing_and_the_source_untouched() {
    let Some(bins) = require("3.5") else { return };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain());
    for i in 0..20 {
        cluster.etcdctl_ok(&["put", &format!("k{i}"), "value"]);
    }
    cluster.kill(0);
    let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let scratch = scratch.unwrap();
    let source = scratch.path().join("source");
    copy(cluster.data_dir(0), &source);
    let untouched = fingerprint(&source);
    let place = |name: &str| {
        let dir = scratch.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir.join("made")
    };
    let counted = scratch.path().join("calls");
    let seam = format!("count:{}", counted.display());
    let output = go(&source, &place("count"), Some(seam));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let calls: u64 = std::fs::read_to_string(&counted).unwrap().parse().unwrap();
    assert!(calls > 20, "{calls}");
    let (mut nothing, mut all) = (0, 0);
    for call in 1..=calls {
        for mode in ["kill", "fail", "full"] {
            let to = place(&format!("{mode}-{call}"));
            let words = if mode == "fail" { ":5" } else { "" };
            let output = go(&source, &to, Some(format!("{mode}:{call}{words}")));
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            match mode {
                "kill" => assert_eq!(output.status.signal(), Some(9), "{call}: {told}"),
                // A full disk stops only what takes room.
                _ if output.status.success() => {}
                _ => assert_eq!(output.status.code(), Some(6), "{mode} {call}: {told}"),
            }
            if whole(&to) {
                all += 1;
            } else {
                nothing += 1;
                if call % 3 > 0 {
                    std::fs::remove_dir_all(to.parent().unwrap()).unwrap();
                    continue;
                }
                let again = go(&source, &to, None);
                let told = String::from_utf8_lossy(&again.stderr).into_owned();
                assert!(again.status.success(), "{mode} {call}: {told}");
                let left = std::fs::read_dir(to.parent().unwrap()).unwrap().count();
                assert_eq!(left, 1, "{mode} {call}: leftovers");
                assert!(whole(&to));
            }
            std::fs::remove_dir_all(to.parent().unwrap()).unwrap();
        }
    }
    println!("{calls} calls: {nothing} times nothing, {all} times all");
    assert!(nothing > 20 && all >= 1);
    assert_eq!(fingerprint(&source), untouched);
}
