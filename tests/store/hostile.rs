//! SFTP servers that name what no directory has: a real sshd with a server of our own behind it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::bench::run;
use testbench::sshd::Sshd;

fn server(kind: &str) -> Option<Sshd> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/hostile_sftp.py");
    Sshd::start_serving(&format!("/usr/bin/env python3 {} {kind}", script.display()))
}

#[test]
fn hostile_names_are_passed_over_and_lead_nowhere() {
    let Some(server) = server("names") else {
        return;
    };
    let url = server.url();
    let listed = run(&["list", &url, "-o", "json"], &server.variables()).expect(0);
    assert_eq!(listed.json()["sets"], serde_json::json!([]), "{listed}");
    let shown = run(&["list", &url], &server.variables()).expect(0);
    assert!(!shown.to_string().contains('\u{1b}'), "{shown:?}");
    let pruned = ["prune", &url, "--keep-last", "1", "--yes"];
    run(&pruned, &server.variables()).expect(0);
    // It was never asked for what they name, but for directories with plain names.
    let log = std::fs::read_to_string(server.scratch.path().join("log")).expect("a log");
    let asked: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("asked for"))
        .collect();
    for line in &asked {
        assert!(
            !line.contains("..") && !line.contains("etc/") && !line.contains("\\x"),
            "{asked:?}"
        );
    }
}

#[test]
fn listings_without_an_end_and_with_enormous_names_are_given_up() {
    for (kind, bound) in [
        ("endless", "it has more than 1000000 entries"),
        ("enormous", "bytes, but at most 262144 are accepted"),
    ] {
        let Some(server) = server(kind) else { return };
        let began = Instant::now();
        let listed = run(&["list", &server.url()], &server.variables()).expect(6);
        assert!(listed.stderr.contains("listing "), "{listed}");
        assert!(listed.stderr.contains(bound), "{listed}");
        assert!(began.elapsed() < Duration::from_secs(120), "{kind}");
    }
}
