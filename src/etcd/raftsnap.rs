//! `.snap` files: a raft snapshot with the membership and the v2 store, beside the database.
//!
//! The name is `<term>-<index>.snap`, both as 16 hex digits. The content is the protobuf message
//! `{crc=1 uint32, data=2 bytes}` where crc is the CRC-32C of data, and data a
//! [`Snapshot`](super::proto::raft::Snapshot) whose own data is the v2 store as JSON (etcd,
//! `server/etcdserver/api/snap/snapshotter.go`). A crc of zero or empty data counts as corrupt, as
//! for etcd, which then renames the file to `*.broken` and takes the next older one.
//!
//! Up to 3.5 the v2 store is what says who the members are; 3.6 writes it still; 3.7 reads no
//! `.snap` any more.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::error::{Doing, Kind, Result};
use crate::etcd::founding::FoundingCluster;
use crate::etcd::proto::raft::{ConfState, Snapshot, SnapshotMetadata};
use crate::etcd::proto::{Fields, WireError, put_bytes, put_bytes_head, put_u64};
use crate::etcd::wal::SnapshotId;
use crate::finding::{Finding, Layer, Place};

mod v2store;

pub use v2store::V2Store;

/// The largest file that is read; those of etcd have a few hundred kilobytes.
pub const SIZE_MAX: u64 = 32 << 20;

/// The name of a `.snap` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapName {
    /// The term of the last entry that the snapshot holds.
    pub term: u64,
    /// That entry's index.
    pub index: u64,
}

impl SnapName {
    /// Reads a file's name.
    pub fn parse(name: &str) -> Option<Self> {
        let (term, index) = name.strip_suffix(".snap")?.split_once('-')?;
        let number = |digits: &str| {
            let form = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            form.then(|| u64::from_str_radix(digits, 16).ok())?
        };
        Some(Self {
            term: number(term)?,
            index: number(index)?,
        })
    }

    /// The snapshot that the file should hold.
    pub fn snapshot(self) -> SnapshotId {
        SnapshotId {
            index: self.index,
            term: self.term,
        }
    }
}

impl fmt::Display for SnapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.snap", self.term, self.index)
    }
}

/// What a good `.snap` file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftSnap {
    /// Which snapshot it is.
    pub id: SnapshotId,
    /// Raft's membership.
    pub conf_state: ConfState,
    /// The v2 store; `None` if the file lacks it, as 3.7 may leave it.
    pub store: Option<V2Store>,
}

/// A `.snap` file that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapFile {
    /// Its name.
    pub name: SnapName,
    /// What it holds, if etcd would take it.
    pub snap: Option<RaftSnap>,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

struct Envelope<'a> {
    crc: u32,
    data: &'a [u8],
}

fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, WireError> {
    let mut envelope = Envelope { crc: 0, data: &[] };
    for field in Fields::new(bytes) {
        let field = field?;
        match field.number {
            1 => envelope.crc = field.u32()?,
            2 => envelope.data = field.bytes()?,
            _ => {}
        }
    }
    Ok(envelope)
}

impl SnapFile {
    /// Looks at a file's content.
    pub fn parse(name: SnapName, bytes: &[u8]) -> Self {
        let mut file = Self {
            name,
            snap: None,
            findings: Vec::new(),
        };
        match RaftSnap::parse(bytes, &mut file.findings) {
            Ok(snap) => {
                if snap.id != name.snapshot() {
                    file.findings.push(Finding::warning(
                        Layer::RaftSnap,
                        format!("index {} and term {}, as named", name.index, name.term),
                        format!("index {}, term {}", snap.id.index, snap.id.term),
                    ));
                }
                file.snap = Some(snap);
            }
            Err(finding) => file.findings.push(*finding),
        }
        for finding in &mut file.findings {
            finding.file = name.to_string();
        }
        file
    }

    /// Reads and looks at a file.
    pub fn read(dir: &Path, name: SnapName) -> Result<Self> {
        let path = dir.join(name.to_string());
        let doing = || format!("reading {}", path.display());
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes))
            .doing(Kind::NotChecked, doing)?;
        if bytes.len() as u64 > SIZE_MAX {
            let finding = Finding::error(
                Layer::RaftSnap,
                format!("at most {SIZE_MAX} bytes"),
                "a larger file, which is not read",
            );
            return Ok(Self {
                name,
                snap: None,
                findings: vec![finding.in_file(name.to_string())],
            });
        }
        Ok(Self::parse(name, &bytes))
    }
}

/// The names of the `.snap` files in a directory, newest first, as etcd tries them.
pub fn list(dir: &Path) -> Result<Vec<SnapName>> {
    let doing = || format!("listing {}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).doing(Kind::NotChecked, doing)? {
        let entry = entry.doing(Kind::NotChecked, doing)?;
        let is_file = fs::metadata(entry.path()).is_ok_and(|m| m.is_file());
        names.extend(
            entry
                .file_name()
                .to_str()
                .filter(|_| is_file)
                .and_then(SnapName::parse),
        );
    }
    names.sort_by(|a, b| b.cmp(a));
    Ok(names)
}

