//! Ends a build: makes the result durable and reads it again.

use std::collections::BTreeMap;
use std::path::Path;

use super::at_revision;
use super::live::newest_revision;
use super::plan::Plan;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::write::{Change, Digest, checked_digests, small_bucket};
use crate::etcd::bbolt::{DirectSource, FileSource, Origin, ReadAt};
use crate::etcd::build::{Phase, Watch, chosen};
use crate::etcd::datadir::{DbFacts, facts_of};
use crate::finding::{Finding, Findings, Severity};
use crate::sys::fs::OutFile;

/// Makes the result durable and reads it again: the new pages, which lead to the copied ones; of a
/// rewritten database every page and every entry.
pub(super) fn settle(
    out: &mut OutFile,
    size: u64,
    plan: &Plan,
    watch: &dyn Watch,
) -> Result<DbFacts> {
    watch.begin(Phase::Settle, size);
    let path = out.path().to_owned();
    let writing = || format!("writing {}", path.display());
    let file = out.file().try_clone().and_then(FileSource::new);
    let source = file.doing(Kind::Store, writing)?;
    let (read, synced) = std::thread::scope(|scope| {
        let sync = scope.spawn(|| out.sync());
        let read = || {
            let facts = read_back(&source, size, plan)?;
            if let Some(origin) = &plan.origin {
                compare(origin.clone(), &path, plan)?;
            }
            if let Some(at) = &plan.at {
                at_revision::prove(&source, at)?;
            }
            Ok(facts)
        };
        (read(), sync.join())
    });
    // The disk's failure first: it explains what was read.
    synced
        .map_err(|_| Failure::new(Kind::Unexpected, "the syncing thread ended early"))?
        .doing(Kind::Store, writing)?;
    let facts = read.map_err(|failure: Failure| {
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

/// Checks every page, and compares every bucket that was not edited with its origin.
fn compare(mut expected: BTreeMap<Vec<u8>, Digest>, path: &Path, plan: &Plan) -> Result<()> {
    let checking = || "checking the pages";
    let result = DirectSource::open(path).doing(Kind::NotChecked, checking)?;
    let mut findings = Findings::keeping(1);
    let found = checked_digests(&result, result.size(), Origin::File, &mut findings)
        .doing(Kind::NotChecked, checking)?;
    let errors = |finding: &&Finding| finding.severity == Severity::Error;
    if let Some(finding) = findings.listed().iter().find(errors) {
        return Err(Failure::new(Kind::Unexpected, finding.to_string()));
    }
    let found = found.unwrap_or_default();
    for (name, change) in &plan.changes {
        match change {
            Change::Edit(_) => {
                expected.remove(name);
            }
            Change::Append { key, value } => {
                expected.entry(name.clone()).or_default().add(key, value);
            }
            Change::Extend(entries) | Change::Cut { then: entries, .. } => {
                let digest = expected.entry(name.clone()).or_default();
                for (key, value) in entries {
                    digest.add(key, value);
                }
            }
        }
    }
    for (name, expected) in &expected {
        if found.get(name) != Some(expected) {
            return Err(Failure::new(
                Kind::Unexpected,
                format!(
                    "expected bucket {} with {expected:?}, found {:?}",
                    String::from_utf8_lossy(name),
                    found.get(name)
                ),
            ));
        }
    }
    Ok(())
}
