//! The steps that only a join has: etcd's new data comes from the cluster.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{joined, manifest};
use crate::change::member::add::{self, Action, AddRequest, Gone};
use crate::change::member::catchup::{Awaited, until_it_votes};
use crate::change::transaction::context::StepContext;
use crate::change::transaction::exchange::Exchange;
use crate::change::transaction::files::clear;
use crate::change::transaction::info::{Joining, NodeFacts, PodInfo};
use crate::change::transaction::{moves, rollback};
use crate::cluster::connect::Target;
use crate::cluster::peer_url;
use crate::cluster::survey::{MemberState, Survey};
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::ids::MemberId;
use crate::journal::Known;
use crate::node::layout::NodeLayout;
use crate::node::overrides::AccessOverrides;
use crate::sys::fs;

/// A step of a join. All paths are the node's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "step",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum JoinStep {
    /// Moves etcd's manifest away.
    StopEtcd {
        /// From where to where; `None` if it was away already.
        manifest: Option<Exchange>,
    },
    /// Adds the member as a learner.
    AddLearner {
        /// Its id in hexadecimal, if an earlier attempt has left it in the list.
        existing: Option<String>,
    },
    /// Writes the manifest that goes into place.
    WriteManifest {
        /// What it is made from.
        from: PathBuf,
        /// Where it is written.
        to: PathBuf,
        /// Whether it gets the flags of a joining member; otherwise it is a copy.
        flags: bool,
    },
    /// Puts etcd's manifest in place.
    StartEtcd {
        /// What, where.
        manifest: Exchange,
        /// The data directory.
        data_dir: PathBuf,
        /// Where a rollback moves what etcd made in it.
        made: PathBuf,
        /// What stays in it.
        keep: Vec<OsString>,
        /// What is etcd's, and moves; if nothing is named, all but `keep`.
        #[serde(default)]
        only: Vec<String>,
    },
    /// Waits until the member votes; promotes it.
    AwaitVote,
    /// Proves that the member serves what the others do.
    ProveMember,
}

impl JoinStep {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::StopEtcd { .. } => "stop-etcd",
            Self::AddLearner { .. } => "add-learner",
            Self::WriteManifest { .. } => "write-manifest",
            Self::StartEtcd { .. } => "start-etcd",
            Self::AwaitVote => "await-vote",
            Self::ProveMember => "prove-member",
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::StopEtcd { manifest: Some(m) } => {
                format!("stop etcd: move {} away", m.place.display())
            }
            Self::StopEtcd { manifest: None } => "keep etcd's manifest away".to_owned(),
            Self::AddLearner { existing: None } => "add the member as a learner".to_owned(),
            Self::AddLearner { existing: Some(id) } => {
                format!("continue with member {id}, which was added before")
            }
            Self::WriteManifest { from, to, flags } => format!(
                "write {} as {}{}",
                to.display(),
                from.display(),
                if *flags {
                    " with the flags of a joining member"
                } else {
                    ""
                }
            ),
            Self::StartEtcd { manifest, .. } => {
                format!("put {} in place", manifest.place.display())
            }
            Self::AwaitVote => {
                "wait until the member serves and has caught up; promote it".to_owned()
            }
            Self::ProveMember => {
                "prove that it votes and has the same data as the other members".to_owned()
            }
        }
    }

    pub(super) async fn apply(&self, node: &StepContext, known: &Known) -> Result<Option<Value>> {
        match self {
            Self::StopEtcd { manifest } => {
                if let Some(manifest) = manifest {
                    manifest.apply(node)?;
                }
            }
            Self::AddLearner { .. } => return add_learner(node).await.map(Some),
            Self::WriteManifest { from, to, flags } => {
                write_manifest(node, known, from, to, *flags)?
            }
            Self::StartEtcd { manifest, .. } => {
                node.relisted().await?;
                manifest.apply(node)?;
            }
            Self::AwaitVote => await_vote(node, known).await?,
            Self::ProveMember => {
                return joined::prove(node, &survey(node).await?, member_id(known)?)
                    .await
                    .map(Some);
            }
        }
        Ok(None)
    }

    pub(super) async fn undo(&self, node: &StepContext, known: &Known) -> Result<Option<Value>> {
        match self {
            Self::StopEtcd { manifest } => {
                if let Some(manifest) = manifest {
                    node.relisted().await?;
                    manifest.revert(node)?;
                }
            }
            Self::AddLearner { existing } => take_out(node, known, existing.as_deref()).await?,
            Self::WriteManifest { to, .. } => fs::unlink(&node.host(to))?,
            Self::StartEtcd {
                manifest,
                data_dir,
                made,
                keep,
                only,
            } => {
                manifest.revert(node)?;
                let pods: Vec<&PodInfo> = node.facts.pods.iter().collect();
                node.stopped(&pods).await?;
                let made = node.host(made);
                moves::move_data(&node.host(data_dir), &made, only, keep)?;
                if !known.completed {
                    // It is only a copy of the cluster's data: the member never voted.
                    clear(&made)?;
                    return Ok(None);
                }
                return Ok(rollback::taken_out(node, known, &made));
            }
            Self::AwaitVote | Self::ProveMember => {}
        }
        Ok(None)
    }
}

