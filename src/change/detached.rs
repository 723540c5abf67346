//! An operation that runs in another process: as a transient systemd unit, or in another session.
//!
//! That process writes its events to a log next to the journal; a watcher reads both.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::context::Context;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::journal::{self, Progress, State};
use crate::node::layout::NodeLayout;
use crate::sys::lock::Lock;

/// How often the journal is read.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a unit may take until it holds the lock.
const START: Duration = Duration::from_secs(30);

/// Whether a process holds the node's lock.
pub fn is_running(layout: &NodeLayout) -> bool {
    Lock::is_held(&layout.lock())
}

/// A transient systemd unit that runs an operation.
#[derive(Debug)]
pub struct Unit(String);

impl Unit {
    /// Starts a program as a unit that is named after the operation whose journal is in `dir`.
    ///
    /// # Errors
    /// [`Kind::Busy`] with [`Fact::Unfinished`] if systemd does not start it; nothing has changed
    /// then but for the journal.
    pub fn start(dir: &Path, program: &Path, arguments: &[OsString]) -> Result<Self> {
        let id = dir.file_name().unwrap_or_default().to_string_lossy();
        let unit = format!("etcd-dr-{id}");
        let unfinished = || Fact::Unfinished {
            id: id.clone().into_owned(),
            journal: dir.join(journal::FILE),
            goes_back: false,
        };
        let output = Command::new("systemd-run")
            // The result is in the journal: systemd need not keep a failed unit for it.
            .args(["--quiet", "--collect", "--unit", &unit])
            .arg(program)
            .args(arguments)
            .output()
            .doing(Kind::Busy, || {
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
        Ok(Self(unit))
    }

    /// The unit's name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Waits until the unit holds the node's lock, or has ended, or takes too long.
    ///
    /// # Errors
    /// Those of [`Progress::read`].
    pub fn wait_for_start(&self, layout: &NodeLayout, dir: &Path) -> Result<()> {
        let began = Instant::now();
        while !is_running(layout)
            && Progress::read(dir)?.state == State::Running
            && began.elapsed() < START
        {
            std::thread::sleep(INTERVAL);
        }
        Ok(())
    }

    /// Asks the operation to roll back, as Ctrl-C does on a terminal; false if that failed.
    fn interrupt(&self) -> bool {
        let asked = Command::new("systemctl")
            .args(["kill", "--signal=INT", &self.0])
            .status();
        asked.is_ok_and(|status| status.success())
    }
}

/// What is seen of an operation that is watched.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// A line of its log.
    Line(&'a str),
    /// The unit of this name could not be asked to roll back.
    NotInterrupted(&'a str),
    /// The watching has ended, and the operation continues.
    Left,
}

/// Reads log and journal until the operation is settled or its process is gone. When cancelled, it
/// asks a systemd unit to roll back; another session's operation it only stops watching.
///
/// # Errors
/// Those of [`Progress::read`].
pub async fn watch(
    context: &Context,
    layout: &NodeLayout,
    dir: &Path,
    unit: Option<&Unit>,
    mut tell: impl FnMut(Seen<'_>),
) -> Result<Progress> {
    let mut log = Log::at(dir.join(journal::LOG));
    let mut interrupted = false;
    loop {
        log.read_on(&mut tell);
        // Before the journal is read: a process that is gone has written its last state.
        let running = is_running(layout);
        let progress = Progress::read(dir)?;
        if !progress.state.is_unfinished() || !running {
            // What was written between the two looks.
            log.read_on(&mut tell);
            return Ok(progress);
        }
        match unit {
            _ if !context.cancel.is_cancelled() => {}
            Some(unit) if !interrupted => {
                interrupted = true;
                if !unit.interrupt() {
                    tell(Seen::NotInterrupted(&unit.0));
                }
            }
            Some(_) => {}
            None => {
                tell(Seen::Left);
                return Ok(progress);
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The log that an operation writes, read as it grows.
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

    /// Reports the new lines. A log that does not exist yet has none; it is read again soon.
    fn read_on(&mut self, tell: &mut impl FnMut(Seen<'_>)) {
        let Ok(mut file) = File::open(&self.path) else {
            return;
        };
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(self.read)).is_err() || file.read_to_end(&mut bytes).is_err() {
            return;
        }
        self.read += bytes.len() as u64;
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        // The last line may not be whole yet.
        while let Some((line, rest)) = self.rest.split_once('\n') {
            if let Ok(event) = serde_json::from_str::<Value>(line)
                && let Some(text) = event["text"].as_str()
            {
                tell(Seen::Line(text));
            }
            self.rest = rest.to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_told_line_by_line_as_it_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(journal::LOG);
        let mut log = Log::at(path.clone());
        let mut lines: Vec<String> = Vec::new();
        let mut told = |seen: Seen<'_>| {
            if let Seen::Line(line) = seen {
                lines.push(line.to_owned());
            }
        };
        log.read_on(&mut told);
        std::fs::write(&path, "{\"text\":\"one\"}\nnoise\n{\"text\":\"tw").unwrap();
        log.read_on(&mut told);
        std::fs::write(&path, "{\"text\":\"one\"}\nnoise\n{\"text\":\"two\"}\n").unwrap();
        log.read_on(&mut told);
        log.read_on(&mut told);
        assert_eq!(lines, ["one", "two"]);
    }
}
