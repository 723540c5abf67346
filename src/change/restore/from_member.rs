//! `restore --from-data-dir` on a node: a member's own disk becomes a cluster of that member alone,
//! by the same steps as a restore from a backup, and with the same rollback.
//!
//! The new data is built from the safety folder, after etcd has stopped and its data was set aside.
//! The pod that starts then is a plain etcd pod, so later restarts do nothing special.

use std::path::{Path, PathBuf};

use super::identity::{self, NodeSays};
use super::info::RestoreInfo;
use super::node_state::{NodeState, PlainPod};
use super::plan::{RestorePlan, WAY_BACK};
use super::refusals::{ETCD_RUNNING, Refusals};
use super::request::NodeOptions;
use crate::change::transaction::data::{self, Whose};
use crate::change::transaction::folders::{self, Folders};
use crate::change::transaction::info::{Scope, SourceInfo};
use crate::change::transaction::planner::{self, Planner, refuse_wal_apart};
use crate::change::transaction::runner::Plan;
use crate::change::transaction::served;
use crate::change::transaction::steps::NodeStep;
use crate::change::transaction::steps::build::{Surviving, surviving_request};
use crate::change::transaction::unsettled::{RESTORE, free_name, refuse_while_unsettled};
use crate::change::{datadir, survivor};
use crate::context::Context;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::datadir::{Layout, holders};
use crate::etcd::restore::Evidence;
use crate::etcd::wal::SEGMENT_SIZE;
use crate::event::Event;
use crate::keep::lineage;
use crate::node::component::Component;
use crate::store::LocalStore;
use crate::sys::mount::Mounts;
use crate::sys::owner::Owner;
use crate::sys::space::space;

/// Room for what is added to the member's own, in bytes: the rest of the WAL's last segment, the segment
/// that etcd allocates next, and pages.
const ROOM: u64 = 2 * SEGMENT_SIZE + (8 << 20);

/// The request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What every restore of a node is asked for.
    pub options: NodeOptions,
    /// The member's data directory: the node's own, or a disk brought here.
    pub from: PathBuf,
}

/// Makes the plan. Nothing has changed when it returns.
///
/// # Errors
/// As those of [`super::from_backup::plan`].
pub async fn plan(context: &Context, request: &Request) -> Result<RestorePlan> {
    let options = &request.options;
    let layout = &options.target.layout;
    refuse_while_unsettled(layout)?;
    let state = context
        .cancel
        .guard(NodeState::look(context, &options.target))
        .await?;
    let mut refusals: Refusals = options.root_required().into_iter().collect();
    let from = request.from.canonicalize();
    // If it is missing, the planner's own check says so.
    let from = from.unwrap_or_else(|_| request.from.clone());
    let (others, node) = context
        .cancel
        .guard(async { Ok(state.others(context, &from).await) })
        .await?;
    refusals.extend(
        others.refusals("stop etcd on those nodes first, and find out which disk is the best"),
    );
    let refusals = options.not_allowed(context, refusals);
    for lack in state.names_that_lack(context, options.peer_urls.as_deref())? {
        context.warn("certificate-lacks-name", lack);
    }
    let refused = identity::refused(refusals, &others.names);
    let plan = async {
        let mut plan = planned(context, request, state, &node).await?;
        plan.plan.info.others = others.to_stay_away(|name| options.allows(name));
        Ok(plan)
    };
    if !options.rehearsal {
        refused.map_or(Ok(()), Err)?;
        return plan.await;
    }
    RestorePlan::unless_refused(plan.await, refused)
}

/// The plan of what was seen.
async fn planned(
    context: &Context,
    request: &Request,
    state: NodeState,
    node: &NodeSays,
) -> Result<RestorePlan> {
    let layout = &request.options.target.layout;
    let pods = state.pods(request.options.scope)?;
    state.refuse_copies(&pods)?;
    refuse_wal_apart(state.access.wal_dir.as_deref())?;
    let planner = MemberPlanner {
        context,
        request,
        id: free_name(context, layout, RESTORE),
        pods,
        former: match &node.cluster_id {
            Some(id) => [vec![id.clone()], lineage::former_ids(layout, id)?].concat(),
            None => Vec::new(),
        },
        etcd_serves: node.serves,
        state,
    };
    let plan = planner.plan()?;
    examine(context, request, &plan).await?;
    Ok(plan)
}

