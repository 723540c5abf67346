//! `member-add`: adds a member, first as a learner.
//!
//! 1. [`plan`] looks and refuses; nothing has changed.
//! 2. [`begin`] adds the member, and says what it must start with.
//! 3. [`finish`] waits until it has started and caught up, and promotes it. If that fails, it
//!    removes the member again, unless the member was there before this run.
//!
//! If a run was killed, the next one with the same name and peer URLs continues: it waits for the
//! learner that has them instead of adding another.

mod plan;

use serde::Serialize;

use super::catchup::{Awaited, Ended, until_it_votes};
use super::start::StartWith;
use super::{PEER_URL_TAKEN, TOO_MANY_LEARNERS, UNHEALTHY_CLUSTER};
use crate::cluster::quorum::{Change, Tally};
use crate::cluster::retry::{Seen, until_certain};
use crate::cluster::survey::Survey;
use crate::cluster::{peer_url, select};
use crate::context::{Cancel, Context};
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::client::{NewMember, NotChanged, Refusal};
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;

pub use self::plan::{Action, AddRequest, Plan, plan};
pub(crate) use self::plan::{judge, well};

/// A member that is in the cluster's list and does not vote yet.
#[derive(Debug, Clone)]
pub struct Added {
    /// Its id.
    pub id: MemberId,
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
    pub id: MemberId,
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
    /// It votes, but this run did not promote it, or it was added as a voting member.
    Votes,
    /// It is a learner, as was asked for.
    Learner,
    /// It has a vote and has not started, as was asked for.
    VoterNotStarted,
}

/// Adds the member, unless an earlier run has done so.
///
/// # Errors
/// [`Kind::Refused`] if etcd refuses; [`Kind::Unreachable`]. Then the cluster is as before, or the
/// failure says what remains.
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
) -> Result<(MemberId, Vec<Member>)> {
    // A request to stop waits until it is known whether the member was added.
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
                // The cluster learns a member's name when it first starts.
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

/// Why etcd considers its cluster unhealthy. A member that answers is not lost, only out of reach
/// of its peers; to remove it would cost a vote for nothing.
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

/// Waits until the member votes; removes it again if that fails.
///
/// # Errors
/// [`Kind::RolledBack`] if it was removed again, [`Kind::RollbackFailed`] with
/// [`Fact::MemberRemains`] if it could not be, or was there before this run; [`Kind::Interrupted`]
/// on a request to stop, with everything as before.
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
    /// It was promoted before the removal, and is healthy.
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
    // Another run has added it: it is not this one's to remove.
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
        // The promotion whose answer was lost has been made.
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

/// The result of removing a member again.
pub(crate) enum Gone {
    /// It is not in the list.
    Removed,
    /// It was promoted before.
    Votes {
        /// Whether it answers.
        healthy: bool,
    },
}

/// Removes the member, unless it was added as a learner and votes by now.
///
/// # Errors
/// [`Kind::Unreachable`]; those of etcd's refusal.
pub(crate) async fn remove_again(survey: &Survey, id: MemberId, was_learner: bool) -> Result<Gone> {
    let now = survey.again().await?;
    let Some(state) = now.find(id) else {
        return Ok(Gone::Removed);
    };
    if was_learner && !state.member.is_learner {
        return Ok(Gone::Votes {
            healthy: state.is_healthy(),
        });
    }
    // The first request to stop has led here; a second signal ends the process.
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
