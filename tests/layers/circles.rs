//! No file of `src` imports another that imports it back, over however many files. A reader who
//! follows the imports of a file must come to an end.
//!
//! Parents and children count like any others. A `mod` declaration is not an import, and neither is a
//! re-export of something that the file itself does not use: the importer of the re-exported name
//! imports the file where the name is defined.

use std::collections::{BTreeMap, BTreeSet};

/// One source file, as far as its imports go.
#[derive(Default)]
pub struct File {
    /// What each name that a `use` brings in stands for, as a path from the crate's root.
    names: BTreeMap<String, Binding>,
    /// The paths of which a `use …::*` brings in everything.
    globs: Vec<Vec<String>>,
    /// The code without its `use` statements.
    code: String,
}

struct Binding {
    path: Vec<String>,
    exported: bool,
}

/// The files of a crate by their module path, `node::pod`; the root is the empty path.
pub struct Crate(BTreeMap<Vec<String>, File>);

impl Crate {
    /// Reads files given by name (`node/pod/mod.rs`) and shipped code.
    pub fn read<'a>(sources: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let modules = sources
            .into_iter()
            .map(|(name, code)| (module_path(name), code));
        let mut files: BTreeMap<Vec<String>, File> = modules
            .map(|(module, code)| {
                let file = File {
                    code,
                    ..File::default()
                };
                (module, file)
            })
            .collect();
        let all: BTreeSet<Vec<String>> = files.keys().cloned().collect();
        for (module, file) in &mut files {
            file.take_uses(module, &all);
        }
        Self(files)
    }

    /// Which files each file imports.
    pub fn imports(&self) -> BTreeMap<String, BTreeSet<String>> {
        let all = self.0.iter().map(|(module, file)| {
            let uses = file
                .names
                .iter()
                .filter(|(name, binding)| !binding.exported || has_word(&file.code, name))
                .map(|(_, binding)| binding.path.clone());
            let globs = file.globs.iter().cloned();
            let mut imported: BTreeSet<String> = uses
                .chain(self.paths_in(module, file))
                .filter_map(|path| self.home_of(&path, 0))
                .chain(globs)
                .map(|home| home.join("::"))
                .collect();
            let own = module.join("::");
            imported.remove(&own);
            (own, imported)
        });
        all.collect()
    }

    /// Groups of files that import each other.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let imports = self.imports();
        let reached: BTreeMap<&String, BTreeSet<&String>> = imports
            .keys()
            .map(|from| (from, reached_from(from, &imports)))
            .collect();
        let mut circles = BTreeSet::new();
        for (from, far) in &reached {
            if far.contains(*from) {
                let back = |to: &&&String| reached.get(**to).is_some_and(|r| r.contains(*from));
                circles.insert(far.iter().filter(back).map(|f| (*f).clone()).collect());
            }
        }
        circles.into_iter().collect()
    }

    /// The paths in a file's code, from the crate's root.
    fn paths_in(&self, module: &[String], file: &File) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for path in chains(&file.code) {
            let Some((first, rest)) = path.split_first() else {
                continue;
            };
            let base = match file.names.get(first) {
                Some(binding) => binding.path.iter().chain(rest).cloned().collect(),
                None => match absolute(&path, module, |child| self.0.contains_key(child)) {
                    Some(path) => path,
                    None => continue,
                },
            };
            found.push(base);
        }
        found
    }

    /// The module that defines what a path names; nothing if it names a module, or something
    /// of another crate.
    fn home_of(&self, path: &[String], depth: usize) -> Option<Vec<String>> {
        assert!(depth < 20, "re-exports in a circle: {path:?}");
        let mut module: Vec<String> = Vec::new();
        for (at, name) in path.iter().enumerate() {
            module.push(name.clone());
            if self.0.contains_key(&module) {
                continue;
            }
            module.pop();
            let file = self.0.get(&module)?;
            let rest = path.get(at + 1..).unwrap_or_default();
            let through = |path: &[String]| {
                let path: Vec<String> = path.iter().chain(rest).cloned().collect();
                self.home_of(&path, depth + 1)
            };
            if let Some(binding) = file.names.get(name) {
                return through(&binding.path);
            }
            let glob = file.globs.iter().find(|glob| {
                let target = self.0.get(*glob);
                target.is_some_and(|file| defines(&file.code, name))
            });
            return Some(glob.cloned().unwrap_or(module));
        }
        None
    }
}

