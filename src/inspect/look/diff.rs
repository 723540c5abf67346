//! What differs between two databases, by the objects in them.
//!
//! Keys are compared in order: a key of one side only is removed or added. A key of both sides is the same if its
//! revisions and a hash of its value are. Of the others both values are decoded: an encrypted value differs after
//! each write, and only the plain object says whether it does.
//!
//! Both databases are read at once, each in one pass, in bounded memory ([`crate::etcd::keyspace::sorted`]).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::RandomState;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::reader::Reader;
use super::reader::is_definition;
use super::select::Selection;
use crate::error::{Failure, Kind, Result};
use crate::etcd::keyspace::{self, Ask, Database, Key, Keyspace, Sorted};
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
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Also what changes all the time: Leases, Events, leader elections, managedFields.
    pub all: bool,
    /// Decode objects of one side as well.
    pub objects: bool,
    /// The first database as it was at this revision; by default the current one.
    pub revision: Option<i64>,
    /// A folder for scratch files, should the keys not fit into memory.
    pub scratch: &'a Path,
}

/// Compares two databases and hands over each object that differs, in the order of keys. Both readers learn the kinds of
/// their databases.
///
/// # Errors
/// As [`Keyspace::read`], [`Kind::Store`] if scratch files cannot be written, and what `take` returns.
pub fn diff(
    first: &mut Reader<'_>,
    second: &mut Reader<'_>,
    selection: &Selection,
    rules: Rules<'_>,
    take: &mut dyn FnMut(&Differing<'_>) -> Result<()>,
) -> Result<Summary> {
    let hasher = RandomState::new();
    let pass = Pass {
        selection,
        rules,
        hasher: &hasher,
    };
    let (of_first, of_second) = (
        (first.database, first.kinds.clone()),
        (second.database, second.kinds.clone()),
    );
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| pass.read(&of_second.0, &of_second.1, None));
        let one = pass.read(&of_first.0, &of_first.1, rules.revision);
        (one, other.join())
    });
    let ended = |_| {
        let what = "the thread of the second database ended early";
        Failure::new(Kind::Unexpected, what)
    };
    let ((a, of_first), (b, of_second)) = (a?, b.map_err(ended)??);
    first.learn_from(&of_first)?;
    second.learn_from(&of_second)?;
    let mut pair = Pair {
        first,
        second,
        rules,
        summary: Summary::default(),
    };
    let (mut left, mut right) = (Side::new(a), Side::new(b));
    left.advance()?;
    right.advance()?;
    loop {
        let order = match (left.key(), right.key()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.name.cmp(right.name),
        };
        let keys = (
            left.key().filter(|_| order.is_le()),
            right.key().filter(|_| order.is_ge()),
        );
        pair.compare(keys.0, keys.1, selection, take)?;
        if order.is_le() {
            left.advance()?;
        }
        if order.is_ge() {
            right.advance()?;
        }
    }
    Ok(pair.summary)
}

fn is_restless(place: &Place<'_>, rules: Rules<'_>) -> bool {
    !rules.all && RESTLESS.contains(&place.path)
}

/// How both databases are read.
struct Pass<'p> {
    selection: &'p Selection,
    rules: Rules<'p>,
    hasher: &'p RandomState,
}

impl Pass<'_> {
    /// The keys of a database that may be meant, and its definitions.
    fn read<'a>(
        &self,
        database: &Database<'a>,
        kinds: &Kinds,
        revision: Option<i64>,
    ) -> Result<(Sorted, Keyspace<'a>)> {
        let ask = Ask {
            revision,
            wants: &|key| self.may_want(key, kinds),
            aside: &is_definition,
            hasher: Some(self.hasher),
            scratch: self.rules.scratch,
            room: keyspace::ROOM,
        };
        keyspace::sorted(database, &ask)
    }

    /// Whether a key may be meant. The kinds are not all known yet: one of an unknown kind may be.
    fn may_want(&self, key: &[u8], kinds: &Kinds) -> bool {
        match place(key, kinds) {
            Some(place) if kinds.at(place.path).is_some() => {
                !is_restless(&place, self.rules) && self.selection.takes_place(&place)
            }
            _ => true,
        }
    }
}

/// The keys of one database, one at a time.
struct Side {
    keys: Sorted,
    /// The current key, apart from its name.
    current: Option<Key<'static>>,
    name: Vec<u8>,
}

impl Side {
    fn new(keys: Sorted) -> Self {
        Self {
            keys,
            current: None,
            name: Vec::new(),
        }
    }

    fn advance(&mut self) -> Result<()> {
        self.name.clear();
        self.current = self.keys.next_key()?.map(|key| {
            self.name.extend_from_slice(key.name);
            Key { name: b"", ..key }
        });
        Ok(())
    }

    fn key(&self) -> Option<Key<'_>> {
        self.current.map(|key| Key {
            name: &self.name,
            ..key
        })
    }
}

struct Pair<'p, 'a, 'b> {
    first: &'p Reader<'a>,
    second: &'p Reader<'b>,
    rules: Rules<'p>,
    summary: Summary,
}

impl Pair<'_, '_, '_> {
    fn compare(
        &mut self,
        left: Option<Key<'_>>,
        right: Option<Key<'_>>,
        selection: &Selection,
        take: &mut dyn FnMut(&Differing<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(name) = left.or(right).map(|key| key.name) else {
            return Ok(());
        };
        let kinds = match right {
            Some(_) => &self.second.kinds,
            None => &self.first.kinds,
        };
        let wanted = place(name, kinds)
            .filter(|place| !is_restless(place, self.rules) && selection.takes_place(place));
        let Some(place) = wanted else {
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
    fn one(&self, side: &Reader<'_>, key: &Key<'_>) -> Result<Option<Object>> {
        let place = place(key.name, &side.kinds);
        let needed = place.is_some_and(|place| DECODED.contains(&place.path));
        match self.rules.objects || needed {
            true => Ok(side.object(key)?.ok()),
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
        let before = self.first.object(left)?.ok();
        let after = self.second.object(right)?.ok();
        let recreated = left.create_revision != right.create_revision;
        let difference = match (&before, &after) {
            (Some(before), Some(after)) => {
                // Another uid is another object of the same name.
                if before.meta("uid") != after.meta("uid") {
                    Difference::Replaced
                } else if is_same(before, after, self.rules.all) {
                    return Ok(None);
                } else {
                    Difference::Changed
                }
            }
            _ => {
                // Without the objects, only etcd's own revisions tell.
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
            // They change with each write, whatever it changed.
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
