//! Memory: that of `diff` and of the numbers of `get` does not grow with the number of keys.

use serde_json::json;
use testbench::database::model::{Version, encode, revision_key};
use testbench::database::writer::{Bucket, Shape, write};
use testbench::golden::run_within;

/// Objects of each store. Their keys and rows, some 60 MiB, are held by neither command.
const OBJECTS: i64 = 300_000;
/// The uid of every thousandth object, and the one that it has in the other store.
const BEFORE: &str = "uid-before";
const AFTER: &str = "uid-later!";
/// Bytes of private memory: two databases with [`ROOM`] each, which tables may exceed by half while they grow.
///
/// [`ROOM`]: etcd_dr::etcd::keyspace::ROOM
const LIMIT: u64 = 96 << 20;

/// A store of ConfigMaps, of which every thousandth has another uid.
fn store() -> Vec<u8> {
    let mut root = Bucket::default();
    for name in ["cluster", "lease", "members", "members_removed", "meta"] {
        root.bucket(name.as_bytes());
    }
    let keys = root.bucket(b"key");
    for main in 2..OBJECTS + 2 {
        // Their order by key is not that of their revisions.
        let number = main * 7919 % OBJECTS;
        let uid = if number % 1000 == 0 { BEFORE } else { "none" };
        let name = format!("a-config-map-whose-name-is-of-an-ordinary-length-{number:07}");
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "shop", "uid": uid}});
        let version = Version {
            key: format!("/registry/configmaps/shop/{name}").into_bytes(),
            value: value.to_string().into_bytes(),
            create: main,
            version: 1,
            lease: 0,
            tombstone: false,
        };
        keys.put(&revision_key(main, 0, false), &encode(main, &version));
    }
    let shape = Shape {
        streamed: false,
        ..Shape::default()
    };
    write(&root, &shape).bytes
}

/// Where a word is.
fn places_of(bytes: &[u8], word: &[u8]) -> Vec<usize> {
    let first = word[0];
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
    starts
        .map(|(at, _)| at)
        .filter(|at| bytes[*at..].starts_with(word))
        .collect()
}

#[test]
fn many_keys_are_compared_and_counted_in_little_memory() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut bytes = store();
    std::fs::write(path("before.db"), &bytes).expect("a database");
    // The same store with other objects: a uid of the same length in its place.
    let found: Vec<usize> = places_of(&bytes, BEFORE.as_bytes());
    for at in found {
        bytes[at..at + AFTER.len()].copy_from_slice(AFTER.as_bytes());
    }
    std::fs::write(path("after.db"), &bytes).expect("a database");
    drop(bytes);
    let (scratch, before, after) = (path(""), path("before.db"), path("after.db"));
    let more = ["--scratch", &scratch, "-o", "json"];
    let args = [&["diff", &before, &after], &more[..]].concat();
    let shown = run_within(&args, &[], LIMIT).expect(11).json();
    let count = OBJECTS / 1000;
    let counts = json!({"added": 0, "removed": 0, "replaced": count, "changed": 0});
    assert_eq!(shown["counts"], counts);
    assert_eq!(shown["sameObjects"], OBJECTS - count);
    let args = [&["get", &before], &more[..]].concat();
    let shown = run_within(&args, &[], LIMIT).expect(0).json();
    assert_eq!(shown["objects"], OBJECTS);
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("a folder").collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
