//! Generated databases of many shapes: the reader finds nothing wrong and reads back what was written.

use std::io;

use etcd_dr::etcd::bbolt::{
    self, Large, Leaf, Metas, Nested, Order, Origin, ReadAt, Root, Visitor, Walker,
};
use etcd_dr::etcd::hashkv::At;
use etcd_dr::etcd::snapshot::{KeyFilter, Options, Report, inspect};
use etcd_dr::finding::{Findings, Layer};
use proptest::prelude::*;

use testbench::database::model::{Op, Store, status_hash};
use testbench::database::writer::{
    Bucket, Freelist, Node, Random, Shape, seal, seal_meta, write, write_with_free,
};

fn shapes() -> impl Strategy<Value = Shape> {
    (
        0u32..7,
        1usize..3,
        any::<bool>(),
        prop_oneof![
            Just(Freelist::NotStored),
            Just(Freelist::Stored),
            Just(Freelist::StoredLong)
        ],
        0u64..4,
        any::<u64>(),
        any::<bool>(),
        2u64..1 << 40,
    )
        .prop_map(
            |(shift, fill, inline, freelist, gaps, seed, streamed, txid)| {
                let page_size = 1024u32 << shift;
                Shape {
                    page_size,
                    fill: page_size as usize * fill / 2,
                    inline,
                    freelist,
                    gaps,
                    seed,
                    streamed,
                    txid,
                }
            },
        )
}

fn nodes() -> impl Strategy<Value = Bucket> {
    let value = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => proptest::collection::vec(any::<u8>(), 1000..9000),
    ];
    let leaf = proptest::collection::btree_map(
        proptest::collection::vec(any::<u8>(), 1..30),
        value.prop_map(Node::Value),
        0..60,
    )
    .prop_map(|entries| Bucket {
        sequence: 0,
        entries,
    });
    leaf.prop_recursive(4, 64, 8, |inner| {
        (
            proptest::collection::btree_map(
                proptest::collection::vec(any::<u8>(), 1..20),
                prop_oneof![
                    2 => inner.prop_map(Node::Bucket),
                    1 => proptest::collection::vec(any::<u8>(), 0..50).prop_map(Node::Value),
                ],
                0..12,
            ),
            any::<u64>(),
        )
            .prop_map(|(entries, sequence)| Bucket { sequence, entries })
    })
}

/// Collects what a walk shows of one bucket.
#[derive(Default)]
struct Seen {
    entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    below: Vec<(Vec<u8>, Root, u64)>,
    descending: bool,
}

impl Visitor for Seen {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        let mut entries: Vec<_> = leaf.entries().collect();
        if self.descending {
            entries.reverse();
        }
        for entry in entries {
            let value = (!entry.bucket).then(|| entry.value.to_vec());
            self.entries.push((entry.key.to_vec(), value));
            if let (Some(root), Some(sequence)) = (entry.root(), entry.sequence()) {
                self.below.push((entry.key.to_vec(), root, sequence));
            }
        }
        Ok(())
    }

    fn large(&mut self, element: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        let mut value = vec![0; element.value_len as usize];
        element.read_at(&mut value, 0)?;
        self.entries.push((element.key.to_vec(), Some(value)));
        Ok(())
    }
}

fn read_bucket(walker: &mut Walker<'_>, root: Root, order: Order, sequence: u64) -> Bucket {
    let mut seen = Seen {
        descending: order == Order::Descending,
        ..Seen::default()
    };
    let mut findings = Findings::default();
    walker
        .walk(root, order, Nested::Leave, &mut seen, &mut findings)
        .unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    let keys = seen.entries.iter().map(|(key, _)| key);
    match order {
        Order::Ascending => assert!(keys.is_sorted()),
        Order::Descending => assert!(keys.rev().is_sorted()),
    }
    let mut bucket = Bucket {
        sequence,
        ..Bucket::default()
    };
    for (key, value) in seen.entries {
        if let Some(value) = value {
            bucket.put(&key, &value);
        }
    }
    for (key, root, sequence) in seen.below {
        let child = read_bucket(walker, root, order, sequence);
        bucket.entries.insert(key, Node::Bucket(child));
    }
    bucket
}

fn origin(shape: &Shape) -> Origin {
    if shape.streamed {
        Origin::Streamed
    } else {
        Origin::File
    }
}

