//! What a rehearsal demands: of the program, and of what it answers.

use std::path::PathBuf;

use crate::etcd::hashkv::HashKv;
use crate::etcd::release::Release;
use crate::etcd::snapshot::DatabaseFacts;
use crate::keep::catalog::BackupSet;

/// The member's name.
pub(super) const NAME: &str = "rehearsal";
/// Its peer URL, which nobody listens on.
pub(super) const PEER_URL: &str = "http://localhost:2380";
/// What etcd must answer.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) snapshot: PathBuf,
    pub(super) cluster_id: String,
    pub(super) member_id: String,
    pub(super) revision: i64,
    pub(super) keys: u64,
    pub(super) hash: HashKv,
    /// Whether etcd's authentication is on in the backup: it is turned off in what is served.
    pub(super) auth: bool,
}

/// The oldest release that can read the data, and where it is known from.
#[derive(Debug)]
pub(super) struct Needed {
    /// The releases by which the data was written, with their sources.
    pub(super) sources: Vec<(Release, &'static str)>,
    /// The release of the member that gave the snapshot, as it called itself.
    pub(super) member: Option<String>,
}

impl Needed {
    /// The source that a release is too old for.
    pub(super) fn too_new_for(&self, release: Release) -> Option<(Release, &'static str)> {
        let newest = self.sources.iter().max_by_key(|(of, _)| of.line());
        newest.copied().filter(|(of, _)| of.line() > release.line())
    }

    /// Of a backup.
    pub(super) fn of(set: &BackupSet, facts: &DatabaseFacts) -> Self {
        let member = set.manifest.as_ref();
        let member = member.map(|manifest| manifest.member.etcd_version.clone());
        let texts = [
            (facts.storage_version.as_deref(), "its storage version"),
            (facts.cluster_version.as_deref(), "its cluster version"),
            (member.as_deref(), "the member that it was taken from"),
        ];
        let known = |(text, source): (Option<&str>, &'static str)| {
            Some((text?.parse::<Release>().ok()?, source))
        };
        Self {
            sources: texts.into_iter().filter_map(known).collect(),
            member,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_of_an_older_line_is_too_old_whoever_says_so() {
        let needed = |texts: &[&str]| Needed {
            sources: texts
                .iter()
                .map(|text| (text.parse().unwrap_or(Release::first(0, 0)), "x"))
                .collect(),
            member: None,
        };
        let too_old = |needed: &Needed, release: &str| {
            let release = release.parse().unwrap_or(Release::first(0, 0));
            needed.too_new_for(release).map(|(of, _)| of.line())
        };
        let mixed = needed(&["3.6.0", "3.5.0"]);
        assert_eq!(too_old(&mixed, "3.5.30"), Some((3, 6)));
        assert_eq!(too_old(&mixed, "3.6.1"), None);
        assert_eq!(too_old(&mixed, "3.7.0"), None);
        // Within a line an older patch reads what a newer one wrote.
        assert_eq!(too_old(&needed(&["3.5.30"]), "3.5.16"), None);
        assert_eq!(too_old(&needed(&[]), "3.4.23"), None);
    }
}
