//! The stopped member's files: locked, so that no etcd starts on them in the meantime, copied and
//! judged.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::spec::{refuse, writing};
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::apply::{Base, Collected, apply};
use crate::etcd::bbolt::write::small_bucket;
use crate::etcd::bbolt::{FileSource, Meta, Metas, Origin, ReadAt};
use crate::etcd::build::{Phase, Watch, stop_if};
use crate::etcd::datadir::{self, DbFacts, Held, Layout, RaftMembers, Report};
use crate::etcd::proto::raft::ConfState;
use crate::etcd::raftsnap::{SIZE_MAX, SnapName};
use crate::etcd::snapshot::{DatabaseFacts, Options, inspect};
use crate::etcd::wal::{EndKind, Log, SnapshotId, Wal};
use crate::finding::{Finding, Findings, Layer, Severity};
use crate::sys::fs::{self as change, OutFile};
use crate::sys::stream_out::StreamOut;

/// A member's files.
pub(super) struct Source {
    dir: PathBuf,
    path: PathBuf,
    file: FileSource,
    raw: File,
    pub(super) wal: Wal,
    _held: Held,
}

/// A database that was copied and found good.
pub(super) struct Copied {
    pub(super) facts: DatabaseFacts,
    pub(super) size: u64,
}

/// WAL and `.snap` files, judged.
pub(super) struct Looked {
    pub(super) report: Report,
    /// The WAL after the snapshot that etcd starts from.
    pub(super) log: Log,
    pub(super) torn: bool,
    /// What is wrong with `.snap` files that are not needed.
    pub(super) snaps: Vec<String>,
}

impl Looked {
    /// What the database and raft tell of members.
    pub(super) fn grounds(&self, facts: &DatabaseFacts) -> Grounds {
        let raft = self.report.raft_members.as_ref();
        Grounds {
            db: DbFacts::of(facts),
            raft: raft.map(RaftMembers::conf_state),
        }
    }

    /// What the tail is applied to.
    pub(super) fn base<'a>(
        &'a self,
        database: &'a dyn ReadAt,
        meta: &'a Meta,
        facts: &'a DatabaseFacts,
        grounds: &'a Grounds,
        stop: &'a dyn Fn() -> Result<()>,
    ) -> Base<'a> {
        let snap = self.report.snaps.iter().find_map(|file| {
            let snap = file.snap.as_ref()?;
            (Some(snap.id) == self.report.start).then_some(snap)
        });
        let store = snap.and_then(|snap| snap.store.as_ref());
        // A start without a .snap file, or with one that has no v2 store, leaves the database to tell.
        let settled = match snap {
            Some(snap) => snap.store.is_none(),
            None => self.report.lacks_snap(),
        };
        Base {
            database,
            meta,
            facts,
            members: match settled {
                true => &grounds.db.members,
                false => store.map_or(&[], |store| store.members.as_slice()),
            },
            removed: match settled {
                true => &grounds.db.removed,
                false => store.map_or(&[], |store| store.removed.as_slice()),
            },
            conf_state: match settled {
                true => grounds.raft.as_ref(),
                false => snap.map(|snap| &snap.conf_state),
            },
            scratch: None,
            stop,
            settled,
        }
    }
}

/// See [`Looked::grounds`].
pub(super) struct Grounds {
    db: DbFacts,
    raft: Option<ConfState>,
}

impl Source {
    /// Opens the files and keeps an etcd from starting on them as long as this lives.
    pub(super) fn hold(layout: &Layout) -> Result<Self> {
        let held = layout.hold()?.ok_or_else(|| {
            let what = format!("a running etcd holds {}", layout.snap.display());
            refuse("etcd-running", what).with(Fact::Path(layout.snap.clone()))
        })?;
        let path = database_of(layout)?;
        let doing = || format!("opening {}", path.display());
        let raw = File::open(&path).doing(Kind::NotChecked, doing)?;
        let file = raw.try_clone().and_then(FileSource::new);
        Ok(Self {
            dir: layout.snap.clone(),
            file: file.doing(Kind::NotChecked, doing)?,
            raw,
            wal: Wal::list(&layout.wal)?,
            path,
            _held: held,
        })
    }

    /// Demands again that nobody has taken the WAL.
    pub(super) fn still_free(&self, layout: &Layout) -> Result<()> {
        match layout.locks()?.any_held() {
            true => Err(refuse(
                "etcd-running",
                "an etcd was started in the meantime",
            )),
            false => Ok(()),
        }
    }

    pub(super) fn database_size(&self) -> u64 {
        self.file.size()
    }

    /// Bytes of all segments.
    pub(super) fn log_size(&self) -> u64 {
        let sizes = self.wal.segments().iter().map(|segment| segment.len);
        sizes.fold(0, u64::saturating_add)
    }

