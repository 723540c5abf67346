//! The row of records across segments, with the running checksum: what etcd's decoder does.

use std::fmt;
use std::io::{self, BufReader, Read};

use super::frame::{self, HEADER, Size};
use super::segment::{Position, RECORD_MAX, Segment, Wal};
use crate::error::Result;
use crate::etcd::proto::WireError;
use crate::etcd::proto::wal as walpb;

const READ_AHEAD: usize = 256 << 10;

/// A record that passed its checksum.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Where its frame starts.
    pub at: Position,
    /// Bytes of its frame.
    pub frame: u64,
    /// What it holds.
    pub kind: walpb::RecordKind,
    /// Its payload.
    pub data: &'a [u8],
    /// What etcd never writes, but reads without complaint.
    pub flaw: Option<Flaw>,
}

/// A frame that no etcd wrote, though all of them read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The size field has other bits than etcd writes for a record of this size.
    Size {
        /// The field as it is.
        found: u64,
        /// The field as etcd writes it.
        expected: u64,
    },
    /// The padding is not zero.
    Padding,
    /// The record has other fields than etcd writes, or in another form.
    Envelope,
}

/// Where and why reading ends before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Break {
    /// The start of the frame that cannot be read; what precedes it is good.
    pub at: Position,
    /// What is wrong with it.
    pub fault: Fault,
    /// Whether etcd takes it for a write that a crash cut short. In the last segment it then
    /// truncates the file at this place and continues.
    pub torn: bool,
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The file ends inside the size field.
    SizeCut {
        /// Bytes that are there.
        left: u64,
    },
    /// The size is more than what is left of the file.
    BeyondFile {
        /// Bytes that the frame claims after its size field.
        claimed: u64,
        /// Bytes that are there.
        left: u64,
    },
    /// The size is beyond what this reader takes.
    TooLong {
        /// Bytes that the record claims.
        claimed: u64,
    },
    /// The record is not a record.
    Undecodable(WireError),
    /// The running checksum differs from the record's.
    Crc {
        /// Computed over the data.
        computed: u32,
        /// Stored in the record.
        stored: u32,
    },
    /// A crc record differs from the running checksum: records are missing before it.
    Chain {
        /// Computed over the data so far.
        computed: u32,
        /// Stored in the record.
        stored: u32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SizeCut { left } => write!(f, "{left} bytes of a frame's size"),
            Self::BeyondFile { claimed, left } => {
                write!(f, "a frame of {claimed} bytes where {left} are left")
            }
            Self::TooLong { claimed } => write!(f, "a record of {claimed} bytes"),
            Self::Undecodable(cause) => write!(f, "not a record: {cause}"),
            Self::Crc { computed, stored } => {
                write!(f, "data of CRC {computed:08x}, recorded as {stored:08x}")
            }
            Self::Chain { computed, stored } => write!(
                f,
                "CRC {stored:08x} to continue from, but the WAL so far has {computed:08x}"
            ),
        }
    }
}

impl Fault {
    /// What should be there.
    pub fn expected(&self) -> String {
        match self {
            Self::SizeCut { .. } | Self::BeyondFile { .. } => "a whole record".into(),
            Self::TooLong { .. } => format!("a record of at most {RECORD_MAX} bytes"),
            Self::Undecodable(_) => "a record".into(),
            Self::Crc { .. } => "data that matches its CRC".into(),
            Self::Chain { .. } => "the CRC of the WAL so far".into(),
        }
    }
}

/// What comes next.
#[derive(Debug)]
pub enum Step<'a> {
    /// A record.
    Record(Record<'a>),
    /// The records of a segment end here: at the end of the file, or at a size of zero.
    SegmentEnd {
        /// The first byte after the last record.
        at: Position,
        /// Whether a size of zero stands there, as in preallocated space.
        zero_size: bool,
    },
    /// Nothing after this can be read.
    Broken(Break),
    /// The last segment has ended.
    End,
}

enum State<'a> {
    Closed,
    Open(BufReader<Box<dyn Read + 'a>>),
    Done,
}

/// Reads record after record; memory is bounded by the longest one.
pub struct Records<'a> {
    segments: &'a [Segment],
    at: Position,
    state: State<'a>,
    crc: u32,
    buffer: Vec<u8>,
    head: Vec<u8>,
}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("at", &self.at)
            .field("crc", &self.crc)
            .finish_non_exhaustive()
    }
}

/// What a frame turned out to be, before its record is borrowed.
enum Frame {
    Good { size: Size, flaw: Option<Flaw> },
    End { zero_size: bool },
    Bad { fault: Fault, torn: bool },
}

impl Wal {
    /// The records from a segment on; the running checksum restarts there.
    pub fn records(&self, first_segment: usize) -> Records<'_> {
        Records::new(&self.segments, first_segment)
    }
}

impl<'a> Records<'a> {
    pub(super) fn new(segments: &'a [Segment], first: usize) -> Self {
        Self {
            segments,
            at: Position {
                segment: first,
                offset: 0,
            },
            state: State::Closed,
            crc: 0,
            buffer: Vec::new(),
            head: Vec::new(),
        }
    }

