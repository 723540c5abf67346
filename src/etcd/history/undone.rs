//! What a restore to a revision undoes: the changes after it, by resource and namespace.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::object::ObjectKey;
use super::read::{Change, History};
use crate::error::Result;

/// Groups told apart; the keys of more are counted together.
const MAX_GROUPS: usize = 4096;
/// How many groups are listed.
const LISTED: usize = 20;

/// Keys, by what became of them after the revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Created after it: a restore removes them.
    pub created: u64,
    /// Changed after it: a restore brings the earlier version back.
    pub changed: u64,
    /// Deleted after it: a restore brings them back.
    pub deleted: u64,
}

impl Tally {
    /// All of them.
    pub fn total(self) -> u64 {
        self.created + self.changed + self.deleted
    }

    fn add(&mut self, existed: bool, exists: bool) {
        match (existed, exists) {
            (false, true) => self.created += 1,
            (true, true) => self.changed += 1,
            (true, false) => self.deleted += 1,
            // It came and went: nothing of it is left to undo.
            (false, false) => {}
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            created: self.created + other.created,
            changed: self.changed + other.changed,
            deleted: self.deleted + other.deleted,
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            (self.deleted, "deleted"),
            (self.changed, "changed"),
            (self.created, "created"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts.map(|(n, what)| format!("{n} {what}")).collect();
        f.write_str(&parts.join(", "))
    }
}

/// The changes of one resource in one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoneGroup {
    /// The resource, with its group behind a dot; of other keys, what they begin with.
    pub resource: String,
    /// The namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What became of its keys.
    #[serde(flatten)]
    pub tally: Tally,
}

/// What a restore to a revision undoes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Undone {
    /// Revisions after it.
    pub revisions: u64,
    /// All keys.
    #[serde(flatten)]
    pub total: Tally,
    /// By resource and namespace, the most first; at most 20.
    pub groups: Vec<UndoneGroup>,
    /// Groups besides those listed.
    #[serde(default)]
    pub more_groups: u64,
}

type Group = (String, Option<String>);

/// The group that a key belongs to.
fn group(key: &[u8]) -> Group {
    match ObjectKey::parse(key) {
        Some(object) => {
            let resource = match object.group {
                Some(group) => format!("{}.{group}", object.resource),
                None => object.resource.to_owned(),
            };
            (resource, object.namespace.map(str::to_owned))
        }
        None => {
            let text = String::from_utf8_lossy(key);
            let parent = text.rsplit_once('/').map_or("", |(parent, _)| parent);
            let shown: String = parent.chars().take(64).collect();
            (format!("{shown}/"), None)
        }
    }
}

const EXISTS: u32 = 1 << 31;
const EXISTED: u32 = 1 << 30;
const GROUP: u32 = EXISTED - 1;

impl Undone {
    /// Counts the changes of a history after a revision. Memory grows by about 16 bytes for each key
    /// that was changed.
    ///
    /// # Errors
    /// Those of reading the history.
    pub fn after(history: &History, revision: i64) -> Result<Self> {
        let mut groups: BTreeMap<Group, u32> = BTreeMap::new();
        // Random, so that no one can write keys whose hashes are equal.
        let hasher = RandomState::new();
        let mut keys: HashMap<u64, u32> = HashMap::new();
        history.newest_first(revision, &mut |change| {
            let known = keys.entry(hasher.hash_one(change.key)).or_insert_with(|| {
                let exists = if change.put.is_some() { EXISTS } else { 0 };
                exists | number(&mut groups, change)
            });
            // The oldest change after the revision tells whether the key was there.
            let created = change.put.is_some_and(|put| put.version == 1);
            *known = if created {
                *known & !EXISTED
            } else {
                *known | EXISTED
            };
            Ok(ControlFlow::Continue(()))
        })?;
        let mut tallies = vec![Tally::default(); groups.len() + 1];
        for state in keys.values() {
            if let Some(tally) = tallies.get_mut((state & GROUP) as usize) {
                tally.add(state & EXISTED != 0, state & EXISTS != 0);
            }
        }
        let revisions = history.span().to.saturating_sub(revision).max(0);
        Ok(Self::listed(revisions.cast_unsigned(), groups, &tallies))
    }

    fn listed(revisions: u64, groups: BTreeMap<Group, u32>, tallies: &[Tally]) -> Self {
        let total = tallies
            .iter()
            .fold(Tally::default(), |all, one| all.and(*one));
        let mut groups: Vec<UndoneGroup> = groups
            .into_iter()
            .map(|((resource, namespace), number)| UndoneGroup {
                resource,
                namespace,
                tally: tallies.get(number as usize).copied().unwrap_or_default(),
            })
            .filter(|group| group.tally.total() > 0)
            .collect();
        groups.sort_by_key(|group| std::cmp::Reverse((group.tally.deleted, group.tally.total())));
        let more_groups = groups.len().saturating_sub(LISTED) as u64;
        groups.truncate(LISTED);
        Self {
            revisions,
            total,
            groups,
            more_groups,
        }
    }
}

/// The number of a change's group, from 1; 0 for those that are not told apart.
fn number(groups: &mut BTreeMap<Group, u32>, change: &Change<'_>) -> u32 {
    let group = group(change.key);
    let next = groups.len() + 1;
    match groups.get(&group) {
        Some(number) => *number,
        None if next > MAX_GROUPS => 0,
        None => {
            groups.insert(group, next as u32);
            next as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_grouped() {
        let of = |key: &str| group(key.as_bytes());
        let some = |resource: &str, namespace: Option<&str>| {
            (resource.to_owned(), namespace.map(str::to_owned))
        };
        assert_eq!(of("/registry/pods/prod/a"), some("pods", Some("prod")));
        assert_eq!(of("/registry/namespaces/prod"), some("namespaces", None));
        let thing = some("things.example.com", Some("prod"));
        assert_eq!(of("/registry/example.com/things/prod/x"), thing);
        assert_eq!(of("compact_rev_key"), some("/", None));
        assert_eq!(of("a/b/c"), some("a/b/", None));
    }

    #[test]
    fn what_was_created_and_deleted_need_not_be_undone() {
        let mut tally = Tally::default();
        for (existed, exists) in [(false, true), (true, true), (true, false), (false, false)] {
            tally.add(existed, exists);
        }
        assert_eq!(tally.to_string(), "1 deleted, 1 changed, 1 created");
        assert_eq!(tally.total(), 3);
    }
}
