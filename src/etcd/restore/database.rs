//! The database of the new directory: copied or rewritten, checked, changed, read back.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::grown::{Grown, grow};
use super::plan::{Plan, refuse};
use super::rewritten::{Begun, Rewritten, Told, rewritten};
use super::settle::settle;
use super::source::Source;
use super::spec::{AtRevision, Spec};
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::bbolt::write::{Input, amend, small_bucket};
use crate::etcd::bbolt::{FileSource, Metas, ReadAt};
use crate::etcd::build::{Decision, Phase, Watch, chosen, stop_if, write_amendment};
use crate::etcd::datadir::DbFacts;
use crate::etcd::hashkv::At;
use crate::etcd::roll::Rolled;
use crate::etcd::segment::Extended;
use crate::etcd::snapshot::{
    Options, OrderedReads, Packed, Progress, Report, Shape, inspect, inspect_and_copy, is_raw_copy,
};
use crate::sys::fs::{self, OutFile};
use crate::sys::stream_out::StreamOut;

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
        let (plan, grown, mut out, rewritten) = if spec.grows_and_shrinks() {
            let (plan, grown, out, new) = self.grow_and_rewrite(spec, out, length, watch)?;
            (plan, grown, out, Some(new))
        } else if spec.compact {
            let (plan, out, new) = self.check_and_rewrite(spec, out, watch)?;
            (plan, Grown::No, out, Some(new))
        } else {
            let (plan, grown, out) = self.copy_and_amend(spec, out, length, watch)?;
            (plan, grown, out, None)
        };
        stop_if(watch)?;
        let facts = settle(&mut out, &plan, rewritten, watch)?;
        let size = out.len();
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

    /// Copies the database. One with a trailer is hashed and checked on the way, so the trailer vouches
    /// for exactly the bytes that were written. One without a trailer could change between the check and
    /// the copy, so there is no report on it yet.
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
        let mut stream = StreamOut::new(out).doing(Kind::Store, writing)?;
        let (report, copied) = match self.shape {
            Shape::Sealed if !self.skip_hash_check => {
                self.copy_and_check(&mut stream, length, watch)?
            }
            _ => (None, self.copy_alone(&mut stream, length, watch)),
        };
        stop_if(watch)?;
        let copied = copied.and_then(|()| stream.finish());
        let out = copied.doing(Kind::Store, writing)?;
        watch.done(Phase::Copy, self.data);
        Ok((report, out))
    }

    /// Writes what is inspected. The copy's failure comes by itself, as it is not one of reading.
    fn copy_and_check(
        &self,
        stream: &mut StreamOut,
        length: u64,
        watch: &dyn Watch,
    ) -> Result<(Option<Report>, io::Result<()>)> {
        let halt = AtomicBool::new(false);
        let source = Source {
            halt: Some(&halt),
            ..Source::of(&self.source, watch)
        };
        let (mut left, mut copied) = (length, Ok(()));
        let mut copy = |piece: &[u8]| {
            // The trailer's hash covers what follows the database, too.
            let len = left.min(piece.len() as u64);
            left -= len;
            copied = stream.write_all(piece.get(..len as usize).unwrap_or_default());
            if copied.is_err() {
                // A full disk ends the copy early; the walk of a large database must not delay that
                // report for minutes.
                halt.store(true, Ordering::Relaxed);
                return Err(io::Error::other("the copy ended early"));
            }
            Ok(())
        };
        let progress = |progress: Progress| watch.progress(Phase::Copy, progress.hashed);
        let report = inspect_and_copy(&source, &self.options(true), Some(&mut copy), &progress);
        match copied {
            Err(cause) => Ok((None, Err(cause))),
            Ok(()) => {
                stop_if(watch)?;
                Ok((Some(report?), Ok(())))
            }
        }
    }

    fn copy_alone(&self, stream: &mut StreamOut, length: u64, watch: &dyn Watch) -> io::Result<()> {
        let source = Source::of(&self.source, watch);
        let mut done = 0;
        while done < length {
            let made = stream.fill(|space| {
                let most = (length - done).min(space.len() as u64);
                let piece = space.get_mut(..most as usize).unwrap_or_default();
                source.read_exact_at(piece, done)?;
                Ok(piece.len())
            })?;
            done += made as u64;
            watch.progress(Phase::Copy, done);
        }
        Ok(())
    }

    /// Continues a copy next to the result, and writes the result from that.
    fn grow_and_rewrite(
        &self,
        spec: &Spec<'_>,
        out: OutFile,
        length: u64,
        watch: &dyn Watch,
    ) -> Result<(Plan, Grown, OutFile, Rewritten)> {
        let between = out.path().with_extension("continued");
        let writing = || format!("writing {}", between.display());
        let copy = OutFile::create(&between).doing(Kind::Store, writing)?;
        let (grown, report, copy) = self.copy_and_grow(spec, copy, length, watch)?;
        let whole = copy.file().try_clone().and_then(FileSource::new);
        let whole = whole.doing(Kind::Store, writing)?;
        let source = Source::of(&whole, watch);
        let (plan, out, new) = rewritten(spec, report, (&source, whole.size()), out, watch)?;
        // If anything failed before, it goes with the folder that the directory is built in.
        fs::unlink(&between)?;
        Ok((plan, grown, out, new))
    }

    /// Writes the database while it is checked, as far as that can be done. What is written is compared
    /// with what was checked in the end.
    fn check_and_rewrite(
        &self,
        spec: &Spec<'_>,
        out: OutFile,
        watch: &dyn Watch,
    ) -> Result<(Plan, OutFile, Rewritten)> {
        let halt = AtomicBool::new(false);
        let source = Source {
            halt: Some(&halt),
            ..Source::of(&self.source, watch)
        };
        if self.to_revision.is_some() {
            // Which keys stay is known only once all have been seen.
            let report = self.inspect(&source, watch)?;
            return rewritten(spec, report, (&source, self.data), out, watch);
        }
        let meta = chosen(&source, self.data)?;
        let told = Told::new(watch);
        let ordered = OrderedReads::new(&source);
        let input = Input {
            source: &ordered,
            data: self.data,
            meta: &meta,
            progress: &|more| told.read(more),
        };
        let (report, begun) = std::thread::scope(|scope| {
            let leader = ordered.leader();
            let begun = scope.spawn(|| {
                let begun = Begun::early(out, &input);
                let full = |failure: &Failure| failure.kind() == Kind::Store;
                if begun.as_ref().is_err_and(full) {
                    halt.store(true, Ordering::Relaxed);
                }
                begun
            });
            let report = self.inspect_ahead(&source, watch, &|hashed| ordered.advance_to(hashed));
            if !report.as_ref().is_ok_and(Report::is_good) {
                halt.store(true, Ordering::Relaxed);
            }
            drop(leader);
            (report, begun.join())
        });
        stop_if(watch)?;
        let ended_early = |_| Failure::new(Kind::Unexpected, "the rewriting thread ended early");
        let begun = match begun.map_err(ended_early)? {
            Err(failure) if failure.kind() == Kind::Store => return Err(failure),
            begun => begun,
        };
        // What is wrong with the snapshot is the inspection's to say.
        let leases = || small_bucket(&source, self.data, &meta, b"lease");
        let plan = Plan::make(spec, report?, leases)?;
        let (out, rewritten) = begun?.finish(&plan, &input, &told)?;
        Ok((plan, out, rewritten))
    }

    /// Checks everything that will be read of the snapshot.
    fn inspect(&self, source: &Source<'_>, watch: &dyn Watch) -> Result<Report> {
        self.inspect_ahead(source, watch, &|_| {})
    }

    /// The same; `hashed` gets how far the hash has come, for a reader that follows it.
    fn inspect_ahead(
        &self,
        source: &Source<'_>,
        watch: &dyn Watch,
        hashed: &(dyn Fn(u64) + Sync),
    ) -> Result<Report> {
        watch.begin(Phase::Check, source.size());
        let options = self.options(!self.skip_hash_check);
        let progress = |progress: Progress| {
            hashed(progress.hashed);
            watch.progress(Phase::Check, progress.hashed.max(progress.walked));
        };
        let report = inspect(source, &options, &progress);
        stop_if(watch)?;
        watch.done(Phase::Check, source.size());
        report
    }
}
