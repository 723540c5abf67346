//! When a join is refused, and what it plans.

use std::time::Duration;

use super::info::JoinInfo;
use super::journalled::{Join, MEMBER_VOTES};
use super::planner::{self, JoinPlanner, find_manifest};
use crate::change::member::add::{self, Action};
use crate::change::member::{NAME_TAKEN, TOO_MANY_LEARNERS, refuse_fencing, unless_allowed};
use crate::change::transaction::context::RUNTIME_TIMEOUT;
use crate::change::transaction::info::OperationInfo;
use crate::change::transaction::pods::{Found, external_refusal, refuse_copies};
use crate::change::transaction::runner::Plan;
use crate::change::transaction::steps;
use crate::change::transaction::unsettled::{JOIN, free_name, refuse_while_unsettled};
use crate::cluster::connect::Target;
use crate::cluster::survey::{ClusterClient, MemberState};
use crate::cluster::{peer_url, select};
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::etcd::client::Id;
use crate::keep::advice;
use crate::node::access::{EtcdAccess, find_access};
use crate::node::certificates::{check_certificates, wanted_by_etcd};
use crate::node::component::Component;
use crate::node::detection::Detection;
use crate::node::profile::Profile;
use crate::node::runtime::{Runtime, find_socket};
use crate::node::settings::Settings;

/// A certificate that etcd starts with is missing, expired, or for another name.
pub const CERTIFICATES_UNFIT: &str = "certificates-invalid";
/// A warning: an operator may add the member at the same time.
pub const OPERATOR_IN_CHARGE: &str = "operator-in-charge";

/// Refusals of a join that can be allowed, in addition to [`crate::change::member::ALLOWABLE`].
pub const ALLOWABLE: [&str; 1] = [CERTIFICATES_UNFIT];

/// The request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The node, and how to reach a running member.
    pub target: Target,
    /// The name that its member must have, if one is given.
    pub name: Option<String>,
    /// The longest wait for the pod to end, and for the member to vote.
    pub wait: Duration,
    /// Names of refusals that are allowed.
    pub allow: Vec<String>,
}

/// A plan, and what it does to the cluster.
#[derive(Debug)]
pub struct JoinPlan {
    /// What is carried out.
    pub plan: Plan<Join>,
    /// The votes and members as the cluster has them.
    pub addition: add::Plan,
}

/// Makes the plan. Nothing has changed when it returns.
///
/// # Errors
/// The refusals; [`Kind::Unreachable`] without a container runtime or a member that answers;
/// [`Kind::Busy`] while another operation is unfinished.
pub async fn plan(context: &Context, request: &Request) -> Result<JoinPlan> {
    let layout = &request.target.layout;
    refuse_while_unsettled(layout)?;
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
    let (reach, access) = ClusterClient::of(context, &request.target, &detection)?;
    let survey = context.cancel.guard(reach.survey()).await?;
    let socket = find_socket(layout)?;
    // Only to see that it answers: the steps need it.
    Runtime::connect(&socket, RUNTIME_TIMEOUT).await?;
    let planner = JoinPlanner {
        layout,
        profile: detection.profile,
        own: &own,
        manifest: &manifest,
        id: free_name(context, layout, JOIN),
    };
    let cluster = planner::cluster(&survey, access.tls.as_ref());
    let info = planner.info(
        cluster,
        layout.node_path(&socket),
        request.wait,
        &request.allow,
    )?;
    let wanted = steps::join::request(&info.facts(), layout)?;
    let urls = peer_url::parse(&wanted.peer_urls)?;
    let doing = format!("joining member {}", wanted.name);
    let addition = add::judge(context, &wanted, survey.clone(), urls)
        .map_err(|failure| failure.doing(doing.clone()))?;
    let judged = judge(&addition, &wanted.name, &survey.members);
    let existing = judged.map_err(|failure| failure.doing(doing.clone()))?;
    // For a new member `add::judge` has done this.
    if existing.is_some() {
        add::well(context, &wanted, &survey).map_err(|failure| failure.doing(doing))?;
    }
    let (info, steps) = planner.plan(info, existing)?;
    let id = planner.id;
    Ok(JoinPlan {
        plan: Plan { id, info, steps },
        addition,
    })
}

/// The id of the member, if an earlier run has added it and it can be continued with.
fn judge(addition: &add::Plan, name: &str, members: &[MemberState]) -> Result<Option<Id>> {
    let found = |id| members.iter().find(|state| state.member.id == id);
    let id = match addition.action {
        Action::Nothing(id) => {
            let what = format!("member {name} ({id}) is already a voting member, and healthy");
            return Err(Failure::refused_for_good(MEMBER_VOTES, what));
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
        return Err(Failure::refused_for_good(NAME_TAKEN, what));
    }
    let other = members
        .iter()
        .find(|state| state.member.is_learner && Some(state.member.id) != id);
    if let Some(other) = other {
        let member = select::described(&other.member);
        let what = format!("{member} is a learner already: promote or remove it first");
        return Err(Failure::refused_for_good(TOO_MANY_LEARNERS, what));
    }
    Ok(id)
}

/// Refuses certificates with which etcd would not start or not reach its peers.
fn fit_certificates(context: &Context, request: &Request, detection: &Detection) -> Result<()> {
    let target = &request.target;
    let wanted = wanted_by_etcd(&target.layout, detection, &target.overrides)?;
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

/// How to reach the node's own member once it runs: by the node's files alone, since configured
/// endpoints are those of other members.
fn own_access(request: &Request, detection: &Detection) -> Result<EtcdAccess> {
    let target = &request.target;
    let mut told = target.overrides.clone();
    told.endpoints = None;
    find_access(&target.layout, detection, &told)
}

/// Refuses a name that differs from the one in the node's files.
fn named(request: &Request, own: &EtcdAccess, manifest: &Found) -> Result<()> {
    let main = manifest.pod.container("etcd");
    // In OpenShift's manifests the name is a shell variable.
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

/// How etcd learns that it joins, for people.
pub fn how_it_starts(info: &JoinInfo) -> &'static str {
    if info.profile == Profile::Kubeadm.word() {
        "with the flags that are written into its manifest"
    } else {
        "its pod detects that it is a member that has not started"
    }
}
