//! A restore that runs elsewhere: as a transient systemd unit, or begun in a session that is gone.
//!
//! That process writes its events to a log next to its journal; a watcher reads both.

use std::ffi::OsString;
use std::path::Path;

use super::super::args::RestoreArgs;
use super::super::operation::{self, Words};
use super::super::output::terminal;
use super::super::output::words::places;
use super::super::session::{Session, Shown};
use super::text;
use crate::change::detached::{self, Seen, Unit};
use crate::change::restore::info::RestoreInfo;
use crate::change::transaction::runner;
use crate::change::transaction::unsettled::{RESTORE, current};
use crate::error::{Doing, Failure, Kind, Result};
use crate::journal::{Progress, State};
use crate::node::layout::NodeLayout;

/// Shows the status of a restore; if another process is running it, follows that to its end.
pub(super) fn status(session: &Session, id: Option<&str>) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    let found = current(&layout, RESTORE, id)?;
    let progress = found.progress?;
    let follows =
        session.is_text() && progress.state.is_unfinished() && detached::is_running(&layout);
    if follows {
        return watch(session, &layout, &found.dir, None);
    }
    shown(session, &found.dir, &progress)
}

/// The present state.
fn shown(session: &Session, dir: &Path, progress: &Progress) -> Result<Shown> {
    let info: RestoreInfo = runner::info(progress)?;
    let mut facts = vec![("backup", info.source_name().to_owned())];
    if progress.state == State::RolledBack && progress.known.completed {
        facts.push(("kept", places(&info.safety)));
    }
    let words = Words {
        document: "restore",
        facts,
        when_completed: format!(
            "to roll back: etcd-dr restore --rollback {id}\nto keep it: etcd-dr restore --commit {id}",
            id = progress.begin.id
        ),
    };
    operation::standing(session, dir, progress, &words)
}

/// Hands a restore whose journal is there to a transient systemd unit, and watches it.
pub(super) fn detached(session: &Session, dir: &Path, args: &RestoreArgs) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    let own = std::env::current_exe().doing(Kind::Unexpected, || "finding this program")?;
    let mut arguments: Vec<OsString> = vec!["--root".into(), session.root.clone().into()];
    arguments.extend(["--progress", "never", "restore", "--resume"].map(OsString::from));
    arguments.extend(["--detach", "never"].map(OsString::from));
    if args.keep_failed {
        arguments.push("--keep-failed".into());
    }
    let unit = Unit::start(dir, &own, &arguments)?;
    terminal::tell_line(format_args!(
        "running as the unit {}, independent of this terminal; to watch it from another: etcd-dr restore --status",
        unit.name()
    ));
    unit.wait_for_start(&layout, dir)?;
    watch(session, &layout, dir, Some(&unit))
}

/// Shows a restore until it is settled or its process has ended. Ctrl-C is handed on to our own
/// unit; otherwise it only ends the watching.
fn watch(session: &Session, layout: &NodeLayout, dir: &Path, unit: Option<&Unit>) -> Result<Shown> {
    let tell = |seen: Seen<'_>| match seen {
        Seen::Line(text) => terminal::tell_line(text),
        Seen::NotInterrupted(unit) => terminal::tell_line(format_args!(
            "could not stop the unit {unit}; to stop it: systemctl kill --signal=INT {unit}"
        )),
        Seen::Left => terminal::tell_line("detached; the restore keeps running"),
    };
    let watched = detached::watch(&session.context, layout, dir, unit, tell);
    let progress = session.block_on_uninterruptible(watched)?;
    ended(session, dir, &progress)
}

/// What a restore that ran elsewhere ended in.
fn ended(session: &Session, dir: &Path, progress: &Progress) -> Result<Shown> {
    let why = progress.why.clone().unwrap_or_default();
    match progress.state {
        State::Completed | State::Committing | State::Committed => {
            Ok(text::restored(&runner::done(progress)?))
        }
        State::RolledBack if why.contains("interrupted") => Err(Failure::new(
            Kind::Interrupted,
            "interrupted, and the node is as before",
        )),
        State::RolledBack => Err(Failure::new(Kind::RolledBack, why)
            .doing("restoring failed, and the node is as before")),
        State::Running | State::RollingBack => shown(session, dir, progress),
    }
}
