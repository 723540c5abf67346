use super::*;
use crate::etcd::bbolt::layout::{BUCKET_LEAF, NO_FREELIST};
use crate::etcd::bbolt::write::digests;
use crate::etcd::bbolt::write::pages::Pages;
use crate::etcd::bbolt::write::tree::Tree;

const PAGE: usize = 4096;

/// Three buckets: one with two levels of branches, one inline, and an empty one.
fn database(values: usize) -> (Vec<u8>, Meta) {
    let mut pages = Pages::new(vec![0; 2 * PAGE], PAGE as u32, 2);
    let mut root = Tree::new(PAGE);
    for name in ["alpha", "beta", "key"] {
        let mut tree = Tree::new(PAGE / 10 * 9);
        let entries: u64 = match name {
            "alpha" => 0,
            "beta" => 3,
            _ => 40_000,
        };
        for n in 0..entries {
            let key = n.to_be_bytes();
            let value = vec![n as u8; (n as usize * 7) % values];
            tree.push(&mut pages, 0, &key, &value).unwrap();
        }
        let bucket = tree.finish(&mut pages).unwrap().value(0);
        root.push(&mut pages, BUCKET_LEAF, name.as_bytes(), &bucket)
            .unwrap();
    }
    let root = root.finish_page(&mut pages).unwrap();
    let (high_water, bytes) = pages.finish();
    let meta = Meta {
        page_size: PAGE as u32,
        root,
        flags: 0,
        sequence: 0,
        freelist: NO_FREELIST,
        high_water,
        txid: 2,
    };
    (bytes, meta)
}

/// What a check says of a database that comes in pieces of this length.
fn checked(
    bytes: &Vec<u8>,
    meta: &Meta,
    piece: usize,
) -> Result<BTreeMap<Vec<u8>, Digest>, String> {
    let mut check = WrittenCheck::new(PAGE as u32);
    for piece in bytes[2 * PAGE..].chunks(piece) {
        check.take(piece);
    }
    let mut findings = Findings::keeping(1);
    let found = check.end(bytes, meta, &mut findings).unwrap();
    found.ok_or_else(|| findings.listed()[0].to_string())
}

#[test]
fn pieces_of_any_length_give_the_same_digests() {
    let (bytes, meta) = database(60);
    let expected = digests(&bytes, bytes.len() as u64, &meta).unwrap();
    assert_eq!(expected[b"key".as_slice()].entries, 40_000);
    for piece in [1, 15, 4095, PAGE, 2 << 20, bytes.len()] {
        assert_eq!(checked(&bytes, &meta, piece).unwrap(), expected, "{piece}");
    }
}

#[test]
fn a_changed_byte_of_a_page_is_found() {
    let (bytes, meta) = database(60);
    let expected = digests(&bytes, bytes.len() as u64, &meta).unwrap();
    let pages = bytes.len() / PAGE;
    for page in (2..pages).step_by(37).chain(pages - 3..pages) {
        let used = used(&bytes[page * PAGE..][..PAGE]);
        // The header, an element, a key or a value.
        for offset in [0, 8, 10, 12, 20, 24, 28, used / 2, used - 1] {
            let mut changed = bytes.clone();
            changed[page * PAGE + offset] ^= 4;
            // The root ends with a bucket's sequence, which etcd does not use.
            if page == pages - 1 && offset == used - 1 {
                continue;
            }
            let found = checked(&changed, &meta, PAGE);
            assert_ne!(
                found.as_ref(),
                Ok(&expected),
                "page {page}, offset {offset}"
            );
        }
    }
}

#[test]
fn an_entry_that_became_a_bucket_is_found() {
    let (bytes, meta) = database(60);
    let is_long_leaf = |page: &usize| {
        let page = &bytes[page * PAGE..][..PAGE];
        page[8] == 2 && u32_at(page, PAGE_HEADER + 12).is_some_and(|value| value >= 16)
    };
    let page = (2..).find(is_long_leaf).unwrap();
    let mut changed = bytes.clone();
    changed[page * PAGE + PAGE_HEADER] ^= 1;
    let error = checked(&changed, &meta, PAGE).unwrap_err();
    assert!(error.contains("a bucket"), "{error}");
}

