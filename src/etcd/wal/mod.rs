//! etcd's write-ahead log: read as etcd reads it, a torn tail distinguished from corruption, and written.
//!
//! A WAL is a directory of segments `<sequence>-<first index>.wal`, both as 16 hex digits; the
//! sequence counts from 0 without gaps, the index is the first that may be in the segment. etcd
//! preallocates the last segment with zeros to 64,000,000 bytes and cuts it to its content when it
//! begins the next. A segment is a row of frames (etcd, `server/storage/wal/encoder.go`):
//!
//! | offset | size | content |
//! | --- | --- | --- |
//! | 0 | 8 | little-endian: the low 56 bits are the record's size *n*; if *n* is not a multiple of 8 the top byte is `0x80 \| pad` |
//! | 8 | *n* | [`Record`](super::proto::wal::Record) |
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

mod frame;
mod records;
mod replay;
mod scan;
mod segment;
mod summary;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

pub use records::{Break, Fault, Flaw, Record, Records, Step};
pub use replay::{Log, LogEntry, MembershipChange, Run};
pub use scan::{End, EndKind, Scan, SegmentInfo, SnapshotId};
pub use segment::{Position, RECORD_MAX, RECORD_MAX_3_4, SEGMENT_SIZE, Segment, SegmentName, Wal};
pub use summary::{LastEntry, Summary, Tail};
pub use writer::{SegmentWriter, write_founding};
