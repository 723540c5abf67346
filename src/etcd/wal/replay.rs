//! The log that follows a snapshot, as raft would get it: entries that a later leader overwrote
//! are gone from it.

use std::collections::VecDeque;

use super::records::Step;
use super::{Position, Scan, SnapshotId, Wal};
use crate::error::Result;
use crate::etcd::proto::raft::{ConfChange, ConfChangeV2, ConfState, Entry, EntryKind, HardState};
use crate::etcd::proto::wal::{RecordKind, SnapshotMark};
use crate::finding::{Finding, Layer, Place};

/// Membership changes kept, the newest.
const CHANGES_KEPT: usize = 1024;
/// Stretches of the log kept; each takes an election or an overwriting.
const RUNS_MAX: usize = 1 << 16;

/// A stretch of the log that was appended in one go and has one term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Its first entry's index.
    pub first: u64,
    /// Its last entry's index.
    pub last: u64,
    /// Its term.
    pub term: u64,
    /// Where its first entry's record stands.
    pub at: Position,
}

/// A change of the membership in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipChange {
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
    /// Where its record stands.
    pub at: Position,
    /// What changes; `None` if the several-at-once form was used, which etcd does not write.
    pub change: Option<ConfChange>,
}

/// The entries after a snapshot, contiguous from `start.index + 1` to `last`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The snapshot that it follows.
    pub start: SnapshotId,
    /// Whether the WAL has that snapshot's record.
    pub start_found: bool,
    /// The membership in that record (since 3.5).
    pub conf_state: Option<ConfState>,
    /// The last entry's index; the snapshot's without any entry.
    pub last: u64,
    /// The log's stretches, in order.
    pub runs: Vec<Run>,
    /// Changes of the membership, in order; of many the newest.
    pub changes: VecDeque<MembershipChange>,
    /// How many entries were overwritten by a later leader's.
    pub overwritten: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Log {
    /// A log without entries.
    pub(super) fn empty(start: SnapshotId) -> Self {
        Self {
            start,
            start_found: false,
            conf_state: None,
            last: start.index,
            runs: Vec::new(),
            changes: VecDeque::new(),
            overwritten: 0,
            findings: Vec::new(),
        }
    }

    /// The term of an entry, or of the snapshot.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        let i = self.runs.partition_point(|run| run.last < index);
        self.runs
            .get(i)
            .filter(|run| run.first <= index)
            .map(|run| run.term)
    }

    /// Removes the entries from an index on.
    fn truncate_from(&mut self, index: u64) {
        while let Some(run) = self.runs.last_mut() {
            if run.first >= index {
                self.runs.pop();
                continue;
            }
            run.last = run.last.min(index.saturating_sub(1));
            break;
        }
        while self.changes.back().is_some_and(|c| c.index >= index) {
            self.changes.pop_back();
        }
        let last = index.saturating_sub(1);
        let gone = self.last.saturating_sub(last);
        self.overwritten = self.overwritten.saturating_add(gone);
        self.last = last;
    }
}

/// An entry of the log, with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry<'a> {
    /// Where its record stands.
    pub at: Position,
    /// The entry.
    pub entry: Entry<'a>,
}

impl Wal {
    /// Reads the log that follows a snapshot, up to where the scan found it to end.
    pub fn replay(&self, scan: &Scan, start: SnapshotId) -> Result<Log> {
        self.read_log(scan, start, true)
    }

    /// Reads the log after an index, whether the WAL has the record of a snapshot there or not.
    pub fn log_after(&self, scan: &Scan, index: u64) -> Result<Log> {
        self.read_log(scan, SnapshotId { index, term: 0 }, false)
    }

    fn read_log(&self, scan: &Scan, start: SnapshotId, marked: bool) -> Result<Log> {
        let mut log = Log::empty(start);
        let Some(first) = self.segment_for(start.index) else {
            let missing = Finding::error(
                Layer::Wal,
                format!("a segment that begins at index {} or before", start.index),
                "none",
            );
            log.findings.push(missing);
            return Ok(log);
        };
        let mut records = self.records(first);
        let end = scan.end.map(|end| end.at);
        let mut commit = 0;
        loop {
            match records.step()? {
                // A running member may have appended since the scan: both passes must see the same
                // WAL.
                Step::Record(record) if end.is_some_and(|end| record.at >= end) => break,
                Step::Record(record) => {
                    let going_on = match record.kind {
                        RecordKind::Entry => self.append(&mut log, record.at, record.data, commit),
                        RecordKind::State => {
                            commit = HardState::decode(record.data).map_or(commit, |s| s.commit);
                            true
                        }
                        RecordKind::Snapshot if marked => {
                            self.mark(&mut log, record.at, record.data)
                        }
                        _ => true,
                    };
                    if !going_on {
                        return Ok(log);
                    }
                }
                Step::SegmentEnd { .. } => {}
                Step::Broken(_) | Step::End => break,
            }
        }
        if marked && !log.start_found {
            let missing = Finding::error(
                Layer::Wal,
                format!(
                    "the record of snapshot {} at term {}",
                    start.index, start.term
                ),
                "none from there on",
            );
            log.findings.push(missing.in_file(self.name(first)));
        }
        Ok(log)
    }

