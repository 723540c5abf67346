//! What was found.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cluster::quorum::Tally;
use crate::cluster::survey::MemberState;
use crate::error::Failure;
use crate::etcd::ids::{ClusterId, MemberId};
use crate::etcd::known::Known;
use crate::etcd::membership::Member;
use crate::finding::Severity;
use crate::node::profile::Profile;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Its stable name.
    pub name: &'static str,
    /// Whether it is one already, or will be.
    pub severity: Severity,
    /// The member it is about, by name or id.
    pub member: Option<String>,
    /// That member's id.
    pub member_id: Option<MemberId>,
    /// What was seen, in a sentence.
    pub evidence: String,
    /// The host, address or URL that matters.
    pub place: Option<String>,
    /// The file or directory that matters.
    pub path: Option<PathBuf>,
    /// What the next command depends on besides.
    #[serde(skip)]
    pub remedy: Option<Remedy>,
    /// The known faults of a release.
    #[serde(flatten)]
    pub known: Option<Known>,
}

/// What a next command depends on besides the finding's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The time does not fit: a clock is wrong, or a certificate is to come.
    Clock,
    /// What was not configured, as in [`Fact::Missing`].
    Missing(&'static str),
    /// A certificate that members show to each other.
    PeerCertificate,
    /// A certificate that members show to clients.
    ServingCertificate,
}

impl Finding {
    pub(super) fn new(name: &'static str, severity: Severity, evidence: String) -> Self {
        Self {
            name,
            severity,
            evidence,
            member: None,
            member_id: None,
            place: None,
            path: None,
            remedy: None,
            known: None,
        }
    }

    pub(super) fn error(name: &'static str, evidence: String) -> Self {
        Self::new(name, Severity::Error, evidence)
    }

    pub(super) fn warning(name: &'static str, evidence: String) -> Self {
        Self::new(name, Severity::Warning, evidence)
    }

    pub(super) fn of(mut self, member: &Member) -> Self {
        self.member = Some(member.label());
        self.member_id = Some(member.id);
        self
    }

    pub(super) fn at(mut self, place: &str) -> Self {
        self.place = Some(place.to_owned());
        self
    }

    pub(super) fn with(mut self, remedy: Remedy) -> Self {
        self.remedy = Some(remedy);
        self
    }

    pub(super) fn in_file(mut self, path: &Path) -> Self {
        self.path = Some(path.to_owned());
        self
    }
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotChecked {
    /// What.
    pub what: &'static str,
    /// Why.
    pub why: String,
}

/// All that was found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether there are no problems.
    pub good: bool,
    /// The cluster's id, where a member answered.
    pub cluster_id: Option<ClusterId>,
    /// The members, where one answered.
    pub members: Vec<MemberState>,
    /// The votes.
    pub votes: Option<Tally>,
    /// The problems.
    pub findings: Vec<Finding>,
    /// No problem yet: only before an upgrade, or by luck.
    pub advice: Vec<Finding>,
    /// What could not be looked at.
    pub not_checked: Vec<NotChecked>,
    /// The kind of node this was asked on.
    #[serde(skip)]
    pub profile: Option<Profile>,
    /// Where this node's member keeps its data.
    #[serde(skip)]
    pub data_dir: Option<PathBuf>,
    /// How far the members' clocks are apart, in milliseconds, and how far that may be wrong.
    pub clock_spread: Option<(u64, u64)>,
}

impl Report {
    /// A report on which nothing has been looked at yet.
    pub(super) fn of(profile: Profile) -> Self {
        Self {
            good: false,
            cluster_id: None,
            members: Vec::new(),
            votes: None,
            findings: Vec::new(),
            advice: Vec::new(),
            not_checked: Vec::new(),
            profile: Some(profile),
            data_dir: None,
            clock_spread: None,
        }
    }
}

pub(super) fn unchecked(what: &'static str, failure: &Failure) -> NotChecked {
    NotChecked {
        what,
        why: failure.to_string(),
    }
}
