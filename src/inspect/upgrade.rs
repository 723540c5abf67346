//! `verify --upgrade-to`: what would stop etcd's next release, or the one before, from running on
//! what this node has. Nothing is changed.
//!
//! Each obstacle has a stable name and its cure. The cluster is asked as `verify --cluster` asks it;
//! the node's own settings and files are read, also while etcd runs on them.

mod flags;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::cluster::connect::Target;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::etcd::datadir::{self, DbFacts, Foreign, Layout};
use crate::etcd::known;
use crate::etcd::release::Release;
use crate::finding::Severity;
use crate::inspect::diagnose;
use crate::inspect::diagnose::NotChecked;
use crate::inspect::diagnose::names::Resolver;
use crate::node::profile::Profile;
use crate::node::settings::{Setting, Settings};
use crate::sys::blocking::blocking;

use flags::{GONE_IN_3_6, successor};

/// The releases that can be aimed at, by minor number.
pub const TARGETS: [&str; 3] = ["3.5", "3.6", "3.7"];

/// The release of 3.5 that repairs its members before 3.6 relies on them (etcd, pull request 20995).
const REPAIRS: Release = Release::new(3, 5, 26);

/// One obstacle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Obstacle {
    /// Its stable name.
    pub name: &'static str,
    /// Whether it blocks (`error`), or is only worth knowing.
    pub severity: Severity,
    /// The member it is about, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// What was seen.
    pub evidence: String,
    /// What to do about it.
    pub cure: String,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The release aimed at.
    pub target: String,
    /// The releases that the members run.
    pub from: Vec<String>,
    /// Whether nothing blocks.
    pub ready: bool,
    /// What blocks, then what is worth knowing.
    pub obstacles: Vec<Obstacle>,
    /// What could not be looked at.
    pub not_checked: Vec<NotChecked>,
}

/// Checks everything; if no etcd runs on `data_dir`, only those files and this node's settings.
///
/// # Errors
/// [`Kind::Usage`] for another release than those of [`TARGETS`], and as of [`diagnose::run`].
pub async fn run(
    context: &Context,
    target: &Target,
    resolver: Arc<dyn Resolver>,
    to: &str,
    data_dir: Option<&Path>,
    disabled_by: Option<&str>,
) -> Result<Report> {
    let known = TARGETS.contains(&to);
    let release = to.parse::<Release>().ok().filter(|_| known);
    let to = release.ok_or_else(|| {
        let what = format!("expected one of {}, found {to:?}", TARGETS.join(", "));
        Failure::new(Kind::Usage, what).doing("reading --upgrade-to")
    })?;
    let detection = target.detect(context)?;
    let settings = Settings::read(&target.layout, detection.profile);
    let mut looked = Looked {
        to,
        profile: detection.profile,
        from: BTreeSet::new(),
        obstacles: Vec::new(),
        not_checked: Vec::new(),
    };
    let mut dir = data_dir.map(Path::to_owned);
    let runs = match data_dir {
        Some(dir) => Layout::new(dir, None).locks()?.any_held(),
        None => true,
    };
    if runs {
        let cluster = diagnose::run(context, target, resolver, disabled_by).await?;
        looked.cluster(&cluster);
        let access = target.access(context, &detection).ok();
        let own = access.and_then(|access| access.data_dir);
        dir = dir.or(own.map(|dir| dir.value));
    }
    let wal = settings.get("wal-dir").filter(|_| data_dir.is_none());
    let wal = wal.map(|wal| target.layout.host(&wal.value));
    looked.files(dir, wal).await?;
    looked.versions();
    for setting in settings.iter() {
        looked.flag(setting);
    }
    Ok(looked.report())
}

/// What has been found so far.
struct Looked {
    to: Release,
    profile: Profile,
    from: BTreeSet<Release>,
    obstacles: Vec<Obstacle>,
    not_checked: Vec<NotChecked>,
}

