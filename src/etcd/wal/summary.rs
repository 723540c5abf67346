//! What a member's WAL says about the member: the scan and the log after the snapshot that it
//! would start from.

use super::scan::EndKind;
use super::{Log, Scan, SnapshotId, Wal};
use crate::error::Result;
use crate::etcd::proto::raft::HardState;
use crate::finding::{Finding, Layer};

/// The end of the log, by which survivors of a cluster are compared: first term, then index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LastEntry {
    /// The last entry's term.
    pub term: u64,
    /// The last entry's index.
    pub index: u64,
}

/// Entries beyond an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tail {
    /// Those that the member had written down to be committed.
    pub committed: u64,
    /// Those of which it had not; clients may have received an acknowledgement, since an increase of the
    /// commit index alone is not always written down.
    pub uncommitted: u64,
}

/// What a WAL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The pass over all segments.
    pub scan: Scan,
    /// The log after the snapshot.
    pub log: Log,
    /// Everything that is wrong, the scan's and the log's findings included.
    pub findings: Vec<Finding>,
}

impl Summary {
    /// The last hard state; zeros if the WAL has none yet.
    pub fn hard_state(&self) -> HardState {
        self.scan.hard_state.unwrap_or_default()
    }

    /// The last entry, or the snapshot's if none follows it.
    pub fn last_entry(&self) -> LastEntry {
        LastEntry {
            term: self.log.term_of(self.log.last).unwrap_or_default(),
            index: self.log.last,
        }
    }

    /// The index of the log's first entry, if it has any.
    pub fn first_index(&self) -> Option<u64> {
        self.log.runs.first().map(|run| run.first)
    }

    /// How many entries are beyond an index, which may be the database's consistent index.
    pub fn tail_after(&self, index: u64) -> Tail {
        let from = index.max(self.log.start.index);
        let commit = self.hard_state().commit.min(self.log.last);
        Tail {
            committed: commit.saturating_sub(from),
            uncommitted: self.log.last.saturating_sub(commit.max(from)),
        }
    }

    /// Whether the log is damaged in a way that etcd does not repair.
    pub fn is_corrupt(&self) -> bool {
        let end = self.scan.end.map(|end| end.kind);
        matches!(end, Some(EndKind::Corrupt(_)))
    }
}

impl Wal {
    /// Reads the WAL: once as a whole, and the part after a snapshot again.
    ///
    /// Without a snapshot given the newest that the log knows to be committed is taken, and the
    /// log's beginning if there is no such snapshot.
    pub fn summary(&self, start: Option<SnapshotId>) -> Result<Summary> {
        let scan = self.scan()?;
        self.summary_of(scan, start)
    }

    /// As [`Wal::summary`], from a scan that was made already.
    pub fn summary_of(&self, scan: Scan, start: Option<SnapshotId>) -> Result<Summary> {
        let newest = scan.usable_snapshots().last().copied();
        let start = start.or(newest).unwrap_or_default();
        let log = if self.segments().is_empty() {
            Log::empty(start)
        } else {
            self.replay(&scan, start)?
        };
        let mut findings = scan.findings.clone();
        for finding in &log.findings {
            // A gap is seen by both passes.
            let seen = |f: &Finding| f.file == finding.file && f.place == finding.place;
            if finding.place.is_none() || !findings.iter().any(seen) {
                findings.push(finding.clone());
            }
        }
        let mut summary = Summary {
            scan,
            log,
            findings,
        };
        summary.check_state();
        Ok(summary)
    }
}

impl Summary {
    /// Compares the hard state with the log, where the log could be read to its end.
    fn check_state(&mut self) {
        if self.is_corrupt() || !self.log.findings.is_empty() {
            return;
        }
        let (state, last) = (self.hard_state(), self.last_entry());
        if state.commit > last.index {
            self.findings.push(Finding::error(
                Layer::Wal,
                format!("entries up to the committed index {}", state.commit),
                format!(
                    "entries up to {} only, with which etcd does not start",
                    last.index
                ),
            ));
        }
        if last.term > state.term {
            // A crash may have come between an entry and the state that follows it.
            self.findings.push(Finding::warning(
                Layer::Wal,
                format!("no entry after the hard state's term {}", state.term),
                format!("term {} at index {}", last.term, last.index),
            ));
        }
    }
}
