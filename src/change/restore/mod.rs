//! `restore SET` on a node: one transaction with a way back.
//!
//! [`draft`] looks at the set and the node, refuses what must be refused and makes the plan;
//! nothing has changed then. [`begin`] makes its journal durable, [`go_on`] does the steps and
//! goes back if one fails, [`take_back`] goes back on request, [`commit`] ends the way back.

pub mod about;
pub(crate) mod back;
pub(crate) mod data;
pub(crate) mod ended;
mod fit;
pub(crate) mod folders;
mod identity;
pub(crate) mod moves;
mod others;
pub mod plan;
pub(crate) mod proof;
pub(crate) mod served;
mod site;
pub mod steps;
pub(crate) mod survey;
pub mod survivor;
pub mod switch;
pub(crate) mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

pub use about::{About, Scope};
pub use back::Returned;
pub use others::Known;
pub use plan::Draft;
pub use served::of_operations as served_by_operations;
pub use steps::NodeStep;

use self::plan::Drafting;
use self::survey::Survey;
use self::world::{RUNTIME_TIMEOUT, World};
use super::{bounds, operation};
use crate::cluster::connect::Target;
use crate::context::Context;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::restore::Bump;
use crate::event::Event;
use crate::keep::catalog::BackupSet;
use crate::keep::{advice, lineage};
use crate::node::apiserver::ApiServer;
use crate::node::component::Component;
use crate::node::layout::NodeLayout;
use crate::node::profile::{self, Profile};
use crate::node::runtime::{Runtime, find_socket};
use crate::node::settings::Settings;
use crate::plan::lock::Lock;
use crate::plan::{Clock, Operation, State, StepState};
use crate::sys::fs;

/// The kind of operation, in journals.
pub const KIND: &str = lineage::RESTORE;
/// A plan of this age was made with the other members asked.
const JUST_BEGUN: SignedDuration = SignedDuration::from_secs(60);

/// What a plan says of its rollback.
const WAY_BACK: &str = "rollback: until etcd serves the restored data, the present data comes back byte for byte; after that, with its revision bumped above all that was served, so that clients re-list";

/// Refusals that an operator may override.
pub const ALLOWABLE: [&str; 13] = [
    "address-not-local",
    "alarm-in-backup",
    "bump-too-small",
    "certificates-invalid",
    "other-members-running",
    "cluster-mismatch",
    "other-members-unknown",
    "node-mismatch",
    "version-mismatch",
    "outside-in-the-way",
    "root-required",
    "unknown-version",
    "no-integrity-hash",
];

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The node.
    pub target: Target,
    /// The set.
    pub set: BackupSet,
    /// The store's directory, whose other sets say how far the cluster had come.
    pub store: Option<PathBuf>,
    /// What is rolled back.
    pub scope: Scope,
    /// How the revision is raised.
    pub bump: Bump,
    /// Names of refusals that are allowed.
    pub allow: Vec<String>,
    /// The longest wait for pods to end, and for anything to start.
    pub wait: Duration,
    /// The time that pods other than etcd's get to end.
    pub grace: Duration,
    /// A directory for scratch files.
    pub scratch: PathBuf,
    /// Whether the process is root.
    pub privileged: bool,
    /// Randomness, for the new cluster's token.
    pub random: u128,
    /// The tool's version, for the journal.
    pub tool_version: String,
    /// The member's peer URLs, where the node's manifest does not tell them.
    pub peer_urls: Option<Vec<String>>,
    /// Whether the plan is only shown: then what is refused comes with it.
    pub rehearsal: bool,
}

impl Request {
    fn allows(&self, name: &str) -> bool {
        self.allow.iter().any(|allowed| allowed == name)
    }
}

