//! What differs between two databases, by the objects in them.
//!
//! Keys are compared in order: a key of one side only is removed or added. A key of both sides is the same if its
//! revisions and a hash of its value are. Of the others both values are decoded: an encrypted value differs after
//! each write, and only the plain object says whether it does.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::reader::Reader;
use super::select::Selection;
use crate::error::Result;
use crate::etcd::keyspace::{Key, Keyspace};
use crate::objects::Object;
use crate::objects::kinds::{Kinds, Place, Resource, place};

/// Kinds that change all the time.
const RESTLESS: [&str; 3] = ["leases", "events", "leasecandidates"];
/// Kinds whose objects are always decoded: what a loss report says depends on their content.
const DECODED: [&str; 2] = ["pods", "services/specs"];
/// Where older leader elections write the time every few seconds.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// What happened to an object between the first database and the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Difference {
    /// It is in the second only.
    Added,
    /// It is in the first only.
    Removed,
    /// The second has another object of that name: another uid.
    Replaced,
    /// It is the same object with other content.
    Changed,
}

/// How many objects differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// In the second only.
    pub added: u64,
    /// In the first only.
    pub removed: u64,
    /// Another object of that name.
    pub replaced: u64,
    /// Other content.
    pub changed: u64,
}

impl Counts {
    fn count(&mut self, difference: Difference) {
        *match difference {
            Difference::Added => &mut self.added,
            Difference::Removed => &mut self.removed,
            Difference::Replaced => &mut self.replaced,
            Difference::Changed => &mut self.changed,
        } += 1;
    }

    /// All of them.
    pub fn all(&self) -> u64 {
        self.added + self.removed + self.replaced + self.changed
    }
}

/// The objects of both sides, where they were decoded and can be shown.
type Sides = (Option<Object>, Option<Object>);

/// An object that differs.
pub struct Differing<'k> {
    /// How.
    pub difference: Difference,
    /// Its place in the keys.
    pub place: Place<'k>,
    /// `PLURAL.GROUP`; the path in the keys where the kind is unknown.
    pub kind: String,
    /// The revisions of its last change on both sides.
    pub revisions: (Option<i64>, Option<i64>),
    /// The objects, where they were decoded and can be shown.
    pub objects: Sides,
}

/// What differs, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// All objects that differ.
    pub counts: Counts,
    /// By kind.
    pub kinds: BTreeMap<String, Counts>,
    /// By namespace, of kinds that are in namespaces.
    pub namespaces: BTreeMap<String, Counts>,
    /// Objects that are the same.
    pub same: u64,
    /// Objects of both sides whose content could not be compared, since it cannot be read. They count as changed.
    pub unread: u64,
}

/// What is compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Also what changes all the time: Leases, Events, leader elections, managedFields.
    pub all: bool,
    /// Decode objects of one side as well.
    pub objects: bool,
}

/// Compares two databases and hands over each object that differs, in the order of keys.
///
/// # Errors
/// As [`Keyspace::read`], and what `take` returns.
pub fn diff(
    first: &Reader<'_>,
    second: &Reader<'_>,
    selection: &Selection,
    rules: Rules,
    take: &mut dyn FnMut(&Differing<'_>) -> Result<()>,
) -> Result<Summary> {
    let wants = |kinds: &Kinds, key: &[u8]| {
        place(key, kinds).is_some_and(|place| {
            let restless = !rules.all && RESTLESS.contains(&place.path);
            !restless && selection.takes_place(&place)
        })
    };
    let a = Keyspace::hashed(&first.database, &|key| wants(&first.kinds, key))?;
    let b = Keyspace::hashed(&second.database, &|key| wants(&second.kinds, key))?;
    let mut pair = Pair {
        first: (first, &a),
        second: (second, &b),
        rules,
        summary: Summary::default(),
    };
    let (mut left, mut right) = (a.keys().peekable(), b.keys().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.name.cmp(right.name),
        };
        let left = if order.is_le() { left.next() } else { None };
        let right = if order.is_ge() { right.next() } else { None };
        pair.compare(left, right, take)?;
    }
    Ok(pair.summary)
}

