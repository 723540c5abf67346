//! `verify`: which sets, and what was found of each.

use std::fmt::Write as _;

use indicatif::HumanBytes;
use serde_json::json;

use super::args::VerifyArgs;
use super::run::{Session, Shown};
use super::{human, machine};
use crate::error::{Failure, Kind, Result, exit};
use crate::etcd::finding::{Layer, Severity};
use crate::ops::catalog::{self, BackupSet, SetState};
use crate::ops::database;
use crate::ops::verify::{self, LayerState, Report};

/// How many prefixes are shown to people.
const PREFIXES_SHOWN: usize = 5;

/// Checks the sets that are meant.
pub(super) fn run(session: &Session, args: &VerifyArgs) -> Result<Shown> {
    let store = session.store(args.store.as_deref())?;
    let sets: Vec<BackupSet> = if args.all {
        let listed = catalog::list(&store)?;
        // What is being made is nobody's backup yet.
        listed
            .into_iter()
            .filter(|set| !(set.state == SetState::Incomplete && set.manifest.is_none()))
            .collect()
    } else {
        args.sets
            .iter()
            .map(|word| catalog::resolve(&store, word))
            .collect::<Result<_>>()?
    };
    if sets.is_empty() {
        return Err(Failure::new(
            Kind::Usage,
            format!("there is no backup in {}", store.dir().display()),
        ));
    }
    let mut reports = Vec::new();
    for set in &sets {
        let report = session.block_on(async {
            let context = session.context.clone();
            let set = set.clone();
            let work = tokio::task::spawn_blocking(move || verify::run(&context, &set));
            work.await
                .map_err(|e| Failure::wrap(Kind::Unexpected, e, "verifying"))?
        });
        reports.push(report.map_err(|failure| failure.doing(format!("verifying {}", set.name)))?);
    }
    let good = reports.iter().all(|report| report.good);
    let text: Vec<String> = reports.iter().map(|report| text(report, session)).collect();
    Ok(Shown {
        text: text.join("\n"),
        json: machine::document("verify", &json!({"good": good, "sets": reports})),
        remark: None,
        status: if good { exit::DONE } else { exit::BAD_BACKUP },
    })
}

fn text(report: &Report, session: &Session) -> String {
    let verdict = if report.good {
        console::style("good").green()
    } else {
        console::style("BAD").red().bold()
    };
    let mut text = format!("{}: {verdict}\n", report.set);
    for layer in &report.layers {
        let state = match layer.state {
            LayerState::Ok => console::style(layer.state.word()).green(),
            LayerState::Failed => console::style(layer.state.word()).red().bold(),
            _ => console::style(layer.state.word()).yellow(),
        };
        let detail = if layer.detail.is_empty() {
            String::new()
        } else {
            format!("  {}", layer.detail)
        };
        let _ = writeln!(text, "  {:<12} {state}{detail}", word(layer.layer));
        for found in report
            .findings
            .iter()
            .filter(|found| found.layer == layer.layer)
        {
            let mark = if found.severity == Severity::Error {
                ""
            } else {
                "warning: "
            };
            let _ = writeln!(text, "    {mark}{found}");
        }
    }
    if let Some(database) = report.database.as_deref() {
        describe(&mut text, database);
    }
    if let Some(expiry) = &report.earliest_certificate_expiry {
        let left = expiry.time.duration_since(session.context.now).as_secs();
        let when = if left < 0 {
            "expired".to_owned()
        } else {
            format!("in {}", human::span(left.unsigned_abs()))
        };
        let _ = writeln!(
            text,
            "  first certificate to expire: {} {when} ({}, {})",
            expiry.time, expiry.subject, expiry.path
        );
    }
    text
}

/// What a snapshot holds: what `snapshot status` prints, HashKV, what a defragmentation would
/// save, and what fills it.
fn describe(text: &mut String, database: &database::Report) {
    if let Some(status) = &database.status {
        let _ = writeln!(
            text,
            "  status: hash {:x}, revision {}, {} entries (as 3.4 and 3.5 count), {} live keys (3.6), {}",
            status.hash,
            status.revision,
            status.total_entries,
            status.total_keys,
            HumanBytes(status.total_size)
        );
    }
    if let Some(hash) = &database.hash_kv {
        let _ = writeln!(
            text,
            "  HashKV: {} at revision {}, compacted at {}",
            hash.hash, hash.revision, hash.compact_revision
        );
    }
    let Some(facts) = &database.facts else { return };
    if facts.free_pages > 0 {
        let _ = writeln!(
            text,
            "  a defragmentation would save {} of {}",
            HumanBytes(facts.reclaimable_size),
            HumanBytes(facts.total_size)
        );
    }
    if !facts.prefixes.is_empty() {
        let _ = writeln!(text, "  biggest prefixes, by bytes of all revisions:");
    }
    for prefix in facts.prefixes.iter().take(PREFIXES_SHOWN) {
        let _ = writeln!(
            text,
            "    {:>12}  {:>9} keys  {}",
            HumanBytes(prefix.usage.revision_bytes).to_string(),
            prefix.usage.keys,
            prefix.prefix
        );
    }
}

/// A layer's stable word.
fn word(layer: Layer) -> String {
    match serde_json::to_value(layer) {
        Ok(serde_json::Value::String(word)) => word,
        _ => format!("{layer:?}"),
    }
}
