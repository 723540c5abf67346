//! Whether the cluster still agrees on anything: what it commits, and which members are connected.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use super::metrics::Serving;
use super::problems::{CANNOT_COMMIT, PEER_NOT_CONNECTED};
use super::report::{Finding, NotChecked, Report, unchecked};
use crate::cluster::survey;
use crate::cluster::survey::{MemberState, Survey};
use crate::error::Result;
use crate::etcd::client::Metrics;
use crate::etcd::ids::MemberId;
use crate::finding::Severity;
use crate::node::endpoint;

/// A connection that is down is looked at again after this long: a member may just have started.
const PAUSE: Duration = Duration::from_secs(2);

/// Asks each member for a linearizable read, as `etcdctl endpoint health` does. The leader in a
/// member's status proves nothing: it is the last one that the member saw.
pub(super) async fn check(survey: &Survey, report: &mut Report) {
    if let Some(why) = &survey.stuck {
        let evidence = survey::stuck(why);
        report
            .findings
            .push(Finding::error(CANNOT_COMMIT, evidence));
        report.not_checked.push(NotChecked {
            what: super::problems::ALARM,
            why: why.clone(),
        });
    }
    let voters = survey
        .members
        .iter()
        .filter(|state| state.is_healthy() && !state.member.is_learner);
    let asked = voters.map(|state| async move { (state, reads(survey, state).await) });
    for (state, answer) in join_all(asked).await {
        let Err(failure) = answer else { continue };
        let evidence = format!("it does not answer linearizable reads: {failure}");
        let place = state.endpoint.clone().unwrap_or_default();
        report.findings.push(
            Finding::error(CANNOT_COMMIT, evidence)
                .of(&state.member)
                .at(&place),
        );
    }
}

async fn reads(survey: &Survey, state: &MemberState) -> Result<()> {
    survey.connect_to(state).await?.prove_readable().await
}

/// The page of metrics of each member that answers, all asked at once.
pub(super) async fn pages<'s>(
    survey: &'s Survey,
    serving: &Serving,
) -> Vec<(&'s MemberState, Result<Metrics>)> {
    let options = survey.client.options();
    let healthy = survey.members.iter().filter(|state| state.is_healthy());
    join_all(healthy.map(|state| async move { (state, serving.page(state, options).await) })).await
}

/// Members that another one is not connected to, by each member's own report. A connection may be
/// up one way only: raft then works, and etcd takes no new member.
pub(super) async fn peers(
    survey: &Survey,
    serving: &Serving,
    pages: &[(&MemberState, Result<Metrics>)],
    report: &mut Report,
) {
    let several = survey.members.len() > 1;
    let failures = pages.iter().filter_map(|(_, page)| page.as_ref().err());
    let unasked = failures.map(|failure| unchecked(PEER_NOT_CONNECTED, failure));
    report.not_checked.extend(unasked.filter(|_| several));
    if apart(survey, pages).is_empty() {
        return;
    }
    tokio::time::sleep(PAUSE).await;
    for (id, from) in apart(survey, &self::pages(survey, serving).await) {
        if let Some(state) = survey.find(id) {
            report.findings.push(not_connected(state, &from));
        }
    }
}

/// Of each member that answers, those that have no connection to it.
fn apart(
    survey: &Survey,
    pages: &[(&MemberState, Result<Metrics>)],
) -> BTreeMap<MemberId, Vec<String>> {
    let mut apart: BTreeMap<MemberId, Vec<String>> = BTreeMap::new();
    for (state, page) in pages {
        let Ok(page) = page else { continue };
        let others = survey.members.iter().filter(|other| {
            other.member.id != state.member.id && other.has_started() && other.is_healthy()
        });
        for other in others.filter(|other| !page.active_peers.contains(&other.member.id)) {
            let from = apart.entry(other.member.id).or_default();
            from.push(state.member.label());
        }
    }
    apart
}

fn not_connected(state: &MemberState, from: &[String]) -> Finding {
    let url = state.member.peer_urls.join(", ");
    let evidence = format!(
        "{} cannot connect to it at {url}, according to {} own metrics (etcd_network_active_peers); until that is fixed etcd accepts no new member",
        from.join(", "),
        if from.len() == 1 { "its" } else { "their" }
    );
    let finding = Finding::new(PEER_NOT_CONNECTED, Severity::Error, evidence).of(&state.member);
    let place = state.member.peer_urls.first();
    match place.and_then(|url| endpoint::Endpoint::parse(url)) {
        Some(place) if place.host.contains(':') => {
            finding.at(&format!("[{}]:{}", place.host, place.port))
        }
        Some(place) => finding.at(&format!("{}:{}", place.host, place.port)),
        None => finding,
    }
}

/// The members that another one is not connected to, and from where.
pub(crate) async fn connections_down(survey: &Survey) -> Vec<String> {
    let serving = Serving::default();
    if apart(survey, &pages(survey, &serving).await).is_empty() {
        return Vec::new();
    }
    tokio::time::sleep(PAUSE).await;
    let apart = apart(survey, &pages(survey, &serving).await);
    let label = |id: &MemberId| survey.find(*id).map(|state| state.member.label());
    apart
        .iter()
        .filter_map(|(id, from)| Some(format!("{} to {}", from.join(", "), label(id)?)))
        .collect()
}