impl RaftSnap {
    fn parse(bytes: &[u8], findings: &mut Vec<Finding>) -> Result<Self, Box<Finding>> {
        let error = |expected: &str, found: String| {
            Box::new(Finding::error(Layer::RaftSnap, expected, found))
        };
        let decoded = |expected: &'static str, shift: usize| {
            move |cause: WireError| {
                let at = Place::Offset(cause.offset.saturating_add(shift) as u64);
                Box::new(Finding::error(Layer::RaftSnap, expected, cause.to_string()).at(at))
            }
        };
        let Envelope { crc, data } = envelope(bytes).map_err(decoded("a checksum and data", 0))?;
        if data.is_empty() || crc == 0 {
            return Err(error("a checksum and data", "one of them is empty".into()));
        }
        let computed = crc32c::crc32c(data);
        if computed != crc {
            return Err(error(
                "data that matches its CRC",
                format!("data of CRC {computed:08x}, recorded as {crc:08x}"),
            ));
        }
        let mut head = Vec::new();
        put_u64(&mut head, 1, crc.into());
        put_bytes_head(&mut head, 2, data.len());
        let as_written = bytes.len() == head.len().saturating_add(data.len());
        if !(as_written && bytes.starts_with(&head)) {
            findings.push(Finding::warning(
                Layer::RaftSnap,
                "a checksum and data alone",
                "other fields, or in another form",
            ));
        }
        // As etcd writes it, the data is the last field.
        let data_at = bytes.len().saturating_sub(data.len());
        let Snapshot { data, metadata } =
            Snapshot::decode(data).map_err(decoded("a raft snapshot", data_at))?;
        let SnapshotMetadata {
            conf_state,
            index,
            term,
        } = metadata;
        let store = if data.is_empty() {
            findings.push(Finding::warning(
                Layer::RaftSnap,
                "the v2 store, which etcd up to 3.6 reads",
                "none",
            ));
            None
        } else {
            let store = V2Store::parse(data, findings)
                .map_err(|cause| error("the v2 store as JSON", cause.to_string()))?;
            check_members(&store, &conf_state, findings);
            Some(store)
        };
        Ok(Self {
            id: SnapshotId { index, term },
            conf_state,
            store,
        })
    }
}

/// Both lists are in one file, of one moment.
fn check_members(store: &V2Store, conf_state: &ConfState, findings: &mut Vec<Finding>) {
    let mut raft: Vec<u64> = [
        &conf_state.voters,
        &conf_state.learners,
        &conf_state.voters_outgoing,
        &conf_state.learners_next,
    ]
    .into_iter()
    .flatten()
    .copied()
    .collect();
    raft.sort_unstable();
    raft.dedup();
    let members: Vec<u64> = store.members.iter().map(|member| member.id.0).collect();
    if raft != members {
        findings.push(Finding::warning(
            Layer::RaftSnap,
            format!("the members {} of raft in the v2 store", hex_list(&raft)),
            hex_list(&members),
        ));
    }
}

fn hex_list(ids: &[u64]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("{id:x}")).collect();
    ids.join(", ")
}

/// Name and content of the `.snap` file that a restored member starts from.
///
/// The v2 store has the members and nothing else. What counts events and requests is left out:
/// etcd then keeps its defaults, where an empty event queue would make it panic (etcd up to 3.6,
/// `server/etcdserver/api/v2store/event_queue.go`).
pub fn founding(cluster: &FoundingCluster) -> (SnapName, Vec<u8>) {
    let name = SnapName {
        term: 1,
        index: cluster.commit(),
    };
    let conf_state = ConfState {
        voters: cluster.ids(),
        ..ConfState::default()
    };
    let bytes = content(name, conf_state, &v2store::founding(cluster));
    (name, bytes)
}

/// Name and content of the `.snap` file of a cluster whose log has been applied up to an entry. All
/// members have started.
pub fn at(id: SnapshotId, store: &V2Store) -> (SnapName, Vec<u8>) {
    let SnapshotId { index, term } = id;
    let name = SnapName { term, index };
    let of = |learner: bool| {
        let members = store.members.iter();
        let of = members.filter(|member| member.is_learner == learner);
        of.map(|member| member.id.0).collect()
    };
    let conf_state = ConfState {
        voters: of(false),
        learners: of(true),
        ..ConfState::default()
    };
    (name, content(name, conf_state, &v2store::at(store, index)))
}

