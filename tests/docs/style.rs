//! docs/style.md: the phrases that it avoids are in no help, message, manual page, page or comment.

use std::path::{Path, PathBuf};

use crate::project;

/// The worst of them; as whole words, in lower case.
const AVOIDED: [&str; 20] = [
    "all the same",
    "anew",
    "ails",
    "are none",
    "at hand",
    "at the most",
    "came about",
    "come about",
    "cut off",
    "goes on",
    "gone back",
    "gone on",
    "hence",
    "is none",
    "let pass",
    "lies in",
    "thereof",
    "way back",
    "wish to stop",
    "young enough",
];

/// Sentences that need such a word in its plain meaning.
const HONEST: [&str; 1] = [r#"not "X is none that can be opened""#];

/// Every avoided phrase of a text, with what is around it.
fn found(text: &str) -> Vec<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let lower = text.to_ascii_lowercase();
    let edge = |at: Option<char>| at.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '-');
    let mut all = Vec::new();
    for phrase in AVOIDED {
        for (at, _) in lower.match_indices(phrase) {
            let (before, after) = (&lower[..at], &lower[at + phrase.len()..]);
            if !edge(before.chars().next_back()) || !edge(after.chars().next()) {
                continue;
            }
            let around = |from: usize, to: usize| -> String {
                text.chars().skip(from).take(to - from).collect()
            };
            let place = before.chars().count();
            let sentence = around(place.saturating_sub(60), place + phrase.len() + 60);
            if !HONEST.iter().any(|honest| sentence.contains(honest)) {
                all.push(sentence);
            }
        }
    }
    all
}

/// The files below a folder with this ending.
fn files(at: &Path, ending: &str, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(at).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, ending, all);
        } else if path.extension().is_some_and(|e| e == ending) {
            all.push(path);
        }
    }
}

/// What a source prints: its string literals, and of the command line's arguments the doc comments,
/// which are their help.
fn printed(path: &Path, source: &str) -> String {
    let help = path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part == "args" || part == "args.rs"
    });
    let mut text = String::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let (start, from) = rest.split_at(at);
        rest = if let Some(comment) = from.strip_prefix("//") {
            let (line, below) = comment.split_once('\n').unwrap_or((comment, ""));
            if let (true, Some(doc)) = (help, line.strip_prefix('/')) {
                text.push_str(doc);
                text.push('\n');
            }
            below
        } else if let Some(string) = from.strip_prefix('"') {
            let raw = start.ends_with('r');
            let end = end_of_string(string, raw);
            text.push_str(&string[..end].replace("\\\n", " ").replace("\\n", " "));
            text.push_str(".\n");
            string.get(end + 1..).unwrap_or_default()
        } else if let Some(after) = from.strip_prefix("'\"'") {
            after
        } else {
            &from[1..]
        };
    }
    text
}

/// The comments of a source, each block of lines as one text.
fn comments(source: &str) -> String {
    let mut text = String::new();
    for line in source.lines() {
        match line.trim_start().strip_prefix("//") {
            Some(comment) => text.push_str(comment.trim_start_matches(['/', '!'])),
            None if text.ends_with(".\n") => {}
            None => text.push_str(".\n"),
        }
    }
    text
}

/// Where a string literal's closing quote is.
fn end_of_string(string: &str, raw: bool) -> usize {
    let mut escaped = false;
    for (at, c) in string.char_indices() {
        match c {
            '"' if !escaped => return at,
            '\\' if !raw => escaped = !escaped,
            _ => escaped = false,
        }
    }
    string.len()
}

#[test]
fn help_and_messages_avoid_the_words_of_the_style_page() {
    let mut sources = Vec::new();
    files(&project().join("src"), "rs", &mut sources);
    assert!(sources.len() > 200);
    let mut literals = 0;
    let mut wrong = Vec::new();
    for path in sources {
        let source = std::fs::read_to_string(&path).expect("a source");
        let text = printed(&path, &source);
        literals += text.lines().count();
        let name = path.strip_prefix(project()).expect("below it").display();
        wrong.extend(found(&text).iter().map(|text| format!("{name}: {text}")));
    }
    assert!(literals > 3_000, "{literals}: the literals are not found");
    assert!(wrong.is_empty(), "docs/style.md:\n{}", wrong.join("\n"));
}

#[test]
fn comments_avoid_the_words_of_the_style_page() {
    let mut sources = Vec::new();
    for folder in ["src", "tests", "fuzz", "benches", "examples"] {
        files(&project().join(folder), "rs", &mut sources);
    }
    let mut read = 0;
    let mut wrong = Vec::new();
    for path in sources {
        let text = comments(&std::fs::read_to_string(&path).expect("a source"));
        read += text.lines().count();
        let name = path.strip_prefix(project()).expect("below it").display();
        wrong.extend(found(&text).iter().map(|text| format!("{name}: {text}")));
    }
    assert!(read > 5_000, "{read}: the comments are not found");
    assert!(wrong.is_empty(), "docs/style.md:\n{}", wrong.join("\n"));
}

#[test]
fn pages_and_manuals_avoid_the_words_of_the_style_page() {
    let mut pages = vec![project().join("README.md")];
    files(&project().join("docs"), "md", &mut pages);
    files(&project().join("man"), "1", &mut pages);
    assert!(pages.len() > 20);
    let mut wrong = Vec::new();
    for path in pages {
        let text = std::fs::read_to_string(&path).expect("a page");
        let name = path.strip_prefix(project()).expect("below it").display();
        // The page that forbids them names them, in a table.
        let table = path.ends_with("style.md");
        let lines = text
            .lines()
            .filter(|line| !(table && line.starts_with('|')));
        let text = lines.collect::<Vec<_>>().join("\n");
        wrong.extend(found(&text).iter().map(|text| format!("{name}: {text}")));
    }
    assert!(wrong.is_empty(), "docs/style.md:\n{}", wrong.join("\n"));
}

#[test]
fn the_phrases_are_found_where_they_are() {
    let source = "let a = \"which is\\\n    none\"; // is none\nlet b = '\"'; let c = \"fails at handling\";";
    let text = printed(Path::new("src/x.rs"), source);
    assert_eq!(found(&text).len(), 1, "{text}");
    let text = comments("let a = 1; // is none\n/// There is\n/// none.\nlet b = \"is none\";");
    assert_eq!(found(&text).len(), 1, "{text}");
    let help = printed(Path::new("src/cli/args.rs"), "/// Writes it anew\nx: u8,");
    assert_eq!(found(&help).len(), 1, "{help}");
}
