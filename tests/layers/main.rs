//! Imports point one way only; this reads every path that begins with `crate::` and compares it with
//! the layers. No file imports another that imports it back, and none has more than 600 lines. Only
//! `cli` may use the packages that speak to a person, and nothing below it prints or reads the
//! environment.

mod circles;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use circles::Crate;

/// What each module may import besides itself, `error`, `event` and `finding`.
const LAYERS: [(&str, &[&str]); 13] = [
    (
        "cli",
        &[
            "change", "inspect", "keep", "cluster", "context", "backup", "store", "node",
            "objects", "etcd", "journal", "sys",
        ],
    ),
    (
        "change",
        &[
            "inspect", "keep", "cluster", "context", "backup", "store", "node", "objects", "etcd",
            "journal", "sys",
        ],
    ),
    (
        "inspect",
        &[
            "keep", "cluster", "context", "backup", "store", "node", "objects", "etcd", "journal",
            "sys",
        ],
    ),
    (
        "keep",
        &[
            "cluster", "context", "backup", "store", "node", "objects", "etcd", "journal", "sys",
        ],
    ),
    ("cluster", &["context", "node", "etcd", "sys"]),
    ("backup", &["etcd", "sys"]),
    ("store", &["sys"]),
    ("node", &["sys"]),
    ("objects", &["etcd", "sys"]),
    ("etcd", &["sys"]),
    ("journal", &["sys"]),
    ("finding", &["sys"]),
    ("sys", &[]),
];

/// Words that only `cli` (and `main.rs`) may use.
const CLI_ONLY: [&str; 9] = [
    "clap::",
    "indicatif::",
    "console::",
    "println!",
    "eprintln!",
    "print!(",
    "std::env::",
    "env::var",
    "process::exit",
];

/// Calls that change a mode or an owner, or remove something, by a path: whoever owns a directory on
/// the way can put a link there in the meantime. `sys::dir` has the same through descriptors.
const BY_PATH: [&str; 8] = [
    "set_permissions(",
    "fs::chown(",
    "lchown(",
    "fs::chmod(",
    "remove_dir(",
    "remove_dir_all(",
    "remove_file(",
    "remove_file)",
];

/// The files of the library, by their names below `src`.
fn sources() -> Vec<(String, String)> {
    sources_below("src")
}

/// The Rust files below a folder of the project, by their names there, sorted.
fn sources_below(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    dirs.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The source without comments, and without what is under `#[cfg(test)]`.
fn shipped(name: &str, text: &str) -> String {
    let stem = name.trim_end_matches(".rs");
    if stem.ends_with("tests") || stem.contains("/tests/") {
        return String::new();
    }
    // Only a module with a body ends the shipped code: `mod tests;` may be anywhere.
    let body = |at: &usize| {
        let rest = text[*at..].trim_start_matches("#[cfg(test)]\n");
        let rest = rest.trim_start_matches("pub(crate) ");
        rest.starts_with("mod ") && rest.lines().next().is_some_and(|line| !line.ends_with(';'))
    };
    let mut places = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at);
    let code = &text[..places.find(body).unwrap_or(text.len())];
    code.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

fn module(name: &str) -> String {
    name.split('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".rs")
        .to_owned()
}

/// The top-level modules that a source's `crate::` paths name.
fn imported(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = group.split('}').next().unwrap_or_default();
                names.extend(
                    group
                        .split(',')
                        .map(|part| part.trim().split(end).next().unwrap_or_default().to_owned()),
                );
            }
            None => names.push(rest.split(end).next().unwrap_or_default().to_owned()),
        }
    }
    names.retain(|name| name.chars().next().is_some_and(char::is_lowercase));
    names
}

