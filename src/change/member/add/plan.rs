//! When adding a member is refused, and what it would change.

use std::time::Duration;

use serde::Serialize;

use crate::change::member::start::is_name;
use crate::change::member::{
    LEARNERS_UNSUPPORTED, NAME_TAKEN, PEER_URL_LOOPBACK, PEER_URL_TAKEN, UNHEALTHY_CLUSTER,
    refuse_fencing, unless_allowed,
};
use crate::cluster::connect::Target;
use crate::cluster::quorum::{Change, Tally};
use crate::cluster::survey::{MemberState, Survey};
use crate::cluster::{peer_url, quorum, select};
use crate::context::Context;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::inspect::diagnose;

/// The request.
#[derive(Debug, Clone)]
pub struct AddRequest {
    /// A node of the cluster, or how to reach one.
    pub target: Target,
    /// The new member's name.
    pub name: String,
    /// Where its peers will reach it.
    pub peer_urls: Vec<String>,
    /// Add it as a learner.
    pub learner: bool,
    /// Wait, and promote it.
    pub promote: bool,
    /// How long to wait for it.
    pub wait: Duration,
    /// Refusals that are allowed.
    pub allow: Vec<String>,
}

/// What would be done.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What the run would begin with.
    pub action: Action,
    /// The new member's name.
    pub name: String,
    /// Its peer URLs.
    pub peer_urls: Vec<String>,
    /// The votes now, and as soon as it is added.
    pub when_added: Change,
    /// The votes once it has started and votes.
    pub when_done: Tally,
    /// The members as they are.
    pub members: Vec<MemberState>,
    #[serde(skip)]
    pub(super) survey: Survey,
}

/// What a run begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "do", content = "member")]
pub enum Action {
    /// Add it as a learner.
    AddLearner,
    /// Add it with a vote.
    AddVoter,
    /// Continue with a member that an earlier run has added.
    GoOn(MemberId),
    /// Nothing: it is there, votes and is healthy.
    Nothing(MemberId),
}

impl Action {
    fn adds(self) -> bool {
        matches!(self, Self::AddLearner | Self::AddVoter)
    }
}

/// Compares the request with the cluster; changes nothing.
///
/// # Errors
/// [`Kind::Usage`] for an invalid name or URL, [`Kind::Refused`] with the refusal's name,
/// [`Kind::Unreachable`].
pub async fn plan(context: &Context, request: &AddRequest) -> Result<Plan> {
    if !is_name(&request.name) {
        let what = format!("{:?} is not a valid member name", request.name);
        return Err(Failure::new(Kind::Usage, what));
    }
    let peer_urls = peer_url::parse(&request.peer_urls)?;
    let detection = request.target.detect(context)?;
    refuse_fencing(context, &request.allow, &detection)?;
    let mut survey = Survey::take(context, &request.target, &detection).await?;
    // etcd checks only the connections of the member that receives the request, and a connection
    // may work in one direction only.
    let apart = async { Ok(diagnose::connections_down(&survey).await) };
    let apart = context.cancel.guard(apart).await?;
    survey.apart = apart;
    let doing = format!("adding member {}", request.name);
    judge(context, request, survey, peer_urls).map_err(|failure| failure.doing(doing))
}

pub(crate) fn judge(
    context: &Context,
    request: &AddRequest,
    survey: Survey,
    peer_urls: Vec<String>,
) -> Result<Plan> {
    let action = action(request, &survey, &peer_urls)?;
    let standings = survey.standings();
    let (when_added, against) = match action {
        Action::AddLearner => quorum::addition(&standings, false),
        Action::AddVoter => quorum::addition(&standings, true),
        Action::GoOn(_) | Action::Nothing(_) => {
            let now = survey.tally();
            let change = Change {
                before: now,
                after: now,
            };
            (change, None)
        }
    };
    if let Some(against) = against {
        let refusal = against.refusal("checking the quorum", &when_added);
        unless_allowed(context, &request.allow, refusal)?;
    }
    if action.adds() {
        well(context, request, &survey)?;
    }
    if action == Action::AddLearner {
        knows_learners(&survey.members)?;
    }
    if !matches!(action, Action::Nothing(_)) {
        found_by_others(context, request, &survey, &peer_urls)?;
    }
    let mut then = standings;
    let id = match action {
        Action::GoOn(id) | Action::Nothing(id) => id.0,
        // No member's id: nothing is taken out.
        Action::AddLearner | Action::AddVoter => 0,
    };
    then.retain(|standing| standing.id != id);
    then.push(quorum::Standing {
        id,
        votes: true,
        started: true,
        healthy: true,
    });
    Ok(Plan {
        action,
        name: request.name.clone(),
        peer_urls,
        when_added,
        when_done: Tally::of(&then),
        members: survey.members.clone(),
        survey,
    })
}

