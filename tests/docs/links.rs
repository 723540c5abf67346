//! The pages lead somewhere: every link between them has a target, and every file of the source
//! tree that they name exists. Whoever moves a file moves its name in the pages too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::project;

/// Folders that hold pages.
const FOLDERS: [&str; 5] = ["", "docs", "deploy", "tests", "fixtures"];
/// Folders of the source tree, by which a file's name in a page is recognised.
const SOURCES: [&str; 9] = [
    "src/",
    "tests/",
    "docs/",
    "scripts/",
    "fixtures/",
    "benches/",
    "fuzz/",
    "deploy/",
    "examples/",
];

fn pages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        for entry in std::fs::read_dir(project().join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|ending| ending == "md") {
                let text = std::fs::read_to_string(&path).expect("a page");
                found.push((path, text));
            }
        }
    }
    found
}

/// What a heading is called in a link: GitHub's rule for the characters that these pages have.
fn anchor(heading: &str) -> String {
    let plain = heading.trim().to_lowercase();
    let kept = plain
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        } else if !code && line.starts_with('#') {
            found.insert(anchor(line.trim_start_matches('#')));
        }
    }
    found
}

/// Where a page's links lead, except those to other sites.
fn links(text: &str) -> Vec<String> {
    let ends = text.split("](").skip(1);
    let targets = ends.filter_map(|rest| rest.split_once(')').map(|(target, _)| target.to_owned()));
    targets.filter(|target| !target.contains("://")).collect()
}

/// What is wrong with a link of the page at `path`.
fn problem(path: &Path, text: &str, link: &str) -> Option<String> {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let to = path.parent().expect("a folder").join(file);
    let target = match file {
        "" => text.to_owned(),
        _ if !to.exists() => return Some(format!("{}: no file {link}", path.display())),
        _ if heading.is_empty() => return None,
        _ => std::fs::read_to_string(&to).expect("a page"),
    };
    let known = heading.is_empty() || anchors(&target).contains(heading);
    (!known).then(|| format!("{}: no heading {link}", path.display()))
}

#[test]
fn every_link_has_a_target() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (path, text) in pages() {
        for link in links(&text) {
            seen += 1;
            wrong.extend(problem(&path, &text, &link));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 60, "only {seen} links");
    let page = project().join("README.md");
    assert!(problem(&page, "# A\n", "docs/nothing.md").is_some());
    assert!(problem(&page, "# A\n", "docs/design.md#nothing").is_some());
    assert!(problem(&page, "## What it is: `x`\n", "#what-it-is-x").is_none());
}

#[test]
fn every_file_that_a_page_names_exists() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in ["CONTRIBUTING.md", "docs/design.md", "docs/formats.md"] {
        let text = std::fs::read_to_string(project().join(page)).expect("a page");
        for word in text.split('`').skip(1).step_by(2) {
            let named = SOURCES.iter().any(|folder| word.starts_with(folder));
            // NAME stands for a file that a reader makes.
            if !named || word.contains([' ', '<', '*', '\n']) || word.contains("NAME") {
                continue;
            }
            seen += 1;
            if !project().join(word).exists() {
                wrong.push(format!("{page}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 60, "only {seen} files");
}

/// The page that compares says of each thing that etcd-dr does which test proves it.
#[test]
fn the_comparison_names_tests_that_exist() {
    let page = std::fs::read_to_string(project().join("docs/comparison.md")).expect("a page");
    let mut seen = 0;
    for word in page.split('`').skip(1).step_by(2) {
        let Some((suite, test)) = word.split_once("::") else {
            continue;
        };
        seen += 1;
        let suite = std::fs::read_dir(project().join("tests").join(suite)).expect("a suite");
        let files = suite.map(|entry| entry.expect("an entry").path());
        let has = |path: std::path::PathBuf| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.contains(&format!("fn {test}("))
        };
        assert!(files.into_iter().any(has), "there is no test {word}");
    }
    assert!(seen > 25, "only {seen} tests");
    // Each cell of ours names a test, each of another has a source or nothing to say.
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| | "));
    let mut wrong = Vec::new();
    for row in rows.filter(|row| !row.starts_with("| ---")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let (ours, others) = cells[1..].split_first().expect("cells");
        let sourced = |cell: &&str| *cell == "-" || cell.contains("https://");
        if !ours.contains("::") || !others.iter().all(sourced) {
            wrong.push(row);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
