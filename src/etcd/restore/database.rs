//! The database of the new directory: copied or rewritten, checked, changed, read back.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::grown::{Grown, grow};
use super::plan::{Plan, refuse};
use super::settle::settle;
use super::source::Source;
use super::spec::{AtRevision, Spec};
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::bbolt::write::{Change, amend, digests_left, meta_pages, rewrite, small_bucket};
use crate::etcd::bbolt::{FileSource, Metas, ReadAt};
use crate::etcd::build::{Decision, Phase, Watch, chosen, stop_if, write_amendment};
use crate::etcd::datadir::DbFacts;
use crate::etcd::hashkv::At;
use crate::etcd::roll::Rolled;
use crate::etcd::segment::Extended;
use crate::etcd::snapshot::{
    LayerState, Options, Packed, Report, Shape, Trailer, inspect, is_raw_copy,
};
use crate::finding::Layer;
use crate::sys::fs::{self, OutFile};
use crate::sys::stream_out::StreamOut;

/// Bytes read at a time behind the database.
const REST: usize = 64 << 10;

/// A snapshot that was looked at from outside.
pub(super) struct Database {
    file: File,
    source: FileSource,
    shape: Shape,
    /// Bytes before the trailer.
    data: u64,
    skip_hash_check: bool,
    /// The revision to restore to, if that is not its own.
    to_revision: Option<i64>,
    /// Whether it is a copy of a database's own file.
    raw: bool,
}

/// The note on a snapshot that is a copy of a database file.
pub const RAW_COPY: &str = "the snapshot is a copy of a database file: it has no integrity hash, and may lack the last writes, which are only in the member's WAL; all of it was checked";

/// A database that is being made.
pub(super) struct Made {
    pub(super) report: Report,
    pub(super) decision: Decision,
    pub(super) notes: Vec<String>,
    pub(super) size: u64,
    pub(super) at: Option<AtRevision>,
    pub(super) rolled: Option<Rolled>,
    pub(super) extended: Option<Extended>,
    /// What the result says of itself.
    pub(super) facts: DbFacts,
}

impl Database {
    /// Opens a snapshot, which must have a trailer unless its check is skipped.
    pub(super) fn open(spec: &Spec<'_>) -> Result<Self> {
        let (path, skip_hash_check) = (spec.snapshot, spec.skip_hash_check);
        let doing = || format!("opening {}", path.display());
        // Refuses what is not a regular file: to open a pipe would wait for its writer.
        let probe = FileSource::open(path).doing(Kind::NotChecked, doing)?;
        drop(probe);
        let file = File::open(path).doing(Kind::NotChecked, doing)?;
        let source = file.try_clone().and_then(FileSource::new);
        let source = source.doing(Kind::NotChecked, doing)?;
        let packed = Packed::of(&source).doing(Kind::NotChecked, doing)?;
        if let Some(packed) = packed {
            let path = path.display();
            let what = format!("{path} is {}", packed.told(&path.to_string()));
            return Err(Failure::new(Kind::BadBackup, what));
        }
        let shape = Shape::of(source.size());
        // A copy of a database file never had a hash; like everything, it is checked page by page
        // and key by key.
        let raw = is_raw_copy(&source)?;
        if shape == Shape::Unsealed && !raw && !skip_hash_check {
            return Err(Failure::refused(
                "no-integrity-hash",
                format!(
                    "{} lacks the SHA-256 at its end: a changed byte could go unnoticed",
                    path.display()
                ),
            )
            .with(Fact::Path(path.to_owned())));
        }
        Ok(Self {
            shape,
            data: shape.data(source.size()),
            file,
            source,
            skip_hash_check,
            to_revision: spec.to_revision,
            raw,
        })
    }

    /// Bytes that the copy will have at most.
    pub(super) fn size(&self) -> u64 {
        self.data
    }

