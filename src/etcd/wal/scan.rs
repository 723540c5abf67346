//! One pass over all segments: is the log sound, and which snapshots may it be started from?

use super::records::{Break, Fault, Flaw, Record, Step};
use super::tail::{self, AfterEnd};
use super::{Position, RECORD_MAX_3_4, SegmentName, Wal};
use crate::error::Result;
use crate::etcd::proto::raft::{Entry, HardState};
use crate::etcd::proto::wal::{Metadata, RecordKind, SnapshotMark};
use crate::finding::{Finding, Layer, Place};

/// Snapshot records kept, the newest; etcd keeps five `.snap` files unless configured otherwise.
const SNAPSHOTS_KEPT: usize = 4096;
/// Findings kept: after so many of them another one tells nothing.
const FINDINGS_KEPT: usize = 100;

/// A snapshot by what identifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SnapshotId {
    /// The last entry that it holds; 0 for the beginning of the log.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
}

/// What one segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its name.
    pub name: SegmentName,
    /// Its size in bytes.
    pub len: u64,
    /// Bytes of it that hold good records.
    pub good: u64,
    /// How many those are.
    pub records: u64,
    /// Its entries' lowest and highest index.
    pub indexes: Option<(u64, u64)>,
    /// The running checksum at its end.
    pub crc: u32,
}

/// How the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// At the end of the last file, or in its preallocated space.
    Clean,
    /// In a torn write: etcd truncates there and continues.
    Torn(Fault),
    /// In damage that etcd does not repair.
    Corrupt(Fault),
}

/// Where and how the log ends; records can be appended there, from this checksum on, once what
/// follows is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The first byte after the last good record.
    pub at: Position,
    /// The running checksum there.
    pub crc: u32,
    /// How it ends.
    pub kind: EndKind,
}

/// What one pass over a WAL tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The segments, as far as they were read.
    pub segments: Vec<SegmentInfo>,
    /// Whose log it is; the first such record.
    pub metadata: Option<Metadata>,
    /// The last hard state.
    pub hard_state: Option<HardState>,
    /// The snapshot records, in their order; of many the newest.
    pub snapshots: Vec<SnapshotId>,
    /// Where and how the log ends; `None` without any segment.
    pub end: Option<End>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Scan {
    /// The snapshots that etcd may start from: those the log knows to be committed. Newest last.
    pub fn usable_snapshots(&self) -> Vec<SnapshotId> {
        let commit = self.hard_state.unwrap_or_default().commit;
        let mut usable: Vec<SnapshotId> = self
            .snapshots
            .iter()
            .copied()
            .filter(|snapshot| snapshot.index <= commit)
            .collect();
        usable.sort();
        usable.dedup();
        usable
    }
}

impl Wal {
    /// Reads everything once.
    pub fn scan(&self) -> Result<Scan> {
        Scanner::new(self).run()
    }
}

/// The pass under way.
struct Scanner<'a> {
    wal: &'a Wal,
    scan: Scan,
    metadata_bytes: Option<Vec<u8>>,
    /// The highest index that the next segment's name must follow: that of the last entry, and of
    /// the last snapshot if it is beyond.
    last_entry: u64,
    last_index: u64,
    current: SegmentInfo,
}

impl<'a> Scanner<'a> {
    fn new(wal: &'a Wal) -> Self {
        Self {
            wal,
            scan: Scan {
                segments: Vec::new(),
                metadata: None,
                hard_state: None,
                snapshots: Vec::new(),
                end: None,
                findings: Vec::new(),
            },
            metadata_bytes: None,
            last_entry: 0,
            last_index: 0,
            current: SegmentInfo {
                name: SegmentName {
                    sequence: 0,
                    index: 0,
                },
                len: 0,
                good: 0,
                records: 0,
                indexes: None,
                crc: 0,
            },
        }
    }

    fn finding(&mut self, finding: Finding, at: Position) {
        if self.scan.findings.len() < FINDINGS_KEPT {
            let placed = finding
                .in_file(self.wal.name(at.segment))
                .at(Place::Offset(at.offset));
            self.scan.findings.push(placed);
        }
    }

    fn error(&mut self, at: Position, expected: impl Into<String>, found: impl Into<String>) {
        self.finding(Finding::error(Layer::Wal, expected, found), at);
    }

    fn warning(&mut self, at: Position, expected: impl Into<String>, found: impl Into<String>) {
        self.finding(Finding::warning(Layer::Wal, expected, found), at);
    }

