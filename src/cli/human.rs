//! Results and errors for people: tables, sentences, and where to go on.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::HumanBytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{hints, machine};
use crate::backup::manifest::QualityState;
use crate::error::Failure;
use crate::etcd::finding::printable;
use crate::keep::catalog::{BackupSet, SetState};

/// What stands where nothing is known.
const NOTHING: &str = "-";

/// Whether standard error is read by a program: each line of it is then an event.
static EVENTS: AtomicBool = AtomicBool::new(false);

/// Writes events to standard error from now on, and nothing else.
pub(super) fn tell_events_only() {
    EVENTS.store(true, Ordering::Relaxed);
}

/// Writes to standard error. That nobody reads it any more is no reason to stop.
fn write(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Tells something, in a line for people or an event of this kind.
fn tell_as(kind: &str, text: &str) {
    if !EVENTS.load(Ordering::Relaxed) {
        return write(text);
    }
    let text = console::strip_ansi_codes(text);
    let text = text.trim_end();
    if !text.is_empty() {
        event(json!({"event": kind, "text": text}));
    }
}

/// Writes an event's line.
pub(super) fn event(mut body: serde_json::Value) {
    body["schemaVersion"] = machine::SCHEMA_VERSION.into();
    write(&format!("{body}\n"));
}

/// Tells a whole line.
pub(super) fn tell_line(text: impl std::fmt::Display) {
    tell_as("message", &format!("{text}\n"));
}

/// Tells what is about to be done.
pub(super) fn plan(text: &str) {
    tell_as("plan", text);
}

/// Asks, after what is about to be done.
pub(super) fn ask(what: &str, question: &str) {
    if EVENTS.load(Ordering::Relaxed) {
        plan(what);
        return tell_as("question", question);
    }
    write(&format!("{what}{question} [y/N] "));
}

/// Tells of a failure.
pub(super) fn fail(command: &str, failed: &Failure) {
    if EVENTS.load(Ordering::Relaxed) {
        let mut body = machine::failure(command, failed)["error"].take();
        body["event"] = "error".into();
        return event(body);
    }
    write(&format!("{}\n", failure(command, failed)));
}

/// A failure with its name and hint, for standard error.
pub(super) fn failure(command: &str, failure: &Failure) -> String {
    // Some causes are several lines long; none may hold commands for the terminal.
    let told = failure.to_string();
    let lines: Vec<String> = told
        .trim_end()
        .lines()
        .map(|line| printable(line.to_owned()))
        .collect();
    let mut text = format!(
        "{}: {}",
        console::style("error").red().bold().for_stderr(),
        lines.join("\n")
    );
    let names = failure.refusals();
    let named = format!("[{}]", names.join(", "));
    if !names.is_empty() && !told.trim_end().ends_with(&named) {
        let _ = write!(text, " {named}");
    }
    if let Some(hint) = hints::hint(command, failure) {
        let lines: Vec<String> = hint
            .lines()
            .map(|line| printable(line.to_owned()))
            .collect();
        let _ = write!(
            text,
            "\n  {}: {}",
            console::style("hint").cyan().for_stderr(),
            // The next commands below the first.
            lines.join("\n        ")
        );
    }
    text
}

/// The table that `list` prints.
pub(super) fn list(
    sets: &[BackupSet],
    newest: Option<&BackupSet>,
    now: Timestamp,
    verbose: bool,
) -> String {
    let mut head = vec![
        "BACKUP", "CREATED", "AGE", "REVISION", "KEYS", "SIZE", "OCP", "QUALITY", "VERIFIED",
        "EXPIRES",
    ];
    head.extend(verbose.then_some("SHARED"));
    let mut table = Table::new(&head).giving_up(&LESS_NEEDED);
    let is_newest = |set: &BackupSet| newest.is_some_and(|newest| newest.name == set.name);
    for set in sets {
        let manifest = set.manifest.as_ref();
        let database = manifest.map(|manifest| &manifest.database);
        let verified = set.verified.as_ref().map(|verified| {
            let when = ago(verified.time, now);
            if verified.good {
                when
            } else {
                format!("FAILED {when}")
            }
        });
        let expiry = manifest.and_then(|manifest| manifest.earliest_certificate_expiry.as_ref());
        let shared = set.shared.map(|bytes| HumanBytes(bytes).to_string());
        let mut row = vec![
            format!("{}{}", set.name, if is_newest(set) { " *" } else { "" }),
            set.created
                .map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
                .unwrap_or_else(nothing),
            set.created.map(|at| age(at, now)).unwrap_or_else(nothing),
            database
                .and_then(|db| db.kv_revision)
                .map(|n| n.to_string())
                .unwrap_or_else(nothing),
            database
                .and_then(|db| db.keys)
                .map(|n| n.to_string())
                .unwrap_or_else(nothing),
            HumanBytes(set.size).to_string(),
            manifest
                .and_then(|manifest| manifest.cluster.ocp_version.clone())
                .unwrap_or_else(nothing),
            quality(set),
            verified.unwrap_or_else(nothing),
            expiry
                .map(|expiry| expiry.time.strftime("%Y-%m-%d").to_string())
                .unwrap_or_else(nothing),
        ];
        row.extend(verbose.then(|| shared.unwrap_or_else(nothing)));
        table.row(row);
    }
    let width = terminal_width();
    let mut text = table.render(width);
    if width.is_some() && newest.is_some() {
        text.push_str("* the newest good backup\n");
    }
    text
}

/// The columns of `list` that a narrow terminal does without, the least needed first.
const LESS_NEEDED: [&str; 7] = [
    "SHARED", "OCP", "KEYS", "EXPIRES", "SIZE", "CREATED", "VERIFIED",
];

/// How many columns standard output has; none where it is no terminal.
pub(super) fn terminal_width() -> Option<usize> {
    let out = console::Term::stdout();
    let width = out.is_term().then(|| out.size_checked()).flatten()?.1;
    Some(width.into())
}

/// The quality column: the state, what makes it so, and whether it is pinned.
fn quality(set: &BackupSet) -> String {
    let pinned = if set.pinned { ", pinned" } else { "" };
    format!("{}{pinned}", state(set))
}

fn state(set: &BackupSet) -> String {
    match set.state {
        SetState::Dirty => {
            let reasons = set
                .manifest
                .iter()
                .flat_map(|manifest| &manifest.quality.reasons);
            let names: Vec<_> = reasons.map(|reason| reason.check.as_str()).collect();
            format!("dirty ({})", names.join(", "))
        }
        SetState::Foreign if set.marked_dirty => "foreign, dirty".to_owned(),
        state => state.word().to_owned(),
    }
}

fn nothing() -> String {
    NOTHING.to_owned()
}

/// A span as one or two units: `45s`, `12m`, `3h 5m`, `2d 4h`.
pub(super) fn age(from: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(from).as_secs();
    if seconds < 0 {
        return format!("in {}", span(seconds.unsigned_abs()));
    }
    span(seconds.unsigned_abs())
}

/// The same as a moment: `3h 5m ago`, `in 2d`.
pub(super) fn ago(moment: Timestamp, now: Timestamp) -> String {
    let age = age(moment, now);
    match moment > now && age.starts_with("in ") {
        true => age,
        false => format!("{age} ago"),
    }
}

/// What is to be said of times that have not come.
pub(super) fn future(sets: &[BackupSet], now: Timestamp) -> Vec<String> {
    let mut told = Vec::new();
    for set in sets {
        let name = printable(set.name.clone());
        if let Some(created) = set.created.filter(|_| set.is_future(now)) {
            told.push(format!(
                "{name}: its time, {created}, is in the future: the clock that wrote it was wrong, or this one is; \
                 it does not count as a backup until then, and prune keeps it"
            ));
        }
        if set.is_verified_in_future(now) {
            told.push(format!(
                "{name}: the time of its last verification is in the future: it counts as never verified"
            ));
        }
    }
    told
}

/// See [`age`].
pub(super) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, 0) => format!("{hours}h"),
        (0, ..) => format!("{hours}h {minutes}m"),
        (_, 0, _) => format!("{days}d"),
        _ => format!("{days}d {hours}h"),
    }
}