    /// Makes the database at a path that must not exist; durable, except for its directory entry.
    pub(super) fn make(&self, spec: &Spec<'_>, to: &Path, watch: &dyn Watch) -> Result<Made> {
        let writing = || format!("writing {}", to.display());
        let Some(length) = self.length()? else {
            return Err(self.no_database(watch));
        };
        let out = OutFile::create(to).doing(Kind::Store, writing)?;
        let (plan, grown, mut out) = if spec.grows_and_shrinks() {
            self.grow_and_rewrite(spec, out, length, watch)?
        } else if spec.compact {
            let (plan, out) = self.check_and_rewrite(spec, out, watch)?;
            (plan, Grown::No, out)
        } else {
            self.copy_and_amend(spec, out, length, watch)?
        };
        stop_if(watch)?;
        let size = out.len();
        let facts = settle(&mut out, size, &plan, watch)?;
        let mut notes = plan.notes;
        if self.raw {
            notes.push(RAW_COPY.to_owned());
        }
        Ok(Made {
            report: plan.report,
            decision: plan.decision,
            notes,
            size,
            at: plan.at,
            rolled: grown.rolled(),
            extended: grown.extended(),
            facts,
        })
    }

    /// What is asked of an inspection.
    fn options(&self, trailer: bool) -> Options {
        Options {
            trailer,
            hash_kv: At {
                revision: self.to_revision,
                compacted_at: None,
            },
            ..Options::default()
        }
    }

    /// Bytes up to the high-water mark, which is all that is copied; `None` if there is no
    /// database of that size.
    fn length(&self) -> Result<Option<u64>> {
        let metas = Metas::of_file(&self.source, self.data)
            .doing(Kind::NotChecked, || "reading the snapshot")?;
        let length = metas.and_then(|metas| metas.chosen.database_size());
        Ok(length.filter(|length| *length <= self.data))
    }

    /// The failure for a file whose metas alone show that it cannot be restored.
    fn no_database(&self, watch: &dyn Watch) -> Failure {
        let source = Source::of(&self.source, watch);
        match self.inspect(&source, watch) {
            Ok(report) => refuse(&report),
            Err(failure) => failure,
        }
    }

    /// Copies the database, checks the copy, and continues it with what is asked for.
    fn copy_and_grow(
        &self,
        spec: &Spec<'_>,
        mut out: OutFile,
        length: u64,
        watch: &dyn Watch,
    ) -> Result<(Grown, Report, OutFile)> {
        let path = out.path().to_owned();
        let writing = || format!("writing {}", path.display());
        // A reflink costs nothing, but passes no bytes through the hasher, so the copy is inspected
        // afterwards. Otherwise the bytes are checked as they are copied (see `copy`).
        let cloned = out.clone_from(&self.file, length);
        let report = if !cloned.doing(Kind::Store, writing)? {
            let (report, copied) = self.copy(out, length, watch)?;
            out = copied;
            report
        } else {
            None
        };
        // From here on the copy is judged: another process may write to the snapshot in the
        // meantime.
        let copy = out.file().try_clone().doing(Kind::Store, writing)?;
        let source = Source {
            copy: Some((&copy, length)),
            ..Source::of(&self.source, watch)
        };
        let report = match report {
            Some(report) => report,
            None => self.inspect(&source, watch)?,
        };
        let (grown, report) = grow(spec, &mut out, report, &self.options(false), watch)?;
        Ok((grown, report, out))
    }

    fn copy_and_amend(
        &self,
        spec: &Spec<'_>,
        out: OutFile,
        length: u64,
        watch: &dyn Watch,
    ) -> Result<(Plan, Grown, OutFile)> {
        let path = out.path().to_owned();
        let writing = || format!("writing {}", path.display());
        let (grown, report, mut out) = self.copy_and_grow(spec, out, length, watch)?;
        // From here on the copy is read: another process may write to the snapshot in the meantime.
        let copy = out.file().try_clone().doing(Kind::Store, writing)?;
        let source = Source {
            copy: Some((&copy, length)),
            ..Source::of(&self.source, watch)
        };
        // A database that was continued is longer than the copy was.
        let whole = out.file().try_clone().and_then(FileSource::new);
        let whole = whole.doing(Kind::Store, writing)?;
        let (source, length): (&dyn ReadAt, u64) = match &grown {
            Grown::No => (&source, length),
            _ => (&whole, whole.size()),
        };
        let meta = chosen(source, length)?;
        let leases = || small_bucket(source, length, &meta, b"lease");
        let plan = Plan::make(spec, report, leases)?;
        let amendment = amend(source, length, &meta, &plan.changes)?;
        write_amendment(&mut out, &amendment).doing(Kind::Store, writing)?;
        Ok((plan, grown, out))
    }