    /// The segment in which the entry after an index is: the last one not named after it.
    fn segment_for(&self, index: u64) -> Option<usize> {
        self.segments()
            .iter()
            .rposition(|segment| segment.name.index <= index)
    }

    fn log_error(&self, at: Position, expected: String, found: String) -> Finding {
        Finding::error(Layer::Wal, expected, found)
            .in_file(self.name(at.segment))
            .at(Place::Offset(at.offset))
    }

    /// Says whether reading may continue.
    fn mark(&self, log: &mut Log, at: Position, data: &[u8]) -> bool {
        // What cannot be decoded is the scan's finding.
        let Ok(mark) = SnapshotMark::decode(data) else {
            return true;
        };
        if mark.index != log.start.index {
            return true;
        }
        // `ErrSnapshotMismatch`, with which etcd does not start.
        if mark.term != log.start.term {
            let found = format!("term {}", mark.term);
            let expected = format!("snapshot {} at term {}", mark.index, log.start.term);
            log.findings.push(self.log_error(at, expected, found));
            return false;
        }
        log.start_found = true;
        if mark.conf_state.is_some() {
            log.conf_state = mark.conf_state;
        }
        true
    }

    /// Says whether reading may continue.
    fn append(&self, log: &mut Log, at: Position, data: &[u8], commit: u64) -> bool {
        let Ok(entry) = Entry::decode(data) else {
            return true;
        };
        let (index, term) = (entry.index, entry.term);
        if index <= log.start.index {
            return true;
        }
        let next = log.last.saturating_add(1);
        if index > next {
            let expected = format!("an entry of at most index {next}");
            log.findings
                .push(self.log_error(at, expected, format!("index {index}")));
            return false;
        }
        if index < next {
            // Raft never overwrites what is committed.
            if index <= commit {
                let expected = format!("an entry after the committed index {commit}");
                log.findings
                    .push(self.log_error(at, expected, format!("index {index} once more")));
                return false;
            }
            log.truncate_from(index);
        }
        let before = log.term_of(log.last).unwrap_or_default();
        if term < before {
            let expected = format!("an entry of at least term {before}");
            log.findings.push(self.log_error(
                at,
                expected,
                format!("term {term} at index {index}"),
            ));
            return false;
        }
        let same_run = index == next;
        let full = log.runs.len() >= RUNS_MAX;
        match log.runs.last_mut() {
            Some(run) if same_run && run.term == term => run.last = index,
            _ if full => {
                let expected = format!("at most {RUNS_MAX} changes of term");
                log.findings
                    .push(self.log_error(at, expected, "more".into()));
                return false;
            }
            _ => log.runs.push(Run {
                first: index,
                last: index,
                term,
                at,
            }),
        }
        log.last = index;
        self.note_change(log, at, &entry);
        true
    }

    fn note_change(&self, log: &mut Log, at: Position, entry: &Entry<'_>) {
        let change = match entry.kind {
            EntryKind::Normal => return,
            EntryKind::ConfChange => ConfChange::decode(entry.data).map(Some),
            EntryKind::ConfChangeV2 => ConfChangeV2::decode(entry.data).map(|_| None),
            EntryKind::Other(kind) => {
                let found = format!("type {kind}");
                log.findings
                    .push(self.log_error(at, "a known type of entry".into(), found));
                return;
            }
        };
        match change {
            Ok(change) => {
                if log.changes.len() >= CHANGES_KEPT {
                    log.changes.pop_front();
                }
                log.changes.push_back(MembershipChange {
                    index: entry.index,
                    term: entry.term,
                    at,
                    change,
                });
            }
            Err(cause) => {
                let found = cause.to_string();
                log.findings
                    .push(self.log_error(at, "a membership change".into(), found));
            }
        }
    }

    /// Shows the log's entries after an index, in order, each as it was last written.
    pub fn entries(
        &self,
        log: &Log,
        after: u64,
        mut show: impl FnMut(LogEntry<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut runs = log.runs.iter().filter(|run| run.last > after).peekable();
        let Some(first) = runs.peek() else {
            return Ok(());
        };
        let mut records = self.records(first.at.segment);
        let mut next = first.first;
        while let Some(run) = runs.peek() {
            let record = match records.step()? {
                Step::Record(record) => record,
                Step::SegmentEnd { .. } => continue,
                Step::Broken(_) | Step::End => break,
            };
            if record.kind != RecordKind::Entry || record.at < run.at {
                continue;
            }
            let Ok(entry) = Entry::decode(record.data) else {
                continue;
            };
            // Within a run indexes rise one by one; after its end come entries that were
            // overwritten, until the next run begins.
            if entry.index != next {
                continue;
            }
            if entry.index > after {
                show(LogEntry {
                    at: record.at,
                    entry,
                })?;
            }
            next = next.saturating_add(1);
            if next > run.last {
                runs.next();
            }
        }
        Ok(())
    }
}
