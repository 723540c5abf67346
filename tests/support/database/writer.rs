//! A writer of bbolt databases for tests: any tree, many shapes. Independent of the reader.

use std::collections::BTreeMap;

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Value(Vec<u8>),
    Bucket(Bucket),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bucket {
    pub sequence: u64,
    pub entries: BTreeMap<Vec<u8>, Node>,
}

impl Bucket {
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.entries
            .insert(key.to_vec(), Node::Value(value.to_vec()));
    }

    pub fn bucket(&mut self, key: &[u8]) -> &mut Bucket {
        let node = self
            .entries
            .entry(key.to_vec())
            .or_insert_with(|| Node::Bucket(Bucket::default()));
        match node {
            Node::Bucket(bucket) => bucket,
            Node::Value(_) => panic!("a value stands there"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freelist {
    NotStored,
    Stored,
    /// With the count in the first number whatever the count.
    StoredLong,
}

#[derive(Debug, Clone)]
pub struct Shape {
    pub page_size: u32,
    /// A page is closed when it would pass this many bytes and has two elements.
    pub fill: usize,
    /// Whether small buckets are inlined.
    pub inline: bool,
    pub freelist: Freelist,
    /// Up to this many free pages before each run of pages.
    pub gaps: u64,
    /// Decides the order of pages and the gaps.
    pub seed: u64,
    /// Metas as a server streams them, or as a file has them.
    pub streamed: bool,
    pub txid: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            page_size: 4096,
            fill: 4096,
            inline: true,
            freelist: Freelist::NotStored,
            gaps: 0,
            seed: 1,
            streamed: true,
            txid: 10,
        }
    }
}

/// A run of pages under construction: its bytes, and where page numbers of other runs go.
struct Run {
    bytes: Vec<u8>,
    references: Vec<(usize, usize)>,
}

pub struct Random(pub u64);

impl Random {
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }
}

const BRANCH: u16 = 1;
const LEAF: u16 = 2;

struct Element {
    flags: u32,
    key: Vec<u8>,
    value: Vec<u8>,
    /// For a branch: the run below. For a bucket: the run of its root.
    below: Option<usize>,
}

struct Builder<'a> {
    shape: &'a Shape,
    runs: Vec<Run>,
}

impl Builder<'_> {
    fn page(&self, flags: u16, elements: &[Element], overflow: u32) -> Run {
        let mut bytes = vec![0; 16 + 16 * elements.len()];
        bytes[8..10].copy_from_slice(&flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&(elements.len() as u16).to_le_bytes());
        bytes[12..16].copy_from_slice(&overflow.to_le_bytes());
        let mut references = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            let at = 16 + 16 * index;
            let pos = (bytes.len() - at) as u32;
            let key_len = element.key.len() as u32;
            let (head, target) = if flags == BRANCH {
                ([pos, key_len, 0, 0], at + 8)
            } else {
                let value_len = element.value.len() as u32;
                (
                    [element.flags, pos, key_len, value_len],
                    bytes.len() + element.key.len(),
                )
            };
            for (word, n) in head.iter().zip(0..) {
                bytes[at + 4 * n..][..4].copy_from_slice(&word.to_le_bytes());
            }
            if let Some(run) = element.below {
                references.push((target, run));
            }
            bytes.extend_from_slice(&element.key);
            if flags == LEAF {
                bytes.extend_from_slice(&element.value);
            }
        }
        Run { bytes, references }
    }

    /// Closes a page of a level; its bytes are padded and its overflow is set.
    fn close(&mut self, flags: u16, elements: &[Element]) -> usize {
        let page_size = self.shape.page_size as usize;
        let len = self.page(flags, elements, 0).bytes.len();
        let pages = len.div_ceil(page_size).max(1);
        let mut run = self.page(flags, elements, pages as u32 - 1);
        run.bytes.resize(pages * page_size, 0);
        self.runs.push(run);
        self.runs.len() - 1
    }

    /// Writes elements as pages of one level and gives (first key, run) of each.
    fn level(&mut self, flags: u16, elements: Vec<Element>) -> Vec<(Vec<u8>, usize)> {
        let mut pages = Vec::new();
        let mut page: Vec<Element> = Vec::new();
        let mut size = 16;
        for element in elements {
            let more = 16 + element.key.len() + element.value.len();
            if page.len() >= 2 && size + more > self.shape.fill {
                let run = self.close(flags, &page);
                pages.push((page[0].key.clone(), run));
                page.clear();
                size = 16;
            }
            size += more;
            page.push(element);
        }
        let first = page.first().map(|e| e.key.clone()).unwrap_or_default();
        let run = self.close(flags, &page);
        pages.push((first, run));
        pages
    }

    fn leaf_elements(&mut self, bucket: &Bucket) -> Vec<Element> {
        bucket
            .entries
            .iter()
            .map(|(key, node)| match node {
                Node::Value(value) => Element {
                    flags: 0,
                    key: key.clone(),
                    value: value.clone(),
                    below: None,
                },
                Node::Bucket(child) => {
                    let (value, below) = self.bucket(child);
                    Element {
                        flags: 1,
                        key: key.clone(),
                        value,
                        below,
                    }
                }
            })
            .collect()
    }

    /// A bucket's value and, if it is not inline, the run of its root.
    fn bucket(&mut self, bucket: &Bucket) -> (Vec<u8>, Option<usize>) {
        let mut value = vec![0; 8];
        value.extend_from_slice(&bucket.sequence.to_le_bytes());
        let plain = bucket.entries.values().all(|n| matches!(n, Node::Value(_)));
        if self.shape.inline && plain {
            let elements = self.leaf_elements(bucket);
            let run = self.page(LEAF, &elements, 0);
            if run.bytes.len() <= self.shape.page_size as usize / 4 {
                value.extend_from_slice(&run.bytes);
                return (value, None);
            }
        }
        let run = self.tree(bucket);
        (value, Some(run))
    }

    fn tree(&mut self, bucket: &Bucket) -> usize {
        let elements = self.leaf_elements(bucket);
        let mut level = self.level(LEAF, elements);
        while level.len() > 1 {
            let elements = level
                .into_iter()
                .map(|(key, run)| Element {
                    flags: 0,
                    key,
                    value: Vec::new(),
                    below: Some(run),
                })
                .collect();
            level = self.level(BRANCH, elements);
        }
        level[0].1
    }
}