/// Walks a database of any content in an order and gives it back.
fn read_back(bytes: &[u8], shape: &Shape, order: Order) -> Bucket {
    let mut findings = Findings::default();
    let data = bytes.len() as u64;
    let metas = Metas::read(&bytes, data, origin(shape), &mut findings).unwrap();
    let meta = metas.unwrap().chosen;
    let mut walker = Walker::new(&bytes, data, &meta, &|_| {});
    let root = read_bucket(&mut walker, Root::Page(meta.root), order, 0);
    walker.finish(&meta, &mut findings).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    root
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_tree_is_checked_and_read_back(root in nodes(), shape in shapes()) {
        let written = write(&root, &shape);
        let mut findings = Findings::default();
        let data = written.bytes.len() as u64;
        let usage = bbolt::check(&written.bytes, data, origin(&shape), &mut findings);
        prop_assert!(findings.is_empty(), "{:?}", findings);
        let usage = usage.unwrap().unwrap();
        prop_assert_eq!(usage.free, written.free.len() as u64);
        prop_assert_eq!(usage.total, written.high_water);
        for order in [Order::Ascending, Order::Descending] {
            let mut back = read_back(&written.bytes, &shape, order);
            // The root's own sequence is in the meta.
            back.sequence = root.sequence;
            prop_assert_eq!(&back, &root);
        }
    }

    #[test]
    fn stores_are_sound_and_counted(seed in any::<u64>(), shape in shapes(), compactions in any::<bool>()) {
        let mut random = Random(seed);
        let (txns, keys) = (random.below(300), 1 + random.below(40));
        let store = Store::random(&mut random, txns, keys, compactions);
        let root = store.buckets();
        let file = seal(write(&root, &Shape { streamed: true, ..shape }).bytes);
        let report = look(&file, At::default());
        prop_assert!(report.findings.is_empty(), "{:#?}", report.findings);
        agrees(&store, &root, &report);
    }

    #[test]
    fn hash_kv_is_as_defined(seed in any::<u64>(), compactions in any::<bool>()) {
        let mut random = Random(seed);
        let (txns, keys) = (random.below(150), 1 + random.below(6));
        let mut store = Store::random(&mut random, txns, keys, compactions);
        if random.below(3) == 0 {
            let all = store.live.keys().cloned().map(Op::Delete).collect();
            store.txn(all);
        }
        let shape = Shape { page_size: 1024, fill: 700, ..Shape::default() };
        let file = seal(write(&store.buckets(), &shape).bytes);
        let own = store.compact.unwrap_or(-1);
        for _ in 0..12 {
            let from = own.max(1);
            let revision = from + random.below((store.revision - from) as u64 + 1) as i64;
            let raised = own.max(1) + random.below((revision - from) as u64 + 1) as i64;
            let compacted_at = (random.below(2) == 0).then_some(raised);
            let at = At { revision: Some(revision), compacted_at };
            let found = look(&file, at).hash_kv.unwrap();
            let compact = compacted_at.unwrap_or(own);
            prop_assert_eq!(found.hash, store.hash_kv(revision, compact, true));
            prop_assert_eq!(found.hash_before_3_4_34, store.hash_kv(revision, compact, false));
            prop_assert_eq!(found.revision, revision);
        }
    }
}

fn look(file: &[u8], hash_kv: At) -> Report {
    let options = Options {
        hash_kv,
        wanted: KeyFilter {
            prefixes: vec![b"/registry/pods/".to_vec()],
            keys: vec![b"/registry/events/k1".to_vec()],
            ..KeyFilter::default()
        },
        ..Options::default()
    };
    inspect(&file, &options, &|_| {}).unwrap()
}

fn agrees(store: &Store, root: &Bucket, report: &Report) {
    let facts = report.facts.as_ref().unwrap();
    let status = report.status.as_ref().unwrap();
    let newest = store
        .entries
        .keys()
        .next_back()
        .map_or(0, |(main, _)| *main);
    assert!(facts.complete);
    assert_eq!(facts.keys, store.live.len() as u64);
    assert_eq!(facts.revisions, store.entries.len() as u64);
    assert_eq!(facts.revision, store.revision);
    assert_eq!(facts.compact_revision, store.compact);
    assert_eq!(facts.leases, store.leases.len() as u64);
    let leased = store
        .live
        .values()
        .filter(|at| store.entries[at].lease != 0);
    assert_eq!(facts.leased_keys, leased.count() as u64);
    assert_eq!(status.hash, status_hash(root));
    assert_eq!(status.revision, newest);
    let hash = report.hash_kv.unwrap();
    let compact = store.compact.unwrap_or(-1);
    assert_eq!(hash.hash, store.hash_kv(store.revision, compact, true));
    let wanted: Vec<_> = store
        .live
        .iter()
        .filter(|(key, _)| key.starts_with(b"/registry/pods/") || *key == b"/registry/events/k1")
        .collect();
    assert_eq!(report.collected.values.len(), wanted.len());
    for (found, (key, at)) in report.collected.values.iter().zip(wanted) {
        assert_eq!(&found.key, key);
        assert_eq!(found.value.as_ref(), Some(&store.entries[at].value));
        assert_eq!(found.mod_revision, at.0);
    }
    let pods = facts.prefixes.iter().find(|p| p.prefix == "/registry/pods");
    let alive = store
        .live
        .keys()
        .filter(|k| k.starts_with(b"/registry/pods/"));
    assert_eq!(pods.map_or(0, |p| p.usage.keys), alive.count() as u64);
}

