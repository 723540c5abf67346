//! A failure for people: what failed, its name, and what to type next.

use std::fmt::Write as _;

use super::{error_json, hints, terminal};
use crate::error::Failure;
use crate::sys::quote::printable;

/// Tells of a failure.
pub(crate) fn print(command: &str, failed: &Failure) {
    if terminal::tells_events() {
        let mut body = error_json::render(command, failed)["error"].take();
        body["event"] = "error".into();
        return terminal::event(body);
    }
    terminal::write(&format!("{}\n", render(command, failed)));
}

/// A failure with its name and hint, for standard error.
pub(crate) fn render(command: &str, failure: &Failure) -> String {
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
