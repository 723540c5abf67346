//! The new cluster's WAL: the former one's entries unchanged, and the membership changes after
//! them.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::plan::Plan;
use super::source::{Looked, Source, damaged};
use super::spec::{Spec, writing};
use crate::error::{Failure, Kind, Result};
use crate::etcd::build::{Watch, stop_if};
use crate::etcd::datadir::Layout;
use crate::etcd::ids::MemberId;
use crate::etcd::proto::raft::{ConfState, Entry, EntryKind, HardState};
use crate::etcd::proto::wal::SnapshotMark;
use crate::etcd::raftsnap::{self, V2Store};
use crate::etcd::snapshot::DatabaseFacts;
use crate::etcd::wal::{
    LastEntry, Log, SEGMENT_SIZE, Scan, SegmentName, SegmentWriter, SnapshotId, Wal,
};
use crate::sys::fs::{self as change, OutFile};

/// A WAL that was written.
pub(super) struct NewLog {
    /// Its last entry.
    pub(super) end: LastEntry,
    /// What all entries come to, those of the source and those added.
    pub(super) digest: u32,
    /// What the first entry comes behind.
    start: SnapshotId,
    /// Whether the source has no `.snap` file for it.
    bare: bool,
    newest: OutFile,
}

/// CRC-32C over the entries, one after the other.
fn add(digest: u32, entry: &Entry<'_>) -> u32 {
    crc32c::crc32c_append(digest, &entry.encode())
}

type Writer = SegmentWriter<BufWriter<OutFile>>;

/// Segments being written.
struct Segments<'a> {
    dir: &'a Path,
    plan: &'a Plan,
    sequence: u64,
    start: SnapshotMark,
    /// The last entry so far.
    end: LastEntry,
    digest: u32,
    /// The segment being written, and where it is.
    open: Option<(Writer, PathBuf)>,
}

impl<'a> Segments<'a> {
    fn begin(dir: &'a Path, plan: &'a Plan, log: &Log) -> Result<Self> {
        let mut segments = Self {
            dir,
            plan,
            sequence: 0,
            start: SnapshotMark {
                index: log.start.index,
                term: log.start.term,
                conf_state: log.conf_state.clone(),
            },
            end: LastEntry {
                term: log.start.term,
                index: log.start.index,
            },
            digest: 0,
            open: None,
        };
        let first = segments.end.index;
        segments.next(first, 0)?;
        let mark = segments.start.clone();
        segments.write(|writer| writer.snapshot(&mark))?;
        Ok(segments)
    }

    /// Opens a segment whose checksum continues that of the one before.
    fn next(&mut self, index: u64, crc: u32) -> Result<()> {
        let sequence = self.sequence;
        let path = self.dir.join(SegmentName { sequence, index }.to_string());
        let out = BufWriter::new(writing(&path, OutFile::create(&path))?);
        // Of what is committed the snapshot alone is sure until the end is reached.
        let state = HardState {
            term: self.end.term,
            vote: 0,
            commit: self.start.index,
        };
        let state = (sequence > 0).then_some(state);
        let begun = SegmentWriter::begin(out, crc, self.plan.metadata, state);
        self.open = Some((writing(&path, begun)?, path));
        self.sequence = sequence.saturating_add(1);
        Ok(())
    }

    fn write(&mut self, record: impl FnOnce(&mut Writer) -> std::io::Result<()>) -> Result<()> {
        let Some((writer, path)) = self.open.as_mut() else {
            return Err(Failure::new(Kind::Unexpected, "no segment is open"));
        };
        writing(path, record(writer))
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<()> {
        if self.offset() >= SEGMENT_SIZE {
            let crc = self.open.as_ref().map_or(0, |(writer, _)| writer.crc());
            self.close()?;
            self.next(entry.index, crc)?;
        }
        self.write(|writer| writer.entry(entry))?;
        self.digest = add(self.digest, entry);
        self.end = LastEntry {
            term: entry.term,
            index: entry.index,
        };
        Ok(())
    }

    /// "The WAL up to here is in a snapshot", of one with a single member.
    fn mark_of_end(&self) -> SnapshotMark {
        SnapshotMark {
            index: self.end.index,
            term: self.end.term,
            conf_state: Some(ConfState {
                voters: vec![self.plan.metadata.node],
                ..ConfState::default()
            }),
        }
    }

    fn offset(&self) -> u64 {
        self.open.as_ref().map_or(0, |(writer, _)| writer.offset())
    }

    /// Ends the segment that is open and makes it durable.
    fn close(&mut self) -> Result<OutFile> {
        let Some((writer, path)) = self.open.take() else {
            return Err(Failure::new(Kind::Unexpected, "no segment is open"));
        };
        let buffered = writing(&path, writer.finish())?;
        let out = buffered
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error);
        let mut out = writing(&path, out)?;
        writing(&path, out.sync())?;
        Ok(out)
    }
}

