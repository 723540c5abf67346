//! docs/interface.md names what there is: exit statuses, events, metrics.

use std::collections::{BTreeMap, BTreeSet};

use crate::project;
use testbench::schema;

fn text(file: &str) -> String {
    std::fs::read_to_string(project().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

#[test]
fn the_statuses_are_those_of_the_manual() {
    let promise = text("docs/interface.md");
    let (_, table) = promise.split_once("## Exit statuses").expect("its section");
    let rows = table.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|'));
    let promised: BTreeSet<u8> = rows
        .filter_map(|row| row.split('|').nth(1)?.trim().parse().ok())
        .collect();
    let manual = text("man/etcd-dr.1");
    let (_, statuses) = manual
        .split_once(".SH \"EXIT STATUS\"")
        .expect("its section");
    let said: BTreeSet<u8> = statuses
        .lines()
        .filter_map(|line| {
            line.strip_prefix("\\fB")?
                .strip_suffix("\\fR")?
                .parse()
                .ok()
        })
        .collect();
    assert_eq!(promised, said);
    assert_eq!(said.len(), 14);
}

#[test]
fn every_event_is_promised() {
    let promise = text("docs/interface.md");
    let events = schema::read("event");
    let kinds = events["oneOf"].as_array().expect("kinds");
    assert!(kinds.len() >= 10);
    for kind in kinds {
        let name = kind["properties"]["event"]["const"]
            .as_str()
            .expect("a name");
        assert!(promise.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_metric_is_promised_and_no_other() {
    let code = text("src/keep/metrics/mod.rs");
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let code = &format!("{code}{}", text("src/keep/metrics/fleet.rs"));
    let code = &format!("{code}{}", text("src/keep/metrics/recording.rs"));
    let promise = text("docs/interface.md");
    let named = |text: &str, quote: char| -> BTreeSet<String> {
        let words = text.split(quote).filter(|word| {
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            let ours = word.starts_with("etcd_dr_") || word.starts_with("etcd_backup_");
            ours && word.chars().all(plain)
        });
        words
            .map(|word| word.trim_end_matches("_total").to_owned())
            .collect()
    };
    let there = named(code, '"');
    assert!(there.len() >= 20, "{there:?}");
    let (_, section) = promise.split_once("## Metrics").expect("its section");
    let section = section.split("\n## ").next().unwrap_or_default();
    assert_eq!(there, named(section, '`'));
}

/// The names that the page promises: of its tables, and in its sentences of refusals and warnings.
fn promised_names(page: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut of_names = None;
    for line in page.lines() {
        let Some(row) = line.strip_prefix('|') else {
            of_names = None;
            continue;
        };
        let first = row.split('|').next().unwrap_or_default();
        let headings = [
            "name",
            "refusal",
            "layer",
            "reason",
            "warning",
            "`result` of `member-add`",
        ];
        if *of_names.get_or_insert(headings.contains(&first.trim())) {
            names.extend(quoted(first).map(str::to_owned));
        }
        if row.contains("| refused: ") {
            names.extend(quoted(row).map(str::to_owned));
        }
    }
    names.remove("result");
    names.remove("member-add");
    for paragraph in page.split("\n\n").filter(|text| !text.starts_with('|')) {
        let refused = paragraph.contains("are refused (5)");
        for sentence in paragraph.split_inclusive(['.', ';']) {
            if refused || sentence.to_lowercase().contains("warning") {
                let dashed = quoted(sentence).filter(|name| name.contains('-'));
                names.extend(dashed.map(str::to_owned));
            }
        }
    }
    // "The names of `verify --cluster`" is its own row.
    names.retain(|name| !name.starts_with('-'));
    names
}

/// Words in backticks that are names: small letters, digits and dashes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let words = text.split('`').skip(1).step_by(2);
    words.filter(move |word| !word.is_empty() && word.chars().all(name))
}

/// What the tests expect: their sources without comments, and golden files. That a refusal is allowed
/// (`--allow NAME`) expects nothing.
fn expectations() -> String {
    let mut all = String::new();
    let mut folders = vec![project().join("tests"), project().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(project()).expect("below it");
            let name = name.to_string_lossy();
            let code = name.ends_with(".rs") && !name.ends_with("docs/promise.rs");
            if !code && !name.contains("/golden/") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a text file");
            let unit = name.starts_with("src/") && !name.contains("tests");
            let text = match text.split_once("#[cfg(test)]\nmod ") {
                Some((_, tests)) if unit => tests,
                None if unit => continue,
                _ => &text,
            };
            for line in text.lines() {
                if !line.trim_start().starts_with("//") {
                    all.push_str(line);
                    all.push('\n');
                }
            }
        }
    }
    all.replace("--allow=", "--allow ")
        .replace("\"--allow\", \"", "--allow ")
}

/// Whether it is there as a whole word, but for `--allow NAME`.
fn is_expected(expectations: &str, name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    expectations.match_indices(name).any(|(at, _)| {
        let (before, after) = (&expectations[..at], &expectations[at + name.len()..]);
        !before.ends_with(part) && !after.starts_with(part) && !before.ends_with("--allow ")
    })
}

/// Constants of the code by the name that they stand for: tests may use them.
fn constants() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folders = vec![project().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|ending| ending != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a text file");
            for constant in text.split("const ").skip(1) {
                let Some((name, value)) = constant.split_once(": &str =") else {
                    continue;
                };
                let value = value.trim_start().strip_prefix('"');
                if let Some((value, _)) = value.and_then(|value| value.split_once('"')) {
                    let names = found.entry(value.to_owned()).or_default();
                    names.insert(name.to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn every_promised_name_is_expected_by_a_test() {
    let names = promised_names(&text("docs/interface.md"));
    assert!(names.len() > 110, "{names:?}");
    let (expectations, constants) = (expectations(), constants());
    let untested: Vec<&String> = names
        .iter()
        .filter(|name| {
            let constant = constants.get(*name).into_iter().flatten();
            let mut forms = std::iter::once(*name).chain(constant);
            !forms.any(|form| is_expected(&expectations, form))
        })
        .collect();
    assert_eq!(untested, Vec::<&String>::new(), "no test expects these");
}

#[test]
fn every_exit_status_is_expected_by_a_test() {
    let expectations = expectations();
    for status in [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "130",
    ] {
        let forms = [
            format!("expect({status})"),
            format!("expect({status}, "),
            format!("Some({status})"),
            format!("join({status}, "),
        ];
        let found = forms.iter().any(|form| expectations.contains(form));
        assert!(found, "no test expects the exit status {status}");
    }
}

#[test]
fn an_allowed_name_alone_does_not_count() {
    for none in [
        "--allow no-quorum",
        "x-no-quorum",
        "no-quorum-x",
        "no_quorum",
    ] {
        assert!(!is_expected(none, "no-quorum"), "{none}");
    }
    assert!(is_expected("[no-quorum]", "no-quorum"));
}
