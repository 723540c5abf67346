//! A kind and its names.

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
