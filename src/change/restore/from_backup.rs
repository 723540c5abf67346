//! `restore BACKUP` on a node: what is refused, and what is planned.

use std::path::Path;

use super::backup_planner::BackupPlanner;
use super::identity::{self, NodeSays};
use super::others::Others;
use super::plan::{RestorePlan, WAY_BACK};
use super::preflight::Survey;
use super::refusals::{ALARM_IN_BACKUP, NO_INTEGRITY_HASH, Refusals};
use super::request::Request;
use crate::change::transaction::context::RUNTIME_TIMEOUT;
use crate::change::transaction::data;
use crate::change::transaction::folders::{self, Folders};
use crate::change::transaction::planner::Planner;
use crate::change::transaction::runner::Plan;
use crate::change::transaction::unsettled::{RESTORE, free_name, refuse_while_unsettled};
use crate::context::Context;
use crate::error::Result;
use crate::event::Event;
use crate::keep::advice;
use crate::node::apiserver::ApiServer;
use crate::node::layout::NodeLayout;
use crate::node::runtime::{Runtime, find_socket};
use crate::node::settings::Settings;
use crate::sys::mount::Mounts;

/// Makes the plan. Nothing has changed when it returns.
///
/// # Errors
/// [`Kind::BadBackup`], the refusals, [`Kind::Unreachable`] without a container runtime,
/// [`Kind::Busy`] while another operation is unfinished, [`Kind::Store`] without room.
///
/// [`Kind::BadBackup`]: crate::error::Kind::BadBackup
/// [`Kind::Unreachable`]: crate::error::Kind::Unreachable
/// [`Kind::Busy`]: crate::error::Kind::Busy
/// [`Kind::Store`]: crate::error::Kind::Store
pub async fn plan(context: &Context, request: &Request) -> Result<RestorePlan> {
    let (options, cancel) = (&request.options, &context.cancel);
    let layout = &options.target.layout;
    refuse_while_unsettled(layout)?;
    let survey = cancel.guard(Survey::make(context, request)).await?;
    survey.refuse_copies(layout)?;
    advise(context, request, &survey);
    let socket = find_socket(layout)?;
    let runtime = Runtime::connect(&socket, RUNTIME_TIMEOUT).await?;
    context.tell(Event::Note(format!(
        "container runtime {} {} at {}",
        runtime.info().name,
        runtime.info().version,
        socket.display()
    )));
    let data_dir = survey.access.data_dir_in(layout);
    let asked = async {
        let node = identity::of_node(context, &survey.asking, &data_dir).await;
        let others = identity::others(request, &survey, &node).await;
        Ok((node, others))
    };
    let (node, others) = cancel.guard(asked).await?;
    let refusals = options.not_allowed(context, refusals(request, &survey, &node, &others));
    let refused = identity::refused(refusals, &others.names);
    let plan = || {
        let mut plan = planned(context, request, &survey, &node, &socket)?;
        plan.plan.info.others = others.to_stay_away(|name| options.allows(name));
        Ok(plan)
    };
    if !options.rehearsal {
        refused.map_or(Ok(()), Err)?;
        return plan();
    }
    // A rehearsal shows both: what would be done, and what is against it.
    RestorePlan::unless_refused(plan(), refused)
}

/// Warns of what the restored control plane would run into.
fn advise(context: &Context, request: &Request, survey: &Survey) {
    let source: &NodeLayout = match survey.has_resources {
        true => &survey.unpacked,
        false => &request.options.target.layout,
    };
    let api = ApiServer::look(source, survey.profile);
    for (name, what) in advice::of_set(request.set.manifest.as_ref(), &api) {
        context.warn(name, what);
    }
    let settings = Settings::read(source, survey.profile);
    if let Some(what) = advice::removed_flags(&settings) {
        context.warn(advice::FLAG_REMOVED, what);
    }
}

/// All that stands against the restore, allowed or not.
fn refusals(request: &Request, survey: &Survey, node: &NodeSays, others: &Others) -> Refusals {
    let mut refusals: Refusals = request.options.root_required().into_iter().collect();
    refusals.extend(identity::mismatches(request, survey, node));
    refusals.extend(others.refusals("a restored single member would be a second cluster beside them; stop etcd on those nodes first"));
    if survey.unsealed {
        refusals.push((
            NO_INTEGRITY_HASH,
            "the snapshot has no SHA-256 of itself: nothing tells whether bytes of it were changed"
                .to_owned(),
        ));
    }
    if let Some(alarm) = survey.facts.alarms.first() {
        refusals.push((
            ALARM_IN_BACKUP,
            format!(
                "the alarm {} of member {:x} is in the backup and will be raised again: etcd may refuse writes",
                alarm.alarm, alarm.member
            ),
        ));
    }
    refusals
}

/// The plan of what was seen.
fn planned(
    context: &Context,
    request: &Request,
    survey: &Survey,
    node: &NodeSays,
    socket: &Path,
) -> Result<RestorePlan> {
    let layout = &request.options.target.layout;
    let evidence = identity::evidence(context, request, survey, node)?;
    let planner = BackupPlanner {
        context,
        request,
        survey,
        evidence,
        cluster_id: node.cluster_id.clone(),
        etcd_serves: node.serves,
        id: free_name(context, layout, RESTORE),
        runtime: layout.node_path(socket),
    };
    planner.plan()
}

impl BackupPlanner<'_> {
    /// Makes the plan.
    fn plan(&self) -> Result<RestorePlan> {
        let data_dir = self.data_dir()?;
        let mounts = Mounts::read()?;
        let folders = Folders::find(
            self.layout(),
            &mounts,
            &data_dir,
            &self.id,
            &folders::places(self.layout()),
        )?;
        let mut notes = self.scope_notes();
        if let Some((_, why)) = self
            .survey
            .misfit
            .as_ref()
            .filter(|_| !self.survey.has_resources)
        {
            notes.push(format!("this node's own etcd manifest is kept: {why}"));
        }
        let recorded = self.request.recorded.iter();
        notes.extend(recorded.flat_map(|recorded| recorded.notes.clone()));
        notes.push(WAY_BACK.to_owned());
        let wal = self.forward_wal(&data_dir)?;
        match &wal {
            Some(wal) => notes.extend(wal.notes.clone()),
            None => notes.extend(self.revision_notes()?),
        }
        let manifests = self.survey.pods.iter().filter_map(|pod| self.manifest(pod));
        notes.extend(manifests.filter_map(|path| self.layout().link_note(&path)));
        notes.extend(data::strangers(self.layout(), &data_dir)?);
        let snapshot = self.request.set.files.snapshot.as_deref();
        // The data directory moves away, and with it what is inside.
        data::refuse_inside(&data_dir, snapshot.unwrap_or(&self.request.set.dir))?;
        let whose = self.whose(&data_dir)?;
        let puts = self.replacements(&folders, &mounts, &mut notes)?;
        self.check_space(&data_dir, &folders)?;

        let mut safety = folders.safety(self.layout());
        if puts.iter().any(|put| put.apart) {
            safety.push(self.node_path(&folders.outside(self.layout())));
        }
        let planner = Planner {
            layout: self.layout(),
            folders: &folders,
            data_dir: &data_dir,
        };
        let info = self.info(safety, &data_dir, wal.as_ref())?;
        let steps = self.steps(&planner, puts, whose, wal.as_ref());
        let id = self.id.clone();
        Ok(RestorePlan {
            plan: Plan { id, info, steps },
            notes,
            refused: None,
        })
    }
}
