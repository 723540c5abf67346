//! `member-add`: a new member, first without a vote.
//!
//! 1. [`plan`] looks and refuses; nothing has changed.
//! 2. [`begin`] adds the member, and says what it must start with.
//! 3. [`finish`] waits until it has started and caught up, and promotes it. When that fails the
//!    member is removed again, unless it was there before this run.
//!
//! A run that was killed is taken up by the next one with the same name and peer URLs: a learner
//! that has them is waited for, not added again.

use std::time::Duration;

use serde::Serialize;

use super::catchup::{Awaited, Ended, until_it_votes};
use super::start::{StartWith, is_name};
use super::{
    LEARNERS_UNSUPPORTED, NAME_TAKEN, PEER_URL_LOOPBACK, PEER_URL_TAKEN, TOO_MANY_LEARNERS,
    UNHEALTHY_CLUSTER, refuse_fencing, unless_allowed,
};
use crate::cluster::connect::Target;
use crate::cluster::quorum::{Change, Tally};
use crate::cluster::retry::{Seen, until_certain};
use crate::cluster::survey::{MemberState, Survey};
use crate::cluster::{peer_url, quorum, select};
use crate::context::{Cancel, Context};
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::client::{Id, Member, NewMember, NotChanged, Refusal};
use crate::inspect::diagnose;

/// What is wanted.
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
    survey: Survey,
}

/// What a run begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "do", content = "member")]
pub enum Action {
    /// Add it as a learner.
    AddLearner,
    /// Add it with a vote.
    AddVoter,
    /// Go on with a member that an earlier run has added.
    GoOn(Id),
    /// Nothing: it is there, votes and is healthy.
    Nothing(Id),
}

/// A member that is in the cluster's list, and has yet to vote.
#[derive(Debug, Clone)]
pub struct Added {
    /// Its id.
    pub id: Id,
    /// What it must start with.
    pub start: StartWith,
    /// The votes before, and with it.
    pub change: Change,
    /// Whether this run has added it.
    pub fresh: bool,
    survey: Survey,
}

/// How it ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// What the member is now.
    pub result: AddResult,
    /// Its id.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// Its peer URLs.
    pub peer_urls: Vec<String>,
    /// Whether an earlier run had added it.
    pub resumed: bool,
    /// What it must start with, or has started with.
    pub start: StartWith,
    /// The votes before.
    pub before: Tally,
    /// The votes now.
    pub after: Tally,
}

/// What an added member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddResult {
    /// It votes, by this run.
    Promoted,
    /// It votes; not this run has promoted it, or it was added with a vote.
    Votes,
    /// It is a learner, as was asked for.
    Learner,
    /// It has a vote and has not started, as was asked for.
    VoterNotStarted,
}

