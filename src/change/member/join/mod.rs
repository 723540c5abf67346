//! `member-add --join` on the node that joins: one transaction with a way back.
//!
//! [`draft`] looks at the node and the cluster, refuses what must be refused and makes the plan;
//! nothing has changed then. [`begin`] makes its journal durable, [`go_on`] does the steps and
//! goes back if one fails, [`take_back`] goes back on request, [`commit`] ends the way back.
//!
//! There is no way back once the member votes: taken out of a cluster that counts on it, it could
//! cost the quorum. `member-remove` weighs that; after it the way back is open again.

pub mod about;
mod manifest;
mod plan;
mod proof;
pub mod steps;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

pub use about::About;
pub use steps::JoinStep;

use self::plan::{Drafting, find_manifest};
use self::steps::World;
use super::add::{self, Action};
use super::{NAME_TAKEN, TOO_MANY_LEARNERS, never, refuse_fencing, unless_allowed};
use crate::change::restore::survey::{external_refusal, refuse_copies};
use crate::change::restore::switch;
use crate::change::restore::world::RUNTIME_TIMEOUT;
use crate::change::{bounds, operation};
use crate::cluster::connect::Target;
use crate::cluster::select;
use crate::cluster::survey::{MemberState, Reach};
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::keep::advice;
use crate::node::access::find_access;
use crate::node::certificates::{check_certificates, wanted_by_etcd};
use crate::node::component::Component;
use crate::node::layout::NodeLayout;
use crate::node::profile::{Detection, Profile};
use crate::node::runtime::{Runtime, find_socket};
use crate::node::settings::Settings;
use crate::plan::{Clock, Known, Operation, Progress};

/// The kind of operation, in journals.
pub const KIND: &str = "member-join";
/// A certificate that etcd starts with is absent, over, or for another name.
pub const CERTIFICATES_UNFIT: &str = "certificates-invalid";
/// The member votes and is healthy, or has got its vote since.
pub const MEMBER_VOTES: &str = "already-voting";
/// An operator may do the same at the same time: a warning.
pub const OPERATOR_IN_CHARGE: &str = "operator-in-charge";

/// Refusals of this operation that can be allowed, besides those of [`super::ALLOWABLE`].
pub const ALLOWABLE: [&str; 1] = [CERTIFICATES_UNFIT];

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The node, and how a member that lives is reached.
    pub target: Target,
    /// What its member must be called, where that was said.
    pub name: Option<String>,
    /// The longest wait for the pod to end, and for the member to vote.
    pub wait: Duration,
    /// Names of refusals that are allowed.
    pub allow: Vec<String>,
}

/// A plan before it is begun.
#[derive(Debug)]
pub struct Draft {
    /// The operation's name.
    pub id: String,
    /// What the journal keeps.
    pub about: About,
    /// The steps.
    pub steps: Vec<JoinStep>,
    /// The votes and members as the cluster has them.
    pub addition: add::Plan,
}

/// A refusal that nothing overrides.
fn refuse(name: &'static str, what: String) -> Failure {
    never(name, what)
}

/// Makes the plan. Nothing has changed when it returns.
///
/// # Errors
/// The refusals; [`Kind::Unreachable`] without a container runtime or a member that answers;
/// [`Kind::Busy`] while another operation is unfinished.
pub async fn draft(context: &Context, request: &Request) -> Result<Draft> {
    let layout = &request.target.layout;
    operation::refuse_while_unsettled(layout)?;
    let detection = request.target.detect(context)?;
    refuse_fencing(context, &request.allow, &detection)?;
    if let Some(external) = &detection.external_etcd {
        return Err(external_refusal(external));
    }
    if detection.profile == Profile::Openshift {
        context.warn(
            OPERATOR_IN_CHARGE,
            "the cluster-etcd-operator adds members and writes etcd's manifest itself, and may do so during this join: join by hand only if the operator does not",
        );
    }
    let settings = Settings::read(layout, detection.profile);
    if let Some(what) = advice::removed_flags(&settings) {
        context.warn(advice::FLAG_REMOVED, what);
    }
    let manifest = find_manifest(layout, detection.profile)?;
    fit_certificates(context, request, &detection)?;
    let own = own_access(request, &detection)?;
    let pods = [(Component::Etcd, manifest.pod.key())];
    refuse_copies(layout, detection.profile, &pods, &own.data_dir_in(layout))?;
    named(request, &own, &manifest)?;
    let (reach, access) = Reach::of(context, &request.target, &detection)?;
    let survey = context.cancel.guard(reach.survey()).await?;
    let socket = find_socket(layout)?;
    Runtime::connect(&socket, RUNTIME_TIMEOUT).await?;
    let mut drafting = Drafting {
        request,
        profile: detection.profile,
        own: &own,
        tls: access.tls.as_ref(),
        survey: &survey,
        manifest: &manifest,
        existing: None,
        id: operation::free_name(context, layout, KIND),
        runtime: layout.node_path(&socket),
    };
    let (about, _) = drafting.draft()?;
    let wanted = steps::request(&about, layout);
    let urls = crate::cluster::peer_url::parse(&wanted.peer_urls)?;
    let doing = format!("joining member {}", wanted.name);
    let addition = add::judge(context, &wanted, survey.clone(), urls)
        .map_err(|failure| failure.doing(doing.clone()))?;
    let judged = judge(&addition, &wanted.name, &survey.members);
    drafting.existing = judged.map_err(|failure| failure.doing(doing.clone()))?;
    if drafting.existing.is_some() {
        add::well(context, &wanted, &survey).map_err(|failure| failure.doing(doing))?;
    }
    let (about, steps) = drafting.draft()?;
    Ok(Draft {
        id: drafting.id,
        about,
        steps,
        addition,
    })
}

