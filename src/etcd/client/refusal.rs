//! Why etcd does not change its members, by the words of its answer (etcd's
//! `api/v3rpc/rpctypes/error.go`, the same from 3.4 on).

use std::fmt;

use tonic::Code;

use super::cause::{Cause, Phase};
use crate::error::Failure;

/// A reason that etcd gives for not changing members or leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The learner is too far behind the leader to vote.
    LearnerNotReady,
    /// As many learners as the servers' `--max-learners` allows are there.
    TooManyLearners,
    /// Not all voting members have been connected for five seconds, or too few would be.
    UnhealthyCluster,
    /// Too few members have ever started for the change.
    NotEnoughStarted,
    /// A member with this id, which is made of the peer URLs, is there.
    MemberExists,
    /// A member has this peer URL.
    PeerUrlExists,
    /// The peer URLs are not valid.
    BadUrls,
    /// No member has this id.
    MemberNotFound,
    /// The new member's id is one that was removed for good. It is made of the peer URLs, the
    /// cluster's name and the time in seconds (etcd, `server/etcdserver/api/membership/member.go`,
    /// `NewMember`): within the second of a removal the same URLs give the same id.
    IdRemoved,
    /// The member votes already.
    NotALearner,
    /// The member asked does not lead.
    NotLeader,
    /// Leadership cannot go to this member.
    BadTransferee,
    /// There is no leader now.
    NoLeader,
    /// The member asked is a learner, which answers little.
    AskedALearner,
}

impl Refusal {
    const WORDS: [(&'static str, Self); 13] = [
        ("in sync with leader", Self::LearnerNotReady),
        ("too many learner members", Self::TooManyLearners),
        ("unhealthy cluster", Self::UnhealthyCluster),
        ("not enough started members", Self::NotEnoughStarted),
        ("member ID already exist", Self::MemberExists),
        ("Peer URLs already exists", Self::PeerUrlExists),
        ("given member URLs are invalid", Self::BadUrls),
        ("member not found", Self::MemberNotFound),
        ("can only promote a learner member", Self::NotALearner),
        ("not leader", Self::NotLeader),
        ("bad leader transferee", Self::BadTransferee),
        ("no leader", Self::NoLeader),
        ("not supported for learner", Self::AskedALearner),
    ];

    /// Reads etcd's words; the first that fits, for "in sync with leader" is the end of a longer
    /// sentence than "can only promote a learner member".
    pub(super) fn of(cause: &Cause) -> Option<Self> {
        let Cause::Answer { message, .. } = cause else {
            return None;
        };
        Self::WORDS
            .iter()
            .find_map(|(words, refusal)| message.contains(words).then_some(*refusal))
    }

    /// Whether it may pass by itself, so that asking again is sensible.
    pub fn may_pass(self) -> bool {
        matches!(
            self,
            Self::LearnerNotReady | Self::UnhealthyCluster | Self::NoLeader | Self::IdRemoved
        )
    }
}

/// A change of members or leadership that was not confirmed.
#[derive(Debug)]
pub struct NotChanged {
    /// etcd's own reason, if it gave one of those known.
    pub refusal: Option<Refusal>,
    /// Whether the change may still have been made: no answer came, or one that says as
    /// much. The list of members tells.
    pub perhaps_done: bool,
    /// The failure, for a reader.
    pub failure: Failure,
}

impl NotChanged {
    pub(super) fn new(refusal: Option<Refusal>, perhaps_done: bool, failure: Failure) -> Self {
        Self {
            refusal,
            perhaps_done,
            failure,
        }
    }
}

impl fmt::Display for NotChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

/// Whether a change that failed so may have happened: a proposal that etcd has accepted continues
/// when its caller learns that time ran out or that the leader has changed.
pub(super) fn perhaps_done(cause: &Cause) -> bool {
    match cause {
        Cause::Timeout { phase, .. } => *phase == Phase::Call,
        Cause::Broken(_) | Cause::Closed | Cause::Network(_) | Cause::Protocol(_) => true,
        Cause::Answer { code, .. } => {
            Refusal::of(cause).is_none()
                && matches!(
                    code,
                    Code::Unavailable
                        | Code::DeadlineExceeded
                        | Code::Unknown
                        | Code::Cancelled
                        | Code::Internal
                )
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: Code, message: &str) -> Cause {
        Cause::Answer {
            code,
            message: message.to_owned(),
        }
    }

    #[test]
    fn etcds_words_are_known() {
        for (message, refusal) in [
            (
                "etcdserver: can only promote a learner member which is in sync with leader",
                Refusal::LearnerNotReady,
            ),
            (
                "etcdserver: can only promote a learner member",
                Refusal::NotALearner,
            ),
            (
                "etcdserver: too many learner members in cluster",
                Refusal::TooManyLearners,
            ),
            ("etcdserver: unhealthy cluster", Refusal::UnhealthyCluster),
            (
                "etcdserver: Peer URLs already exists",
                Refusal::PeerUrlExists,
            ),
            ("etcdserver: member not found", Refusal::MemberNotFound),
            ("etcdserver: not leader", Refusal::NotLeader),
        ] {
            let cause = answer(Code::FailedPrecondition, message);
            assert_eq!(Refusal::of(&cause), Some(refusal), "{message}");
            assert!(!perhaps_done(&cause), "{message}");
        }
    }

    #[test]
    fn changes_that_may_have_happened_are_distinguished() {
        assert!(perhaps_done(&answer(
            Code::Unavailable,
            "etcdserver: request timed out"
        )));
        assert!(perhaps_done(&answer(
            Code::Unavailable,
            "etcdserver: leader changed"
        )));
        assert!(perhaps_done(&Cause::Closed));
        assert!(!perhaps_done(&Cause::Refused));
        assert!(!perhaps_done(&answer(Code::PermissionDenied, "no")));
        let unhealthy = answer(Code::Unavailable, "etcdserver: unhealthy cluster");
        assert!(!perhaps_done(&unhealthy));
    }
}
