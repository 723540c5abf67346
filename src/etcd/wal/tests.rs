use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::segment::Content;
use super::*;
use crate::etcd::founding::{FoundingCluster, InitialCluster};
use crate::etcd::proto::raft::{Entry, EntryKind, HardState};
use crate::etcd::proto::wal::{Metadata, SnapshotMark};
use crate::finding::{Finding, Severity};

const DEFAULT: &str = "default=http://localhost:2380";
const TWO: &str = "m1=http://127.0.0.1:23801,m2=http://127.0.0.1:23803";
const THREE: &str =
    "node-a=https://10.0.0.1:2380,node-b=https://10.0.0.2:2380,node-c=https://10.0.0.3:2380";

const FIRST: SegmentName = SegmentName {
    sequence: 0,
    index: 0,
};

fn cluster(text: &str, token: &str) -> FoundingCluster {
    InitialCluster::parse(text).unwrap().found(token).unwrap()
}

fn founding(cluster: &FoundingCluster, me: &str) -> Vec<u8> {
    let me = cluster.member(me).unwrap().id;
    write_founding(Vec::new(), cluster, me)
        .unwrap()
        .finish()
        .unwrap()
}

fn wal(bytes: impl Into<Vec<u8>>) -> Wal {
    Wal::of_segments(vec![Segment::from_bytes(FIRST, bytes.into())])
}

/// Offset and running checksum before each record, and at the end.
fn boundaries(wal: &Wal) -> Vec<(u64, u32)> {
    let mut all = Vec::new();
    let mut records = wal.records(0);
    loop {
        let crc = records.crc();
        match records.step().unwrap() {
            Step::Record(record) => all.push((record.at.offset, crc)),
            Step::SegmentEnd { at, .. } => all.push((at.offset, crc)),
            Step::Broken(broken) => panic!("{broken:?}"),
            Step::End => return all,
        }
    }
}

/// The file that `etcdutl snapshot restore` 3.5 and 3.6 write with all arguments left out.
#[test]
fn the_default_member_s_segment_is_that_of_etcdutl() {
    let expected = [
        "04000000000000840804100000000000",
        "2000000000000000080110bb81c7fc051a1608cdd2918bd2b881cf8e0110b298eaf1948386fccd01",
        "0e0000000000008208051094bbc7ed0e1a04080010000000",
        "7400000000000084080210c2ee92950b1a6a08011001180122620800100018cdd2918bd2b881cf8e01",
        "22517b226964223a31303237363635373734333933323937353433372c227065657255524c73223a5b",
        "22687474703a2f2f6c6f63616c686f73743a32333830225d2c226e616d65223a2264656661756c74227d",
        "00000000",
        "19000000000000870803109b98d6c3081a0f080110cdd2918bd2b881cf8e01180100000000000000",
        "1d000000000000830805108d9eaeef0d1a13080110011a0d08cdd2918bd2b881cf8e012800000000",
    ]
    .concat();
    let cluster = cluster(DEFAULT, "etcd-cluster");
    let bytes = founding(&cluster, "default");
    assert_eq!(hex::encode(&bytes), expected);
    let crcs: Vec<u32> = boundaries(&wal(bytes))
        .iter()
        .map(|b| b.1)
        .skip(1)
        .collect();
    assert_eq!(
        crcs,
        [
            0,
            0x5f91_c0bb,
            0xedb1_dd94,
            0xb2a4_b742,
            0x8875_8c1b,
            0xddeb_8f0d
        ]
    );

    let padded = write_founding(Vec::new(), &cluster, cluster.members[0].id)
        .unwrap()
        .finish_padded(SEGMENT_SIZE)
        .unwrap();
    assert_eq!(
        hex::encode(Sha256::digest(&padded)),
        "0b4a5ce53d6a11fb4489ae93ea6c2c717bd5ba3889821561512ef36598e10221"
    );
}

