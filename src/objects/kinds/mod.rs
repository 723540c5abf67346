//! Which kind is stored under which key, and by which names people call it.
//!
//! A key is `PREFIX/RESOURCE/[NAMESPACE/]NAME`. The prefix is the API server's `--etcd-prefix`: `/registry` by
//! default, `/kubernetes.io` and `/openshift.io` on OpenShift. The resource is the plural name for a built-in kind, with a few
//! exceptions ([`builtin`]), and `GROUP/PLURAL` for CustomResourceDefinitions, APIServices and custom resources
//! (k8s.io/kubernetes, `pkg/kubeapiserver/default_storage_factory_builder.go`; openshift-apiserver,
//! `pkg/cmd/openshift-apiserver/openshiftadmission`).

mod builtin;
mod place;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use place::{Place, place};

/// A kind with its names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: String,
    /// The plural name, in lower case.
    pub plural: String,
    /// The singular name, in lower case.
    pub singular: String,
    /// Short names.
    pub short: Vec<String>,
    /// The kind.
    pub kind: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// What stands between the prefix and the namespace or name in keys.
    pub path: String,
}

impl Resource {
    /// `PLURAL`, or `PLURAL.GROUP`, as `kubectl api-resources -o name` prints it.
    pub fn name(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// Whether a word names it: plural, singular, short name or kind, alone or followed by `.GROUP` or `.VERSION.GROUP`.
    pub fn is_called(&self, word: &str) -> bool {
        let word = word.to_ascii_lowercase();
        let (name, rest) = word
            .split_once('.')
            .map_or((word.as_str(), None), |(name, rest)| (name, Some(rest)));
        let named = name == self.plural
            || name == self.singular
            || name.eq_ignore_ascii_case(&self.kind)
            || self.short.iter().any(|short| short == name);
        named && rest.is_none_or(|rest| rest == self.group || is_version_of(rest, &self.group))
    }
}

/// `v1.apps` of `apps`, and `v1.` or `v1` of the core group.
fn is_version_of(rest: &str, group: &str) -> bool {
    let (version, of) = rest.split_once('.').unwrap_or((rest, ""));
    let mut letters = version.chars();
    letters.next() == Some('v') && letters.next().is_some_and(|c| c.is_ascii_digit()) && of == group
}

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn called(kinds: &Kinds, word: &str) -> Vec<String> {
        kinds.called(word).into_iter().map(Resource::name).collect()
    }

    #[test]
    fn a_kind_answers_to_all_of_its_names() {
        let kinds = Kinds::default();
        for word in [
            "deployments",
            "deployment",
            "deploy",
            "Deployment",
            "deploy.apps",
            "deployments.v1.apps",
        ] {
            assert_eq!(called(&kinds, word), ["deployments.apps"], "{word}");
        }
        assert_eq!(called(&kinds, "po"), ["pods"]);
        assert_eq!(called(&kinds, "no"), ["nodes"]);
        assert_eq!(called(&kinds, "pods.v1"), ["pods"]);
        assert_eq!(called(&kinds, "svc"), ["services"]);
        assert!(called(&kinds, "deploy.batch").is_empty());
        assert!(called(&kinds, "widgets").is_empty());
    }

    #[test]
    fn definitions_add_their_kinds() {
        let mut kinds = Kinds::default();
        let definition = json!({"spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]}}});
        kinds.define(definition.as_object().unwrap());
        assert_eq!(called(&kinds, "wd"), ["widgets.example.com"]);
        assert_eq!(
            called(&kinds, "widget.example.com"),
            ["widgets.example.com"]
        );
        // A custom kind of a built-in one's name is meant only with its group.
        let definition = json!({"spec": {"group": "example.com", "scope": "Cluster",
            "names": {"plural": "pods", "kind": "Pod"}}});
        kinds.define(definition.as_object().unwrap());
        assert_eq!(called(&kinds, "pods"), ["pods"]);
        assert_eq!(called(&kinds, "pods.example.com"), ["pods.example.com"]);
        kinds.define(json!({"spec": {}}).as_object().unwrap());
    }
}
