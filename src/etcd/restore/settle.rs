//! Ends a build: makes the result durable and reads it again.

use rustix::fs::{Advice, fadvise};

use super::at_revision;
use super::live::newest_revision;
use super::plan::Plan;
use super::rewritten::Rewritten;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::write::{Change, small_bucket};
use crate::etcd::bbolt::{FileSource, ReadAt};
use crate::etcd::build::{Phase, Watch, chosen};
use crate::etcd::datadir::{DbFacts, facts_of};
use crate::sys::fs::OutFile;

/// Makes the result durable and reads it again: the new pages, which lead to the copied ones. Of a
/// rewritten database every page and every entry has been read by then.
pub(super) fn settle(
    out: &mut OutFile,
    plan: &Plan,
    rewritten: Option<Rewritten>,
    watch: &dyn Watch,
) -> Result<DbFacts> {
    let size = out.len();
    watch.begin(Phase::Settle, size);
    let path = out.path().to_owned();
    let writing = || format!("writing {}", path.display());
    out.sync().doing(Kind::Store, writing)?;
    // Advice, so that what is read comes from the disk.
    let _ = fadvise(out.file(), 0, None, Advice::DontNeed);
    let file = out.file().try_clone().and_then(FileSource::new);
    let source = file.doing(Kind::Store, writing)?;
    let read = || {
        let facts = read_back(&source, size, plan)?;
        if let Some(rewritten) = rewritten {
            rewritten.prove(&source)?;
        }
        if let Some(at) = &plan.at {
            at_revision::prove(&source, at)?;
        }
        Ok(facts)
    };
    let facts = read().map_err(|failure: Failure| {
        failure
            .as_kind(Kind::Unexpected)
            .doing(format!("reading {} again", path.display()))
    })?;
    watch.done(Phase::Settle, size);
    Ok(facts)
}

fn read_back(source: &FileSource, size: u64, plan: &Plan) -> Result<DbFacts> {
    let wrong = |what: String| Failure::new(Kind::Unexpected, what);
    if source.size() != size {
        return Err(wrong(format!(
            "expected {size} bytes, found {}",
            source.size()
        )));
    }
    let meta = chosen(source, size)?;
    if meta.database_size() != Some(size) {
        return Err(wrong(format!("expected a database of {size} bytes")));
    }
    for name in plan.changes.keys().filter(|name| *name != b"key") {
        let entries = small_bucket(source, size, &meta, name)?;
        let Some(Change::Edit(edit)) = plan.changes.get(name) else {
            continue;
        };
        let put = edit.put.iter().all(|(key, value)| {
            let found = entries.iter().find(|(known, _)| known == key);
            found.is_some_and(|(_, found)| found == value)
        });
        let gone = entries.iter().all(|(key, _)| {
            edit.put.contains_key(key) || !(edit.clear || edit.remove.contains(key))
        });
        if !(put && gone) {
            let name = String::from_utf8_lossy(name);
            return Err(wrong(format!("expected bucket {name} as it was written")));
        }
    }
    let at = plan.at.as_ref().map(|at| at.revision);
    if let Some(revision) = plan.decision.revision.or(at) {
        let found = newest_revision(source)?;
        if found != revision {
            return Err(wrong(format!(
                "expected revision {revision}, found {found}"
            )));
        }
    }
    facts_of(source, size, &meta)
}
