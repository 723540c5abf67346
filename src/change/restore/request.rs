//! What a restore from a backup is asked for.

use std::path::PathBuf;
use std::time::Duration;

use crate::change::transaction::info::Scope;
use crate::cluster::connect::Target;
use crate::etcd::history::Moment;
use crate::etcd::restore::Bump;
use crate::keep::catalog::BackupSet;
use crate::keep::trust;

/// Refusals that an operator may override.
pub const ALLOWABLE: [&str; 16] = [
    "address-not-local",
    "alarm-in-backup",
    "bump-too-small",
    "certificates-invalid",
    "other-members-running",
    "cluster-mismatch",
    "other-members-unknown",
    "node-mismatch",
    "version-mismatch",
    "outside-in-the-way",
    "root-required",
    "unknown-version",
    "no-integrity-hash",
    trust::UNSIGNED,
    trust::UNKNOWN_SIGNER,
    trust::WRONG_SIGNER,
];

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The node.
    pub target: Target,
    /// The set.
    pub set: BackupSet,
    /// The store's directory, whose other sets say how far the cluster had come.
    pub store: Option<PathBuf>,
    /// The revision to restore to; none: the backup's own.
    pub to: Option<Moment>,
    /// The WAL that is applied to the backup: a member's data directory, as a host path; empty: the
    /// node's own.
    pub roll_forward: Option<PathBuf>,
    /// What is rolled back.
    pub scope: Scope,
    /// How the revision is raised.
    pub bump: Bump,
    /// Names of refusals that are allowed.
    pub allow: Vec<String>,
    /// The longest wait for pods to end, and for anything to start.
    pub wait: Duration,
    /// The time that pods other than etcd's get to end.
    pub grace: Duration,
    /// A directory for scratch files.
    pub scratch: PathBuf,
    /// Whether the process is root.
    pub privileged: bool,
    /// Randomness, for the new cluster's token.
    pub random: u128,
    /// The tool's version, for the journal.
    pub tool_version: String,
    /// The member's peer URLs, where the node's manifest does not tell them.
    pub peer_urls: Option<Vec<String>>,
    /// Whether the plan is only shown: then what is refused comes with it.
    pub rehearsal: bool,
}

impl Request {
    pub(super) fn allows(&self, name: &str) -> bool {
        self.allow.iter().any(|allowed| allowed == name)
    }
}
