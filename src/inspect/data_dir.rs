//! `verify --data-dir`: a stopped member's own files: database, WAL, `.snap` files, whether they
//! agree, and what a cluster lost to all its members but this one could be made of them.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::layers::{LayerReport, Layers};
use crate::context::Context;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::datadir::{self, DbFacts, Layout, not_a_data_dir};
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::finding::{Finding, Layer, Severity};
use crate::keep::catalog::BackupSet;
use crate::keep::database::KeyFilter;
use crate::keep::{catalog, database};

/// What a look at a data directory found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The directory.
    pub data_dir: String,
    /// Whether nothing is broken.
    pub good: bool,
    /// Every layer.
    pub layers: Vec<LayerReport>,
    /// Everything that was found.
    pub findings: Vec<Finding>,
    /// The database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<Box<database::Report>>,
    /// The log.
    pub wal: Value,
    /// Whose files they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<Own>,
    /// The members at the end of the log, whether committed or not; `None` if nothing tells
    /// whom the log began with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<Vec<Known>>,
    /// Ids of the voters at the last index known to be committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_voters: Option<Vec<String>>,
    /// Key-value revisions: of the database, and with all of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revisions: Option<Revisions>,
    /// When the database or the log was last written to, by the file's own time. A file that was
    /// copied without its time tells when it was copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_written: Option<Timestamp>,
    /// How far the newest backup of the store is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_backup: Option<Distance>,
    /// For a damaged database with a whole WAL: what would lose nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roll_forward: Option<RollForward>,
}

/// A backup that the member's WAL continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RollForward {
    /// The backup.
    pub backup: String,
    /// What `--roll-forward` takes.
    pub from: PathBuf,
}

impl RollForward {
    /// The newest good backup that a whole WAL continues.
    fn of(files: &datadir::Report, from: &Path, sets: &[BackupSet]) -> Option<Self> {
        let scan = &files.wal.scan;
        let broken = |finding: &Finding| finding.severity == Severity::Error;
        if scan.findings.iter().any(broken) {
            return None;
        }
        let cluster = format!("{:x}", scan.metadata?.cluster);
        let first = scan.segments.iter().find_map(|segment| segment.indexes)?.0;
        let continued = first..=files.wal.last_entry().index;
        let mut of_cluster: Vec<BackupSet> = sets.to_vec();
        of_cluster.retain(|set| {
            let manifest = set.manifest.as_ref();
            manifest.is_some_and(|manifest| {
                // What etcd had applied just before the snapshot: the snapshot has no less.
                let applied = manifest.member.raft_applied_index;
                manifest.cluster.etcd_id == cluster && continued.contains(&applied)
            })
        });
        let newest = catalog::newest_good(&of_cluster, Timestamp::now())?;
        Some(Self {
            backup: newest.name.clone(),
            from: from.to_owned(),
        })
    }
}

/// What a member is in its cluster, at the end of its own WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It votes.
    Voter,
    /// It only follows.
    Learner,
    /// It is not a member: removed, or not joined yet.
    None,
    /// Nothing tells.
    Unknown,
}

/// Whose files they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Own {
    /// The member's id, as hex.
    pub id: String,
    /// Its name, where it has published one.
    pub name: String,
    /// The cluster's id, as hex.
    pub cluster_id: String,
    /// What it is.
    pub role: Role,
}

/// A member that the files know of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// Its id, as hex.
    pub id: String,
    /// Its name; empty until it has published one.
    pub name: String,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Whether it only follows.
    pub learner: bool,
}

/// Key-value revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revisions {
    /// The database's.
    pub database: i64,
    /// The highest revision that the rest of the WAL can lead to: each request that writes keys
    /// adds at most one.
    pub at_most: i64,
}

/// The distance to a backup, in revisions; negative if the disk is behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Distance {
    /// The backup.
    pub backup: String,
    /// Whether it is of the same cluster; if not, revisions say nothing.
    pub same_cluster: bool,
    /// The backup's revision.
    pub revision: i64,
    /// How far the disk is ahead of it by its database alone.
    pub ahead: i64,
    /// How far at most, with the log beyond the database.
    pub ahead_at_most: i64,
}

impl Distance {
    /// How a disk compares with the newest good backup among some; `None` if there is no backup
    /// whose revision is known.
    pub fn of(revisions: Revisions, cluster: &str, sets: &[BackupSet]) -> Option<Self> {
        let same = |set: &&BackupSet| {
            let manifest = set.manifest.as_ref();
            manifest.is_some_and(|manifest| manifest.cluster.etcd_id == cluster)
        };
        let own: Vec<BackupSet> = sets.iter().filter(same).cloned().collect();
        // A backup of another cluster is named only if this cluster has none.
        let now = Timestamp::now();
        let newest = catalog::newest_good(&own, now);
        let newest = newest.or_else(|| catalog::newest_good(sets, now))?;
        let manifest = newest.manifest.as_ref()?;
        let revision = manifest.database.kv_revision?;
        Some(Self {
            backup: newest.name.clone(),
            same_cluster: manifest.cluster.etcd_id == cluster,
            revision,
            ahead: revisions.database.saturating_sub(revision),
            ahead_at_most: revisions.at_most.saturating_sub(revision),
        })
    }
}

