//! Writing a WAL: one segment after another, each continuing the checksum of the one before.

use std::io::{self, Write};

use super::frame::{HEADER, Size};
use crate::etcd::founding::FoundingCluster;
use crate::etcd::ids::MemberId;
use crate::etcd::proto::raft::{
    ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState,
};
use crate::etcd::proto::wal::{Metadata, Record, RecordKind, SnapshotMark};

/// Writes the records of one segment.
///
/// Nothing is synced here: that is up to whom the file belongs to.
#[derive(Debug)]
pub struct SegmentWriter<W: Write> {
    out: W,
    crc: u32,
    offset: u64,
    frame: Vec<u8>,
}

impl<W: Write> SegmentWriter<W> {
    /// Begins a segment: the checksum so far (0 in the first), the metadata and, but in the first
    /// segment, the last hard state.
    pub fn begin(
        out: W,
        crc: u32,
        metadata: Metadata,
        state: Option<HardState>,
    ) -> io::Result<Self> {
        let mut writer = Self::resume(out, crc, 0);
        writer.record(RecordKind::Crc, None)?;
        writer.record(RecordKind::Metadata, Some(&metadata.encode()))?;
        if let Some(state) = state {
            writer.hard_state(state)?;
        }
        Ok(writer)
    }

    /// Continues a segment whose good records end at `offset` with the checksum `crc`, as
    /// [`Scan::end`](super::Scan::end) tells; `out` must write from that offset on.
    pub fn resume(out: W, crc: u32, offset: u64) -> Self {
        Self {
            out,
            crc,
            offset,
            frame: Vec::new(),
        }
    }

    /// The running checksum.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Bytes of the segment so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends an entry.
    pub fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        self.record(RecordKind::Entry, Some(&entry.encode()))
    }

    /// Appends a hard state.
    pub fn hard_state(&mut self, state: HardState) -> io::Result<()> {
        self.record(RecordKind::State, Some(&state.encode()))
    }

    /// Appends the record of a snapshot.
    pub fn snapshot(&mut self, mark: &SnapshotMark) -> io::Result<()> {
        self.record(RecordKind::Snapshot, Some(&mark.encode()))
    }

    fn record(&mut self, kind: RecordKind, data: Option<&[u8]>) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, data.unwrap_or_default());
        let record = Record {
            kind,
            crc: self.crc,
            data,
        };
        self.frame.clear();
        self.frame.extend_from_slice(&[0; HEADER as usize]);
        record.encode_into(&mut self.frame);
        let size = Size::of((self.frame.len() as u64).saturating_sub(HEADER));
        for (byte, value) in self.frame.iter_mut().zip(size.encode().to_le_bytes()) {
            *byte = value;
        }
        let padding = [0; HEADER as usize];
        self.frame
            .extend(padding.iter().take(usize::try_from(size.pad).unwrap_or(0)));
        self.out.write_all(&self.frame)?;
        self.offset = self.offset.saturating_add(self.frame.len() as u64);
        Ok(())
    }

    /// Gives the output back, with the records alone; etcd preallocates the rest itself when it
    /// begins the next segment.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    /// Fills up with zeros to a size, [`SEGMENT_SIZE`](super::SEGMENT_SIZE) as etcd would, and
    /// gives the output back. Extending the file afterwards has the same effect for less.
    pub fn finish_padded(mut self, size: u64) -> io::Result<W> {
        let zeros = vec![0; 64 << 10];
        let mut left = size.saturating_sub(self.offset);
        while left > 0 {
            let part = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.out.write_all(zeros.get(..part).unwrap_or_default())?;
            left = left.saturating_sub(part as u64);
        }
        self.finish()
    }
}

/// Writes the records that a restored member starts from: an entry for each member, all committed
/// in term 1, and a snapshot of just that.
///
/// It is, byte for byte, what `etcdutl snapshot restore` of 3.5 and 3.6 writes; 3.4 to 3.7 read
/// it. Every member's vote is for the lowest id, as there.
pub fn write_founding<W: Write>(
    out: W,
    cluster: &FoundingCluster,
    me: MemberId,
) -> io::Result<SegmentWriter<W>> {
    let metadata = Metadata {
        node: me.0,
        cluster: cluster.id.0,
    };
    let mut writer = SegmentWriter::begin(out, 0, metadata, None)?;
    // `wal.Create` writes this mark too: the beginning of the log is where a first start begins.
    writer.snapshot(&SnapshotMark::default())?;
    for (member, index) in cluster.members.iter().zip(1..) {
        let change = ConfChange {
            id: 0,
            kind: ConfChangeKind::AddNode,
            node: member.id.0,
            context: member.to_json().into_bytes(),
        };
        writer.entry(&Entry {
            kind: EntryKind::ConfChange,
            term: 1,
            index,
            data: &change.encode(),
        })?;
    }
    let voters = cluster.ids();
    writer.hard_state(HardState {
        term: 1,
        vote: voters.first().copied().unwrap_or_default(),
        commit: cluster.commit(),
    })?;
    writer.snapshot(&SnapshotMark {
        index: cluster.commit(),
        term: 1,
        conf_state: Some(ConfState {
            voters,
            ..ConfState::default()
        }),
    })?;
    Ok(writer)
}
