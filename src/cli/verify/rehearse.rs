//! `verify SET --rehearse`: which etcd, and what it answered.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::args::RehearseArgs;
use super::super::session::Session;
use super::super::target;
use crate::change::rehearse::{self, Programs, Rehearsal, Request, StepState};
use crate::error::Result;
use crate::event::Event;
use crate::inspect::verify::Report;
use crate::keep::catalog::BackupSet;
use crate::node::layout::NodeLayout;
use crate::sys::quote::printable;

/// Rehearses a backup that its verification found good; the report is not good any more if that failed.
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
        programs: programs(session, args.etcd.clone()),
        scratch: scratch.to_owned(),
        limit: args.rehearse_timeout,
    };
    let rehearsal = session.block_on(rehearse::run(&session.context, request))?;
    report.good &= rehearsal.good;
    Ok(Some(rehearsal))
}

/// Where an etcd may be.
pub(in crate::cli) fn programs(session: &Session, given: Option<PathBuf>) -> Programs {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Programs {
        given,
        data_dir: data_dir(session),
        search: std::env::split_paths(&path).collect(),
    }
}

/// The node's data directory, as its manifests name it; etcd's usual one if they tell nothing.
fn data_dir(session: &Session) -> PathBuf {
    let context = &session.context;
    let layout = NodeLayout::new(&session.root);
    let named = target::target(session).and_then(|target| {
        let detection = target.detect(context)?;
        Ok(target.access(context, &detection)?.data_dir_in(&layout))
    });
    named.unwrap_or_else(|why| {
        let note = format!("the node does not tell its data directory: {why}");
        context.tell(Event::Note(note));
        layout.default_data_dir()
    })
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
