//! `disable` and `enable`: etcd's static pod of this node off and on.
//!
//! Disabling is an operation with a journal like a restore; while it is completed and not taken back
//! it is in force. Enabling takes it back. On OpenShift an installer pod of a new revision writes
//! the manifest again: a node has no means against that, so whoever asks is told that it is not in
//! force any more, and disabling again repeats it.

use std::path::PathBuf;
use std::time::Duration;

use super::about::{About, Scope, SetAbout};
use super::folders::{self, Folders};
use super::plan::Draft;
use super::site::Site;
use super::steps::{Exchange, NodeStep};
use super::survey::refuse;
use super::world::World;
use super::{about, proof};
use crate::change::operation;
use crate::cluster::connect::Target;
use crate::cluster::quorum;
use crate::cluster::quorum::{Against, Change};
use crate::cluster::survey::Reach;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::inspect::diagnose;
use crate::node::component::Component;
use crate::node::layout::NodeLayout;
use crate::node::profile::Profile;
use crate::plan::registry::{self, Found};
use crate::plan::{Operation, State};
use crate::sys::mount::Mounts;

/// The kind of operation, in journals.
pub const KIND: &str = "disable";

/// The plan of stopping etcd's pod and keeping it stopped.
///
/// # Errors
/// As those of [`super::draft`]; [`Kind::Refused`] where there is no manifest to be moved.
pub async fn draft(context: &Context, target: &Target, wait: Duration) -> Result<Draft> {
    let layout = &target.layout;
    registry::refuse_while_unfinished(&layout.state())?;
    let site = context.cancel.guard(Site::look(context, target)).await?;
    let live = site.live(Component::Etcd)?;
    let id = operation::free_name(context, layout, KIND);
    let folders = Folders::find(
        layout,
        &Mounts::read()?,
        &site.data_dir,
        &id,
        &folders::places(layout),
    )?;
    let pods = site.pods(Scope::Etcd)?;
    site.refuse_copies(&pods)?;
    let notes = site.manifest_notes(&pods);
    let node = |path: &PathBuf| site.node_path(path);
    let aside = folders
        .manifests()
        .join(live.file_name().unwrap_or_default());
    let wanted: Vec<PathBuf> = folders
        .missing(layout, site.profile, &site.data_dir)
        .into_iter()
        .filter(|folder| node(&folders.manifests()).starts_with(folder))
        .collect();
    let steps = vec![
        NodeStep::MakeFolders { folders: wanted },
        NodeStep::StopPods {
            moves: vec![Exchange {
                incoming: None,
                place: node(&live),
                aside: node(&aside),
            }],
        },
        NodeStep::AwaitStopped,
    ];
    let about = About {
        set: SetAbout {
            name: "no backup".to_owned(),
            dir: PathBuf::new(),
            created: None,
            kv_revision: None,
            ocp_version: None,
            cluster_uuid: None,
            node: None,
        },
        profile: site.profile.word().to_owned(),
        node: site.node.clone(),
        nodes: vec![site.node.clone()],
        scope: Scope::Etcd,
        etcd: site.etcd(None),
        runtime: node(&site.socket),
        pods: pods.into_iter().map(|pod| pod.about).collect(),
        wait_seconds: wait.as_secs(),
        grace_seconds: None,
        etcd_served: None,
        alarms_allowed: true,
        safety: vec![node(&folders.etc)],
        former_clusters: Vec::new(),
        others: Vec::new(),
        etcd_alone: layout.is_etcd_only(site.profile),
    };
    Ok(Draft {
        about,
        steps,
        notes,
        refused: None,
    })
}

/// The disabling that is in force or unfinished on this node.
pub fn current(layout: &NodeLayout) -> Result<Option<Found>> {
    let all = registry::list(&layout.state())?;
    let ours = |found: &Found| match &found.progress {
        Ok(progress) => {
            progress.begin.kind == KIND
                && matches!(
                    progress.state,
                    State::Completed | State::Running | State::RollingBack
                )
        }
        Err(_) => found.id.starts_with(KIND),
    };
    Ok(all.into_iter().rfind(ours))
}

/// The disabling that keeps etcd from running, if there is one.
///
/// # Errors
/// As those of [`current`].
pub fn in_force(layout: &NodeLayout) -> Result<Option<String>> {
    let Some(found) = current(layout)? else {
        return Ok(None);
    };
    let completed = matches!(&found.progress, Ok(progress) if progress.state == State::Completed);
    Ok((completed && !undone_by_others(layout, &found)?).then_some(found.id))
}