/// Where things are in a written database.
pub struct Written {
    pub bytes: Vec<u8>,
    pub free: Vec<u64>,
    pub high_water: u64,
}

/// Writes a database, without a trailer.
pub fn write(root: &Bucket, shape: &Shape) -> Written {
    write_with_free(root, shape, 0)
}

/// Writes a database with so many free pages before the first page in use.
pub fn write_with_free(root: &Bucket, shape: &Shape, before: u64) -> Written {
    let mut builder = Builder {
        shape,
        runs: Vec::new(),
    };
    let top = builder.tree(root);
    let mut runs = builder.runs;
    let mut random = Random(shape.seed);
    let order = order(runs.len(), shape, &mut random);
    let page_size = shape.page_size as usize;
    let mut pages = vec![0u64; runs.len()];
    let mut free: Vec<u64> = (2..2 + before).collect();
    let mut next = 2 + before;
    for &run in &order {
        for _ in 0..random.below(shape.gaps + 1) {
            free.push(next);
            next += 1;
        }
        pages[run] = next;
        next += (runs[run].bytes.len() / page_size) as u64;
    }
    let mut freelist_page = u64::MAX;
    let mut list = Vec::new();
    if shape.freelist != Freelist::NotStored {
        freelist_page = next;
        list = freelist(&free, shape, next);
        next += (list.len() / page_size) as u64;
    }
    let mut bytes = vec![0; next as usize * page_size];
    for (index, run) in runs.iter_mut().enumerate() {
        run.bytes[..8].copy_from_slice(&pages[index].to_le_bytes());
        for (at, target) in &run.references {
            run.bytes[*at..][..8].copy_from_slice(&pages[*target].to_le_bytes());
        }
        let at = pages[index] as usize * page_size;
        bytes[at..][..run.bytes.len()].copy_from_slice(&run.bytes);
    }
    if freelist_page != u64::MAX {
        let at = freelist_page as usize * page_size;
        bytes[at..][..list.len()].copy_from_slice(&list);
    }
    for &page in &free {
        // What is left in free pages is no business of the reader.
        let at = page as usize * page_size;
        bytes[at..at + page_size].fill_with(|| random.next_u64() as u8);
    }
    let (even, odd) = (shape.txid & !1, shape.txid | 1);
    let txids = if shape.streamed {
        [shape.txid, shape.txid - 1]
    } else {
        [even, odd]
    };
    for (number, txid) in txids.into_iter().enumerate() {
        let meta = meta(number as u64, shape, pages[top], freelist_page, next, txid);
        bytes[number * page_size..][..80].copy_from_slice(&meta);
    }
    Written {
        bytes,
        free,
        high_water: next,
    }
}

/// In which order the runs of pages are written: shuffled, if the file has gaps.
fn order(runs: usize, shape: &Shape, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..runs).collect();
    if shape.gaps > 0 {
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i as u64 + 1) as usize);
        }
    }
    order
}

fn freelist(free: &[u64], shape: &Shape, page: u64) -> Vec<u8> {
    let long = shape.freelist == Freelist::StoredLong || free.len() >= 0xFFFF;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&page.to_le_bytes());
    bytes.extend_from_slice(&0x10u16.to_le_bytes());
    let count = if long { 0xFFFF } else { free.len() as u16 };
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    if long {
        bytes.extend_from_slice(&(free.len() as u64).to_le_bytes());
    }
    for id in free {
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    let page_size = shape.page_size as usize;
    let pages = bytes.len().div_ceil(page_size).max(1);
    bytes[12..16].copy_from_slice(&(pages as u32 - 1).to_le_bytes());
    bytes.resize(pages * page_size, 0);
    bytes
}

fn meta(number: u64, shape: &Shape, root: u64, freelist: u64, high: u64, txid: u64) -> [u8; 80] {
    let mut page = [0; 80];
    page[..8].copy_from_slice(&number.to_le_bytes());
    page[8..10].copy_from_slice(&4u16.to_le_bytes());
    page[16..20].copy_from_slice(&0xED0C_DAEDu32.to_le_bytes());
    page[20..24].copy_from_slice(&2u32.to_le_bytes());
    page[24..28].copy_from_slice(&shape.page_size.to_le_bytes());
    page[32..40].copy_from_slice(&root.to_le_bytes());
    page[48..56].copy_from_slice(&freelist.to_le_bytes());
    page[56..64].copy_from_slice(&high.to_le_bytes());
    page[64..72].copy_from_slice(&txid.to_le_bytes());
    seal_meta(&mut page);
    page
}

/// Sets a meta's checksum right.
pub fn seal_meta(page: &mut [u8]) {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in &page[16..72] {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    page[72..80].copy_from_slice(&hash.to_le_bytes());
}

/// Adds the SHA-256 that a streamed snapshot ends with.
pub fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}
