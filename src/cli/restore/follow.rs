//! A restore that runs elsewhere: as a transient systemd unit, or begun in a session that is gone.
//!
//! What runs writes its events to a log beside its journal; whoever watches reads both.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::args::RestoreArgs;
use super::super::operation::{self, Words};
use super::super::output::progress::LOG;
use super::super::output::terminal;
use super::super::output::words::places;
use super::super::session::{Session, Shown};
use super::text;
use crate::change::restore::info::RestoreInfo;
use crate::change::transaction::runner;
use crate::change::transaction::unsettled::{RESTORE, current};
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::node::layout::NodeLayout;
use crate::plan::lock::Lock;
use crate::plan::{Progress, State, journal};

/// How often the journal is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a unit may take until it holds the lock.
const START: Duration = Duration::from_secs(30);

/// Shows how far a restore is; while another process is at it, follows that one to its end.
pub(super) fn status(session: &Session, id: Option<&str>) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    let found = current(&layout, RESTORE, id)?;
    let progress = found.progress?;
    let follows = session.is_text() && progress.state.is_unfinished() && is_held(&layout);
    if follows {
        return watch(session, &layout, &found.dir, None);
    }
    shown(session, &found.dir, &progress)
}

/// The state as it stands.
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

/// Whether a process holds the node's lock.
fn is_held(layout: &NodeLayout) -> bool {
    Lock::is_held(&layout.lock())
}

/// Hands a restore whose journal is there to a transient systemd unit, and watches it.
pub(super) fn detached(session: &Session, dir: &Path, args: &RestoreArgs) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    let id = dir
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let unit = format!("etcd-dr-{id}");
    let own = std::env::current_exe().doing(Kind::Unexpected, || "finding this program")?;
    let mut command = Command::new("systemd-run");
    command
        .args(["--quiet", "--collect", "--unit", &unit])
        .arg(own)
        .arg("--root")
        .arg(&session.root)
        .args([
            "--progress",
            "never",
            "restore",
            "--resume",
            "--detach",
            "never",
        ]);
    if args.keep_failed {
        command.arg("--keep-failed");
    }
    let unfinished = || Fact::Unfinished {
        id: id.clone(),
        journal: dir.join(journal::FILE),
        goes_back: false,
    };
    let output = command.output().doing(Kind::Busy, || {
        format!("starting the unit {unit} with systemd-run; nothing was changed")
    });
    let output = output.map_err(|failure| failure.with(unfinished()))?;
    if !output.status.success() {
        let what = format!(
            "starting the unit {unit}; nothing was changed: systemd-run: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        return Err(Failure::new(Kind::Busy, what).with(unfinished()));
    }
    terminal::tell_line(format_args!(
        "running as the unit {unit}, independent of this terminal; to watch it from another: etcd-dr restore --status"
    ));
    let began = Instant::now();
    while !is_held(&layout)
        && Progress::read(dir)?.state == State::Running
        && began.elapsed() < START
    {
        std::thread::sleep(LOOK);
    }
    watch(session, &layout, dir, Some(&unit))
}

/// Reads the log until the restore is settled or its process gone. Ctrl-C is handed on to a unit
/// of ours, and otherwise ends the watching only.
fn watch(session: &Session, layout: &NodeLayout, dir: &Path, unit: Option<&str>) -> Result<Shown> {
    let dir = dir.to_owned();
    let unit = unit.map(str::to_owned);
    let layout = layout.clone();
    let cancel = session.context.cancel.clone();
    let state = session.block_on_to_the_end(async {
        let mut log = Log::at(dir.join(LOG));
        let mut handed_on = false;
        loop {
            log.show();
            let held = is_held(&layout);
            let progress = Progress::read(&dir)?;
            if !progress.state.is_unfinished() || !held {
                log.show();
                return Ok(progress);
            }
            if cancel.is_cancelled() {
                match &unit {
                    Some(unit) if !handed_on => {
                        handed_on = true;
                        let told = Command::new("systemctl")
                            .args(["kill", "--signal=INT", unit])
                            .status();
                        if !told.is_ok_and(|status| status.success()) {
                            terminal::tell_line(format_args!("could not stop the unit {unit}; to stop it: systemctl kill --signal=INT {unit}"));
                        }
                    }
                    Some(_) => {}
                    None => {
                        terminal::tell_line("detached; the restore keeps running");
                        return Ok(progress);
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    })?;
    ended(session, &dir, &state)
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

/// The log that a restore writes, read as it grows.
struct Log {
    path: PathBuf,
    read: u64,
    rest: String,
}

impl Log {
    fn at(path: PathBuf) -> Self {
        Self {
            path,
            read: 0,
            rest: String::new(),
        }
    }

    /// Shows what is new; a log that is not there yet shows nothing.
    fn show(&mut self) {
        let Ok(mut file) = File::open(&self.path) else {
            return;
        };
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(self.read)).is_err() || file.read_to_end(&mut bytes).is_err() {
            return;
        }
        self.read += bytes.len() as u64;
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        while let Some((line, rest)) = self.rest.split_once('\n') {
            if let Ok(event) = serde_json::from_str::<Value>(line)
                && let Some(text) = event["text"].as_str()
            {
                terminal::tell_line(text);
            }
            self.rest = rest.to_owned();
        }
    }
}