    /// Copies the database. One with a trailer is hashed on the way, so the trailer vouches for
    /// exactly the bytes that were written; its trees are walked at the same time. One without a
    /// trailer could change between the walk and the copy, so there is no report on it yet.
    fn copy(
        &self,
        mut out: OutFile,
        length: u64,
        watch: &dyn Watch,
    ) -> Result<(Option<Report>, OutFile)> {
        let path = out.path().to_owned();
        let writing = || format!("writing {}", path.display());
        out.preallocate(length).doing(Kind::Store, writing)?;
        watch.begin(Phase::Copy, self.data);
        if self.shape != Shape::Sealed || self.skip_hash_check {
            let source = Source::of(&self.source, watch);
            let copied = self.pass(&source, out, length, &mut |_| {}, watch);
            stop_if(watch)?;
            let (out, _) = copied.doing(Kind::Store, writing)?;
            watch.done(Phase::Copy, self.data);
            return Ok((None, out));
        }
        let halt = AtomicBool::new(false);
        let source = Source {
            halt: Some(&halt),
            ..Source::of(&self.source, watch)
        };
        let options = self.options(false);
        let mut hasher = Sha256::new();
        let (report, copied) = std::thread::scope(|scope| {
            // The walk reads the snapshot, not the copy. That is safe for a sealed one only: had it
            // changed between walk and copy, the copy's hash would differ from the trailer.
            let walk = scope.spawn(|| inspect(&source, &options, &|_| {}));
            let mut hash = |piece: &[u8]| hasher.update(piece);
            let copied = self.pass(&source, out, length, &mut hash, watch);
            // A full disk ends the copy early; the walk of a large database must not delay that
            // report for minutes.
            halt.store(copied.is_err(), Ordering::Relaxed);
            (walk.join(), copied)
        });
        stop_if(watch)?;
        let (out, zeros) = copied.doing(Kind::Store, writing)?;
        let report = report
            .map_err(|_| Failure::new(Kind::Unexpected, "the walking thread ended early"))??;
        watch.done(Phase::Copy, self.data);
        let report = self.sealed(report, hasher.finalize().into(), zeros)?;
        Ok((Some(report), out))
    }

    /// Sends all bytes before the trailer through `each`, and those up to `length` to the file.
    /// Returns whether the bytes behind `length` are all zero.
    fn pass(
        &self,
        source: &Source<'_>,
        out: OutFile,
        length: u64,
        each: &mut dyn FnMut(&[u8]),
        watch: &dyn Watch,
    ) -> io::Result<(OutFile, bool)> {
        let mut stream = StreamOut::new(out)?;
        let mut done = 0;
        while done < length {
            let made = stream.fill(|space| {
                let most = (length - done).min(space.len() as u64);
                let piece = space.get_mut(..most as usize).unwrap_or_default();
                source.read_exact_at(piece, done)?;
                each(piece);
                Ok(piece.len())
            })?;
            done += made as u64;
            watch.progress(Phase::Copy, done);
        }
        // The trailer's hash covers what follows the database, too.
        let mut rest = vec![0; REST];
        let mut zeros = true;
        while done < self.data {
            let most = (self.data - done).min(REST as u64);
            let piece = rest.get_mut(..most as usize).unwrap_or_default();
            source.read_exact_at(piece, done)?;
            each(piece);
            zeros &= piece.iter().all(|byte| *byte == 0);
            done += most;
        }
        Ok((stream.finish()?, zeros))
    }

    /// Adds the judgement of the trailer to a report.
    fn sealed(&self, mut report: Report, found: [u8; 32], zeros: bool) -> Result<Report> {
        let mut stored = [0; 32];
        self.source
            .read_exact_at(&mut stored, self.data)
            .doing(Kind::NotChecked, || "reading the snapshot's trailer")?;
        let (expected, found) = (hex::encode(stored), hex::encode(found));
        if expected != found {
            report.findings.error(Layer::Trailer, None, || {
                (format!("SHA-256 {expected}"), found.clone())
            });
        }
        if !zeros {
            report.findings.error(Layer::Trailer, None, || {
                (
                    "nothing but zeros between the database and its trailer".into(),
                    "other bytes".into(),
                )
            });
        }
        let state = match report.findings.errors_in(Layer::Trailer) {
            0 => LayerState::Ok,
            _ => LayerState::Failed,
        };
        for (layer, known) in &mut report.layers {
            if *layer == Layer::Trailer {
                known.clone_from(&state);
            }
        }
        report.trailer = if expected == found {
            Trailer::Ok { sha256: found }
        } else {
            Trailer::Mismatch { expected, found }
        };
        Ok(report)
    }