/// What `--stale-after` found.
pub(super) fn staleness(newest: Option<(&str, SignedDuration)>, limit: Duration) -> String {
    let limit = span(limit.as_secs());
    match newest {
        Some((name, age)) => {
            format!(
                "stale: the newest good backup, {name}, is {} old; the limit is {limit}",
                span(age.as_secs().unsigned_abs())
            )
        }
        None => format!("stale: there is no good backup; the limit is {limit}"),
    }
}

/// Why a committed set is dirty, a line each.
pub(super) fn reasons(manifest: &crate::backup::Manifest) -> String {
    if manifest.quality.state == QualityState::Good {
        return String::new();
    }
    manifest
        .quality
        .reasons
        .iter()
        .map(|reason| format!("{} [{}]", reason.message, reason.check))
        .map(|reason| format!("  dirty: {}\n", printable(reason)))
        .collect()
}

/// Columns as wide as their widest cell, two spaces apart, nothing behind the last.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    given_up: Vec<String>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self {
            rows: vec![head.iter().map(|&name| name.to_owned()).collect()],
            given_up: Vec::new(),
        }
    }

    /// Columns to leave out, in this order, until the table fits.
    pub(super) fn giving_up(mut self, names: &[&str]) -> Self {
        self.given_up = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(printable).collect());
    }

    /// The table. Where it is wider than the terminal it leaves out the columns that it may, one by one,
    /// and names them; where that is not enough, it is a block a row instead.
    pub(super) fn render(&self, limit: Option<usize>) -> String {
        let table = self.aligned();
        let Some(limit) = limit.filter(|limit| is_wider(&table, *limit)) else {
            return table;
        };
        let mut rows = self.rows.clone();
        let mut missing = Vec::new();
        for name in &self.given_up {
            let head = rows.first().map(Vec::as_slice).unwrap_or_default();
            let Some(at) = head.iter().position(|column| column == name) else {
                continue;
            };
            missing.push(name.to_lowercase());
            rows.iter_mut().for_each(|row| drop(row.remove(at)));
            let narrower = aligned(&rows);
            if !is_wider(&narrower, limit) {
                let missing = missing.join(", ");
                return format!("{narrower}not shown: {missing} (-o json shows all)\n");
            }
        }
        self.blocks()
    }

    /// Every row as lines of its own: its first cell, and below it what else is known.
    fn blocks(&self) -> String {
        let Some((head, rows)) = self.rows.split_first() else {
            return String::new();
        };
        let mut text = String::new();
        for row in rows {
            for (place, (name, cell)) in head.iter().zip(row).enumerate() {
                if place == 0 {
                    let _ = writeln!(text, "{cell}");
                } else if cell != NOTHING {
                    let _ = writeln!(text, "  {:<9} {cell}", name.to_lowercase());
                }
            }
        }
        text
    }

    fn aligned(&self) -> String {
        aligned(&self.rows)
    }
}

