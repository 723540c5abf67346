//! `verify --cluster`: what was found, and for each the next command to type.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::run::{Session, Shown};
use super::{machine, member, target};
use crate::error::{Result, exit};
use crate::etcd::finding::Severity;
use crate::node::access::Sourced;
use crate::ops::checkup::names::SystemResolver;
use crate::ops::checkup::{self, Finding, Report};

/// Looks at the cluster, and at `data_dir` in place of what the node says.
pub(super) fn run(session: &Session, data_dir: Option<&Path>) -> Result<Shown> {
    let mut target = target::target(session)?;
    if let Some(dir) = data_dir {
        target.told.data_dir = Some(Sourced::new(dir.to_owned(), "--data-dir"));
    }
    let looked = checkup::run(&session.context, &target, Arc::new(SystemResolver));
    let report = session.block_on(looked)?;
    let status = match report.good {
        true => exit::DONE,
        false => exit::DIFFERS,
    };
    Ok(Shown {
        text: text(&report),
        json: machine::document("verify", &document(&report)),
        remark: None,
        status,
    })
}

fn document(report: &Report) -> Value {
    let mut value = json!(report);
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            let mut one = json!(finding);
            one["next"] = next(finding, report).into();
            one
        })
        .collect();
    value["findings"] = findings.into();
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
        let _ = writeln!(text, "  {}", member::tally(votes));
    }
    text.push_str(&member::members(&report.members));
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
    for not in &report.not_checked {
        let _ = writeln!(text, "not checked: {}: {}", not.what, not.why);
    }
    member::clean(&text)
}

/// The next command to type.
fn next(finding: &Finding, report: &Report) -> String {
    let id = finding.member_id.map(|id| id.to_string());
    let who = id.as_deref().unwrap_or("NAME");
    let place = finding.place.as_deref();
    let path = finding.path.as_ref().map(|path| path.display().to_string());
    match finding.name {
        checkup::CLUSTER_UNREACHABLE => "crictl ps -a --name etcd".to_owned(),
        checkup::NO_QUORUM => {
            "start the members that do not run; if they are lost: etcd-dr list".to_owned()
        }
        checkup::MEMBER_UNREACHABLE | checkup::MEMBER_LEADERLESS | checkup::MEMBER_COMPLAINS => {
            format!(
                "on its machine: crictl logs $(crictl ps -aq --name '^etcd$' | head -1); \
                 if it is lost: etcd-dr member-remove {who} --dry-run"
            )
        }
        checkup::FOREIGN_CLUSTER | checkup::ANOTHER_MEMBER => {
            format!("etcd-dr member-remove {who} --dry-run")
        }
        checkup::MEMBER_NOT_STARTED | checkup::LEARNER_LAGS => {
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
        checkup::ALARM => {
            "etcdctl alarm list; when its cause is gone: etcdctl alarm disarm".to_owned()
        }
        checkup::MEMBER_LAGS => "etcdctl endpoint status --cluster -w table".to_owned(),
        checkup::DATABASE_NEAR_QUOTA => {
            format!("etcdctl --endpoints {} defrag", place.unwrap_or("URL"))
        }
        checkup::CLOCK_SKEW => format!("on {}: chronyc tracking", place.unwrap_or("it")),
        checkup::NAME_UNRESOLVED | checkup::NAME_ELSEWHERE => {
            format!("getent ahosts {}", place.unwrap_or("NAME"))
        }
        checkup::PEER_URL_NOT_HERE => {
            let address = place.unwrap_or("ADDRESS");
            let address = if address.contains(':') {
                format!("[{address}]")
            } else {
                address.to_owned()
            };
            format!("etcd-dr member-update {who} --peer-urls https://{address}:2380")
        }
        checkup::BAD_DATA_DIR => match path {
            Some(path) => format!("etcd-dr verify --data-dir {path}"),
            None => "etcd-dr verify --data-dir DIR".to_owned(),
        },
        _ => match (path, place) {
            (Some(path), _) => {
                format!("openssl x509 -noout -subject -dates -ext subjectAltName -in {path}")
            }
            (None, place) => format!(
                "openssl s_client -connect {} </dev/null | openssl x509 -noout -dates -ext \
                 subjectAltName",
                place.unwrap_or("HOST:PORT")
            ),
        },
    }
}
