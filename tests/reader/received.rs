//! A snapshot that is looked at while it is received or hashed: the report is the one of a walk over its
//! trees, whatever is wrong with the file, and a sound file is not read again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use etcd_dr::etcd::bbolt::ReadAt;
use etcd_dr::etcd::snapshot::{
    KeyFilter, Options, Report, Room, StreamCheck, Sums, inspect, inspect_and_copy,
    inspect_received,
};
use sha2::{Digest, Sha256};

use testbench::database::model::{Op, Store};
use testbench::database::writer::{Freelist, Random, Shape, Written, seal, write};

/// Counts what is read.
struct Counted<'a> {
    file: &'a [u8],
    read: AtomicU64,
}

impl ReadAt for Counted<'_> {
    fn size(&self) -> u64 {
        self.file.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.file.read_exact_at(buf, offset)
    }
}

fn options() -> Options {
    Options {
        wanted: KeyFilter {
            keys: vec![b"/registry/wanted/one".to_vec()],
            ..KeyFilter::default()
        },
        seed: 7,
        ..Options::default()
    }
}

/// The report of a file that passed by in pieces of so many bytes, and how much of it was read after
/// that.
fn received(file: &[u8], piece: usize, scratch: bool) -> (Report, u64) {
    let scratch = scratch.then(|| tempfile::tempfile().unwrap());
    let mut stream = StreamCheck::new(options(), Room::scratch(scratch, 1 << 30));
    for piece in file.chunks(piece) {
        stream.take(piece);
    }
    let body = file.len().saturating_sub(32);
    let sums = Sums {
        file: Sha256::digest(file).into(),
        database: Sha256::digest(&file[..body]).into(),
    };
    let source = Counted {
        file,
        read: AtomicU64::new(0),
    };
    let report = inspect_received(&source, stream, &sums, &|_| {}).unwrap();
    (report, source.read.load(Ordering::Relaxed))
}

/// The report of a walk that remembers nothing, which that of a usual inspection must equal, and that of
/// one that copies what it hashes.
fn whole(file: &[u8]) -> Report {
    let walk = Options {
        remember: 0,
        ..options()
    };
    let walked = inspect(&file, &walk, &|_| {}).unwrap();
    let usual = inspect(&file, &options(), &|_| {}).unwrap();
    assert_eq!(json(&usual), json(&walked));
    // With room for all, for some, and for nothing.
    for remember in [Options::default().remember, 2 << 20, 0] {
        let options = Options {
            remember,
            ..options()
        };
        let mut copied = Vec::new();
        let mut copy = |piece: &[u8]| {
            copied.extend_from_slice(piece);
            Ok(())
        };
        let copying = inspect_and_copy(&file, &options, Some(&mut copy), &|_| {}).unwrap();
        assert_eq!(json(&copying), json(&walked), "{remember}");
        let end = if file.len() % 512 == 32 { 32 } else { 0 };
        assert!(copied == file[..file.len() - end], "{remember}");
    }
    walked
}

/// A copy that fails ends the inspection with its failure, wherever it is by then.
#[test]
fn a_copy_that_fails_is_the_failure() {
    let file = seal(write(&store(5).buckets(), &shape(5)).bytes);
    assert!(file.len() > 300_000, "{} bytes", file.len());
    for (remember, room) in [(24 << 20, 0), (24 << 20, 200_000), (0, 0), (0, 200_000)] {
        let options = Options {
            remember,
            ..options()
        };
        let mut left = room;
        let mut copy = |piece: &[u8]| {
            left -= piece.len() as i64;
            match left {
                0.. => Ok(()),
                _ => Err(io::Error::other("no room")),
            }
        };
        let failure = inspect_and_copy(&file.as_slice(), &options, Some(&mut copy), &|_| {});
        let failure = failure.unwrap_err().to_string();
        assert!(failure.contains("no room"), "{failure}");
    }
}

fn json(report: &Report) -> serde_json::Value {
    let mut json = serde_json::to_value(report).unwrap();
    let values: Vec<_> = report.collected.values.iter().collect();
    json["collected"] = format!("{values:?} {}", report.collected.left_out).into();
    json
}

/// A store with some of everything: versions, tombstones, leases, a compaction, values of many pages,
/// and a key whose value is wanted.
fn store(seed: u64) -> Store {
    let mut store = Store::random(&mut Random(seed), 120, 40, seed.is_multiple_of(2));
    let key = |name: &str| format!("/registry/{name}").into_bytes();
    store.txn(vec![
        Op::Put(key("wanted/one"), b"first".to_vec(), 0),
        Op::Put(key("large/one"), vec![7; 30_000], 0),
    ]);
    store.txn(vec![Op::Put(key("wanted/one"), b"second".to_vec(), 0)]);
    for n in 0..400 {
        let value = vec![n as u8; 100 + n % 1700];
        store.txn(vec![Op::Put(key(&format!("pods/ns/{n}")), value, 0)]);
    }
    store
}

fn shape(seed: u64) -> Shape {
    Shape {
        page_size: 1024 << (seed % 4),
        freelist: match seed % 3 {
            0 => Freelist::NotStored,
            _ => Freelist::Stored,
        },
        gaps: seed % 3,
        seed,
        ..Shape::default()
    }
}

