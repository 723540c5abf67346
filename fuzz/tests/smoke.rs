//! Mutated databases through the fuzz targets' functions, on any compiler. `FUZZ_SECONDS` is how
//! long each target runs (by default 5 seconds); the number of executions is printed.

use std::time::{Duration, Instant};

use etcd_dr::backup::resources::{Selection, write_archive};
use etcd_dr::etcd::founding::{FoundingCluster, InitialCluster};
use etcd_dr::etcd::ids::MemberId;
use etcd_dr::etcd::keyspace::{Database, Keyspace};
use etcd_dr::etcd::proto::put_bytes;
use etcd_dr::etcd::raftsnap;
use etcd_dr::etcd::wal::write_founding;
use etcd_dr_fuzz::{
    age_file, archive, bbolt, changes, documents, inspect, journal, key_value, known_hosts,
    listing, object, raft_snap, request, seal_metas, seal_records, wal, yaml,
};
use testbench::database::model::Store;
use testbench::database::writer::{Freelist, Random, Shape, seal, write};

fn duration() -> Duration {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|s| s.parse().ok()).unwrap_or(5))
}

/// Small databases of different shapes.
fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random(1);
    let shapes = [
        Shape::default(),
        Shape {
            page_size: 1024,
            fill: 300,
            gaps: 2,
            ..Shape::default()
        },
        Shape {
            page_size: 1024,
            freelist: Freelist::Stored,
            gaps: 1,
            streamed: false,
            ..Shape::default()
        },
        Shape {
            page_size: 1024,
            inline: false,
            freelist: Freelist::StoredLong,
            ..Shape::default()
        },
        Shape {
            page_size: 2048,
            fill: 600,
            inline: false,
            ..Shape::default()
        },
    ];
    let mut seeds = Vec::new();
    for shape in shapes {
        for txns in [0, 5, 40] {
            let store = Store::random(&mut random, txns, 8, txns == 40);
            seeds.push(seal(write(&store.buckets(), &shape).bytes));
        }
    }
    seeds
}

const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    3,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    u64::MAX,
    u64::MAX - 1,
    1 << 63,
];

fn mutate(random: &mut Random, file: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..1 + random.below(6) {
        let len = file.len() as u64;
        if len < 32 {
            return;
        }
        let at = random.below(len - 8) as usize;
        match random.below(12) {
            0..=2 => file[at] ^= 1 << random.below(8),
            3 => file[at] = random.next_u64() as u8,
            // Fields are at even offsets, most of them near a page's beginning.
            4..=6 => {
                let page = random.below(len / 1024 + 1) as usize * 1024;
                let at = (page + 2 * random.below(48) as usize).min(file.len() - 8);
                let number = NUMBERS[random.below(14) as usize].to_le_bytes();
                let width = 2 << random.below(3);
                file[at..at + width].copy_from_slice(&number[..width]);
            }
            7 => {
                let page = random.below(len / 1024 + 1) as usize * 1024;
                let at = (page + 2 * random.below(48) as usize).min(file.len() - 8);
                let small = random.below(40).to_le_bytes();
                let width = 2 << random.below(3);
                file[at..at + width].copy_from_slice(&small[..width]);
            }
            8 => file.truncate(random.below(len) as usize),
            9 => {
                let (from, to) = (random.below(len) as usize, random.below(len) as usize);
                let run = (random.below(1024) as usize).min(file.len() - from.max(to));
                file.copy_within(from..from + run, to);
            }
            10 => {
                let from = random.below(other.len() as u64) as usize;
                let run = (random.below(2048) as usize).min(other.len() - from);
                let to = at.min(file.len().saturating_sub(run));
                let run = run.min(file.len() - to);
                file[to..to + run].copy_from_slice(&other[from..from + run]);
            }
            _ if len < 1024 => {}
            _ => {
                let (a, b) = (
                    random.below(len / 1024) as usize,
                    random.below(len / 1024) as usize,
                );
                file.copy_within(a * 1024..(a + 1) * 1024, b * 1024);
            }
        }
    }
}

fn run(name: &str, seeds: &[Vec<u8>], seed: u64, target: fn(&[u8])) {
    let mut random = Random(seed);
    let (began, mut executions, mut slowest) = (Instant::now(), 0u64, Duration::ZERO);
    while began.elapsed() < duration() {
        let pick = |random: &mut Random| &seeds[random.below(seeds.len() as u64) as usize];
        let mut file = pick(&mut random).clone();
        let other = pick(&mut random);
        mutate(&mut random, &mut file, other);
        if random.below(4) > 0 {
            seal_metas(&mut file);
        }
        let one = Instant::now();
        target(&file);
        slowest = slowest.max(one.elapsed());
        executions += 1;
    }
    println!("{name}: {executions} executions, slowest {slowest:?}");
    assert!(executions > 100);
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
}

#[test]
fn mutated_databases_are_checked() {
    run("bbolt", &seeds(), 11, bbolt);
}