/// Looks at the cluster and at what is wanted; changes nothing.
///
/// # Errors
/// [`Kind::Usage`] for what is no name or URL, [`Kind::Refused`] with the refusal's name,
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
    // etcd asks the member alone that is asked for its connections, and one may be up one way only.
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
    if matches!(action, Action::AddLearner | Action::AddVoter) {
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

/// Whether it is to be added, or is there from an earlier run, or its name or URL is another's.
fn action(request: &AddRequest, survey: &Survey, peer_urls: &[String]) -> Result<Action> {
    let members = survey.list();
    let same = survey.members.iter().find(|state| {
        let member = &state.member;
        let named = member.name.is_empty() || member.name == request.name;
        named && peer_url::same_all(&member.peer_urls, peer_urls)
    });
    if let Some(state) = same {
        let member = &state.member;
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

/// Refuses a new member that would look for another one at `localhost`, or be looked for there.
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

/// A server before 3.4 would take no notice of the wish for a learner and add a voter.
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

/// Adds the member, where that is still to be done.
///
/// # Errors
/// [`Kind::Refused`] where etcd refuses; [`Kind::Unreachable`]. The cluster is as before then, or
/// the failure says what remains.
pub async fn begin(context: &Context, request: &AddRequest, plan: Plan) -> Result<Added> {
    let Plan {
        action,
        peer_urls,
        when_added,
        survey,
        ..
    } = plan;
    let (id, members, fresh) = match action {
        Action::GoOn(id) | Action::Nothing(id) => (id, survey.list(), false),
        Action::AddLearner | Action::AddVoter => {
            let new = if action == Action::AddLearner {
                NewMember::Learner
            } else {
                NewMember::Voter
            };
            context.cancel.check()?;
            let (id, members) = add(context, request, &survey, &peer_urls, new)
                .await
                .map_err(|failure| failure.doing(format!("adding member {}", request.name)))?;
            (id, members, true)
        }
    };
    Ok(Added {
        start: StartWith::new(&members, id, &request.name),
        id,
        change: when_added,
        fresh,
        survey,
    })
}

async fn add(
    context: &Context,
    request: &AddRequest,
    survey: &Survey,
    peer_urls: &[String],
    new: NewMember,
) -> Result<(Id, Vec<Member>)> {
    // Until it is known whether the member was added, the wish to stop waits.
    let unstopped = context.unstopped();
    let answer = until_certain(
        &unstopped,
        survey,
        async |connection| {
            let added = connection.member_add(peer_urls, new).await?;
            Ok((added.member.id, added.list.members))
        },
        |now| {
            let members = now.list();
            let ours = |member: &&Member| {
                member.name.is_empty() && peer_url::same_all(&member.peer_urls, peer_urls)
            };
            match members.iter().find(ours).map(|member| member.id) {
                Some(id) => Seen::Done((id, members)),
                None => Seen::Not,
            }
        },
    )
    .await;
    match answer {
        Ok(Ok(added)) => Ok(added),
        Ok(Err(not)) => Err(refused_by_etcd(request, survey, not)),
        Err(failure) => {
            let url = peer_urls.join(",");
            let remains = format!("cannot tell whether a member at {url} was added");
            Err(failure
                .doing(remains)
                .as_kind(Kind::RollbackFailed)
                .with(Fact::MemberRemains(url)))
        }
    }
}

/// etcd's own reasons, by names of ours.
fn refused_by_etcd(request: &AddRequest, survey: &Survey, not: NotChanged) -> Failure {
    let (name, more) = match not.refusal {
        Some(Refusal::TooManyLearners) => {
            let learners = survey.members.iter().map(|state| &state.member);
            let learners: Vec<String> = learners
                .filter(|member| member.is_learner)
                .map(select::described)
                .collect();
            let more = format!(
                "the learners are {}: promote or remove one first",
                learners.join(", ")
            );
            (TOO_MANY_LEARNERS, more)
        }
        Some(Refusal::UnhealthyCluster | Refusal::NotEnoughStarted) => {
            (UNHEALTHY_CLUSTER, not_connected(survey))
        }
        Some(Refusal::PeerUrlExists | Refusal::MemberExists) => {
            let more = format!(
                "a member already has one of {}",
                request.peer_urls.join(", ")
            );
            (PEER_URL_TAKEN, more)
        }
        _ => return not.failure,
    };
    not.failure.doing(more).with(Fact::Refusal {
        name,
        allowable: false,
    })
}

/// Why etcd finds its cluster unhealthy. A member that answers is not lost: its peers do not reach
/// it, and its removal would cost a vote for nothing.
fn not_connected(survey: &Survey) -> String {
    let rule = "etcd itself accepts no new member while two voting members are not connected";
    let silent = survey.members.iter().find(|state| !state.is_healthy());
    match silent {
        Some(state) => format!(
            "{rule}; {} does not answer: start it, or remove it if it is lost",
            select::described(&state.member)
        ),
        None if survey.apart.is_empty() => rule.to_owned(),
        None => format!("{rule}: {}", survey.apart.join("; ")),
    }
}

/// Waits until the member votes; removes it again when that fails.
///
/// # Errors
/// [`Kind::RolledBack`] where it was removed again, [`Kind::RollbackFailed`] with
/// [`Fact::MemberRemains`] where it could not be, or was there before this run;
/// [`Kind::Interrupted`] where the wish to stop came and all is as before.
pub async fn finish(context: &Context, request: &AddRequest, added: Added) -> Result<Outcome> {
    let outcome = |result, after| Outcome {
        result,
        id: added.id,
        name: request.name.clone(),
        peer_urls: added.start.initial_advertise_peer_urls.clone(),
        resumed: !added.fresh,
        start: added.start.clone(),
        before: added.change.before,
        after,
    };
    if !request.promote {
        let result = if request.learner {
            AddResult::Learner
        } else {
            AddResult::VoterNotStarted
        };
        return Ok(outcome(result, added.change.after));
    }
    let awaited = Awaited {
        id: added.id,
        name: &request.name,
        wait: request.wait,
        node: None,
    };
    let ended = match until_it_votes(context, &added.survey, &awaited).await {
        Ok(ended) => ended,
        Err(failure) => match undo(request, &added, failure).await {
            Undone::VotesAfterAll => Ended::Promoted,
            Undone::Failed(failure) => return Err(failure),
        },
    };
    let after = match added.survey.again().await {
        Ok(now) => now.tally(),
        // It was healthy a moment ago.
        Err(_) => added.change.after,
    };
    let result = match ended {
        Ended::Promoted => AddResult::Promoted,
        Ended::VotesAlready => AddResult::Votes,
    };
    Ok(outcome(result, after))
}

enum Undone {
    /// It had got its vote before it could be removed, and is healthy.
    VotesAfterAll,
    /// What the run fails with.
    Failed(Failure),
}

/// Brings the cluster back to what it was before this run.
async fn undo(request: &AddRequest, added: &Added, why: Failure) -> Undone {
    let interrupted = why.kind() == Kind::Interrupted;
    let doing = format!("adding member {}", request.name);
    let id = added.id.to_string();
    let remains = |why: Failure, what: String| {
        let failed = why
            .as_kind(Kind::RollbackFailed)
            .doing(what)
            .doing(doing.clone());
        Undone::Failed(failed.with(Fact::MemberRemains(id.clone())))
    };
    if !added.fresh {
        let what = format!("member {id}, which existed before this run, remains");
        return remains(why, what);
    }
    let was_learner = added.change.before.voters == added.change.after.voters;
    match remove_again(&added.survey, added.id, was_learner).await {
        Ok(Gone::Removed) => {
            let kind = if interrupted {
                Kind::Interrupted
            } else {
                Kind::RolledBack
            };
            let what = format!("the cluster is as before: member {id} was removed again");
            Undone::Failed(why.as_kind(kind).doing(what).doing(doing))
        }
        Ok(Gone::Votes { healthy: true }) => Undone::VotesAfterAll,
        Ok(Gone::Votes { healthy: false }) => {
            let what = format!("member {id} remains: it is a voting member and does not answer");
            remains(why, what)
        }
        Err(failure) => {
            let what = format!("member {id} remains because it could not be removed ({failure})");
            remains(why, what)
        }
    }
}

/// What became of a member that was to be removed again.
pub(crate) enum Gone {
    /// It is not in the list.
    Removed,
    /// It got its vote before.
    Votes {
        /// Whether it answers.
        healthy: bool,
    },
}

/// Removes the member unless it votes by now and was to be a learner.
///
/// # Errors
/// [`Kind::Unreachable`]; what etcd refuses.
pub(crate) async fn remove_again(survey: &Survey, id: Id, was_learner: bool) -> Result<Gone> {
    let now = survey.again().await?;
    let Some(state) = now.find(id) else {
        return Ok(Gone::Removed);
    };
    if was_learner && !state.member.is_learner {
        return Ok(Gone::Votes {
            healthy: state.is_healthy(),
        });
    }
    // The wish to stop has been heard; a second signal ends the process.
    let context = Context {
        observer: std::sync::Arc::new(crate::event::Silent),
        now: jiff::Timestamp::UNIX_EPOCH,
        cancel: Cancel::default(),
    };
    let removed = until_certain(
        &context,
        &now,
        async |connection| connection.member_remove(id).await.map(drop),
        |later| match later.find(id) {
            Some(_) => Seen::Not,
            None => Seen::Done(()),
        },
    )
    .await?;
    match removed {
        Ok(()) => Ok(Gone::Removed),
        Err(not) if not.refusal == Some(Refusal::MemberNotFound) => Ok(Gone::Removed),
        Err(not) => Err(not.failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::client::{Header, Status};

    fn running(version: &str) -> MemberState {
        let id = Id(1);
        MemberState {
            member: Member {
                id,
                name: "master-0".to_owned(),
                peer_urls: Vec::new(),
                client_urls: Vec::new(),
                is_learner: false,
            },
            endpoint: None,
            status: Some(Status {
                header: Header {
                    cluster_id: id,
                    member_id: id,
                    revision: 1,
                    raft_term: 1,
                },
                version: version.to_owned(),
                db_size: 0,
                db_size_in_use: 0,
                leader: Some(id),
                raft_index: 1,
                raft_applied_index: 1,
                raft_term: 1,
                is_learner: false,
                errors: Vec::new(),
                storage_version: None,
                db_size_quota: None,
            }),
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
