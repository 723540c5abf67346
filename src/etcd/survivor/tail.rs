//! Applies the tail to the copied database, and bumps the revision after it.

use std::path::Path;

use super::source::{Copied, Looked};
use super::spec::{Raise, writing};
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::apply::{Applied, Collected, apply};
use crate::etcd::bbolt::write::{Change, Edit, amend};
use crate::etcd::bbolt::{FileSource, ReadAt};
use crate::etcd::build::{
    Decision, Phase, Question, Watch, chosen, decide, stop_if, write_amendment,
};
use crate::etcd::datadir::Layout;
use crate::etcd::mvcc::revision_key;
use crate::etcd::snapshot::{DatabaseFacts, Options, inspect};
use crate::etcd::wal::Wal;
use crate::finding::Severity;
use crate::sys::fs::OutFile;

/// What was done to the database.
pub(super) struct Raised {
    pub(super) decision: Decision,
    /// The revision after the tail, before it was bumped.
    pub(super) applied: i64,
    /// How many entries were applied.
    pub(super) entries: u64,
    pub(super) facts: DatabaseFacts,
    pub(super) size: u64,
}

/// Applies the new WAL to the copied database, bumps the revision, and reads the whole result
/// again.
pub(super) fn raise(
    raise: &Raise<'_>,
    looked: &Looked,
    copied: &Copied,
    layout: &Layout,
    watch: &dyn Watch,
) -> Result<Raised> {
    let path = layout.db();
    let reading = || format!("reading {}", path.display());
    let source = FileSource::open(&path).doing(Kind::NotChecked, reading)?;
    let meta = chosen(&source, source.size())?;
    let wal = Wal::list(&layout.wal)?;
    let log = wal.replay(&wal.scan()?, looked.log.start)?;
    let grounds = looked.grounds(&copied.facts);
    let stop = || stop_if(watch);
    let base = looked.base(&source, &meta, &copied.facts, &grounds, &stop);
    let mut written = Collected::default();
    let mut applied = apply(&base, &wal, &log, &mut written)?;
    stop_if(watch)?;
    let decision = decide(&Question {
        bump: raise.bump,
        mark_compacted: raise.mark_compacted,
        snapshot: applied.revision,
        evidence: raise.evidence,
        allow_low: raise.allow_low,
    })?;
    if let Some(revision) = decision.revision {
        mark(&mut applied, &mut written.entries, revision);
    }
    written.add_to(&mut applied.changes);
    let amendment = amend(&source, source.size(), &meta, &applied.changes)?;
    drop(source);
    let mut out = writing(&path, OutFile::go_on(&path, amendment.offset))?;
    let written = write_amendment(&mut out, &amendment).and_then(|()| out.sync());
    writing(&path, written)?;
    let facts = read_again(&path, &applied, &decision, watch)?;
    Ok(Raised {
        applied: applied.revision,
        entries: applied.entries,
        decision,
        facts,
        size: out.len(),
    })
}

/// Adds what `snapshot restore --bump-revision` leaves: an empty entry at the new revision, and
/// the compaction of all below it, which the server finishes when it starts.
fn mark(applied: &mut Applied, written: &mut Vec<(Vec<u8>, Vec<u8>)>, revision: i64) {
    let key = revision_key(revision);
    let meta = applied.changes.entry(b"meta".to_vec());
    if let Change::Edit(edit) = meta.or_insert_with(|| Change::Edit(Edit::default())) {
        edit.put
            .insert(b"scheduledCompactRev".to_vec(), key.clone());
    }
    written.push((key, Vec::new()));
}

/// Checks the database as a snapshot is checked: every page, every revision after the one before.
fn read_again(
    path: &Path,
    applied: &Applied,
    decision: &Decision,
    watch: &dyn Watch,
) -> Result<DatabaseFacts> {
    let wrong = |what: String| {
        Failure::new(Kind::Unexpected, what).doing(format!("reading {} again", path.display()))
    };
    let file = FileSource::open(path).doing(Kind::NotChecked, || path.display().to_string())?;
    watch.begin(Phase::Settle, file.size());
    let told = |progress: crate::etcd::snapshot::Progress| {
        watch.progress(Phase::Settle, progress.hashed.max(progress.walked));
    };
    let report = inspect(&file, &Options::default(), &told)?;
    watch.done(Phase::Settle, file.size());
    let error = |severity| severity == Severity::Error;
    let findings = report.findings.listed();
    if let Some(found) = findings.iter().find(|found| error(found.severity)) {
        return Err(wrong(found.to_string()));
    }
    let Some(facts) = report.facts.filter(|facts| facts.complete) else {
        return Err(wrong("not all of it could be read".to_owned()));
    };
    let revision = decision.revision.unwrap_or(applied.revision);
    if facts.revision != revision || facts.consistent_index != Some(applied.index) {
        return Err(wrong(format!(
            "expected revision {revision} at index {}, found revision {} at index {}",
            applied.index,
            facts.revision,
            facts.consistent_index.unwrap_or_default()
        )));
    }
    Ok(facts)
}
