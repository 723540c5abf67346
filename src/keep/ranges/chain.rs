//! The chains of segments in a store.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::error::{Kind, Result};
use crate::etcd::segment::{Begun, Name, Segment, names};
use crate::store::{LocalStore, local};

/// A chain of segments, as its names and the headers at its ends tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its directory.
    pub dir: PathBuf,
    /// The cluster, hex.
    pub cluster_id: String,
    /// Its segments, ascending; never empty.
    pub segments: Vec<Name>,
    /// How it began, where its first segment is still there.
    pub begun: Option<Begun>,
    /// Whether that is not known because its segments are encrypted to others.
    pub encrypted: bool,
    /// When the last change of its last segment did.
    pub last_received: Timestamp,
}

impl Chain {
    /// The last revision that a backup at `revision` is continued to without a hole; `None` if it is
    /// not continued.
    pub fn reach(&self, revision: i64) -> Option<i64> {
        let mut next = revision.saturating_add(1);
        for name in &self.segments {
            if name.last < next {
                continue;
            }
            if name.first > next {
                break;
            }
            next = name.last.saturating_add(1);
        }
        (next - 1 > revision).then_some(next - 1)
    }

    /// The first revision that it has.
    pub fn first(&self) -> i64 {
        self.segments.first().map_or(0, |name| name.first)
    }

    /// The last one.
    pub fn last(&self) -> i64 {
        self.segments.last().map_or(0, |name| name.last)
    }

    /// One with these segments, of the cluster `c`, the last of which arrived at a time, in seconds
    /// since 1970.
    #[cfg(test)]
    pub(super) fn of_segments(dir: &str, names: &[(i64, i64)], received: i64) -> Self {
        let name = |&(first, last): &(i64, i64)| Name { first, last };
        Self {
            dir: PathBuf::from(dir),
            cluster_id: "c".to_owned(),
            segments: names.iter().map(name).collect(),
            begun: None,
            encrypted: false,
            last_received: Timestamp::from_second(received).unwrap_or_default(),
        }
    }
}

/// The chains of a store, the oldest first, and what cannot be read of them.
///
/// # Errors
/// [`Kind::Store`] if the directory cannot be read.
pub fn chains(store: &LocalStore) -> Result<(Vec<Chain>, Vec<String>)> {
    let root = store.changes();
    if !root.is_dir() {
        return Ok((Vec::new(), Vec::new()));
    }
    let (mut chains, mut problems) = (Vec::new(), Vec::new());
    for entry in local::entries(&root)?
        .into_iter()
        .filter(|entry| entry.is_dir)
    {
        let segments = names(&entry.path)?;
        let ends = [segments.first(), segments.last()].map(|name| {
            let path = entry.path.join(name?.to_string());
            Segment::header_of(&path).transpose()
        });
        let [Some(first), Some(last)] = ends else {
            continue;
        };
        match (first, last) {
            (Ok(first), Ok(last)) => chains.push(Chain {
                dir: entry.path,
                cluster_id: first.cluster_id,
                segments,
                begun: first.begun,
                encrypted: false,
                last_received: last.last_received,
            }),
            (Err(failure), _) | (_, Err(failure)) if failure.kind() == Kind::BadBackup => {
                problems.push(failure.to_string());
            }
            (Err(failure), _) | (_, Err(failure)) => return Err(failure),
        }
    }
    Ok((chains, problems))
}