impl NewLog {
    pub(super) fn write(
        spec: &Spec<'_>,
        source: &Source,
        looked: &Looked,
        plan: &Plan,
        dir: &Path,
        watch: &dyn Watch,
    ) -> Result<Self> {
        change::mkdir_all(dir)?;
        let log = &looked.log;
        let mut segments = Segments::begin(dir, plan, log)?;
        source.wal.entries(log, log.start.index, |logged| {
            stop_if(watch)?;
            if logged.entry.index != segments.end.index.saturating_add(1) {
                return Err(damaged(format!(
                    "expected entry {} of the WAL, found {}",
                    segments.end.index.saturating_add(1),
                    logged.entry.index
                )));
            }
            segments.entry(&logged.entry)
        })?;
        if segments.end.index != log.last {
            return Err(damaged(format!(
                "expected entries up to {}, found {}",
                log.last, segments.end.index
            )));
        }
        for (change, index) in plan.changes.iter().zip(log.last.saturating_add(1)..) {
            segments.entry(&Entry {
                kind: EntryKind::ConfChange,
                term: plan.term,
                index,
                data: &change.encode(),
            })?;
        }
        let state = HardState {
            term: plan.term,
            vote: plan.metadata.node,
            commit: segments.end.index,
        };
        segments.write(|writer| writer.hard_state(state))?;
        if spec.raise.is_some() && segments.end.index > log.start.index {
            // etcd starts from here, with nothing before it to send: see the module above.
            let mark = segments.mark_of_end();
            segments.write(|writer| writer.snapshot(&mark))?;
        }
        Ok(Self {
            start: log.start,
            bare: looked.report.lacks_snap(),
            end: segments.end,
            digest: segments.digest,
            newest: segments.close()?,
        })
    }

    /// What the entries of a WAL that was read come to, from this one's first on.
    pub(super) fn digest_of(&self, layout: &Layout, scan: &Scan) -> Result<u32> {
        let mut digest = 0;
        let wal = Wal::list(&layout.wal)?;
        let log = wal.replay(scan, self.start)?;
        wal.entries(&log, self.start.index, |logged| {
            digest = add(digest, &logged.entry);
            Ok(())
        })?;
        Ok(digest)
    }

    /// Writes the `.snap` file that belongs to the end, of the database that has all of the WAL
    /// applied. A WAL without entries ends in the one that it begins with.
    pub(super) fn write_snap(&self, plan: &Plan, facts: &DatabaseFacts, to: &Path) -> Result<()> {
        if self.end.index == self.start.index && !self.bare {
            return Ok(());
        }
        let removed = facts.members_removed.iter();
        let mut removed: Vec<MemberId> = removed.filter_map(|id| MemberId::from_hex(id)).collect();
        removed.sort();
        let store = V2Store {
            members: vec![plan.member.clone()],
            removed,
            cluster_version: facts.cluster_version.clone(),
            has_user_keys: false,
        };
        let end = SnapshotId {
            index: self.end.index,
            term: self.end.term,
        };
        let (name, bytes) = raftsnap::at(end, &store);
        change::write_new(&to.join(name.to_string()), &bytes)
    }

    /// Gives the newest segment the room that etcd would, durably.
    pub(super) fn settle(&mut self, size: u64) -> Result<()> {
        let path = self.newest.path().to_owned();
        if self.newest.len() < size {
            writing(&path, self.newest.preallocate(size))?;
        }
        writing(&path, self.newest.sync())
    }
}
