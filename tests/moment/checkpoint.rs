//! What etcd itself says beside its changes: its HashKV, its members and its users.

use std::path::Path;

use etcd_dr::etcd::segment::{Segment, checkpoints};

use crate::bench::{Random, cluster, requests, text};
use crate::shelf::{LIMIT, Shelf};
use testbench::bins::require_all;
use testbench::golden;
use testbench::process::wait_for;

/// Before the next backup is taken, etcd's own HashKV proves what was recorded; and what changed besides
/// keys is said.
#[test]
fn etcd_itself_proves_what_no_backup_does() {
    for bins in require_all() {
        let mut random = Random(31);
        let cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        requests(&cluster, &mut random, 10);
        shelf.backup();
        let recorder = shelf.record_with(None, &["--prove-every", "100ms"]);
        requests(&cluster, &mut random, 10);
        let peer = "--peer-urls=http://127.0.0.1:1";
        cluster.etcdctl_ok(&["member", "add", "later", "--learner", peer]);
        cluster.etcdctl_ok(&["role", "add", "reader"]);
        let tells_auth = !bins.version.starts_with("3.4");
        let told = || {
            requests(&cluster, &mut random, 2);
            let (dir, _) = shelf.chains().pop().ok_or("no chain")?;
            let found = checkpoints(&dir, 0, i64::MAX).unwrap();
            let last = found.last().ok_or("no checkpoint")?;
            let auth = last.auth.is_some_and(|auth| auth.revision > 1);
            match last.members.len() == 2 && last.hash_kv.is_some() && auth == tells_auth {
                true => Ok(()),
                false => Err("an earlier checkpoint"),
            }
        };
        wait_for("a checkpoint after the changes", LIMIT, told).unwrap();
        let revision = cluster.revision(0);
        recorder.stop();
        shelf.check();
        let to = revision.to_string();
        let restore = |name: &str| {
            let data_dir = shelf.dir.path().join(name);
            shelf.restore("latest", &data_dir, &["--to-revision", &to])
        };
        let made = restore("d").expect(0).json();
        let recorded = &made["recorded"];
        assert_eq!(recorded["hashkv"], "equal", "{made}");
        assert!(
            recorded["etcdRevision"]
                .as_i64()
                .is_some_and(|at| at <= revision),
            "{made}"
        );
        let notes = recorded["notes"].to_string();
        assert!(notes.contains("joined the cluster"), "{notes}");
        assert_eq!(
            notes.contains("users, roles or authentication"),
            tells_auth,
            "{notes}"
        );
        let store = text(&shelf.store());
        let verify = ["verify", "--ranges", &store, "-o", "json"];
        let verified = golden::run(&verify, &[]).expect(0).json();
        assert_eq!(verified["proofs"][0]["hashkv"], "equal", "{verified}");
        assert!(verified["proofs"][0]["etcdRevision"].is_i64(), "{verified}");
        // Another HashKV of etcd's than the result has: refused.
        let (dir, names) = shelf.chains().pop().unwrap();
        let has_hash = |path: &Path| {
            let header = Segment::header_of(path).unwrap().unwrap();
            header
                .checkpoint
                .is_some_and(|known| known.hash_kv.is_some())
        };
        let mut paths = names.iter().rev().map(|name| dir.join(name.to_string()));
        let last = paths.find(|path| has_hash(path)).unwrap();
        for name in names.iter().rev().map(|name| dir.join(name.to_string())) {
            if name == last {
                break;
            }
            std::fs::remove_file(name).unwrap();
        }
        std::fs::write(&last, with_another_hash(&std::fs::read(&last).unwrap())).unwrap();
        let until = Segment::open(&last)
            .unwrap()
            .header()
            .last_revision
            .to_string();
        let refused = shelf.restore(
            "latest",
            &shelf.dir.path().join("x"),
            &["--to-revision", &until],
        );
        let refused = refused.expect(5).json();
        assert_eq!(refused["error"]["refusal"], "segment-mismatch", "{refused}");
        let verified = golden::run(&verify, &[]).expect(11).json();
        assert_eq!(verified["proofs"][0]["hashkv"], "different", "{verified}");
    }
}

/// The same segment with another hash in its checkpoint, and a hash of its own that fits.
fn with_another_hash(content: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let mut forged = content[..content.len() - 32].to_vec();
    let key = b"\"hashKv\":{\"hash\":";
    let at = forged
        .windows(key.len())
        .position(|window| window == key)
        .unwrap()
        + key.len();
    let end = at + forged[at..].iter().position(|byte| *byte == b',').unwrap();
    forged[end - 1] = if forged[end - 1] == b'0' { b'1' } else { b'0' };
    let hash = Sha256::digest(&forged);
    forged.extend_from_slice(&hash);
    forged
}
