//! `member-remove`: removes one member, given by its full name, id or peer URL.
//!
//! [`plan`] surveys and refuses. [`carry_out`] does both again, since the operator may have been
//! asked in between; then it moves leadership away if the member leads, removes it, and waits until
//! no remaining member lists it.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::openshift::{self, NextStep};
use super::{LEADER_CANNOT_MOVE, refuse_fencing, tell, unless_allowed};
use crate::cluster::connect::Target;
use crate::cluster::quorum::{Change, Tally};
use crate::cluster::retry::{Seen, until_certain};
use crate::cluster::survey::{MemberState, Survey, pause};
use crate::cluster::{quorum, select};
use crate::context::Context;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::client::{Consistency, Refusal};
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::event::Event;
use crate::node::profile::Profile;

/// How long an election may take.
const LEADER_LIMIT: Duration = Duration::from_secs(30);
/// How often is looked while something is waited for.
const PAUSE: Duration = Duration::from_millis(250);
/// The phase's name in events.
const PHASE: &str = "removal";

/// The request.
#[derive(Debug, Clone)]
pub struct RemoveRequest {
    /// A node of the cluster, or how to reach one.
    pub target: Target,
    /// The member's name, id or peer URL.
    pub member: String,
    /// How long to wait until it is gone from every list.
    pub wait: Duration,
    /// Refusals that are allowed.
    pub allow: Vec<String>,
}

/// What would be done.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The member that goes.
    pub member: Member,
    /// Why it does not count as healthy now; none if it does.
    pub trouble: Option<String>,
    /// Whether it leads.
    pub leads: bool,
    /// Who is to lead in its stead.
    pub next_leader: Option<String>,
    /// The votes before and after.
    pub votes: Change,
    /// What is left for the operator to do; OpenShift only.
    pub next_steps: Vec<NextStep>,
    /// The members as they are.
    pub members: Vec<MemberState>,
    #[serde(skip)]
    next_leader_id: Option<MemberId>,
    #[serde(skip)]
    survey: Survey,
    #[serde(skip)]
    profile: Profile,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The member that is gone.
    pub member: Member,
    /// Whether leadership was moved first, and to whom.
    pub next_leader: Option<String>,
    /// The votes before.
    pub before: Tally,
    /// The votes now.
    pub after: Tally,
    /// The remaining members that no longer list it.
    pub gone_from: Vec<String>,
    /// What is left for the operator to do; OpenShift only.
    pub next_steps: Vec<NextStep>,
}

/// Surveys the cluster and plans the removal; changes nothing.
///
/// # Errors
/// [`Kind::Refused`] with the refusal's name, [`Kind::Unreachable`].
pub async fn plan(context: &Context, request: &RemoveRequest) -> Result<Plan> {
    let detection = request.target.detect(context)?;
    refuse_fencing(context, &request.allow, &detection)?;
    let survey = Survey::take(context, &request.target, &detection).await?;
    let id = select::select(&survey.list(), &request.member)?.id;
    judge(context, request, survey, id, detection.profile)
}

fn judge(
    context: &Context,
    request: &RemoveRequest,
    survey: Survey,
    id: MemberId,
    profile: Profile,
) -> Result<Plan> {
    let Some(state) = survey.find(id).cloned() else {
        let what = format!("member {id} is no longer in the cluster");
        return Err(Failure::refused_for_good(select::MEMBER_UNKNOWN, what));
    };
    let doing = format!("removing member {}", select::described(&state.member));
    let (votes, against) = quorum::removal(&survey.standings(), id.0);
    if let Some(against) = against {
        unless_allowed(context, &request.allow, against.refusal(&doing, &votes))?;
    }
    let leads = survey.leader == Some(id);
    let heir = leads.then(|| heir(&survey, id)).flatten();
    if leads && heir.is_none() {
        let why = "it is the leader, and no other voting member is healthy";
        let refusal = Failure::refused(LEADER_CANNOT_MOVE, why).doing(doing);
        unless_allowed(context, &request.allow, refusal)?;
    }
    let next_steps = match profile {
        Profile::Openshift if state.has_started() => openshift::after_removal(&state.member.name),
        _ => Vec::new(),
    };
    Ok(Plan {
        next_leader: heir.map(|heir| heir.member.label()),
        next_leader_id: heir.map(|heir| heir.member.id),
        member: state.member,
        trouble: state.trouble,
        leads,
        votes,
        next_steps,
        profile,
        members: survey.members.clone(),
        survey,
    })
}

/// The best new leader: the healthy voting member that has applied most.
fn heir(survey: &Survey, leader: MemberId) -> Option<&MemberState> {
    survey
        .members
        .iter()
        .filter(|state| state.member.id != leader && !state.member.is_learner)
        .filter(|state| state.is_healthy())
        .max_by_key(|state| {
            state
                .status
                .as_ref()
                .map(|status| status.raft_applied_index)
        })
}

