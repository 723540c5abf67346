//! Faults of released servers that lose data, events or members, and the release that fixes each.
//!
//! From etcd's own change logs (`CHANGELOG/CHANGELOG-3.4.md` to `-3.7.md`, at 2026-08-20). What no
//! release of a line fixes has no row for that line: an upgrade within it would not help.

use serde::Serialize;

use super::release::Release;

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Data is lost or differs between members.
    Data,
    /// Watchers miss events or get wrong ones, or reads are stale.
    Events,
    /// The stored members are wrong, which a later upgrade or restore trips over.
    Membership,
    /// Users of etcd's own authentication reach what they must not.
    Access,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// What happens, in a sentence.
    pub what: &'static str,
    /// What it does.
    pub effect: Effect,
    /// The fix.
    pub url: &'static str,
    /// The first release with the fault, and the first without, line by line.
    #[serde(skip)]
    affected: &'static [(Release, Release)],
}

const fn line(minor: u64, from: u64, fixed: u64) -> (Release, Release) {
    (Release::new(3, minor, from), Release::new(3, minor, fixed))
}

/// All that are known, the gravest effect first.
pub const FAULTS: [Fault; 18] = [
    Fault {
        what: "after a crash under load members may hold different data",
        effect: Effect::Data,
        url: "https://github.com/etcd-io/etcd/pull/13908",
        affected: &[line(5, 0, 3)],
    },
    Fault {
        what: "after a crash during a defragmentation revisions may differ between members",
        effect: Effect::Data,
        url: "https://github.com/etcd-io/etcd/pull/14733",
        affected: &[line(5, 0, 6)],
    },
    Fault {
        what: "a read may still see keys that were just deleted",
        effect: Effect::Data,
        url: "https://github.com/etcd-io/etcd/pull/17230",
        affected: &[line(5, 0, 12)],
    },
    Fault {
        what: "the revision may decrease after a crash during a compaction",
        effect: Effect::Data,
        url: "https://github.com/etcd-io/etcd/pull/17865",
        affected: &[line(4, 0, 32), line(5, 0, 14)],
    },
    Fault {
        what: "a transaction that fails may be applied in part",
        effect: Effect::Data,
        url: "https://github.com/etcd-io/etcd/pull/18799",
        affected: &[line(5, 0, 17)],
    },
    Fault {
        what: "data may be corrupted when a member that is defragmented receives a snapshot",
        effect: Effect::Data,
        url: "https://github.com/etcd-io/etcd/pull/20653",
        affected: &[line(4, 0, 38), line(5, 0, 23), line(6, 0, 5)],
    },
    Fault {
        what: "watchers may lose events after a compaction",
        effect: Effect::Events,
        url: "https://github.com/etcd-io/etcd/pull/17612",
        affected: &[line(4, 0, 31), line(5, 0, 13)],
    },
    Fault {
        what: "a watch that starts at the revision of a compaction may miss a deletion",
        effect: Effect::Events,
        url: "https://github.com/etcd-io/etcd/pull/19249",
        affected: &[line(4, 0, 36), line(5, 0, 18)],
    },
    Fault {
        what: "a watch of a future revision may get old events",
        effect: Effect::Events,
        url: "https://github.com/etcd-io/etcd/pull/20286",
        affected: &[line(4, 0, 38), line(5, 0, 22), line(6, 0, 2)],
    },
    Fault {
        what: "reads may be stale after the process was paused",
        effect: Effect::Events,
        url: "https://github.com/etcd-io/etcd/pull/21421",
        affected: &[line(4, 0, 42), line(5, 0, 28), line(6, 0, 9)],
    },
    Fault {
        what: "the promotion of a learner is not written to the database, and 3.6 sees a learner again",
        effect: Effect::Membership,
        url: "https://github.com/etcd-io/etcd/pull/19563",
        affected: &[line(5, 1, 20)],
    },
    Fault {
        what: "a promotion that an earlier release did not write down is not repaired",
        effect: Effect::Membership,
        url: "https://github.com/etcd-io/etcd/pull/20797",
        affected: &[line(5, 20, 24)],
    },
    Fault {
        what: "removed members may stay in the database, and 3.6 counts them again",
        effect: Effect::Membership,
        url: "https://github.com/etcd-io/etcd/pull/20995",
        affected: &[line(5, 0, 26)],
    },
    Fault {
        what: "--force-new-cluster keeps learners",
        effect: Effect::Membership,
        url: "https://github.com/etcd-io/etcd/pull/20896",
        affected: &[line(5, 0, 25), line(6, 0, 6)],
    },
    Fault {
        what: "an update of a learner's peer URLs makes it a voting member",
        effect: Effect::Membership,
        url: "https://github.com/etcd-io/etcd/pull/21737",
        affected: &[line(5, 0, 31), line(6, 0, 12)],
    },
    Fault {
        what: "a learner that was promoted may keep etcd from starting",
        effect: Effect::Membership,
        url: "https://github.com/etcd-io/etcd/pull/20387",
        affected: &[line(6, 0, 4)],
    },
    Fault {
        what: "several requests, and transactions within transactions, bypass etcd's authorization (CVE-2026-33413, CVE-2026-33343)",
        effect: Effect::Access,
        url: "https://github.com/etcd-io/etcd/security/advisories/GHSA-q8m4-xhhv-38mg",
        affected: &[line(5, 0, 28), line(6, 0, 9)],
    },
    Fault {
        what: "a user who may read one key may watch all keys after it",
        effect: Effect::Access,
        url: "https://github.com/etcd-io/etcd/security/advisories/GHSA-xg4h-6gfc-h4m8",
        affected: &[line(5, 0, 33), line(6, 0, 14), line(7, 0, 1)],
    },
];

