//! What the pages say is typed, and the output compared with what they show.
//!
//! A block of `console` holds commands and their output. A line with a prompt is typed as root:
//! `master-0# ` on that node, `# ` on the page's only one. What follows up to the next prompt is
//! shown: `…` within a line stands for whatever is there, a line of `…` alone for any lines or none,
//! and a last line `(status 11)` for an end other than 0. Where nothing is shown, anything may be.
//! Addresses from 10.0.0.1 on are those of master-0, master-1, master-2; 10.0.0.11 and so on are
//! their later ones.

use std::path::Path;

/// A line that is typed.
#[derive(Debug, Clone)]
pub struct Typed {
    /// On which node; empty: on the page's only one.
    pub node: String,
    /// The line.
    pub line: String,
    /// What is shown then; nothing: whatever.
    pub shown: Vec<String>,
    /// How it ends.
    pub status: i32,
}

/// The commands of a section, in their order; with those of the sections within it.
#[track_caller]
pub fn section(file: &Path, heading: &str) -> Vec<Typed> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut inside = false;
    let mut block = false;
    let mut found = Vec::new();
    let mut there = false;
    for line in text.lines() {
        // Blocks stand within numbered steps as well.
        let line = line.strip_prefix("   ").unwrap_or(line);
        if let Some(title) = line.strip_prefix("## ").filter(|_| !block) {
            inside = title == heading;
            there |= inside;
            continue;
        }
        if line.starts_with("```") {
            block = !block && line == "```console";
            continue;
        }
        if inside && block {
            take(line, &mut found);
        }
    }
    assert!(there, "{} has no section {heading:?}", file.display());
    found
}

fn take(line: &str, found: &mut Vec<Typed>) {
    if let Some((node, command)) = prompt(line) {
        found.push(Typed {
            node: node.to_owned(),
            line: command.to_owned(),
            shown: Vec::new(),
            status: 0,
        });
        return;
    }
    let last = found.last_mut().expect("output follows a command");
    let status = line
        .strip_prefix("(status ")
        .and_then(|rest| rest.strip_suffix(')')?.parse().ok());
    match status {
        Some(status) => last.status = status,
        None => last.shown.push(line.trim_end().to_owned()),
    }
}

/// The node and the command of a line with a prompt.
fn prompt(line: &str) -> Option<(&str, &str)> {
    let (node, command) = line.split_once("# ")?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    node.chars().all(plain).then_some((node, command.trim()))
}

/// The words of a command as a shell reads them; without a redirection at its end, whose file
/// comes second.
///
/// # Panics
/// Where quotes are not balanced.
#[track_caller]
pub fn words(line: &str) -> (Vec<String>, Option<String>) {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            // A remark.
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "quotes are not balanced: {line}");
    words.extend(word);
    let into = match words.iter().position(|word| word == ">") {
        Some(at) => {
            let file = words.get(at + 1).cloned();
            words.truncate(at);
            assert!(file.is_some(), "a redirection to nothing: {line}");
            file
        }
        None => None,
    };
    (words, into)
}

/// Whether what was shown is what the page says.
pub fn fits(expected: &[String], shown: &[&str]) -> bool {
    match expected.split_first() {
        None => shown.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=shown.len()).any(|skip| fits(rest, &shown[skip..]))
        }
        Some((first, rest)) => shown
            .split_first()
            .is_some_and(|(line, more)| line_fits(first, line) && fits(rest, more)),
    }
}

/// The same of one line.
fn line_fits(expected: &str, line: &str) -> bool {
    let parts: Vec<&str> = expected.split('…').collect();
    let Some((first, rest)) = parts.split_first() else {
        return line.is_empty();
    };
    let Some(mut left) = line.strip_prefix(first) else {
        return false;
    };
    let Some((last, middle)) = rest.split_last() else {
        return left.is_empty();
    };
    for part in middle {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[test]
fn lines_and_their_gaps() {
    let expected = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| (*line).to_owned())
            .collect::<Vec<_>>()
    };
    let shown = ["backup-1  good  12 KiB", "backup-2  dirty  9 KiB", "end"];
    for lines in [
        &["…"] as &[&str],
        &["backup-1  good…", "backup-2  …  9 KiB", "end"],
        &["backup-1…", "…", "end"],
        &["…", "backup-2  …", "…"],
    ] {
        assert!(fits(&expected(lines), &shown), "{lines:?}");
    }
    for lines in [
        &["backup-1  good…"] as &[&str],
        &["…", "backup-2  good…", "…"],
        &["backup-1…", "end"],
        &["…", "end", "…", "end"],
    ] {
        assert!(!fits(&expected(lines), &shown), "{lines:?}");
    }
    assert_eq!(
        words("oc patch x -p '{\"a\": 1}' > \"a file\"  # why"),
        (
            ["oc", "patch", "x", "-p", "{\"a\": 1}"]
                .map(str::to_owned)
                .to_vec(),
            Some("a file".to_owned())
        )
    );
    assert_eq!(
        prompt("master-0# etcd-dr list"),
        Some(("master-0", "etcd-dr list"))
    );
    assert_eq!(prompt("# ls"), Some(("", "ls")));
    assert_eq!(prompt("a line # with a remark"), None);
}