/// Removes the member, after another survey.
///
/// # Errors
/// As of [`plan`]; [`Kind::Partial`] if it was removed and a member still lists it.
pub async fn carry_out(context: &Context, request: &RemoveRequest, plan: Plan) -> Result<Outcome> {
    let doing = format!("removing member {}", select::described(&plan.member));
    let (id, before) = (plan.member.id, plan.votes.before);
    context.tell(Event::PhaseStarted {
        phase: PHASE,
        about: doing.clone(),
        total: None,
    });
    let survey = context.cancel.guard(plan.survey.again()).await?;
    let mut plan = judge(context, request, survey, id, plan.profile)?;
    if let Some(next) = plan.next_leader_id {
        let moved = context.cancel.guard(move_leadership(&plan, next)).await;
        if let Err(failure) = moved {
            let refusal = named(failure, LEADER_CANNOT_MOVE).doing(doing.clone());
            unless_allowed(context, &request.allow, refusal)?;
        }
    }
    context.cancel.check()?;
    // The removed member stops, perhaps before it has answered.
    plan.survey.connection = plan.survey.connect_to_other_than(id).await?;
    remove(context, &plan)
        .await
        .map_err(|e| e.doing(doing.clone()))?;
    let (gone_from, listing) = gone(context, &plan, request.wait).await;
    if !listing.is_empty() {
        let what = format!("it is removed, but still listed: {}", listing.join("; "));
        return Err(Failure::new(Kind::Partial, what).doing(doing));
    }
    context.tell(Event::PhaseDone {
        phase: PHASE,
        done: 0,
    });
    let after = match plan.survey.again().await {
        Ok(now) => now.tally(),
        Err(_) => plan.votes.after,
    };
    Ok(Outcome {
        member: plan.member,
        next_leader: plan.next_leader,
        before,
        after,
        gone_from,
        next_steps: plan.next_steps,
    })
}

fn named(failure: Failure, name: &'static str) -> Failure {
    failure.as_kind(Kind::Refused).with(Fact::Refusal {
        name,
        allowable: true,
    })
}

/// Moves leadership, and waits until the member no longer leads.
async fn move_leadership(plan: &Plan, next: MemberId) -> Result<()> {
    let id = plan.member.id;
    let Some(leader) = plan.survey.find(id) else {
        return Ok(());
    };
    let connection = plan.survey.connect_to(leader).await?;
    let asked = connection.move_leader(next).await;
    let deadline = Instant::now() + LEADER_LIMIT;
    // The answer may be lost, or the member may have stepped down by itself: only who leads counts.
    let mut other = plan.survey.connect_to_other_than(id).await?;
    loop {
        match other.status().await {
            Ok(status) if status.leader.is_some_and(|leader| leader != id) => return Ok(()),
            Ok(_) => {}
            Err(_) => other = plan.survey.connect_to_other_than(id).await?,
        }
        // Certainly not moved. But if the asked member does not lead, another one shows up soon.
        if let Err(not) = &asked
            && !not.perhaps_done
            && not.refusal != Some(Refusal::NotLeader)
        {
            return asked.map_err(|not| not.failure);
        }
        if Instant::now() >= deadline {
            let what = format!("it is still the leader after {} s", LEADER_LIMIT.as_secs());
            return Err(Failure::new(Kind::Refused, what));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn remove(context: &Context, plan: &Plan) -> Result<()> {
    let id = plan.member.id;
    // A request to stop waits until it is known whether the member is removed.
    let unstopped = context.unstopped();
    let removed = until_certain(
        &unstopped,
        &plan.survey,
        async |connection| connection.member_remove(id).await.map(drop),
        |now| match now.find(id) {
            Some(_) => Seen::Not,
            None => Seen::Done(()),
        },
    )
    .await
    .map_err(|failure| {
        failure
            .doing("cannot tell whether it was removed")
            .with(Fact::MemberRemains(id.to_string()))
    })?;
    match removed {
        Ok(()) => Ok(()),
        // Another process has removed it.
        Err(not) if not.refusal == Some(Refusal::MemberNotFound) => Ok(()),
        Err(not) => Err(match not.refusal {
            Some(Refusal::UnhealthyCluster | Refusal::NotEnoughStarted) => {
                let why = "etcd itself refuses: too few members would be left connected";
                let failure = not.failure.doing(why);
                failure.with(Fact::Refusal {
                    name: quorum::WOULD_LOSE_QUORUM,
                    allowable: false,
                })
            }
            _ => not.failure,
        }),
    }
}

/// Waits until no healthy remaining member lists it. Returns the names of those that do not, and of
/// those that still do.
async fn gone(context: &Context, plan: &Plan, wait: Duration) -> (Vec<String>, Vec<String>) {
    let id = plan.member.id;
    let deadline = Instant::now() + wait;
    let mut waiting: Vec<&MemberState> = plan
        .survey
        .members
        .iter()
        // A learner does not give its list.
        .filter(|state| state.member.id != id && !state.member.is_learner && state.is_healthy())
        .collect();
    let mut gone_from = Vec::new();
    loop {
        let mut listing = Vec::new();
        let mut still = Vec::new();
        for state in waiting {
            match lists(plan, state).await {
                Ok(false) => gone_from.push(state.member.label()),
                Ok(true) => {
                    listing.push(format!("{} lists it", state.member.label()));
                    still.push(state);
                }
                Err(failure) => {
                    listing.push(format!("{}: {failure}", state.member.label()));
                    still.push(state);
                }
            }
        }
        waiting = still;
        if waiting.is_empty() || Instant::now() >= deadline {
            return (gone_from, listing);
        }
        tell(context, PHASE, listing.join("; "));
        if let Err(stopped) = pause(context, PAUSE).await {
            listing.push(stopped.to_string());
            return (gone_from, listing);
        }
    }
}

async fn lists(plan: &Plan, state: &MemberState) -> Result<bool> {
    let connection = plan.survey.connect_to(state).await?;
    let list = connection.member_list(Consistency::Local).await?;
    Ok(list
        .members
        .iter()
        .any(|member| member.id == plan.member.id))
}
