//! Which objects are meant.

use std::collections::BTreeSet;

use crate::error::{Fact, Failure, Kind, Result};
use crate::objects::kinds::{Kinds, Place, Resource, place};

/// What was typed: kinds and names as kubectl takes them (`KIND`, `KIND,KIND`, `KIND/NAME`, `KIND NAME…`).
#[derive(Debug, Clone, Default)]
pub struct Words<'a> {
    /// Kinds and names.
    pub objects: &'a [String],
    /// Only of this namespace.
    pub namespace: Option<&'a str>,
}

/// The kinds, names and namespace that are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    items: Vec<Item>,
    namespace: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    kind: Resource,
    names: BTreeSet<String>,
}

impl Selection {
    /// Understands what was typed. Nothing typed means every kind.
    ///
    /// # Errors
    /// [`Kind::Usage`] with [`Fact::Candidates`] if a kind is unknown or means several.
    pub fn parse(words: &Words<'_>, kinds: &Kinds) -> Result<Self> {
        let mut items: Vec<Item> = Vec::new();
        let mut take = |kind: &Resource, name: Option<&str>| {
            let known = items.iter().position(|item| item.kind == *kind);
            let at = known.unwrap_or_else(|| {
                items.push(Item {
                    kind: kind.clone(),
                    names: BTreeSet::new(),
                });
                items.len() - 1
            });
            if let (Some(item), Some(name)) = (items.get_mut(at), name) {
                item.names.insert(name.to_owned());
            }
        };
        let mut pairs = words.objects.iter().map(|word| word.split_once('/'));
        match words.objects {
            [] => {}
            [first, names @ ..] if !first.contains('/') => {
                for word in first.split(',') {
                    let kind = one(word, kinds)?;
                    take(&kind, None);
                    for name in names {
                        if name.contains('/') {
                            let what =
                                format!("expected names of {first} after it, found {name:?}");
                            return Err(Failure::new(Kind::Usage, what));
                        }
                        take(&kind, Some(name));
                    }
                }
            }
            _ => {
                for (word, pair) in words.objects.iter().zip(&mut pairs) {
                    let Some((kind, name)) = pair.filter(|(_, name)| !name.is_empty()) else {
                        let what = format!("expected KIND/NAME, found {word:?}");
                        return Err(Failure::new(Kind::Usage, what));
                    };
                    take(&one(kind, kinds)?, Some(name));
                }
            }
        }
        Ok(Self {
            items,
            namespace: words.namespace.map(str::to_owned),
        })
    }

    /// Whether every kind is meant.
    pub fn is_every_kind(&self) -> bool {
        self.items.is_empty()
    }

    /// The kinds that are named.
    pub fn kinds(&self) -> impl Iterator<Item = &Resource> {
        self.items.iter().map(|item| &item.kind)
    }

    /// Whether one name is asked for: its object is shown by itself, unless several namespaces have one.
    pub fn is_single(&self) -> bool {
        match self.items.as_slice() {
            [item] => item.names.len() == 1,
            _ => false,
        }
    }

    /// Whether what is named can be under one key only.
    pub fn is_one_key(&self) -> bool {
        match self.items.as_slice() {
            [item] => item.names.len() == 1 && (self.namespace.is_some() || !item.kind.namespaced),
            _ => false,
        }
    }

    /// The names that were asked for, as `KIND/NAME`.
    pub fn named(&self) -> impl Iterator<Item = (&Resource, &str)> {
        self.items
            .iter()
            .flat_map(|item| item.names.iter().map(|name| (&item.kind, name.as_str())))
    }

    /// Whether the object under a key is meant. With a namespace and no kind, that namespace itself is too.
    pub fn takes(&self, key: &[u8], kinds: &Kinds) -> bool {
        place(key, kinds).is_some_and(|place| self.takes_place(&place))
    }

    /// The same of a key that was taken apart.
    pub fn takes_place(&self, place: &Place<'_>) -> bool {
        let namespace = self.namespace.as_deref();
        if self.items.is_empty() {
            let itself = place.path == "namespaces" && Some(place.name) == namespace;
            return itself || namespace.is_none() || place.namespace == namespace;
        }
        // A kind without namespaces is meant whatever the namespace.
        let in_namespace =
            namespace.is_none() || place.namespace.is_none() || place.namespace == namespace;
        in_namespace
            && self.items.iter().any(|item| {
                item.kind.path == place.path
                    && (item.names.is_empty() || item.names.contains(place.name))
            })
    }
}

