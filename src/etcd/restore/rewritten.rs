//! A database that is written in order, without its free pages.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::plan::Plan;
use super::source::Source;
use super::spec::Spec;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::write::{
    Change, Changes, Digest, Input, Rewriting, WrittenCheck, digests_left, meta_pages, small_bucket,
};
use crate::etcd::bbolt::{Meta, ReadAt};
use crate::etcd::build::{Phase, Watch, chosen, stop_if};
use crate::etcd::snapshot::Report;
use crate::finding::{Findings, Severity};
use crate::sys::fs::OutFile;
use crate::sys::read_back::ReadBack;
use crate::sys::stream_out::StreamOut;

/// What is known of a database that was rewritten, until it is durable.
pub(super) struct Rewritten {
    /// Reads it from the disk, behind the writer.
    back: ReadBack,
    /// Bytes that are read that way.
    length: u64,
    check: Arc<Mutex<WrittenCheck>>,
    /// What its buckets must hold. It comes from the inspection, and not from what was written.
    expected: BTreeMap<Vec<u8>, Digest>,
}

impl Rewritten {
    /// Waits until all of it was read from the disk, where it must be durable by now, and compares each
    /// bucket with what was inspected.
    pub(super) fn prove(self, source: &dyn ReadAt) -> Result<()> {
        let wrong = |what: String| Failure::new(Kind::Unexpected, what);
        let reading = || "checking the pages";
        self.back
            .finish(self.length)
            .doing(Kind::Unexpected, reading)?;
        let check = Arc::into_inner(self.check)
            .ok_or_else(|| wrong("the pages are still being read".to_owned()))?;
        let check = check.into_inner().unwrap_or_else(PoisonError::into_inner);
        let meta = chosen(source, source.size())?;
        let mut findings = Findings::keeping(1);
        let found = check.end(source, &meta, &mut findings);
        let found = found.doing(Kind::NotChecked, reading)?;
        let Some(found) = found else {
            let listed = findings.listed().iter();
            let mut errors = listed.filter(|finding| finding.severity == Severity::Error);
            let first = errors.next().map(ToString::to_string);
            return Err(wrong(first.unwrap_or_else(|| "a page is wrong".to_owned())));
        };
        for (name, expected) in &self.expected {
            if found.get(name) != Some(expected) {
                return Err(wrong(format!(
                    "expected bucket {} with {expected:?}, found {:?}",
                    String::from_utf8_lossy(name),
                    found.get(name)
                )));
            }
        }
        Ok(())
    }
}

/// Tells how much has been read, once that is what the run waits for.
pub(super) struct Told<'a> {
    watch: &'a dyn Watch,
    done: AtomicU64,
    begun: AtomicBool,
}

impl<'a> Told<'a> {
    pub(super) fn new(watch: &'a dyn Watch) -> Self {
        Self {
            watch,
            done: AtomicU64::new(0),
            begun: AtomicBool::new(false),
        }
    }

    pub(super) fn read(&self, more: u64) {
        let done = self.done.fetch_add(more, Ordering::Relaxed);
        if self.begun.load(Ordering::Relaxed) {
            let done = done.saturating_add(more);
            self.watch.progress(Phase::Rewrite, done);
        }
    }

    fn begin(&self, total: u64) {
        self.watch.begin(Phase::Rewrite, total);
        self.begun.store(true, Ordering::Relaxed);
        self.read(0);
    }
}

/// A database that is being written in order, in pages of the old one's size.
pub(super) struct Begun {
    rewriting: Rewriting<StreamOut>,
    check: Arc<Mutex<WrittenCheck>>,
    path: PathBuf,
    /// Where the first page behind the metas is.
    begin: u64,
}