#[test]
fn mutated_snapshots_are_inspected() {
    run("inspect", &seeds(), 12, inspect);
}

#[test]
fn mutated_values_are_decoded() {
    let store = Store::random(&mut Random(3), 60, 9, false);
    let pairs = store.pairs().into_iter();
    let values: Vec<_> = pairs
        .flat_map(|(key, value)| [key.repeat(3), value.repeat(2)])
        .collect();
    run("key_value", &values, 13, key_value);
}

/// Changes some bytes of one of the seeds and hands it over.
fn run_plain(name: &str, seeds: &[Vec<u8>], seed: u64, target: fn(&[u8])) {
    let mut random = Random(seed);
    let (began, mut executions) = (Instant::now(), 0u64);
    while began.elapsed() < duration() {
        let mut file = seeds[random.below(seeds.len() as u64) as usize].clone();
        for _ in 0..random.below(5) {
            let len = file.len() as u64;
            if len == 0 {
                break;
            }
            let at = random.below(len) as usize;
            match random.below(5) {
                0 => file.truncate(at),
                1 => file[at] = random.next_u64() as u8,
                2 => file.insert(at, random.next_u64() as u8),
                3 => {
                    let number = NUMBERS[random.below(14) as usize].to_le_bytes();
                    let end = (at + 8).min(file.len());
                    file[at..end].copy_from_slice(&number[..end - at]);
                }
                _ => file[at] ^= 1 << random.below(8),
            }
        }
        target(&file);
        executions += 1;
    }
    println!("{name}: {executions} executions");
    assert!(executions > 100);
}

#[test]
fn mutated_logs_and_raft_snapshots_are_read() {
    let members = "a=http://127.0.0.1:2380,b=http://127.0.0.2:2380";
    let found = |text: &str| InitialCluster::parse(text).unwrap().found("token").unwrap();
    let clusters = [found("a=http://127.0.0.1:2380"), found(members)];
    let log = |cluster: &FoundingCluster| {
        let mut bytes = Vec::new();
        let me = first_member(cluster);
        write_founding(&mut bytes, cluster, me)
            .unwrap()
            .finish()
            .unwrap();
        bytes.extend([0; 512]);
        bytes
    };
    let logs: Vec<_> = clusters.iter().map(log).collect();
    run_plain("wal", &logs, 14, wal);
    let snaps: Vec<_> = clusters
        .iter()
        .map(|cluster| raftsnap::founding(cluster).1)
        .collect();
    run_plain("raft_snap", &snaps, 15, raft_snap);
}

#[test]
fn mutated_recorded_changes_are_read() {
    let header = r#"{"schemaVersion":1,"clusterId":"c1","memberId":"a1","etcdVersion":"3.5.16","firstRevision":5,"lastRevision":6,"records":2,"leases":1,"leasesFresh":true,"firstReceived":"2026-11-30T12:00:00Z","lastReceived":"2026-11-30T12:00:01Z","begun":{"cause":"first"}}"#;
    let mut file = b"EDRCHG1\n".to_vec();
    file.extend(u32::try_from(header.len()).unwrap().to_le_bytes());
    file.extend(header.as_bytes());
    file.push(2);
    file.extend(1_790_000_000_000i64.to_le_bytes());
    for (key, value) in [
        (
            b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\0".to_vec(),
            b"\x0a\x01k\x10\x05\x18\x05\x20\x01\x2a\x01v".to_vec(),
        ),
        (
            b"\0\0\0\0\0\0\0\x06_\0\0\0\0\0\0\0\0t".to_vec(),
            b"\x0a\x01k".to_vec(),
        ),
    ] {
        file.push(1);
        for part in [&key, &value] {
            file.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
        }
        file.extend(key);
        file.extend(value);
    }
    file.push(3);
    file.extend(7i64.to_le_bytes());
    file.extend(60i64.to_le_bytes());
    // The target adds the hash.
    let whole = [&file[..], &sha2_of(&file)].concat();
    assert!(etcd_dr::etcd::segment::Segment::parse(whole).is_ok());
    run_plain("changes", &[file], 31, changes);
}

fn sha2_of(bytes: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).to_vec()
}

#[test]
fn mutated_requests_are_read() {
    let message = |fields: &[(u32, &[u8])]| {
        let mut out = Vec::new();
        for (number, bytes) in fields {
            put_bytes(&mut out, *number, bytes);
        }
        out
    };
    let put = message(&[(1, b"key"), (2, b"value")]);
    let op = message(&[(2, &put)]);
    let compare = message(&[(3, b"key"), (7, b"value"), (64, b"l")]);
    let inner = message(&[(1, &compare), (2, &op), (3, &op)]);
    let nested = message(&[(4, &inner)]);
    let txn = message(&[(1, &compare), (2, &nested), (2, &op), (3, &nested)]);
    let header = message(&[(2, b"root")]);
    let request_of = |number, body: &[u8]| message(&[(number, body), (100, &header)]);
    let seeds = [
        request_of(6, &txn),
        request_of(4, &put),
        message(&[(2, b"PUT"), (3, b"/0/version"), (4, b"3.5.0")]),
        txn.clone(),
        put.clone(),
    ];
    run_plain("request", &seeds, 17, request);
}

