//! What the fuzz targets do with their input, shared with the smoke test that runs on a stable
//! compiler: `cargo test`. The targets themselves:
//! `cargo +nightly fuzz run --features libfuzzer bbolt`.

use etcd_dr::backup::manifest::Manifest;
use etcd_dr::backup::resources::{Rules, check_archive};
use etcd_dr::etcd::bbolt::layout::{fnv1a, is_page_size};
use etcd_dr::etcd::bbolt::{self, Origin};
use etcd_dr::etcd::keyspace::{Database, Keyspace};
use etcd_dr::etcd::mvcc::{KeyValue, RevisionKey};
use etcd_dr::etcd::proto::Fields;
use etcd_dr::etcd::proto::kv::{Put, Txn, delete_range};
use etcd_dr::etcd::proto::request::Request;
use etcd_dr::etcd::raftsnap::{SnapFile, SnapName};
use etcd_dr::etcd::snapshot::{KeyFilter, Options};
use etcd_dr::etcd::wal::{Segment, SegmentName, Wal};
use etcd_dr::finding::Findings;
use etcd_dr::objects::{self, Object, atrest::Keys, unified};

/// Opens and checks any bytes as a database.
pub fn bbolt(data: &[u8]) {
    for origin in [Origin::Streamed, Origin::File] {
        let mut findings = Findings::default();
        let usage = bbolt::check(&data, data.len() as u64, origin, &mut findings)
            .expect("bytes can always be read");
        assert!(usage.is_some() || findings.errors() > 0);
    }
}

/// Inspects any bytes as a snapshot.
pub fn inspect(data: &[u8]) {
    let options = Options {
        trailer: data.len().is_multiple_of(2),
        wanted: KeyFilter {
            prefixes: vec![b"/registry".to_vec()],
            ..KeyFilter::default()
        },
        seed: 7,
        ..Options::default()
    };
    let report = etcd_dr::etcd::snapshot::inspect(&data, &options, &|_| {})
        .expect("bytes can always be read");
    assert!(report.facts.is_some() || !report.is_good());
    // What looks into a snapshot and what reads its history go through the keys without that check.
    if let Ok(database) = Database::open(&data) {
        let read = Keyspace::read(&database, None, &|key| key.len() < 64);
        if let Ok(space) = read {
            assert!(space.keys().all(|key| space.value(key.value).is_ok()));
        }
    }
}

/// Decodes any bytes as a value and as a revision key.
pub fn key_value(data: &[u8]) {
    if let Ok((kv, None)) = KeyValue::decode(data) {
        let again = kv.encode();
        assert_eq!(KeyValue::decode(&again), Ok((kv, None)));
    }
    if let Some(key) = RevisionKey::parse(data) {
        assert_eq!(key.encode(), data);
    }
}

/// Reads any bytes as a segment of recorded changes, as they are and with a hash that fits.
pub fn changes(data: &[u8]) {
    use etcd_dr::etcd::segment::Segment;
    use sha2::{Digest, Sha256};
    let whole = [data, &Sha256::digest(data)[..]].concat();
    for bytes in [data.to_vec(), whole] {
        if let Ok(segment) = Segment::parse(bytes) {
            let records = segment.records().count() as u64;
            assert_eq!(records, segment.header().records);
            assert_eq!(segment.records().rev().count() as u64, records);
        }
    }
}

/// Reads any bytes as the only segment of a WAL.
pub fn wal(data: &[u8]) {
    let name = SegmentName::parse("0000000000000000-0000000000000000.wal").expect("a name");
    let wal = Wal::of_segments(vec![Segment::from_bytes(name, data)]);
    let summary = wal.summary(None).expect("bytes can always be read");
    assert!(!summary.is_corrupt() || !summary.findings.is_empty());
}

/// Reads any bytes as a request of the log, and as each kind of request that is applied.
pub fn request(data: &[u8]) {
    let txn = Txn::decode(Fields::new(data));
    if let Ok(txn) = &txn {
        let _ = txn.is_read_only();
    }
    let _ = Put::decode(Fields::new(data));
    let _ = delete_range(Fields::new(data));
    if let Ok(request) = Request::decode(data) {
        assert!(!request.name().is_empty());
    }
}

/// Reads any bytes as a `.snap` file.
pub fn raft_snap(data: &[u8]) {
    let name = SnapName::parse("0000000000000001-0000000000000001.snap").expect("a name");
    let file = SnapFile::parse(name, data);
    assert!(file.snap.is_some() || !file.findings.is_empty());
}

/// Reads any bytes as an archive, and as a Manifest.
pub fn archive(data: &[u8]) {
    let rules = Rules {
        max_unpacked: 1 << 20,
        ..Rules::default()
    };
    check_archive(data, &rules).expect("bytes can always be read");
    if let Ok(manifest) = Manifest::from_bytes(data, "backup.json".as_ref()) {
        manifest.to_bytes().expect("what was read can be written");
    }
}