impl Fault {
    /// The release of the same line that fixes it; `None` if the version has no such fault.
    pub fn fixed_in(&self, version: Release) -> Option<Release> {
        let mut lines = self.affected.iter();
        let found = lines.find(|(from, fixed)| (*from..*fixed).contains(&version));
        found.map(|(_, fixed)| *fixed)
    }
}

/// The first release of a minor version without any of these faults.
pub fn newest_fix(of: Release) -> Option<Release> {
    let fixes = FAULTS.iter().flat_map(|fault| fault.affected);
    let fixes = fixes.map(|(_, fixed)| *fixed);
    fixes.filter(|fixed| fixed.line() == of.line()).max()
}

/// What is known of a version, and the first release of its line that has none of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// The version.
    pub version: String,
    /// The first release of the line without all of these faults.
    pub fixed_in: String,
    /// The faults, the gravest first.
    pub faults: Vec<Fault>,
}

impl Known {
    /// What is known of a version as a server tells it, of these effects at most; `None` if there
    /// is nothing, or where the text is not a version.
    pub fn of(version: &str, least: Effect) -> Option<Self> {
        let release: Release = version.parse().ok()?;
        let known = FAULTS.iter().filter(|fault| fault.effect <= least);
        let known = known.filter_map(|fault| Some((*fault, fault.fixed_in(release)?)));
        let (faults, fixed): (Vec<Fault>, Vec<Release>) = known.unzip();
        let fixed_in = fixed.into_iter().max()?.to_string();
        Some(Self {
            version: release.to_string(),
            fixed_in,
            faults,
        })
    }

    /// In a sentence: the gravest, how many more there are, and the cure.
    pub fn sentence(&self) -> String {
        let first = self.faults.first();
        let gravest = first.map_or(String::new(), |fault| {
            format!("{} ({})", fault.what, fault.url)
        });
        let more = match self.faults.len().saturating_sub(1) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        format!(
            "etcd {} has known bugs: {gravest}{more}; upgrade to {} or later",
            self.version, self.fixed_in
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_faults_that_later_ones_of_its_line_mend() {
        let old = Known::of("3.5.2", Effect::Data).unwrap();
        assert_eq!(old.fixed_in, "3.5.23");
        assert_eq!(old.faults.len(), 6);
        assert!(
            old.sentence().contains("pull/13908), and 5 more"),
            "{}",
            old.sentence()
        );
        assert_eq!(Known::of("3.5.16", Effect::Data).unwrap().faults.len(), 2);
        assert_eq!(Known::of("3.5.30", Effect::Events), None);
        let newest = Known::of("3.5.30", Effect::Access).unwrap();
        assert_eq!(
            (newest.fixed_in.as_str(), newest.faults.len()),
            ("3.5.33", 2)
        );
        let promoted = "https://github.com/etcd-io/etcd/pull/19563";
        let promotes = |version| {
            let known = Known::of(version, Effect::Access).unwrap();
            known.faults.iter().any(|fault| fault.url == promoted)
        };
        assert!(!promotes("3.5.0") && promotes("3.5.1"));
        assert!(promotes("3.5.19") && !promotes("3.5.20"));
        for well in ["3.5.33", "3.6.14", "3.7.1", "3.8.0", "unknown"] {
            assert_eq!(Known::of(well, Effect::Access), None, "{well}");
        }
        assert!(FAULTS.is_sorted_by_key(|fault| fault.effect));
    }
}
