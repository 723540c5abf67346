//! The state of the members: which answer, which lag, which are nearly full, whose clock is wrong.

use std::time::Duration;

use tokio::time::Instant;

use super::agreement;
use super::metrics::Serving;
use super::problems::{
    ALARM, CLOCK_SKEW, DATABASE_NEAR_QUOTA, FOREIGN_CLUSTER, LEARNER_LAGS, MEMBER_LAGS,
    MEMBER_LEADERLESS, MEMBER_NOT_STARTED, MEMBER_REPORTS_ERRORS, MEMBER_UNREACHABLE, NO_QUORUM,
    WRONG_MEMBER_ANSWERS,
};
use super::report::{Finding, NotChecked, Report, unchecked};
use crate::cluster::survey::{MemberState, Survey};
use crate::error::Result;
use crate::etcd::client::{Metrics, Status};
use crate::keep::quality::RAFT_LAG_LIMIT;

/// How many raft entries a learner may be behind before it is reported: as many as it may be when
/// `member-add` promotes it.
const LEARNER_LAG_LIMIT: u64 = 1000;
/// Of the quota, how much may be used before it is reported: four fifths.
const NEAR_QUOTA: (u64, u64) = (4, 5);
/// How far clocks may be apart. etcd itself warns of more ("prober found high clock drift",
/// server/etcdserver/api/rafthttp/probing_status.go).
const CLOCK_LIMIT: Duration = Duration::from_secs(1);
/// HTTP's `Date` has whole seconds: half of one either way.
const DATE_ERROR: Duration = Duration::from_millis(500);

/// Looks at all of it.
pub(super) async fn check(survey: &Survey, serving: &Serving, report: &mut Report) {
    let began = Instant::now();
    let tally = survey.tally();
    if !tally.has_quorum() {
        let evidence = format!(
            "{} of {} voting members are healthy, and {} must agree",
            tally.healthy, tally.voters, tally.quorum
        );
        report.findings.push(Finding::error(NO_QUORUM, evidence));
    }
    for state in &survey.members {
        match answers(survey, state) {
            Some(finding) => report.findings.push(finding),
            None => report.findings.extend(lags(survey, state)),
        }
        report.findings.extend(reported(state));
    }
    for alarm in &survey.alarms {
        let finding = Finding::error(ALARM, format!("{} is raised", alarm.kind));
        report.findings.push(match survey.find(alarm.member_id) {
            Some(state) => finding.of(&state.member),
            None => finding,
        });
    }
    agreement::check(survey, report).await;
    let pages = agreement::pages(survey, serving).await;
    agreement::peers(survey, serving, &pages, report).await;
    told(&pages, began, report);
}

/// What a member reports itself, except alarms and a missing leader, which have their own findings.
fn reported(state: &MemberState) -> Vec<Finding> {
    let errors = state.status.iter().flat_map(|status| &status.errors);
    let others = errors.filter(|error| !error.contains("alarm:") && !error.contains("no leader"));
    let finding = |error| Finding::error(MEMBER_REPORTS_ERRORS, format!("it reports: {error}"));
    others
        .map(|error| finding(error).of(&state.member))
        .collect()
}

/// Whether the right member answers, and sees a leader.
fn answers(survey: &Survey, state: &MemberState) -> Option<Finding> {
    let trouble = state.trouble.clone()?;
    let member = &state.member;
    if !state.has_started() {
        let evidence = format!(
            "it was added at {} and never started",
            member.peer_urls.join(", ")
        );
        return Some(Finding::warning(MEMBER_NOT_STARTED, evidence).of(member));
    }
    let place = state.endpoint.clone().unwrap_or_default();
    let other = state.status.as_ref().or(state.other.as_ref());
    let (name, evidence) = match other {
        Some(status) if status.header.cluster_id != survey.cluster_id => {
            let (there, here) = (status.header.cluster_id, survey.cluster_id);
            let what =
                format!("a member of cluster {there} answers at {place}; this cluster is {here}");
            (FOREIGN_CLUSTER, what)
        }
        Some(status) if status.header.member_id != member.id => {
            let (there, own) = (status.header.member_id, member.id);
            let what = format!("member {there} answers at {place}, not {own}");
            (WRONG_MEMBER_ANSWERS, what)
        }
        Some(_) => (MEMBER_LEADERLESS, trouble),
        None => (MEMBER_UNREACHABLE, trouble),
    };
    Some(Finding::error(name, evidence).of(member).at(&place))
}