#[test]
fn segments_of_two_and_three_members_are_those_of_etcdutl() {
    let two = founding(&cluster(TWO, "tok-1"), "m1");
    assert_eq!(
        boundaries(&wal(two.clone())),
        [
            (0, 0),
            (16, 0),
            (56, 0x502c_359f),
            (80, 0x822f_51c1),
            (200, 0xe4aa_ddbe),
            (320, 0x9b29_2f77),
            (360, 0xd36b_ae3d),
            (408, 0x8eeb_00ea),
        ]
    );
    assert_eq!(
        hex::encode(&two[360..]),
        "2800000000000000080510ea81acf7081a1e080210011a1808b880dfe7ededa5c9af0108\
         98f49ca9edced4c3f7012800"
    );
    assert!(hex::encode(&two[320..360]).contains("080110b880dfe7ededa5c9af011802"));

    let three = founding(&cluster(THREE, "openshift-etcd-0b9d"), "node-b");
    let crcs: Vec<u32> = boundaries(&wal(three))
        .iter()
        .map(|b| b.1)
        .skip(2)
        .collect();
    assert_eq!(
        crcs,
        [
            0x12d2_9021,
            0x9d32_2750,
            0x1e85_c360,
            0xf8f9_a5d9,
            0x90f4_3fe3,
            0xf5fe_c8fe,
            0x0b21_703e
        ]
    );
}

#[test]
fn a_founding_segment_is_summed_up() {
    let cluster = cluster(TWO, "tok-1");
    let summary = wal(founding(&cluster, "m1")).summary(None).unwrap();
    assert_eq!(summary.findings, []);
    let metadata = summary.scan.metadata.unwrap();
    assert_eq!(metadata.node, cluster.member("m1").unwrap().id.0);
    assert_eq!(metadata.cluster, cluster.id.0);
    assert_eq!(summary.hard_state().commit, 2);
    assert_eq!(summary.log.start, SnapshotId { index: 2, term: 1 });
    assert_eq!(summary.last_entry(), LastEntry { term: 1, index: 2 });
    assert_eq!(
        summary.log.conf_state.as_ref().map(|c| &c.voters),
        Some(&cluster.ids())
    );
    // From the beginning, as etcd starts it when the .snap file is missing.
    let whole = wal(founding(&cluster, "m1"))
        .summary(Some(SnapshotId::default()))
        .unwrap();
    assert_eq!(whole.findings, []);
    assert_eq!(whole.log.changes.len(), 2);
    assert_eq!(
        whole.tail_after(0),
        Tail {
            committed: 2,
            uncommitted: 0
        }
    );
}

const METADATA: Metadata = Metadata {
    node: 11,
    cluster: 22,
};

fn normal(term: u64, index: u64, data: &[u8]) -> Entry<'_> {
    Entry {
        kind: EntryKind::Normal,
        term,
        index,
        data,
    }
}

fn begin() -> SegmentWriter<Vec<u8>> {
    let mut writer = SegmentWriter::begin(Vec::new(), 0, METADATA, None).unwrap();
    writer.snapshot(&SnapshotMark::default()).unwrap();
    writer
}

fn state(term: u64, commit: u64) -> HardState {
    HardState {
        term,
        vote: 11,
        commit,
    }
}

#[test]
fn overwritten_entries_are_gone() {
    let mut writer = begin();
    for index in 1..=5 {
        writer.entry(&normal(1, index, b"old")).unwrap();
    }
    writer.hard_state(state(1, 2)).unwrap();
    for index in 3..=4 {
        writer.entry(&normal(2, index, b"new")).unwrap();
    }
    writer.entry(&normal(3, 4, b"newest")).unwrap();
    writer.hard_state(state(3, 3)).unwrap();
    let wal = wal(writer.finish().unwrap());
    let summary = wal.summary(None).unwrap();
    assert_eq!(summary.findings, []);
    assert_eq!(summary.last_entry(), LastEntry { term: 3, index: 4 });
    assert_eq!(summary.log.overwritten, 4);
    assert_eq!(
        (1..=5).map(|i| summary.log.term_of(i)).collect::<Vec<_>>(),
        [Some(1), Some(1), Some(2), Some(3), None]
    );
    assert_eq!(
        summary.tail_after(1),
        Tail {
            committed: 2,
            uncommitted: 1
        }
    );
    for after in 0..5 {
        let mut seen = Vec::new();
        wal.entries(&summary.log, after, |e| {
            seen.push((e.entry.index, e.entry.data.to_vec()));
            Ok(())
        })
        .unwrap();
        let all: [(u64, &[u8]); 4] = [(1, b"old"), (2, b"old"), (3, b"new"), (4, b"newest")];
        let expected: Vec<_> = all
            .iter()
            .filter(|e| e.0 > after)
            .map(|e| (e.0, e.1.to_vec()))
            .collect();
        assert_eq!(seen, expected);
    }
}