/// Whether to add the member, or to continue with one from an earlier run; refuses a name or URL
/// that another member has.
fn action(request: &AddRequest, survey: &Survey, peer_urls: &[String]) -> Result<Action> {
    let members = survey.list();
    let same = survey.members.iter().find(|state| {
        let member = &state.member;
        let named = member.name.is_empty() || member.name == request.name;
        named && peer_url::same_all(&member.peer_urls, peer_urls)
    });
    if let Some(state) = same {
        let member = &state.member;
        // A voting member that has not started is what an earlier run without --learner leaves.
        if member.is_learner || (!state.has_started() && !request.learner) {
            return Ok(Action::GoOn(member.id));
        }
        if state.has_started() && state.is_healthy() {
            return Ok(Action::Nothing(member.id));
        }
    }
    let taken = |name, why: &str, member: &Member| {
        let what = format!(
            "{why} {}: remove that member first, if it is lost",
            select::described(member)
        );
        Err(Failure::refused_for_good(name, what))
    };
    for member in &members {
        let has = |url: &String| member.peer_urls.iter().any(|own| peer_url::same(own, url));
        if let Some(url) = peer_urls.iter().find(|url| has(url)) {
            return taken(
                PEER_URL_TAKEN,
                &format!("the peer URL {url} belongs to"),
                member,
            );
        }
    }
    match members.iter().find(|member| member.name == request.name) {
        Some(member) => taken(NAME_TAKEN, "the name belongs to", member),
        None if request.learner => Ok(Action::AddLearner),
        None => Ok(Action::AddVoter),
    }
}

/// Refuses a cluster that has a problem.
pub(crate) fn well(context: &Context, request: &AddRequest, survey: &Survey) -> Result<()> {
    let problems = survey.problems();
    if problems.is_empty() {
        return Ok(());
    }
    let refusal = Failure::refused(UNHEALTHY_CLUSTER, problems.join("; "));
    unless_allowed(context, &request.allow, refusal)
}

/// Refuses peer URLs at `localhost`, on either side: from another machine they lead nowhere.
fn found_by_others(
    context: &Context,
    request: &AddRequest,
    survey: &Survey,
    peer_urls: &[String],
) -> Result<()> {
    let own = peer_url::loopback(peer_urls);
    let others = survey.members.iter().map(|state| &state.member);
    let others = others.filter(|other| !peer_url::same_all(&other.peer_urls, peer_urls));
    for other in others {
        let (what, moves) = match (&own, peer_url::loopback(&other.peer_urls)) {
            (None, Some(urls)) => {
                let label = other.label();
                let what = format!(
                    "{} would dial member {label} at {urls}, which is its own machine",
                    request.name
                );
                (what, Some(other.id.to_string()))
            }
            (Some(urls), None) => {
                let what = format!("member {} would dial it at {urls}", other.label());
                (what, None)
            }
            // If both are at localhost, they are on the same machine.
            _ => continue,
        };
        let mut refusal = Failure::refused(PEER_URL_LOOPBACK, what);
        if let Some(id) = moves {
            refusal = refusal.with(Fact::MustMove(id));
        }
        unless_allowed(context, &request.allow, refusal)?;
    }
    Ok(())
}

/// A server before 3.4 ignores the field `isLearner` and adds a voting member.
fn knows_learners(members: &[MemberState]) -> Result<()> {
    for state in members {
        let Some(status) = &state.status else {
            continue;
        };
        let mut numbers = status.version.split('.').map(|part| part.parse::<u32>());
        if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next())
            && (major, minor) < (3, 4)
        {
            let label = state.member.label();
            let what = format!(
                "member {label} runs etcd {}, but learners need 3.4 or later",
                status.version
            );
            return Err(Failure::refused_for_good(LEARNERS_UNSUPPORTED, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::client::Status;

    fn running(version: &str) -> MemberState {
        let id = MemberId(1);
        MemberState {
            member: Member {
                id,
                name: "master-0".to_owned(),
                peer_urls: Vec::new(),
                client_urls: Vec::new(),
                is_learner: false,
            },
            endpoint: None,
            status: Some(Status::of_a_leader(id, version)),
            trouble: None,
            other: None,
        }
    }

    #[test]
    fn a_member_before_3_4_would_make_a_voter_of_a_learner() {
        let refused = knows_learners(&[running("3.5.16"), running("3.3.27")]).unwrap_err();
        assert_eq!(refused.refusal(), Some("learners-unsupported"));
        assert!(refused.to_string().contains("3.3.27"), "{refused}");
        for known in ["3.4.0", "3.5.16", "4.0.0"] {
            assert!(knows_learners(&[running(known)]).is_ok(), "{known}");
        }
    }
}
