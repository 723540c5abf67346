//! `verify --cluster`: the problems of a running cluster, each with a stable name and the evidence.
//! Nothing is changed.

mod agreement;
pub mod certificates;
mod membership;
mod metrics;
pub mod names;
mod problems;
mod report;
mod standing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::cluster::connect::Target;
use crate::cluster::survey::{ClusterClient, MemberState, Survey};
use crate::context::Context;
use crate::error::{Fact, Kind, Result};
use crate::etcd::known::{Effect, Known};
use crate::finding::Severity;
use crate::inspect::data_dir;
use crate::node::access::EtcdAccess;
use crate::node::component::Component;
use crate::node::detection::Detection;
use crate::node::endpoint::Endpoint;
use crate::node::profile::Profile;
use crate::node::settings::Settings;
use crate::sys::blocking::blocking;
pub(crate) use agreement::connections_down;
use names::Resolver;
pub use problems::*;
use report::unchecked;
pub use report::{Finding, NotChecked, Remedy, Report};

/// How long all names together may take to resolve.
const RESOLVE_LIMIT: Duration = Duration::from_secs(30);

/// Looks at everything. `disabled_by` is the operation that keeps etcd from running on this node.
///
/// # Errors
/// [`Kind::Usage`] if it is not known how to reach etcd; what is wrong with the cluster is a
/// finding.
pub async fn run(
    context: &Context,
    target: &Target,
    resolver: Arc<dyn Resolver>,
    disabled_by: Option<&str>,
) -> Result<Report> {
    let detection = target.detect(context)?;
    let mut report = Report::of(detection.profile);
    let (client, access) = match ClusterClient::of(context, target, &detection) {
        Ok(found) => found,
        Err(failure) if failure.refusal() == Some("local-member-unknown") => {
            let evidence = format!("{failure}; no other endpoint is configured");
            let finding = Finding::error(PEER_URL_NOT_LOCAL, evidence);
            report.findings.push(finding);
            return Ok(report);
        }
        Err(failure) => return Err(failure),
    };
    let survey = survey(context, &client, &mut report).await?;
    let configured = target.overrides.data_dir.as_ref();
    let dir = configured.or(access.data_dir.as_ref());
    report.data_dir = dir.map(|dir| dir.value.clone());
    if let Some(by) = disabled_by {
        disabled(by, &mut report);
    }
    let found = survey.as_ref();
    let own = found.and_then(|s| own(s, target, &access)).cloned();
    let settings = Settings::read(&target.layout, detection.profile);
    if let Some(survey) = &survey {
        context
            .cancel
            .guard(cluster(
                context,
                target,
                survey,
                own.as_ref(),
                &metrics::Serving::of(&settings, own.as_ref()),
                resolver,
                &mut report,
            ))
            .await?;
    } else {
        let why = "no member answers".to_owned();
        report.not_checked.push(NotChecked {
            what: "members",
            why,
        });
    }
    let files = certificate_files(target, &detection, &access);
    let (findings, not_checked) = certificates::in_files(&files, context.now);
    report.findings.extend(findings);
    report.not_checked.extend(not_checked);
    if !own.as_ref().is_some_and(MemberState::is_healthy) {
        data_dir(context, target, &access, own.as_ref(), &mut report).await?;
    }
    if let Some(dir) = dir {
        let wal = settings.get("wal-dir").map(|dir| PathBuf::from(&dir.value));
        let wal = wal.map(|dir| target.layout.host(dir));
        let (survey, own) = (survey.as_ref(), own.as_ref());
        membership::files(&dir.value, wal, survey, own, &mut report).await?;
    }
    report.good = report.findings.is_empty();
    Ok(report)
}

/// Asks the members; none answers where the cluster is unreachable, which is a finding.
async fn survey(
    context: &Context,
    client: &ClusterClient,
    report: &mut Report,
) -> Result<Option<Survey>> {
    let failure = match context.cancel.guard(client.survey()).await {
        Ok(survey) => return Ok(Some(survey)),
        Err(failure) => failure,
    };
    if failure.kind() != Kind::Unreachable {
        return Err(failure);
    }
    let missing = failure.facts().iter().find_map(|fact| match fact {
        Fact::Missing(what) => Some(Remedy::Missing(what)),
        _ => None,
    });
    let mut finding = Finding::error(CLUSTER_UNREACHABLE, failure.to_string());
    finding.remedy = missing;
    report.findings.push(finding);
    Ok(None)
}

