//! docs/interface.md names what there is: exit statuses, events, metrics.

use std::collections::BTreeSet;

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
