//! How fast the parsers read what is well formed, in bytes a second: `make bench-parsers`.
//!
//! Everything is made here and is in memory, but for the journal, which is read from its file.
//! How etcd-dr compares with other programs is another question: docs/performance.md.

use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use etcd_dr::backup::manifest::Manifest;
use etcd_dr::backup::resources::{
    Rules, STATIC_POD_RESOURCES, Selection, check_archive, write_archive,
};
use etcd_dr::etcd::bbolt::{self, Origin};
use etcd_dr::etcd::founding::{FoundingCluster, InitialCluster};
use etcd_dr::etcd::mvcc::{KeyValue, RevisionKey};
use etcd_dr::etcd::proto::raft::{Entry, EntryKind};
use etcd_dr::etcd::proto::{Fields, put_bytes, put_u64};
use etcd_dr::etcd::raftsnap::{self, SnapFile};
use etcd_dr::etcd::snapshot::{self, Options};
use etcd_dr::etcd::wal::{Segment, SegmentName, Wal, write_founding};
use etcd_dr::finding::Findings;
use etcd_dr::journal::Begin;
use etcd_dr::journal::{self, Journal, Record};
use testbench::database::model::{Op, Store};
use testbench::database::writer::{Freelist, Random, Shape, seal, write};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// A store with objects of a kilobyte or so, as Kubernetes has, some of them changed and deleted.
fn store() -> Store {
    let mut random = Random(1);
    let mut store = Store::new();
    for number in 0..8_000u64 {
        let key = format!(
            "/registry/pods/namespace-{}/pod-{}",
            number % 37,
            number % 6_000
        );
        let op = match number % 29 {
            0 => Op::Delete(key.into_bytes()),
            _ => {
                let value = (0..300 + random.below(1_500)).map(|_| random.next_u64() as u8);
                Op::Put(key.into_bytes(), value.collect(), 0)
            }
        };
        store.txn(vec![op]);
    }
    store
}

/// Runs one measurement over so many bytes, after seeing once that it reads them.
fn bytes<T>(group: &mut Group<'_>, name: &str, bytes: usize, mut read: impl FnMut() -> T) {
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(name, |bencher| bencher.iter(|| black_box(read())));
}

fn databases(criterion: &mut Criterion, store: &Store) {
    let mut group = criterion.benchmark_group("bbolt");
    group.sample_size(20);
    let scattered = Shape {
        freelist: Freelist::Stored,
        gaps: 2,
        streamed: false,
        ..Shape::default()
    };
    for (name, shape) in [("walk", Shape::default()), ("walk, free pages", scattered)] {
        let file = write(&store.buckets(), &shape).bytes;
        let walk = || {
            let mut findings = Findings::default();
            let length = file.len() as u64;
            let usage = bbolt::check(&file.as_slice(), length, Origin::Streamed, &mut findings);
            assert_eq!(findings.errors(), 0);
            usage.expect("bytes can be read")
        };
        bytes(&mut group, name, file.len(), walk);
    }
    let sealed = seal(write(&store.buckets(), &Shape::default()).bytes);
    let inspect = || {
        let report = snapshot::inspect(&sealed.as_slice(), &Options::default(), &|_| {});
        let report = report.expect("bytes can be read");
        assert!(report.is_good());
        report
    };
    bytes(&mut group, "whole snapshot", sealed.len(), inspect);
    group.finish();
}

fn keys_and_values(criterion: &mut Criterion, store: &Store) {
    let pairs = store.pairs();
    let mut group = criterion.benchmark_group("mvcc");
    let keys = || {
        let parsed = pairs.iter().filter_map(|(key, _)| RevisionKey::parse(key));
        assert_eq!(parsed.map(black_box).count(), pairs.len());
    };
    let length = pairs.iter().map(|(key, _)| key.len()).sum();
    bytes(&mut group, "revision keys", length, keys);
    let values = || {
        for (_, value) in &pairs {
            let decoded = KeyValue::decode(value).expect("a value");
            black_box(decoded);
        }
    };
    let length = pairs.iter().map(|(_, value)| value.len()).sum();
    bytes(&mut group, "key-values", length, values);
    group.finish();
}

fn founding() -> FoundingCluster {
    let members = "a=http://127.0.0.1:2380,b=http://127.0.0.2:2380,c=http://127.0.0.3:2380";
    let cluster = InitialCluster::parse(members).expect("a cluster");
    cluster.found("token").expect("a cluster")
}

