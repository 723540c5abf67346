//! What fills a store: counts and bytes by the first components of the keys.

use std::collections::HashMap;

use serde::Serialize;

/// Prefixes counted by themselves; keys of further ones are counted together.
const MOST: usize = 4096;
/// A longer prefix is cut.
const LONGEST: usize = 160;

/// How much is under one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Keys that are alive.
    pub keys: u64,
    /// Bytes of their latest keys and values.
    pub bytes: u64,
    /// Revisions in the file, of keys alive or not.
    pub revisions: u64,
    /// Bytes of all these revisions as stored.
    pub revision_bytes: u64,
}

impl Usage {
    fn add(&mut self, live: bool, bytes: u64, stored: u64) {
        if live {
            self.keys += 1;
            self.bytes += bytes;
        }
        self.revisions += 1;
        self.revision_bytes += stored;
    }
}

/// A prefix with its usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrefixUsage {
    /// The first components of the keys, like `/registry/pods`; a component that names an API
    /// group (it has a dot) is followed by one more.
    pub prefix: String,
    /// How much there is.
    #[serde(flatten)]
    pub usage: Usage,
}

/// Counts by prefix.
#[derive(Default)]
pub(super) struct Prefixes {
    names: Names,
    /// By the prefix's number.
    usages: Vec<Usage>,
    others: Usage,
}

/// The number of a prefix that is not counted by itself.
pub(super) const OTHERS: u32 = u32::MAX;

/// Numbers prefixes as they appear, from 0. Keys come in the order of their revisions, a few
/// prefixes again and again: a small cache saves most of the hashing.
pub(super) struct Names {
    names: Vec<Box<[u8]>>,
    index: HashMap<Box<[u8]>, u32>,
    recent: [u32; RECENT],
    /// By number: whether every key below a prefix has it.
    hold_below: Vec<bool>,
    /// The one that was met last.
    last: u32,
}

/// Slots of the cache.
const RECENT: usize = 64;

impl Default for Names {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            index: HashMap::new(),
            recent: [OTHERS; RECENT],
            hold_below: Vec::new(),
            last: OTHERS,
        }
    }
}

impl Names {
    /// The number of a key's prefix; [`OTHERS`] once there are too many.
    pub(super) fn number(&mut self, key: &[u8]) -> u32 {
        // Neighbours in a leaf often have the same prefix.
        let last = self.last as usize;
        if self.hold_below.get(last) == Some(&true)
            && let Some(name) = self.names.get(last)
            && key.strip_prefix(&**name).and_then(<[u8]>::first) == Some(&b'/')
        {
            return self.last;
        }
        self.last = self.find(key);
        self.last
    }

    fn find(&mut self, key: &[u8]) -> u32 {
        let prefix = prefix_of(key);
        // The ends of prefixes differ more than their beginnings.
        let tail = prefix.last_chunk().copied().map_or(0, u32::from_le_bytes);
        let mixed = tail
            .wrapping_add(prefix.len() as u32)
            .wrapping_mul(0x9E37_79B9);
        let slot = (mixed >> 26) as usize % RECENT;
        let recent = self.recent.get(slot).copied().unwrap_or(OTHERS);
        let known = self.names.get(recent as usize);
        if known.is_some_and(|known| **known == *prefix) {
            return recent;
        }
        let number = self.look_up(prefix);
        if let Some(recent) = self.recent.get_mut(slot).filter(|_| number != OTHERS) {
            *recent = number;
        }
        number
    }

    fn look_up(&mut self, prefix: &[u8]) -> u32 {
        if let Some(number) = self.index.get(prefix) {
            return *number;
        }
        if self.names.len() >= MOST {
            return OTHERS;
        }
        let number = self.names.len() as u32;
        self.names.push(prefix.into());
        self.hold_below.push(holds_below(prefix));
        self.index.insert(prefix.into(), number);
        number
    }
}

impl Prefixes {
    pub(super) fn add(&mut self, key: &[u8], live: bool, bytes: u64, stored: u64) {
        let number = self.names.number(key);
        self.count(number, live, bytes, stored);
    }

    /// Counts a key whose prefix has been numbered, perhaps elsewhere: see [`Prefixes::named`].
    pub(super) fn count(&mut self, number: u32, live: bool, bytes: u64, stored: u64) {
        let at = number as usize;
        if number != OTHERS && at >= self.usages.len() {
            self.usages.resize(at + 1, Usage::default());
        }
        let usage = self.usages.get_mut(at).unwrap_or(&mut self.others);
        usage.add(live, bytes, stored);
    }

    /// The counts with the names that their numbers have.
    pub(super) fn named(self, names: Names) -> Self {
        Self { names, ..self }
    }