/// Whether the built-in kinds do not answer to a word, so that the database's own may.
pub(super) fn is_foreign(words: &Words<'_>, kinds: &Kinds) -> bool {
    let named = words.objects.iter().enumerate().flat_map(|(at, word)| {
        let kind = word.split_once('/').map(|(kind, _)| kind);
        kind.or((at == 0).then_some(word.as_str()))
            .into_iter()
            .flat_map(|word| word.split(','))
    });
    named.into_iter().any(|word| kinds.called(word).is_empty())
}

impl Words<'_> {
    /// Whether the kinds of the database's CustomResourceDefinitions are needed to understand them.
    pub fn need_definitions(&self, kinds: &Kinds) -> bool {
        is_foreign(self, kinds)
    }
}

fn one(word: &str, kinds: &Kinds) -> Result<Resource> {
    match kinds.called(word).as_slice() {
        [kind] => Ok((*kind).clone()),
        [] if word.contains('.') => Ok(undefined(word)),
        [] => {
            let what = format!("there is no kind {word:?} in this database");
            let likeness = |kind: &Resource| strsim::jaro_winkler(&kind.plural, word);
            let mut near: Vec<_> = kinds.all().map(|kind| (likeness(kind), kind)).collect();
            near.retain(|(likeness, _)| *likeness > 0.85);
            near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
            let near: Vec<String> = near.into_iter().map(|(_, kind)| kind.name()).collect();
            let failure = Failure::new(Kind::Usage, what);
            Err(match near.is_empty() {
                true => failure,
                false => failure.with(Fact::Candidates(near)),
            })
        }
        several => {
            let what = format!("{word:?} means several kinds");
            let names = several.iter().map(|kind| kind.name()).collect();
            Err(Failure::new(Kind::Usage, what).with(Fact::Candidates(names)))
        }
    }
}

/// A kind that is named in full, `PLURAL.GROUP`, and whose definition is not in the database. Its keys say where its objects
/// are.
fn undefined(word: &str) -> Resource {
    let (plural, group) = word.split_once('.').unwrap_or((word, ""));
    Resource {
        group: group.to_owned(),
        plural: plural.to_owned(),
        singular: plural.to_owned(),
        short: Vec::new(),
        kind: plural.to_owned(),
        namespaced: true,
        path: format!("{group}/{plural}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(objects: &[&str], namespace: Option<&str>) -> Result<Selection> {
        let objects: Vec<String> = objects.iter().map(|word| (*word).to_owned()).collect();
        let words = Words {
            objects: &objects,
            namespace,
        };
        Selection::parse(&words, &Kinds::default())
    }

    #[test]
    fn kinds_and_names_are_understood_as_kubectl_does() {
        let kinds = Kinds::default();
        let takes = |selection: &Selection, key: &str| selection.takes(key.as_bytes(), &kinds);
        let pods = parse(&["po"], Some("shop")).unwrap();
        assert!(takes(&pods, "/registry/pods/shop/a"));
        assert!(!takes(&pods, "/registry/pods/other/a"));
        assert!(!takes(&pods, "/registry/secrets/shop/a"));
        let two = parse(&["deploy/web", "svc/web"], None).unwrap();
        assert!(takes(&two, "/kubernetes.io/deployments/any/web"));
        assert!(takes(&two, "/registry/services/specs/any/web"));
        assert!(!takes(&two, "/registry/services/specs/any/db"));
        let named = parse(&["cm,secret", "a", "b"], None).unwrap();
        assert!(takes(&named, "/registry/secrets/x/b"));
        assert!(!takes(&named, "/registry/secrets/x/c"));
        let nodes = parse(&["node", "cp-1"], Some("shop")).unwrap();
        assert!(nodes.is_single() && takes(&nodes, "/registry/minions/cp-1"));
        assert!(!pods.is_single());
        let all = parse(&[], Some("shop")).unwrap();
        assert!(takes(&all, "/registry/namespaces/shop"));
        assert!(takes(&all, "/registry/example.com/widgets/shop/w"));
        assert!(!takes(&all, "/registry/namespaces/other"));
        assert!(!takes(&all, "/registry/clusterroles/r"));
    }

    #[test]
    fn what_is_not_understood_names_what_is_near() {
        let failure = parse(&["deploymnets"], None).unwrap_err();
        assert_eq!(failure.kind(), Kind::Usage);
        let near = ["deployments.apps", "deploymentconfigs.apps.openshift.io"];
        let near = near.map(str::to_owned).to_vec();
        assert_eq!(failure.facts(), [Fact::Candidates(near)]);
        assert!(parse(&["pods", "deploy/x"], None).is_err());
        let undefined = parse(&["widgets.example.com/w"], None).unwrap();
        assert!(undefined.takes(b"/registry/example.com/widgets/w", &Kinds::default()));
        assert!(parse(&["deploy/x", "pods"], None).is_err());
        assert!(parse(&["deploy/"], None).is_err());
    }
}
