//! `verify SET --rehearse`: which etcd, and what it answered.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::args::RehearseArgs;
use super::super::session::Session;
use crate::change::rehearse::{self, Programs, Rehearsal, Request, StepState};
use crate::error::Result;
use crate::inspect::verify::Report;
use crate::keep::catalog::BackupSet;
use crate::sys::quote::printable;

/// Rehearses a backup that its verification found good; the report is not good any more where that failed.
/// There is nothing to rehearse of a bad one.
pub(super) fn run(
    session: &Session,
    args: &RehearseArgs,
    set: BackupSet,
    report: &mut Report,
    scratch: &Path,
) -> Result<Option<Rehearsal>> {
    let Some(database) = report.database.clone().filter(|_| report.good) else {
        return Ok(None);
    };
    let request = Request {
        set,
        database,
        programs: Programs {
            given: args.etcd.clone(),
            search: search_path(),
        },
        scratch: scratch.to_owned(),
        limit: args.rehearse_timeout,
    };
    let rehearsal = session.block_on(rehearse::run(&session.context, request))?;
    report.good &= rehearsal.good;
    Ok(Some(rehearsal))
}

/// The folders in which an etcd is looked for.
pub(in crate::cli) fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}

/// What etcd answered, for people.
pub(super) fn text(text: &mut String, rehearsal: &Rehearsal) {
    let etcd = &rehearsal.etcd;
    let state = match rehearsal.good {
        true => console::style("ok").green(),
        false => console::style("FAILED").red().bold(),
    };
    let after = match rehearsal.served_after_seconds {
        Some(seconds) => format!(
            " served it {:.1?} after the restore began",
            Duration::from_secs_f64(seconds)
        ),
        None => " did not serve it".to_owned(),
    };
    let (version, path) = (printable(etcd.version.clone()), etcd.path.display());
    let from = etcd.from.words();
    let _ = writeln!(
        text,
        "  {:<12} {state}  etcd {version}{after} ({path}, {from})",
        "rehearsal"
    );
    for step in &rehearsal.steps {
        let state = match step.state {
            StepState::Ok => console::style("ok").green(),
            StepState::Failed => console::style("FAILED").red().bold(),
            StepState::NotChecked => console::style("not checked").yellow(),
        };
        let detail = printable(step.detail.clone());
        let _ = writeln!(text, "    {:<10} {state}  {detail}", step.name);
    }
}