#[test]
fn a_sound_snapshot_has_the_same_report_and_is_not_read_again() {
    for seed in 0..12 {
        let file = seal(write(&store(seed).buckets(), &shape(seed)).bytes);
        let whole = whole(&file);
        assert!(whole.is_good(), "{:#?}", whole.findings);
        assert_eq!(
            whole.collected.get(b"/registry/wanted/one"),
            Some(&b"second"[..])
        );
        for piece in [64 << 10, 2 << 20] {
            let (report, read) = received(&file, piece, seed.is_multiple_of(2));
            assert_eq!(json(&report), json(&whole), "seed {seed}");
            let most = file.len() as u64 / 4;
            assert!(
                read < most,
                "seed {seed}: {read} of {} read again",
                file.len()
            );
        }
        // Pieces that are not whole pages are useless, but do no harm.
        let (report, _) = received(&file, 1000, false);
        assert_eq!(json(&report), json(&whole), "seed {seed}");
    }
}

#[test]
fn a_file_is_read_once_unless_its_entries_are_small() {
    // Entries that are worth to be remembered, and such that are not.
    let large = (11_000, 900, [(24 << 20, 100..=102), (0, 140..=201)]);
    let small = (90_000, 30, [(24 << 20, 120..=190), (0, 140..=201)]);
    for (entries, value, cases) in [large, small] {
        let mut store = Store::new();
        for n in 0..entries {
            let key = format!("/registry/{}/{n}", n % 7).into_bytes();
            store.txn(vec![Op::Put(key, vec![n as u8; value + n % 60], 0)]);
        }
        let file = seal(write(&store.buckets(), &shape(2)).bytes);
        let size = file.len() as u64;
        assert!(size > 9 << 20, "{size} bytes");
        let whole = whole(&file);
        for (remember, percent) in cases {
            let options = Options {
                remember,
                ..options()
            };
            let source = Counted {
                file: &file,
                read: AtomicU64::new(0),
            };
            let report = inspect(&source, &options, &|_| {}).unwrap();
            assert_eq!(json(&report), json(&whole), "{remember}");
            let read = source.read.into_inner() * 100 / size;
            assert!(
                percent.contains(&read),
                "{read} %, not {percent:?}: {value}, {remember}"
            );
        }
    }
}

#[test]
fn a_broken_snapshot_has_the_same_findings() {
    let mut found = 0;
    for seed in 0..150 {
        let mut random = Random(seed);
        let mut database = write(&store(seed).buckets(), &shape(seed)).bytes;
        for _ in 0..=random.below(3) {
            let page = 1024 << (seed % 4);
            let pages = database.len() as u64 / page;
            // Mostly in headers, elements and keys, where a changed byte matters.
            let within = match random.below(3) {
                0 => random.below(page),
                1 => random.below(16),
                _ => 16 + random.below(300),
            };
            let at = (random.below(pages) * page + within) as usize;
            database[at] ^= 1 << random.below(8);
        }
        let file = seal(database);
        let whole = whole(&file);
        found += u32::from(!whole.findings.is_empty());
        let (report, _) = received(&file, 64 << 10, true);
        assert_eq!(json(&report), json(&whole), "seed {seed}");
    }
    assert!(found > 50, "only {found} of 150 files had findings");
}

#[test]
fn pages_that_move_are_found() {
    let database = write(&store(3).buckets(), &shape(0)).bytes;
    let page = 1024;
    let pages = database.len() / page;
    let mut random = Random(5);
    for _ in 0..60 {
        let pick = |random: &mut Random| 2 + random.below(pages as u64 - 2) as usize;
        let (one, other) = (pick(&mut random), pick(&mut random));
        let mut swapped = database.clone();
        let moved = database[one * page..(one + 1) * page].to_vec();
        swapped.copy_within(other * page..(other + 1) * page, one * page);
        swapped[other * page..(other + 1) * page].copy_from_slice(&moved);
        let file = seal(swapped);
        let whole = whole(&file);
        let (report, _) = received(&file, 64 << 10, false);
        assert_eq!(json(&report), json(&whole), "pages {one} and {other}");
    }
}

/// Puts leaves of another store into the free pages, as etcd leaves pages behind that it no longer
/// needs.
fn with_stale_pages(mut database: Written, page: usize) -> Vec<u8> {
    let mut other = Store::new();
    for n in 0..200 {
        let key = format!("/stale/kind-{}/{n}", n % 5).into_bytes();
        other.txn(vec![Op::Put(key, vec![1; 50], 0)]);
    }
    let shape = Shape {
        page_size: page as u32,
        ..Shape::default()
    };
    let other = write(&other.buckets(), &shape).bytes;
    let leaf_alone = |bytes: &&[u8]| bytes[8..10] == [2, 0] && bytes[12..16] == [0; 4];
    let mut leaves = other.chunks(page).filter(leaf_alone).cycle();
    for number in database.free {
        let at = number as usize * page;
        database.bytes[at..at + page].copy_from_slice(leaves.next().unwrap());
        database.bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    database.bytes
}

#[test]
fn pages_that_no_tree_reaches_count_for_nothing() {
    for seed in [0, 4, 8] {
        let shape = Shape {
            gaps: 3,
            freelist: Freelist::NotStored,
            ..shape(seed)
        };
        let database = write(&store(seed).buckets(), &shape);
        assert!(
            database.free.len() > 50,
            "{} free pages",
            database.free.len()
        );
        let file = seal(with_stale_pages(database, shape.page_size as usize));
        let whole = whole(&file);
        assert!(whole.is_good(), "{:#?}", whole.findings);
        let (report, read) = received(&file, 64 << 10, true);
        assert_eq!(json(&report), json(&whole), "seed {seed}");
        assert!(read < file.len() as u64 / 4, "{read} read again");
    }
}