impl Begun {
    pub(super) fn new(mut out: OutFile, meta: &Meta) -> Result<Self> {
        let path = out.path().to_owned();
        let writing = || format!("writing {}", path.display());
        // The metas come last, so that what is written before them is read back as it was written.
        let begin = 2 * u64::from(meta.page_size);
        out.go_on_at(begin).doing(Kind::Store, writing)?;
        let check = Arc::new(Mutex::new(WrittenCheck::new(meta.page_size)));
        let shown = Arc::clone(&check);
        let judge = move |piece: &[u8]| {
            let mut check = shown.lock().unwrap_or_else(PoisonError::into_inner);
            check.take(piece);
        };
        let stream = StreamOut::judged(out, Box::new(judge)).doing(Kind::Store, writing)?;
        Ok(Self {
            rewriting: Rewriting::new(meta.page_size, stream),
            check,
            path,
            begin,
        })
    }

    /// Begins with the bucket `key`, which is nearly all of a database, while it is still being checked.
    pub(super) fn early(out: OutFile, input: &Input<'_>) -> Result<Self> {
        let mut begun = Self::new(out, input.meta)?;
        begun.rewriting.begin_with(input, b"key")?;
        Ok(begun)
    }

    /// Writes all that is not written, with the changes. `input` was checked.
    pub(super) fn finish(
        self,
        plan: &Plan,
        input: &Input<'_>,
        told: &Told<'_>,
    ) -> Result<(OutFile, Rewritten)> {
        let writing = || format!("writing {}", self.path.display());
        let watch = told.watch;
        told.begin(input.data);
        // A cut leaves a part of what was inspected, which is read once more.
        let is_cut = |change: &Change| matches!(change, Change::Cut { .. });
        let cut = plan.changes.values().any(is_cut);
        let rewriting = self.rewriting;
        let (written, left) = std::thread::scope(|scope| {
            let left = || digests_left(input.source, input.data, input.meta, &plan.changes);
            let left = cut.then(|| scope.spawn(left));
            let written = rewriting.finish(input, &plan.changes);
            (written, left.map(|left| left.join()))
        });
        stop_if(watch)?;
        let (meta, stream) = written?;
        let left = left
            .transpose()
            .map_err(|_| Failure::new(Kind::Unexpected, "the reading thread ended early"))?
            .transpose()?;
        let (mut out, back) = stream.finish_proven().doing(Kind::Store, writing)?;
        watch.done(Phase::Rewrite, input.data);
        for (page, bytes) in (0..).zip(&meta_pages(&meta)) {
            out.write_at(page * u64::from(meta.page_size), bytes)
                .doing(Kind::Store, writing)?;
        }
        let origin = left.unwrap_or_else(|| plan.report.contents.clone());
        let rewritten = Rewritten {
            back,
            length: out.len() - self.begin,
            check: self.check,
            expected: changed(origin, &plan.changes),
        };
        Ok((out, rewritten))
    }
}

/// Writes a database that was checked without its free pages, and with what is changed in it.
pub(super) fn rewritten(
    spec: &Spec<'_>,
    report: Report,
    (source, data): (&Source<'_>, u64),
    out: OutFile,
    watch: &dyn Watch,
) -> Result<(Plan, OutFile, Rewritten)> {
    let meta = chosen(source, data)?;
    let leases = || small_bucket(source, data, &meta, b"lease");
    let plan = Plan::make(spec, report, leases)?;
    let told = Told::new(watch);
    let input = Input {
        source,
        data,
        meta: &meta,
        progress: &|more| told.read(more),
    };
    let (out, rewritten) = Begun::new(out, &meta)?.finish(&plan, &input, &told)?;
    Ok((plan, out, rewritten))
}

/// What buckets hold once they are changed; those that are edited are read entry by entry instead.
fn changed(mut digests: BTreeMap<Vec<u8>, Digest>, changes: &Changes) -> BTreeMap<Vec<u8>, Digest> {
    for (name, change) in changes {
        match change {
            Change::Edit(_) => {
                digests.remove(name);
            }
            Change::Append { key, value } => {
                digests.entry(name.clone()).or_default().add(key, value);
            }
            Change::Extend(entries) | Change::Cut { then: entries, .. } => {
                let digest = digests.entry(name.clone()).or_default();
                for (key, value) in entries {
                    digest.add(key, value);
                }
            }
        }
    }
    digests
}
