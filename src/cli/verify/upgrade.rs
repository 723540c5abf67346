//! `verify --upgrade-to`: what would stop another release of etcd, each with its cure.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::super::output::{json, words};
use super::super::session::{Session, Shown};
use super::super::target;
use crate::error::{Result, exit};
use crate::finding::Severity;
use crate::inspect::diagnose::names::SystemResolver;
use crate::inspect::upgrade::{self, Report};

/// Looks, at the cluster and this node or at a stopped member's files.
pub(super) fn run(session: &Session, release: &str, data_dir: Option<&Path>) -> Result<Shown> {
    let target = target::target(session)?;
    let resolver = Arc::new(SystemResolver);
    let disabled = crate::change::transaction::unsettled::in_force(&target.layout)?;
    let looked = upgrade::run(
        &session.context,
        &target,
        resolver,
        release,
        data_dir,
        disabled.as_deref(),
    );
    let report = session.block_on(looked)?;
    let status = match (report.ready, report.not_checked.is_empty()) {
        (false, _) => exit::DIFFERS,
        (true, false) => exit::NOT_CHECKED,
        (true, true) => exit::DONE,
    };
    Ok(Shown {
        text: text(&report),
        problems: Vec::new(),
        json: json::document("verify", &json!({"good": report.ready, "upgrade": report})),
        remark: None,
        status,
    })
}

fn text(report: &Report) -> String {
    let verdict = if report.ready { "ready" } else { "NOT READY" };
    let from = match report.from.as_slice() {
        [] => String::new(),
        from => format!(" from {}", from.join(", ")),
    };
    let mut text = format!("etcd{from} to {}: {verdict}\n", report.target);
    for found in &report.obstacles {
        let mark = match found.severity {
            Severity::Error => "blocks: ",
            Severity::Warning => "warning: ",
        };
        let of: String = found
            .member
            .iter()
            .map(|name| format!("{name}: "))
            .collect();
        let _ = writeln!(text, "{mark}{of}{} [{}]", found.evidence, found.name);
        let _ = writeln!(text, "  fix: {}", found.cure);
    }
    for not in &report.not_checked {
        let _ = writeln!(text, "not checked: {}: {}", not.what, not.why);
    }
    words::clean(&text)
}
