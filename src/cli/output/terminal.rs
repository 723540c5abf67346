//! Output on standard error: lines for people, or events for a program.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::json;

/// Whether standard error is read by a program: each line of it is then an event.
static EVENTS: AtomicBool = AtomicBool::new(false);

/// Writes events to standard error from now on, and nothing else.
pub(crate) fn tell_events_only() {
    EVENTS.store(true, Ordering::Relaxed);
}

/// Whether standard error is read by a program.
pub(crate) fn tells_events() -> bool {
    EVENTS.load(Ordering::Relaxed)
}

/// Writes to standard error. A closed standard error is no reason to stop.
pub(crate) fn write(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Reports something, as a line or as an event of this kind.
fn tell_as(kind: &str, text: &str) {
    if !tells_events() {
        return write(text);
    }
    let text = console::strip_ansi_codes(text);
    let text = text.trim_end();
    if !text.is_empty() {
        event(json!({"event": kind, "text": text}));
    }
}

/// Writes an event's line.
pub(crate) fn event(mut body: serde_json::Value) {
    body["schemaVersion"] = json::SCHEMA_VERSION.into();
    write(&format!("{body}\n"));
}

/// Tells a whole line.
pub(crate) fn tell_line(text: impl std::fmt::Display) {
    tell_as("message", &format!("{text}\n"));
}

/// Tells what is about to be done.
pub(crate) fn plan(text: &str) {
    tell_as("plan", text);
}

/// Asks for what is not shown while it is typed.
pub(crate) fn ask_secret(question: &str) {
    if tells_events() {
        return tell_as("question", question);
    }
    write(&format!("{question}: "));
}

/// Asks, after what is about to be done.
pub(crate) fn ask(what: &str, question: &str) {
    if tells_events() {
        plan(what);
        return tell_as("question", question);
    }
    write(&format!("{what}{question} [y/N] "));
}