    /// Continues a copy next to the result, and writes the result from that.
    fn grow_and_rewrite(
        &self,
        spec: &Spec<'_>,
        out: OutFile,
        length: u64,
        watch: &dyn Watch,
    ) -> Result<(Plan, Grown, OutFile)> {
        let between = out.path().with_extension("continued");
        let writing = || format!("writing {}", between.display());
        let copy = OutFile::create(&between).doing(Kind::Store, writing)?;
        let (grown, report, copy) = self.copy_and_grow(spec, copy, length, watch)?;
        let whole = copy.file().try_clone().and_then(FileSource::new);
        let whole = whole.doing(Kind::Store, writing)?;
        let source = Source::of(&whole, watch);
        let (plan, out) = rewritten(spec, report, (&source, whole.size()), out, watch)?;
        // If anything failed before, it goes with the folder that the directory is built in.
        fs::unlink(&between)?;
        Ok((plan, grown, out))
    }

    fn check_and_rewrite(
        &self,
        spec: &Spec<'_>,
        out: OutFile,
        watch: &dyn Watch,
    ) -> Result<(Plan, OutFile)> {
        let source = Source::of(&self.source, watch);
        let report = self.inspect(&source, watch)?;
        rewritten(spec, report, (&source, self.data), out, watch)
    }

    /// Checks everything that will be read of the snapshot.
    fn inspect(&self, source: &Source<'_>, watch: &dyn Watch) -> Result<Report> {
        watch.begin(Phase::Check, source.size());
        let options = self.options(!self.skip_hash_check);
        let progress = |progress: crate::etcd::snapshot::Progress| {
            watch.progress(Phase::Check, progress.hashed.max(progress.walked));
        };
        let report = inspect(source, &options, &progress);
        stop_if(watch)?;
        watch.done(Phase::Check, source.size());
        report
    }
}

/// Writes a database that was checked without its free pages, and with what is changed in it.
fn rewritten(
    spec: &Spec<'_>,
    report: Report,
    (source, length): (&Source<'_>, u64),
    out: OutFile,
    watch: &dyn Watch,
) -> Result<(Plan, OutFile)> {
    let path = out.path().to_owned();
    let writing = || format!("writing {}", path.display());
    let leases = || small_bucket(source, length, &chosen(source, length)?, b"lease");
    let mut plan = Plan::make(spec, report, leases)?;
    let meta = chosen(source, length)?;
    watch.begin(Phase::Rewrite, length);
    let done = AtomicU64::new(0);
    let progress = |more| {
        let done = done.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        watch.progress(Phase::Rewrite, done);
    };
    let stream = StreamOut::new(out).doing(Kind::Store, writing)?;
    // What the result must hold is what was inspected, and not taken from what is being written. A cut
    // leaves a part of that, which is read once more.
    let is_cut = |change: &Change| matches!(change, Change::Cut { .. });
    let cut = plan.changes.values().any(is_cut);
    let (written, left) = std::thread::scope(|scope| {
        let left = || digests_left(source, length, &meta, &plan.changes);
        let left = cut.then(|| scope.spawn(left));
        let written = rewrite(
            source,
            length,
            &meta,
            &plan.changes,
            meta.page_size,
            stream,
            &progress,
        );
        (written, left.map(|left| left.join()))
    });
    stop_if(watch)?;
    let (meta, stream) = written?;
    let left = left
        .transpose()
        .map_err(|_| Failure::new(Kind::Unexpected, "the reading thread ended early"))?
        .transpose()?;
    plan.origin = Some(left.unwrap_or_else(|| plan.report.contents.clone()));
    let mut out = stream.finish().doing(Kind::Store, writing)?;
    watch.done(Phase::Rewrite, length);
    for (page, bytes) in (0..).zip(&meta_pages(&meta)) {
        out.write_at(page * u64::from(meta.page_size), bytes)
            .doing(Kind::Store, writing)?;
    }
    Ok((plan, out))
}
