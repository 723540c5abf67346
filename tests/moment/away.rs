//! Recorded changes in another store: listed, proven, restored from and pruned there, after the node has
//! gone with its own.

use std::path::Path;

use serde_json::Value;

use crate::bench::{Past, Random, cluster, requests, text};
use crate::record::compact;
use crate::shelf::Shelf;
use testbench::bins::require_turn;
use testbench::golden;

/// What a command says as JSON.
fn told(args: &[&str]) -> Value {
    golden::run(&[args, &["-o", "json"]].concat(), &[])
        .expect(0)
        .json()
}

/// The segments that lie in a store: their last revisions.
fn segments(share: &Path) -> Vec<i64> {
    let mut found = Vec::new();
    let mut left = vec![share.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            let range = name.split('.').nth(1).filter(|_| name.contains(".changes"));
            found.extend(
                range.map(|range| range.split_once('-').unwrap().1.parse::<i64>().unwrap()),
            );
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn a_store_of_a_node_that_is_gone_is_listed_proven_and_pruned() {
    for bins in require_turn() {
        let mut random = Random(12);
        let cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        let share = shelf.dir.path().join("share");
        std::fs::create_dir(&share).unwrap();
        let url = format!("file://{}", share.display());
        let store = text(&shelf.store());
        let backup = || {
            golden::run(&shelf.args(&["backup", &store, "--copy-to", &url]), &[]).expect(0);
            cluster.revision(0)
        };
        requests(&cluster, &mut random, 10);
        let first = backup();
        let recorder = shelf.record_with(None, &["--copy-to", &url, "--prove-every", "0s"]);
        requests(&cluster, &mut random, 15);
        let middle = cluster.revision(0);
        let past = Past::of(&cluster, middle);
        shelf.wait(middle);
        requests(&cluster, &mut random, 8);
        shelf.wait(cluster.revision(0));
        // The second backup's own history does not go back to the middle.
        compact(&cluster);
        let second = backup();
        requests(&cluster, &mut random, 10);
        let last = cluster.revision(0);
        let then = Past::of(&cluster, last);
        shelf.wait(last);
        recorder.stop();
        // One object for each file.
        let files: usize = shelf.chains().iter().map(|(_, names)| names.len()).sum();
        assert_eq!(segments(&share).len(), files);
        std::fs::remove_dir_all(shelf.store()).unwrap();

        let listed = told(&["list", &url, "--ranges"]);
        let reachable = &listed["clusters"][0];
        let range = &reachable["ranges"][0];
        assert_eq!(
            (&range["from"], &range["to"]),
            (&1.into(), &last.into()),
            "{listed}"
        );
        assert_eq!(reachable["gaps"], serde_json::json!([]));
        let node = reachable["node"].as_str().unwrap();
        let scratch = text(shelf.dir.path());
        let verified = told(&["verify", "--ranges", &url, "--scratch", &scratch]);
        assert_eq!(verified["good"], true, "{verified}");
        let proofs = [&verified["proofs"][0], &verified["proofs"][1]];
        assert_eq!(proofs[0]["hashkv"], "equal", "{verified}");
        assert_eq!(
            (&proofs[0]["from"], &proofs[0]["to"]),
            (&first.into(), &second.into())
        );
        assert_eq!(proofs[1]["hashkv"], "notChecked", "{verified}");

        let to = |name: &str| shelf.dir.path().join(name);
        let restore = |set: &str, name: &str, revision: i64| {
            let revision = revision.to_string();
            let args = ["--to-revision", &revision, "--scratch", &scratch];
            shelf.restore(&format!("{url}/{set}"), &to(name), &args)
        };
        let made = restore("latest", "d1", middle).expect(0).json();
        assert_eq!(made["moment"]["hashKv"], past.hash, "{made}");
        assert_eq!(made["recorded"]["hashkv"], "equal", "{made}");
        assert_eq!(made["recorded"]["backup"], format!("{node}/backup-2"));
        let made = restore(&format!("{node}/latest"), "d2", last)
            .expect(0)
            .json();
        assert_eq!(made["moment"]["hashKv"], then.hash, "{made}");

        let all = segments(&share);
        let prune = ["prune", &url, "--keep-last", "1", "--yes"];
        let pruned = told(&prune);
        assert_eq!(
            pruned["removed"],
            serde_json::json!([format!("{node}/backup-1")])
        );
        let left: Vec<i64> = all.iter().copied().filter(|last| *last > second).collect();
        assert!(
            !left.is_empty() && left.len() < all.len(),
            "{all:?}, {second}"
        );
        assert_eq!(segments(&share), left);
        assert_eq!(pruned["changes"][0]["remove"], all.len() - left.len());
        assert_eq!(told(&prune)["changes"][0]["remove"], 0);
        let refused = restore("latest", "d3", middle).expect(5).json();
        assert_eq!(
            refused["error"]["refusal"], "unreachable-target",
            "{refused}"
        );
        let made = restore("latest", "d3", last).expect(0).json();
        assert_eq!(made["moment"]["hashKv"], then.hash, "{made}");

        let cluster_id = reachable["clusterId"].as_str().unwrap();
        let cleared = told(&["prune", &url, "--cluster", cluster_id, "--all", "--yes"]);
        assert_eq!(cleared["problems"], serde_json::json!([]), "{cleared}");
        assert_eq!(segments(&share), Vec::<i64>::new());
    }
}