struct Pair<'p, 'a> {
    first: (&'p Reader<'a>, &'p Keyspace<'a>),
    second: (&'p Reader<'a>, &'p Keyspace<'a>),
    rules: Rules,
    summary: Summary,
}

impl Pair<'_, '_> {
    fn compare(
        &mut self,
        left: Option<Key<'_>>,
        right: Option<Key<'_>>,
        take: &mut dyn FnMut(&Differing<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(name) = left.or(right).map(|key| key.name) else {
            return Ok(());
        };
        let (difference, objects) = match (&left, &right) {
            (Some(left), Some(right)) => match self.both(left, right)? {
                Some(found) => found,
                None => {
                    self.summary.same += 1;
                    return Ok(());
                }
            },
            (Some(left), None) => (Difference::Removed, (self.one(self.first, left)?, None)),
            (None, Some(right)) => (Difference::Added, (None, self.one(self.second, right)?)),
            (None, None) => return Ok(()),
        };
        let kinds = if right.is_some() {
            &self.second.0.kinds
        } else {
            &self.first.0.kinds
        };
        let Some(place) = place(name, kinds) else {
            return Ok(());
        };
        let kind = kinds
            .at(place.path)
            .map_or_else(|| place.path.to_owned(), Resource::name);
        self.summary.counts.count(difference);
        self.summary
            .kinds
            .entry(kind.clone())
            .or_default()
            .count(difference);
        if let Some(namespace) = place.namespace {
            let of_namespace = self.summary.namespaces.entry(namespace.to_owned());
            of_namespace.or_default().count(difference);
        }
        take(&Differing {
            difference,
            place,
            kind,
            revisions: (
                left.map(|key| key.mod_revision),
                right.map(|key| key.mod_revision),
            ),
            objects,
        })
    }

    /// An object of one side, if it is wanted.
    fn one(&self, side: (&Reader<'_>, &Keyspace<'_>), key: &Key<'_>) -> Result<Option<Object>> {
        let place = place(key.name, &side.0.kinds);
        let needed = place.is_some_and(|place| DECODED.contains(&place.path));
        match self.rules.objects || needed {
            true => Ok(side.0.object(side.1, key)?.ok()),
            false => Ok(None),
        }
    }

    /// How an object of both sides differs, if it does.
    fn both(&mut self, left: &Key<'_>, right: &Key<'_>) -> Result<Option<(Difference, Sides)>> {
        let revisions = |key: &Key<'_>| (key.create_revision, key.mod_revision, key.version);
        let same_value = left.hash == right.hash && left.value.len == right.value.len;
        if same_value && (!self.rules.all || revisions(left) == revisions(right)) {
            return Ok(None);
        }
        let before = self.first.0.object(self.first.1, left)?.ok();
        let after = self.second.0.object(self.second.1, right)?.ok();
        let recreated = left.create_revision != right.create_revision;
        let difference = match (&before, &after) {
            (Some(before), Some(after)) => {
                if before.meta("uid") != after.meta("uid") {
                    Difference::Replaced
                } else if is_same(before, after, self.rules.all) {
                    return Ok(None);
                } else {
                    Difference::Changed
                }
            }
            _ => {
                self.summary.unread += 1;
                match recreated {
                    true => Difference::Replaced,
                    false => Difference::Changed,
                }
            }
        };
        Ok(Some((difference, (before, after))))
    }
}

/// Whether two objects say the same.
fn is_same(before: &Object, after: &Object, all: bool) -> bool {
    let plain = |object: &Object| {
        let mut json = object.json.clone();
        if let Some(metadata) = json.get_mut("metadata").and_then(Value::as_object_mut)
            && !all
        {
            for field in ["resourceVersion", "managedFields", "generation"] {
                metadata.remove(field);
            }
            let annotations = metadata
                .get_mut("annotations")
                .and_then(Value::as_object_mut);
            if let Some(annotations) = annotations {
                annotations.remove(LEADER);
            }
        }
        json
    };
    before.unknown_fields == after.unknown_fields && plain(before) == plain(after)
}
