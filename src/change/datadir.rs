//! `restore SET --data-dir DIR`: a member's data directory, and nothing else touched.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::dir_options::{DirOptions, Watcher};
use crate::context::{self, Context};
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::FileSource;
use crate::etcd::datadir::{self as files, Layout};
use crate::etcd::founding::{FoundingCluster, InitialCluster};
use crate::etcd::history::Moment;
use crate::etcd::ids::{ClusterId, MemberId, PeerUrls};
use crate::etcd::membership::Member;
use crate::etcd::restore::{self, Bump, Evidence, Spec, TargetVersion, newest_revision};
use crate::etcd::roll::Rolled;
use crate::etcd::segment::{Extended, Extension};
use crate::etcd::snapshot::Alarm;
use crate::etcd::survivor::applied;
use crate::event::Event;
use crate::keep::catalog::{self, BackupSet};
use crate::keep::ranges::{self, Recorded};
use crate::store::LocalStore;
use crate::sys::random;

/// What is asked for. Everything but the paths and the randomness has etcdutl's meaning.
#[derive(Debug, Clone)]
pub struct Request {
    /// What every restore to a data directory is asked for.
    pub options: DirOptions,
    /// The snapshot file.
    pub snapshot: PathBuf,
    /// The member's name.
    pub name: String,
    /// `name=url,…` of all members.
    pub initial_cluster: String,
    /// The member's own peer URLs, comma-separated.
    pub advertise_peer_urls: String,
    /// The token that the ids are made from; none: a random one, for a single member.
    pub token: Option<String>,
    /// Whether the trailer is not checked, and need not be there.
    pub skip_hash_check: bool,
    /// The release that is to start from it.
    pub target: Option<TargetVersion>,
    /// Whether the database is rewritten, without its free pages.
    pub compact: bool,
    /// Whether etcd's authentication is turned off in the database.
    pub authentication_off: bool,
    /// The revision to restore to; none: the snapshot's own.
    pub to: Option<Moment>,
    /// The WAL of a member of the same history, which is applied to the snapshot.
    pub roll_forward: Option<RollForward>,
    /// Recorded changes that are applied to the snapshot.
    pub recorded: Option<Recorded>,
}

impl Request {
    /// A cluster of one member, `name` at the peer URL `peer_url`, with the snapshot's own data: without a bump,
    /// so that nothing differs that HashKV is made of, and no revision of the snapshot is compacted.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub(super) fn unbumped(
        snapshot: &Path,
        data_dir: &Path,
        (name, peer_url): (&str, &str),
    ) -> Result<Self> {
        Ok(Self {
            options: DirOptions {
                data_dir: data_dir.to_owned(),
                wal_dir: None,
                bump: Some(Bump::By(0)),
                mark_compacted: false,
                evidence: Vec::new(),
                allow: Vec::new(),
                random: u128::from_ne_bytes(random::bytes()?),
            },
            snapshot: snapshot.to_owned(),
            name: name.to_owned(),
            initial_cluster: format!("{name}={peer_url}"),
            advertise_peer_urls: peer_url.to_owned(),
            token: None,
            skip_hash_check: false,
            target: None,
            compact: false,
            authentication_off: false,
            to: None,
            roll_forward: None,
            recorded: None,
        })
    }
}

/// A WAL to roll forward from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollForward {
    /// A member's data directory, or its WAL's own.
    pub dir: PathBuf,
    /// The id of the cluster that the snapshot is of, as hex, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

impl RollForward {
    fn below(&self) -> restore::Forward<'_> {
        restore::Forward {
            dir: &self.dir,
            cluster: self.cluster_id.as_deref().and_then(ClusterId::from_hex),
        }
    }
}

