//! Times, paths and steps in words.

use std::fmt::Write as _;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::sys::quote::printable;

/// A span as one or two units: `45s`, `12m`, `3h 5m`, `2d 4h`.
pub(crate) fn age(from: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(from).as_secs();
    if seconds < 0 {
        return format!("in {}", span(seconds.unsigned_abs()));
    }
    span(seconds.unsigned_abs())
}

/// The same as a moment: `3h 5m ago`, `in 2d`.
pub(crate) fn ago(moment: Timestamp, now: Timestamp) -> String {
    let age = age(moment, now);
    match moment > now && age.starts_with("in ") {
        true => age,
        false => format!("{age} ago"),
    }
}

/// See [`age`].
pub(crate) fn span(seconds: u64) -> String {
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

/// What names and URLs hold goes to a terminal: no control characters but the lines' ends.
pub(crate) fn clean(text: &str) -> String {
    text.lines()
        .map(|line| printable(line.to_owned()) + "\n")
        .collect()
}

/// A line of a name and a value, in columns.
pub(crate) fn fact(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<10} {}", printable(value.to_owned()));
}

/// Paths in a row.
pub(crate) fn places(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Steps for a person.
pub(crate) fn numbered(title: &str, steps: &[String]) -> String {
    let mut text = format!("{title}\n");
    for (number, step) in steps.iter().enumerate() {
        let mut lines = step.lines();
        let _ = writeln!(
            text,
            "  {:>2}. {}",
            number + 1,
            lines.next().unwrap_or_default()
        );
        for line in lines {
            let _ = writeln!(text, "      {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
