//! `verify --ranges`: whether the recorded changes are whole, and lead from each backup to the next.

use std::path::Path;

use serde::Serialize;

use crate::context::Context;
use crate::error::Result;
use crate::etcd::segment::Segment;
use crate::keep::catalog::BackupSet;
use crate::keep::ranges::{Chain, HashKvFound, continuation};
pub use crate::keep::ranges::{Proven, prove, unproven};

/// Findings that are listed for a chain.
const LISTED: usize = 20;

/// What was found of one chain of segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainFound {
    /// Its directory's name.
    pub chain: String,
    /// The cluster, hex.
    pub cluster_id: String,
    /// The first revision.
    pub from: i64,
    /// The last one.
    pub to: i64,
    /// How many segments it has.
    pub segments: usize,
    /// Changes in the segments that could be read.
    pub changes: u64,
    /// What is wrong with it, at most 20 findings.
    pub findings: Vec<String>,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RangesFound {
    /// Whether nothing is wrong. What could not be compared is not wrong.
    pub good: bool,
    /// The chains.
    pub chains: Vec<ChainFound>,
    /// The proofs, one for each backup that is continued.
    pub proofs: Vec<Proven>,
}

/// Reads every segment, and proves each backup's continuation by the next one.
///
/// # Errors
/// Those of [`prove`]; [`Kind::Interrupted`](crate::error::Kind::Interrupted).
pub fn run(
    context: &Context,
    chains: &[Chain],
    sets: &[BackupSet],
    scratch: &Path,
) -> Result<RangesFound> {
    let found = read_all(context, chains)?;
    let mut proofs = Vec::new();
    for set in sets.iter().filter(|set| set.is_good()) {
        if let Some(continued) = continuation(chains, sets, set) {
            proofs.push(prove(context, set, &continued, scratch)?);
        }
    }
    Ok(RangesFound::of(found, proofs))
}

impl RangesFound {
    /// What was found of chains, and of what follows each backup.
    pub fn of(chains: Vec<ChainFound>, proofs: Vec<Proven>) -> Self {
        let whole = chains.iter().all(|chain| chain.findings.is_empty());
        let equal = proofs
            .iter()
            .all(|proven| proven.hashkv != HashKvFound::Different);
        Self {
            good: whole && equal,
            chains,
            proofs,
        }
    }
}

/// Reads every segment of some chains.
///
/// # Errors
/// [`Kind::Interrupted`](crate::error::Kind::Interrupted).
pub fn read_all(context: &Context, chains: &[Chain]) -> Result<Vec<ChainFound>> {
    chains.iter().map(|chain| read(context, chain)).collect()
}

/// Reads the segments of a chain, and follows their hashes.
fn read(context: &Context, chain: &Chain) -> Result<ChainFound> {
    let mut found = ChainFound {
        chain: name(&chain.dir),
        cluster_id: chain.cluster_id.clone(),
        from: chain.first(),
        to: chain.last(),
        segments: chain.segments.len(),
        changes: 0,
        findings: Vec::new(),
    };
    let mut before: Option<(i64, Option<String>)> = None;
    for segment in &chain.segments {
        context.cancel.check()?;
        let path = chain.dir.join(segment.to_string());
        let mut wrong = |what: String| {
            if found.findings.len() < LISTED {
                found.findings.push(format!("{segment}: {what}"));
            }
        };
        if let Some((last, _)) = &before
            && segment.first != last.saturating_add(1)
        {
            wrong(format!(
                "expected revision {} first: a segment is missing",
                last + 1
            ));
        }
        let hash = match Segment::open(&path) {
            Ok(read) => {
                let header = read.header();
                let follows = before.as_ref().and_then(|(_, hash)| hash.as_ref());
                if (header.first_revision, header.last_revision) != (segment.first, segment.last) {
                    wrong("its name does not fit its revisions".to_owned());
                } else if header.cluster_id != chain.cluster_id {
                    wrong(format!("it is of cluster {}", header.cluster_id));
                } else if follows.is_some_and(|hash| header.previous.as_ref() != Some(hash)) {
                    wrong("it does not follow the segment before it".to_owned());
                }
                let hash = read.sha256();
                found.changes += header.records;
                Some(hash)
            }
            Err(failure) => {
                wrong(failure.to_string());
                None
            }
        };
        before = Some((segment.last, hash));
    }
    Ok(found)
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