impl Looked {
    fn add(&mut self, name: &'static str, severity: Severity, evidence: String, cure: String) {
        let found = Obstacle {
            name,
            severity,
            member: None,
            evidence,
            cure,
        };
        if !self.obstacles.contains(&found) {
            self.obstacles.push(found);
        }
    }

    fn blocks(&mut self, name: &'static str, evidence: String, cure: impl Into<String>) {
        self.add(name, Severity::Error, evidence, cure.into());
    }

    fn upgrades(&self) -> bool {
        self.from.iter().any(|from| from.line() < self.to.line())
    }

    fn downgrades(&self) -> bool {
        self.from.iter().any(|from| from.line() > self.to.line())
    }

    /// What `verify --cluster` finds is an obstacle to any change of release.
    fn cluster(&mut self, report: &diagnose::Report) {
        for state in &report.members {
            let version = state.status.as_ref().map(|status| &status.version);
            self.from
                .extend(version.and_then(|text| text.parse::<Release>().ok()));
            if state.member.is_learner {
                let (id, label) = (state.member.id, state.member.label());
                self.blocks(
                    "learner-present",
                    format!("{label} is a learner"),
                    format!("etcdctl member promote {id}, or: etcd-dr member-remove {id}"),
                );
            }
        }
        for finding in &report.findings {
            let quota = finding.name == diagnose::DATABASE_NEAR_QUOTA;
            let cure = match quota {
                true => format!(
                    "etcdctl --endpoints {} defrag",
                    finding.place.as_deref().unwrap_or("URL")
                ),
                false => "etcd-dr verify --cluster".to_owned(),
            };
            self.obstacles.push(Obstacle {
                name: finding.name,
                severity: match quota {
                    true => Severity::Error,
                    false => finding.severity,
                },
                member: finding.member.clone(),
                evidence: finding.evidence.clone(),
                cure,
            });
        }
        self.not_checked.extend(report.not_checked.iter().cloned());
    }

    async fn files(&mut self, dir: Option<PathBuf>, wal: Option<PathBuf>) -> Result<()> {
        let Some(dir) = dir else {
            self.not_checked.push(NotChecked {
                what: "data-dir",
                why: "this node's data directory is not known: use --data-dir".to_owned(),
            });
            return Ok(());
        };
        let layout = Layout::new(&dir, wal.as_deref());
        let work = move || -> Result<(DbFacts, datadir::Report, Foreign)> {
            let db = datadir::stored(&layout.db())?;
            let report = datadir::check(&layout, Some(&db))?;
            let foreign = datadir::foreign_entries(&layout, &report)?;
            Ok((db, report, foreign))
        };
        match blocking(move || Ok(work())).await? {
            Ok((db, report, foreign)) => self.own(&db, &report, foreign),
            Err(failure) => self.not_checked.push(NotChecked {
                what: "data-dir",
                why: failure.to_string(),
            }),
        }
        Ok(())
    }

    /// Judges what this member's own files show.
    fn own(&mut self, db: &DbFacts, report: &datadir::Report, foreign: Foreign) {
        self.storage_version(db);
        self.downgrade(db);
        if self.to.line() >= (3, 6) {
            self.before_3_6(report);
        }
        self.wal_entries(foreign);
    }

    fn storage_version(&mut self, db: &DbFacts) {
        let to = self.to;
        let storage = db.storage_version.as_deref();
        let storage = storage.and_then(|text| text.parse::<Release>().ok());
        if self.from.is_empty() {
            // Of a stopped member only the storage version tells, from 3.6 on.
            self.from.extend(storage);
        }
        if storage.is_some_and(|storage| storage.line() > to.line()) {
            self.blocks(
                "storage-version",
                format!(
                    "the database is of storage version {}",
                    db.storage_version.as_deref().unwrap_or_default()
                ),
                format!(
                    "etcdctl downgrade enable {}.{}, then wait until the storage version is lowered",
                    to.major, to.minor
                ),
            );
        }
    }