    /// The prefixes with most stored bytes first, at most `count`, and the sum of all others.
    pub(super) fn top(self, count: usize) -> (Vec<PrefixUsage>, Usage) {
        let all = self.names.names.into_iter().zip(self.usages);
        // A prefix may have been named by a page that no tree reaches.
        let mut all: Vec<_> = all.filter(|(_, usage)| usage.revisions > 0).collect();
        all.sort_by(|(a, x), (b, y)| {
            let size = |u: &Usage| (u.revision_bytes, u.revisions);
            size(y).cmp(&size(x)).then_with(|| a.cmp(b))
        });
        let mut others = self.others;
        for (_, usage) in all.drain(count.min(all.len())..) {
            others.keys += usage.keys;
            others.bytes += usage.bytes;
            others.revisions += usage.revisions;
            others.revision_bytes += usage.revision_bytes;
        }
        let top = all
            .into_iter()
            .map(|(prefix, usage)| PrefixUsage {
                prefix: String::from_utf8_lossy(&prefix).into_owned(),
                usage,
            })
            .collect();
        (top, others)
    }
}

/// `/a/b/c/d` → `/a/b`; `/a/g.io/c/d` → `/a/g.io/c`; `a/b/c` → `a/b`; a key with fewer
/// components loses its last one, so that its siblings are counted with it.
fn prefix_of(key: &[u8]) -> &[u8] {
    let key = key.get(..key.len().min(LONGEST)).unwrap_or(key);
    let from = usize::from(key.first() == Some(&b'/'));
    let slash = |from: usize| {
        let rest = key.get(from..)?;
        rest.iter().position(|&b| b == b'/').map(|at| from + at)
    };
    let Some(first) = slash(from) else {
        return key.get(..from).unwrap_or(key);
    };
    let Some(second) = slash(first + 1) else {
        return key.get(..first).unwrap_or(key);
    };
    let group = key.get(first + 1..second).unwrap_or_default();
    let end = match slash(second + 1) {
        Some(third) if group.contains(&b'.') => third,
        _ => second,
    };
    key.get(..end).unwrap_or(key)
}

/// Whether each key that is below a prefix, with a slash behind it, has this prefix.
fn holds_below(prefix: &[u8]) -> bool {
    // One more component decides nothing but whether that of a group is still to come. A long one is cut.
    let below = [prefix, b"/x/"].concat();
    below.len() <= LONGEST && prefix_of(&below) == prefix
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_prefix_is_taken_only_where_the_key_has_it(
            keys in proptest::collection::vec("(/|)[a.]{0,2}(/[ab.]{0,2}){0,4}", 1..30),
        ) {
            let mut names = Names::default();
            for key in keys {
                let number = names.number(key.as_bytes());
                prop_assert_eq!(&*names.names[number as usize], prefix_of(key.as_bytes()), "{}", key);
            }
        }
    }

    #[test]
    fn prefixes_of_keys() {
        for (key, prefix) in [
            ("/registry/pods/ns/name", "/registry/pods"),
            ("/kubernetes.io/events/ns/e", "/kubernetes.io/events"),
            (
                "/registry/apps.example.com/things/ns/x",
                "/registry/apps.example.com/things",
            ),
            (
                "/registry/apiregistration.k8s.io/apiservices/v1",
                "/registry/apiregistration.k8s.io/apiservices",
            ),
            ("/registry/ranges/serviceips", "/registry/ranges"),
            ("/registry/health", "/registry"),
            ("compact_rev_key", ""),
            ("/health", "/"),
            ("a/b/c", "a/b"),
            ("/", "/"),
            ("//", "/"),
            ("", ""),
        ] {
            let found = prefix_of(key.as_bytes());
            assert_eq!(String::from_utf8_lossy(found), prefix, "{key}");
        }
    }

    #[test]
    fn what_is_not_listed_is_summed() {
        let mut prefixes = Prefixes::default();
        for n in 0..5000u64 {
            prefixes.add(format!("/r/{n}/x").as_bytes(), n % 2 == 0, 10, 20);
        }
        prefixes.add(b"/r/7/y", true, 1000, 2000);
        let (top, others) = prefixes.top(3);
        assert_eq!(top.len(), 3);
        assert_eq!(top[0].prefix, "/r/7");
        assert_eq!(top[0].usage.revision_bytes, 2020);
        let keys: u64 = top.iter().map(|p| p.usage.keys).sum();
        assert_eq!(keys + others.keys, 2501);
        assert_eq!(
            others.revisions,
            5001 - top.iter().map(|p| p.usage.revisions).sum::<u64>()
        );
    }
}