    fn run(mut self) -> Result<Scan> {
        self.check_names();
        if self.wal.segments().is_empty() {
            return Ok(self.scan);
        }
        self.begin_segment(0);
        let mut records = self.wal.records(0);
        let mut end = Position {
            segment: 0,
            offset: 0,
        };
        loop {
            match records.step()? {
                Step::Record(record) => {
                    end = Position {
                        offset: record.at.offset.saturating_add(record.frame),
                        ..record.at
                    };
                    self.record(&record);
                    self.current.good = end.offset;
                    self.current.records = self.current.records.saturating_add(1);
                }
                Step::SegmentEnd { at, zero_size } => {
                    end = at;
                    self.end_segment(at, zero_size, records.crc())?;
                }
                Step::Broken(broken) => {
                    self.broken(broken, records.crc());
                    break;
                }
                Step::End => {
                    self.scan.end = Some(End {
                        at: end,
                        crc: records.crc(),
                        kind: EndKind::Clean,
                    });
                    break;
                }
            }
        }
        self.check_whole();
        Ok(self.scan)
    }

    fn check_names(&mut self) {
        let segments = self.wal.segments();
        if segments.is_empty() {
            let missing = Finding::error(Layer::Wal, "at least one WAL segment", "none");
            self.scan.findings.push(missing);
        }
        let start = |segment| Position { segment, offset: 0 };
        for (i, pair) in segments.windows(2).enumerate() {
            let [before, after] = pair else { continue };
            if before.name.sequence.checked_add(1) != Some(after.name.sequence) {
                self.error(
                    start(i.saturating_add(1)),
                    format!("the segment after sequence {}", before.name.sequence),
                    format!("sequence {}", after.name.sequence),
                );
            }
        }
        for other in self.wal.others() {
            if other.ends_with(".wal") {
                let odd = Finding::warning(
                    Layer::Wal,
                    "a name of the form <sequence>-<first index>.wal",
                    "a file that etcd ignores",
                );
                self.scan.findings.push(odd.in_file(other));
            }
        }
    }

    fn begin_segment(&mut self, segment: usize) {
        let Some(listed) = self.wal.segments().get(segment) else {
            return;
        };
        self.current = SegmentInfo {
            name: listed.name,
            len: listed.len,
            good: 0,
            records: 0,
            indexes: None,
            crc: 0,
        };
        // After a start from a snapshot that etcd received, its count is the last entry's.
        let expected = [self.last_entry, self.last_index].map(|last| last.saturating_add(1));
        if segment > 0 && !expected.contains(&listed.name.index) {
            let at = Position { segment, offset: 0 };
            self.warning(
                at,
                format!("a segment named after index {}", self.last_index),
                format!("first index {}", listed.name.index),
            );
        }
    }

    fn end_segment(&mut self, at: Position, zero_size: bool, crc: u32) -> Result<()> {
        self.current.crc = crc;
        self.scan.segments.push(self.current.clone());
        if self.current.records == 0 {
            self.error(at, "records", "an empty segment");
        }
        if zero_size {
            match tail::after_end(self.wal, at)? {
                AfterEnd::Zeros => {}
                AfterEnd::Remains { first } => self.warning(
                    at,
                    "only zeros after a size of zero",
                    format!("other bytes from offset {first} on, which etcd overwrites with zeros"),
                ),
                AfterEnd::Records { first } => self.error(
                    at,
                    "no record after a size of zero",
                    format!("records from offset {first} on, which etcd ignores and overwrites"),
                ),
            }
        }
        self.begin_segment(at.segment.saturating_add(1));
        Ok(())
    }

    fn broken(&mut self, broken: Break, crc: u32) {
        let Break { at, fault, torn } = broken;
        self.current.crc = crc;
        self.scan.segments.push(self.current.clone());
        let last = at.segment.saturating_add(1) == self.wal.segments().len();
        let kind = if torn && last {
            self.warning(
                at,
                fault.expected(),
                format!("{fault}: a torn write, which etcd truncates"),
            );
            EndKind::Torn(fault)
        } else {
            self.error(at, fault.expected(), fault.to_string());
            EndKind::Corrupt(fault)
        };
        self.scan.end = Some(End { at, crc, kind });
    }