/// Reads the member's data as the step will, unless an etcd writes to it, so that refusals come
/// before anything stops.
async fn examine(context: &Context, request: &Request, plan: &RestorePlan) -> Result<()> {
    let surviving = plan.plan.steps.iter().find_map(|step| match step {
        NodeStep::BuildFromMember(surviving) => Some(surviving),
        _ => None,
    });
    let Some(surviving) = surviving.filter(|_| matches!(holders(&request.from), Ok(None))) else {
        context.tell(Event::Note(format!(
            "{} is in use: its WAL can be checked only when etcd has stopped",
            request.from.display()
        )));
        return Ok(());
    };
    let (from, into) = (request.from.clone(), surviving.into.clone());
    let wanted = surviving_request(surviving, &plan.plan.info.etcd.member, from, into)?;
    let inner = context.clone();
    let read = tokio::task::spawn_blocking(move || survivor::examine(&inner, &wanted));
    read.await.doing(Kind::Unexpected, || "running a thread")?
}

struct MemberPlanner<'a> {
    context: &'a Context,
    request: &'a Request,
    state: NodeState,
    id: String,
    pods: Vec<PlainPod>,
    /// The cluster's id and those before it.
    former: Vec<String>,
    etcd_serves: bool,
}

impl MemberPlanner<'_> {
    fn plan(&self) -> Result<RestorePlan> {
        let state = &self.state;
        let layout = &state.layout;
        let from = self.request.from.canonicalize().map_err(|cause| {
            let doing = format!("opening {}", self.request.from.display());
            Failure::wrap(Kind::Usage, cause, doing)
        })?;
        let own = state.data_dir.canonicalize().is_ok_and(|dir| dir == from);
        // This node's own etcd is stopped by one of the steps.
        if !own && let Some(holder) = holders(&from)? {
            return Err(Failure::refused_for_good(
                ETCD_RUNNING,
                format!("{holder} holds the database in {}", from.display()),
            ));
        }
        let folders = Folders::find(
            layout,
            &Mounts::read()?,
            &state.data_dir,
            &self.id,
            &folders::places(layout),
        )?;
        self.check_space(&from)?;
        if !own {
            data::refuse_inside(&state.data_dir, &from)?;
        }
        let whose = self.whose()?;
        let planner = Planner {
            layout,
            folders: &folders,
            data_dir: &state.data_dir,
        };
        let steps = self.steps(&planner, whose, own, from)?;
        Ok(RestorePlan {
            plan: Plan {
                id: self.id.clone(),
                info: self.info(&folders),
                steps,
            },
            notes: self.notes(own)?,
            refused: None,
        })
    }

    /// Everything from the first folder to the proof.
    fn steps(
        &self,
        planner: &Planner<'_>,
        whose: Whose,
        own: bool,
        from: PathBuf,
    ) -> Result<Vec<NodeStep>> {
        let folders = planner.folders;
        let mut steps = vec![
            NodeStep::MakeFolders {
                folders: self.missing(planner),
            },
            // Read while it is certain to be what the operator sees.
            NodeStep::Unpack {
                archives: Vec::new(),
                copies: self.copies(planner)?,
                links: Vec::new(),
            },
            NodeStep::StopPods {
                moves: planner.stops(self.manifests(|_| true)?),
            },
            NodeStep::AwaitStopped,
            planner.set_data_aside(),
            NodeStep::BuildFromMember(Box::new(self.surviving(folders, own, from, whose.data))),
        ];
        steps.extend(whose.dir.map(NodeStep::OwnDataDir));
        steps.push(planner.switch_data());
        let etcd = |component| component == Component::Etcd;
        steps.push(planner.start_pods(self.manifests(etcd)?));
        let others = self.manifests(|component| !etcd(component))?;
        if !others.is_empty() {
            steps.push(planner.start_pods(others));
        }
        steps.extend([NodeStep::ProveEtcd, NodeStep::ProvePods]);
        Ok(steps)
    }

    /// The directories to be made.
    fn missing(&self, planner: &Planner<'_>) -> Vec<PathBuf> {
        let (layout, profile) = (&self.state.layout, self.state.profile);
        planner
            .folders
            .missing(layout, profile, &self.state.data_dir)
    }

    fn notes(&self, own: bool) -> Result<Vec<String>> {
        let mut notes = vec![
            WAY_BACK.to_owned(),
            "the member's whole WAL is kept, including entries that it did not know to be committed: as leader it would have committed them".to_owned(),
            "the other members are removed for good, and the cluster gets a new id: their disks cannot be used with it any more".to_owned(),
        ];
        notes.extend(self.state.manifest_notes(&self.pods));
        if !own {
            notes.push("the present data is set aside and not read".to_owned());
        }
        notes.extend(data::strangers(&self.state.layout, &self.state.data_dir)?);
        Ok(notes)
    }

    /// Copies of the plain manifests, taken before the live ones go.
    fn copies(&self, planner: &Planner<'_>) -> Result<Vec<(PathBuf, PathBuf)>> {
        let mut copies = Vec::new();
        for pod in &self.pods {
            let to = planner.prepared(&self.state.live(pod.component)?);
            copies.push((
                self.state.node_path(&pod.manifest),
                self.state.node_path(&to),
            ));
        }
        Ok(copies)
    }

    /// The places of the manifests of these components.
    fn manifests(&self, which: impl Fn(Component) -> bool) -> Result<Vec<PathBuf>> {
        let pods = self.pods.iter().filter(|pod| which(pod.component));
        pods.map(|pod| self.state.live(pod.component)).collect()
    }

    /// The owner of the new data, by the manifest that etcd starts from.
    fn whose(&self) -> Result<Whose> {
        let etcd = |plain: &&PlainPod| plain.component == Component::Etcd;
        let Some(etcd) = self.pods.iter().find(etcd) else {
            return Ok(Whose {
                data: None,
                dir: None,
            });
        };
        data::whose(&self.state.layout, &self.state.data_dir, &etcd.pod)
    }

    fn surviving(
        &self,
        folders: &Folders,
        own: bool,
        from: PathBuf,
        owner: Option<Owner>,
    ) -> Surviving {
        let (slack, bump_by) = planner::bump(self.request.options.bump);
        Surviving {
            from: if own {
                self.state.node_path(&folders.old_data())
            } else {
                from
            },
            on_node: own,
            into: self.state.node_path(&folders.new_data()),
            peer_urls: self
                .request
                .options
                .peer_urls
                .as_ref()
                .map(|urls| urls.join(",")),
            slack,
            bump_by,
            evidence: planner::evidence(&self.evidence()),
            allow: self.request.options.allow.clone(),
            random: format!("{:032x}", self.request.options.random),
            owner,
        }
    }

    /// The revisions that were served, by the backups, by this node's operations and by its own
    /// data, which may be another disk than the one restored from. A store that cannot be read is a
    /// warning.
    fn evidence(&self) -> Vec<Evidence> {
        let mut known = served::of_operations(self.context, &self.state.layout);
        known.extend(served::of_data(self.context, &self.state.data_dir));
        let Some(store) = self
            .request
            .options
            .store
            .as_ref()
            .filter(|store| store.is_dir())
        else {
            return known;
        };
        match datadir::evidence_of_store(&LocalStore::at(store)) {
            Ok(of_store) => known.extend(of_store),
            Err(failure) => self.context.warn("revision-unknown", failure.to_string()),
        }
        known
    }

    fn check_space(&self, from: &Path) -> Result<()> {
        let size = std::fs::metadata(Layout::new(from, None).db()).map_or(0, |meta| meta.len());
        let log: u64 = std::fs::read_dir(Layout::new(from, None).wal)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .map(|meta| meta.len())
            .sum();
        let needed = size.saturating_add(log).saturating_add(ROOM);
        space(&self.state.data_dir)?.check(needed, "the restore")
    }

    fn info(&self, folders: &Folders) -> RestoreInfo {
        let state = &self.state;
        let members = state.access.member_endpoints.value.len();
        RestoreInfo {
            source: Some(SourceInfo::member(
                self.request.from.clone(),
                state.node.clone(),
            )),
            profile: state.profile.word().to_owned(),
            node: state.node.clone(),
            nodes: if members > 1 {
                vec![state.node.clone(), "the other members".to_owned()]
            } else {
                vec![state.node.clone()]
            },
            scope: match self.request.options.scope {
                Scope::ControlPlane if state.layout.is_etcd_only(state.profile) => Scope::Etcd,
                scope => scope,
            },
            etcd: state.etcd(self.request.options.peer_urls.as_deref()),
            runtime: state.node_path(&state.socket),
            pods: self.pods.iter().map(|pod| pod.info.clone()).collect(),
            wait_seconds: self.request.options.wait.as_secs(),
            grace_seconds: Some(self.request.options.grace.as_secs()),
            etcd_served: Some(self.etcd_serves),
            // They are this member's own, and were raised before.
            alarms_allowed: true,
            safety: folders.safety(&state.layout),
            former_clusters: self.former.clone(),
            others: Vec::new(),
            etcd_alone: state.layout.is_etcd_only(state.profile),
        }
    }
}
