//! `verify --cluster`: what was found, and for each the next command to type.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::output::{hints, json, members, words};
use super::super::session::{Session, Shown};
use super::super::{operation, target};
use crate::cluster::quorum::Tally;
use crate::error::{Result, exit};
use crate::finding::Severity;
use crate::inspect::diagnose::names::SystemResolver;
use crate::inspect::diagnose::{self, Finding, Remedy, Report};
use crate::node::layout::NodeLayout;
use crate::node::overrides::Sourced;
use crate::node::profile::Profile;

/// Looks at the cluster, and at `data_dir` in place of what the node says.
pub(super) fn run(session: &Session, data_dir: Option<&Path>) -> Result<Shown> {
    let mut target = target::target(session)?;
    if let Some(dir) = data_dir {
        target.overrides.data_dir = Some(Sourced::new(session.readable(dir), "--data-dir"));
    }
    let disabled =
        crate::change::transaction::unsettled::in_force(&NodeLayout::new(&session.root))?;
    let looked = diagnose::run(
        &session.context,
        &target,
        Arc::new(SystemResolver),
        disabled.as_deref(),
    );
    let report = session.block_on(looked)?;
    let status = match report.good {
        true => exit::DONE,
        false => exit::DIFFERS,
    };
    Ok(Shown {
        text: text(&report),
        problems: Vec::new(),
        json: json::document("verify", &document(&report)),
        // What looks like a failure may be the tool's own doing.
        remark: operation::disabled(&NodeLayout::new(&session.root))?,
        status,
    })
}

fn document(report: &Report) -> Value {
    let mut value = json!(report);
    let with_next = |findings: &[Finding]| -> Vec<Value> {
        let one = |finding: &Finding| {
            let mut one = json!(finding);
            one["next"] = next(finding, report).into();
            one
        };
        findings.iter().map(one).collect()
    };
    value["findings"] = with_next(&report.findings).into();
    value["advice"] = with_next(&report.advice).into();
    value["clockSpread"] = match report.clock_spread {
        Some((apart, error)) => json!({"milliseconds": apart, "error": error}),
        None => Value::Null,
    };
    json!({"cluster": value, "good": report.good})
}

fn text(report: &Report) -> String {
    let verdict = if report.good { "good" } else { "BAD" };
    let cluster = report.cluster_id.map(|id| format!(" {id}"));
    let mut text = format!("cluster{}: {verdict}\n", cluster.unwrap_or_default());
    if let Some(votes) = &report.votes {
        let _ = writeln!(text, "  {}", members::tally(votes));
    }
    text.push_str(&members::table(&report.members));
    for finding in &report.findings {
        let mark = match finding.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        let of = finding.member.iter().map(|name| format!("{name}: "));
        let of: String = of.collect();
        let _ = writeln!(text, "{mark}{of}{} [{}]", finding.evidence, finding.name);
        let _ = writeln!(text, "  next: {}", next(finding, report));
    }
    for finding in &report.advice {
        let of: String = finding
            .member
            .iter()
            .map(|name| format!("{name}: "))
            .collect();
        let _ = writeln!(text, "advice: {of}{} [{}]", finding.evidence, finding.name);
        let _ = writeln!(text, "  next: {}", next(finding, report));
    }
    for not in &report.not_checked {
        let _ = writeln!(text, "not checked: {}: {}", not.what, not.why);
    }
    words::clean(&text)
}

/// The next command to type.
fn next(finding: &Finding, report: &Report) -> String {
    let id = finding.member_id.map(|id| id.to_string());
    let who = id.as_deref().unwrap_or("NAME");
    let place = finding.place.as_deref();
    let path = finding.path.as_ref().map(|path| path.display().to_string());
    match finding.name {
        diagnose::CLUSTER_UNREACHABLE => unreachable(finding),
        diagnose::ETCD_DISABLED => "etcd-dr enable".to_owned(),
        diagnose::NO_QUORUM => no_quorum(report),
        diagnose::CANNOT_COMMIT => format!(
            "etcdctl endpoint health --cluster; then on its machine: {LOGS}; to find a disk that lost its WAL: {}",
            data_dir(report)
        ),
        diagnose::PEER_NOT_CONNECTED => presented(place),
        diagnose::MEMBER_UNREACHABLE
        | diagnose::MEMBER_LEADERLESS
        | diagnose::MEMBER_REPORTS_ERRORS => {
            match report.votes.as_ref().is_some_and(Tally::has_quorum) {
                true => format!(
                    "on its machine: {LOGS}; if it is lost: etcd-dr member-remove {who} --dry-run"
                ),
                // Without a quorum none can be removed.
                false => format!("on its machine: {LOGS}"),
            }
        }
        diagnose::FOREIGN_CLUSTER | diagnose::WRONG_MEMBER_ANSWERS => {
            format!("etcd-dr member-remove {who} --dry-run")
        }
        diagnose::MEMBER_NOT_STARTED | diagnose::LEARNER_LAGS => add_again(finding, report),
        diagnose::ALARM => {
            "etcdctl alarm list; when its cause is gone: etcdctl alarm disarm".to_owned()
        }
        diagnose::MEMBER_LAGS => "etcdctl endpoint status --cluster -w table".to_owned(),
        diagnose::DATABASE_NEAR_QUOTA => {
            format!("etcdctl --endpoints {} defrag", place.unwrap_or("URL"))
        }
        diagnose::CLOCK_SKEW => format!("on {}: chronyc tracking", place.unwrap_or("it")),
        diagnose::NAME_UNRESOLVED | diagnose::NAME_RESOLVES_ELSEWHERE => {
            format!("getent ahosts {}", place.unwrap_or("NAME"))
        }
        diagnose::PEER_URL_NOT_LOCAL | diagnose::PEER_URL_LOOPBACK => move_to(who, place),
        diagnose::MEMBERSHIP_DIFFERS if path.is_some() => {
            "etcd-dr verify --upgrade-to 3.6".to_owned()
        }
        diagnose::MEMBERSHIP_DIFFERS => "etcdctl endpoint status --cluster -w table".to_owned(),
        diagnose::KNOWN_BAD_VERSION => {
            let fixed = finding.known.as_ref().map(|known| known.fixed_in.as_str());
            format!(
                "upgrade etcd to {} or later",
                fixed.unwrap_or("a newer release")
            )
        }
        diagnose::BAD_DATA_DIR => match path {
            Some(path) => format!("etcd-dr verify --data-dir {path}"),
            None => "etcd-dr verify --data-dir DIR".to_owned(),
        },
        _ => certificate(finding, report),
    }
}