/// Makes the plan. Nothing has changed when it returns.
///
/// # Errors
/// [`Kind::BadBackup`], the refusals, [`Kind::Unreachable`] without a container runtime,
/// [`Kind::Busy`] while another operation is unfinished, [`Kind::Store`] without room.
pub async fn draft(context: &Context, request: &Request) -> Result<Draft> {
    let layout = &request.target.layout;
    operation::refuse_while_unsettled(layout)?;
    let mut refusals: Vec<(&'static str, String)> = Vec::new();
    if !request.privileged {
        refusals.push((
            "root-required",
            "only root can restore owners and SELinux labels".to_owned(),
        ));
    }
    let survey = context.cancel.guard(Survey::make(context, request)).await?;
    survey.refuse_copies(layout)?;
    let source = match survey.has_resources {
        true => &survey.unpacked,
        false => layout,
    };
    let api = ApiServer::look(source, survey.profile);
    for (name, what) in advice::of_set(request.set.manifest.as_ref(), &api) {
        context.warn(name, what);
    }
    let settings = Settings::read(source, survey.profile);
    if let Some(what) = advice::removed_flags(&settings) {
        context.warn(advice::FLAG_REMOVED, what);
    }
    let socket = find_socket(layout)?;
    let runtime = Runtime::connect(&socket, RUNTIME_TIMEOUT).await?;
    context.tell(Event::Note(format!(
        "container runtime {} {} at {}",
        runtime.info().name,
        runtime.info().version,
        socket.display()
    )));
    let node = context
        .cancel
        .guard(async {
            let data_dir = survey.access.data_dir_in(layout);
            Ok(identity::of_node(context, &survey.asking, &data_dir).await)
        })
        .await?;
    refusals.extend(identity::mismatches(request, &survey, &node));
    let others = context
        .cancel
        .guard(async { Ok(identity::others(request, &survey, &node).await) })
        .await?;
    refusals.extend(others.refusals("a restored single member would be a second cluster beside them; stop etcd on those nodes first"));
    if survey.unsealed {
        refusals.push((
            "no-integrity-hash",
            "the snapshot has no integrity hash, so changed bytes cannot be detected".to_owned(),
        ));
    }
    if let Some(alarm) = survey.facts.alarms.first() {
        refusals.push((
            "alarm-in-backup",
            format!(
                "the alarm {} of member {:x} is in the backup and will be raised again: etcd may refuse writes",
                alarm.alarm, alarm.member
            ),
        ));
    }
    refusals.retain(|(name, what)| {
        let allowed = *name != fit::OTHER_NODE && request.allows(name);
        if allowed {
            context.warn(name, what.clone());
        }
        !allowed
    });
    let refused = identity::refused(refusals, &others.names);
    let plan = || {
        let mut draft = planned(context, request, &survey, &node, &socket)?;
        draft.about.others = others.to_stay_away(|name| request.allows(name));
        Ok(draft)
    };
    if !request.rehearsal {
        refused.map_or(Ok(()), Err)?;
        return plan();
    }
    match (refused, plan()) {
        (None, plan) => plan,
        (Some(refused), Ok(draft)) => Ok(Draft {
            refused: Some(refused),
            ..draft
        }),
        (Some(refused), Err(_)) => Err(refused),
    }
}

/// The plan of what was seen.
fn planned(
    context: &Context,
    request: &Request,
    survey: &Survey,
    node: &identity::NodeSays,
    socket: &Path,
) -> Result<Draft> {
    let layout = &request.target.layout;
    let evidence = identity::evidence(context, request, survey, node)?;
    let drafting = Drafting {
        context,
        request,
        survey,
        evidence,
        cluster_id: node.cluster_id.clone(),
        etcd_serves: node.serves,
        id: operation::free_name(context, layout, KIND),
        runtime: layout.node_path(socket),
    };
    drafting.draft()
}

/// The node, locked against other runs and against OpenShift's installers.
#[derive(Debug)]
pub struct Locked {
    _own: Lock,
    _installers: Vec<Lock>,
}

/// Takes the locks of everything that changes the node.
pub fn lock(context: &Context, layout: &NodeLayout, doing: &str) -> Result<Locked> {
    let path = layout.lock();
    fs::mkdir_all(fs::parent(&path))?;
    let own = Lock::acquire(&path, doing)?;
    Ok(Locked {
        _own: own,
        _installers: lock_installers(context, layout)?,
    })
}

/// OpenShift's installer pods hold a lock a component while they write; other nodes have none.
fn lock_installers(context: &Context, layout: &NodeLayout) -> Result<Vec<Lock>> {
    let mut held = Vec::new();
    // While a restore is unfinished the manifests may be away; the revisions are still there.
    let has_revisions =
        std::fs::read_dir(layout.resources()).is_ok_and(|mut all| all.next().is_some());
    if !has_revisions && profile::look(layout, None)?.profile != Profile::Openshift {
        return Ok(held);
    }
    for component in Component::ALL {
        let path = layout.installer_lock(component);
        if !fs::parent(&path).is_dir() {
            continue;
        }
        match Lock::hold(&path)? {
            Some(lock) => held.push(lock),
            None => context.warn(
                "foreign-lock",
                format!(
                    "{} is a link or another user's file, so it is not an installer's lock: it is ignored",
                    path.display()
                ),
            ),
        }
    }
    Ok(held)
}

/// Makes the plan's journal durable; nothing else has changed then.
pub fn begin(
    context: &Context,
    layout: &NodeLayout,
    kind: &str,
    draft: Draft,
    tool_version: &str,
    clock: Clock,
) -> Result<Operation<NodeStep>> {
    let folder = draft.about.safety.first();
    let id = folder.and_then(|folder| folder.file_name());
    let id = id.map(|name| name.to_string_lossy().into_owned());
    let plan = operation::Plan {
        kind,
        id: id.unwrap_or_else(|| operation::free_name(context, layout, kind)),
        about: draft.about,
        steps: draft.steps,
    };
    operation::begin(context, layout, plan, tool_version, clock)
}

/// What a restore ended in.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its name.
    pub id: String,
    /// What it was about.
    pub about: About,
    /// What the steps found out, by field.
    pub facts: Facts,
    /// What came back, where it was taken back.
    pub returned: Returned,
}

