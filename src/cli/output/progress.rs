//! Observers: a bar on a terminal, plain lines elsewhere, JSON lines for programs.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::super::args::ProgressArg;
use super::json::SCHEMA_VERSION;
use super::terminal;
use crate::event::{Event, Observer};
use crate::journal::LOG;
use crate::sys::quote::printable;

/// How often a plain line is written during a phase.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Picks the observer for this run; `verbose` shows notes too.
pub(crate) fn observer(when: ProgressArg, verbose: u8) -> Arc<dyn Observer> {
    let terminal = console::user_attended_stderr();
    match when {
        ProgressArg::Json => Arc::new(JsonLines),
        ProgressArg::Auto if terminal => Arc::new(Bar {
            bar: Mutex::new(None),
            waits: Waits::default(),
            verbose,
        }),
        ProgressArg::Auto | ProgressArg::Always => Arc::new(Lines {
            phases: Mutex::default(),
            waits: Waits::default(),
            verbose,
            progress: true,
        }),
        ProgressArg::Never => Arc::new(Lines {
            phases: Mutex::default(),
            waits: Waits::default(),
            verbose,
            progress: false,
        }),
    }
}

/// Hands events on, and once it is opened writes them to a log as well: one JSON object a line,
/// with the time and, if there is one, the text that people see.
pub(crate) struct Logged {
    shown: Arc<dyn Observer>,
    file: Mutex<Option<std::fs::File>>,
}

impl Logged {
    /// Without a log for now.
    pub(crate) fn new(shown: Arc<dyn Observer>) -> Self {
        Self {
            shown,
            file: Mutex::new(None),
        }
    }

    /// Writes a log in this folder from now on. One that cannot be written is no reason to stop.
    pub(crate) fn open(&self, dir: &std::path::Path) {
        use std::os::unix::fs::OpenOptionsExt;
        let opened = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(dir.join(LOG));
        if let (Ok(file), Ok(mut place)) = (opened, self.file.lock()) {
            *place = Some(file);
        }
    }
}

impl Observer for Logged {
    fn event(&self, event: Event) {
        if let Ok(mut place) = self.file.lock()
            && let Some(file) = place.as_mut()
            && !matches!(event, Event::PhaseProgress { .. })
        {
            let text = match &event {
                Event::PhaseStarted { about, .. } => Some(printable(about.clone())),
                other => aside(other, 1),
            };
            let mut body = document(event.clone());
            body["time"] = jiff::Timestamp::now().to_string().into();
            body["text"] = text
                .map(|text| console::strip_ansi_codes(&text).into_owned())
                .into();
            let _ = writeln!(file, "{body}");
        }
        self.shown.event(event);
    }
}

/// Lines about a wait that say the same are repeated after this long.
const REPEAT: Duration = Duration::from_secs(60);