fn only(findings: &[Finding]) -> &Finding {
    assert_eq!(findings.len(), 1, "{findings:?}");
    &findings[0]
}

#[test]
fn a_committed_entry_cannot_be_overwritten() {
    let mut writer = begin();
    writer.entry(&normal(1, 1, b"")).unwrap();
    writer.hard_state(state(1, 1)).unwrap();
    writer.entry(&normal(2, 1, b"")).unwrap();
    let summary = wal(writer.finish().unwrap()).summary(None).unwrap();
    let finding = only(&summary.findings);
    assert_eq!(finding.severity, Severity::Error);
    assert!(finding.found.contains("once more"), "{finding}");
}

#[test]
fn a_gap_and_a_lost_tail_are_errors() {
    let mut writer = begin();
    writer.entry(&normal(1, 1, b"")).unwrap();
    writer.entry(&normal(1, 3, b"")).unwrap();
    let summary = wal(writer.finish().unwrap()).summary(None).unwrap();
    let finding = only(&summary.findings);
    assert_eq!(finding.expected, "an entry of at most index 2");

    let mut writer = begin();
    writer.entry(&normal(1, 1, b"")).unwrap();
    writer.hard_state(state(1, 2)).unwrap();
    let summary = wal(writer.finish().unwrap()).summary(None).unwrap();
    assert!(only(&summary.findings).found.contains("up to 1 only"));
}

/// Three segments, with the same record content as etcd's own cut would leave.
fn three_segments() -> (Vec<Segment>, u32) {
    let mut segments = Vec::new();
    let (mut crc, mut index) = (0, 0);
    for sequence in 0..3u64 {
        let name = SegmentName {
            sequence,
            index: if sequence == 0 { 0 } else { index + 1 },
        };
        let before = (sequence > 0).then(|| state(1, index));
        let mut writer = SegmentWriter::begin(Vec::new(), crc, METADATA, before).unwrap();
        if sequence == 0 {
            writer.snapshot(&SnapshotMark::default()).unwrap();
        }
        for _ in 0..4 {
            index += 1;
            writer.entry(&normal(1, index, &[7; 100])).unwrap();
        }
        writer.hard_state(state(1, index)).unwrap();
        crc = writer.crc();
        segments.push(Segment::from_bytes(name, writer.finish().unwrap()));
    }
    (segments, crc)
}

fn cut(segment: &Segment, len: usize) -> Segment {
    let Content::Bytes(bytes) = &segment.content else {
        panic!("not in memory");
    };
    Segment::from_bytes(segment.name, bytes[..len].to_vec())
}