    fn downgrade(&mut self, db: &DbFacts) {
        let to = self.to;
        let enabled = db
            .downgrade
            .as_deref()
            .and_then(|text| text.parse::<Release>().ok());
        if let Some(enabled) = enabled.filter(|enabled| enabled.line() < to.line()) {
            self.blocks(
                "downgrade-enabled",
                format!("a downgrade to {enabled} is enabled"),
                "etcdctl downgrade cancel",
            );
        }
        if self.downgrades() && enabled.is_none_or(|enabled| enabled.line() != to.line()) {
            self.downgrade_not_enabled();
        }
    }

    /// From 3.6 on etcd does not start with keys in the v2 store, and takes its members from the
    /// database alone.
    fn before_3_6(&mut self, report: &datadir::Report) {
        // The first is the newest, which etcd starts from.
        let newest = report.snaps.iter().find_map(|file| file.snap.as_ref());
        let store = newest.and_then(|snap| snap.store.as_ref());
        if store.is_some_and(|store| store.has_user_keys) {
            self.blocks(
                "v2-content",
                "the v2 store holds keys of users, with which 3.6 does not start".to_owned(),
                "delete them with ETCDCTL_API=2 etcdctl rm --recursive KEY on 3.5, and wait for the next .snap file",
            );
        }
        for finding in &report.findings {
            if finding.name.as_deref() == Some(datadir::MEMBERSHIP_DIFFERS) {
                let evidence = format!("expected {}, found {}", finding.expected, finding.found);
                let cure = membership_cure(self.from.first());
                self.blocks(datadir::MEMBERSHIP_DIFFERS, evidence, cure);
            }
        }
    }

    fn wal_entries(&mut self, foreign: Foreign) {
        let to = self.to;
        if to.line() >= (3, 7) && foreign.v2 > 0 {
            self.blocks(
                "v2-requests",
                format!(
                    "the WAL holds {} v2 requests after its newest snapshot, which 3.7 cannot read",
                    foreign.v2
                ),
                "let 3.6 run until its next snapshot (--snapshot-count entries), then look again",
            );
        }
        if foreign.newer > 0 && to.line() < (3, 6) {
            self.blocks(
                "newer-entries",
                format!(
                    "the WAL holds {} entries after its newest snapshot that {}.{} does not know",
                    foreign.newer, to.major, to.minor
                ),
                "let etcd run until its next snapshot (--snapshot-count entries), then look again",
            );
        }
    }

    fn downgrade_not_enabled(&mut self) {
        let to = self.to;
        let first = self.from.first().map(|from| from.line());
        let evidence = format!("no downgrade to {}.{} is enabled", to.major, to.minor);
        match first {
            Some(line) if line <= (3, 5) => self.blocks(
                "downgrade-unsupported",
                format!("etcd {}.{} cannot be downgraded", line.0, line.1),
                "restore a backup of the older release: etcd-dr restore",
            ),
            _ => self.blocks(
                "downgrade-not-enabled",
                evidence,
                format!(
                    "etcdctl downgrade validate {0}.{1} && etcdctl downgrade enable {0}.{1}",
                    to.major, to.minor
                ),
            ),
        }
    }