fn is_wider(table: &str, limit: usize) -> bool {
    table
        .lines()
        .any(|line| console::measure_text_width(line) > limit)
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = console::measure_text_width(cell).max(*widest);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let gap = width.saturating_sub(console::measure_text_width(cell)) + 2;
            let _ = write!(line, "{cell}{:gap$}", "");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_does_not_fit() {
        let mut table = Table::new(&["BACKUP", "KEYS", "OCP"]);
        table.row(vec!["backup-1".into(), "5".into(), nothing()]);
        let wide = "BACKUP    KEYS  OCP\nbackup-1  5     -\n";
        assert_eq!(table.render(None), wide);
        assert_eq!(table.render(Some(19)), wide);
        assert_eq!(table.render(Some(18)), "backup-1\n  keys      5\n");
    }

    #[test]
    fn ages_are_short() {
        let now: Timestamp = "2026-11-21T06:00:00Z".parse().unwrap();
        let before = |text: &str| age(text.parse().unwrap(), now);
        assert_eq!(before("2026-11-21T05:59:15Z"), "45s");
        assert_eq!(before("2026-11-21T02:55:00Z"), "3h 5m");
        assert_eq!(before("2026-11-19T02:00:00Z"), "2d 4h");
        assert_eq!(before("2026-11-21T07:00:00Z"), "in 1h");
        let moment = |text: &str| ago(text.parse().unwrap(), now);
        assert_eq!(moment("2026-11-21T05:00:00Z"), "1h ago");
        assert_eq!(moment("2026-11-21T07:00:00Z"), "in 1h");
        assert_eq!(moment("2026-11-21T06:00:00Z"), "0s ago");
    }
}