/// The last line about a wait.
#[derive(Default)]
struct Waits(Mutex<Option<(&'static str, String, Instant)>>);

impl Waits {
    /// Whether this repeats what was said a moment ago.
    fn repeats(&self, event: &Event) -> bool {
        let Event::Waiting { what, missing, .. } = event else {
            return false;
        };
        let Ok(mut last) = self.0.lock() else {
            return false;
        };
        let same = last.as_ref().is_some_and(|(before, said, told)| {
            before == what && said == missing && told.elapsed() < REPEAT
        });
        if !same {
            *last = Some((what, missing.clone(), Instant::now()));
        }
        same
    }
}

/// Whether `--progress never` shows it too: what the reader must know or do.
fn must_be_told(event: &Event) -> bool {
    matches!(
        event,
        Event::Warning { .. }
            | Event::MustStart { .. }
            | Event::Note(_)
            | Event::LeftoverRemoved(_)
    )
}

/// What is shown the same way everywhere.
fn aside(event: &Event, verbose: u8) -> Option<String> {
    let warning = console::style("warning").yellow().bold().for_stderr();
    match event {
        Event::Warning { name, message } => Some(format!(
            "{warning}: {} [{name}]",
            printable(message.clone())
        )),
        Event::LeftoverRemoved(path) => Some(format!(
            "removed leftover {} from an interrupted run",
            path.display()
        )),
        Event::MustStart { member, settings } => Some(format!(
            "start {member} now, with an empty data directory and these settings:\n  {}",
            settings.join("\n  ")
        )),
        Event::Note(note) if verbose > 0 => Some(note.clone()),
        Event::Step {
            number,
            of,
            about,
            undo,
            done: false,
            ..
        } => Some(format!(
            "{}[{number}/{of}] {}",
            if *undo { "undoing " } else { "" },
            printable(about.clone())
        )),
        Event::Waiting {
            what,
            missing,
            seconds,
            limit,
        } => Some(format!(
            "waiting for {what}, {seconds} s of {limit}: {}",
            printable(missing.clone())
        )),
        _ => None,
    }
}

/// One line when a phase begins and ends, and one every few seconds between.
struct Lines {
    phases: Mutex<HashMap<&'static str, Running>>,
    waits: Waits,
    verbose: u8,
    progress: bool,
}

struct Running {
    total: Option<u64>,
    began: Instant,
    shown: Instant,
}

impl Running {
    /// The phase, if its next line is due; that line counts as shown.
    fn due<'a>(phases: &'a mut HashMap<&'static str, Self>, phase: &str) -> Option<&'a Self> {
        let running = phases.get_mut(phase)?;
        if running.shown.elapsed() < LINE_INTERVAL {
            return None;
        }
        running.shown = Instant::now();
        Some(running)
    }
}

impl Observer for Lines {
    fn event(&self, event: Event) {
        let shown = (self.progress || must_be_told(&event)) && !self.waits.repeats(&event);
        if let Some(text) = aside(&event, self.verbose).filter(|_| shown) {
            terminal::tell_line(format_args!("{text}"));
        }
        let (true, Ok(mut phases)) = (self.progress, self.phases.lock()) else {
            return;
        };
        match event {
            Event::PhaseStarted {
                phase,
                about,
                total,
            } => {
                let now = Instant::now();
                phases.insert(
                    phase,
                    Running {
                        total,
                        began: now,
                        shown: now,
                    },
                );
                terminal::tell_line(format_args!("{}", printable(about)));
            }
            Event::PhaseProgress { phase, done } => {
                if let Some(running) = Running::due(&mut phases, phase) {
                    let of = running
                        .total
                        .map(|total| format!(" of {}", HumanBytes(total)))
                        .unwrap_or_default();
                    terminal::tell_line(format_args!("{phase}: {}{of}", HumanBytes(done)));
                }
            }
            Event::PhaseStatus { phase, message } => {
                let Some(_) = Running::due(&mut phases, phase) else {
                    return;
                };
                terminal::tell_line(format_args!("{phase}: {}", printable(message)));
            }
            Event::PhaseDone { phase, done } => {
                let Some(running) = phases.remove(phase) else {
                    return;
                };
                let took = running.began.elapsed();
                // What only waited has no size.
                if took >= LINE_INTERVAL && done > 0 {
                    terminal::tell_line(format_args!(
                        "{phase}: {} in {}",
                        HumanBytes(done),
                        HumanDuration(took)
                    ));
                }
            }
            _ => {}
        }
    }
}

/// The narrowest terminal with room for the phase's text next to a bar, in columns.
const ROOMY: u16 = 100;
/// The narrowest with room for speed and time left.
const USUAL: u16 = 60;

/// What a bar's line holds; a narrow one keeps the bar and the bytes.
fn form(total_known: bool) -> &'static str {
    let width = console::Term::stderr().size().1;
    match total_known {
        true if width >= ROOMY => "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        true if width >= USUAL => "[{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        true => "[{wide_bar}] {bytes}/{total_bytes}",
        false if width >= USUAL => "{msg} {spinner} {bytes}",
        false => "{spinner} {bytes}",
    }
}

/// A bar for the phase that runs.
struct Bar {
    bar: Mutex<Option<(&'static str, ProgressBar)>>,
    waits: Waits,
    verbose: u8,
}

impl Observer for Bar {
    fn event(&self, event: Event) {
        let Ok(mut current) = self.bar.lock() else {
            return;
        };
        let repeats = self.waits.repeats(&event);
        if let Some(text) = aside(&event, self.verbose).filter(|_| !repeats) {
            match current.as_ref() {
                Some((_, bar)) => bar.suspend(|| terminal::tell_line(format_args!("{text}"))),
                None => terminal::tell_line(format_args!("{text}")),
            }
        }
        match event {
            Event::PhaseStarted {
                phase,
                about,
                total,
            } => {
                if let Some((_, bar)) = current.take() {
                    bar.finish_and_clear();
                }
                let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
                if let Ok(style) = ProgressStyle::with_template(form(total.is_some())) {
                    // In ASCII: a rescue console or a serial line may know nothing else.
                    bar.set_style(style.progress_chars("=> ").tick_chars("-\\|/ "));
                }
                bar.set_message(printable(about));
                *current = Some((phase, bar));
            }
            Event::PhaseProgress { phase, done } => {
                if let Some((running, bar)) = current.as_ref()
                    && *running == phase
                {
                    bar.set_position(done);
                }
            }
            Event::PhaseStatus { phase, message } => {
                if let Some((running, bar)) = current.as_ref()
                    && *running == phase
                {
                    // No bytes flow: the words are all there is to show.
                    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                        bar.set_style(style);
                    }
                    bar.set_message(printable(message));
                    bar.tick();
                }
            }
            Event::PhaseDone { phase, .. } => {
                if current
                    .as_ref()
                    .is_some_and(|(running, _)| *running == phase)
                    && let Some((_, bar)) = current.take()
                {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
    }
}

/// One JSON object a line.
struct JsonLines;

impl Observer for JsonLines {
    fn event(&self, event: Event) {
        terminal::event(document(event));
    }
}

/// An event as its document.
fn document(event: Event) -> serde_json::Value {
    let mut body = match event {
        Event::PhaseStarted {
            phase,
            about,
            total,
        } => {
            json!({"event": "phase-started", "phase": phase, "about": about, "total": total})
        }
        Event::PhaseProgress { phase, done } => {
            json!({"event": "phase-progress", "phase": phase, "done": done})
        }
        Event::PhaseStatus { phase, message } => {
            json!({"event": "phase-status", "phase": phase, "message": message})
        }
        Event::PhaseDone { phase, done } => {
            json!({"event": "phase-done", "phase": phase, "done": done})
        }
        Event::Warning { name, message } => {
            json!({"event": "warning", "name": name, "message": message})
        }
        Event::MustStart { member, settings } => {
            json!({"event": "must-start", "member": member, "settings": settings})
        }
        Event::Note(message) => json!({"event": "note", "message": message}),
        Event::LeftoverRemoved(path) => json!({"event": "leftover-removed", "path": path}),
        Event::Step {
            number,
            of,
            name,
            about,
            undo,
            done,
        } => json!({
            "event": "step", "number": number, "of": of, "name": name, "about": about,
            "undo": undo, "done": done,
        }),
        Event::Waiting {
            what,
            missing,
            seconds,
            limit,
        } => json!({
            "event": "waiting", "for": what, "missing": missing, "seconds": seconds,
            "limit": limit,
        }),
    };
    body["schemaVersion"] = SCHEMA_VERSION.into();
    body
}
