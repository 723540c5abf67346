//! A model of etcd's store, to make databases from and to compare the reader's answers with. The
//! answers are computed the plain way, forwards and with maps of whole keys.

use std::collections::{BTreeMap, BTreeSet};

use super::writer::{Bucket, Random};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub key: Vec<u8>,
    pub create: i64,
    pub version: i64,
    pub value: Vec<u8>,
    pub lease: i64,
    pub tombstone: bool,
}

/// Entries of the bucket `key`, by (main, sub).
#[derive(Debug, Clone, Default)]
pub struct Store {
    pub entries: BTreeMap<(i64, i64), Version>,
    pub live: BTreeMap<Vec<u8>, (i64, i64)>,
    pub revision: i64,
    pub compact: Option<i64>,
    pub leases: BTreeSet<i64>,
}

pub enum Op {
    Put(Vec<u8>, Vec<u8>, i64),
    Delete(Vec<u8>),
}

impl Store {
    pub fn new() -> Self {
        Self {
            revision: 1,
            ..Self::default()
        }
    }

    /// One transaction, of different keys.
    pub fn txn(&mut self, ops: Vec<Op>) {
        let main = self.revision + 1;
        let mut sub = 0;
        for op in ops {
            let entry = match op {
                Op::Put(key, value, lease) => {
                    let before = self.live.get(&key).map(|at| &self.entries[at]);
                    let (create, version) = before.map_or((main, 1), |v| (v.create, v.version + 1));
                    if lease != 0 {
                        self.leases.insert(lease);
                    }
                    self.live.insert(key.clone(), (main, sub));
                    Version {
                        key,
                        create,
                        version,
                        value,
                        lease,
                        tombstone: false,
                    }
                }
                Op::Delete(key) => {
                    if self.live.remove(&key).is_none() {
                        continue;
                    }
                    Version {
                        key,
                        create: 0,
                        version: 0,
                        value: Vec::new(),
                        lease: 0,
                        tombstone: true,
                    }
                }
            };
            self.entries.insert((main, sub), entry);
            sub += 1;
        }
        if sub > 0 {
            self.revision = main;
        }
    }

    /// Compacts as a server does; `keep_tombstones` as newer ones do at the revision itself.
    pub fn compact(&mut self, at: i64, keep_tombstones: bool) {
        let mut newest = BTreeMap::new();
        for (&rev, version) in self.entries.range(..=(at, i64::MAX)) {
            newest.insert(version.key.clone(), rev);
        }
        self.entries.retain(|&rev, version| {
            rev.0 > at
                || (newest.get(&version.key) == Some(&rev)
                    && (!version.tombstone || (keep_tombstones && rev.0 == at)))
        });
        self.compact = Some(at);
    }

    /// Random transactions over a few keys, with a compaction now and then.
    pub fn random(random: &mut Random, txns: u64, keys: u64, compactions: bool) -> Self {
        let mut store = Self::new();
        for _ in 0..txns {
            let mut ops = Vec::new();
            let mut used = BTreeSet::new();
            for _ in 0..1 + random.below(3) {
                let n = random.below(keys);
                if !used.insert(n) {
                    continue;
                }
                let key = format!(
                    "/registry/{}/k{n}",
                    ["pods", "events", "a.b/c"][n as usize % 3]
                );
                if random.below(4) == 0 {
                    ops.push(Op::Delete(key.into_bytes()));
                } else {
                    let len = random.below(60) as usize;
                    let value = (0..len).map(|_| random.next_u64() as u8).collect();
                    let lease = if random.below(5) == 0 {
                        7 + random.below(3) as i64
                    } else {
                        0
                    };
                    ops.push(Op::Put(key.into_bytes(), value, lease));
                }
            }
            store.txn(ops);
            if compactions && random.below(12) == 0 {
                let from = store.compact.unwrap_or(1);
                if store.revision > from {
                    let span = (store.revision - from) as u64;
                    let at = from + 1 + random.below(span) as i64;
                    store.compact(at, random.below(2) == 0);
                }
            }
        }
        store
    }