    /// Whether the step is one that etcd makes.
    fn versions(&mut self) {
        let to = self.to;
        let shown = format!("{}.{}", to.major, to.minor);
        let (Some(first), Some(last)) = (self.from.first().copied(), self.from.last().copied())
        else {
            self.not_checked.push(NotChecked {
                what: "version",
                why: "cannot tell which release runs here".to_owned(),
            });
            return;
        };
        if first.line() != last.line() {
            self.blocks(
                "versions-differ",
                format!("members run {first} and {last}: an upgrade is in progress"),
                "let every member run one release first",
            );
        } else if first.line() == to.line() {
            self.add(
                "already-there",
                Severity::Warning,
                format!("every member runs {shown} already"),
                "nothing".to_owned(),
            );
        }
        if to.minor > first.minor + 1 || to.minor + 1 < last.minor {
            let next = match to.minor > first.minor {
                true => first.minor + 1,
                false => last.minor - 1,
            };
            self.blocks(
                "one-minor-at-a-time",
                format!("from {first} to {shown} is more than one minor release"),
                format!("etcd-dr verify --upgrade-to 3.{next}"),
            );
        }
        if to.line() == (3, 6) && first.line() == (3, 5) && first < REPAIRS {
            self.blocks(
                "patch-first",
                format!("{first} may leave members in the database with which 3.6 does not start"),
                format!("upgrade every member to {REPAIRS} or later first: it repairs them"),
            );
        }
        if let Some(fixed) = known::newest_fix(to).filter(|_| self.upgrades() || self.downgrades())
        {
            self.add(
                diagnose::KNOWN_BAD_VERSION,
                Severity::Warning,
                format!("releases of {shown} before {fixed} have known faults"),
                format!("use {fixed} or later"),
            );
        }
    }

    /// A flag that the release does not have.
    fn flag(&mut self, setting: &Setting) {
        let name = setting.name.as_str();
        let evidence = format!("--{name}={} in {}", setting.value, setting.source);
        let to = self.to.line();
        let gone = if to < (3, 6) {
            (name == "feature-gates").then_some(("flag-unknown", "remove it".to_owned()))
        } else if GONE_IN_3_6.contains(&name) {
            Some(("flag-removed", "remove it".to_owned()))
        } else if name.starts_with("experimental-") {
            let name = if to < (3, 7) {
                "flag-deprecated"
            } else {
                "flag-removed"
            };
            Some((
                name,
                format!(
                    "replace it by {}, which 3.6 has already",
                    successor(setting)
                ),
            ))
        } else {
            None
        };
        let Some((name, what)) = gone else { return };
        let in_pod = setting.source.contains("/manifests/");
        let (blocks, cure) = match self.profile {
            // The manifest comes with the release that brings the new etcd.
            Profile::Openshift if in_pod => {
                let cure = "nothing by hand: the cluster-etcd-operator writes this manifest";
                (false, cure.to_owned())
            }
            Profile::Kubeadm if in_pod => (
                true,
                format!("{what}; in the ConfigMap kubeadm-config of kube-system too"),
            ),
            _ => (true, what),
        };
        match blocks && name != "flag-deprecated" {
            true => self.blocks(name, evidence, cure),
            false => self.add(name, Severity::Warning, evidence, cure),
        }
    }

    fn report(mut self) -> Report {
        self.obstacles
            .sort_by_key(|found| std::cmp::Reverse(found.severity));
        Report {
            target: format!("{}.{}", self.to.major, self.to.minor),
            from: self.from.iter().map(ToString::to_string).collect(),
            ready: self
                .obstacles
                .iter()
                .all(|found| found.severity != Severity::Error),
            obstacles: self.obstacles,
            not_checked: self.not_checked,
        }
    }
}