async fn cluster(
    context: &Context,
    target: &Target,
    survey: &Survey,
    own: Option<&MemberState>,
    serving: &metrics::Serving,
    resolver: Arc<dyn Resolver>,
    report: &mut Report,
) -> Result<()> {
    report.cluster_id = Some(survey.cluster_id);
    report.members.clone_from(&survey.members);
    report.votes = Some(survey.tally());
    standing::check(survey, serving, report).await;
    membership::lists(context, survey, report).await?;
    known_faults(survey, report);
    let own = own.map(|state| state.member.clone());
    let unknown = own.is_none();
    let (members, local) = (survey.list(), target.overrides.local_addresses.clone());
    // The machine's resolver blocks, at worst as long as it was set to.
    let named = blocking(move || {
        let resolver = resolver.as_ref();
        Ok(names::check(&members, own.as_ref(), &local, resolver))
    });
    match tokio::time::timeout(RESOLVE_LIMIT, named).await {
        Ok(named) => report.findings.extend(named?),
        Err(_) => {
            let why = format!("names did not resolve within {} s", RESOLVE_LIMIT.as_secs());
            report.not_checked.push(NotChecked {
                what: NAME_UNRESOLVED,
                why,
            });
        }
    }
    if unknown {
        let why = "cannot tell which member is this node's own: use --node-name".to_owned();
        report.not_checked.push(NotChecked {
            what: PEER_URL_NOT_LOCAL,
            why,
        });
    }
    let shown = survey
        .members
        .iter()
        .map(|state| certificates::presented(state, context.now));
    for (findings, not_checked) in join_all(shown).await {
        report.findings.extend(findings);
        report.not_checked.extend(not_checked);
    }
    Ok(())
}

/// Notes that etcd-dr itself keeps this node's etcd from running.
fn disabled(by: &str, report: &mut Report) {
    let evidence = format!("etcd-dr has disabled etcd on this node ({by})");
    report
        .findings
        .push(Finding::warning(ETCD_DISABLED, evidence));
}

/// Faults that the members' releases are known to have, a line for each release.
fn known_faults(survey: &Survey, report: &mut Report) {
    let mut releases: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for state in &survey.members {
        if let Some(status) = &state.status {
            let members = releases.entry(&status.version).or_default();
            members.push(state.member.label());
        }
    }
    for (version, members) in releases {
        let known = Known::of(version, Effect::Access);
        report.advice.extend(known.map(|known| {
            let evidence = format!("{}: {}", members.join(", "), known.sentence());
            let mut finding = Finding::warning(KNOWN_BAD_VERSION, evidence);
            finding.known = Some(known);
            finding
        }));
    }
}

/// This node's own member: by its name, or by the only endpoint that was found for it.
pub(crate) fn own<'s>(
    survey: &'s Survey,
    target: &Target,
    access: &EtcdAccess,
) -> Option<&'s MemberState> {
    let named = target
        .overrides
        .node
        .as_ref()
        .or(access.member_name.as_ref());
    if let Some(name) = named {
        return survey
            .members
            .iter()
            .find(|state| state.member.name == name.value);
    }
    let url = &access.endpoint.value;
    let ip = Endpoint::parse(url)?.ip()?;
    let here = ip.is_loopback() || target.overrides.local_addresses.contains(&ip);
    let serves = |state: &&MemberState| state.member.client_urls.iter().any(|own| own == url);
    survey.members.iter().find(serves).filter(|_| here)
}

/// Where certificates are on this node.
fn certificate_files(target: &Target, detection: &Detection, access: &EtcdAccess) -> Vec<PathBuf> {
    let mut paths = match detection.profile {
        Profile::Openshift => vec![target.layout.certs(Component::Etcd)],
        Profile::Kubeadm => vec![target.layout.etcd_pki()],
        Profile::Bare => Vec::new(),
    };
    if let Some(tls) = access.tls.as_ref() {
        paths.extend(tls.ca.iter().map(|ca| ca.value.clone()));
        paths.extend(
            tls.identity
                .iter()
                .map(|identity| identity.cert.value.clone()),
        );
    }
    paths
}

/// The files of a member that does not answer.
async fn data_dir(
    context: &Context,
    target: &Target,
    access: &EtcdAccess,
    own: Option<&MemberState>,
    report: &mut Report,
) -> Result<()> {
    let told = target.overrides.data_dir.as_ref();
    let Some(dir) = told.or(access.data_dir.as_ref()) else {
        let why = "this node's data directory is not known".to_owned();
        report.not_checked.push(NotChecked {
            what: BAD_DATA_DIR,
            why,
        });
        return Ok(());
    };
    let (dir, context) = (dir.value.clone(), context.clone());
    let checked = {
        let dir = dir.clone();
        blocking(move || Ok(data_dir::run(&context, &dir, None, &[]))).await?
    };
    let about = |finding: Finding| {
        let finding = finding.in_file(&dir);
        match own {
            Some(state) => finding.of(&state.member),
            None => finding,
        }
    };
    match checked {
        Ok(files) if files.good => {}
        Ok(files) => {
            let errors = files.findings.iter();
            let mut errors = errors.filter(|found| found.severity == Severity::Error);
            let first = errors.next().map(ToString::to_string).unwrap_or_default();
            let evidence = format!("{}: {first}", dir.display());
            report
                .findings
                .push(about(Finding::error(BAD_DATA_DIR, evidence)));
        }
        // It is no data directory.
        Err(failure) if failure.kind() == Kind::Usage => {
            let finding = Finding::error(BAD_DATA_DIR, failure.to_string());
            report.findings.push(about(finding));
        }
        Err(failure) if failure.kind() == Kind::Interrupted => return Err(failure),
        Err(failure) => report.not_checked.push(unchecked(BAD_DATA_DIR, &failure)),
    }
    Ok(())
}
