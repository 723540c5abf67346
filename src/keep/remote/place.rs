//! Where a set is in a remote store.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::backup::Manifest;
use crate::backup::names::BackupId;
use crate::sys::digest::sha256_hex;

/// What the name of the object that says whose a folder is begins with; what follows is the
/// beginning of the Manifest's SHA-256.
const CLAIM_PREFIX: &str = "claim-";
/// What it ends with.
const CLAIM_SUFFIX: &str = ".json";
/// Hex digits of the SHA-256 in that name.
const CLAIM_DIGITS: usize = 16;
/// The object that lists a set's objects as they are stored.
pub const INDEX: &str = "remote.json";
/// What the name of the index's signature begins with; digits of the index's SHA-256 follow.
const INDEX_SIGNATURE: (&str, &str) = ("remote-", ".json.sig");
/// What follows an object's name in the name of the record of its arrival.
pub(super) const DONE: &str = ".done";
/// What stands between a name that was not plain and its hash; no plain name holds it.
const HASH_MARK: char = '+';
/// The longest part of a name; file systems take 255 bytes.
const LONGEST: usize = 100;

/// The name of the claim of the set whose Manifest has this SHA-256, hex. Two sets' claims are two
/// objects, so that neither replaces the other's, whatever the service makes of conditions.
pub(super) fn claim(manifest_sha256: &str) -> String {
    let digits = manifest_sha256.get(..CLAIM_DIGITS).unwrap_or_default();
    format!("{CLAIM_PREFIX}{digits}{CLAIM_SUFFIX}")
}

/// The name of a record at a time, where the one before cannot be replaced: `verified-<time>.json` for
/// `verified.json`.
pub(super) fn at(record: &str, time: Timestamp) -> String {
    let stem = record.strip_suffix(CLAIM_SUFFIX).unwrap_or(record);
    let stamp = time.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ");
    format!("{stem}-{stamp}{CLAIM_SUFFIX}")
}

/// The newest of such records in a folder.
pub(super) fn last_of<'a>(
    record: &str,
    names: impl Iterator<Item = &'a String>,
) -> Option<&'a String> {
    let stem = record.strip_suffix(CLAIM_SUFFIX).unwrap_or(record);
    let is_later = |name: &&String| {
        let rest = name.strip_prefix(stem);
        rest.is_some_and(|rest| rest.starts_with('-') && rest.ends_with(CLAIM_SUFFIX))
    };
    names.filter(is_later).max()
}

/// The name of the signature of the index with this SHA-256, hex. Two who encrypt a copy at once write
/// two indexes, of which the later one stays: its signature must not be the other's.
pub(super) fn index_signature(index_sha256: &str) -> String {
    let (prefix, suffix) = INDEX_SIGNATURE;
    let digits = index_sha256.get(..CLAIM_DIGITS).unwrap_or_default();
    format!("{prefix}{digits}{suffix}")
}

/// Whether an object is a claim.
pub(super) fn is_claim(name: &str) -> bool {
    name.starts_with(CLAIM_PREFIX) && name.ends_with(CLAIM_SUFFIX)
}

/// The folder of a node's sets: `<cluster>/<node>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(String);

impl Place {
    /// Where the sets of this Manifest's node belong. The cluster is OpenShift's UUID, or else
    /// etcd's cluster id.
    pub fn of(manifest: &Manifest) -> Self {
        let (cluster, node) = manifest.origin();
        Self(format!("{}/{}", part(cluster), part(node)))
    }

    /// Where earlier versions put them, if that is another place: names that are not plain could
    /// share one then.
    pub(super) fn earlier(manifest: &Manifest) -> Option<Self> {
        let (cluster, node) = manifest.origin();
        let earlier = Self(format!("{}/{}", lossy(cluster), lossy(node)));
        (earlier != Self::of(manifest)).then_some(earlier)
    }

    /// The folder of a node, by its name.
    pub(super) fn parse(folder: &str) -> Option<Self> {
        (folder.split('/').count() == 2).then(|| Self(folder.to_owned()))
    }

    /// The part that names the cluster.
    pub(super) fn cluster(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The place and the number in a set's whole name.
    pub(super) fn split(name: &str) -> Option<(Self, BackupId)> {
        let (place, last) = name.rsplit_once('/')?;
        (place.split('/').count() == 2).then_some(())?;
        Some((Self(place.to_owned()), BackupId::parse(last)?))
    }

    /// A set's whole name.
    pub(super) fn set(&self, number: u64) -> String {
        format!("{}/{}", self.0, BackupId(number))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name as a part of an object's: what a Manifest says can be anything. Two names never become
/// one: what is not plain bears its hash behind a sign that no plain name has.
fn part(name: &str) -> String {
    let lossy = lossy(name);
    if lossy == name {
        return lossy;
    }
    let digits = sha256_hex(name.as_bytes());
    let digits = digits.get(..CLAIM_DIGITS).unwrap_or_default();
    format!("{lossy}{HASH_MARK}{digits}")
}

/// The plain characters of a name; different names may come to the same.
fn lossy(name: &str) -> String {
    let plain = |c: char| {
        let keep = c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if keep { c } else { '_' }
    };
    let text: String = name.chars().take(LONGEST).map(plain).collect();
    match text.chars().next() {
        None => "unknown".to_owned(),
        Some('.') => format!("_{}", text.get(1..).unwrap_or_default()),
        Some(_) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_two_plain_parts_whatever_the_manifest_says() {
        let mut manifest = crate::backup::manifest::tests::example();
        assert_eq!(Place::of(&manifest).to_string(), "u/master-0");
        manifest.cluster.uuid = None;
        manifest.node.name = Some("../../etc/x y".into());
        let place = Place::of(&manifest);
        assert_eq!(
            place.to_string(),
            "67dd97daf3ded3f/_._.._etc_x_y+148662b1908cfa55"
        );
        let earlier = Place::earlier(&manifest).unwrap();
        assert_eq!(earlier.to_string(), "67dd97daf3ded3f/_._.._etc_x_y");
        assert_eq!(
            Place::split(&place.set(7)),
            Some((place.clone(), BackupId(7)))
        );
        assert!(crate::store::objects::name::check_name(&place.to_string()).is_ok());
        assert_eq!(Place::split("a/b/c/backup-1"), None);
        assert_eq!(Place::split("backup-1"), None);
    }

    #[test]
    fn two_nodes_never_share_a_place() {
        let long = "n".repeat(100);
        let names = [
            "node",
            "node_?",
            "node é",
            "node__",
            "узел-1",
            "узол-1",
            "____-1",
            "x/y",
            "x_y",
            "",
            "unknown",
            ".x",
            "_x",
            &long,
            &format!("{long}1"),
            &format!("{long}2"),
        ];
        let mut manifest = crate::backup::manifest::tests::example();
        let mut places = std::collections::BTreeSet::new();
        for name in names {
            manifest.node.name = Some(name.to_owned());
            let place = Place::of(&manifest);
            assert!(crate::store::objects::name::check_name(&place.to_string()).is_ok());
            assert!(places.insert(place), "{name:?}");
        }
        // What was plain before stays where it is.
        assert_eq!(part("master-0.example.com"), "master-0.example.com");
        manifest.node.name = Some("master-0".into());
        assert_eq!(Place::earlier(&manifest), None);
    }
}
