//! Writes a snapshot of a made-up store, for measurements: `make_store FILE REVISIONS KEYS
//! VALUE_BYTES`. Every key gets revisions in turn; leaf pages are in a scattered order, as
//! in a database that has been in use, unless `SEQUENTIAL` is given. Values are ConfigMaps in JSON where they are
//! long enough for that, otherwise noise. With `kubernetes` as VALUE_BYTES each kind of key has values as long as
//! a cluster's objects of that kind are.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use etcd_dr::etcd::bbolt::Meta;
use etcd_dr::etcd::bbolt::meta::encode_meta;
use etcd_dr::etcd::mvcc::{KeyValue, KvRevision, RevisionKey};
use etcd_dr::etcd::snapshot::STANDARD;
use sha2::{Digest, Sha256};

const PAGE: usize = 4096;
const NOTHING: u64 = u64::MAX;

struct Writer {
    file: File,
    /// Leaves are written within a window of pages in a mixed order.
    window: Vec<u64>,
    next: u64,
    scatter: bool,
}

impl Writer {
    fn page(&mut self, span: u64) -> u64 {
        if span > 1 || !self.scatter {
            self.next += span;
            return self.next - span;
        }
        if self.window.is_empty() {
            // 37 and 4096 have no common factor: a fixed mixture of the window.
            self.window = (0..4096).map(|n| self.next + n * 37 % 4096).collect();
            self.next += 4096;
        }
        self.window.pop().unwrap_or_default()
    }

    /// Writes elements as one page and gives its number.
    fn write(&mut self, leaf: bool, elements: &[(Vec<u8>, Vec<u8>, u64)]) -> std::io::Result<u64> {
        let size: usize = elements
            .iter()
            .map(|(k, v, _)| 16 + k.len() + v.len())
            .sum();
        let span = (16 + size).div_ceil(PAGE);
        let id = self.page(span as u64);
        let mut page = Vec::with_capacity(span * PAGE);
        page.extend_from_slice(&id.to_le_bytes());
        page.extend_from_slice(&(if leaf { 2u16 } else { 1 }).to_le_bytes());
        page.extend_from_slice(&(elements.len() as u16).to_le_bytes());
        page.extend_from_slice(&(span as u32 - 1).to_le_bytes());
        let mut pos = 16 * elements.len();
        for (index, (key, value, below)) in elements.iter().enumerate() {
            let at = (pos - 16 * index) as u32;
            let key_len = key.len() as u32;
            if leaf {
                let flags = u32::from(*below != NOTHING);
                for word in [flags, at, key_len, value.len() as u32] {
                    page.extend_from_slice(&word.to_le_bytes());
                }
            } else {
                page.extend_from_slice(&at.to_le_bytes());
                page.extend_from_slice(&key_len.to_le_bytes());
                page.extend_from_slice(&below.to_le_bytes());
            }
            pos += key.len() + value.len();
        }
        for (key, value, _) in elements {
            page.extend_from_slice(key);
            page.extend_from_slice(value);
        }
        page.resize(span * PAGE, 0);
        self.file.write_all_at(&page, id * PAGE as u64)?;
        Ok(id)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: make_store FILE REVISIONS KEYS VALUE_BYTES|kubernetes [SEQUENTIAL]";
    let path = args.first().ok_or(usage)?;
    let number = |n: usize| args.get(n).and_then(|t| t.parse::<i64>().ok()).ok_or(usage);
    let (revisions, keys) = (number(1)?, number(2)?);
    let size = match args.get(3).map(String::as_str) {
        Some("kubernetes") => Size::Kubernetes,
        _ => Size::Same(number(3)? as usize),
    };
    let mut writer = Writer {
        file: File::create(path)?,
        window: Vec::new(),
        next: 2,
        scatter: args.len() < 5,
    };
    let root = write_keys(&mut writer, revisions, keys, size)?;
    let top = write_top(&mut writer, root, revisions)?;
    let high_water = writer.next;
    writer.file.set_len(high_water * PAGE as u64)?;
    for (number, txid) in [(0, 100), (1, 99)] {
        let meta = Meta {
            page_size: PAGE as u32,
            flags: 0,
            root: top,
            sequence: 0,
            freelist: NOTHING,
            high_water,
            txid,
        };
        let page = encode_meta(number, &meta);
        writer.file.write_all_at(&page, number * PAGE as u64)?;
    }
    seal(Path::new(path))
}

/// How long values are, in bytes.
enum Size {
    Same(usize),
    Kubernetes,
}

impl Size {
    /// The longest.
    const MOST: usize = 256 << 10;