/// A segment of etcd's log with requests of the sizes of the values.
fn segment(store: &Store) -> Vec<u8> {
    let cluster = founding();
    let me = cluster.members.first().expect("a member").id;
    let mut segment = write_founding(Vec::new(), &cluster, me).expect("a segment");
    // The founding members are the first entries.
    let next = cluster.members.len() as u64 + 1;
    for (index, (_, value)) in (next..).zip(store.pairs()) {
        let entry = Entry {
            kind: EntryKind::Normal,
            term: 7,
            index,
            data: &value,
        };
        segment.entry(&entry).expect("memory takes it");
    }
    segment.finish().expect("memory takes it")
}

/// Two messages of which one is only fields, the other fields within fields.
fn messages(store: &Store) -> (Vec<u8>, Vec<u8>) {
    let (mut flat, mut nested) = (Vec::new(), Vec::new());
    for (number, (_, value)) in (1..).zip(store.pairs()) {
        put_u64(
            &mut flat,
            1 + number % 15,
            u64::from(number) << (number % 40),
        );
        put_bytes(&mut nested, 2, &value);
    }
    (flat, nested)
}

fn logs(criterion: &mut Criterion, store: &Store) {
    let mut group = criterion.benchmark_group("raft");
    let name = SegmentName::parse("0000000000000000-0000000000000000.wal").expect("a name");
    let log = segment(store);
    let wal = Wal::of_segments(vec![Segment::from_bytes(name, log.as_slice())]);
    let scan = || {
        let scan = wal.scan().expect("bytes can be read");
        assert!(scan.findings.is_empty(), "{:?}", scan.findings);
        scan
    };
    bytes(&mut group, "wal scan", log.len(), scan);
    let (name, snap) = raftsnap::founding(&founding());
    let parse = || {
        let file = SnapFile::parse(name, &snap);
        assert!(file.snap.is_some());
        file
    };
    bytes(&mut group, ".snap", snap.len(), parse);
    let (flat, nested) = messages(store);
    let numbers = || {
        let mut sum = 0u64;
        for field in Fields::new(&flat) {
            let number = field.and_then(|field| field.u64());
            sum = sum.wrapping_add(number.expect("a number"));
        }
        sum
    };
    bytes(&mut group, "wire, numbers", flat.len(), numbers);
    let within = || {
        let mut count = 0usize;
        for field in Fields::new(&nested) {
            let inner = field.and_then(|field| field.message());
            count += inner.expect("a message").filter(Result::is_ok).count();
        }
        count
    };
    bytes(&mut group, "wire, messages", nested.len(), within);
    group.finish();
}

/// A journal as a restore of a node leaves it, with its plan and a hundred further records.
fn write_journal(dir: &Path) -> usize {
    let step = |number: u32| serde_json::json!({"step": "put-back", "number": number, "paths": ["/etc/kubernetes/static-pod-resources/etcd-pod-7"]});
    let begin = Begin {
        schema: journal::SCHEMA,
        tool: "0.1.0".to_owned(),
        id: "restore-1".to_owned(),
        kind: "restore".to_owned(),
        about: serde_json::json!({"set": "backup-1"}),
        steps: (0..50).map(step).collect(),
    };
    let time = jiff::Timestamp::UNIX_EPOCH;
    let mut journal = Journal::create(dir, begin, time).expect("a journal");
    for step in 0..50 {
        journal
            .append(Record::Doing { step }, time)
            .expect("a line");
        let done = Record::Done { step, facts: None };
        journal.append(done, time).expect("a line");
    }
    std::fs::metadata(journal.path()).expect("a file").len() as usize
}

fn backups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("backup");
    let dir = tempfile::tempdir().expect("a folder");
    let length = write_journal(dir.path());
    let lines = || journal::read(dir.path()).expect("a journal");
    bytes(&mut group, "journal", length, lines);

    let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/store/backup-1");
    let path = set.join("backup.json");
    let text = std::fs::read(&path).expect("a Manifest");
    let manifest = || Manifest::from_bytes(&text, &path).expect("a Manifest");
    bytes(&mut group, "Manifest", text.len(), manifest);

    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join(STATIC_POD_RESOURCES)).expect("a folder");
    for (number, (_, value)) in store().pairs().into_iter().take(600).enumerate() {
        let name = format!("{STATIC_POD_RESOURCES}/file-{number}");
        std::fs::write(tree.join(name), value).expect("a file");
    }
    let selection = Selection {
        base: tree,
        entries: vec![STATIC_POD_RESOURCES.into()],
        ..Selection::default()
    };
    let mut archive = Vec::new();
    write_archive(&selection, &mut archive).expect("an archive");
    let check = || {
        let report = check_archive(archive.as_slice(), &Rules::default()).expect("an archive");
        assert_eq!(report.findings, []);
        report
    };
    bytes(&mut group, "archive check", archive.len(), check);
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let store = store();
    databases(&mut criterion, &store);
    keys_and_values(&mut criterion, &store);
    logs(&mut criterion, &store);
    backups(&mut criterion);
    criterion.final_summary();
}