/// What the cluster has of the member already, if it can be taken up.
fn judge(
    addition: &add::Plan,
    name: &str,
    members: &[MemberState],
) -> Result<Option<crate::etcd::client::Id>> {
    let found = |id| members.iter().find(|state| state.member.id == id);
    let id = match addition.action {
        Action::Nothing(id) => {
            let what = format!("member {name} ({id}) is already a voting member, and healthy");
            return Err(never(MEMBER_VOTES, what));
        }
        Action::GoOn(id) => Some(id),
        Action::AddLearner | Action::AddVoter => None,
    };
    if let Some(state) = id.and_then(found)
        && state.has_started()
    {
        let member = select::described(&state.member);
        let what = format!(
            "{member} has started before: remove it first, since it would start with different data"
        );
        return Err(never(NAME_TAKEN, what));
    }
    let other = members
        .iter()
        .find(|state| state.member.is_learner && Some(state.member.id) != id);
    if let Some(other) = other {
        let member = select::described(&other.member);
        let what = format!("{member} is a learner already: promote or remove it first");
        return Err(never(TOO_MANY_LEARNERS, what));
    }
    Ok(id)
}

/// Refuses certificates that etcd would not get far with.
fn fit_certificates(context: &Context, request: &Request, detection: &Detection) -> Result<()> {
    let target = &request.target;
    let wanted = wanted_by_etcd(&target.layout, detection, &target.told)?;
    let defects: Vec<String> = check_certificates(&wanted, context.now)
        .into_iter()
        .filter(|finding| finding.is_defect())
        .map(|finding| finding.to_string())
        .collect();
    if defects.is_empty() {
        return Ok(());
    }
    let refusal = Failure::refused(CERTIFICATES_UNFIT, defects.join("; "));
    unless_allowed(context, &request.allow, refusal)
}

/// How the node's own member is reached once it runs: by what the node says alone, for what was
/// told are the others' endpoints.
fn own_access(request: &Request, detection: &Detection) -> Result<crate::node::access::EtcdAccess> {
    let target = &request.target;
    let mut told = target.told.clone();
    told.endpoints = None;
    find_access(&target.layout, detection, &told)
}

/// Refuses to join by another name than the node's etcd has.
fn named(
    request: &Request,
    own: &crate::node::access::EtcdAccess,
    manifest: &plan::Found,
) -> Result<()> {
    let main = manifest.pod.container("etcd");
    // OpenShift's manifests have the name in a variable of the shell.
    let flag = main
        .and_then(|container| container.flag("name"))
        .filter(|name| !name.contains('$'));
    let known = own.member_name.as_ref().map(|name| name.value.as_str());
    for (said, other) in [(request.name.as_deref(), known), (known, flag)] {
        if let (Some(said), Some(other)) = (said, other)
            && said != other
        {
            let what = format!("this node's member is named {other:?}, not {said:?}");
            return Err(Failure::new(Kind::Usage, what));
        }
    }
    Ok(())
}

/// Makes the plan's journal durable; nothing else has changed then.
///
/// # Errors
/// [`Kind::Store`].
pub fn begin(
    context: &Context,
    layout: &NodeLayout,
    draft: Draft,
    tool_version: &str,
    clock: Clock,
) -> Result<Operation<JoinStep>> {
    let plan = operation::Plan {
        kind: KIND,
        id: draft.id,
        about: draft.about,
        steps: draft.steps,
    };
    operation::begin(context, layout, plan, tool_version, clock)
}

/// What a join ended in.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its name.
    pub id: String,
    /// What it was about.
    pub about: About,
    /// The member's id, in hexadecimal.
    pub member_id: Option<String>,
    /// What it runs.
    pub etcd_version: Option<String>,
    /// The revision at which its HashKV was another member's.
    pub hash_revision: Option<i64>,
}