/// Bytes of a page up to the end of its last key or value.
fn used(page: &[u8]) -> usize {
    let word = |at: usize| u32_at(page, at).unwrap() as usize;
    let last = PAGE_HEADER + ELEMENT * (usize::from(page[10]) + 256 * usize::from(page[11]) - 1);
    match page[8] {
        1 => last + word(last) + word(last + 4),
        _ => last + word(last + 4) + word(last + 8) + word(last + 12),
    }
}

#[test]
fn pages_that_are_lost_swapped_or_left_over_are_found() {
    let (bytes, meta) = database(60);
    let page = |n: usize| n * PAGE..(n + 1) * PAGE;
    let mut swapped = bytes.clone();
    swapped[page(9)].copy_from_slice(&bytes[page(8)]);
    swapped[page(8)].copy_from_slice(&bytes[page(9)]);
    let error = checked(&swapped, &meta, PAGE).unwrap_err();
    assert!(error.contains("expected page 8"), "{error}");
    let mut lost = bytes.clone();
    lost.truncate(bytes.len() - PAGE);
    assert!(checked(&lost, &meta, PAGE).is_err());
    let mut left_over = bytes.clone();
    left_over.extend_from_slice(&bytes[page(bytes.len() / PAGE - 1)]);
    let error = checked(&left_over, &meta, PAGE).unwrap_err();
    assert!(error.contains("page id"), "{error}");
    // A page twice under its own number: the branch above leads to one of them.
    let last = bytes.len() / PAGE;
    left_over[page(last)][..8].copy_from_slice(&(last as u64).to_le_bytes());
    let longer = Meta {
        high_water: meta.high_water + 1,
        ..meta
    };
    let error = checked(&left_over, &longer, PAGE).unwrap_err();
    assert!(error.contains("no branch leads to it"), "{error}");
}

#[test]
fn a_value_too_long_to_be_held_is_summed_up_as_it_passes() {
    let mut pages = Pages::new(vec![0; 2 * PAGE], PAGE as u32, 2);
    let mut tree = Tree::new(PAGE);
    tree.push(&mut pages, 0, b"a", b"short").unwrap();
    let len = MAX_RUN as u64 + 12_345;
    let value = |at: u64| (at % 251) as u8;
    tree.close_leaf(&mut pages).unwrap();
    let mut read = |buf: &mut [u8], at: u64| {
        for (n, byte) in buf.iter_mut().enumerate() {
            *byte = value(at + n as u64);
        }
        Ok(())
    };
    let page = pages.large_leaf(b"b", len, &mut read).unwrap();
    tree.add_child(&mut pages, 0, b"b", page).unwrap();
    tree.push(&mut pages, 0, b"c", b"short").unwrap();
    let bucket = tree.finish(&mut pages).unwrap().value(0);
    let mut root = Tree::new(PAGE);
    root.push(&mut pages, BUCKET_LEAF, b"key", &bucket).unwrap();
    let root = root.finish_page(&mut pages).unwrap();
    let (high_water, bytes) = pages.finish();
    let (_, meta) = database(2);
    let meta = Meta {
        root,
        high_water,
        ..meta
    };
    let expected = digests(&bytes, bytes.len() as u64, &meta).unwrap();
    assert_eq!(expected[b"key".as_slice()].entries, 3);
    for piece in [5000, 2 << 20] {
        assert_eq!(checked(&bytes, &meta, piece).unwrap(), expected);
    }
    let mut changed = bytes.clone();
    changed[20 << 20] ^= 1;
    assert_ne!(checked(&changed, &meta, 2 << 20).unwrap(), expected);
}
