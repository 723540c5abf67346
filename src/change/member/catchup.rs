//! Waits for a new member to start and catch up, and promotes it.

use std::time::Duration;

use tokio::time::Instant;

use super::tell;
use crate::change::transaction::context::StepContext;
use crate::change::transaction::ended;
use crate::cluster::survey::{MemberState, Survey, pause};
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::etcd::client::{Refusal, Status};
use crate::etcd::ids::MemberId;
use crate::event::Event;

/// The phase's name in events.
const PHASE: &str = "catch-up";
/// How often the members are looked at.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a survey may continue after the deadline.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How many raft entries a learner may be behind when it is promoted. etcd itself accepts nine
/// tenths of the leader's index (`isLearnerReady`, server/etcdserver/server.go), which can be very
/// many entries.
pub(crate) const CAUGHT_UP: u64 = 1000;

/// What is waited for.
pub(crate) struct Awaited<'a> {
    pub(crate) id: MemberId,
    pub(crate) name: &'a str,
    /// The bound on all of it.
    pub(crate) wait: Duration,
    /// This node, if it runs the member: its container runtime knows more.
    pub(crate) node: Option<&'a StepContext>,
}

/// How a wait ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// This run has promoted it.
    Promoted,
    /// It voted already, or was promoted by another process.
    VotesAlready,
}

/// Promotes the member as soon as it has caught up, and waits until it votes and is healthy.
///
/// # Errors
/// [`Kind::Unexpected`] when time runs out, with the last state; [`Kind::Interrupted`].
pub(crate) async fn until_it_votes(
    context: &Context,
    survey: &Survey,
    awaited: &Awaited<'_>,
) -> Result<Ended> {
    let bound = awaited.wait.as_secs();
    context.tell(Event::PhaseStarted {
        phase: PHASE,
        about: format!(
            "waiting for {} to start and catch up, at most {bound} s",
            awaited.name
        ),
        total: None,
    });
    let deadline = Instant::now() + awaited.wait;
    let mut pace = Pace::default();
    let mut promoted = false;
    loop {
        let look = async {
            let looked = tokio::time::timeout_at(deadline + LOOK_LIMIT, survey.again()).await;
            looked.unwrap_or_else(|_| {
                let what = "the members took too long to answer";
                Err(Failure::new(Kind::Unreachable, what))
            })
        };
        let standing = match context.cancel.guard(look).await {
            Ok(now) => match step(&now, awaited, &mut pace, &mut promoted).await? {
                Step::Votes => {
                    context.tell(Event::PhaseDone {
                        phase: PHASE,
                        done: 0,
                    });
                    return Ok(match promoted {
                        true => Ended::Promoted,
                        false => Ended::VotesAlready,
                    });
                }
                Step::Not(standing) => standing,
            },
            Err(failure) if failure.kind() == Kind::Unreachable => failure.to_string(),
            Err(failure) => return Err(failure),
        };
        let why = match awaited.node {
            Some(node) => ended::why(node).await,
            None => None,
        };
        let standing = match why {
            Some(why) => format!("{standing}; {why}"),
            None => standing,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let what = format!("it did not catch up within {bound} s: {standing}");
            return Err(Failure::new(Kind::Unexpected, what));
        }
        tell(
            context,
            PHASE,
            format!("{standing}; {} s left", left.as_secs()),
        );
        pause(context, PAUSE.min(left)).await?;
    }
}

enum Step {
    Votes,
    /// What it waits for.
    Not(String),
}

async fn step(
    now: &Survey,
    awaited: &Awaited<'_>,
    pace: &mut Pace,
    promoted: &mut bool,
) -> Result<Step> {
    let Some(state) = now.find(awaited.id) else {
        let what = "it was removed from the cluster by someone else";
        return Err(Failure::new(Kind::Unexpected, what));
    };
    let name = awaited.name;
    let Some(status) = answering(state) else {
        let why = state.trouble.as_deref().unwrap_or("no answer");
        return Ok(Step::Not(if state.has_started() {
            format!("{name} does not answer: {why}")
        } else {
            format!("{name} has not started")
        }));
    };
    if !state.member.is_learner {
        return Ok(match status.is_learner {
            // The list is the majority's; the member itself learns of it a moment later.
            true => Step::Not(format!("{name} does not know yet that it was promoted")),
            false => Step::Votes,
        });
    }
    let (behind, standing) = pace.describe(now, status, name);
    if behind > CAUGHT_UP {
        return Ok(Step::Not(standing));
    }
    match now.connection.member_promote(awaited.id).await {
        Ok(_) => *promoted = true,
        Err(not) => match not.refusal {
            Some(Refusal::LearnerNotReady) => {
                return Ok(Step::Not(format!(
                    "{standing}; the leader does not yet count it as in sync"
                )));
            }
            // It votes already, as the next survey shows.
            Some(Refusal::NotALearner) => {}
            Some(refusal) if refusal.may_pass() => return Ok(Step::Not(not.to_string())),
            // The next survey's list tells.
            _ if not.perhaps_done => *promoted = true,
            _ => return Err(not.failure),
        },
    }
    Ok(Step::Not(format!("{name} was promoted")))
}

fn answering(state: &MemberState) -> Option<&Status> {
    state.status.as_ref().filter(|_| state.is_healthy())
}

/// How fast a learner catches up.
#[derive(Default)]
struct Pace {
    /// When it had applied how much.
    first: Option<(Instant, u64)>,
}

impl Pace {
    /// How many entries it is behind, and that in words.
    fn describe(&mut self, now: &Survey, status: &Status, name: &str) -> (u64, String) {
        let committed = |state: &MemberState| Some(state.status.as_ref()?.raft_index);
        let newest = now.members.iter().filter_map(committed).max().unwrap_or(0);
        let applied = status.raft_applied_index;
        let behind = newest.saturating_sub(applied);
        let (since, from) = *self.first.get_or_insert((Instant::now(), applied));
        let elapsed = since.elapsed().as_millis();
        let gained = applied.saturating_sub(from);
        let rate = match elapsed {
            0 => 0,
            millis => u128::from(gained) * 1000 / millis,
        };
        let words = format!(
            "{name} is {behind} raft entries behind ({applied} of {newest}, {rate} a second)"
        );
        (behind, words)
    }
}