#[test]
fn the_chain_goes_across_segments() {
    let (segments, crc) = three_segments();
    let whole = Wal::of_segments(segments.clone()).summary(None).unwrap();
    assert_eq!(whole.findings, []);
    assert_eq!(whole.last_entry(), LastEntry { term: 1, index: 12 });
    assert_eq!(whole.scan.end.unwrap().crc, crc);
    assert_eq!(whole.scan.segments[1].indexes, Some((5, 8)));

    // The last segment alone is readable; that it has no snapshot to start from is said.
    let last = Wal::of_segments(segments[2..].to_vec())
        .summary(None)
        .unwrap();
    assert!(!last.is_corrupt());
    assert!(only(&last.findings).expected.contains("begins at index 0"));

    // Without the middle one neither the sequence nor the checksum continues.
    let gap = Wal::of_segments(vec![segments[0].clone(), segments[2].clone()]);
    let gap = gap.summary(None).unwrap();
    assert!(gap.is_corrupt());
    assert!(gap.findings.iter().any(|f| f.found == "sequence 2"));
    assert!(gap.findings.iter().any(|f| f.expected.contains("CRC")));

    // Cut within a frame, the last one is repaired and another one is not.
    for (i, torn) in [(1, false), (2, true)] {
        let mut cut_segments = segments.clone();
        let len = segments[i].len as usize;
        cut_segments[i] = cut(&segments[i], len - 20);
        let summary = Wal::of_segments(cut_segments).summary(None).unwrap();
        assert_eq!(summary.is_corrupt(), !torn, "segment {i}");
        let severity = summary.findings[0].severity;
        assert_eq!(severity == Severity::Warning, torn);
    }

    // A whole record less in the middle: the next segment's checksum tells.
    let mut cut_segments = segments.clone();
    let boundaries = boundaries(&Wal::of_segments(vec![segments[1].clone()]));
    let (last_record, _) = boundaries[boundaries.len() - 2];
    cut_segments[1] = cut(&segments[1], last_record as usize);
    let summary = Wal::of_segments(cut_segments).summary(None).unwrap();
    assert!(matches!(
        summary.scan.end.unwrap().kind,
        EndKind::Corrupt(Fault::Chain { .. })
    ));
}

#[test]
fn what_etcd_silently_ignores_is_found() {
    let bytes = founding(&cluster(THREE, "T"), "node-a");
    let offsets = boundaries(&wal(bytes.clone()));
    let mut zeroed = bytes.clone();
    let at = offsets[4].0 as usize;
    zeroed[at..at + 8].fill(0);
    let summary = wal(zeroed).summary(None).unwrap();
    let hidden = &summary.findings[0];
    assert_eq!(hidden.severity, Severity::Error);
    assert!(hidden.found.contains("which etcd ignores"), "{hidden}");

    let mut remains = bytes.clone();
    remains.extend([0; 600]);
    remains.extend([5; 3]);
    let summary = wal(remains).summary(None).unwrap();
    let finding = only(&summary.findings);
    assert_eq!(finding.severity, Severity::Warning);
    let place = format!("offset {}", bytes.len() + 600);
    assert!(finding.found.contains(&place), "{finding}");

    let mut padded = bytes;
    padded.extend([0; 4096]);
    assert_eq!(wal(padded).summary(None).unwrap().findings, []);
}

#[test]
fn a_zero_sector_in_the_last_record_is_a_torn_write() {
    let mut writer = begin();
    writer.entry(&normal(1, 1, &[9; 2000])).unwrap();
    let start = 80 + 8;
    let mut bytes = writer.finish().unwrap();
    bytes[1024..1536].fill(0);
    let torn = wal(bytes.clone()).scan().unwrap();
    assert!(matches!(
        torn.end.unwrap().kind,
        EndKind::Torn(Fault::Crc { .. })
    ));
    assert!(torn.end.unwrap().at.offset < start);
    // One byte of the sector left: no crash explains it.
    bytes[1535] = 9;
    let corrupt = wal(bytes).scan().unwrap();
    assert!(matches!(
        corrupt.end.unwrap().kind,
        EndKind::Corrupt(Fault::Crc { .. })
    ));
}

/// Cut anywhere: good up to the record before, and torn unless between two records.
#[test]
fn every_cut_is_classified() {
    let bytes = founding(&cluster(TWO, "tok-1"), "m2");
    let offsets: Vec<u64> = boundaries(&wal(bytes.clone()))
        .iter()
        .map(|b| b.0)
        .collect();
    for len in 1..bytes.len() {
        let scan = wal(&bytes[..len]).scan().unwrap();
        let end = scan.end.unwrap();
        let before = offsets.iter().rfind(|o| **o <= len as u64).unwrap();
        assert_eq!(end.at.offset, *before, "cut at {len}");
        if *before == len as u64 {
            assert_eq!(end.kind, EndKind::Clean, "cut at {len}");
        } else {
            assert!(
                matches!(end.kind, EndKind::Torn(_)),
                "cut at {len}: {end:?}"
            );
        }
    }
}

