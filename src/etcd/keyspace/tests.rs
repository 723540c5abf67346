use super::*;
use crate::error::Kind;
use crate::etcd::bbolt::FileSource;

/// The fixture with every revision since the cluster began, and what a watch saw of them.
fn history() -> (Vec<u8>, Vec<serde_json::Value>) {
    let fixture = |name: &str| {
        let path = format!("{}/fixtures/objects/{name}", env!("CARGO_MANIFEST_DIR"));
        zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap()
    };
    let changes = serde_json::from_slice(&fixture("history.json.zst")).unwrap();
    (fixture("history.db.zst"), changes)
}

#[test]
fn the_keys_at_every_revision_are_those_that_a_watch_saw() {
    let (bytes, changes) = history();
    let database = Database::open(&bytes).unwrap();
    let current = changes.last().unwrap()["revision"].as_i64().unwrap();
    assert_eq!(database.revision().unwrap(), current);
    let mut alive = std::collections::BTreeMap::new();
    let mut changes = changes.iter().peekable();
    for revision in 1..=current {
        while let Some(change) = changes.next_if(|change| change["revision"] == revision) {
            let key = change["key"].as_str().unwrap().as_bytes().to_vec();
            match change["type"].as_str().unwrap() {
                "delete" => alive.remove(&key),
                _ => alive.insert(key, (revision, change["valueSha256"].as_str().unwrap())),
            };
        }
        if revision % 7 != 0 && revision != current {
            continue;
        }
        let space = Keyspace::read(&database, Some(revision), &|_| true).unwrap();
        let found: Vec<_> = space
            .keys()
            .map(|key| {
                let value = space.value(key.value).unwrap();
                let hash = crate::sys::digest::sha256_hex(&value);
                (key.name.to_vec(), (key.mod_revision, hash))
            })
            .collect();
        let expected: Vec<_> = alive
            .iter()
            .map(|(key, (revision, hash))| (key.clone(), (*revision, (*hash).to_owned())))
            .collect();
        assert_eq!(found, expected, "revision {revision}");
    }
}

#[test]
fn one_key_is_found_at_each_of_its_revisions() {
    let (bytes, changes) = history();
    let database = Database::open(&bytes).unwrap();
    let key = changes
        .iter()
        .find(|change| change["type"] == "delete")
        .map(|change| change["key"].as_str().unwrap())
        .unwrap();
    let of_key: Vec<_> = changes
        .iter()
        .filter(|change| change["key"] == key)
        .collect();
    let found = versions(&database, &|name| name == key.as_bytes()).unwrap();
    assert_eq!(found.len(), of_key.len());
    for ((name, found), change) in found.iter().zip(&of_key) {
        assert_eq!(name, key.as_bytes());
        let revision = change["revision"].as_i64().unwrap();
        assert_eq!(found.revision.main, revision);
        assert_eq!(found.tombstone, change["type"] == "delete");
        let one = |revision| {
            Keyspace::one(&database, Some(revision), &|name| name == key.as_bytes()).unwrap()
        };
        let at = one(revision);
        let at = at.keys().map(|key| (key.mod_revision, key.value)).next();
        let expected = (revision, found.value);
        assert_eq!(at, (!found.tombstone).then_some(expected));
        assert!(one(1).is_empty());
    }
}

#[test]
fn a_revision_that_is_not_there_is_refused_with_those_that_are() {
    let (bytes, _) = history();
    let database = Database::open(&bytes).unwrap();
    for revision in [0, 493, i64::MAX] {
        let failure = Keyspace::read(&database, Some(revision), &|_| true).unwrap_err();
        assert_eq!(failure.kind(), Kind::Usage);
        assert!(
            failure.to_string().ends_with("it holds 1 to 492"),
            "{failure}"
        );
    }
}

#[test]
fn what_is_not_a_database_is_bad() {
    for bytes in [Vec::new(), vec![7; 4096], vec![0; 65536]] {
        let failure = Database::open(&bytes).map(drop).unwrap_err();
        assert_eq!(failure.kind(), Kind::BadBackup, "{failure}");
    }
    let path = format!("{}/fixtures/store/backup-1", env!("CARGO_MANIFEST_DIR"));
    let name = std::fs::read_dir(&path)
        .unwrap()
        .flatten()
        .find(|e| e.path().extension().is_some_and(|e| e == "db"));
    let source = FileSource::open(&name.unwrap().path()).unwrap();
    let database = Database::open(&source).unwrap();
    assert!(Keyspace::read(&database, None, &|_| true).unwrap().len() > 3);
}

/// The keys in order, however many runs they are merged from, are those that are read at once.
#[test]
fn sorted_keys_are_the_same_from_memory_and_from_many_runs() {
    let (bytes, _) = history();
    let database = Database::open(&bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let hasher = RandomState::new();
    for (revision, room) in [(None, ROOM), (None, 0), (None, 3_000), (Some(200), 3_000)] {
        let ask = Ask {
            revision,
            wants: &|key| !key.ends_with(b"0"),
            aside: &|key| key.contains(&b'1'),
            hasher: Some(&hasher),
            scratch: dir.path(),
            room,
        };
        let (mut sorted, aside) = sorted(&database, &ask).unwrap();
        let spilled = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(spilled, usize::from(room < ROOM));
        let expected = Keyspace::read(&database, revision, ask.wants).unwrap();
        assert_eq!(sorted.revision, expected.revision);
        assert!(expected.len() > 30);
        for key in expected.keys() {
            let hash = hasher.hash_one(expected.value(key.value).unwrap().as_slice());
            assert_eq!(sorted.next_key().unwrap(), Some(Key { hash, ..key }));
        }
        assert_eq!(sorted.next_key().unwrap(), None);
        let expected = Keyspace::read(&database, revision, ask.aside).unwrap();
        assert!(aside.keys().eq(expected.keys()) && !aside.is_empty());
        drop(sorted);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
