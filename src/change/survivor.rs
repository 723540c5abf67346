//! `restore --from-data-dir`: makes a cluster of one from a surviving member's disk.

use std::path::PathBuf;

use serde::Serialize;

use super::dir_options::{DirOptions, Watcher};
use crate::context::{self, Context};
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::datadir::{Layout, not_a_data_dir};
use crate::etcd::ids::{ClusterId, PeerUrls};
use crate::etcd::membership::Member;
use crate::etcd::restore::Bump;
use crate::etcd::roll;
use crate::etcd::snapshot::Alarm;
use crate::etcd::survivor::{self, Raise, Spec, Survivor};
use crate::event::Event;
use crate::inspect::data_dir::Known;

/// The request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What every restore to a data directory is asked for.
    pub options: DirOptions,
    /// The stopped member's data directory; it is read only.
    pub from: PathBuf,
    /// Its WAL, where it has its own directory.
    pub from_wal: Option<PathBuf>,
    /// Whose disk it must be, by name.
    pub name: Option<String>,
    /// The member's own peer URLs, comma-separated, if they changed.
    pub peer_urls: Option<String>,
    /// The new cluster's id; none: a random one. Only a member that is alone in its cluster may keep
    /// the one it has: no other member could still use it.
    pub cluster_id: Option<ClusterId>,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The stopped member's data directory.
    pub source: PathBuf,
    /// The directory.
    pub data_dir: PathBuf,
    /// The WAL's own, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_dir: Option<PathBuf>,
    /// The new cluster's id, as hex.
    pub cluster_id: String,
    /// The id of the cluster that the member was of, as hex.
    pub former_cluster_id: String,
    /// The member that is left.
    pub member: Known,
    /// Those that are members no more.
    pub removed: Vec<Known>,
    /// WAL entries of the source, beyond its database, that it had recorded as committed.
    pub tail_committed: u64,
    /// Those that had not, and are kept nevertheless.
    pub tail_uncommitted: u64,
    /// The last entry of the source's log.
    pub source_index: u64,
    /// Its term.
    pub source_term: u64,
    /// The last entry of the new log, all of it committed.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Whether the source's WAL ended in a torn write.
    pub torn_tail: bool,
    /// The database's revision.
    pub revision: i64,
    /// The highest revision that clients can see first: if etcd applies the tail, each request in
    /// it that writes keys may add one.
    pub revision_at_most: i64,
    /// WAL entries that were applied to the database; none if etcd applies them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<u64>,
    /// The revision that they led to, before it was bumped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_revision: Option<i64>,
    /// Whether the revision was bumped, and everything below marked as compacted.
    pub bumped: bool,
    /// The reasoning about the revision.
    pub reasons: Vec<String>,
    /// Bytes of the database.
    pub database_size: u64,
    /// Alarms that stay raised.
    pub alarms: Vec<Alarm>,
}

/// Makes the directory.
///
/// # Errors
/// [`Kind::Usage`] for peer URLs that are not valid; the refusals of [`survivor::make`];
/// [`Kind::Store`] if the disk is at fault. Nothing is in place then.
pub fn run(context: &Context, request: &Request) -> Result<Outcome> {
    keep_apart(request)?;
    let (made, cluster_id) = specified(request, |spec| {
        let watcher = Watcher { context };
        let made = watcher.report_leftovers(|removed| survivor::make(spec, &watcher, removed))?;
        Ok((made, spec.cluster_id))
    })?;
    tell(context, &made);
    Ok(outcome(request, cluster_id, made))
}

/// Reads everything as [`run`] does and writes nothing.
///
/// # Errors
/// As those of [`run`] that are about the source.
pub fn examine(context: &Context, request: &Request) -> Result<()> {
    specified(request, |spec| {
        survivor::examine(spec, &Watcher { context })
    })
}

