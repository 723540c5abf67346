//! `disable` and `enable`: etcd's static pod of this node stops and starts.
//!
//! Disabling is an operation with a journal, like a restore. It is in force as long as it is
//! completed and not rolled back. Enabling rolls it back. On OpenShift the installer pod of a new
//! revision writes the manifest again, which a node cannot prevent. The state then shows that
//! disabling is no longer in force, and `disable` repeats it.

use std::path::PathBuf;
use std::time::Duration;

use super::restore::info::RestoreInfo;
use super::restore::node_state::NodeState;
use super::transaction::context::StepContext;
use super::transaction::folders::{self, Folders};
use super::transaction::info::{OperationInfo, Scope};
use super::transaction::planner::Planner;
use super::transaction::proof;
use super::transaction::rollback::Returned;
use super::transaction::runner::{self, Journalled, Plan, Transaction};
use super::transaction::steps::NodeStep;
use super::transaction::unsettled::{DISABLE, free_name};
use crate::cluster::connect::Target;
use crate::cluster::quorum::{self, Against, Change};
use crate::cluster::survey::ClusterClient;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::inspect::diagnose;
use crate::journal::{Known, registry};
use crate::node::component::Component;
use crate::node::layout::NodeLayout;
use crate::node::profile::Profile;
use crate::sys::mount::Mounts;

/// Stopping etcd's pod and keeping it stopped.
#[derive(Debug)]
pub struct Disable;

impl Journalled for Disable {
    type Info = RestoreInfo;
    const KIND: &'static str = DISABLE;
    const COMMAND: &'static str = "disable";

    fn rolled_back(known: &Known) -> String {
        format!("disabling failed, and {}", Returned::of(known).sentence())
    }
}

/// The plan of stopping etcd's pod and keeping it stopped.
///
/// # Errors
/// As those of [`super::restore::from_backup::plan`]; [`Kind::Refused`] if there is no manifest to
/// move.
pub async fn plan(context: &Context, target: &Target, wait: Duration) -> Result<Plan<Disable>> {
    let layout = &target.layout;
    registry::refuse_while_unfinished(&layout.state())?;
    let state = context
        .cancel
        .guard(NodeState::look(context, target))
        .await?;
    let live = state.live(Component::Etcd)?;
    let id = free_name(context, layout, DISABLE);
    let folders = Folders::find(
        layout,
        &Mounts::read()?,
        &state.data_dir,
        &id,
        &folders::places(layout),
    )?;
    let pods = state.pods(Scope::Etcd)?;
    state.refuse_copies(&pods)?;
    let node = |path: &PathBuf| state.node_path(path);
    let wanted: Vec<PathBuf> = folders
        .missing(layout, state.profile, &state.data_dir)
        .into_iter()
        // Of a restore's folders only the one that takes the manifest.
        .filter(|folder| node(&folders.manifests()).starts_with(folder))
        .collect();
    let planner = Planner {
        layout,
        folders: &folders,
        data_dir: &state.data_dir,
    };
    let steps = vec![
        NodeStep::MakeFolders { folders: wanted },
        NodeStep::StopPods {
            moves: vec![planner.stop(&live)],
        },
        NodeStep::AwaitStopped,
    ];
    let info = RestoreInfo {
        source: None,
        profile: state.profile.word().to_owned(),
        node: state.node.clone(),
        nodes: vec![state.node.clone()],
        scope: Scope::Etcd,
        etcd: state.etcd(None),
        runtime: node(&state.socket),
        pods: pods.into_iter().map(|pod| pod.info).collect(),
        wait_seconds: wait.as_secs(),
        grace_seconds: None,
        etcd_served: None,
        // No data changes: an alarm is no reason to fail.
        alarms_allowed: true,
        safety: vec![node(&folders.etc)],
        former_clusters: Vec::new(),
        others: Vec::new(),
        etcd_alone: layout.is_etcd_only(state.profile),
    };
    Ok(Plan { id, info, steps })
}

