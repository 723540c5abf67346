//! What is refused, and what the command line says.

use crate::bench::{copy, etcd_dr, make, request};
use crate::support::bins::require;
use crate::support::cluster::{Cluster, ClusterSpec};

#[test]
fn what_cannot_be_a_survivor_is_refused() {
    let Some(bins) = require("3.5") else { return };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain());
    cluster.etcdctl_ok(&["put", "a", "1"]);
    let learner = cluster.add_slot("learner");
    let peer = format!("--peer-urls={}", cluster.peer_url(learner));
    cluster.etcdctl_ok(&["member", "add", "learner", "--learner", &peer]);
    let all = cluster.initial_cluster();
    cluster.launch(learner, &all, "existing");
    // A learner answers no health check; its log tells when it has come.
    let arrived = || std::fs::read_dir(cluster.data_dir(learner).join("member/wal")).is_ok();
    for _ in 0..100 {
        if arrived() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    let scratch = tempfile::tempdir().unwrap();
    let made = scratch.path().join("made");

    let running = make(&request(cluster.data_dir(0), &made)).unwrap_err();
    assert_eq!(running.refusal(), Some("etcd-running"), "{running}");
    cluster.kill(learner);
    let failure = make(&request(cluster.data_dir(learner), &made)).unwrap_err();
    assert_eq!(failure.refusal(), Some("learner-survivor"), "{failure}");
    cluster.kill(0);

    let mut other = request(cluster.data_dir(0), &made);
    other.name = Some("somebody".to_owned());
    let failure = make(&other).unwrap_err();
    assert_eq!(failure.refusal(), Some("other-member"), "{failure}");
    let into_itself = make(&request(cluster.data_dir(0), cluster.data_dir(0))).unwrap_err();
    assert_eq!(into_itself.refusal(), Some("data-dir-not-empty"));

    // A byte of the database's root page: none of the page is trusted then.
    let source = scratch.path().join("source");
    copy(cluster.data_dir(0), &source);
    let db = source.join("member/snap/db");
    let mut bytes = std::fs::read(&db).unwrap();
    for page in 2..bytes.len() / 4096 {
        bytes[page * 4096] ^= 0x55;
    }
    std::fs::write(&db, bytes).unwrap();
    let failure = make(&request(&source, &made)).unwrap_err();
    assert_eq!(failure.refusal(), Some("damaged-survivor"), "{failure}");
    std::fs::remove_file(&db).unwrap();
    assert!(make(&request(&source, &made)).is_err());
    assert!(!made.exists());

    // By the command line, with the learner removed as well.
    let dir = cluster.data_dir(0).to_str().unwrap();
    let to = made.to_str().unwrap();
    let run = etcd_dr(&[
        "restore",
        "--from-data-dir",
        dir,
        "--data-dir",
        to,
        "-o",
        "json",
    ]);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let json = run.json();
    assert_eq!(json["member"]["name"], "master-0");
    assert_eq!(json["removed"][0]["name"], "learner");
    assert_eq!(json["removed"][0]["learner"], true);
    let judged = etcd_dr(&["verify", "--data-dir", to]);
    assert_eq!(judged.status, Some(0), "{}", judged.stdout);
    assert!(
        judged.stdout.contains("a voter, of cluster"),
        "{}",
        judged.stdout
    );
}
