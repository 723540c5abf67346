//! Generated databases of many shapes, changed and rewritten: nothing else has changed.

use std::collections::BTreeMap;

use etcd_dr::etcd::bbolt::write::{
    Change, Changes, Digest, Edit, Input, Rewriting, WrittenCheck, amend, digests, meta_pages,
    rewrite, small_bucket,
};
use etcd_dr::etcd::bbolt::{self, Meta, Metas, Origin, ReadAt};
use etcd_dr::etcd::snapshot::{Options, inspect};
use etcd_dr::finding::Findings;
use proptest::prelude::*;

use crate::bench::made_up;
use testbench::database::model::revision_key;
use testbench::database::writer::{Bucket, Freelist, Shape, seal, write};

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
        (any::<bool>(), 1u64..1000),
    )
        .prop_map(
            |(shift, fill, inline, freelist, gaps, seed, (streamed, txid))| Shape {
                page_size: 1024 << shift,
                fill: (1024 << shift) / fill,
                inline,
                freelist,
                gaps,
                seed,
                streamed,
                txid,
            },
        )
}

fn meta_of(bytes: &Vec<u8>) -> Meta {
    let mut findings = Findings::default();
    let metas = Metas::read(bytes, bytes.len() as u64, Origin::File, &mut findings).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    let metas = metas.unwrap();
    let [Ok(a), Ok(b)] = metas.pages else {
        panic!("a meta is broken")
    };
    assert_eq!((a.root, a.high_water), (b.root, b.high_water));
    assert_eq!(a.txid.abs_diff(b.txid), 1);
    assert_eq!(a.txid % 2, 0, "the even transaction is in page 0");
    assert_eq!(metas.chosen.stored_freelist(), None);
    metas.chosen
}

fn amended(bytes: &[u8], meta: &Meta, changes: &Changes) -> Vec<u8> {
    let before = bytes.to_vec();
    let amendment = amend(&before, before.len() as u64, meta, changes).unwrap();
    let mut after = before.clone();
    after.truncate(amendment.offset as usize);
    after.extend_from_slice(&amendment.pages);
    for (page, meta_page) in amendment.metas.iter().enumerate() {
        after[page * meta.page_size as usize..][..80].copy_from_slice(meta_page);
    }
    // No page but the metas was touched.
    let page = meta.page_size as usize;
    assert_eq!(after[2 * page..before.len()], before[2 * page..]);
    after
}

fn rewritten(bytes: &[u8], meta: &Meta, changes: &Changes, page_size: u32) -> Vec<u8> {
    let before = bytes.to_vec();
    let data = before.len() as u64;
    let metas = vec![0; 2 * page_size as usize];
    let (new, mut after) =
        rewrite(&before, data, meta, changes, page_size, metas, &|_| {}).unwrap();
    for (page, meta_page) in meta_pages(&new).iter().enumerate() {
        after[page * page_size as usize..][..80].copy_from_slice(meta_page);
    }
    // The bucket `key` first, before its changes are known.
    let metas = vec![0; 2 * page_size as usize];
    let mut early = Rewriting::new(page_size, metas);
    let input = Input {
        source: &before,
        data,
        meta,
        progress: &|_| {},
    };
    early.begin_with(&input, b"key").unwrap();
    let (early_meta, mut in_parts) = early.finish(&input, changes).unwrap();
    assert_eq!(early_meta.high_water, new.high_water);
    for (page, meta_page) in meta_pages(&early_meta).iter().enumerate() {
        in_parts[page * page_size as usize..][..80].copy_from_slice(meta_page);
    }
    assert_eq!(sound(&in_parts), sound(&after));
    judged(&in_parts, &early_meta);
    judged(&after, &new);
    after
}

/// Judged page by page, it holds what a walk over it finds.
fn judged(after: &Vec<u8>, meta: &Meta) {
    let page_size = meta.page_size;
    let mut check = WrittenCheck::new(page_size);
    check.take(&after[2 * page_size as usize..]);
    let mut findings = Findings::default();
    let found = check.end(after, meta, &mut findings).unwrap();
    let expected = digests(after, after.len() as u64, meta).unwrap();
    assert_eq!(found, Some(expected), "{findings:?}");
}

/// Every page is in order, and the buckets' digests.
fn sound(bytes: &Vec<u8>) -> BTreeMap<Vec<u8>, Digest> {
    let meta = meta_of(bytes);
    assert_eq!(meta.database_size(), Some(bytes.len() as u64));
    let mut findings = Findings::default();
    bbolt::check(bytes, bytes.len() as u64, Origin::File, &mut findings).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    digests(bytes, bytes.len() as u64, &meta).unwrap()
}

