//! `member-update`: gives a member other peer URLs, after its address has changed.
//!
//! Its peers find a member by these URLs alone. A healthy member that gets URLs at which nothing
//! listens is cut from them, so the new URLs are dialled first; if nothing listens there, the
//! quorum is judged without the member.

use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpStream;

use super::{PEER_URL_TAKEN, refuse_fencing, unless_allowed};
use crate::cluster::connect::Target;
use crate::cluster::quorum::Change;
use crate::cluster::retry::{Seen, until_certain};
use crate::cluster::survey::{MemberState, Survey};
use crate::cluster::{peer_url, quorum, select};
use crate::context::Context;
use crate::error::{Fact, Failure, Result};
use crate::etcd::client::Refusal;
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::node::endpoint::Endpoint;

/// How long the new place has to take a connection.
const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// The request.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// A node of the cluster, or how to reach one.
    pub target: Target,
    /// The member's name, id or peer URL.
    pub member: String,
    /// Where its peers will reach it.
    pub peer_urls: Vec<String>,
    /// Refusals that are allowed.
    pub allow: Vec<String>,
}

/// What would be done.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The member as it is.
    pub member: Member,
    /// Its new peer URLs.
    pub peer_urls: Vec<String>,
    /// Whether it has them already.
    pub unchanged: bool,
    /// Those of the new places where nobody listens.
    pub silent: Vec<String>,
    /// The votes before, and after if nothing listens at the new URLs.
    pub votes: Change,
    /// The members as they are.
    pub members: Vec<MemberState>,
    #[serde(skip)]
    survey: Survey,
}

/// Surveys the cluster and plans the update; changes nothing.
///
/// # Errors
/// [`crate::error::Kind::Refused`] with the refusal's name, `Usage` for an invalid URL,
/// `Unreachable`.
pub async fn plan(context: &Context, request: &UpdateRequest) -> Result<Plan> {
    let peer_urls = peer_url::parse(&request.peer_urls)?;
    let detection = request.target.detect(context)?;
    refuse_fencing(context, &request.allow, &detection)?;
    let survey = Survey::take(context, &request.target, &detection).await?;
    let id = select::select(&survey.list(), &request.member)?.id;
    let silent = context.cancel.guard(async { Ok(silent(&peer_urls).await) });
    let silent = silent.await?;
    judge(context, request, survey, id, peer_urls, silent)
}

fn judge(
    context: &Context,
    request: &UpdateRequest,
    survey: Survey,
    id: MemberId,
    peer_urls: Vec<String>,
    silent: Vec<String>,
) -> Result<Plan> {
    let Some(state) = survey.find(id) else {
        let what = format!("member {id} is no longer in the cluster");
        return Err(Failure::refused_for_good(select::MEMBER_UNKNOWN, what));
    };
    let member = state.member.clone();
    let doing = format!("updating member {}", select::described(&member));
    for other in survey.list().iter().filter(|other| other.id != id) {
        let has = |url: &&String| other.peer_urls.iter().any(|own| peer_url::same(own, url));
        if let Some(url) = peer_urls.iter().find(has) {
            let what = format!("the peer URL {url} belongs to {}", select::described(other));
            return Err(Failure::refused_for_good(PEER_URL_TAKEN, what).doing(doing));
        }
    }
    // A cluster of one has no peers that could lose it.
    let alone = survey.members.len() == 1;
    // One that answers is enough: peers try all of them.
    let reachable = alone || silent.len() < peer_urls.len();
    let healthy = state.is_healthy() && reachable;
    let (votes, against) = quorum::with_health(&survey.standings(), id.0, healthy);
    let unchanged = peer_url::same_all(&member.peer_urls, &peer_urls);
    if let Some(against) = against.filter(|_| !unchanged) {
        let refusal = against.refusal("checking the quorum", &votes);
        let refusal = match reachable {
            true => refusal,
            false => refusal.doing(format!("nothing listens at {}", silent.join(", "))),
        };
        unless_allowed(context, &request.allow, refusal.doing(doing))?;
    }
    Ok(Plan {
        member,
        unchanged,
        silent,
        votes,
        peer_urls,
        members: survey.members.clone(),
        survey,
    })
}

/// The URLs at which no connection is taken.
async fn silent(urls: &[String]) -> Vec<String> {
    let mut silent = Vec::new();
    for url in urls {
        let Some(place) = Endpoint::parse(url) else {
            continue;
        };
        let dialled = TcpStream::connect((place.host.as_str(), place.port));
        if !matches!(tokio::time::timeout(DIAL_LIMIT, dialled).await, Ok(Ok(_))) {
            silent.push(url.clone());
        }
    }
    silent
}

/// Updates the member, after another survey.
///
/// # Errors
/// As of [`plan`].
pub async fn carry_out(context: &Context, request: &UpdateRequest, plan: Plan) -> Result<Plan> {
    if plan.unchanged {
        return Ok(plan);
    }
    let id = plan.member.id;
    let survey = context.cancel.guard(plan.survey.again()).await?;
    let mut plan = judge(context, request, survey, id, plan.peer_urls, plan.silent)?;
    context.cancel.check()?;
    let unstopped = context.unstopped();
    let doing = format!("updating member {}", select::described(&plan.member));
    let urls = plan.peer_urls.clone();
    let moved = until_certain(
        &unstopped,
        &plan.survey,
        async |connection| connection.member_update(id, &urls).await,
        |now| match now.find(id) {
            Some(state) if peer_url::same_all(&state.member.peer_urls, &urls) => Seen::Done(()),
            _ => Seen::Not,
        },
    )
    .await
    .map_err(|failure| failure.doing("cannot tell whether it was updated"))?;
    moved.map_err(|not| {
        let failure: Failure = match not.refusal {
            Some(Refusal::PeerUrlExists) => not.failure.with(Fact::Refusal {
                name: PEER_URL_TAKEN,
                allowable: false,
            }),
            _ => not.failure,
        };
        failure.doing(doing)
    })?;
    if let Ok(now) = plan.survey.again().await {
        plan.votes.after = now.tally();
        plan.members = now.members;
    }
    Ok(plan)
}
