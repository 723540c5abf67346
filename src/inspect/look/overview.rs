//! What is in a database, in numbers.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::etcd::keyspace::{self, Ask, Key};
use crate::objects::kinds::{Resource, place};

use super::reader::{Reader, is_definition};
use super::select::Selection;

/// Objects of one kind in one namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// How many.
    pub objects: u64,
    /// Bytes of their stored values.
    pub bytes: u64,
}

impl Cell {
    fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// A kind with its objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KindRow {
    /// `PLURAL` or `PLURAL.GROUP`; the path in the keys where the kind is unknown.
    pub name: String,
    /// The kind; nothing if it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// All of its objects.
    #[serde(flatten)]
    pub all: Cell,
    /// By namespace; empty for a kind that is not in namespaces.
    pub namespaces: BTreeMap<String, Cell>,
}

/// What is in a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// What was looked into.
    pub set: String,
    /// The revision.
    pub revision: i64,
    /// All objects.
    #[serde(flatten)]
    pub all: Cell,
    /// By kind, in the order of names.
    pub kinds: Vec<KindRow>,
    /// By namespace.
    pub namespaces: BTreeMap<String, Cell>,
    /// Keys that are not objects of an API.
    pub other_keys: Cell,
}

/// Counts the objects that a selection means. What does not fit into memory goes to a folder for scratch files.
///
/// # Errors
/// As [`keyspace::sorted`].
pub fn overview(
    reader: &mut Reader<'_>,
    selection: &Selection,
    revision: Option<i64>,
    scratch: &Path,
) -> Result<Overview> {
    let ask = Ask {
        revision,
        wants: &|_| true,
        aside: &is_definition,
        hasher: None,
        scratch,
        room: keyspace::ROOM,
    };
    let (mut space, definitions) = keyspace::sorted(&reader.database, &ask)?;
    reader.learn_from(&definitions)?;
    let mut kinds: BTreeMap<String, (Cell, BTreeMap<String, Cell>)> = BTreeMap::new();
    let (mut namespaces, mut other_keys, mut all) =
        (BTreeMap::new(), Cell::default(), Cell::default());
    let every = selection.is_every_kind();
    while let Some(key) = space.next_key()? {
        let cell = cell(&key);
        let Some(place) = place(key.name, &reader.kinds) else {
            other_keys.add(cell);
            continue;
        };
        if !selection.takes_place(&place) {
            continue;
        }
        // `entry` would make a text for each of many keys.
        if !kinds.contains_key(place.path) {
            kinds.insert(place.path.to_owned(), Default::default());
        }
        let Some((of_kind, by_namespace)) = kinds.get_mut(place.path) else {
            continue;
        };
        of_kind.add(cell);
        all.add(cell);
        if let Some(namespace) = place.namespace {
            by_namespace
                .entry(namespace.to_owned())
                .or_default()
                .add(cell);
            let of_namespace: &mut Cell = namespaces.entry(namespace.to_owned()).or_default();
            of_namespace.add(cell);
        }
    }
    let rows = kinds.into_iter().map(|(path, (all, namespaces))| {
        let kind = reader.kinds.at(&path);
        KindRow {
            name: kind.map_or_else(|| path.clone(), Resource::name),
            kind: kind.map(|kind| kind.kind.clone()),
            all,
            namespaces,
        }
    });
    let mut rows: Vec<KindRow> = rows.collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Overview {
        set: reader.source().name.clone(),
        revision: space.revision,
        all,
        kinds: rows,
        namespaces,
        other_keys: if every { other_keys } else { Cell::default() },
    })
}

fn cell(key: &Key<'_>) -> Cell {
    Cell {
        objects: 1,
        bytes: u64::from(key.value.len),
    }
}