    pub fn pairs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.entries
            .iter()
            .map(|(&(main, sub), version)| {
                (
                    revision_key(main, sub, version.tombstone),
                    encode(main, version),
                )
            })
            .collect()
    }

    /// The database's buckets, as etcd 3.5 has them.
    pub fn buckets(&self) -> Bucket {
        let mut root = Bucket::default();
        for name in [
            "alarm",
            "auth",
            "authRoles",
            "authUsers",
            "cluster",
            "key",
            "lease",
            "members",
            "members_removed",
            "meta",
        ] {
            root.bucket(name.as_bytes());
        }
        for (key, value) in self.pairs() {
            root.bucket(b"key").put(&key, &value);
        }
        for &lease in &self.leases {
            let mut value = vec![0x08];
            varint(&mut value, lease as u64);
            value.extend_from_slice(&[0x10, 60]);
            root.bucket(b"lease").put(&lease.to_be_bytes(), &value);
        }
        let meta = root.bucket(b"meta");
        meta.put(
            b"consistent_index",
            &(self.revision as u64 + 5).to_be_bytes(),
        );
        meta.put(b"term", &2u64.to_be_bytes());
        if let Some(at) = self.compact {
            meta.put(b"scheduledCompactRev", &revision_key(at, 0, false));
            meta.put(b"finishedCompactRev", &revision_key(at, 0, false));
        }
        root.bucket(b"cluster").put(b"clusterVersion", b"3.5.0");
        let member =
            br#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#;
        root.bucket(b"members").put(b"8e9e05c52164694d", member);
        root
    }

    /// HashKV by its definition.
    pub fn hash_kv(&self, revision: i64, compact: i64, newer_rule: bool) -> u32 {
        let mut newest = BTreeMap::new();
        for (&rev, version) in self.entries.range(..=(revision, i64::MAX)) {
            newest.insert(&version.key, (rev, version.tombstone));
        }
        let keep: BTreeSet<_> = newest
            .values()
            .filter(|(_, tombstone)| !tombstone)
            .map(|(rev, _)| *rev)
            .collect();
        let mut hash = crc32c::crc32c(b"key");
        for (&(main, sub), version) in &self.entries {
            if main > revision
                || (main <= compact && !keep.is_empty() && !keep.contains(&(main, sub)))
                || (newer_rule && main == compact && version.tombstone)
            {
                continue;
            }
            hash = crc32c::crc32c_append(hash, &revision_key(main, sub, version.tombstone));
            hash = crc32c::crc32c_append(hash, &encode(main, version));
        }
        hash
    }
}

/// `snapshot status`'s hash by its definition.
pub fn status_hash(root: &Bucket) -> u32 {
    use super::writer::Node;
    let mut hash = 0;
    for (name, node) in &root.entries {
        hash = crc32c::crc32c_append(hash, name);
        let Node::Bucket(bucket) = node else { continue };
        for (key, node) in &bucket.entries {
            hash = crc32c::crc32c_append(hash, key);
            if let Node::Value(value) = node {
                hash = crc32c::crc32c_append(hash, value);
            }
        }
    }
    hash
}

pub fn revision_key(main: i64, sub: i64, tombstone: bool) -> Vec<u8> {
    let mut key = main.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend_from_slice(&sub.to_be_bytes());
    if tombstone {
        key.push(b't');
    }
    key
}

pub fn encode(main: i64, version: &Version) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = |out: &mut Vec<u8>, tag: u8, bytes: &[u8]| {
        if !bytes.is_empty() {
            out.push(tag);
            varint(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
    };
    bytes(&mut out, 0x0a, &version.key);
    if !version.tombstone {
        for (tag, number) in [
            (0x10, version.create),
            (0x18, main),
            (0x20, version.version),
        ] {
            out.push(tag);
            varint(&mut out, number as u64);
        }
        bytes(&mut out, 0x2a, &version.value);
        if version.lease != 0 {
            out.push(0x30);
            varint(&mut out, version.lease as u64);
        }
    }
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