/// Refuses to start a kubeadm node's etcd on data from before a restore: another member already
/// serves the restored cluster, and a majority of old members would form a second one. OpenShift's
/// etcd pod archives such data by itself and joins.
///
/// # Errors
/// [`Kind::Refused`], which nothing overrides.
pub async fn refuse_beside_restored(context: &Context, target: &Target) -> Result<()> {
    let look = async {
        let state = NodeState::look(context, target).await?;
        let (others, node) = state.others(context, &state.data_dir).await;
        Ok((state, others, node))
    };
    let (state, others, node) = match context.cancel.guard(look).await {
        Ok(found) => found,
        Err(failure) if failure.kind() == Kind::Interrupted => return Err(failure),
        Err(failure) => {
            // What was disabled can be enabled, even if the node tells nothing.
            context.warn("other-members-unknown", failure.to_string());
            return Ok(());
        }
    };
    let own = node.cluster_id.as_deref().unwrap_or_default();
    let foreign = others
        .clusters
        .iter()
        .map(|(at, id)| (at, format!("{id:x}")));
    let mut foreign = foreign.filter(|(_, id)| id != own);
    match foreign.next() {
        Some((at, id)) if !own.is_empty() && state.profile == Profile::Kubeadm => {
            let what = format!(
                "{at} serves cluster {id}, but the data here belongs to {own}, from before a restore: started beside it, the old cluster could come back"
            );
            Err(Failure::refused_for_good("cluster-restored", what))
        }
        _ => Ok(()),
    }
}

/// Moves the manifest back and waits until etcd serves.
///
/// # Errors
/// [`Kind::Unreachable`] if etcd does not serve in time; the manifest is back in any case.
pub async fn enable(
    context: &Context,
    layout: &NodeLayout,
    disabled: &mut Transaction<Disable>,
    wait: Duration,
) -> Result<()> {
    let done = disabled.rollback().await?;
    serves(context, layout, &done.info, wait).await
}

/// For a node whose etcd is not disabled: if it was disabled before, waits until etcd serves, as
/// [`enable`] does, and returns true.
///
/// # Errors
/// [`Kind::Usage`] if etcd has no manifest on this node.
pub async fn enabled_already(context: &Context, target: &Target, wait: Duration) -> Result<bool> {
    let layout = &target.layout;
    let profile = target.detect(context)?.profile;
    let live = layout.manifest(Component::Etcd, profile);
    if live.is_none_or(|live| live.symlink_metadata().is_err()) {
        return Err(Failure::new(
            Kind::Usage,
            format!(
                "etcd is not disabled on this node, and has no manifest in {}",
                layout.manifests().display()
            ),
        ));
    }
    let all = registry::list(&layout.state())?;
    let before = all.into_iter().rev().find_map(|found| {
        let progress = found.progress.ok()?;
        (progress.begin.kind == DISABLE).then_some(progress)
    });
    let Some(progress) = before else {
        return Ok(false);
    };
    serves(context, layout, &runner::info(&progress)?, wait).await?;
    Ok(true)
}

/// How the quorum changes when this node's etcd stops.
///
/// # Errors
/// If that cannot be found out.
pub async fn votes(context: &Context, target: &Target) -> Result<(Change, Option<Against>)> {
    let detection = target.detect(context)?;
    let (reach, access) = ClusterClient::of(context, target, &detection)?;
    let survey = context.cancel.guard(reach.hasty().survey()).await?;
    let Some(own) = diagnose::own(&survey, target, &access) else {
        let what = "cannot tell which member is this node's own";
        return Err(Failure::new(Kind::Unexpected, what));
    };
    let id = own.member.id;
    Ok(quorum::with_health(&survey.standings(), id.0, false))
}

async fn serves(
    context: &Context,
    layout: &NodeLayout,
    info: &RestoreInfo,
    wait: Duration,
) -> Result<()> {
    let mut facts = info.facts();
    facts.wait = wait;
    let node = StepContext::new(context, layout, facts);
    proof::serving(&node)
        .await
        .map(|_| ())
        .map_err(|failure| match failure.kind() {
            Kind::Unreachable => failure.doing("etcd's manifest is back, but etcd does not serve"),
            _ => failure,
        })
}