/// Checks a member's data directory, and compares it with the backups that are known. Changes
/// nothing.
///
/// # Errors
/// [`Kind::NotChecked`] while a running etcd holds it: what is read would be torn.
pub fn run(
    context: &Context,
    data_dir: &Path,
    wal_dir: Option<&Path>,
    backups: &[BackupSet],
) -> Result<Report> {
    let layout = Layout::new(data_dir, wal_dir);
    refuse_unreadable(&layout, data_dir)?;
    let mut layers = Layers::default();
    let report = database::read(context, &layout.db(), KeyFilter::default())?;
    let facts = match &report {
        Some(report) => {
            layers.database(report, "db");
            report.facts.as_ref().map(DbFacts::of)
        }
        None => {
            layers
                .findings
                .push(Finding::error(Layer::Meta, "a database", "no such file").in_file("db"));
            layers.close(Layer::Meta, "");
            None
        }
    };
    context.cancel.check()?;
    let files = datadir::check(&layout, facts.as_ref())?;
    close_layers(&mut layers, &files, facts.is_some());
    let member = own(&files, facts.as_ref());
    let revisions = report.as_ref().and_then(|report| revisions(report, &files));
    let newest_backup = match (&member, revisions) {
        (Some(member), Some(revisions)) => Distance::of(revisions, &member.cluster_id, backups),
        _ => None,
    };
    let roll_forward = match layers.good() {
        true => None,
        false => RollForward::of(&files, wal_dir.unwrap_or(data_dir), backups),
    };
    let membership = files.membership(facts.as_ref());
    let committed = files.committed_members.as_ref();
    Ok(Report {
        data_dir: data_dir.display().to_string(),
        good: layers.good(),
        wal: wal(&files),
        member,
        membership: membership.map(|members| members.into_iter().map(Known::from).collect()),
        committed_voters: committed.map(|members| ids(&members.voters)),
        revisions,
        last_written: last_written(&layout, &files),
        newest_backup,
        roll_forward,
        layers: layers.reports,
        findings: layers.findings,
        database: report.map(Box::new),
    })
}

/// Refuses what is not a data directory, and one that changes while it is read.
fn refuse_unreadable(layout: &Layout, data_dir: &Path) -> Result<()> {
    let (kind, what) = if !layout.snap.is_dir() {
        (Kind::Usage, not_a_data_dir(data_dir))
    } else if layout.locks()?.any_held() {
        let what = format!("a running etcd holds {}", data_dir.display());
        (Kind::NotChecked, what)
    } else {
        return Ok(());
    };
    Err(Failure::new(kind, what).with(Fact::Path(data_dir.to_owned())))
}

/// Reports the layers other than the database's.
fn close_layers(layers: &mut Layers, files: &datadir::Report, has_database: bool) {
    layers.findings.extend(files.findings.iter().cloned());
    let last = files.wal.last_entry();
    layers.close(
        Layer::Wal,
        format!(
            "{} segments, last entry {} at term {}",
            files.wal.scan.segments.len(),
            last.index,
            last.term
        ),
    );
    layers.close(Layer::RaftSnap, format!("{} files", files.snaps.len()));
    match has_database {
        true => layers.close(Layer::Agreement, ""),
        false => layers.skip(Layer::Agreement, "the database is not readable"),
    }
}

impl From<Member> for Known {
    fn from(member: Member) -> Self {
        Self {
            id: member.id.to_string(),
            name: member.name,
            peer_urls: member.peer_urls,
            learner: member.is_learner,
        }
    }
}

fn own(files: &datadir::Report, db: Option<&DbFacts>) -> Option<Own> {
    let identity = files.wal.scan.metadata?;
    let me = MemberId(identity.node);
    let role = match &files.last_members {
        None => Role::Unknown,
        Some(members) if members.voters.contains(&me) => Role::Voter,
        Some(members) if members.learners.contains(&me) => Role::Learner,
        Some(_) => Role::None,
    };
    let members = files.membership(db).unwrap_or_default();
    let name = members.into_iter().find(|member| member.id == me);
    Some(Own {
        id: me.to_string(),
        name: name.map(|member| member.name).unwrap_or_default(),
        cluster_id: format!("{:x}", identity.cluster),
        role,
    })
}

fn revisions(report: &database::Report, files: &datadir::Report) -> Option<Revisions> {
    let database = report.facts.as_ref()?.revision;
    let writes = files.beyond.as_ref().map_or(0, |beyond| beyond.key_writes);
    let writes = i64::try_from(writes).unwrap_or(i64::MAX);
    Some(Revisions {
        database,
        at_most: database.saturating_add(writes),
    })
}

fn last_written(layout: &Layout, files: &datadir::Report) -> Option<Timestamp> {
    let newest = files.wal.scan.segments.last();
    let newest = newest.map(|segment| layout.wal.join(segment.name.to_string()));
    let time = |path: &Path| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        Timestamp::try_from(modified.ok()?).ok()
    };
    [Some(layout.db()), newest]
        .iter()
        .flatten()
        .filter_map(|path| time(path))
        .max()
}

/// The log in figures.
fn wal(files: &datadir::Report) -> Value {
    let state = files.wal.hard_state();
    let last = files.wal.last_entry();
    let identity = files.wal.scan.metadata;
    json!({
        "memberId": identity.map(|identity| format!("{:x}", identity.node)),
        "clusterId": identity.map(|identity| format!("{:x}", identity.cluster)),
        "term": state.term,
        "commit": state.commit,
        "lastIndex": last.index,
        "lastTerm": last.term,
        "beyondDatabase": files.beyond.as_ref().map(|beyond| json!({
            "committed": beyond.tail.committed,
            "uncommitted": beyond.tail.uncommitted,
            "keyWrites": beyond.key_writes,
        })),
        "voters": files.raft_members.as_ref().map(|members| ids(&members.voters)),
        "learners": files.raft_members.as_ref().map(|members| ids(&members.learners)),
        "leftovers": files.leftovers,
    })
}

fn ids<'a>(members: impl IntoIterator<Item = &'a MemberId>) -> Vec<String> {
    members.into_iter().map(ToString::to_string).collect()
}