/// Whether etcd's manifest has come back although it was moved away.
pub fn undone_by_others(layout: &NodeLayout, found: &Found) -> Result<bool> {
    let Ok(progress) = &found.progress else {
        return Ok(false);
    };
    let steps: Vec<NodeStep> = progress
        .begin
        .steps
        .iter()
        .filter_map(|step| serde_json::from_value(step.clone()).ok())
        .collect();
    Ok(progress.state == State::Completed
        && steps.iter().any(|step| match step {
            NodeStep::StopPods { moves } => moves
                .iter()
                .any(|exchange| layout.host(&exchange.place).symlink_metadata().is_ok()),
            _ => false,
        }))
}

/// The later operation that has put etcd's manifest back, as a restore does: what was disabled
/// runs again by the tool's own doing.
///
/// # Errors
/// Those of listing the operations.
pub fn superseded_by(layout: &NodeLayout, disabled: &Found) -> Result<Option<Found>> {
    if !undone_by_others(layout, disabled)? {
        return Ok(None);
    }
    let all = registry::list(&layout.state())?;
    let later = all.into_iter().skip_while(|found| found.id != disabled.id);
    let starts = later.skip(1).filter(|found| match &found.progress {
        Ok(progress) => {
            progress.begin.kind != KIND
                && (progress.state.is_uncommitted() || progress.state == State::Committed)
        }
        Err(_) => false,
    });
    Ok(starts.last())
}

/// Ends the disablings that are not in force any more: etcd's manifest is back, and nothing that
/// put it there can be rolled back.
///
/// # Errors
/// Those of listing the operations, and of removing what one kept.
pub fn settle(context: &Context, layout: &NodeLayout) -> Result<()> {
    for found in registry::list(&layout.state())? {
        let ours = matches!(&found.progress, Ok(progress)
            if progress.begin.kind == KIND && progress.state == State::Completed);
        if !ours || !undone_by_others(layout, &found)? {
            continue;
        }
        let later = superseded_by(layout, &found)?;
        if later.is_some_and(|later| later.is_uncommitted()) {
            continue;
        }
        let observer = context.observer.clone();
        let mut operation =
            Operation::<NodeStep>::open(&found.dir, observer, jiff::Timestamp::now)?;
        let safety = about(operation.progress())?.safety;
        operation::commit(layout, &mut operation, &safety)?;
    }
    Ok(())
}

/// Refuses to start a kubeadm node's etcd on data from before a restore: another member serves the
/// restored cluster meanwhile, and with a majority of the old ones the cluster would be two.
/// OpenShift's pod archives such data by itself, and joins.
///
/// # Errors
/// [`Kind::Refused`], which nothing overrides.
pub async fn refuse_beside_restored(context: &Context, target: &Target) -> Result<()> {
    let look = async {
        let site = Site::look(context, target).await?;
        let (others, node) = site.others(context, &site.data_dir).await;
        Ok((site, others, node))
    };
    let (site, others, node) = match context.cancel.guard(look).await {
        Ok(found) => found,
        Err(failure) if failure.kind() == Kind::Interrupted => return Err(failure),
        Err(failure) => {
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
        Some((at, id)) if !own.is_empty() && site.profile == Profile::Kubeadm => {
            let what = format!(
                "{at} serves cluster {id}, but the data here belongs to {own}, from before a restore: started beside it, the old cluster could come back"
            );
            Err(refuse("cluster-restored", what))
        }
        _ => Ok(()),
    }
}

/// Moves the manifest back and waits until etcd serves.
///
/// # Errors
/// [`Kind::Unreachable`] where it does not serve in time: the manifest is back nevertheless.
pub async fn enable(
    context: &Context,
    layout: &NodeLayout,
    operation: &mut Operation<NodeStep>,
    wait: Duration,
) -> Result<()> {
    super::take_back(context, layout, operation).await?;
    serves(context, layout, about(operation.progress())?, wait).await
}

/// Of a node whose etcd is not disabled: whether it was, and then waits until etcd serves, as
/// [`enable`] would.
///
/// # Errors
/// [`Kind::Usage`] where there is no manifest of etcd's to be run.
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
        (progress.begin.kind == KIND).then_some(progress)
    });
    let Some(progress) = before else {
        return Ok(false);
    };
    serves(context, layout, about(&progress)?, wait).await?;
    Ok(true)
}

/// What becomes of the votes when this node's etcd stops.
///
/// # Errors
/// Why that is not known.
pub async fn votes(context: &Context, target: &Target) -> Result<(Change, Option<Against>)> {
    let detection = target.detect(context)?;
    let (reach, access) = Reach::of(context, target, &detection)?;
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
    mut about: About,
    wait: Duration,
) -> Result<()> {
    about.wait_seconds = wait.as_secs();
    let world = World {
        layout: layout.clone(),
        about,
        context: context.clone(),
        proves_back: false,
        ran: std::sync::Mutex::default(),
    };
    proof::serving(&world)
        .await
        .map(|_| ())
        .map_err(|failure| match failure.kind() {
            Kind::Unreachable => failure.doing("etcd's manifest is back, but etcd does not serve"),
            _ => failure,
        })
}