fn membership_cure(from: Option<&Release>) -> String {
    match from {
        Some(from) if *from >= Release::first(3, 6) => {
            "remove the member with etcd-dr member-remove, and add it again".to_owned()
        }
        _ => format!(
            "upgrade every member to {REPAIRS} or later and restart it, which repairs the database, then look again"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(from: &[&str], to: &str) -> Looked {
        Looked {
            to: to.parse().unwrap(),
            profile: Profile::Bare,
            from: from.iter().map(|text| text.parse().unwrap()).collect(),
            obstacles: Vec::new(),
            not_checked: Vec::new(),
        }
    }

    fn names(looked: Looked) -> Vec<&'static str> {
        let report = looked.report();
        let blocking = report.obstacles.iter();
        let blocking = blocking.filter(|found| found.severity == Severity::Error);
        blocking.map(|found| found.name).collect()
    }

    #[test]
    fn etcd_is_upgraded_one_minor_release_at_a_time() {
        for (from, to, expected) in [
            (&["3.5.30", "3.5.30"][..], "3.6", &[][..]),
            (&["3.5.16"], "3.6", &["patch-first"]),
            (&["3.4.23"], "3.6", &["one-minor-at-a-time"]),
            (&["3.4.23"], "3.5", &[]),
            (&["3.5.30"], "3.7", &["one-minor-at-a-time"]),
            (&["3.5.30", "3.6.14"], "3.6", &["versions-differ"]),
            (&["3.6.14"], "3.7", &[]),
            (&["3.7.1"], "3.5", &["one-minor-at-a-time"]),
        ] {
            let mut looked = looked(from, to);
            looked.versions();
            assert_eq!(names(looked), expected, "{from:?} to {to}");
        }
    }

    #[test]
    fn an_etcd_before_3_6_cannot_be_downgraded() {
        for (from, expected) in [
            (&["3.5.30", "3.6.14"][..], "downgrade-unsupported"),
            (&["3.6.14"], "downgrade-not-enabled"),
        ] {
            let mut looked = looked(from, "3.5");
            looked.downgrade_not_enabled();
            assert_eq!(names(looked), [expected], "{from:?}");
        }
    }

    #[test]
    fn flags_that_a_release_lacks_are_named_with_their_successors() {
        let setting = |name: &str| Setting {
            name: name.to_owned(),
            value: "true".to_owned(),
            source: "/etc/kubernetes/manifests/etcd.yaml".to_owned(),
        };
        let corrupt = setting("experimental-initial-corrupt-check");
        let mut newest = looked(&["3.6.14"], "3.7");
        newest.flag(&corrupt);
        newest.flag(&setting("experimental-watch-progress-notify-interval"));
        newest.flag(&setting("data-dir"));
        let report = newest.report();
        let cures: Vec<&str> = report
            .obstacles
            .iter()
            .map(|found| found.cure.as_str())
            .collect();
        assert_eq!(
            cures,
            [
                "replace it by --feature-gates=InitialCorruptCheck=true, which 3.6 has already",
                "replace it by --watch-progress-notify-interval=true, which 3.6 has already"
            ]
        );
        assert!(!report.ready);
        let mut next = looked(&["3.5.30"], "3.6");
        next.flag(&corrupt);
        next.flag(&setting("enable-v2"));
        assert_eq!(names(next), ["flag-removed"]);
        let mut back = looked(&["3.6.14"], "3.5");
        back.flag(&setting("feature-gates"));
        assert_eq!(names(back), ["flag-unknown"]);
        // OpenShift's manifest is its operator's, and comes with the release.
        let mut openshift = looked(&["3.6.14"], "3.7");
        openshift.profile = Profile::Openshift;
        openshift.flag(&corrupt);
        let podman = Setting {
            source: "/var/lib/etcd/config.yaml".to_owned(),
            ..corrupt
        };
        assert_eq!(openshift.obstacles[0].severity, Severity::Warning);
        openshift.flag(&podman);
        assert_eq!(names(openshift), ["flag-removed"]);
    }

    #[test]
    fn a_downgrade_must_be_enabled() {
        let db = |downgrade: Option<&str>| DbFacts {
            storage_version: Some("3.6.0".to_owned()),
            downgrade: downgrade.map(str::to_owned),
            ..DbFacts::default()
        };
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path(), None);
        for dir in [&layout.snap, &layout.wal] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let files = datadir::check(&layout, None).unwrap();
        let of = |db: &DbFacts, from: &str, to: &str| {
            let mut looked = looked(&[from], to);
            looked.own(db, &files, Foreign { v2: 3, newer: 2 });
            names(looked)
        };
        assert_eq!(
            of(&db(None), "3.6.14", "3.5"),
            ["storage-version", "downgrade-not-enabled", "newer-entries"]
        );
        assert_eq!(
            of(&db(Some("3.5.0")), "3.6.14", "3.7"),
            ["downgrade-enabled", "v2-requests"]
        );
        assert_eq!(of(&DbFacts::default(), "3.5.30", "3.6"), [""; 0]);
    }
}