/// The cluster that is joined, as it is now.
async fn survey(node: &StepContext) -> Result<Survey> {
    let reach = joining(&node.facts)?.cluster.reach()?;
    node.context.cancel.guard(reach.survey()).await
}

fn joining(facts: &NodeFacts) -> Result<&Joining> {
    facts.joins.as_ref().ok_or_else(|| {
        let what = "the journal does not say which cluster is joined";
        Failure::new(Kind::Busy, what)
    })
}

/// The member that this operation has added, if any. If etcd's answer with its id was lost, it is
/// found by its peer URLs as long as it has not started.
fn added<'a>(
    node: &StepContext,
    survey: &'a Survey,
    known: &Known,
) -> Result<Option<&'a MemberState>> {
    if known.field("memberId").is_some() {
        return Ok(survey.find(member_id(known)?));
    }
    let urls = &node.facts.etcd.peer_urls;
    let unstarted = |state: &&MemberState| {
        !state.has_started() && peer_url::same_all(&state.member.peer_urls, urls)
    };
    Ok(survey.members.iter().find(unstarted))
}

/// The member's id, which the step that added it found out.
pub(crate) fn member_id(known: &Known) -> Result<MemberId> {
    let text: String = known.read("memberId")?;
    u64::from_str_radix(&text, 16)
        .map(MemberId)
        .doing(Kind::Unexpected, || {
            format!("reading the member's id {text:?}")
        })
}

/// The request to the cluster.
pub(crate) fn request(facts: &NodeFacts, layout: &NodeLayout) -> Result<AddRequest> {
    Ok(AddRequest {
        // The cluster has been found already.
        target: Target {
            layout: layout.clone(),
            profile: None,
            overrides: AccessOverrides::default(),
        },
        name: facts.etcd.member.clone(),
        peer_urls: facts.etcd.peer_urls.clone(),
        learner: true,
        promote: true,
        wait: facts.wait,
        allow: joining(facts)?.allow.clone(),
    })
}

async fn add_learner(node: &StepContext) -> Result<Value> {
    let request = request(&node.facts, &node.layout)?;
    let survey = survey(node).await?;
    let peer_urls = request.peer_urls.clone();
    let plan = add::judge(&node.context, &request, survey, peer_urls)?;
    if let Action::Nothing(id) = plan.action {
        let what = format!("member {id} was promoted in the meantime, but not by this operation");
        return Err(Failure::new(Kind::Unexpected, what));
    }
    let added = add::begin(&node.context, &request, plan).await?;
    Ok(json!({
        "memberId": added.id.to_string(),
        "initialCluster": added.start.initial_cluster,
    }))
}

/// Removes the member again. One that an earlier attempt had left in the list stays there.
async fn take_out(node: &StepContext, known: &Known, existing: Option<&str>) -> Result<()> {
    if let Some(id) = existing {
        let what = format!("member {id} stays in the member list, as before");
        node.context.warn("member-remains", what);
        return Ok(());
    }
    let survey = survey(node).await?;
    let Some(state) = added(node, &survey, known)? else {
        return Ok(());
    };
    let id = state.member.id;
    let remains = |failure: Failure| failure.with(Fact::MemberRemains(id.to_string()));
    match add::remove_again(&survey, id, true).await {
        Ok(Gone::Removed) => Ok(()),
        Ok(Gone::Votes { .. }) => Err(remains(Failure::new(
            Kind::RollbackFailed,
            format!("member {id} remains because it was promoted"),
        ))),
        Err(failure) => Err(remains(
            failure.doing(format!("removing member {id} again")),
        )),
    }
}

fn write_manifest(
    node: &StepContext,
    known: &Known,
    from: &Path,
    to: &Path,
    flags: bool,
) -> Result<()> {
    let (from, to) = (node.host(from), node.host(to));
    let text = std::fs::read_to_string(&from)
        .doing(Kind::Unexpected, || format!("reading {}", from.display()))?;
    let text = if flags {
        let initial_cluster: String = known.read("initialCluster")?;
        manifest::joining(&text, &initial_cluster)
            .map_err(|failure| failure.doing(format!("changing {}", from.display())))?
    } else {
        text
    };
    // Left by an attempt that was killed before its record.
    fs::unlink(&to)?;
    fs::write_like(&from, &to, text.as_bytes())?;
    fs::sync_dir(fs::parent(&to))
}

async fn await_vote(node: &StepContext, known: &Known) -> Result<()> {
    let survey = survey(node).await?;
    let awaited = Awaited {
        id: member_id(known)?,
        name: &node.facts.etcd.member,
        wait: node.facts.wait,
        node: Some(node),
    };
    until_it_votes(&node.context, &survey, &awaited)
        .await
        .map(drop)
}

/// The member's id if it votes by now, and so must not be removed.
///
/// # Errors
/// [`Kind::Unreachable`].
pub(crate) async fn votes(node: &StepContext, known: &Known) -> Result<Option<MemberId>> {
    let unstopped = node.unstopped();
    let survey = survey(&unstopped).await?;
    Ok(added(node, &survey, known)?
        .filter(|state| !state.member.is_learner)
        .map(|state| state.member.id))
}