/// A member of the new cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewMember {
    /// Its id, as hex.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The snapshot.
    pub snapshot: PathBuf,
    /// The directory.
    pub data_dir: PathBuf,
    /// The WAL's own, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_dir: Option<PathBuf>,
    /// The new cluster's id, as hex.
    pub cluster_id: String,
    /// The id of the member that the directory is for, as hex.
    pub member_id: String,
    /// All members.
    pub members: Vec<NewMember>,
    /// The token.
    pub token: String,
    /// The snapshot's revision.
    pub snapshot_revision: i64,
    /// The revision that clients will see first.
    pub revision: i64,
    /// Whether it was bumped, and everything below marked as compacted.
    pub bumped: bool,
    /// The reasoning about the revision.
    pub reasons: Vec<String>,
    /// Keys that are alive.
    pub keys: u64,
    /// Bytes of the database.
    pub database_size: u64,
    /// The last entry of the founding log.
    #[serde(skip)]
    pub log_index: u64,
    /// Alarms that stay raised.
    pub alarms: Vec<Alarm>,
    /// What else the reader should know.
    pub notes: Vec<String>,
    /// The revision that was restored to, if that is not the snapshot's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moment: Option<Restored>,
    /// What was applied of a WAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roll_forward: Option<RolledForward>,
    /// What was applied of recorded changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<AppliedChanges>,
}

/// What was applied of recorded changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedChanges {
    /// The directory of the chain.
    pub dir: PathBuf,
    /// The snapshot's own revision.
    pub from_revision: i64,
    /// The last revision that was applied; what is above the one restored to was removed again.
    pub to_revision: i64,
    /// Segments read.
    pub segments: u64,
    /// Changes applied.
    pub changes: u64,
    /// `equal` if HashKV was that of a later backup, or etcd's own, or `notChecked`.
    pub hashkv: &'static str,
    /// The backup that it was held against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Without one, the revision at which it was etcd's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_revision: Option<i64>,
    /// Why it was not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// What changed besides keys meanwhile, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl AppliedChanges {
    fn of(recorded: &Recorded, extended: &Extended) -> Self {
        let backup = recorded.proof.as_ref().map(|proof| proof.backup.clone());
        let proven = backup.is_some() || extended.etcd_revision.is_some();
        Self {
            dir: recorded.dir.clone(),
            from_revision: extended.from_revision,
            to_revision: extended.revision,
            segments: extended.segments,
            changes: extended.records,
            hashkv: if proven { "equal" } else { "notChecked" },
            etcd_revision: extended.etcd_revision,
            why: (!proven).then_some(UNPROVEN),
            notes: recorded.notes.clone(),
            backup,
        }
    }
}

/// Why recorded changes are not held against a HashKV.
pub const UNPROVEN: &str = "no later good backup has them";

/// What was applied of a WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolledForward {
    /// The WAL's directory.
    pub wal_dir: PathBuf,
    /// The snapshot's own revision.
    pub from_revision: i64,
    /// The revision after the last entry.
    pub to_revision: i64,
    /// How many entries.
    pub entries: u64,
    /// The index of the last one.
    pub last_index: u64,
    /// Its term.
    pub last_term: u64,
    /// How many of them the member had not recorded as committed.
    pub uncommitted: u64,
    /// Whether the WAL ended in a torn write, which is left out.
    pub torn: bool,
}

impl RolledForward {
    fn of(rolled: &Rolled) -> Self {
        Self {
            wal_dir: rolled.wal.clone(),
            from_revision: rolled.from_revision,
            to_revision: rolled.revision,
            entries: rolled.entries,
            last_index: rolled.last.0,
            last_term: rolled.last.1,
            uncommitted: rolled.uncommitted,
            torn: rolled.torn,
        }
    }
}

/// An earlier revision that was restored to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Which, and why.
    #[serde(flatten)]
    pub moment: Moment,
    /// HashKV at it, which the result was found to have.
    pub hash_kv: u32,
    /// Leases without a key at it.
    pub idle_leases: u64,
    /// Leases that were gone later and were recreated, as hex.
    pub recreated_leases: Vec<String>,
}

/// The revisions that the backups of a store prove were served.
pub fn evidence(sets: &[BackupSet]) -> Vec<Evidence> {
    let known = |set: &BackupSet| {
        let revision = set.manifest.as_ref()?.database.kv_revision?;
        Some(Evidence {
            source: set.name.clone(),
            revision,
        })
    };
    sets.iter().filter_map(known).collect()
}