fn lags(survey: &Survey, state: &MemberState) -> Option<Finding> {
    let index = |status: &Status| status.raft_applied_index;
    let applied = index(state.status.as_ref()?);
    let all = survey.members.iter();
    let newest = all
        .filter_map(|state| state.status.as_ref())
        .map(index)
        .max()?;
    let (name, evidence) = lag(applied, newest, state.member.is_learner)?;
    Some(Finding::warning(name, evidence).of(&state.member))
}

fn lag(applied: u64, newest: u64, learner: bool) -> Option<(&'static str, String)> {
    let behind = newest.saturating_sub(applied);
    let (name, limit) = if learner {
        (LEARNER_LAGS, LEARNER_LAG_LIMIT)
    } else {
        (MEMBER_LAGS, RAFT_LAG_LIMIT)
    };
    let evidence = format!("it is {behind} raft entries behind (limit {limit})");
    (behind > limit).then_some((name, evidence))
}

/// Checks that need the members' metrics: quotas and clocks.
fn told(pages: &[(&MemberState, Result<Metrics>)], began: Instant, report: &mut Report) {
    let mut clocks: Vec<(String, Clock)> = Vec::new();
    for (state, page) in pages {
        let Some(status) = &state.status else {
            continue;
        };
        let page = page.as_ref();
        if let Err(failure) = page {
            report.not_checked.push(unchecked(CLOCK_SKEW, failure));
        }
        let page = page.ok();
        // Since 3.6 a status tells the quota too.
        let quota = page.and_then(|page| page.quota);
        match status.db_size_quota.or(quota) {
            Some(quota) => report.findings.extend(near_quota(state, status, quota)),
            None => report.not_checked.push(NotChecked {
                what: DATABASE_NEAR_QUOTA,
                why: format!("{} does not report its quota", state.member.label()),
            }),
        }
        let clock = page.and_then(|page| Clock::of(page, began));
        clocks.extend(clock.map(|clock| (state.member.label(), clock)));
    }
    if let Some(spread) = Spread::of(&clocks) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        report.clock_spread = Some((millis(spread.apart), millis(spread.error)));
        if spread.apart > CLOCK_LIMIT.saturating_add(spread.error) {
            let evidence = format!(
                "{} is {:.1} s ahead of {} (+/- {:.1} s)",
                spread.ahead,
                spread.apart.as_secs_f64(),
                spread.behind,
                spread.error.as_secs_f64()
            );
            report
                .findings
                .push(Finding::error(CLOCK_SKEW, evidence).at(&spread.ahead));
        }
    }
}

fn near_quota(state: &MemberState, status: &Status, quota: u64) -> Option<Finding> {
    let (part, whole) = NEAR_QUOTA;
    let used = u128::from(status.db_size) * u128::from(whole);
    if used < u128::from(quota) * u128::from(part) {
        return None;
    }
    let evidence = format!(
        "its database has {} bytes ({} in use) of a quota of {quota}",
        status.db_size, status.db_size_in_use
    );
    let place = state.endpoint.clone().unwrap_or_default();
    Some(
        Finding::warning(DATABASE_NEAR_QUOTA, evidence)
            .of(&state.member)
            .at(&place),
    )
}

/// What a member's clock said, seen from ours.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Clock {
    /// Its time less what has passed since the first was asked, in seconds.
    offset: f64,
    /// How far that may be wrong, either way, in seconds.
    error: f64,
}

