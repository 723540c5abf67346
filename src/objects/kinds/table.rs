//! The kinds of a database.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::builtin;
use super::resource::Resource;

/// The kinds of one database: the built-in ones and those of its CustomResourceDefinitions.
#[derive(Debug, Clone)]
pub struct Kinds {
    by_path: BTreeMap<String, Resource>,
}

impl Default for Kinds {
    fn default() -> Self {
        let all = builtin::all().into_iter();
        Self {
            by_path: all
                .map(|resource| (resource.path.clone(), resource))
                .collect(),
        }
    }
}

impl Kinds {
    /// Adds the kind that a CustomResourceDefinition defines, of whichever version it is.
    pub fn define(&mut self, definition: &Map<String, Value>) {
        let spec = definition.get("spec");
        let names = spec.and_then(|spec| spec.get("names"));
        let text = |value: Option<&Value>, field: &str| -> String {
            let value = value
                .and_then(|value| value.get(field))
                .and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let (group, plural, kind) = (
            text(spec, "group"),
            text(names, "plural"),
            text(names, "kind"),
        );
        if group.is_empty() || plural.is_empty() || kind.is_empty() {
            return;
        }
        let singular = match text(names, "singular") {
            none if none.is_empty() => kind.to_ascii_lowercase(),
            singular => singular,
        };
        let short = names
            .and_then(|names| names.get("shortNames"))
            .and_then(Value::as_array);
        let short = short
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned);
        let path = format!("{group}/{plural}");
        let resource = Resource {
            short: short.collect(),
            namespaced: text(spec, "scope") != "Cluster",
            path: path.clone(),
            group,
            plural,
            singular,
            kind,
        };
        self.by_path.insert(path, resource);
    }

    /// The kind under a path of keys.
    pub fn at(&self, path: &str) -> Option<&Resource> {
        self.by_path.get(path)
    }

    /// The kinds that a word names. Like kubectl, the built-in kinds come before others where it has no group.
    pub fn called(&self, word: &str) -> Vec<&Resource> {
        let mut found: Vec<&Resource> = self
            .by_path
            .values()
            .filter(|kind| kind.is_called(word))
            .collect();
        if !word.contains('.')
            && found
                .iter()
                .any(|kind| !kind.path.contains('/') || kind.path.starts_with("services/"))
        {
            found.retain(|kind| !kind.path.contains('/') || kind.path.starts_with("services/"));
        }
        found
    }

    /// All kinds, by the path of their keys.
    pub fn all(&self) -> impl Iterator<Item = &Resource> {
        self.by_path.values()
    }
}
