//! What a shell offers for `get` and `diff`: kinds, names and namespaces of the backup that was named.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use crate::context::Cancel;
use crate::inspect::look::{Opened, Reader, Selection, Source, Words};
use crate::keep::catalog;
use crate::objects::atrest::Keys;
use crate::objects::kinds::{Resource, place};
use crate::store::LocalStore;

/// A larger database is not read for a completion.
const MAX_BYTES: u64 = 256 << 20;
/// Options of `get` that take a value, by their short and long names.
const WITH_VALUE: [&str; 4] = ["-n", "-l", "-o", "--namespace"];

/// The backup and the kinds and names after it on a line that is not finished.
fn typed_so_far(words: &[OsString]) -> Option<(String, Vec<String>)> {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let at = words
        .iter()
        .position(|word| matches!(*word, "get" | "diff"))?;
    let mut plain = Vec::new();
    let mut rest = words.iter().skip(at + 1);
    while let Some(word) = rest.next() {
        match *word {
            option if WITH_VALUE.contains(&option) => drop(rest.next()),
            option if option.starts_with('-') => {}
            word => plain.push(word.to_owned()),
        }
    }
    if plain.is_empty() {
        return None;
    }
    let set = plain.remove(0);
    Some((set, plain))
}

fn opened(set: &str, store: &Path) -> Option<Opened> {
    let source = match Source::of_data_dir(Path::new(set)) {
        Some(source) => source,
        None => Source::of_set(&catalog::resolve(&LocalStore::at(store), set).ok()?).ok()?,
    };
    let size = std::fs::metadata(&source.database).ok()?.len();
    (size <= MAX_BYTES).then(|| Opened::open(source, &Cancel::default()).ok())?
}

/// Kinds, names after a kind, and `KIND/NAME`, as far as one of them is typed.
pub(super) fn objects(typed: &str, words: &[OsString], store: &Path) -> Vec<String> {
    offered(typed, words, store).unwrap_or_default()
}

fn offered(typed: &str, words: &[OsString], store: &Path) -> Option<Vec<String>> {
    let (set, mut before) = typed_so_far(words)?;
    // The word that is being typed is among them.
    if before.last().is_some_and(|last| last == typed) {
        before.pop();
    }
    let opened = opened(&set, store)?;
    let mut reader = Reader::new(&opened, Keys::default()).ok()?;
    let keys = reader.keys_and_kinds().ok()?;
    let kind = match (typed.split_once('/'), before.first()) {
        (Some((kind, _)), _) => Some(kind.to_owned()),
        (None, Some(kind)) if !kind.contains('/') => Some(kind.clone()),
        _ => None,
    };
    let Some(kind) = kind else {
        let paths: BTreeSet<&str> = keys
            .iter()
            .filter_map(|key| place(key, &reader.kinds))
            .map(|place| place.path)
            .collect();
        let names = paths.into_iter().filter_map(|path| reader.kinds.at(path));
        return Some(names.map(Resource::name).collect());
    };
    let slash = typed.contains('/');
    let words = Words {
        objects: std::slice::from_ref(&kind),
        namespace: None,
    };
    let selection = Selection::parse(&words, &reader.kinds).ok()?;
    let places = keys.iter().filter_map(|key| place(key, &reader.kinds));
    let names: BTreeSet<String> = places
        .filter(|place| selection.takes_place(place))
        .map(|place| match slash {
            true => format!("{kind}/{}", place.name),
            false => place.name.to_owned(),
        })
        .collect();
    Some(names.into_iter().collect())
}

/// The namespaces of the backup.
pub(super) fn namespaces(words: &[OsString], store: &Path) -> Vec<String> {
    let read = || {
        let (set, _) = typed_so_far(words)?;
        let opened = opened(&set, store)?;
        let mut reader = Reader::new(&opened, Keys::default()).ok()?;
        let keys = reader.keys_and_kinds().ok()?;
        let places = keys.iter().filter_map(|key| place(key, &reader.kinds));
        let names: BTreeSet<String> = places
            .filter_map(|place| match place.path {
                "namespaces" => Some(place.name),
                _ => place.namespace,
            })
            .map(str::to_owned)
            .collect();
        Some(names.into_iter().collect())
    };
    read().unwrap_or_default()
}