    /// The running checksum, after the last record.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Reads on. After [`Step::Broken`] only [`Step::End`] follows.
    ///
    /// An error means that the disk could not be read, never that the content is bad.
    pub fn step(&mut self) -> Result<Step<'_>> {
        if matches!(self.state, State::Done) {
            return Ok(Step::End);
        }
        let Some(segment) = self.segments.get(self.at.segment) else {
            self.state = State::Done;
            return Ok(Step::End);
        };
        if matches!(self.state, State::Closed) {
            let reader = BufReader::with_capacity(READ_AHEAD, segment.open_at(0)?);
            self.state = State::Open(reader);
        }
        let at = self.at;
        match self.frame(segment)? {
            Frame::Good { size, flaw } => {
                let frame = HEADER.saturating_add(size.body());
                self.at.offset = self.at.offset.saturating_add(frame);
                self.accept(at, frame, size, flaw)
            }
            Frame::End { zero_size } => {
                self.at = Position {
                    segment: at.segment.saturating_add(1),
                    offset: 0,
                };
                self.state = State::Closed;
                Ok(Step::SegmentEnd { at, zero_size })
            }
            Frame::Bad { fault, torn } => {
                self.state = State::Done;
                Ok(Step::Broken(Break { at, fault, torn }))
            }
        }
    }

    /// Decodes the frame in the buffer again, now to be borrowed, and moves the checksum on.
    fn accept(
        &mut self,
        at: Position,
        frame: u64,
        size: Size,
        flaw: Option<Flaw>,
    ) -> Result<Step<'_>> {
        let last = at.segment.saturating_add(1) == self.segments.len();
        let body_at = at.offset.saturating_add(HEADER);
        let torn = |buffer: &[u8]| last && frame::is_torn(buffer, body_at);
        let bytes = self
            .buffer
            .get(..usize::try_from(size.record).unwrap_or(usize::MAX))
            .unwrap_or_default();
        let broken = |fault, torn| Ok(Step::Broken(Break { at, fault, torn }));
        let record = match walpb::Record::decode(bytes) {
            Ok(record) => record,
            Err(cause) => {
                self.state = State::Done;
                return broken(Fault::Undecodable(cause), torn(&self.buffer));
            }
        };
        let data = record.data.unwrap_or_default();
        if record.kind == walpb::RecordKind::Crc {
            // At 0 a reader has just begun here, and has nothing to compare. etcd never takes this
            // for a torn write: its decoder is done with the record by then.
            if self.crc != 0 && self.crc != record.crc {
                self.state = State::Done;
                let (computed, stored) = (self.crc, record.crc);
                return broken(Fault::Chain { computed, stored }, false);
            }
            self.crc = record.crc;
        } else {
            let computed = crc32c::crc32c_append(self.crc, data);
            if computed != record.crc {
                self.state = State::Done;
                let stored = record.crc;
                return broken(Fault::Crc { computed, stored }, torn(&self.buffer));
            }
            self.crc = computed;
        }
        self.head.clear();
        record.encode_head_into(&mut self.head);
        let as_written = bytes.len() == self.head.len().saturating_add(data.len())
            && bytes.starts_with(&self.head);
        let flaw = flaw.or((!as_written).then_some(Flaw::Envelope));
        Ok(Step::Record(Record {
            at,
            frame,
            kind: record.kind,
            data,
            flaw,
        }))
    }

    /// Reads one frame's body into the buffer.
    fn frame(&mut self, segment: &Segment) -> Result<Frame> {
        let State::Open(reader) = &mut self.state else {
            return Ok(Frame::End { zero_size: false });
        };
        let mut header = [0; HEADER as usize];
        let got = read_full(reader, &mut header).map_err(|cause| segment.reading(cause))?;
        if got == 0 {
            return Ok(Frame::End { zero_size: false });
        }
        // To etcd every unexpected end of the file is a torn write.
        if got < header.len() {
            let left = got as u64;
            return Ok(Frame::Bad {
                fault: Fault::SizeCut { left },
                torn: true,
            });
        }
        let field = u64::from_le_bytes(header);
        if field == 0 {
            return Ok(Frame::End { zero_size: true });
        }
        let size = Size::decode(field);
        let claimed = size.body();
        let left = segment
            .len
            .saturating_sub(self.at.offset)
            .saturating_sub(HEADER);
        let beyond = |left| Frame::Bad {
            fault: Fault::BeyondFile { claimed, left },
            torn: true,
        };
        if claimed > left {
            return Ok(beyond(left));
        }
        if size.record > RECORD_MAX {
            return Ok(Frame::Bad {
                fault: Fault::TooLong {
                    claimed: size.record,
                },
                torn: false,
            });
        }
        self.buffer.clear();
        let got = reader
            .by_ref()
            .take(claimed)
            .read_to_end(&mut self.buffer)
            .map_err(|cause| segment.reading(cause))? as u64;
        if got < claimed {
            // The file has become shorter since it was listed.
            return Ok(beyond(got));
        }
        let flaw = self.flaw_of_frame(field, &size);
        Ok(Frame::Good { size, flaw })
    }

    /// What etcd would have written otherwise, of the frame that is in the buffer.
    fn flaw_of_frame(&self, field: u64, size: &Size) -> Option<Flaw> {
        let expected = Size::of(size.record).encode();
        if field != expected {
            let found = field;
            return Some(Flaw::Size { found, expected });
        }
        let mut padding = self.buffer.iter().rev().take(size.pad as usize);
        padding.any(|byte| *byte != 0).then_some(Flaw::Padding)
    }
}

/// Fills the buffer as far as the source reaches.
pub(super) fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(filled)
}