fn first_member(cluster: &FoundingCluster) -> MemberId {
    cluster.members.first().unwrap().id
}

/// Stored values of a real API server in every encoding, plain and encrypted.
#[test]
fn mutated_objects_are_read() {
    let mut seeds = Vec::new();
    for name in [
        "encodings",
        "encrypted-aescbc",
        "encrypted-aesgcm",
        "encrypted-secretbox",
        "encrypted-kms-v2",
    ] {
        let path = format!(
            "{}/../fixtures/objects/{name}.db.zst",
            env!("CARGO_MANIFEST_DIR")
        );
        let bytes = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
        let database = Database::open(&bytes).unwrap();
        let space = Keyspace::read(&database, None, &|_| true).unwrap();
        seeds.extend(
            space
                .keys()
                .step_by(3)
                .map(|key| space.value(key.value).unwrap()),
        );
    }
    run_plain("object", &seeds, 27, object);
}

#[test]
fn mutated_archives_and_manifests_are_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("static-pod-resources")).unwrap();
    std::fs::write(
        dir.path().join("static-pod-resources/a.crt"),
        "no certificate",
    )
    .unwrap();
    let selection = Selection {
        base: dir.path().to_owned(),
        entries: vec!["static-pod-resources".into()],
        ..Selection::default()
    };
    let mut packed = Vec::new();
    write_archive(&selection, &mut packed).unwrap();
    // What is under the compression, in blocks that are stored as they are: so a changed byte
    // reaches the reader of tar.
    let mut tar = Vec::new();
    std::io::copy(
        &mut flate2::read::GzDecoder::new(packed.as_slice()),
        &mut tar,
    )
    .unwrap();
    let mut stored = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    std::io::Write::write_all(&mut stored, &tar).unwrap();
    let manifest = br#"{"schemaVersion":1,"tool":{"name":"x","version":"0"},"id":"backup-1"}"#;
    let seeds = [packed, stored.finish().unwrap(), manifest.to_vec()];
    run_plain("archive", &seeds, 16, archive);
}

#[test]
fn mutated_text_of_stores_nodes_and_journals_is_read() {
    let padded = |text: &str| text.as_bytes().to_vec();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: etcd, labels: &l {a: b}}\nspec:\n  containers:\n  - command: [\"etcd\", '--name=a']\n    env: *l\n---\nx: y\n";
    run_plain(
        "yaml",
        &[
            padded(pod),
            padded("a: &a [x]\nb: *a\n# R&D and *D\n%TAG ! x\n"),
        ],
        21,
        yaml,
    );
    let line = "A".repeat(43);
    let age = format!(
        "age-encryption.org/v1\n-> X25519 {line}\n{line}\n-> ssh-ed25519 AAAA {line}\n{line}\n--- {line}\n"
    );
    run_plain("age_file", &[padded(&age)], 22, age_file);
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBIM0eKmOmoBLv8vW5V5oGZ0gkXEnIPN5v3qP9RKHfCE";
    let hosts = format!(
        "nas.example,10.0.0.1 {key} x\n@revoked * {key}\n@cert-authority *.example {key}\n|1|JfKTdBh7rNbXkVAQCRp4OQoPfmI=|USECr3SWf1JUPsms5AqfD5QfxkM= {key}\n[10.0.0.1]:2222\t{key}\n"
    );
    run_plain("known_hosts", &[padded(&hosts)], 23, known_hosts);
    let page = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>c/n/backup-1/backup.json</Key><Size>7</Size></Contents><Contents><Key>a//b&amp;</Key></Contents></ListBucketResult>";
    run_plain("listing", &[padded(page)], 24, listing);
    let manifest = include_bytes!("../../fixtures/store/backup-1/backup.json");
    let index = br#"{"schemaVersion":1,"manifestSha256":"00","objects":[{"file":"a","object":"b","size":1,"sha256":"00"}]}"#;
    run_plain(
        "documents",
        &[manifest.to_vec(), index.to_vec()],
        25,
        documents,
    );
    let begin = r#"{"time":"2026-11-21T06:15:30Z","record":"begin","schema":1,"tool":"0","id":"a","kind":"restore","about":{},"steps":["x"]}"#;
    let doing = r#"{"time":"2026-11-21T06:15:30Z","record":"doing","step":0}"#;
    let record = |json: &str| format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()));
    let whole = format!("{}{}{}", record(begin), record(doing), "\0".repeat(64));
    run_plain("journal", &[padded(&whole)], 26, |data| {
        journal(data);
        journal(&seal_records(data));
    });
}