/// What the backups and the recorded changes of a store say.
///
/// # Errors
/// Those of reading the store.
pub fn evidence_of_store(store: &LocalStore) -> Result<Vec<Evidence>> {
    let mut known = evidence(&catalog::list(store)?);
    let (chains, _) = ranges::chains(store)?;
    known.extend(chains.iter().map(|chain| Evidence {
        source: chain.dir.display().to_string(),
        revision: chain.last(),
    }));
    Ok(known)
}

/// The newest revision in a member's database; `None` if the file does not exist.
pub fn evidence_of_member(database: &Path) -> Result<Option<Evidence>> {
    let doing = || format!("reading {}", database.display());
    let file = match FileSource::open(database) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(Kind::NotChecked, doing)?,
    };
    let revision = newest_revision(&file).map_err(|failure| failure.doing(doing()))?;
    Ok(Some(Evidence {
        source: database.display().to_string(),
        revision,
    }))
}

/// The highest revision that a member's data directory can have served: that of its database, plus
/// one for each WAL entry beyond it. `None` if it holds no database.
pub fn evidence_of_data(data_dir: &Path) -> Result<Option<Evidence>> {
    let layout = Layout::new(data_dir, None);
    let Some(mut evidence) = evidence_of_member(&layout.db())? else {
        return Ok(None);
    };
    // A WAL that cannot be read adds nothing: etcd would not start from it either.
    let beyond = files::check(&layout, None).and_then(|report| {
        let tail = report.wal.tail_after(applied(&layout.db())?);
        Ok(tail.committed.saturating_add(tail.uncommitted))
    });
    // No entry makes more than one revision.
    let beyond = i64::try_from(beyond.unwrap_or_default()).unwrap_or(i64::MAX);
    evidence.revision = evidence.revision.saturating_add(beyond);
    Ok(Some(evidence))
}

fn must_be_given(name: &'static str, what: &str) -> Failure {
    Failure::refused_for_good(name, what.to_owned())
}

/// Makes the directory.
///
/// # Errors
/// [`Kind::Usage`] if the options do not go together; [`Kind::BadBackup`] for a snapshot that
/// is broken; the refusals `token-not-given` and `bump-not-given` of a member of several,
/// `no-integrity-hash`, `bump-too-small`, `bump-too-large`, `unknown-version`,
/// `unreachable-target`, `missing-segment`, `damaged-segment`, `segment-mismatch`, `damaged-wal`, `wal-mismatch`, `wal-gap`, `unknown-entry`,
/// `data-dir-not-empty`, `wal-dir-not-absent` and `wal-dir-in-the-way`; [`Kind::Busy`] while
/// another restore builds there; [`Kind::Store`] if the disk is at fault. Nothing is in place
/// then.
pub fn run(context: &Context, request: &Request) -> Result<Outcome> {
    let options = &request.options;
    let founders = InitialCluster::parse(&request.initial_cluster)?;
    let advertised = PeerUrls::parse_list(&request.advertise_peer_urls)?;
    // etcd makes the same comparison at its start, and would not run.
    founders.check_local(&request.name, &advertised)?;
    let several = founders.names().count() > 1;
    let token = token(request, several)?;
    refuse_own_bumps(options.bump, several)?;
    let cluster = founders.found(&token)?;
    let me = cluster
        .member(&request.name)
        .ok_or_else(|| Failure::new(Kind::Unexpected, "the local member was not founded"))?;
    let spec = Spec {
        snapshot: &request.snapshot,
        data_dir: &options.data_dir,
        wal_dir: options.wal_dir.as_deref(),
        cluster: &cluster,
        me: me.id,
        roll_forward: request.roll_forward.as_ref().map(RollForward::below),
        recorded: extension(request),
        to_revision: request.to.as_ref().map(|moment| moment.revision),
        skip_hash_check: request.skip_hash_check || options.allows("no-integrity-hash"),
        bump: options.bump(),
        mark_compacted: options.marks_compacted(),
        evidence: &options.evidence,
        allow_low_bump: options.allows("bump-too-small"),
        target: request.target,
        allow_unknown_version: options.allows("unknown-version"),
        compact: request.compact,
        authentication_off: request.authentication_off,
        tag: options.tag(),
    };
    let watcher = Watcher { context };
    let restored = watcher.report_leftovers(|removed| restore::restore(&spec, &watcher, removed));
    let restored = restored.map_err(|failure| match failure.kind() {
        Kind::Interrupted => context::interrupted(),
        _ => failure.doing(format!(
            "restoring {} to {}",
            request.snapshot.display(),
            options.data_dir.display()
        )),
    })?;
    tell(context, &restored);
    Ok(outcome(request, &cluster, me.id, token, restored))
}