impl File {
    /// Takes the `use` statements out of the code.
    fn take_uses(&mut self, module: &[String], all: &BTreeSet<Vec<String>>) {
        let code = std::mem::take(&mut self.code);
        let mut rest = code.as_str();
        while let Some(at) = next_use(rest) {
            let (before, statement) = rest.split_at(at);
            let (statement, after) = statement.split_once(';').unwrap_or((statement, ""));
            let exported = before.trim_end().ends_with("pub") || before.trim_end().ends_with(')');
            self.code.push_str(before);
            for (path, name) in leaves(statement.trim_start_matches("use ")) {
                let Some(path) = absolute(&path, module, |child| all.contains(child)) else {
                    continue;
                };
                match name.as_str() {
                    "*" => self.globs.push(path),
                    _ => {
                        self.names.insert(name, Binding { path, exported });
                    }
                }
            }
            rest = after;
        }
        self.code.push_str(rest);
        // `mod sorted;` is no use of a function `sorted` that is exported beside it.
        let declares = |line: &&str| line.contains("mod ") && line.ends_with(';');
        let lines: Vec<&str> = self.code.lines().filter(|line| !declares(line)).collect();
        self.code = lines.join("\n");
    }
}

fn module_path(name: &str) -> Vec<String> {
    let stem = name.trim_end_matches(".rs");
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    match stem {
        "lib" => Vec::new(),
        stem => stem.split('/').map(str::to_owned).collect(),
    }
}

/// A path from the crate's root; nothing for one that begins in another crate.
fn absolute(
    path: &[String],
    module: &[String],
    exists: impl Fn(&Vec<String>) -> bool,
) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let mut base: Vec<String> = module.to_vec();
    let mut rest = rest;
    match first.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            base.pop();
            while let Some((name, after)) = rest.split_first()
                && name == "super"
            {
                base.pop();
                rest = after;
            }
        }
        _ => {
            base.push(first.clone());
            if !exists(&base) {
                return None;
            }
        }
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// Where the next `use` statement begins.
fn next_use(code: &str) -> Option<usize> {
    code.match_indices("use ").map(|(at, _)| at).find(|at| {
        let line = code.get(..*at).unwrap_or_default();
        let line = line.rsplit('\n').next().unwrap_or_default().trim();
        line.is_empty() || line == "pub" || (line.starts_with("pub(") && line.ends_with(')'))
    })
}

/// The paths of a use tree, each with the name that it brings in.
fn leaves(tree: &str) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let (head, group) = match tree.split_once('{') {
        Some((head, group)) => (head, group.rsplit_once('}').map(|(group, _)| group)),
        None => (tree, None),
    };
    let (path, alias) = match head.split_once(" as ") {
        Some((path, alias)) => (path, Some(alias.trim().to_owned())),
        None => (head, None),
    };
    let mut path: Vec<String> = path
        .split("::")
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect();
    let Some(group) = group else {
        let name = path.last().cloned().unwrap_or_default();
        if name == "*" || (name == "self" && path.len() > 1) {
            path.pop();
        }
        let name = match name.as_str() {
            "self" => path.last().cloned().unwrap_or_default(),
            _ => name,
        };
        return vec![(path, alias.unwrap_or(name))];
    };
    let mut depth = 0_usize;
    for part in group.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    }) {
        if !part.trim().is_empty() {
            for (below, name) in leaves(part) {
                match below.as_slice() {
                    [only] if only == "self" => {
                        let own = path.last().cloned().unwrap_or_default();
                        let name = if name == "self" { own } else { name };
                        found.push((path.clone(), name));
                    }
                    below => found.push((path.iter().chain(below).cloned().collect(), name)),
                }
            }
        }
    }
    found
}

/// All `a::b::c` in a text.
fn chains(code: &str) -> Vec<Vec<String>> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    code.split(|c| !part(c))
        .filter(|word| word.contains("::") && !word.starts_with(':'))
        .map(|word| {
            let parts = word.split("::").map(str::to_owned);
            parts.filter(|part| !part.is_empty()).collect()
        })
        .collect()
}

fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.split(|c| !part(c)).any(|found| found == word)
}

fn defines(code: &str, name: &str) -> bool {
    ["fn", "struct", "enum", "trait", "const", "static", "type"]
        .iter()
        .any(|kind| {
            let head = format!("{kind} {name}");
            let mut after = code.split(&head).skip(1);
            after.any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
        })
}

fn reached_from<'a>(
    from: &'a String,
    imports: &'a BTreeMap<String, BTreeSet<String>>,
) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for next in imports.get(file).into_iter().flatten() {
            if reached.insert(next) {
                open.push(next);
            }
        }
    }
    reached
}