/// What is true of etcd at the end.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The new cluster's id, in hexadecimal.
    pub cluster_id: Option<String>,
    /// The member's id, in hexadecimal.
    pub member_id: Option<String>,
    /// The revision that clients see first.
    pub revision: Option<i64>,
    /// The snapshot's own.
    pub snapshot_revision: Option<i64>,
    /// Keys at the restored revision.
    pub keys: Option<u64>,
    /// What etcd runs.
    pub etcd_version: Option<String>,
}

/// The about of a journal.
pub fn about(progress: &crate::plan::Progress) -> Result<About> {
    operation::about(progress)
}

fn world(context: &Context, layout: &NodeLayout, operation: &Operation<NodeStep>) -> Result<World> {
    bounds::check(layout, operation.progress())?;
    Ok(World {
        layout: layout.clone(),
        about: about(operation.progress())?,
        context: context.clone(),
        // Enabling etcd waits for it by itself, and fails where it does not serve.
        proves_back: operation.progress().begin.kind == KIND,
        ran: std::sync::Mutex::default(),
    })
}

/// Does the steps that are not done; goes back if one fails, unless told to leave it as it is.
///
/// # Errors
/// [`Kind::RolledBack`] where it failed and all is as before; [`Kind::Interrupted`] where the
/// operator wanted that; [`Kind::RollbackFailed`] where the way back failed too; [`Kind::Busy`]
/// where it was left as it is.
pub async fn go_on(
    context: &Context,
    layout: &NodeLayout,
    operation: &mut Operation<NodeStep>,
    keep_failed: bool,
) -> Result<Done> {
    let forward = world(context, layout, operation)?;
    operation::refuse_if_undone(layout, operation, &forward.about.safety)?;
    let cancel = context.cancel.clone();
    let stop = move || cancel.check();
    let failed = match operation.run(&forward, &stop).await {
        Ok(()) => return done(operation),
        Err(failure) => failure,
    };
    let unfinished = operation.unfinished();
    if keep_failed && failed.kind() != Kind::Interrupted {
        return Err(failed.as_kind(Kind::Busy).with(unfinished));
    }
    let back = world(&context.unstopped(), layout, operation)?;
    let as_before = |known: &crate::plan::Known| {
        format!("restoring failed, and {}", Returned::of(known).sentence())
    };
    Err(operation::give_up(context, operation, &back, failed, as_before).await)
}