    /// Bytes of the database up to its high-water mark.
    fn length(&self) -> Result<u64> {
        let reading = || format!("reading {}", self.path.display());
        let mut ignored = Findings::keeping(1);
        let metas = Metas::read(&self.file, self.file.size(), Origin::File, &mut ignored)
            .doing(Kind::NotChecked, reading)?;
        let length = metas.and_then(|metas| metas.chosen.database_size());
        let length = length.filter(|length| *length <= self.file.size());
        length.ok_or_else(|| {
            let found = ignored.listed().first().map(ToString::to_string);
            let found = found.unwrap_or_else(|| "its meta pages point beyond its end".to_owned());
            damaged(format!("{}: {found}", self.path.display()))
        })
    }

    /// Copies the database up to its high-water mark and checks the copy, all of it.
    pub(super) fn copy_database(&self, to: &Path, watch: &dyn Watch) -> Result<Copied> {
        let length = self.length()?;
        let mut out = writing(to, OutFile::create(to))?;
        watch.begin(Phase::Copy, length);
        if !writing(to, out.clone_from(&self.raw, length))? {
            out = self.copy(out, length, watch)?;
        }
        watch.done(Phase::Copy, length);
        let file = writing(to, out.file().try_clone().and_then(FileSource::new))?;
        let facts = self.check(file, length, watch)?;
        watch.begin(Phase::Settle, length);
        writing(to, out.sync())?;
        watch.done(Phase::Settle, length);
        Ok(Copied {
            facts,
            size: length,
        })
    }

    /// Checks the database where it is, as a copy of it would be checked.
    pub(super) fn check_database(&self, watch: &dyn Watch) -> Result<DatabaseFacts> {
        let length = self.length()?;
        let doing = || format!("opening {}", self.path.display());
        let file = FileSource::open(&self.path).doing(Kind::NotChecked, doing)?;
        self.check(file, length, watch)
    }

    fn check(&self, file: FileSource, length: u64, watch: &dyn Watch) -> Result<DatabaseFacts> {
        watch.begin(Phase::Check, length);
        let copy = Stoppable {
            file,
            length,
            watch,
        };
        let told = |progress: crate::etcd::snapshot::Progress| {
            watch.progress(Phase::Check, progress.hashed.max(progress.walked));
        };
        let report = inspect(&copy, &Options::default(), &told);
        stop_if(watch)?;
        let report = report?;
        watch.done(Phase::Check, length);
        let good = report.is_good();
        match report.facts {
            Some(facts) if good && facts.complete => Ok(facts),
            _ => {
                let errors = |severity| severity == Severity::Error;
                let first = report.findings.listed().iter().find(|f| errors(f.severity));
                let found = first.map_or("not all could be read".to_owned(), ToString::to_string);
                Err(damaged(format!("{}: {found}", self.path.display())))
            }
        }
    }

    /// What the WAL comes to on the database, for a refusal before anything is written.
    pub(super) fn try_tail(
        &self,
        looked: &Looked,
        facts: &DatabaseFacts,
        watch: &dyn Watch,
    ) -> Result<()> {
        let metas = Metas::of_file(&self.file, self.file.size()).doing(Kind::NotChecked, || {
            format!("reading {}", self.path.display())
        })?;
        let Some(metas) = metas else { return Ok(()) };
        let grounds = looked.grounds(facts);
        let stop = || stop_if(watch);
        let base = looked.base(&self.file, &metas.chosen, facts, &grounds, &stop);
        let mut written = Collected::default();
        apply(&base, &self.wal, &looked.log, &mut written).map(drop)
    }

    fn copy(&self, out: OutFile, length: u64, watch: &dyn Watch) -> Result<OutFile> {
        let path = out.path().to_owned();
        let pass = || -> io::Result<OutFile> {
            let mut stream = StreamOut::new(out)?;
            let mut done = 0;
            while done < length && !watch.stopped() {
                let made = stream.fill(|space| {
                    let most = (length - done).min(space.len() as u64);
                    let piece = space.get_mut(..most as usize).unwrap_or_default();
                    self.file.read_exact_at(piece, done)?;
                    Ok(piece.len())
                })?;
                done += made as u64;
                watch.progress(Phase::Copy, done);
            }
            stream.finish()
        };
        let out = writing(&path, pass())?;
        stop_if(watch)?;
        Ok(out)
    }

