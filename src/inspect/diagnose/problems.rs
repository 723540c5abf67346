//! The stable names of problems.

/// No member answers.
pub const CLUSTER_UNREACHABLE: &str = "cluster-unreachable";
/// Too few voting members are healthy to agree on anything.
pub const NO_QUORUM: &str = "no-quorum";
/// There is a leader, and nothing is committed.
pub const CANNOT_COMMIT: &str = "cannot-commit";
/// Another member has no connection to this one.
pub const PEER_NOT_CONNECTED: &str = "peer-not-connected";
/// A member does not answer.
pub const MEMBER_UNREACHABLE: &str = "member-unreachable";
/// A member answers and sees no leader.
pub const MEMBER_LEADERLESS: &str = "member-leaderless";
/// A member was added and has never started.
pub const MEMBER_NOT_STARTED: &str = "member-not-started";
/// A member of another cluster answers at a member's client URL.
pub const FOREIGN_CLUSTER: &str = "foreign-cluster";
/// Another member answers at a member's client URL.
pub const WRONG_MEMBER_ANSWERS: &str = "wrong-member-answers";
/// A member complains of itself.
pub const MEMBER_REPORTS_ERRORS: &str = "member-reports-errors";
/// An alarm is raised.
pub const ALARM: &str = "alarm";
/// A learner is far behind.
pub const LEARNER_LAGS: &str = "learner-lags";
/// A voting member is far behind.
pub const MEMBER_LAGS: &str = "member-lags";
/// A database is close to its quota.
pub const DATABASE_NEAR_QUOTA: &str = "database-near-quota";
/// The members' clocks are apart.
pub const CLOCK_SKEW: &str = "clock-skew";
/// A name in a URL does not resolve.
pub const NAME_UNRESOLVED: &str = "name-unresolved";
/// A name in a URL resolves to another address than the member's.
pub const NAME_RESOLVES_ELSEWHERE: &str = "name-resolves-elsewhere";
/// A peer URL leads every other machine to itself.
pub const PEER_URL_LOOPBACK: &str = "peer-url-loopback";
/// etcd-dr has disabled this node's etcd.
pub const ETCD_DISABLED: &str = "etcd-disabled";
/// The peer URL of this node's member leads to another machine.
pub const PEER_URL_NOT_LOCAL: &str = "peer-url-not-local";
/// A certificate is over, or does not hold yet.
pub const CERTIFICATE_EXPIRED: &str = "certificate-expired";
/// A certificate will be over within 30 days.
pub const CERTIFICATE_EXPIRES_SOON: &str = "certificate-expires-soon";
/// A certificate is not for the host in the URL it is presented at.
pub const CERTIFICATE_LACKS_NAME: &str = "certificate-lacks-name";
/// The data directory of this node's member is broken.
pub const BAD_DATA_DIR: &str = "bad-data-dir";
/// Not all say the same of who the members are.
pub const MEMBERSHIP_DIFFERS: &str = crate::etcd::datadir::MEMBERSHIP_DIFFERS;
/// A member runs a release with known faults.
pub const KNOWN_BAD_VERSION: &str = "known-bad-version";