/// What a restore whose steps are done found out.
pub fn done(operation: &Operation<NodeStep>) -> Result<Done> {
    let progress = operation.progress();
    let known = &progress.known;
    let text = |name: &str| known.field(name).and_then(Value::as_str).map(str::to_owned);
    let number = |name: &str| known.field(name).and_then(Value::as_i64);
    Ok(Done {
        id: progress.begin.id.clone(),
        about: about(progress)?,
        facts: Facts {
            cluster_id: text("clusterId"),
            member_id: text("memberId"),
            revision: number("revision"),
            snapshot_revision: number("snapshotRevision"),
            keys: known.field("keys").and_then(Value::as_u64),
            etcd_version: text("etcdVersion"),
        },
        returned: Returned::of(known),
    })
}

/// Refuses to go on with what was interrupted where other members have been started since: with the
/// restored one beside them the cluster would be two. One that has just been begun was asked.
///
/// # Errors
/// [`Kind::Refused`], which only going back meets.
pub async fn refuse_beside_others(
    context: &Context,
    layout: &NodeLayout,
    operation: &Operation<NodeStep>,
) -> Result<()> {
    let progress = operation.progress();
    let world = world(context, layout, operation)?;
    let starts = |step: &NodeStep| matches!(step, NodeStep::StartPods { .. });
    let first = operation.steps().iter().position(starts);
    let started = first.and_then(|at| progress.steps.get(at));
    let fresh = context.now.duration_since(progress.last) < JUST_BEGUN;
    if fresh || started.is_some_and(|state| *state != StepState::Pending) {
        return Ok(());
    }
    let circle = others::Circle {
        members: world.about.others.clone(),
        own: others::Own {
            name: world.about.etcd.member.clone(),
            ..others::Own::default()
        },
        ..others::Circle::default()
    };
    if circle.members.is_empty() {
        return Ok(());
    }
    let options = world.options().ok().map(others::patiently);
    let asking = async { Ok(circle.ask(options.as_ref()).await) };
    let found = context.cancel.guard(asking).await?;
    let refusals =
        found.refusals("they were started after this restore began; stop them, or roll it back");
    let refused = identity::refused(refusals, &found.names);
    refused.map_or(Ok(()), |failure| Err(failure.firmly()))
}

/// Goes back on request: from an unfinished restore, or from a completed one as long as nothing
/// depends on it.
///
/// # Errors
/// [`Kind::Refused`] where it is committed, or other members have joined since;
/// [`Kind::RollbackFailed`].
pub async fn take_back(
    context: &Context,
    layout: &NodeLayout,
    operation: &mut Operation<NodeStep>,
) -> Result<Done> {
    let progress = operation.progress();
    operation::refuse_without_way_back(progress)?;
    operation::refuse_under_later(layout, progress)?;
    if progress.state == State::Completed && progress.begin.kind == KIND {
        let world = world(context, layout, operation)?;
        refuse_if_joined(&world).await?;
    }
    back::prepare(&world(context, layout, operation)?, operation).await?;
    let back = world(&context.unstopped(), layout, operation)?;
    if operation::is_undone(layout, operation.progress(), &back.about.safety) {
        operation.settle_undone("already undone, but not recorded")?;
        return done(operation);
    }
    operation::go_back(operation, &back, "asked for").await?;
    done(operation)
}

/// A member that has joined since would be left with a cluster that is gone.
async fn refuse_if_joined(world: &World) -> Result<()> {
    let connection = match world.etcd().await {
        Ok(connection) => connection,
        // A restored etcd that does not answer is a reason to go back.
        Err(failure) if failure.kind() == Kind::Unreachable => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let members = match connection
        .member_list(crate::etcd::client::Consistency::Local)
        .await
    {
        Ok(list) => list.members,
        Err(failure) if failure.kind() == Kind::Unreachable => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let others: Vec<String> = members
        .iter()
        .filter(|member| member.name != world.about.etcd.member)
        .map(|member| member.label())
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Refused,
        format!(
            "other members have joined the restored cluster: {}",
            others.join(", ")
        ),
    )
    .with(Fact::Refusal {
        name: "members-joined",
        allowable: false,
    }))
}

/// Removes what was kept for the way back, and ends the disablings that it has superseded.
pub fn commit(
    context: &Context,
    layout: &NodeLayout,
    operation: &mut Operation<NodeStep>,
) -> Result<Vec<PathBuf>> {
    let safety = about(operation.progress())?.safety;
    let removed = operation::commit(layout, operation, &safety)?;
    switch::settle(context, layout)?;
    Ok(removed)
}