    fn record(&mut self, record: &Record<'_>) {
        let at = record.at;
        match record.flaw {
            Some(Flaw::Size { found, expected }) => self.warning(
                at,
                format!("the size field {expected:#018x}"),
                format!("{found:#018x}"),
            ),
            Some(Flaw::Padding) => self.warning(at, "padding of zeros", "other bytes"),
            Some(Flaw::Envelope) => self.warning(
                at,
                "type, checksum and data alone",
                "a record of another form",
            ),
            None => {}
        }
        if record.frame >= RECORD_MAX_3_4 {
            self.warning(
                at,
                format!("a record below {RECORD_MAX_3_4} bytes, the most that etcd 3.4 reads"),
                format!("{} bytes", record.frame),
            );
        }
        let place_in_segment = self.current.records;
        match (place_in_segment, record.kind) {
            (0, RecordKind::Crc) | (1, RecordKind::Metadata) => {}
            (0, other) => self.warning(at, "a crc record first", format!("{other:?}")),
            (1, other) => self.warning(at, "the metadata second", format!("{other:?}")),
            _ => {}
        }
        match record.kind {
            RecordKind::Crc => {}
            RecordKind::Metadata => self.metadata(at, record.data),
            RecordKind::Entry => self.entry(at, record.data),
            RecordKind::State => self.state(at, record.data),
            RecordKind::Snapshot => self.snapshot(at, record.data),
            RecordKind::Other(kind) => self.error(at, "a known record", format!("type {kind}")),
        }
    }

    fn begins_the_log(&self) -> bool {
        let first = self.wal.segments().first();
        first.is_some_and(|first| first.name.sequence == 0)
    }

    fn metadata(&mut self, at: Position, data: &[u8]) {
        match &self.metadata_bytes {
            Some(first) if first != data => {
                self.error(at, "the first segment's metadata", "another member's");
            }
            Some(_) => {}
            None => {
                match Metadata::decode(data) {
                    Ok(metadata) => self.scan.metadata = Some(metadata),
                    Err(cause) => self.error(at, "metadata", cause.to_string()),
                }
                self.metadata_bytes = Some(data.to_vec());
            }
        }
    }

    fn entry(&mut self, at: Position, data: &[u8]) {
        match Entry::decode(data) {
            Ok(entry) => {
                // The oldest segment that is left may begin anywhere.
                let next = self.last_index.saturating_add(1);
                let known = self.last_index > 0 || self.begins_the_log();
                if known && entry.index > next {
                    self.error(
                        at,
                        format!("an entry of at most index {next}"),
                        format!("index {}", entry.index),
                    );
                }
                self.last_entry = entry.index;
                self.last_index = entry.index;
                let (low, high) = self.current.indexes.unwrap_or((entry.index, entry.index));
                self.current.indexes = Some((low.min(entry.index), high.max(entry.index)));
            }
            Err(cause) => self.error(at, "a raft entry", cause.to_string()),
        }
    }

    fn state(&mut self, at: Position, data: &[u8]) {
        match HardState::decode(data) {
            Ok(state) => {
                // A record's type is outside of its checksum: an entry read as a state has more.
                let full = state.encode().len();
                if data.len() > full {
                    self.error(
                        at,
                        format!("a hard state of at most {full} bytes"),
                        format!("{} bytes", data.len()),
                    );
                }
                let before = self.scan.hard_state.unwrap_or_default();
                if state.term < before.term || state.commit < before.commit {
                    self.error(
                        at,
                        format!(
                            "a hard state of at least term {} and commit {}",
                            before.term, before.commit
                        ),
                        format!("term {}, commit {}", state.term, state.commit),
                    );
                }
                self.scan.hard_state = Some(state);
            }
            Err(cause) => self.error(at, "a raft hard state", cause.to_string()),
        }
    }

    fn snapshot(&mut self, at: Position, data: &[u8]) {
        match SnapshotMark::decode(data) {
            Ok(mark) => {
                self.last_index = self.last_index.max(mark.index);
                if self.scan.snapshots.len() >= SNAPSHOTS_KEPT {
                    self.scan.snapshots.drain(..SNAPSHOTS_KEPT / 2);
                }
                self.scan.snapshots.push(SnapshotId {
                    index: mark.index,
                    term: mark.term,
                });
            }
            Err(cause) => self.error(at, "a snapshot record", cause.to_string()),
        }
    }

    fn check_whole(&mut self) {
        let start = Position {
            segment: 0,
            offset: 0,
        };
        let corrupt = matches!(
            self.scan.end,
            Some(End {
                kind: EndKind::Corrupt(_),
                ..
            })
        );
        if self.scan.metadata.is_none() && !corrupt {
            self.error(start, "the member's metadata", "none in any segment");
        }
    }
}
