//! What happens when the hash takes two keys for one.

use super::record::{KeyHasher, MASK, UserKey};
use super::{Options, Report, inspect};
use crate::etcd::mvcc::{KeyValue, KvRevision, RevisionKey};

use testbench::database::writer::{Bucket, Shape, seal, write};

/// A store with one version of each key, then one more of each.
fn store(keys: usize, delete: Option<usize>, forget: Option<usize>) -> Vec<u8> {
    let mut root = Bucket::default();
    for name in super::buckets::STANDARD {
        root.bucket(name.as_bytes());
    }
    root.bucket(b"meta")
        .put(b"consistent_index", &[0, 0, 0, 0, 0, 0, 0, 9]);
    let mut main = 1;
    for version in 1..=2 {
        for n in 0..keys {
            main += 1;
            let revision = KvRevision { main, sub: 0 };
            let tombstone = version == 2 && delete == Some(n);
            let kv = KeyValue {
                key: &name(n),
                create_revision: 2 + n as i64,
                mod_revision: main,
                // The forgotten one jumps.
                version: version + i64::from(version == 2 && forget == Some(n)),
                value: b"v",
                lease: 0,
            };
            let bare = KeyValue {
                key: &name(n),
                ..KeyValue::default()
            };
            let value = if tombstone {
                bare.encode()
            } else {
                kv.encode()
            };
            let key = RevisionKey {
                revision,
                tombstone,
            }
            .encode();
            root.bucket(b"key").put(&key, &value);
        }
    }
    seal(write(&root, &Shape::default()).bytes)
}

fn name(n: usize) -> Vec<u8> {
    format!("/registry/x/{n}").into_bytes()
}

fn look(file: &[u8], seed: u64) -> Report {
    let options = Options {
        seed,
        ..Options::default()
    };
    inspect(&file, &options, &|_| {}).unwrap()
}

/// A seed under which two of the keys share the few bits that are left of the hash, and the next
/// seed under which none do.
fn colliding(keys: usize) -> u64 {
    let collides = |seed| {
        let hasher = KeyHasher::new(seed);
        let mut seen: Vec<_> = (0..keys)
            .map(|n| hasher.fingerprint(&UserKey::Whole(name(n).into())))
            .collect();
        seen.sort();
        seen.windows(2).any(|pair| pair[0] == pair[1])
    };
    (0..100_000)
        .find(|&seed| collides(seed) && !collides(seed + 1))
        .unwrap()
}

#[test]
fn keys_that_collide_make_no_false_alarm_and_no_wrong_count() {
    MASK.set(0xFFFF_0000_0000_0000);
    for keys in [20, 50] {
        let seed = colliding(keys);
        let sound = look(&store(keys, None, None), seed);
        assert!(sound.findings.is_empty(), "{:#?}", sound.findings);
        let facts = sound.facts.unwrap();
        assert_eq!(facts.keys, keys as u64);
        assert_eq!(facts.distinct_keys, keys as u64);
        assert_eq!(sound.collected.left_out, 0);
        let deleted = look(&store(keys, Some(7), None), seed);
        assert!(deleted.findings.is_empty(), "{:#?}", deleted.findings);
        assert_eq!(deleted.facts.unwrap().keys, keys as u64 - 1);
    }
    MASK.set(u64::MAX);
}

#[test]
fn hopeless_collisions_make_no_false_alarm_either() {
    MASK.set(0);
    let sound = look(&store(30, None, None), 1);
    assert!(sound.findings.is_empty(), "{:#?}", sound.findings);
    MASK.set(u64::MAX);
}

#[test]
fn a_version_that_does_not_follow_is_found_and_placed() {
    let report = look(&store(30, None, Some(4)), 1);
    assert_eq!(report.findings.errors(), 1, "{:#?}", report.findings);
    let finding = &report.findings.listed()[0];
    assert!(finding.expected.contains("/registry/x/4"), "{finding}");
    assert!(
        finding.expected.contains("version 2 created at 6"),
        "{finding}"
    );
    assert!(
        finding
            .found
            .contains("version 1 created at 6 at revision 6/0"),
        "{finding}"
    );
    assert!(finding.place.is_some());
}
