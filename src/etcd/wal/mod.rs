//! etcd's write-ahead log: read as etcd reads it, a torn tail distinguished from corruption, and written.
//!
//! A WAL is a directory of segments `<sequence>-<first index>.wal`, both as 16 hex digits; the
//! sequence counts from 0 without gaps, the index is the first that may be in the segment. etcd
//! preallocates the last segment with zeros to 64,000,000 bytes and cuts it to its content when it
//! begins the next. A segment is a row of frames (etcd, `server/storage/wal/encoder.go`):
//!
//! | offset | size | content |
//! | --- | --- | --- |
//! | 0 | 8 | little-endian: the low 56 bits are the record's size *n*; if *n* is no multiple of 8 the top byte is `0x80 \| pad` |
//! | 8 | *n* | [`Record`](super::wire::wal::Record) |
//! | 8 + *n* | pad | zeros up to a multiple of 8 |
//!
//! A size of zero (preallocated space) or the end of the file ends the segment.
//!
//! Invariants: one running CRC-32C goes over the data of all records, across segments; each record
//! stores the value after its own data. A segment begins with a crc record (the value so far), the
//! metadata, equal in all segments, and from the second on the last hard state. A crc record that
//! is read while the running value is 0 sets it, so that reading may begin at any segment.
//!
//! [`Wal::scan`] reads everything once, as etcd does to find the usable snapshots;
//! [`Wal::replay`] then reads the log that follows one of them, as etcd does to start;
//! [`Summary`] puts both together.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Doing, Failure, Kind, Result};

mod frame;
mod records;
mod replay;
mod scan;
mod summary;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

pub use records::{Break, Fault, Flaw, Record, Records, Step};
pub use replay::{Log, LogEntry, MembershipChange, Run};
pub use scan::{End, EndKind, Scan, SegmentInfo, SnapshotId};
pub use summary::{LastEntry, Summary, Tail};
pub use writer::{SegmentWriter, write_founding};

/// The size etcd preallocates a segment to: 64 million bytes, not 64 MiB.
pub const SEGMENT_SIZE: u64 = 64_000_000;

/// The longest record that is read. etcd bounds a record by what is left of the file only; its
/// requests are 1.5 MiB at most unless configured otherwise.
pub const RECORD_MAX: u64 = 256 << 20;

/// From this size on etcd 3.4 refuses a record, whatever it holds.
pub const RECORD_MAX_3_4: u64 = 10 << 20;

/// The name of a segment: `<sequence>-<first index>.wal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Counts the segments.
    pub sequence: u64,
    /// The first index that may be in the segment.
    pub index: u64,
}

impl SegmentName {
    /// Reads a file's name.
    pub fn parse(name: &str) -> Option<Self> {
        let (sequence, index) = name.strip_suffix(".wal")?.split_once('-')?;
        let number = |digits: &str| {
            let form = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            form.then(|| u64::from_str_radix(digits, 16).ok())?
        };
        Some(Self {
            sequence: number(sequence)?,
            index: number(index)?,
        })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.sequence, self.index)
    }
}

/// A place in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which segment, counted from the first that is there.
    pub segment: usize,
    /// Bytes from the segment's start.
    pub offset: u64,
}

#[derive(Debug, Clone)]
enum Content {
    File(PathBuf),
    Bytes(Arc<[u8]>),
}

/// A segment that can be read.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its name.
    pub name: SegmentName,
    /// Its size in bytes; what is appended later is not read.
    pub len: u64,
    content: Content,
}

impl Segment {
    /// A segment from memory.
    pub fn from_bytes(name: SegmentName, bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self {
            name,
            len: bytes.len() as u64,
            content: Content::Bytes(bytes),
        }
    }

    fn open_at(&self, offset: u64) -> Result<Box<dyn Read + '_>> {
        let left = self.len.saturating_sub(offset);
        match &self.content {
            Content::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                Ok(Box::new(bytes.get(start..).unwrap_or_default()))
            }
            Content::File(path) => {
                let opened = File::open(path).and_then(|mut file| {
                    file.seek(SeekFrom::Start(offset))?;
                    Ok(file)
                });
                let file = opened.doing(Kind::NotChecked, || opening(path))?;
                Ok(Box::new(file.take(left)))
            }
        }
    }

    fn reading(&self, cause: io::Error) -> Failure {
        let what = match &self.content {
            Content::File(path) => path.display().to_string(),
            Content::Bytes(_) => self.name.to_string(),
        };
        Failure::wrap(Kind::NotChecked, cause, format!("reading {what}"))
    }
}

fn opening(path: &Path) -> String {
    format!("opening {}", path.display())
}

/// The segments of one WAL, by name.
#[derive(Debug, Clone, Default)]
pub struct Wal {
    dir: PathBuf,
    segments: Vec<Segment>,
    others: Vec<String>,
}

impl Wal {
    /// Lists a directory; opens no file yet.
    pub fn list(dir: &Path) -> Result<Self> {
        let mut wal = Self {
            dir: dir.to_owned(),
            ..Self::default()
        };
        let entries = fs::read_dir(dir).doing(Kind::NotChecked, || opening(dir))?;
        for entry in entries {
            let entry = entry.doing(Kind::NotChecked, || opening(dir))?;
            let file_name = entry.file_name();
            let path = entry.path();
            match file_name.to_str().and_then(SegmentName::parse) {
                Some(name) => {
                    let metadata =
                        fs::metadata(&path).doing(Kind::NotChecked, || opening(&path))?;
                    if !metadata.is_file() {
                        return Err(Failure::new(
                            Kind::NotChecked,
                            format!("{} is not a regular file", path.display()),
                        ));
                    }
                    wal.segments.push(Segment {
                        name,
                        len: metadata.len(),
                        content: Content::File(path),
                    });
                }
                None => wal.others.push(file_name.to_string_lossy().into_owned()),
            }
        }
        wal.segments.sort_by_key(|segment| segment.name);
        wal.others.sort();
        Ok(wal)
    }

    /// A WAL of given segments.
    pub fn of_segments(mut segments: Vec<Segment>) -> Self {
        segments.sort_by_key(|segment| segment.name);
        Self {
            segments,
            ..Self::default()
        }
    }

    /// The directory that was listed; empty for segments from elsewhere.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The segments, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What else is in the directory: `N.tmp` is etcd's next segment, `*.broken` the copy that a
    /// repair left.
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// The records from a segment on; the running checksum restarts there.
    pub fn records(&self, first_segment: usize) -> Records<'_> {
        Records::new(&self.segments, first_segment)
    }

    fn name(&self, segment: usize) -> String {
        self.segments
            .get(segment)
            .map(|segment| segment.name.to_string())
            .unwrap_or_default()
    }
}
