//! Makes a cluster of one from the data of a surviving member.
//!
//! ```text
//! member/snap/db                   the source's, byte for byte up to its high-water mark
//! member/snap/<term>-<index>.snap  the source's, the one that etcd would start from; of a raised
//!                                  revision another at the end of the WAL
//! member/wal/<n>-<index>.wal       every entry after that snapshot, then the changes that remove
//!                                  all other members, all of it committed
//! ```
//!
//! The whole tail of the WAL is kept, even what the member did not yet know to be committed: a
//! write is acknowledged as soon as a majority has it in its WAL, but the followers learn the new
//! commit index only with the next message, and record it later still. A leader elected from this
//! WAL would keep and commit these entries; so does this. (etcd's `--force-new-cluster` drops what
//! is beyond the local commit index: etcd, `server/etcdserver/raft.go`, `restartAsStandaloneNode`.)
//! etcd applies the tail when it starts, as after any crash, and the removals come after it, so
//! requests are judged by the state that they were made for.
//!
//! A bump must come after the tail, too: made before, it would fail every transaction of the tail
//! that compares a revision, as all of Kubernetes' do. So for a bump the tail is applied here, to
//! the copy ([`crate::etcd::apply`]), and etcd finds a database with all of the WAL applied. To
//! have etcd apply it would need a program of the right release, and a second change of the same
//! files.
//!
//! The bump is in no entry: a member that joins must get the database, and not the entries that led
//! to the state before the bump. So the WAL's last record is then that of a snapshot, with a
//! `.snap` file, behind the last entry, and etcd starts with nothing before it to send. (A WAL
//! without such a record is complete from its first entry, and a member that joins would be sent all
//! of it.)
//!
//! The cluster gets a new id, the member keeps its own. etcd's peers refuse messages of another
//! cluster id, so no former member can reach this one: neither one that continues with its own
//! entries, which would contradict those committed here, nor one that still believes it is a
//! member. OpenShift's start-up of such a member moves data of another cluster aside and joins
//! again; for data of the same cluster it gives up. The removed ids are in the WAL, so in etcd's
//! list of ids that never come back.
//!
//! The WAL is rewritten rather than continued: the cluster id is in each segment, and every
//! record's checksum depends on it. Each entry stays the same: index, term, kind and bytes.

mod log;
mod plan;
mod source;
mod spec;
mod tail;

use std::path::PathBuf;

pub use self::source::applied;
pub use self::spec::{Raise, Spec, Survivor};

use self::log::NewLog;
use self::plan::Plan;
use self::source::Source;
use crate::error::Result;
use crate::etcd::build::{TargetDir, Watch, agree, check_room, disagreement, stop_if};
use crate::etcd::datadir::{DbFacts, Layout};
use crate::etcd::wal::{LastEntry, SEGMENT_SIZE};
use crate::sys::fs as change;
use crate::sys::owner::Owner;

/// Makes the directory. Adds the leftovers of earlier runs that it removed to `removed`, even if it
/// fails.
///
/// # Errors
/// The refusals `etcd-running`, `damaged-survivor`, `unknown-membership`, `learner-survivor`,
/// `not-a-member`, `other-member`, `unknown-entry` and `long-tail`, none to be allowed, those of a
/// place that is taken and of a bump, and
/// [`Kind::Store`] if the disk is at fault; whichever, nothing is in place then.
pub fn make(spec: &Spec<'_>, watch: &dyn Watch, removed: &mut Vec<PathBuf>) -> Result<Survivor> {
    let source = Source::hold(spec.source)?;
    let target = TargetDir::prepare(spec.data_dir, spec.wal_dir, spec.tag, removed)?;
    let layout = target.layout();
    let log = source.log_size().saturating_add(SEGMENT_SIZE);
    check_room(spec.data_dir, spec.wal_dir, source.database_size(), log)?;
    change::mkdir_all(&layout.snap)?;
    let database = source.copy_database(&layout.db(), watch)?;
    let db = DbFacts::of(&database.facts);
    let looked = source.look(&db, spec.raise.is_some())?;
    let plan = Plan::make(spec, &looked, &db)?;
    source.copy_snap(&looked, &layout.snap)?;
    let mut new = NewLog::write(spec, &source, &looked, &plan, &layout.wal, watch)?;
    let raised = match &spec.raise {
        Some(raise) => Some(tail::raise(raise, &looked, &database, &layout, watch)?),
        None => None,
    };
    if let Some(raised) = &raised {
        new.write_snap(&plan, &raised.facts, &layout.snap)?;
    }
    let after = raised.as_ref().map(|raised| DbFacts::of(&raised.facts));
    check_result(spec, &layout, after.as_ref().unwrap_or(&db), &new)?;
    // Room comes last, so that nobody has to read all the zeros.
    new.settle(SEGMENT_SIZE)?;
    target.sync()?;
    source.still_free(spec.source)?;
    stop_if(watch)?;
    target.commit(Owner::of(&spec.source.snap, &spec.source.db())?)?;
    let beyond = looked.report.beyond.as_ref();
    Ok(Survivor {
        member: plan.member,
        former_cluster: plan.former_cluster,
        removed: plan.removed,
        source_end: LastEntry {
            term: looked.log.term_of(looked.log.last).unwrap_or_default(),
            index: looked.log.last,
        },
        end: new.end,
        tail: looked.report.wal.tail_after(db.consistent_index),
        key_writes: beyond.map_or(0, |beyond| beyond.key_writes),
        torn: looked.torn,
        snaps: looked.snaps,
        applied: raised
            .as_ref()
            .map(|raised| (raised.entries, raised.applied)),
        database_size: raised.as_ref().map_or(database.size, |raised| raised.size),
        facts: raised
            .as_ref()
            .map_or(database.facts, |raised| raised.facts.clone()),
        decision: raised.map(|raised| raised.decision),
    })
}

/// Reads everything as [`make`] does and writes nothing: the refusals come before anything stops.
///
/// # Errors
/// The refusals of [`make`] that are about the source.
pub fn examine(spec: &Spec<'_>, watch: &dyn Watch) -> Result<()> {
    let source = Source::hold(spec.source)?;
    let facts = source.check_database(watch)?;
    let db = DbFacts::of(&facts);
    let looked = source.look(&db, spec.raise.is_some())?;
    Plan::make(spec, &looked, &db)?;
    match &spec.raise {
        Some(_) => source.try_tail(&looked, &facts, watch),
        None => Ok(()),
    }
}

/// Requires that etcd will find one member, and every entry unchanged and committed.
fn check_result(spec: &Spec<'_>, layout: &Layout, db: &DbFacts, new: &NewLog) -> Result<()> {
    let report = agree(layout, db, spec.data_dir)?;
    let state = report.wal.hard_state();
    let members = report.last_members.map(|members| members.ids().len());
    if report.wal.last_entry() != new.end || state.commit != new.end.index || members != Some(1) {
        let what = format!(
            "expected one member and all entries to {} committed",
            new.end.index
        );
        return Err(disagreement(spec.data_dir, what));
    }
    let rewritten = new.digest_of(layout, &report.wal.scan)?;
    if rewritten != new.digest {
        let what = "the entries were not written as they were".to_owned();
        return Err(disagreement(spec.data_dir, what));
    }
    Ok(())
}