#[test]
fn long_freelists_are_read() {
    for (count, freelist) in [
        (65_534, Freelist::Stored),
        (65_535, Freelist::Stored),
        (70_000, Freelist::Stored),
    ] {
        let mut root = Bucket::default();
        for n in 0..40u32 {
            root.put(&n.to_be_bytes(), &[7; 900]);
        }
        let shape = Shape {
            page_size: 1024,
            fill: 1024,
            freelist,
            gaps: 0,
            streamed: false,
            ..Shape::default()
        };
        let written = write_with_free(&root, &shape, count).bytes;
        let mut findings = Findings::default();
        let data = written.len() as u64;
        let usage = bbolt::check(&written, data, Origin::File, &mut findings)
            .unwrap()
            .unwrap();
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(usage.free, count);
    }
}

#[test]
fn huge_values_are_read_in_pieces() {
    let mut store = Store::new();
    let big = vec![0xab; 40 << 20];
    store.txn(vec![Op::Put(b"/a/b/small".to_vec(), b"x".to_vec(), 0)]);
    store.txn(vec![Op::Put(b"/a/b/big".to_vec(), big.clone(), 9)]);
    store.txn(vec![Op::Put(
        b"/a/b/big".to_vec(),
        big[..20 << 20].to_vec(),
        9,
    )]);
    store.txn(vec![Op::Put(b"/a/b/small".to_vec(), b"y".to_vec(), 0)]);
    let root = store.buckets();
    let file = seal(write(&root, &Shape::default()).bytes);
    let report = look(&file, At::default());
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    agrees(&store, &root, &report);
}

#[test]
fn a_huge_value_that_is_damaged_is_found() {
    let mut store = Store::new();
    store.txn(vec![Op::Put(b"big".to_vec(), vec![1; 20 << 20], 0)]);
    let clean = write(&store.buckets(), &Shape::default()).bytes;
    let at = clean.windows(4).position(|w| w == b"\x03big").unwrap();
    for (offset, bit) in [(0, 1), (4, 8), (5, 2), (7, 2), (9, 1), (11, 0x40)] {
        let mut file = clean.clone();
        file[at + offset] ^= bit;
        let report = look(&file, At::default());
        assert!(
            report.findings.errors_in(Layer::Keys) > 0,
            "offset {offset}"
        );
    }
}

/// A source that counts what is asked of it beyond its length.
struct Claims(Vec<u8>, u64);

impl ReadAt for Claims {
    fn size(&self) -> u64 {
        self.1
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        assert!(
            buf.len() <= 17 << 20,
            "{} bytes asked for at once",
            buf.len()
        );
        assert!(offset + buf.len() as u64 <= self.1);
        for (index, byte) in buf.iter_mut().enumerate() {
            *byte = self.0.get(offset as usize + index).copied().unwrap_or(0);
        }
        Ok(())
    }
}

#[test]
fn claims_of_gigabytes_take_no_memory() {
    // One leaf of 2 GiB in a sparse file of as much.
    let value = 0x7fff_0000u32;
    let leaf = (16 + 16 + 1 + u64::from(value)).div_ceil(4096);
    let pages = 2 + leaf;
    let mut root = Bucket::default();
    root.put(b"k", b"v");
    let mut file = write(
        &root,
        &Shape {
            streamed: false,
            ..Shape::default()
        },
    )
    .bytes;
    file[56..64].copy_from_slice(&pages.to_le_bytes());
    seal_meta(&mut file[..80]);
    file[4096 + 56..4096 + 64].copy_from_slice(&pages.to_le_bytes());
    seal_meta(&mut file[4096..4096 + 80]);
    file[8192 + 12..8192 + 16].copy_from_slice(&(leaf as u32 - 1).to_le_bytes());
    file[8192 + 16 + 12..8192 + 16 + 16].copy_from_slice(&value.to_le_bytes());
    let source = Claims(file, pages * 4096);
    let mut findings = Findings::default();
    let usage = bbolt::check(&source, source.1, Origin::File, &mut findings).unwrap();
    assert_eq!(usage.unwrap().free, 0);
    assert!(findings.is_empty(), "{findings:?}");
}
