//! Entries of the WAL that another release does not know.

use super::{Layout, Report};
use crate::error::Result;
use crate::etcd::proto::raft::EntryKind;
use crate::etcd::proto::request::{Request, RequestKind};
use crate::etcd::wal::Wal;

/// Counts the entries that a later or an earlier release cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Foreign {
    /// Requests of the v2 store, which 3.7 does not know any more.
    pub v2: u64,
    /// Requests that releases up to 3.5 do not know yet.
    pub newer: u64,
}

/// Counts them, after the newest snapshot that the WAL records: a starting server reads no others.
///
/// # Errors
/// If the WAL cannot be read.
pub fn foreign_entries(layout: &Layout, report: &Report) -> Result<Foreign> {
    let wal = Wal::list(&layout.wal)?;
    let marks = report.wal.scan.usable_snapshots();
    let newest = marks.last().map_or(0, |mark| mark.index);
    let mut found = Foreign::default();
    wal.entries(&report.wal.log, newest, |logged| {
        if logged.entry.kind != EntryKind::Normal {
            return Ok(());
        }
        match Request::decode(logged.entry.data) {
            Ok(Request::V2(_)) => found.v2 = found.v2.saturating_add(1),
            Ok(Request::V3(request)) if matches!(request.kind, RequestKind::Other(_)) => {
                found.newer = found.newer.saturating_add(1);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}
