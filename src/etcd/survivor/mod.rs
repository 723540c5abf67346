//! A cluster of one, made from the data of a member that outlived its cluster.
//!
//! ```text
//! member/snap/db                   the source's, byte for byte up to its high-water mark
//! member/snap/<term>-<index>.snap  the source's, the one that etcd would start from; of a raised
//!                                  revision another at the end of the log
//! member/wal/<n>-<index>.wal       every entry after that snapshot, then the changes that remove
//!                                  all other members, all of it committed
//! ```
//!
//! The tail of the log is kept whole, also what the member had not yet heard to be committed: a
//! write is acknowledged as soon as a majority has it in its log, and the increase of the commit
//! index is told to the followers only with the next message, and written down later still. A
//! leader elected from this log would keep and commit these entries; so does this. (etcd's
//! `--force-new-cluster` drops what is beyond the local commit index: etcd,
//! `server/etcdserver/raft.go`, `restartAsStandaloneNode`.) etcd applies the tail when it starts,
//! as after any crash, and the removals come behind it, so that requests are judged by the state
//! that they were made for.
//!
//! A raised revision must come behind the tail too: raised before, it would fail every transaction
//! of the tail that compares a revision, as all of Kubernetes' do. So where it is to be raised the
//! tail is applied here, to the copy ([`crate::etcd::apply`]), and the database that etcd finds has
//! all of the log applied. Nothing of this happens in a start of etcd, which would need a program
//! of the right release, and a second rollback.
//!
//! What was raised is in no entry: a member that joins must get the database, and never the entries
//! that led to what it was before. So the log's last record is then that of a snapshot, with a
//! `.snap` file, behind the last entry, and etcd starts with nothing before it to send. (A log
//! without one complete from its first entry, and a server that joins would be sent all of it.)
//!
//! The cluster gets a new id, the member keeps its own. etcd's peers refuse messages of another
//! cluster id, so that no former member can reach this one: neither one that continues with entries
//! of its own, which would contradict those committed here, nor one that believes to be a member
//! still. OpenShift's start-up of such a member moves data of another cluster aside and joins
//! anew, where for data of the same cluster it gives up. The removed ids are in the log, hence in
//! etcd's list of ids that never come back.
//!
//! The WAL is rewritten rather than continued: the cluster id stands in each segment, and
//! every record's checksum depends on it. Each entry is what it was: index, term, kind and bytes.

mod log;
mod plan;
mod source;
mod tail;

use std::path::{Path, PathBuf};

pub use self::source::applied;

use self::log::NewLog;
use self::plan::Plan;
use self::source::Source;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::datadir::{self, DbFacts, Layout};
use crate::etcd::finding::Severity;
use crate::etcd::ids::{ClusterId, PeerUrls};
use crate::etcd::membership::Member;
use crate::etcd::restore::{Bump, Decision, Evidence, Watch, place::Site};
use crate::etcd::snapshot::DatabaseFacts;
use crate::etcd::wal::{LastEntry, SEGMENT_SIZE, Tail};
use crate::sys::fs as change;
use crate::sys::owner::Owner;
use crate::sys::space::space;

/// Room beyond the database and the log.
const ROOM: u64 = 4 << 20;

/// What is to be made of what.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// The stopped member's files; they are read only.
    pub source: &'a Layout,
    /// The directory to be made: absent, or there and empty.
    pub data_dir: &'a Path,
    /// The WAL's directory where it is not in the data directory; it must not be there.
    pub wal_dir: Option<&'a Path>,
    /// The new cluster's id, random.
    pub cluster_id: ClusterId,
    /// The name that the member must have, if that is known: whose disk it is.
    pub name: Option<&'a str>,
    /// The member's own peer URLs where they have changed.
    pub peer_urls: Option<&'a PeerUrls>,
    /// How the revision is raised, for which the tail is applied here; without it etcd applies the
    /// tail when it starts.
    pub raise: Option<Raise<'a>>,
    /// A random number, for hidden names.
    pub tag: u64,
}

