//! A member's data directory made from a snapshot, without an etcd binary.
//!
//! ```text
//! member/snap/db                   the snapshot's database, changed as `changes` tells
//! member/snap/<term>-<index>.snap  the founding membership, for releases up to 3.6
//! member/wal/0-0.wal               the founding log, preallocated
//! ```
//!
//! The order: the snapshot is copied beside its future place; the copy is what is checked, all of
//! it, so that what was checked is what etcd will read; then it is changed, and the log and the
//! `.snap` file are written; everything is made durable, the result is read again, and one rename
//! puts it into place. Until then nothing stands there; a failure leaves nothing behind, a crash
//! at most a hidden directory that the next run removes.
//!
//! Modes are 0700 for directories and 0600 for files; etcd's own `.snap` files are 0644.

mod bump;
mod changes;
mod database;
mod live;
pub(super) mod place;
mod target;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use bump::{Bump, Decision, Evidence, HIGHEST, Question, SLACK, decide};
pub use database::RAW_COPY;
pub use live::newest_revision;
pub use place::{HIDDEN, LOST_AND_FOUND};
pub use target::TargetVersion;

use self::database::Database;
use self::place::Site;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::datadir::{self, DbFacts, Layout};
use crate::etcd::finding::Severity;
use crate::etcd::ids::{FoundingCluster, MemberId};
use crate::etcd::raftsnap;
use crate::etcd::snapshot::{Alarm, Report};
use crate::etcd::wal::{SEGMENT_SIZE, SegmentName, write_founding};
use crate::sys::fs::{self as change, OutFile};
use crate::sys::space::space;

/// Room beyond the database and the log: pages added, the `.snap` file, the directories.
const ROOM: u64 = 4 << 20;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The snapshot is copied.
    Copy,
    /// All of it is checked.
    Check,
    /// It is rewritten.
    Rewrite,
    /// The result is made durable, and read again.
    Settle,
}

/// Sees how far a restore is, and stops it.
pub trait Watch: Sync {
    /// A phase begins, of so many bytes.
    fn begin(&self, phase: Phase, total: u64);
    /// So many bytes of a phase are done.
    fn progress(&self, phase: Phase, done: u64);
    /// A phase ended well.
    fn done(&self, phase: Phase, done: u64);
    /// Whether to stop.
    fn stopped(&self) -> bool;
}

/// What is to be made of what.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// The snapshot.
    pub snapshot: &'a Path,
    /// The directory to be made: absent, or there and empty.
    pub data_dir: &'a Path,
    /// The WAL's directory where it is not in the data directory; it must not be there.
    pub wal_dir: Option<&'a Path>,
    /// The cluster to be founded.
    pub cluster: &'a FoundingCluster,
    /// Which of its members the directory is for.
    pub me: MemberId,
    /// Whether the trailer is not checked, and need not be there.
    pub skip_hash_check: bool,
    /// How the revision is raised.
    pub bump: Bump,
    /// Whether all below the new revision is marked as compacted.
    pub mark_compacted: bool,
    /// Revisions known besides the snapshot's own.
    pub evidence: &'a [Evidence],
    /// Whether a bump that does not exceed them is allowed.
    pub allow_low_bump: bool,
    /// The release that is to start from it; none: the snapshot's own or a later one.
    pub target: Option<TargetVersion>,
    /// Whether versions later than those known here are allowed.
    pub allow_unknown_version: bool,
    /// Whether the database is rewritten, without its free pages.
    pub compact: bool,
    /// A random number, for hidden names.
    pub tag: u64,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The snapshot, as it was found.
    pub report: Report,
    /// The revision that clients will see first.
    pub revision: i64,
    /// Whether and why the revision was raised.
    pub decision: Decision,
    /// Bytes of the database.
    pub database_size: u64,
    /// Alarms that stay raised.
    pub alarms: Vec<Alarm>,
    /// What else the reader should know.
    pub notes: Vec<String>,
}