    /// Judges WAL and `.snap` files, and whether they agree with the database.
    ///
    /// A torn end is not a fault; damage before the end is, and what to do about it is the
    /// operator's choice. A damaged `.snap` file is a fault only where it is needed: what it holds
    /// is in the WAL and the database too.
    pub(super) fn look(&self, db: &DbFacts, raises: bool) -> Result<Looked> {
        let layout = self.layout();
        let report = datadir::check(&layout, Some(db))?;
        let needs_snap = report.lacks_snap() && !raises && !db.reads_no_snap();
        let fault = |finding: &&Finding| {
            finding.severity == Severity::Error && (needs_snap || finding.layer != Layer::RaftSnap)
        };
        if let Some(finding) = report.findings.iter().find(fault) {
            let last = report.wal.last_entry();
            return Err(damaged(format!(
                "{finding}; entries up to {} of term {} could be read",
                last.index, last.term
            )));
        }
        let log = self.wal.replay(&report.wal.scan, report.log_begins())?;
        if let Some(finding) = log.findings.first() {
            return Err(damaged(finding.to_string()));
        }
        let end = report.wal.scan.end.map(|end| end.kind);
        let snaps = report.findings.iter();
        let snaps = snaps.filter(|finding| finding.layer == Layer::RaftSnap);
        Ok(Looked {
            torn: matches!(end, Some(EndKind::Torn(_))),
            snaps: snaps.map(ToString::to_string).collect(),
            report,
            log,
        })
    }

    fn layout(&self) -> Layout {
        Layout {
            snap: self.dir.clone(),
            wal: self.wal.dir().to_owned(),
        }
    }

    /// Copies the `.snap` file that etcd starts from, if there is one.
    pub(super) fn copy_snap(&self, looked: &Looked, to: &Path) -> Result<()> {
        let Some(SnapshotId { index, term }) = looked.report.start else {
            return Ok(());
        };
        let name = SnapName { term, index };
        let file = looked.report.snaps.iter().find(|file| {
            let is = file.snap.as_ref().map(|snap| snap.id);
            is == looked.report.start
        });
        let from = self
            .dir
            .join(file.map_or(name, |file| file.name).to_string());
        let mut bytes = Vec::new();
        File::open(&from)
            .and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes))
            .doing(Kind::NotChecked, || format!("reading {}", from.display()))?;
        change::write_new(&to.join(name.to_string()), &bytes)
    }
}

/// The database that etcd would take: one received from a leader where the member's own has not
/// come as far as the snapshot that it was sent with (etcd, `server/etcdserver/backend.go`).
fn database_of(layout: &Layout) -> Result<PathBuf> {
    let own = layout.db();
    let doing = || format!("looking at {}", own.display());
    if !fs::exists(&own).doing(Kind::NotChecked, doing)? {
        return Err(damaged(format!("{} does not exist", own.display())));
    }
    let mut received = Vec::new();
    for entry in fs::read_dir(&layout.snap).doing(Kind::NotChecked, doing)? {
        let name = entry.doing(Kind::NotChecked, doing)?.file_name();
        let index = name.to_str().and_then(|name| name.strip_suffix(".snap.db"));
        let index = index.filter(|digits| digits.len() == 16);
        received.extend(index.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
    }
    if received.is_empty() {
        return Ok(own);
    }
    let report = datadir::check(layout, None)?;
    let marks = report.wal.scan.usable_snapshots();
    // Without a .snap file etcd from 3.7 on starts from the newest that the WAL has a record of.
    let starts = [report.start, marks.last().copied()];
    let applied = applied(&own)?;
    let mut starts = starts.into_iter().flatten().map(|start| start.index);
    let theirs = starts.find(|start| received.contains(start) && applied < *start);
    Ok(theirs.map_or(own, |start| {
        layout.snap.join(format!("{start:016x}.snap.db"))
    }))
}

/// A database's consistent index, without reading all of it.
///
/// # Errors
/// [`Kind::NotChecked`] if it cannot be read.
pub fn applied(path: &Path) -> Result<u64> {
    let doing = || format!("reading {}", path.display());
    let file = FileSource::open(path).doing(Kind::NotChecked, doing)?;
    let metas = Metas::of_file(&file, file.size()).doing(Kind::NotChecked, doing)?;
    let Some(metas) = metas else { return Ok(0) };
    let meta = small_bucket(&file, file.size(), &metas.chosen, b"meta")?;
    let value = meta.iter().find(|(key, _)| key == b"consistent_index");
    let value = value.and_then(|(_, value)| value.as_slice().try_into().ok());
    Ok(value.map_or(0, u64::from_be_bytes))
}

pub(super) fn damaged(what: String) -> Failure {
    refuse(
        "damaged-survivor",
        format!(
            "{what}. Use another member's disk (etcd-dr verify --compare names the best of several), or restore the newest backup. If there is neither, restore member/snap/db of this disk as a snapshot: without the WAL, the newest writes are lost"
        ),
    )
}

/// A copy whose reads fail after a request to stop.
struct Stoppable<'a> {
    file: FileSource,
    length: u64,
    watch: &'a dyn Watch,
}

impl ReadAt for Stoppable<'_> {
    fn size(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.watch.stopped() {
            return Err(io::Error::other("interrupted"));
        }
        self.file.read_exact_at(buf, offset)
    }
}