/// How the revision is raised.
#[derive(Debug, Clone, Copy)]
pub struct Raise<'a> {
    /// By how much.
    pub bump: Bump,
    /// Whether all below the new revision is marked as compacted.
    pub mark_compacted: bool,
    /// Revisions known besides the disk's own.
    pub evidence: &'a [Evidence],
    /// Whether a bump that does not exceed them is allowed.
    pub allow_low: bool,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Survivor {
    /// The member that is left, as the new cluster knows it.
    pub member: Member,
    /// The cluster it was of.
    pub former_cluster: ClusterId,
    /// Those that are members no more.
    pub removed: Vec<Member>,
    /// The last entry of the source's log.
    pub source_end: LastEntry,
    /// The last entry of the new one.
    pub end: LastEntry,
    /// Entries of the source's log beyond its database.
    pub tail: Tail,
    /// How many of them can make a new key-value revision.
    pub key_writes: u64,
    /// Whether the log ended in a write that was cut short, which is left out.
    pub torn: bool,
    /// What is wrong with `.snap` files, none of which is needed.
    pub snaps: Vec<String>,
    /// What the database says that was made.
    pub facts: DatabaseFacts,
    /// How many entries were applied to it, and the revision they led to; none where etcd is to.
    pub applied: Option<(u64, i64)>,
    /// Whether and why the revision was raised; none where etcd applies the tail.
    pub decision: Option<Decision>,
    /// Bytes of the database.
    pub database_size: u64,
}

fn refuse(name: &'static str, what: impl Into<String>) -> Failure {
    Failure::new(Kind::Refused, what.into()).with(Fact::Refusal {
        name,
        allowable: false,
    })
}

/// Makes the directory. Leftovers of earlier runs that were removed are reported in `removed`, also
/// where it fails.
///
/// # Errors
/// The refusals `etcd-running`, `damaged-survivor`, `unknown-membership`, `learner-survivor`,
/// `not-a-member`, `other-member`, `unknown-entry` and `long-tail`, none to be allowed, those of a
/// place that is taken and of a bump, and
/// [`Kind::Store`] where the disk is at fault; whichever, nothing is in place then.
pub fn make(spec: &Spec<'_>, watch: &dyn Watch, removed: &mut Vec<PathBuf>) -> Result<Survivor> {
    let source = Source::hold(spec.source)?;
    let site = Site::prepare(spec.data_dir, spec.wal_dir, spec.tag, removed)?;
    let layout = Layout {
        snap: site.root.path().join("member").join("snap"),
        wal: site.wal.clone(),
    };
    check_room(spec, &source)?;
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
    agree(spec, &layout, after.as_ref().unwrap_or(&db), &new)?;
    // Room comes last, so that nobody has to read all the zeros.
    new.settle(SEGMENT_SIZE)?;
    change::sync_dir(&layout.wal)?;
    for dir in [&layout.snap, &site.root.path().join("member")] {
        change::sync_dir(dir)?;
    }
    source.still_free(spec.source)?;
    if watch.stopped() {
        return Err(Failure::new(Kind::Interrupted, "interrupted"));
    }
    site.commit(Owner::of(&spec.source.snap, &spec.source.db())?)?;
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
        Some(_) => source.try_tail(&looked, &facts),
        None => Ok(()),
    }
}

fn check_room(spec: &Spec<'_>, source: &Source) -> Result<()> {
    let mut places = vec![(spec.data_dir, source.database_size())];
    let log = source.log_size(spec.source)?.saturating_add(SEGMENT_SIZE);
    match spec.wal_dir {
        Some(wal) if space(wal)?.device != space(spec.data_dir)?.device => places.push((wal, log)),
        _ => {
            if let Some((_, needed)) = places.first_mut() {
                *needed = needed.saturating_add(log);
            }
        }
    }
    for (path, needed) in places {
        let needed = needed.saturating_add(ROOM);
        space(path)?.check(needed, "the data directory")?;
    }
    Ok(())
}

/// Reads what was built as etcd will, before it gets into place.
fn agree(spec: &Spec<'_>, layout: &Layout, db: &DbFacts, new: &NewLog) -> Result<()> {
    let report = datadir::check(layout, Some(db))?;
    let wrong = |what: String| {
        let doing = format!("checking what {} is to be", spec.data_dir.display());
        Failure::new(Kind::Unexpected, what).doing(doing)
    };
    let error = |severity| severity == Severity::Error;
    if let Some(found) = report.findings.iter().find(|f| error(f.severity)) {
        return Err(wrong(found.to_string()));
    }
    let state = report.wal.hard_state();
    let members = report.last_members.map(|members| members.ids().len());
    if report.wal.last_entry() != new.end || state.commit != new.end.index || members != Some(1) {
        return Err(wrong(format!(
            "expected one member and all entries to {} committed",
            new.end.index
        )));
    }
    let rewritten = new.digest_of(layout, &report.wal.scan)?;
    if rewritten != new.digest {
        return Err(wrong(
            "the entries were not written as they were".to_owned(),
        ));
    }
    Ok(())
}

/// Wraps a failure to write a file.
fn writing<T>(path: &Path, result: std::io::Result<T>) -> Result<T> {
    result.doing(Kind::Store, || format!("writing {}", path.display()))
}