fn edits() -> Changes {
    let put = |pairs: &[(&[u8], &[u8])]| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let owned = pairs.iter().map(|(k, v)| (k.to_vec(), v.to_vec()));
        owned.collect()
    };
    let big = vec![7; 5000];
    Changes::from([
        (
            b"members".to_vec(),
            Change::Edit(Edit {
                clear: true,
                put: put(&[(b"1", b"one"), (b"2", &big)]),
                ..Edit::default()
            }),
        ),
        (
            b"meta".to_vec(),
            Change::Edit(Edit {
                remove: [b"term".to_vec()].into(),
                put: put(&[(b"consistent_index", b"new")]),
                ..Edit::default()
            }),
        ),
        (
            b"made".to_vec(),
            Change::Edit(Edit {
                put: (0..500u32)
                    .map(|i| (i.to_be_bytes().to_vec(), vec![1; i as usize % 300]))
                    .collect(),
                ..Edit::default()
            }),
        ),
        (b"made-empty".to_vec(), Change::Edit(Edit::default())),
        (
            b"key".to_vec(),
            Change::Append {
                key: revision_key(1 << 40, 0, false),
                value: Vec::new(),
            },
        ),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn changes_change_what_they_name(shape in shapes(), txns in 0u64..300, to in 0u32..7) {
        let (_, snapshot) = made_up(&shape, txns);
        let before = snapshot[..snapshot.len() - 32].to_vec();
        let mut unheard = Findings::default();
        let data = before.len() as u64;
        let meta = Metas::read(&before, data, Origin::File, &mut unheard).unwrap().unwrap().chosen;
        let changes = edits();
        let mut expected = digests(&before, data, &meta).unwrap();
        // What a rewrite holds its result against.
        let inspected = inspect(&snapshot, &Options::default(), &|_| {}).unwrap();
        prop_assert_eq!(&inspected.contents, &expected);
        expected.get_mut(b"key".as_slice()).unwrap().add(&revision_key(1 << 40, 0, false), b"");
        let edited: Vec<&[u8]> = vec![b"members", b"meta", b"made", b"made-empty"];
        for name in &edited {
            expected.remove(*name);
        }
        let results = [
            amended(&before, &meta, &changes),
            rewritten(&before, &meta, &changes, meta.page_size),
            rewritten(&before, &meta, &changes, 1024 << to),
        ];
        for after in results {
            let mut found = sound(&after);
            let data = after.len() as u64;
            let meta = meta_of(&after);
            let bucket = |name: &[u8]| small_bucket(&after, data, &meta, name).unwrap();
            let Change::Edit(made) = &changes[b"made".as_slice()] else { unreachable!() };
            prop_assert_eq!(bucket(b"made"), made.put.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(bucket(b"made-empty"), vec![]);
            let members = bucket(b"members");
            prop_assert_eq!(members.len(), 2);
            prop_assert_eq!(members[1].1.len(), 5000);
            let meta = bucket(b"meta");
            prop_assert!(meta.iter().all(|(key, _)| key != b"term"));
            prop_assert!(meta.contains(&(b"consistent_index".to_vec(), b"new".to_vec())));
            for name in &edited {
                prop_assert!(found.remove(*name).is_some());
            }
            prop_assert_eq!(&found, &expected);
        }
    }
}

/// Deep trees: an append continues with the existing branches, even full ones.
#[test]
fn appends_keep_on_working() {
    for page_size in [1024, 4096] {
        let mut root = Bucket::default();
        for i in 0..4000i64 {
            root.bucket(b"key")
                .put(&revision_key(i + 2, 0, false), &[1; 40]);
        }
        let shape = Shape {
            page_size,
            fill: page_size as usize,
            ..Shape::default()
        };
        let mut bytes = write(&root, &shape).bytes;
        for i in 0..70 {
            let data = bytes.len() as u64;
            let meta = Metas::read(&bytes, data, Origin::File, &mut Findings::default())
                .unwrap()
                .unwrap()
                .chosen;
            let append = |main: i64| {
                Changes::from([(
                    b"key".to_vec(),
                    Change::Append {
                        key: revision_key(main, 0, false),
                        value: vec![9; 10],
                    },
                )])
            };
            // Not above the last one.
            assert!(amend(&bytes, data, &meta, &append(4001 + i)).is_err());
            bytes = amended(&bytes, &meta, &append(4002 + i));
            let found = sound(&bytes);
            assert_eq!(found[b"key".as_slice()].entries, 4001 + i as u64);
        }
    }
}

/// Many entries behind the last one, over any tree: as many leaves and levels as they take.
#[test]
fn entries_by_the_thousand_are_put_behind_the_last() {
    for (page_size, there) in [(1024, 0i64), (1024, 1), (1024, 300), (4096, 4000)] {
        let mut root = Bucket::default();
        root.bucket(b"meta").put(b"a", b"b");
        root.bucket(b"key");
        for i in 0..there {
            root.bucket(b"key")
                .put(&revision_key(i + 2, 0, false), &[1; 40]);
        }
        let shape = Shape {
            page_size,
            fill: page_size as usize,
            ..Shape::default()
        };
        let before = write(&root, &shape).bytes;
        let meta = meta_of(&before);
        for more in [0usize, 1, 7, 90, 6000] {
            let behind: Vec<_> = (0..more)
                .map(|i| {
                    let value = vec![i as u8; if i % 97 == 5 { 9000 } else { i % 50 }];
                    (revision_key(there + 2 + i as i64, 0, i % 3 == 0), value)
                })
                .collect();
            let data = before.len() as u64;
            let mut expected = digests(&before, data, &meta).unwrap();
            for (key, value) in &behind {
                expected.entry(b"key".to_vec()).or_default().add(key, value);
            }
            let changes = Changes::from([(b"key".to_vec(), Change::Extend(behind))]);
            for after in [
                amended(&before, &meta, &changes),
                rewritten(&before, &meta, &changes, page_size),
            ] {
                assert_eq!(sound(&after), expected, "{there} and {more}");
            }
        }
    }
}

/// Values too big to be held go through a rewrite in pieces, and stay where they are otherwise.
#[test]
fn large_values_are_carried_over() {
    let mut root = Bucket::default();
    for i in 0..5i64 {
        let size = if i % 2 == 0 { 17 << 20 } else { 100 };
        root.bucket(b"key")
            .put(&revision_key(i + 2, 0, false), &vec![i as u8; size]);
    }
    let bytes = write(&root, &Shape::default()).bytes;
    let data = bytes.len() as u64;
    let meta = Metas::read(&bytes, data, Origin::File, &mut Findings::default());
    let meta = meta.unwrap().unwrap().chosen;
    let changes = edits();
    let mut expected = digests(&bytes, data, &meta).unwrap()[b"key".as_slice()];
    expected.add(&revision_key(1 << 40, 0, false), b"");
    for after in [
        amended(&bytes, &meta, &changes),
        rewritten(&bytes, &meta, &changes, 4096),
    ] {
        assert_eq!(sound(&after)[b"key".as_slice()], expected);
    }
}

/// A bucket that is bigger than any etcd makes it is an error, and takes no memory.
#[test]
fn what_must_be_small_is_bounded() {
    let mut root = Bucket::default();
    for i in 0..20u32 {
        root.bucket(b"meta")
            .put(&i.to_be_bytes(), &vec![0; 1 << 20]);
    }
    let bytes = write(&root, &Shape::default()).bytes;
    let data = bytes.len() as u64;
    let meta = Metas::read(&bytes, data, Origin::File, &mut Findings::default());
    let meta = meta.unwrap().unwrap().chosen;
    let failure = amend(&bytes, data, &meta, &edits()).unwrap_err();
    assert!(failure.to_string().contains("more than"), "{failure}");
}

/// Broken databases are errors of the writers, never panics.
#[test]
fn flipped_bytes_never_panic() {
    let (_, snapshot) = made_up(
        &Shape {
            gaps: 1,
            ..Shape::default()
        },
        60,
    );
    let good = snapshot[..snapshot.len() - 32].to_vec();
    let data = good.len() as u64;
    let meta = Metas::read(&good, data, Origin::File, &mut Findings::default());
    let meta = meta.unwrap().unwrap().chosen;
    let mut refused = 0;
    for at in (8192..good.len()).step_by(13) {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        let size = bytes.size();
        refused += usize::from(amend(&bytes, size, &meta, &edits()).is_err());
        let _ = rewrite(&bytes, size, &meta, &edits(), 4096, Vec::new(), &|_| {});
    }
    assert!(refused > 10, "{refused}");
    let _ = seal(good);
}
