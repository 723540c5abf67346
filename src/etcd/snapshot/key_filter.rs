//! Collecting the latest values of a few keys while the store is read, and counting values by what they begin with.

use std::collections::BTreeMap;

/// The class of a value, by its key and its first bytes, in two words; most values have none.
pub type Classify = fn(&[u8], &[u8]) -> Option<(String, String)>;

/// Classes that are counted; values of more are passed over.
const MAX_CLASSES: usize = 64;

/// Which keys' latest values a caller wants, and how much of them.
#[derive(Debug, Clone)]
pub struct KeyFilter {
    /// Keys, exactly.
    pub keys: Vec<Vec<u8>>,
    /// Beginnings of keys.
    pub prefixes: Vec<Vec<u8>>,
    /// Of a longer value only the length is reported.
    pub max_value: usize,
    /// Bytes of all collected keys and values; what comes after is left out.
    pub max_total: usize,
    /// Counts the values of keys that are alive by their classes.
    pub classify: Option<Classify>,
}

impl Default for KeyFilter {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            prefixes: Vec::new(),
            max_value: 1 << 20,
            max_total: 8 << 20,
            classify: None,
        }
    }
}

/// The latest version of a key that is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatestValue {
    /// The user's key.
    pub key: Vec<u8>,
    /// The value; nothing if it is longer than was wanted.
    pub value: Option<Vec<u8>>,
    /// Bytes of the value.
    pub value_len: u64,
    /// Revision at which the key was created.
    pub create_revision: i64,
    /// Revision of this version.
    pub mod_revision: i64,
    /// Puts since it was created.
    pub version: i64,
}

/// What was collected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// By key, ascending.
    pub values: Vec<LatestValue>,
    /// Keys left out because there was no room for them.
    pub left_out: u64,
    /// The values that have a class.
    pub classes: BTreeMap<(String, String), Class>,
}

/// Values of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// How many.
    pub count: u64,
    /// The key of one of them.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Collected {
    /// The latest value of a key, if it was collected.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let at = self.values.binary_search_by(|v| v.key.as_slice().cmp(key));
        self.values.get(at.ok()?)?.value.as_deref()
    }
}

/// The collector.
pub(super) struct Collector {
    wanted: KeyFilter,
    room: usize,
    collected: Collected,
}

impl Collector {
    pub(super) fn new(mut wanted: KeyFilter) -> Self {
        wanted.keys.sort();
        Self {
            room: wanted.max_total,
            wanted,
            collected: Collected::default(),
        }
    }

    pub(super) fn wants(&self, key: &[u8]) -> bool {
        self.wanted.prefixes.iter().any(|p| key.starts_with(p))
            || (!self.wanted.keys.is_empty()
                && self
                    .wanted
                    .keys
                    .binary_search_by(|k| k.as_slice().cmp(key))
                    .is_ok())
    }

    /// Counts the value of a key that is alive.
    pub(super) fn classify(&mut self, key: &[u8], value: &[u8]) {
        let Some(class) = self.wanted.classify.and_then(|class| class(key, value)) else {
            return;
        };
        let classes = &mut self.collected.classes;
        if let Some(known) = classes.get_mut(&class) {
            known.count += 1;
        } else if classes.len() < MAX_CLASSES {
            let (key, value) = (key.to_vec(), value.to_vec());
            let first = Class {
                count: 1,
                key,
                value,
            };
            classes.insert(class, first);
        }
    }

    /// Whether [`Collector::classify`] would count a value.
    pub(super) fn has_class(&self, key: &[u8], value: &[u8]) -> bool {
        let class = self.wanted.classify.and_then(|class| class(key, value));
        class.is_some()
    }

    /// A value, if it is not longer than was wanted.
    pub(super) fn held<'v>(&self, value: Option<&'v [u8]>) -> Option<&'v [u8]> {
        value.filter(|value| value.len() <= self.wanted.max_value)
    }

    /// Takes a key that is wanted. `value` is nothing if it could not be held.
    pub(super) fn take(&mut self, mut latest: LatestValue, value: Option<&[u8]>) {
        let value = self.held(value);
        let size = latest.key.len() + value.map_or(0, <[u8]>::len) + 64;
        if size > self.room {
            self.collected.left_out += 1;
            return;
        }
        self.room -= size;
        latest.value = value.map(<[u8]>::to_vec);
        self.collected.values.push(latest);
    }

    pub(super) fn finish(mut self) -> Collected {
        self.collected.values.sort_by(|a, b| a.key.cmp(&b.key));
        self.collected
    }
}