/// A member that was added and does not vote yet.
fn add_again(finding: &Finding, report: &Report) -> String {
    let state = report
        .members
        .iter()
        .find(|state| Some(state.member.id) == finding.member_id);
    let urls = state.map(|state| state.member.peer_urls.join(","));
    let urls = urls.unwrap_or_default();
    let name = state
        .map(|state| state.member.name.clone())
        .filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| "NAME".to_owned());
    format!("etcd-dr member-add {name} --peer-urls {urls}")
}

/// Another peer URL for a member.
fn move_to(who: &str, place: Option<&str>) -> String {
    let address = place.unwrap_or("ADDRESS");
    let address = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    format!("etcd-dr member-update {who} --peer-urls https://{address}:2380")
}

/// What etcd's container wrote last.
const LOGS: &str = "crictl logs $(crictl ps -aq --name '^etcd$' | head -1)";

fn unreachable(finding: &Finding) -> String {
    let missing = match finding.remedy {
        Some(Remedy::Missing(what)) => hints::for_missing("verify --cluster", what),
        _ => None,
    };
    missing.unwrap_or_else(|| "crictl ps -a --name etcd".to_owned())
}

fn data_dir(report: &Report) -> String {
    match &report.data_dir {
        Some(dir) => format!("etcd-dr verify --data-dir {}", dir.display()),
        None => "etcd-dr verify --data-dir DIR".to_owned(),
    }
}

/// Without a quorum, members that start again lose nothing; a member's disk has what no backup has.
fn no_quorum(report: &Report) -> String {
    let dir = report.data_dir.as_ref();
    let dir = dir.map_or_else(|| "DIR".to_owned(), |dir| dir.display().to_string());
    format!(
        "start the members that do not run; if a majority is lost: etcd-dr disable, then on the \
         node whose disk is the best: etcd-dr restore --from-data-dir {dir} --dry-run; without a \
         disk: etcd-dr restore latest --dry-run"
    )
}

fn presented(place: Option<&str>) -> String {
    format!(
        "openssl s_client -connect {} </dev/null | openssl x509 -noout -dates -ext subjectAltName",
        place.unwrap_or("HOST:PORT")
    )
}

/// For a certificate: how to look at it, and who renews it.
fn certificate(finding: &Finding, report: &Report) -> String {
    let look = match &finding.path {
        Some(path) => format!(
            "openssl x509 -noout -subject -dates -ext subjectAltName -in {}",
            path.display()
        ),
        None => presented(finding.place.as_deref()),
    };
    if finding.remedy == Some(Remedy::Clock) {
        return format!("chronyc tracking; then {look}");
    }
    let renewal = match report.profile {
        Some(Profile::Kubeadm) => kubeadm(finding),
        Some(Profile::Openshift) => openshift(finding),
        _ => None,
    };
    match renewal {
        Some(renewal) => format!("{look}; to renew it: {renewal}"),
        None => look,
    }
}

/// kubeadm's names for the certificates of /etc/kubernetes/pki.
fn kubeadm(finding: &Finding) -> Option<String> {
    let name = match (finding.remedy, finding.path.as_ref()) {
        (Some(Remedy::PeerCertificate), _) => "etcd-peer",
        (Some(Remedy::ServingCertificate), _) => "etcd-server",
        (_, Some(path)) => match path.file_name()?.to_str()? {
            "server.crt" => "etcd-server",
            "peer.crt" => "etcd-peer",
            "healthcheck-client.crt" => "etcd-healthcheck-client",
            "apiserver-etcd-client.crt" => "apiserver-etcd-client",
            // An authority is not renewed by kubeadm.
            _ => return None,
        },
        _ => return None,
    };
    Some(format!("on its node: kubeadm certs renew {name}"))
}

/// The operator renews a member's certificate when its secret is gone.
fn openshift(finding: &Finding) -> Option<String> {
    let member = finding.member.as_ref()?;
    let kind = match finding.remedy? {
        Remedy::PeerCertificate => "peer",
        Remedy::ServingCertificate => "serving",
        Remedy::Clock | Remedy::Missing(_) => return None,
    };
    Some(format!(
        "oc delete secret -n openshift-etcd etcd-{kind}-{member}"
    ))
}
