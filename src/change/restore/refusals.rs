//! The names of what a restore of a node is refused for.

use crate::keep::trust;

/// The backup's etcd would listen on an address that this machine does not have.
pub(super) const ADDRESS_NOT_LOCAL: &str = "address-not-local";
/// An alarm is raised in the backup, and will be again.
pub(super) const ALARM_IN_BACKUP: &str = "alarm-in-backup";
/// The revision would not get above all that clients may have seen.
pub(super) const BUMP_TOO_SMALL: &str = "bump-too-small";
/// A certificate that a restored pod starts with is missing, expired, or for another name.
pub(super) const CERTIFICATES_INVALID: &str = "certificates-invalid";
/// The backup is another cluster's.
pub(super) const CLUSTER_MISMATCH: &str = "cluster-mismatch";
/// A running etcd writes to the data that would be read.
pub(super) const ETCD_RUNNING: &str = "etcd-running";
/// The snapshot has no hash of itself.
pub(super) const NO_INTEGRITY_HASH: &str = "no-integrity-hash";
/// The backup's static pods are another node's.
pub(super) const NODE_MISMATCH: &str = "node-mismatch";
/// Other voting members answer.
pub(super) const OTHER_MEMBERS_RUNNING: &str = "other-members-running";
/// Whether other members run cannot be told.
pub(super) const OTHER_MEMBERS_UNKNOWN: &str = "other-members-unknown";
/// A file outside the directories of the control plane differs from the backup's.
pub(super) const OUTSIDE_IN_THE_WAY: &str = "outside-in-the-way";
/// Only root can do it.
pub(super) const ROOT_REQUIRED: &str = "root-required";
/// It is not known whether this release of etcd can open the snapshot.
pub(super) const UNKNOWN_VERSION: &str = "unknown-version";
/// The backup is of another release of OpenShift.
pub(super) const VERSION_MISMATCH: &str = "version-mismatch";

/// Refusals that an operator may override.
pub const ALLOWABLE: [&str; 16] = [
    ADDRESS_NOT_LOCAL,
    ALARM_IN_BACKUP,
    BUMP_TOO_SMALL,
    CERTIFICATES_INVALID,
    OTHER_MEMBERS_RUNNING,
    CLUSTER_MISMATCH,
    OTHER_MEMBERS_UNKNOWN,
    NODE_MISMATCH,
    VERSION_MISMATCH,
    OUTSIDE_IN_THE_WAY,
    ROOT_REQUIRED,
    UNKNOWN_VERSION,
    NO_INTEGRITY_HASH,
    trust::UNSIGNED,
    trust::UNKNOWN_SIGNER,
    trust::WRONG_SIGNER,
];

/// What was found against a restore: the names of refusals, and why.
pub(super) type Refusals = Vec<(&'static str, String)>;
