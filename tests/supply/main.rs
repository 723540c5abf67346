//! What the binary is made of: every crate's licence is one that deny.toml allows, every crate comes
//! from crates.io, and docs/design.md says what each direct one is for. Offline.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    std::fs::read_to_string(project().join(name)).expect(name)
}

/// The words of a list in deny.toml.
fn listed(table: &str, key: &str) -> BTreeSet<String> {
    let rules: toml::Table = text("deny.toml").parse().expect("deny.toml");
    let list = rules[table][key].as_array().expect("a list");
    list.iter()
        .map(|word| word.as_str().expect("a word").to_owned())
        .collect()
}

/// Every package that is built on this platform, with those that only tests need.
fn packages() -> Vec<Value> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .current_dir(project())
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", &platform])
        .output()
        .expect("running cargo");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = metadata["packages"].as_array().expect("packages").clone();
    assert!(list.len() > 50, "{} packages", list.len());
    list
}

/// Whether an SPDX expression can be met by the licences allowed. Crates older than SPDX
/// expressions write OR as a slash.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any_of(&words, &mut at, allowed);
    met && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all_of(words, at, allowed);
    }
    met
}

fn all_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(&word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if word == "(" {
        let met = any_of(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return met && closed;
    }
    let mut name = word.to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed.contains(&name)
}

#[test]
fn expressions() {
    let allowed = BTreeSet::from(["MIT", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned));
    for met in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(GPL-3.0 OR MIT) AND MIT",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(is_met(met, &allowed), "{met}");
    }
    for unmet in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MIT AND (GPL-3.0 OR AGPL-3.0)",
        "Apache-2.0",
        "(MIT",
        "MIT MIT",
        "OR MIT",
    ] {
        assert!(!is_met(unmet, &allowed), "{unmet}");
    }
}

#[test]
fn licences_are_allowed_ones() {
    let allowed = listed("licenses", "allow");
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(
            is_met(licence, &allowed),
            "{}: {licence:?}",
            package["name"]
        );
    }
}

#[test]
fn sources_are_crates_io_and_nothing_banned_is_in() {
    let registries = listed("sources", "allow-registry");
    let banned = listed("bans", "deny");
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        assert!(!banned.contains(name), "{name} is banned by deny.toml");
        match package["source"].as_str() {
            None => assert!(
                ["etcd-dr", "testbench"].contains(&name),
                "{name} is a path dependency"
            ),
            Some(source) => assert!(
                source
                    .strip_prefix("registry+")
                    .is_some_and(|registry| registries.contains(registry)),
                "{name}: {source}"
            ),
        }
    }
}

#[test]
fn every_direct_dependency_is_justified() {
    let design = text("docs/design.md");
    let (_, table) = design
        .split_once("\n## Dependencies\n")
        .expect("its section");
    let table = table.split("\n## ").next().unwrap_or_default();
    let named: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|crates| crates.split(", "))
        .map(str::trim)
        .collect();
    for (file, tables) in [
        ("Cargo.toml", &["dependencies", "dev-dependencies"][..]),
        ("tests/support/Cargo.toml", &["dependencies"]),
    ] {
        let manifest: toml::Table = text(file).parse().expect(file);
        for table in tables {
            for name in manifest[*table].as_table().expect(table).keys() {
                assert!(
                    named.contains(name.as_str()),
                    "docs/design.md does not say what {name} of {file} is for"
                );
            }
        }
    }
}