/// What a join whose steps are done found out.
///
/// # Errors
/// [`Kind::Busy`] where another version wrote the journal.
pub fn done(operation: &Operation<JoinStep>) -> Result<Done> {
    let progress = operation.progress();
    let known = &progress.known;
    let text = |name: &str| known.field(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Done {
        id: progress.begin.id.clone(),
        about: about(progress)?,
        member_id: text("memberId"),
        etcd_version: text("etcdVersion"),
        hash_revision: known.field("hashRevision").and_then(Value::as_i64),
    })
}

/// The about of a journal.
///
/// # Errors
/// [`Kind::Busy`] where another version wrote it.
pub fn about(progress: &Progress) -> Result<About> {
    operation::about(progress)
}

fn world(context: &Context, layout: &NodeLayout, operation: &Operation<JoinStep>) -> Result<World> {
    bounds::check(layout, operation.progress())?;
    Ok(World::new(context, layout, about(operation.progress())?))
}

/// Does the steps that are not done; goes back if one fails, unless the member votes by then.
///
/// # Errors
/// [`Kind::RolledBack`] where it failed and all is as before; [`Kind::Interrupted`] where the
/// operator wanted that; [`Kind::RollbackFailed`] where the way back failed too; [`Kind::Busy`]
/// where the member votes, or nobody tells whether it does, and it was left as it is.
pub async fn go_on(
    context: &Context,
    layout: &NodeLayout,
    operation: &mut Operation<JoinStep>,
) -> Result<Done> {
    let forward = world(context, layout, operation)?;
    let safety = about(operation.progress())?.safety;
    operation::refuse_if_undone(layout, operation, &safety)?;
    let cancel = context.cancel.clone();
    let stop = move || cancel.check();
    let failed = match operation.run(&forward, &stop).await {
        Ok(()) => return done(operation),
        Err(failure) => failure,
    };
    let stays = match has_vote(&forward, operation).await {
        Ok(None) => None,
        Ok(Some(id)) => Some(format!(
            "member {id} is a voting member by now, and is not removed again"
        )),
        Err(why) => Some(format!(
            "left as it is, because no member could say whether the new one votes ({why})"
        )),
    };
    if let Some(stays) = stays {
        let unfinished = operation.unfinished();
        return Err(failed.as_kind(Kind::Busy).doing(stays).with(unfinished));
    }
    let back = world(&context.unstopped(), layout, operation)?;
    let as_before = |_: &Known| "joining failed; the node and the members are as before".to_owned();
    Err(operation::give_up(context, operation, &back, failed, as_before).await)
}

/// Whether the member that this operation added votes; nothing before it has added one.
async fn has_vote(
    world: &World,
    operation: &Operation<JoinStep>,
) -> Result<Option<crate::etcd::client::Id>> {
    let progress = operation.progress();
    if progress.known.field("memberId").is_none() {
        return Ok(None);
    }
    steps::votes(world, &progress.known).await
}

/// Goes back on request: from an unfinished join, or from a completed one whose member has been
/// removed since.
///
/// # Errors
/// [`Kind::Refused`] where it is committed, or the member votes; [`Kind::RollbackFailed`];
/// [`Kind::Unreachable`] where no member tells whether it votes.
pub async fn take_back(
    context: &Context,
    layout: &NodeLayout,
    operation: &mut Operation<JoinStep>,
) -> Result<Done> {
    operation::refuse_without_way_back(operation.progress())?;
    operation::refuse_under_later(layout, operation.progress())?;
    let back = world(&context.unstopped(), layout, operation)?;
    if let Some(id) = has_vote(&back, operation).await? {
        let what =
            format!("member {id} is a voting member: remove it first, with member-remove {id}");
        return Err(never(MEMBER_VOTES, what));
    }
    let safety = about(operation.progress())?.safety;
    if operation::is_undone(layout, operation.progress(), &safety) {
        operation.settle_undone("already undone, but not recorded")?;
        return done(operation);
    }
    operation::go_back(operation, &back, "asked for").await?;
    done(operation)
}

/// Removes what was kept for the way back, and says what that was.
///
/// # Errors
/// [`Kind::Busy`] where it is unfinished; [`Kind::Store`].
pub fn commit(
    context: &Context,
    layout: &NodeLayout,
    operation: &mut Operation<JoinStep>,
) -> Result<Vec<PathBuf>> {
    let safety = about(operation.progress())?.safety;
    let removed = operation::commit(layout, operation, &safety)?;
    switch::settle(context, layout)?;
    Ok(removed)
}

/// How etcd learns that it joins, for people.
pub fn how_it_starts(about: &About) -> &'static str {
    if about.profile == Profile::Kubeadm.word() {
        "with the flags that are written into its manifest"
    } else {
        "its pod detects that it is a member that has not started"
    }
}
