//! What stands after the end of a segment's records: preallocated zeros, the remains of a torn
//! write, or records that a lost frame hides.

use std::io::Read;

use super::frame::{HEADER, Size};
use super::records::read_full;
use super::{Position, Wal};
use crate::error::Result;
use crate::etcd::proto::wal::{Record, RecordKind};

/// How far after the first byte that is not zero records are looked for.
const WINDOW: usize = 4 << 20;
/// Bytes that may be decoded in looking for them; the window can be made of nested look-alikes.
const BUDGET: usize = 64 << 20;

/// What follows a size of zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterEnd {
    /// Preallocated space.
    Zeros,
    /// Something, but no two records whose checksums follow each other.
    Remains {
        /// Offset of the first byte that is not zero.
        first: u64,
    },
    /// Records.
    Records {
        /// Offset of the first of them.
        first: u64,
    },
}

/// Reads on from a size of zero to the end of the segment.
pub(super) fn after_end(wal: &Wal, at: Position) -> Result<AfterEnd> {
    let Some(segment) = wal.segments().get(at.segment) else {
        return Ok(AfterEnd::Zeros);
    };
    let mut offset = at.offset;
    let mut reader = segment.open_at(offset)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let got = read_full(&mut reader, &mut buffer).map_err(|cause| segment.reading(cause))?;
        let read = buffer.get(..got).unwrap_or_default();
        if let Some(i) = read.iter().position(|byte| *byte != 0) {
            offset = offset.saturating_add(i as u64);
            break;
        }
        if got < buffer.len() {
            return Ok(AfterEnd::Zeros);
        }
        offset = offset.saturating_add(got as u64);
    }
    let aligned = offset - offset % 8;
    let mut window = Vec::new();
    segment
        .open_at(aligned)?
        .take(WINDOW as u64)
        .read_to_end(&mut window)
        .map_err(|cause| segment.reading(cause))?;
    Ok(match first_chained(&window) {
        Some(found) => AfterEnd::Records {
            first: aligned.saturating_add(found as u64),
        },
        None => AfterEnd::Remains { first: offset },
    })
}

/// The first place with a record that another one, right after it, continues.
fn first_chained(window: &[u8]) -> Option<usize> {
    let mut budget = BUDGET;
    (0..window.len()).step_by(8).find(|start| {
        let Some((before, length)) = record_at(window, *start, &mut budget) else {
            return false;
        };
        let next = start.saturating_add(length);
        // A checksum continues the one before it, so that only the second of two records can be
        // checked.
        let Some((after, _)) = record_at(window, next, &mut budget) else {
            return false;
        };
        let data = after.data.unwrap_or_default();
        let crc = match after.kind {
            RecordKind::Crc => before.crc,
            _ => crc32c::crc32c_append(before.crc, data),
        };
        crc == after.crc
    })
}

/// A record as etcd writes it, and the size of its frame.
fn record_at<'a>(
    window: &'a [u8],
    start: usize,
    budget: &mut usize,
) -> Option<(Record<'a>, usize)> {
    let rest = window.get(start..)?;
    let (field, rest) = rest.split_first_chunk::<{ HEADER as usize }>()?;
    let field = u64::from_le_bytes(*field);
    let size = Size::decode(field);
    if size.record == 0 || Size::of(size.record).encode() != field {
        return None;
    }
    let body = usize::try_from(size.body()).ok()?;
    let record = rest
        .get(..body)?
        .get(..usize::try_from(size.record).ok()?)?;
    *budget = budget.checked_sub(record.len())?;
    let record = Record::decode(record).ok()?;
    let known = !matches!(record.kind, RecordKind::Other(_));
    known.then(|| (record, body.saturating_add(HEADER as usize)))
}
