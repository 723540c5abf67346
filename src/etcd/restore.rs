//! Makes a member's data directory from a snapshot, without an etcd binary.
//!
//! ```text
//! member/snap/db                   the snapshot's database, changed as `changes` tells
//! member/snap/<term>-<index>.snap  the founding membership, for releases up to 3.6
//! member/wal/0-0.wal               the founding WAL, preallocated
//! ```
//!
//! The snapshot is copied next to its future place. The whole copy is checked, so what was checked
//! is what etcd will read. Then it is changed, WAL and `.snap` file are written, everything is made
//! durable, the result is read again, and one rename puts it into place. Until then nothing is
//! there: a failure leaves nothing behind, and a crash at most a hidden directory that the next run
//! removes.
//!
//! Modes are 0700 for directories and 0600 for files; etcd's own `.snap` files are 0644.

mod at_revision;
mod changes;
mod database;
mod grown;
mod live;
mod plan;
mod rewritten;
mod settle;
mod source;
mod spec;
mod target;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use super::build::{
    Bump, Decision, Evidence, HIDDEN, HIGHEST, LOST_AND_FOUND, Phase, Question, SLACK, Watch,
    decide, decide_at,
};
pub use database::RAW_COPY;
pub use live::newest_revision;
pub use spec::{AtRevision, Forward, Restored, Spec};
pub use target::TargetVersion;

use self::database::Database;
use super::build::{TargetDir, agree, check_room, stop_if};
use crate::error::{Doing, Kind, Result};
use crate::etcd::founding::FoundingCluster;
use crate::etcd::raftsnap;
use crate::etcd::wal::{SEGMENT_SIZE, SegmentName, write_founding};
use crate::sys::fs::{self as change, OutFile};

/// Makes the directory. Adds the leftovers of earlier runs that it removed to `removed`, even if it
/// fails.
///
/// # Errors
/// [`Kind::BadBackup`] for a snapshot that is broken, refusals by name, and [`Kind::Store`] where
/// the disk is at fault; whichever, nothing is in place then.
pub fn restore(spec: &Spec<'_>, watch: &dyn Watch, removed: &mut Vec<PathBuf>) -> Result<Restored> {
    let database = Database::open(spec)?;
    let target = TargetDir::prepare(spec.data_dir, spec.wal_dir, spec.tag, removed)?;
    // After `prepare`, which removes what an interrupted run left: that may take the room.
    let copies = 1 + u64::from(spec.grows_and_shrinks());
    let room = database.size().saturating_mul(copies);
    check_room(spec.data_dir, spec.wal_dir, room, SEGMENT_SIZE)?;
    let layout = target.layout();
    change::mkdir_all(&layout.snap)?;
    let made = database.make(spec, &layout.db(), watch)?;
    let mut log = write_log(spec, &layout.wal)?;
    write_snap(spec.cluster, &layout.snap)?;
    agree(&layout, &made.facts, spec.data_dir)?;
    // The room is reserved last, so that the zeros need not be read.
    log.preallocate(SEGMENT_SIZE)
        .and_then(|()| log.sync())
        .doing(Kind::Store, || format!("writing {}", log.path().display()))?;
    target.sync()?;
    stop_if(watch)?;
    // Nothing stops it from here on: a few renames are all that is left.
    target.commit(None)?;
    let facts = made.report.facts.as_ref();
    let own = facts.map_or(1, |facts| facts.revision);
    let at = made.at.as_ref();
    let alarms = facts.map_or_else(Vec::new, |facts| facts.alarms.clone());
    Ok(Restored {
        revision: made
            .decision
            .revision
            .unwrap_or(at.map_or(own, |at| at.revision)),
        decision: made.decision,
        database_size: made.size,
        alarms,
        notes: made.notes,
        report: made.report,
        at: made.at,
        rolled: made.rolled,
        extended: made.extended,
    })
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
