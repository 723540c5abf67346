//! Recorded changes in another store that only an identity opens, with a gap between them.

use serde_json::Value;

use crate::bench::{Random, cluster, requests, text};
use crate::record::compact;
use crate::shelf::{LIMIT, Shelf};
use testbench::bins::require_turn;
use testbench::golden;
use testbench::process::wait_for;

/// What a command says as JSON, with this status.
fn told(status: i32, args: &[&str]) -> Value {
    golden::run(&[args, &["-o", "json"]].concat(), &[])
        .expect(status)
        .json()
}

/// The cause of the gap is in a segment: with an identity it is named, and without one that is said.
#[test]
fn a_gap_between_encrypted_segments_has_its_cause() {
    for bins in require_turn() {
        let mut random = Random(41);
        let cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        let share = shelf.share();
        let url = share.url.as_str();
        let copies = ["--copy-to", url, "--recipient", &share.recipient];
        let store = text(&shelf.store());
        let backup = shelf.args(&[&["backup", &store][..], &copies].concat());
        requests(&cluster, &mut random, 5);
        golden::run(&backup, &[]).expect(0);
        let more = [&copies[..], &["--prove-every", "0s"]].concat();
        let recorder = shelf.record_with(None, &more);
        requests(&cluster, &mut random, 10);
        let before = cluster.revision(0);
        shelf.wait(before);
        recorder.stop();
        requests(&cluster, &mut random, 20);
        compact(&cluster);
        let recorder = shelf.record_with(None, &more);
        let begun = || match shelf.chains().len() {
            2 => Ok(()),
            _ => {
                requests(&cluster, &mut random, 2);
                Err("one chain")
            }
        };
        wait_for("a second chain", LIMIT, begun).unwrap();
        golden::run(&backup, &[]).expect(0);
        requests(&cluster, &mut random, 5);
        shelf.wait(cluster.revision(0));
        recorder.stop();
        std::fs::remove_dir_all(shelf.store()).unwrap();

        let list = ["list", url, "--ranges"];
        for (with, cause, sentence) in [
            (&[][..], "encrypted", "why is encrypted: give --identity"),
            (
                &["--identity", &share.identity],
                "compacted",
                "etcd had compacted it",
            ),
        ] {
            let list = [&list[..], with].concat();
            let listed = told(0, &list);
            let gaps = listed["clusters"][0]["gaps"].as_array().unwrap();
            assert_eq!(gaps.len(), 1, "{listed}");
            assert_eq!(
                (&gaps[0]["after"], &gaps[0]["cause"]),
                (&before.into(), &cause.into()),
                "{listed}"
            );
            let shown = golden::run(&list, &[]).expect(0).stdout;
            assert!(shown.contains(sentence), "{shown}");
        }
        let scratch = text(shelf.dir.path());
        let verify = ["verify", "--ranges", url, "--scratch", &scratch];
        let refused = told(2, &verify);
        let error = refused["error"].to_string();
        assert!(error.contains("is encrypted"), "{refused}");
        let verified = told(0, &[&verify[..], &["--identity", &share.identity]].concat());
        assert_eq!(verified["good"], true, "{verified}");
        assert_eq!(verified["recordedChains"].as_array().unwrap().len(), 2);
        for chain in verified["recordedChains"].as_array().unwrap() {
            assert!(chain["changes"].as_u64().unwrap() > 0, "{verified}");
        }
    }
}