fn content(name: SnapName, conf_state: ConfState, store: &str) -> Vec<u8> {
    let snapshot = Snapshot {
        data: store.as_bytes(),
        metadata: SnapshotMetadata {
            conf_state,
            index: name.index,
            term: name.term,
        },
    }
    .encode();
    let mut bytes = Vec::with_capacity(snapshot.len().saturating_add(16));
    put_u64(&mut bytes, 1, crc32c::crc32c(&snapshot).into());
    put_bytes(&mut bytes, 2, &snapshot);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::etcd::founding::InitialCluster;
    use crate::etcd::ids::MemberId;
    use crate::etcd::membership::Member;

    fn two() -> FoundingCluster {
        InitialCluster::parse("m1=http://127.0.0.1:23801,m2=http://127.0.0.1:23803")
            .unwrap()
            .found("tok-1")
            .unwrap()
    }

    fn wrap(data: &[u8], metadata: SnapshotMetadata) -> Vec<u8> {
        let snapshot = Snapshot { data, metadata }.encode();
        let mut bytes = Vec::new();
        put_u64(&mut bytes, 1, crc32c::crc32c(&snapshot).into());
        put_bytes(&mut bytes, 2, &snapshot);
        bytes
    }

    #[test]
    fn a_later_file_reads_back() {
        let mut member = two().members.swap_remove(0);
        member.client_urls = vec!["http://127.0.0.1:2379".to_owned()];
        let store = V2Store {
            members: vec![member],
            removed: vec![MemberId(0x17), MemberId(0xfeed)],
            cluster_version: Some("3.5.0".to_owned()),
            has_user_keys: false,
        };
        let id = SnapshotId { index: 44, term: 7 };
        let (name, bytes) = at(id, &store);
        assert_eq!(name.to_string(), "0000000000000007-000000000000002c.snap");
        let file = SnapFile::parse(name, &bytes);
        assert_eq!(file.findings, []);
        let snap = file.snap.unwrap();
        assert_eq!(snap.id, id);
        assert_eq!(snap.conf_state.voters, [store.members[0].id.0]);
        assert_eq!(snap.store.unwrap(), store);
    }

    #[test]
    fn a_founding_file_reads_back() {
        let cluster = two();
        let (name, bytes) = founding(&cluster);
        assert_eq!(name.to_string(), "0000000000000001-0000000000000002.snap");
        assert_eq!(SnapName::parse(&name.to_string()), Some(name));
        let file = SnapFile::parse(name, &bytes);
        assert_eq!(file.findings, []);
        let snap = file.snap.unwrap();
        assert_eq!(snap.id, SnapshotId { index: 2, term: 1 });
        assert_eq!(snap.conf_state.voters, cluster.ids());
        let store = snap.store.unwrap();
        let urls: Vec<_> = store.members.iter().map(|m| (m.id, &m.peer_urls)).collect();
        let expected: Vec<_> = cluster
            .members
            .iter()
            .map(|m| (m.id, &m.peer_urls))
            .collect();
        assert_eq!(urls, expected);
        assert!(!store.has_user_keys);
    }

    #[test]
    fn every_flip_is_found() {
        let (name, bytes) = founding(&two());
        for i in 0..bytes.len() {
            for mask in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
                let mut flipped = bytes.clone();
                flipped[i] ^= mask;
                let file = SnapFile::parse(name, &flipped);
                assert_ne!(file.findings, [], "byte {i} mask {mask:#x}");
            }
        }
        for len in 0..bytes.len() {
            let file = SnapFile::parse(name, &bytes[..len]);
            assert_ne!(file.findings, [], "cut at {len}");
            assert_eq!(file.snap, None);
        }
    }

    #[test]
    fn the_v2_store_is_read() {
        let json = br#"{"Root":{"Path":"/","Children":{
            "0":{"Path":"/0","Children":{
                "version":{"Value":"3.5.0","Children":null},
                "removed_members":{"Children":{"2a":{"Value":"removed","Children":null}}},
                "members":{"Children":{"b":{"Children":{
                    "attributes":{"Value":"{\"name\":\"n\",\"clientURLs\":[\"http://c:1\"]}"},
                    "raftAttributes":{"Value":"{\"peerURLs\":[\"http://p:1\"],\"isLearner\":true}"}
                }}}}}},
            "1":{"Path":"/1","Children":{"foo":{"Value":"bar"}}}}},"CurrentIndex":9}"#;
        let metadata = SnapshotMetadata {
            conf_state: ConfState {
                learners: vec![11],
                ..ConfState::default()
            },
            index: 7,
            term: 3,
        };
        let name = SnapName { term: 3, index: 7 };
        let file = SnapFile::parse(name, &wrap(json, metadata.clone()));
        let store = file.snap.unwrap().store.unwrap();
        assert_eq!(
            store,
            V2Store {
                members: vec![Member {
                    id: MemberId(11),
                    name: "n".into(),
                    peer_urls: vec!["http://p:1".into()],
                    client_urls: vec!["http://c:1".into()],
                    is_learner: true,
                }],
                removed: vec![MemberId(42)],
                cluster_version: Some("3.5.0".into()),
                has_user_keys: true,
            }
        );
        assert_eq!(file.findings.len(), 1);
        assert!(file.findings[0].found.contains("v2 API"));

        let deep = [vec![b'['; 100_000], b"1".to_vec()].concat();
        let file = SnapFile::parse(name, &wrap(&deep, metadata.clone()));
        assert!(file.findings[0].expected.contains("JSON"));
        let empty = SnapFile::parse(name, &wrap(b"", metadata));
        assert_eq!(empty.snap.unwrap().store, None);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let name = SnapName { term: 1, index: 1 };
            SnapFile::parse(name, &bytes);
            SnapFile::parse(name, &wrap(&bytes, SnapshotMetadata::default()));
        }
    }
}
