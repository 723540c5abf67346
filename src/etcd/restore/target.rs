//! Which releases start from a restored database, and what they expect in it.
//!
//! | what is in the database | who minds |
//! | --- | --- |
//! | `meta/storageVersion` above a server's own version | 3.6 and later do not start |
//! | `cluster/clusterVersion` above it | 3.6 and later do not start: "invalid downgrade" |
//! | neither | nobody: 3.6 and later take it for a database of 3.5 and raise it step by step |
//! | members of an old cluster | 3.6 and later fail or wait for them |
//!
//! 3.4 and 3.5 read neither version from the database. So one output suits all of 3.4 to 3.7 for
//! every snapshot of 3.4, 3.5 and 3.6, and for one of 3.7 once both versions are dropped; the `.snap`
//! file is written always, which 3.7 ignores. (etcd, `server/storage/schema`,
//! `server/etcdserver/api/membership`.)

use std::fmt;
use std::str::FromStr;

use crate::error::{Failure, Kind, Result};

/// A minor release of etcd that this crate knows the files of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetVersion {
    /// 3.4
    V3_4,
    /// 3.5
    V3_5,
    /// 3.6
    V3_6,
    /// 3.7
    V3_7,
}

impl TargetVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V3_4, Self::V3_5, Self::V3_6, Self::V3_7];

    fn numbers(self) -> (u64, u64) {
        match self {
            Self::V3_4 => (3, 4),
            Self::V3_5 => (3, 5),
            Self::V3_6 => (3, 6),
            Self::V3_7 => (3, 7),
        }
    }
}

impl fmt::Display for TargetVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.numbers();
        write!(f, "{major}.{minor}")
    }
}

impl FromStr for TargetVersion {
    type Err = Failure;

    /// Reads `3.5`, or a full version such as `3.5.16`.
    fn from_str(text: &str) -> Result<Self> {
        let numbers = numbers(text);
        Self::ALL
            .into_iter()
            .find(|version| Some(version.numbers()) == numbers)
            .ok_or_else(|| {
                Failure::new(
                    Kind::Usage,
                    format!("expected etcd 3.4, 3.5, 3.6 or 3.7 as target, found {text:?}"),
                )
            })
    }
}

/// Major and minor of a version's text.
fn numbers(text: &str) -> Option<(u64, u64)> {
    let digits = |part: &str| {
        let all = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        all.then(|| part.parse().ok())?
    };
    let mut parts = text.split(['.', '-', '+']);
    let (major, minor) = (digits(parts.next()?)?, digits(parts.next()?)?);
    Some((major, minor))
}

/// What to do about the versions in the database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Versions {
    /// Whether `storageVersion` and `clusterVersion` are dropped.
    pub(super) drop: bool,
    /// What the reader should know.
    pub(super) notes: Vec<String>,
}

/// Judges a snapshot's versions against the release that is to start from it; `None`: its own.
///
/// # Errors
/// The refusal `unknown-version`, which can be allowed, for a snapshot of a release later than 3.7,
/// whose files may differ in unknown ways; if allowed, the versions are dropped.
pub(super) fn judge(
    storage: Option<&str>,
    cluster: Option<&str>,
    target: Option<TargetVersion>,
    allow_unknown: bool,
) -> Result<Versions> {
    let newest = TargetVersion::V3_7.numbers();
    let mut highest: Option<(u64, u64)> = None;
    for (name, text) in [("storage version", storage), ("cluster version", cluster)] {
        let Some(text) = text else { continue };
        match numbers(text) {
            Some(found) if found <= newest => highest = highest.max(Some(found)),
            _ if allow_unknown => highest = Some((u64::MAX, 0)),
            _ => {
                return Err(Failure::refused(
                    "unknown-version",
                    format!(
                        "the snapshot's {name} is {text:?}; expected {}.{} or older",
                        newest.0, newest.1
                    ),
                ));
            }
        }
    }
    let Some(highest) = highest else {
        return Ok(Versions::default());
    };
    let wanted = target.map_or(newest, TargetVersion::numbers);
    let unknown = highest > newest;
    let below = target.is_some() && wanted < highest;
    let mut notes = Vec::new();
    if below && let Some(target) = target {
        notes.push(format!(
            "the snapshot is of a later release than {target}: its storage and cluster version are dropped; etcd itself supports a downgrade by one minor release only, and online"
        ));
    } else if unknown {
        notes.push("the snapshot's storage and cluster version are dropped".to_owned());
    }
    Ok(Versions {
        drop: below || unknown,
        notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop(storage: Option<&str>, cluster: &str, target: Option<&str>) -> bool {
        let target = target.map(|text| text.parse().unwrap());
        judge(storage, Some(cluster), target, false).unwrap().drop
    }

    #[test]
    fn versions_are_dropped_only_below_them() {
        assert!(!drop(None, "3.5.0", None));
        assert!(!drop(None, "3.5.0", Some("3.5")));
        assert!(!drop(None, "3.5.0", Some("3.7")));
        assert!(drop(None, "3.5.0", Some("3.4.23")));
        assert!(!drop(Some("3.6.0"), "3.6.0", None));
        assert!(!drop(Some("3.6.0"), "3.6.0", Some("3.7")));
        assert!(drop(Some("3.6.0"), "3.6.0", Some("3.5.30")));
        assert!(!drop(Some("3.7.0"), "3.7.0", None));
        assert!(drop(Some("3.7.0"), "3.7.0", Some("3.6")));
        assert!(drop(Some("3.6.0"), "3.7.0", Some("3.6")));
        assert_eq!(judge(None, None, None, false).unwrap(), Versions::default());
    }

    #[test]
    fn unknown_versions_are_refused() {
        for (storage, cluster) in [
            (Some("3.8.0"), "3.7.0"),
            (None, "4.0.0"),
            (Some(""), "3.5.0"),
            (Some("3"), "3.5.0"),
            (Some("three.five"), "3.5.0"),
            (Some("99999999999999999999.1"), "3.5.0"),
        ] {
            for target in TargetVersion::ALL.map(Some).into_iter().chain([None]) {
                let refused = judge(storage, Some(cluster), target, false).unwrap_err();
                assert_eq!(refused.refusal(), Some("unknown-version"));
                assert!(judge(storage, Some(cluster), target, true).unwrap().drop);
            }
        }
    }

    #[test]
    fn targets_are_read() {
        assert_eq!(
            "3.5.16".parse::<TargetVersion>().unwrap(),
            TargetVersion::V3_5
        );
        for bad in ["3.3", "3.8", "", "3", "v3.5", "4.4", "3.5x"] {
            let failure = bad.parse::<TargetVersion>().unwrap_err();
            assert_eq!(failure.kind(), Kind::Usage, "{bad}");
        }
    }
}
