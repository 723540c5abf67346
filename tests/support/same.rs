//! Whether the members of a cluster hold the same data, as etcd's own hash tells it.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::process::wait_for;

/// The hashes of all running members are one.
#[track_caller]
pub fn assert_same_data(cluster: &Cluster) {
    let result = wait_for(
        "every member's HashKV to be one",
        Duration::from_secs(30),
        || {
            let text = cluster.etcdctl_ok(&["endpoint", "hashkv", "-w", "json"]);
            let hashes: Value = serde_json::from_str(&text).expect("reading etcdctl's JSON");
            let hashes = hashes.as_array().expect("a list");
            let part = |hash: &Value| {
                (
                    hash["HashKV"]["hash"].clone(),
                    hash["HashKV"]["compact_revision"].clone(),
                )
            };
            match hashes.iter().all(|hash| part(hash) == part(&hashes[0])) {
                true => Ok(hashes.len()),
                false => Err(text),
            }
        },
    );
    let count = result.unwrap_or_else(|error| panic!("{error}"));
    let running = (0..cluster.size())
        .filter(|i| cluster.is_running(*i))
        .count();
    assert_eq!(count, running);
}