#[test]
fn imports_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.into_iter().collect();
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for (name, text) in sources() {
        let from = module(&name);
        let Some(may) = allowed.get(from.as_str()) else {
            assert!(
                ["lib", "main", "error", "event", "context"].contains(&from.as_str()),
                "{name} is in no layer"
            );
            if ["error", "event", "context"].contains(&from.as_str()) {
                let out: Vec<_> = imported(&shipped(&name, &text))
                    .into_iter()
                    .filter(|to| *to != from && to != "error")
                    .filter(|to| from != "context" || (to != "event" && to != "sys"))
                    .collect();
                assert!(out.is_empty(), "{name} imports {out:?}");
            }
            continue;
        };
        for to in imported(&shipped(&name, &text)) {
            let common = ["error", "event"].contains(&to.as_str());
            if to != from && !common && (to != "finding" || from == "sys") {
                arrows += 1;
                if !may.contains(&to.as_str()) {
                    wrong.push(format!("{name}: {from} imports {to}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(
        arrows > 10,
        "the reading of imports is broken: {arrows} found"
    );
}

/// The rooms in the order in which a picture of the layers names them.
fn drawn(page: &str) -> Vec<String> {
    let picture = page.lines().find(|line| line.contains("cli -> change ->"));
    let picture = picture.expect("a picture of the layers");
    let words = picture.split(|c: char| !c.is_ascii_lowercase());
    let rooms = words.filter(|word| !word.is_empty());
    rooms.map(str::to_owned).collect()
}

#[test]
fn the_pictures_of_the_layers_are_true() {
    let rooms: Vec<&str> = LAYERS.iter().map(|(room, _)| *room).collect();
    for page in ["src/lib.rs", "docs/design.md", "CONTRIBUTING.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(drawn(&text), rooms, "{page}");
        for room in &rooms {
            assert!(
                text.contains(&format!("`{room}`")) || page == "CONTRIBUTING.md",
                "{page}: {room}"
            );
        }
    }
    // A room that is below another in the picture never imports it.
    for (at, (room, may)) in LAYERS.iter().enumerate() {
        let above = &rooms[..at];
        assert!(!may.iter().any(|to| above.contains(to)), "{room}");
    }
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let folders = ["src", "tests", "fuzz", "benches", "examples"];
    let mut long = Vec::new();
    let mut read = 0;
    for folder in folders {
        for (name, text) in sources_below(folder) {
            read += 1;
            let lines = text.lines().count();
            if lines > 600 {
                long.push(format!("{folder}/{name}: {lines}"));
            }
        }
    }
    assert!(read > 700, "the reading of files is broken: {read}");
    assert!(long.is_empty(), "split by meaning: {long:#?}");
}

#[test]
fn no_import_circle_anywhere_in_src() {
    let sources = sources();
    let shipped = sources
        .iter()
        .map(|(name, text)| (name.as_str(), shipped(name, text)));
    let files = Crate::read(shipped);
    let arrows: usize = files.imports().values().map(|to| to.len()).sum();
    assert!(arrows > 500, "the reading of imports is broken: {arrows}");
    let circles = files.circles();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn a_circle_is_seen_through_children_re_exports_and_paths() {
    let circles = |files: &[(&'static str, &str)]| {
        Crate::read(files.iter().map(|(name, text)| (*name, (*text).to_owned()))).circles()
    };
    let child = "use super::Parent;";
    let parent = "mod child;\npub struct Parent;";
    assert!(circles(&[("a/mod.rs", parent), ("a/child.rs", child)]).is_empty());
    let parent = "mod child;\npub struct Parent(child::Child);";
    assert_eq!(
        circles(&[("a/mod.rs", parent), ("a/child.rs", child)]),
        [["a", "a::child"]]
    );
    // The importer of a re-exported name imports the file that defines it.
    let pure = "mod child;\nmod other;\npub use child::Child;";
    let files = [
        ("a/mod.rs", pure),
        ("a/child.rs", "pub struct Child;"),
        ("a/other.rs", "use super::Child;"),
    ];
    assert!(circles(&files).is_empty());
    let files = [
        ("a/mod.rs", pure),
        ("a/child.rs", "use crate::b::{self, B as Renamed};"),
        ("b.rs", "pub struct B;\nfn f(_: crate::a::Child) {}"),
    ];
    assert_eq!(circles(&files), [["a::child", "b"]]);
    let files = [
        ("a/mod.rs", "mod child;\npub use child::*;\npub fn f() {}"),
        ("a/child.rs", "pub fn g() { crate::b::h() }"),
        ("b.rs", "use crate::a;\npub fn h() { a::g() }"),
    ];
    assert_eq!(circles(&files), [["a::child", "b"]]);
}

#[test]
fn only_the_command_line_speaks_to_people() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if ["cli", "main"].contains(&module(&name).as_str()) {
            continue;
        }
        let code = shipped(&name, &text);
        wrong.extend(
            CLI_ONLY
                .iter()
                .filter(|word| code.contains(**word))
                .map(|word| format!("{name}: {word}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let main =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs")).unwrap();
    assert!(main.lines().count() < 60);
}

#[test]
fn nothing_is_removed_or_given_a_mode_by_its_path() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let code = shipped(&name, &text);
        // Through a descriptor: `fchown(self.fd`, `holder.remove_tree(`.
        let code = code.replace("fchown(", "").replace("fchmod(", "");
        wrong.extend(
            BY_PATH
                .iter()
                .filter(|call| code.contains(**call))
                .map(|call| format!("{name}: {call}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(shipped("a.rs", "std::fs::remove_file(path)").contains("remove_file("));
}

#[test]
fn the_rule_itself_sees_a_wrong_import() {
    assert_eq!(
        imported("use crate::{node::X, keep};\nlet x = crate::sys::fs::y();"),
        ["node", "keep", "sys"]
    );
    assert_eq!(
        shipped(
            "a/b.rs",
            "x // crate::cli\n#[cfg(test)]\nmod tests { use crate::cli; }"
        ),
        "x "
    );
    let declared = shipped("a.rs", "#[cfg(test)]\nmod tests;\nuse crate::cli;");
    assert!(declared.contains("crate::cli"));
}
