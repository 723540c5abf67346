//! What clients of this node's etcd can have seen: the evidence that every new history starts above.
//!
//! A revision means one thing only as long as it is served with one history. So what operations of
//! this node have served counts, whatever became of them: their journals stay when all that was
//! kept for them is gone, and until then the data itself is there to be asked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::etcd::datadir::{self as files, Layout};
use crate::etcd::restore::Evidence;
use crate::node::layout::NodeLayout;
use crate::ops::{Context, datadir};
use crate::plan::registry;

/// The fields of a journal that hold revisions that were served, or were about to be.
const FIELDS: [&str; 4] = ["revision", "revisionNow", SERVED, BUMPED_TO];
/// The highest revision that the data which an operation put in place can have served.
pub(in crate::ops) const SERVED: &str = "served";
/// The revision that the data from before was bumped to, so that clients notice.
pub(in crate::ops) const BUMPED_TO: &str = "bumpedTo";
/// The last entry of the log of data that was built and has never run.
pub(in crate::ops) const LOG_INDEX: &str = "logIndex";
/// The names under which operations keep data, in their own folders.
pub(in crate::ops) const KEPT: [&str; 4] = ["data", "data-new", "data-bumped", "data-joined"];

/// What the journals of this node's operations say, settled or not, and the data that they keep.
/// What cannot be read is told: it may hide a higher revision.
pub fn of_operations(context: &Context, layout: &NodeLayout) -> Vec<Evidence> {
    let found = match registry::list(&layout.state()) {
        Ok(found) => found,
        Err(failure) => {
            context.warn("revision-unknown", failure.to_string());
            return Vec::new();
        }
    };
    let mut known = Vec::new();
    for operation in found {
        let progress = match &operation.progress {
            Ok(progress) => progress,
            Err(failure) => {
                let what = format!("what {} has served is not known: {failure}", operation.id);
                context.warn("revision-unknown", what);
                continue;
            }
        };
        let fields = FIELDS.iter();
        let highest = fields.flat_map(|name| progress.known.all(name).filter_map(Value::as_i64));
        known.extend(highest.max().map(|revision| Evidence {
            source: format!("the journal of {}", operation.id),
            revision,
        }));
        for dir in kept(layout, &progress.begin.about, &operation.dir) {
            known.extend(of_data(context, &dir));
        }
    }
    known
}

/// Where an operation keeps data: beside its journal, and where its plan says.
fn kept(layout: &NodeLayout, about: &Value, own: &Path) -> BTreeSet<PathBuf> {
    let safety = about.get("safety").and_then(Value::as_array);
    let told = safety.into_iter().flatten().filter_map(Value::as_str);
    let told = told.map(|path| layout.host(Path::new(path)));
    let beside = KEPT.iter().map(|name| own.join(name));
    beside.chain(told).collect()
}

/// What a data directory says, if it holds a member's.
pub(in crate::ops) fn of_data(context: &Context, dir: &Path) -> Option<Evidence> {
    match datadir::evidence_of_data(dir) {
        Ok(evidence) => evidence,
        Err(failure) => {
            let what = format!("how far the data in {} had come: {failure}", dir.display());
            context.warn("revision-unknown", what);
            None
        }
    }
}

/// What data that was put in place has served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Served {
    /// Nothing: no etcd has led on it, and one that does not lead answers nobody.
    Nothing,
    /// Revisions up to this one.
    UpTo(i64),
}

/// What the data in `dir` has served since it was built with a log up to entry `built`; where that
/// is not known, it counts as having served. `told` are revisions that are known from it.
///
/// An etcd serves once it leads, and a leader's first act is an entry in its log, which is durable
/// before anybody gets an answer.
pub(in crate::ops) fn by(
    context: &Context,
    dir: &Path,
    built: Option<u64>,
    told: Option<i64>,
) -> Served {
    let last = files::check(&Layout::new(dir, None), None).map(|report| report.wal.last_entry());
    match last {
        // Not every journal tells; a log that was founded here ends in term 1.
        Ok(last) if told.is_none() && built.map_or(last.term <= 1, |built| last.index <= built) => {
            Served::Nothing
        }
        Ok(_) => up_to(context, dir, told),
        Err(failure) => {
            let what = format!(
                "whether the data in {} was served cannot be read ({failure}); it counts as served",
                dir.display()
            );
            context.warn("revision-unknown", what);
            up_to(context, dir, told)
        }
    }
}

fn up_to(context: &Context, dir: &Path, told: Option<i64>) -> Served {
    let read = of_data(context, dir).map(|evidence| evidence.revision);
    Served::UpTo(read.max(told).unwrap_or_default())
}