/// Reads any bytes as YAML: what is read is not a larger than the bound on aliases lets it be.
pub fn yaml(data: &[u8]) {
    if let Ok(value) = etcd_dr::sys::yaml::from_slice::<serde_json::Value>(data) {
        let text = serde_json::to_vec(&value).expect("a value is JSON");
        // Each byte may become an escape of six, and aliases make it a bounded number of times longer.
        assert!(
            text.len() <= 64 * (data.len() + (1 << 20)),
            "{}",
            text.len()
        );
    }
}

/// Reads any bytes as a stored object, under a key that such an object has, with keys for every cipher.
pub fn object(data: &[u8]) {
    static KEYS: std::sync::LazyLock<Keys> = std::sync::LazyLock::new(|| {
        let mut keys = Keys::default();
        for cipher in ["aescbc", "aesgcm", "secretbox"] {
            let path = format!(
                "{}/../fixtures/objects/encrypted-{cipher}-config.json",
                env!("CARGO_MANIFEST_DIR")
            );
            let file = std::fs::read(path).expect("the fixture");
            keys.add(&file).expect("an EncryptionConfiguration");
        }
        keys
    });
    let decode = |data: &[u8]| objects::decode(b"/registry/secrets/billing/s", data, &KEYS);
    // Two states of an object: one that is whole, and one that may be cut short.
    let half = data.get(..data.len() / 2).unwrap_or_default();
    if let (Ok(before), Ok(after)) = (decode(half).or_else(|_| decode(data)), decode(data)) {
        let text = |object: &Object| unified::text(object.json.clone(), true);
        let diff = unified::unified(&text(&before), &text(&after));
        assert_eq!(diff.is_empty(), text(&before) == text(&after));
    }
    if let Ok(mut object) = decode(data) {
        object.set_resource_version(7);
        let _ = objects::apply::clean(&mut object);
        let mut text = String::new();
        objects::yaml::write(&mut text, &serde_json::Value::Object(object.json));
        assert!(!text.is_empty());
    }
    let _ = Keys::default().add(data);
    let _ = objects::kinds::place(data, &objects::kinds::Kinds::default());
}

/// Reads any bytes as an age file.
pub fn age_file(data: &[u8]) {
    etcd_dr::keep::remote::fuzzing::age_file(data);
}

/// Reads any bytes as `known_hosts`.
pub fn known_hosts(data: &[u8]) {
    etcd_dr::store::objects::fuzzing::known_hosts(data);
}

/// Reads any bytes as a page of a bucket's listing.
pub fn listing(data: &[u8]) {
    etcd_dr::store::objects::fuzzing::listing(data);
}

/// Reads any bytes as a Manifest, as the index of a set, and as the record of a verification.
pub fn documents(data: &[u8]) {
    static MANIFEST: &[u8] = include_bytes!("../../fixtures/store/backup-1/backup.json");
    let manifest = Manifest::from_bytes(MANIFEST, "backup.json".as_ref()).expect("the fixture");
    etcd_dr::keep::remote::fuzzing::index(data, &manifest, &"0".repeat(64));
    etcd_dr::keep::remote::fuzzing::catalog(data);
    if let Ok(manifest) = Manifest::from_bytes(data, "backup.json".as_ref()) {
        let again = manifest.to_bytes().expect("what was read can be written");
        let again = Manifest::from_bytes(&again, "backup.json".as_ref());
        assert_eq!(again.expect("what was written can be read"), manifest);
    }
}

/// Reads any bytes as a journal.
pub fn journal(data: &[u8]) {
    let read = etcd_dr::journal::records("journal".as_ref(), data.to_vec());
    assert!(read.is_err() || !read.expect("records").is_empty());
}

/// Sets the checksum of each record of a journal right, so that what the record says is believed.
pub fn seal_records(data: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(data.len());
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let Some((_, json)) = line.split_at_checked(9) else {
            sealed.extend_from_slice(line);
            continue;
        };
        let json = json.strip_suffix(b"\n").unwrap_or(json);
        sealed.extend_from_slice(format!("{:08x} ", crc32c::crc32c(json)).as_bytes());
        sealed.extend_from_slice(&line[9..]);
    }
    sealed
}

/// Sets the checksums of both metas right, so that what they say is believed.
pub fn seal_metas(data: &mut [u8]) {
    let size = data.get(24..28).and_then(|b| b.first_chunk().copied());
    let size = size.map(u32::from_le_bytes).filter(|s| is_page_size(*s));
    for at in [0, size.unwrap_or(4096) as usize] {
        let Some(page) = data.get_mut(at..at + 80) else {
            continue;
        };
        let (hashed, sum) = page.split_at_mut(72);
        let checksum = fnv1a(hashed.get(16..).unwrap_or_default());
        sum.copy_from_slice(&checksum.to_le_bytes());
    }
}
