//! What a restore of a node is asked for.

use std::path::PathBuf;
use std::time::Duration;

use super::refusals::{NODE_MISMATCH, ROOT_REQUIRED, Refusals};
use crate::change::transaction::info::Scope;
use crate::cluster::connect::Target;
use crate::context::Context;
use crate::etcd::history::Moment;
use crate::etcd::restore::Bump;
use crate::keep::catalog::BackupSet;
use crate::keep::ranges::Recorded;

/// What every restore of a node is asked for, whatever its data comes from.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The node.
    pub target: Target,
    /// The store's directory, whose backups say how far the cluster had come.
    pub store: Option<PathBuf>,
    /// Which pods are stopped and started again, and rolled back if they are in the backup.
    pub scope: Scope,
    /// How the revision is bumped.
    pub bump: Bump,
    /// Names of refusals that are allowed.
    pub allow: Vec<String>,
    /// The longest wait for pods to end, and for anything to start.
    pub wait: Duration,
    /// The time that pods other than etcd's get to end.
    pub grace: Duration,
    /// The member's peer URLs, if the node's manifest does not name them or they have changed.
    pub peer_urls: Option<Vec<String>>,
    /// Whether the process is root.
    pub privileged: bool,
    /// Randomness, for the new cluster's id.
    pub random: u128,
    /// Whether the plan is only shown: then what is refused comes with it.
    pub rehearsal: bool,
}

/// What a restore from a backup is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// What every restore of a node is asked for.
    pub options: NodeOptions,
    /// The backup.
    pub set: BackupSet,
    /// The revision to restore to; none: the backup's own.
    pub to: Option<Moment>,
    /// The WAL that is applied to the backup: a member's data directory, as a host path; empty: the
    /// node's own.
    pub roll_forward: Option<PathBuf>,
    /// Recorded changes that are applied to the backup.
    pub recorded: Option<Recorded>,
    /// A directory for scratch files.
    pub scratch: PathBuf,
}

impl NodeOptions {
    pub(super) fn allows(&self, name: &str) -> bool {
        self.allow.iter().any(|allowed| allowed == name)
    }

    /// The refusal of a restore by another user than root.
    pub(super) fn root_required(&self) -> Option<(&'static str, String)> {
        let what = "only root can restore owners and SELinux labels";
        (!self.privileged).then(|| (ROOT_REQUIRED, what.to_owned()))
    }

    /// The refusals that are left; those that are allowed become warnings. That of another node's
    /// static pods always stays: they would never run here.
    pub(super) fn not_allowed(&self, context: &Context, mut refusals: Refusals) -> Refusals {
        refusals.retain(|(name, what)| {
            let allowed = *name != NODE_MISMATCH && self.allows(name);
            if allowed {
                context.warn(name, what.clone());
            }
            !allowed
        });
        refusals
    }
}