impl Clock {
    fn of(page: &Metrics, began: Instant) -> Option<Self> {
        let round = page.answered.duration_since(page.asked).as_secs_f64();
        let passed = page.asked.duration_since(began).as_secs_f64() + round / 2.0;
        let half = DATE_ERROR.as_secs_f64();
        // Seconds are rounded down: on average half a second more.
        let date = page.date?.as_second() as f64 + half;
        Some(Self {
            offset: date - passed,
            error: half + round / 2.0,
        })
    }
}

/// The two clocks that are furthest apart.
#[derive(Debug, Clone, PartialEq)]
struct Spread {
    ahead: String,
    behind: String,
    apart: Duration,
    error: Duration,
}

impl Spread {
    fn of(clocks: &[(String, Clock)]) -> Option<Self> {
        let by_offset =
            |a: &&(String, Clock), b: &&(String, Clock)| a.1.offset.total_cmp(&b.1.offset);
        let ahead = clocks.iter().max_by(by_offset)?;
        let behind = clocks.iter().min_by(by_offset)?;
        if clocks.len() < 2 {
            return None;
        }
        let seconds =
            |value: f64| Duration::try_from_secs_f64(value.abs()).unwrap_or(Duration::MAX);
        Some(Self {
            ahead: ahead.0.clone(),
            behind: behind.0.clone(),
            apart: seconds(ahead.1.offset - behind.1.offset),
            error: seconds(ahead.1.error + behind.1.error),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::etcd::ids::MemberId;
    use crate::etcd::membership::Member;

    fn clock(name: &str, offset: f64) -> (String, Clock) {
        (name.to_owned(), Clock { offset, error: 0.5 })
    }

    #[test]
    fn a_lag_has_a_limit() {
        assert_eq!(lag(9000, 10_000, true), None);
        assert_eq!(lag(8999, 10_000, true).map(|lag| lag.0), Some(LEARNER_LAGS));
        assert_eq!(lag(5000, 10_000, false), None);
        assert_eq!(lag(4999, 10_000, false).map(|lag| lag.0), Some(MEMBER_LAGS));
        assert_eq!(lag(10_001, 10_000, true), None);
    }

    /// No release up to 3.7 reports anything but alarms and a missing leader, so this one is made up.
    #[test]
    fn an_error_that_a_member_reports_is_a_finding() {
        let id = MemberId(1);
        let errors = [
            "memberID:1 alarm:NOSPACE ",
            "etcdserver: no leader",
            "disk on fire",
        ];
        let state = MemberState {
            member: Member {
                id,
                name: "m1".to_owned(),
                peer_urls: Vec::new(),
                client_urls: Vec::new(),
                is_learner: false,
            },
            endpoint: None,
            status: Some(Status {
                errors: errors.map(str::to_owned).to_vec(),
                ..Status::of_a_leader(id, "3.5.16")
            }),
            trouble: None,
            other: None,
        };
        let found = reported(&state);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].name, "member-reports-errors");
        assert_eq!(found[0].evidence, "it reports: disk on fire");
    }

    #[test]
    fn the_furthest_apart_count() {
        let spread = Spread::of(&[clock("a", 10.0), clock("b", 13.5), clock("c", 11.0)]).unwrap();
        assert_eq!((spread.ahead.as_str(), spread.behind.as_str()), ("b", "a"));
        assert_eq!(spread.apart, Duration::from_millis(3500));
        assert_eq!(spread.error, Duration::from_secs(1));
        assert_eq!(Spread::of(&[clock("a", 10.0)]), None);
        assert_eq!(Spread::of(&[]), None);
    }

    #[tokio::test]
    async fn a_clock_is_seen_from_ours() {
        let began = Instant::now();
        let page = Metrics {
            date: "2026-11-21T06:00:00Z".parse().ok(),
            asked: began + Duration::from_secs(10),
            answered: began + Duration::from_secs(12),
            quota: None,
            active_peers: BTreeSet::new(),
        };
        let clock = Clock::of(&page, began).unwrap();
        let date = page.date.unwrap().as_second() as f64;
        assert_eq!(clock.offset, date + 0.5 - 11.0);
        assert_eq!(clock.error, 1.5);
    }
}