/// Makes the directory. Leftovers of earlier runs that were removed are reported in `removed`, also
/// where it fails.
///
/// # Errors
/// [`Kind::BadBackup`] for a snapshot that is broken, refusals by name, and [`Kind::Store`] where
/// the disk is at fault; whichever, nothing is in place then.
pub fn restore(spec: &Spec<'_>, watch: &dyn Watch, removed: &mut Vec<PathBuf>) -> Result<Restored> {
    let database = Database::open(spec.snapshot, spec.skip_hash_check)?;
    let site = Site::prepare(spec.data_dir, spec.wal_dir, spec.tag, removed)?;
    check_room(spec, &database)?;
    let layout = Layout {
        snap: site.root.path().join("member").join("snap"),
        wal: site.wal.clone(),
    };
    change::mkdir_all(&layout.snap)?;
    let made = database.make(spec, &layout.db(), watch)?;
    let mut log = write_log(spec, &layout.wal)?;
    write_snap(spec.cluster, &layout.snap)?;
    agree(spec, &layout, &made.facts)?;
    // Room comes last, so that nobody has to read all the zeros.
    log.preallocate(SEGMENT_SIZE)
        .and_then(|()| log.sync())
        .doing(Kind::Store, || format!("writing {}", log.path().display()))?;
    change::sync_dir(&layout.wal)?;
    for dir in [&layout.snap, &site.root.path().join("member")] {
        change::sync_dir(dir)?;
    }
    stop_if(watch)?;
    site.commit(None)?;
    let facts = made.report.facts.as_ref();
    let own = facts.map_or(1, |facts| facts.revision);
    let alarms = facts.map_or_else(Vec::new, |facts| facts.alarms.clone());
    Ok(Restored {
        revision: made.decision.revision.unwrap_or(own),
        decision: made.decision,
        database_size: made.size,
        alarms,
        notes: made.notes,
        report: made.report,
    })
}

/// The failure that an operation asked to stop ends with.
fn stop_if(watch: &dyn Watch) -> Result<()> {
    if watch.stopped() {
        return Err(Failure::new(Kind::Interrupted, "interrupted"));
    }
    Ok(())
}

fn check_room(spec: &Spec<'_>, database: &Database) -> Result<()> {
    let here = space(spec.data_dir)?;
    let mut needed = database.size().saturating_add(ROOM);
    let mut places = Vec::new();
    let wal = spec.wal_dir.map(space).transpose()?;
    match wal {
        Some(wal) if wal.device != here.device => places.push((wal, SEGMENT_SIZE + ROOM)),
        _ => needed = needed.saturating_add(SEGMENT_SIZE),
    }
    places.push((here, needed));
    for (place, needed) in places {
        place.check(needed, "the data directory")?;
    }
    Ok(())
}

fn write_log(spec: &Spec<'_>, dir: &Path) -> Result<OutFile> {
    change::mkdir_all(dir)?;
    let name = SegmentName {
        sequence: 0,
        index: 0,
    };
    let path = dir.join(name.to_string());
    let write = || -> io::Result<OutFile> {
        let mut bytes = Vec::new();
        write_founding(&mut bytes, spec.cluster, spec.me)?.finish()?;
        let mut file = OutFile::create(&path)?;
        file.write_all(&bytes)?;
        Ok(file)
    };
    write().doing(Kind::Store, || format!("writing {}", path.display()))
}

fn write_snap(cluster: &FoundingCluster, dir: &Path) -> Result<()> {
    let (name, bytes) = raftsnap::founding(cluster);
    change::write_new(&dir.join(name.to_string()), &bytes)
}

/// Reads what was built as etcd will, before it gets into place.
fn agree(spec: &Spec<'_>, layout: &Layout, facts: &DbFacts) -> Result<()> {
    let report = datadir::check(layout, Some(facts))?;
    let wrong = report
        .findings
        .iter()
        .find(|finding| finding.severity == Severity::Error);
    match wrong {
        Some(finding) => Err(
            Failure::new(Kind::Unexpected, finding.to_string()).doing(format!(
                "checking what {} is to be",
                spec.data_dir.display()
            )),
        ),
        None => Ok(()),
    }
}
