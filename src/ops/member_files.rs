//! `verify --data-dir`: a stopped member's own files: database, WAL, `.snap` files, and whether
//! they agree.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::Context;
use super::database::{self, Wanted};
use super::verify::{LayerReport, Layers};
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::datadir::{self, DbFacts, Layout};
use crate::etcd::finding::{Finding, Layer};
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;

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
}

/// Checks a member's data directory. Changes nothing.
///
/// # Errors
/// [`Kind::NotChecked`] while a running etcd holds it: what is read would be torn.
pub fn run(context: &Context, data_dir: &Path, wal_dir: Option<&Path>) -> Result<Report> {
    let layout = Layout::new(data_dir, wal_dir);
    if !layout.snap.is_dir() {
        let what = format!(
            "{} is no data directory: it has no member/snap",
            data_dir.display()
        );
        return Err(Failure::new(Kind::Usage, what).with(Fact::Path(data_dir.to_owned())));
    }
    if layout.locks()?.any_held() {
        let what = format!("a running etcd holds {}", data_dir.display());
        return Err(Failure::new(Kind::NotChecked, what).with(Fact::Path(data_dir.to_owned())));
    }
    let mut layers = Layers::default();
    let report = database::read(context, &layout.db(), Wanted::default())?;
    let facts = match &report {
        Some(report) => {
            layers.database(report, "db");
            report.facts.as_ref().map(db_facts)
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
    match &facts {
        Some(_) => layers.close(Layer::Agreement, ""),
        None => layers.skip(Layer::Agreement, "the database tells nothing"),
    }
    Ok(Report {
        data_dir: data_dir.display().to_string(),
        good: layers.good(),
        wal: wal(&files),
        layers: layers.reports,
        findings: layers.findings,
        database: report.map(Box::new),
    })
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

/// What the database says of itself, as the data directory's check takes it.
fn db_facts(facts: &crate::etcd::snapshot::DatabaseFacts) -> DbFacts {
    let member = |member: &crate::etcd::snapshot::Member| Member {
        id: MemberId(member.id),
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.is_learner,
    };
    DbFacts {
        consistent_index: facts.consistent_index.unwrap_or_default(),
        term: facts.term,
        members: facts.members.iter().map(member).collect(),
        removed: facts
            .members_removed
            .iter()
            .filter_map(|id| MemberId::from_hex(id))
            .collect(),
    }
}
