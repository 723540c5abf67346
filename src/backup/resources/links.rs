//! Where symbolic links lead, with other links of the same tree on the way.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;

/// How much work the links of one tree may cost, in bytes of names that are looked up: far more than
/// any node's links need, and done in a second.
const MAX_WORK: usize = 256 << 20;

/// What is left of [`MAX_WORK`].
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_WORK)
    }
}

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Landing {
    /// To this name below the base; empty for the base itself.
    Inside(PathBuf),
    /// Out of the base.
    Outside,
    /// Nowhere: the links go round.
    Loop,
    /// Nobody knows: the links of this tree take too long to follow.
    Unknown,
}

/// Follows the link `name` through all `links` of a tree. `node_base` is what the node calls the
/// tree's base; without it every absolute target leads outside.
pub(super) fn follow(
    name: &Path,
    links: &HashMap<PathBuf, PathBuf>,
    node_base: Option<&Path>,
    budget: &mut Budget,
) -> Landing {
    let mut todo: Vec<OsString> = reversed(name);
    let mut here = PathBuf::new();
    let mut followed = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            if !here.pop() {
                return Landing::Outside;
            }
            continue;
        }
        here.push(part);
        let Some(left) = budget.0.checked_sub(here.as_os_str().len()) else {
            return Landing::Unknown;
        };
        budget.0 = left;
        let Some(target) = links.get(&here) else {
            continue;
        };
        followed += 1;
        if followed > MAX_LINKS {
            return Landing::Loop;
        }
        here.pop();
        let relative = if target.is_absolute() {
            let Some(below) = node_base.and_then(|base| target.strip_prefix(base).ok()) else {
                return Landing::Outside;
            };
            here.clear();
            below
        } else {
            target.as_path()
        };
        todo.append(&mut reversed(relative));
    }
    Landing::Inside(here)
}

fn reversed(path: &Path) -> Vec<OsString> {
    let mut parts: Vec<OsString> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn land(name: &str, links: &[(&str, &str)]) -> Landing {
        let links = links
            .iter()
            .map(|(n, t)| ((*n).into(), (*t).into()))
            .collect();
        let base = Some(Path::new("/etc/kubernetes"));
        follow(Path::new(name), &links, base, &mut Budget::default())
    }

    #[test]
    fn links_that_take_too_long_are_not_followed_to_the_end() {
        let long = "a/".repeat(2000);
        let names: Vec<String> = (0..200).map(|n| format!("l{n}")).collect();
        let chain = |n: usize| format!("{long}../{}l{}", "../".repeat(1999), n + 1);
        let links: HashMap<PathBuf, PathBuf> = names
            .iter()
            .enumerate()
            .map(|(n, name)| (name.into(), chain(n).into()))
            .collect();
        let mut budget = Budget::default();
        let mut land = |name: &String| follow(Path::new(name), &links, None, &mut budget);
        assert!(names.iter().any(|name| land(name) == Landing::Unknown));
        assert_eq!(land(&names[0]), Landing::Unknown);
    }

    #[test]
    fn links_are_followed_through_links() {
        assert_eq!(
            land("d/l", &[("d/l", "../a/b")]),
            Landing::Inside("a/b".into())
        );
        assert_eq!(
            land("l", &[("l", "/etc/kubernetes/a")]),
            Landing::Inside("a".into())
        );
        assert_eq!(land("d/l", &[("d/l", "..")]), Landing::Inside("".into()));
        assert_eq!(land("l", &[("l", "/etc/shadow")]), Landing::Outside);
        assert_eq!(
            land("l", &[("l", "/etc/kubernetes/../shadow")]),
            Landing::Outside
        );
        assert_eq!(land("d/l", &[("d/l", "../../x")]), Landing::Outside);
        // Plain arithmetic on the names would call the second one harmless.
        let links = [("a/b/up", "../.."), ("l", "a/b/up/..")];
        assert_eq!(land("l", &links), Landing::Outside);
        assert_eq!(land("l", &[("l", "m"), ("m", "l")]), Landing::Loop);
    }
}