/// Every bit of a small WAL, even if etcd would not notice.
#[test]
fn every_flip_is_found() {
    let bytes = founding(&cluster(TWO, "tok-1"), "m1");
    for i in 0..bytes.len() {
        for mask in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut flipped = bytes.clone();
            flipped[i] ^= mask;
            let summary = wal(flipped).summary(None).unwrap();
            assert_ne!(summary.findings, [], "byte {i} mask {mask:#x}");
        }
    }
}

#[test]
fn appending_continues_the_chain() {
    let bytes = founding(&cluster(DEFAULT, "T"), "default");
    let torn = wal(&bytes[..bytes.len() - 5]).scan().unwrap().end.unwrap();
    assert!(matches!(torn.kind, EndKind::Torn(_)));
    let kept = bytes[..torn.at.offset as usize].to_vec();
    let mut writer = SegmentWriter::resume(kept, torn.crc, torn.at.offset);
    writer.entry(&normal(1, 2, b"more")).unwrap();
    let bytes = writer.finish().unwrap();
    let summary = wal(bytes).summary(None).unwrap();
    assert_eq!(summary.findings, []);
    assert_eq!(summary.last_entry(), LastEntry { term: 1, index: 2 });
}

#[test]
fn names_are_read_strictly() {
    let name = SegmentName {
        sequence: 1,
        index: 0x45,
    };
    assert_eq!(name.to_string(), "0000000000000001-0000000000000045.wal");
    assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
    for other in [
        "0.tmp",
        "1-45.wal",
        "0000000000000001-0000000000000045.wal.broken",
        "+000000000000001-0000000000000045.wal",
    ] {
        assert_eq!(SegmentName::parse(other), None);
    }
}

#[derive(Debug, Clone)]
enum Written {
    Entry {
        term: u64,
        index: u64,
        data: Vec<u8>,
    },
    State(u64, u64),
    Mark(u64, u64),
}

fn written() -> impl Strategy<Value = Written> {
    prop_oneof![
        (
            any::<u64>(),
            any::<u64>(),
            proptest::collection::vec(any::<u8>(), 0..1500)
        )
            .prop_map(|(term, index, data)| Written::Entry { term, index, data }),
        (any::<u64>(), any::<u64>()).prop_map(|(a, b)| Written::State(a, b)),
        (any::<u64>(), any::<u64>()).prop_map(|(a, b)| Written::Mark(a, b)),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(all in proptest::collection::vec(written(), 0..30), pad in 0u64..5000) {
        let mut writer = SegmentWriter::begin(Vec::new(), 0, METADATA, None).unwrap();
        let mut expected = Vec::new();
        for one in &all {
            match one {
                Written::Entry { term, index, data } => {
                    let entry = normal(*term, *index, data);
                    writer.entry(&entry).unwrap();
                    expected.push(entry.encode());
                }
                Written::State(term, commit) => {
                    writer.hard_state(state(*term, *commit)).unwrap();
                    expected.push(state(*term, *commit).encode());
                }
                Written::Mark(index, term) => {
                    let mark = SnapshotMark { index: *index, term: *term, conf_state: None };
                    writer.snapshot(&mark).unwrap();
                    expected.push(mark.encode());
                }
            }
        }
        let size = writer.offset() + pad;
        let wal = wal(writer.finish_padded(size).unwrap());
        let mut records = wal.records(0);
        let mut read = Vec::new();
        while let Step::Record(record) = records.step().unwrap() {
            prop_assert_eq!(record.flaw, None);
            read.push(record.data.to_vec());
        }
        prop_assert_eq!(&read[2..], &expected[..]);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        wal(bytes).summary(None).unwrap();
    }

    #[test]
    fn mutations_never_panic(
        at in proptest::collection::vec((0usize..552, any::<u8>()), 1..20),
    ) {
        let mut bytes = founding(&cluster(THREE, "T"), "node-a");
        for (i, byte) in at {
            if let Some(place) = bytes.get_mut(i) {
                *place = byte;
            }
        }
        let wal = wal(bytes);
        let summary = wal.summary(None).unwrap();
        wal.entries(&summary.log, 0, |_| Ok(())).unwrap();
    }
}