    fn of(&self, key: i64) -> usize {
        let (least, most) = match (self, key % 5) {
            (Self::Same(size), _) => return *size,
            (_, 0) => (4_000, 10_000),
            (_, 1) => (600, 1_400),
            (_, 2) => (1_000, 4_000),
            (_, 3) if key % 1000 == 3 => (64 << 10, Self::MOST),
            (_, 3) => (300, 2_000),
            _ => (1_500, 4_500),
        };
        let mixed = key.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        least + mixed as usize % (most - least)
    }
}

fn write_keys(writer: &mut Writer, revisions: i64, keys: i64, size: Size) -> std::io::Result<u64> {
    let longest = match size {
        Size::Same(size) => size,
        Size::Kubernetes => Size::MOST,
    };
    let noise: Vec<u8> = (0..longest + 65_536)
        .map(|n| ((n * n) >> 7) as u8)
        .collect();
    let mut level = Vec::new();
    let mut page = Vec::new();
    let mut used = 16;
    for n in 0..revisions {
        let (key, round) = (n % keys, n / keys);
        let name = format!(
            "/registry/{}/namespace-{:03}/object-name-{key:09}",
            KINDS[(key % 5) as usize],
            key % 300
        );
        let from = (n as usize * 31) % 65_536;
        let noise = noise.get(from..from + size.of(key)).unwrap_or_default();
        let value = value(&name, n, noise);
        let kv = KeyValue {
            key: name.as_bytes(),
            create_revision: 2 + key,
            mod_revision: 2 + n,
            version: 1 + round,
            value: &value,
            lease: 0,
        };
        let revision = KvRevision {
            main: 2 + n,
            sub: 0,
        };
        let element = (
            RevisionKey {
                revision,
                tombstone: false,
            }
            .encode(),
            kv.encode(),
            NOTHING,
        );
        let more = 16 + element.0.len() + element.1.len();
        if page.len() >= 2 && used + more > PAGE * 9 / 10 {
            level.push((first(&page), Vec::new(), writer.write(true, &page)?));
            page.clear();
            used = 16;
        }
        used += more;
        page.push(element);
    }
    level.push((first(&page), Vec::new(), writer.write(true, &page)?));
    while level.len() > 1 {
        let mut above = Vec::new();
        for part in level.chunks(110) {
            above.push((first(part), Vec::new(), writer.write(false, part)?));
        }
        level = above;
    }
    Ok(level.first().map_or(0, |(_, _, page)| *page))
}

/// An object of the noise's length, if it has room for one.
fn value(key: &str, revision: i64, noise: &[u8]) -> Vec<u8> {
    let name = key.rsplit('/').next().unwrap_or_default();
    let head = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","uid":"{name}","generation":{revision}}},"data":{{"k":""#
    );
    let tail = r#""}}"#;
    let Some(room) = noise.len().checked_sub(head.len() + tail.len()) else {
        return noise.to_vec();
    };
    let mut value = head.into_bytes();
    // 64 characters that need no escape in JSON.
    let text = noise.iter().take(room).map(|byte| b'0' + byte % 64);
    value.extend(text.map(|byte| if byte == b'\\' { b'z' } else { byte }));
    value.extend_from_slice(tail.as_bytes());
    value
}

const KINDS: [&str; 5] = [
    "pods",
    "events",
    "secrets",
    "configmaps",
    "apps.example.com/things",
];

fn first(elements: &[(Vec<u8>, Vec<u8>, u64)]) -> Vec<u8> {
    elements
        .first()
        .map(|(key, ..)| key.clone())
        .unwrap_or_default()
}

fn write_top(writer: &mut Writer, root: u64, revisions: i64) -> std::io::Result<u64> {
    let mut elements = Vec::new();
    for name in STANDARD {
        let mut value = vec![0; 16];
        match name {
            "key" => value[..8].copy_from_slice(&root.to_le_bytes()),
            "meta" => {
                let (key, index) = (b"consistent_index", (revisions as u64 + 9).to_be_bytes());
                value.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0]);
                for word in [0u32, 16, key.len() as u32, 8] {
                    value.extend_from_slice(&word.to_le_bytes());
                }
                value.extend_from_slice(key);
                value.extend_from_slice(&index);
            }
            _ => value.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]),
        }
        elements.push((name.as_bytes().to_vec(), value, 0));
    }
    writer.write(true, &elements)
}

fn seal(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    use std::io::{Read, Write};
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    loop {
        let len = file.read(&mut buf)?;
        if len == 0 {
            break;
        }
        hasher.update(buf.get(..len).unwrap_or_default());
    }
    let mut file = File::options().append(true).open(path)?;
    file.write_all(&hasher.finalize())?;
    Ok(())
}