/// Hands the request on in the form that `etcd::survivor` takes.
fn specified<T>(request: &Request, work: impl FnOnce(&Spec<'_>) -> Result<T>) -> Result<T> {
    let source = Layout::new(&request.from, request.from_wal.as_deref());
    if !source.snap.is_dir() {
        let what = not_a_data_dir(&request.from);
        return Err(Failure::new(Kind::Usage, what));
    }
    let peer_urls = request.peer_urls.as_deref().map(PeerUrls::parse_list);
    let peer_urls = peer_urls.transpose()?;
    let options = &request.options;
    let bump = options.bump();
    let raise = Raise {
        bump,
        mark_compacted: options.marks_compacted(),
        evidence: &options.evidence,
        allow_low: options.allows("bump-too-small"),
    };
    // etcd takes zero for "no id".
    let made_up = ClusterId((options.random as u64).max(1));
    let spec = Spec {
        source: &source,
        data_dir: &options.data_dir,
        wal_dir: options.wal_dir.as_deref(),
        cluster_id: request.cluster_id.unwrap_or(made_up),
        name: request.name.as_deref(),
        peer_urls: peer_urls.as_ref(),
        raise: (bump != Bump::By(0)).then_some(raise),
        tag: options.tag(),
    };
    work(&spec).map_err(|failure| match failure.kind() {
        Kind::Interrupted => context::interrupted(),
        _ if failure.refusal() == Some("damaged-survivor") => {
            // Its database alone may still be of use, and so may its WAL.
            let failure = reading(request, failure).with(Fact::Path(source.db()));
            match roll::is_sound(&source.wal) {
                true => failure.with(Fact::SoundWal(wal_of(request))),
                false => failure,
            }
        }
        _ => reading(request, failure),
    })
}

/// Where `--roll-forward` finds the WAL.
fn wal_of(request: &Request) -> PathBuf {
    request
        .from_wal
        .clone()
        .unwrap_or_else(|| request.from.clone())
}

fn reading(request: &Request, failure: Failure) -> Failure {
    failure.doing(format!(
        "making {} from {}",
        request.options.data_dir.display(),
        request.from.display()
    ))
}

/// Refuses a new directory inside the old one, which must stay as it is.
fn keep_apart(request: &Request) -> Result<()> {
    let doing = || format!("finding {}", request.from.display());
    let from = request.from.canonicalize().doing(Kind::NotChecked, doing)?;
    let places = [
        Some(&request.options.data_dir),
        request.options.wal_dir.as_ref(),
    ];
    for place in places.into_iter().flatten() {
        let full = std::path::absolute(place).doing(Kind::Usage, doing)?;
        // A path that does not exist yet is where its nearest existing parent is.
        let existing = full.ancestors().find_map(|path| path.canonicalize().ok());
        if existing.is_some_and(|existing| existing.starts_with(&from)) {
            let what = format!("{} is in {}", place.display(), request.from.display());
            return Err(Failure::refused_for_good("data-dir-not-empty", what));
        }
    }
    Ok(())
}

fn tell(context: &Context, made: &Survivor) {
    if made.torn {
        context.warn(
            "torn-tail",
            "the WAL ended in a torn write, which is left out, as etcd does",
        );
    }
    for found in &made.snaps {
        context.warn("raft-snap", format!("{found}; the file is not needed"));
    }
    if made.tail.uncommitted > 0 {
        context.tell(Event::Note(format!(
            "{} entries that the member had not recorded as committed are kept: clients may have received their acknowledgement",
            made.tail.uncommitted
        )));
    }
    for reason in made.decision.iter().flat_map(|decision| &decision.reasons) {
        context.tell(Event::Note(reason.clone()));
    }
    for alarm in &made.facts.alarms {
        context.warn(
            "alarm-raised",
            format!(
                "the alarm {} of member {:x} stays raised",
                alarm.alarm, alarm.member
            ),
        );
    }
}

fn known(member: Member) -> Known {
    Known {
        id: member.id.to_string(),
        name: member.name,
        peer_urls: member.peer_urls,
        learner: member.is_learner,
    }
}

fn outcome(request: &Request, cluster_id: ClusterId, made: Survivor) -> Outcome {
    // The revision has those that were applied already.
    let writes = match made.applied {
        Some(_) => 0,
        None => i64::try_from(made.key_writes).unwrap_or(i64::MAX),
    };
    let raised = made
        .decision
        .as_ref()
        .and_then(|decision| decision.revision);
    Outcome {
        source: request.from.clone(),
        data_dir: request.options.data_dir.clone(),
        wal_dir: request.options.wal_dir.clone(),
        cluster_id: cluster_id.to_string(),
        former_cluster_id: made.former_cluster.to_string(),
        member: known(made.member),
        removed: made.removed.into_iter().map(known).collect(),
        tail_committed: made.tail.committed,
        tail_uncommitted: made.tail.uncommitted,
        source_index: made.source_end.index,
        source_term: made.source_end.term,
        index: made.end.index,
        term: made.end.term,
        torn_tail: made.torn,
        revision: made.facts.revision,
        revision_at_most: made.facts.revision.saturating_add(writes),
        applied: made.applied.map(|(entries, _)| entries),
        applied_revision: made.applied.map(|(_, revision)| revision),
        bumped: raised.is_some(),
        reasons: made
            .decision
            .map_or_else(Vec::new, |decision| decision.reasons),
        database_size: made.database_size,
        alarms: made.facts.alarms,
    }
}
