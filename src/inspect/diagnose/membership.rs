//! Whether all sources agree on the members: every member's own list, and on this node the
//! database, the `.snap` file and the WAL.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problems::MEMBERSHIP_DIFFERS;
use super::report::{Finding, NotChecked, Report, unchecked};
use crate::cluster::survey::{MemberState, Survey, pause};
use crate::context::Context;
use crate::error::Result;
use crate::etcd::client::Consistency;
use crate::etcd::datadir::{self, DbFacts, Layout};
use crate::etcd::ids::{ClusterId, MemberId};
use crate::etcd::membership::Member;
use crate::etcd::release::Release;
use crate::sys::blocking::blocking;

/// How often lists that differ are asked for again: a change takes a moment to get around.
const ATTEMPTS: u32 = 3;
/// How long between those.
const PAUSE: Duration = Duration::from_millis(700);

/// What matters of a list.
fn essence(members: &[Member]) -> Vec<(MemberId, bool, Vec<String>)> {
    let essence = |member: &Member| {
        let mut urls = member.peer_urls.clone();
        urls.sort();
        (member.id, member.is_learner, urls)
    };
    let mut all: Vec<_> = members.iter().map(essence).collect();
    all.sort();
    all
}

/// Compares every healthy member's own list with that of the cluster.
pub(super) async fn lists(context: &Context, survey: &Survey, report: &mut Report) -> Result<()> {
    let mut found = Vec::new();
    let mut agreed = survey.list();
    for attempt in 0..ATTEMPTS {
        found.clear();
        let healthy = survey.members.iter().filter(|state| state.is_healthy());
        for state in healthy {
            if let Some(own) = own_list(survey, state).await
                && essence(&own) != essence(&agreed)
            {
                found.push(differing(state, &own, &agreed));
            }
        }
        if found.is_empty() || attempt + 1 == ATTEMPTS {
            break;
        }
        pause(context, PAUSE).await?;
        // The list of the beginning may be the one that is old.
        if let Ok(again) = survey
            .connection
            .member_list(Consistency::Linearizable)
            .await
        {
            agreed = again.members;
        }
    }
    report.findings.append(&mut found);
    Ok(())
}

/// What one member answers; a failure is another finding's.
async fn own_list(survey: &Survey, state: &MemberState) -> Option<Vec<Member>> {
    let connection = survey.connect_to(state).await.ok()?;
    let list = connection.member_list(Consistency::Local).await.ok()?;
    Some(list.members)
}

fn differing(state: &MemberState, own: &[Member], agreed: &[Member]) -> Finding {
    let words = |members: &[Member]| {
        let word = |member: &Member| {
            let learner = if member.is_learner { ", a learner" } else { "" };
            format!("{} ({}{learner})", member.id, member.peer_urls.join(","))
        };
        members.iter().map(word).collect::<Vec<_>>().join(", ")
    };
    let evidence = format!(
        "it lists the members {}, but the cluster has {}",
        words(own),
        words(agreed)
    );
    Finding::error(MEMBERSHIP_DIFFERS, evidence).of(&state.member)
}

/// Whether the member takes its members from the WAL and the `.snap` file, as up to 3.5.
fn is_harmless(own: Option<&MemberState>, db: &DbFacts) -> bool {
    let version = own.and_then(|own| own.status.as_ref());
    let version = version.and_then(|status| status.version.parse::<Release>().ok());
    match version {
        Some(version) => version < Release::first(3, 6),
        // The member does not answer. Only 3.6 and later write a storage version.
        None => db.storage_version.is_none(),
    }
}

/// Looks at this node's own files, also while etcd runs on them.
///
/// Up to 3.5 a difference does no harm before an upgrade, and is advice.
pub(super) async fn files(
    dir: &Path,
    wal_dir: Option<PathBuf>,
    survey: Option<&Survey>,
    own: Option<&MemberState>,
    report: &mut Report,
) -> Result<()> {
    let layout = Layout::new(dir, wal_dir.as_deref());
    if !layout.db().exists() {
        return Ok(());
    }
    let work = move || -> Result<(DbFacts, datadir::Report)> {
        let db = datadir::stored(&layout.db())?;
        let report = datadir::check(&layout, Some(&db))?;
        Ok((db, report))
    };
    let (db, looked) = match blocking(move || Ok(work())).await? {
        Ok(looked) => looked,
        Err(failure) => {
            report
                .not_checked
                .push(unchecked(MEMBERSHIP_DIFFERS, &failure));
            return Ok(());
        }
    };
    let cluster = looked
        .wal
        .scan
        .metadata
        .map(|identity| ClusterId(identity.cluster));
    if survey.is_some_and(|survey| Some(survey.cluster_id) != cluster) {
        let why = format!("{} does not belong to this cluster", dir.display());
        report.not_checked.push(NotChecked {
            what: MEMBERSHIP_DIFFERS,
            why,
        });
        return Ok(());
    }
    let harmless = is_harmless(own, &db);
    let differs = |name: Option<&str>| name == Some(MEMBERSHIP_DIFFERS);
    let findings = looked.findings.iter();
    for found in findings.filter(|found| differs(found.name.as_deref())) {
        let evidence = format!(
            "{}: expected {}, found {}",
            dir.display(),
            found.expected,
            found.found
        );
        let mut finding = Finding::warning(MEMBERSHIP_DIFFERS, evidence).in_file(dir);
        if let Some(own) = own {
            finding = finding.of(&own.member);
        }
        match harmless {
            true => report.advice.push(finding),
            false => report.findings.push(finding),
        }
    }
    Ok(())
}