/// The recorded changes that are applied.
fn extension(request: &Request) -> Option<Extension<'_>> {
    let (recorded, to) = (request.recorded.as_ref()?, request.to.as_ref()?);
    Some(Extension {
        dir: &recorded.dir,
        until: recorded.until_revision,
        leases_at: to.revision,
        cluster: ClusterId::from_hex(&recorded.cluster_id),
        proof: recorded.proof.as_ref(),
    })
}

fn token(request: &Request, several: bool) -> Result<String> {
    match &request.token {
        Some(token) => Ok(token.clone()),
        None if several => Err(must_be_given(
            "token-not-given",
            "the members of one cluster need the same token: with a random one each they would not form a cluster",
        )),
        // All ids are made from the token: under a new one no old member is taken for one of this
        // cluster.
        None => Ok(format!("etcd-dr-{:032x}", request.options.random)),
    }
}

/// Refuses a bump that each member of a cluster would find out for itself.
fn refuse_own_bumps(bump: Option<Bump>, several: bool) -> Result<()> {
    match bump {
        Some(Bump::Auto { .. }) | None if several => Err(must_be_given(
            "bump-not-given",
            "the members of one cluster need the same bump, as a number: detected on each, it could differ",
        )),
        _ => Ok(()),
    }
}

fn outcome(
    request: &Request,
    cluster: &FoundingCluster,
    me: MemberId,
    token: String,
    restored: restore::Restored,
) -> Outcome {
    let facts = restored.report.facts.as_ref();
    let at = restored.at.as_ref();
    let moment = request.to.clone().zip(at).map(|(moment, at)| Restored {
        moment,
        hash_kv: at.hash_kv.hash,
        idle_leases: at.idle_leases,
        recreated_leases: at
            .recreated_leases
            .iter()
            .map(|(id, _)| format!("{:x}", id.cast_unsigned()))
            .collect(),
    });
    let roll_forward = restored.rolled.as_ref().map(RolledForward::of);
    let recorded = request.recorded.as_ref().zip(restored.extended.as_ref());
    let recorded = recorded.map(|(recorded, extended)| AppliedChanges::of(recorded, extended));
    let member = |member: &Member| NewMember {
        id: member.id.to_string(),
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
    };
    Outcome {
        snapshot: request.snapshot.clone(),
        data_dir: request.options.data_dir.clone(),
        wal_dir: request.options.wal_dir.clone(),
        cluster_id: cluster.id.to_string(),
        member_id: me.to_string(),
        members: cluster.members.iter().map(member).collect(),
        token,
        snapshot_revision: facts.map_or(1, |facts| facts.revision),
        revision: restored.revision,
        bumped: restored.decision.revision.is_some(),
        reasons: restored.decision.reasons,
        keys: at.map_or(facts.map_or(0, |facts| facts.keys), |at| at.keys),
        moment,
        roll_forward,
        recorded,
        database_size: restored.database_size,
        log_index: cluster.commit(),
        alarms: restored.alarms,
        notes: restored.notes,
    }
}

/// Tells what the operator should know.
fn tell(context: &Context, restored: &restore::Restored) {
    for reason in &restored.decision.reasons {
        context.tell(Event::Note(reason.clone()));
    }
    for note in &restored.notes {
        context.warn("snapshot-state", note.clone());
    }
    for alarm in &restored.alarms {
        context.warn(
            "alarm-raised",
            format!(
                "the alarm {} of the former member {:x} stays raised: the restored cluster may refuse writes until it is disarmed",
                alarm.alarm, alarm.member
            ),
        );
    }
}
