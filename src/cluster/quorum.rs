//! The arithmetic of votes: who votes, how many must agree, how many more may fail. Pure functions.
//! Their refusals have names, and come before etcd is asked to change anything.
//!
//! A change is agreed on by a majority of the voting members, `voters / 2 + 1` (Raft, section 5). A
//! learner has no vote. A member that was added and has not started yet counts as a voting member,
//! but cannot vote.

use serde::Serialize;

use crate::error::{Fact, Failure, Kind};

/// What the arithmetic needs to know of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub id: u64,
    /// Whether it votes: it is not a learner.
    pub votes: bool,
    /// Whether it has ever started.
    pub started: bool,
    /// Whether it answers now, and sees a leader.
    pub healthy: bool,
}

/// How a cluster stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Members that vote.
    pub voters: usize,
    /// Members that do not.
    pub learners: usize,
    /// Voting members that have never started.
    pub unstarted: usize,
    /// Voting members that are healthy now.
    pub healthy: usize,
    /// How many voting members must agree.
    pub quorum: usize,
    /// How many of the healthy voting members may fail before the quorum is lost; `None` if it is
    /// lost already.
    pub tolerance: Option<usize>,
    /// The same, were every voting member healthy.
    pub tolerance_when_whole: usize,
}

impl Tally {
    /// Counts.
    pub fn of(members: &[Standing]) -> Self {
        let voting = || members.iter().filter(|member| member.votes);
        let voters = voting().count();
        let healthy = voting().filter(|member| member.healthy).count();
        let quorum = voters / 2 + 1;
        Self {
            voters,
            learners: members.len() - voters,
            unstarted: voting().filter(|member| !member.started).count(),
            healthy,
            quorum,
            tolerance: healthy.checked_sub(quorum),
            tolerance_when_whole: voters.saturating_sub(quorum),
        }
    }

    /// Whether enough voting members are healthy to agree on anything.
    pub fn has_quorum(&self) -> bool {
        self.tolerance.is_some()
    }
}

/// How it stands before and after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Now.
    pub before: Tally,
    /// As soon as the change is made.
    pub after: Tally,
}

/// What stands against a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// Too few members are healthy to agree on any change.
    NoQuorum,
    /// The change would leave too few healthy voting members.
    WouldLoseQuorum,
    /// No voting member would be left.
    LastMember,
}

/// The cluster has no quorum: etcd cannot agree on a change.
pub const NO_QUORUM: &str = "no-quorum";
/// The change would cost the cluster its quorum.
pub const WOULD_LOSE_QUORUM: &str = "would-lose-quorum";
/// The member is the last one that votes.
pub const LAST_MEMBER: &str = "last-member";

impl Against {
    /// The refusal's stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoQuorum => NO_QUORUM,
            Self::WouldLoseQuorum => WOULD_LOSE_QUORUM,
            Self::LastMember => LAST_MEMBER,
        }
    }

    /// Whether an operator may override it: not if etcd cannot make the change at all.
    pub fn allowable(self) -> bool {
        self == Self::WouldLoseQuorum
    }

    /// The refusal, with the figures.
    pub fn refusal(self, doing: &str, change: &Change) -> Failure {
        let Change { before, after } = change;
        let why = match self {
            Self::NoQuorum => format!(
                "{} of {} voting members answer, but {} must agree on any change",
                before.healthy, before.voters, before.quorum
            ),
            Self::WouldLoseQuorum => format!(
                "{} of {} voting members would be healthy, but {} must agree: the cluster would stop accepting writes",
                after.healthy, after.voters, after.quorum
            ),
            Self::LastMember => "it is the last voting member".to_owned(),
        };
        Failure::new(Kind::Refused, why)
            .with(Fact::Refusal {
                name: self.name(),
                allowable: self.allowable(),
            })
            .doing(doing.to_owned())
    }
}

/// What an added member does, as a learner or with a vote; it has not started.
pub fn addition(members: &[Standing], votes: bool) -> (Change, Option<Against>) {
    let mut then = members.to_vec();
    then.push(Standing {
        id: 0,
        votes,
        started: false,
        healthy: false,
    });
    judged(members, &then)
}

/// What a removal does.
pub fn removal(members: &[Standing], id: u64) -> (Change, Option<Against>) {
    let then: Vec<Standing> = members
        .iter()
        .copied()
        .filter(|member| member.id != id)
        .collect();
    judged(members, &then)
}

/// What it does when a member is healthy, or not, from now on.
pub fn with_health(members: &[Standing], id: u64, healthy: bool) -> (Change, Option<Against>) {
    let mut then = members.to_vec();
    for member in then.iter_mut().filter(|member| member.id == id) {
        member.healthy = healthy;
    }
    judged(members, &then)
}

fn judged(now: &[Standing], then: &[Standing]) -> (Change, Option<Against>) {
    let change = Change {
        before: Tally::of(now),
        after: Tally::of(then),
    };
    let against = if change.after.voters == 0 {
        Some(Against::LastMember)
    } else if !change.before.has_quorum() {
        Some(Against::NoQuorum)
    } else if !change.after.has_quorum() {
        Some(Against::WouldLoseQuorum)
    } else {
        None
    };
    (change, against)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn voters(healthy: &[bool]) -> Vec<Standing> {
        (1..)
            .zip(healthy)
            .map(|(id, &healthy)| Standing {
                id,
                votes: true,
                started: true,
                healthy,
            })
            .collect()
    }

    #[test]
    fn the_usual_sizes() {
        for (members, quorum, tolerance) in [(1, 1, 0), (2, 2, 0), (3, 2, 1), (4, 3, 1), (5, 3, 2)]
        {
            let tally = Tally::of(&voters(&vec![true; members]));
            assert_eq!((tally.quorum, tally.tolerance), (quorum, Some(tolerance)));
            assert_eq!(tally.tolerance_when_whole, tolerance);
        }
    }

    #[test]
    fn every_refusal_has_its_name() {
        let removed = |healthy: &[bool], id| removal(&voters(healthy), id).1;
        assert_eq!(removed(&[true], 1), Some(Against::LastMember));
        assert_eq!(removed(&[true, true], 1), None);
        assert_eq!(removed(&[true, true, false], 3), None);
        assert_eq!(
            removed(&[true, true, false], 1),
            Some(Against::WouldLoseQuorum)
        );
        assert_eq!(removed(&[true, false, false], 3), Some(Against::NoQuorum));
        let added = |healthy: &[bool], votes| addition(&voters(healthy), votes).1;
        assert_eq!(added(&[true], true), Some(Against::WouldLoseQuorum));
        assert_eq!(added(&[true], false), None);
        assert_eq!(added(&[true, true], true), None);
        assert_eq!(added(&[true, false], false), Some(Against::NoQuorum));
        // Three of four must agree, and only two would.
        assert_eq!(
            added(&[true, true, false], true),
            Some(Against::WouldLoseQuorum)
        );
    }

    fn any_members() -> impl Strategy<Value = Vec<Standing>> {
        let one = (any::<bool>(), any::<bool>(), any::<bool>());
        prop::collection::vec(one, 0..10).prop_map(|members| {
            (1..)
                .zip(members)
                .map(|(id, (votes, started, healthy))| Standing {
                    id,
                    votes,
                    started,
                    healthy: healthy && started,
                })
                .collect()
        })
    }

    proptest! {
        /// Two majorities share a member, and no smaller number would do.
        #[test]
        fn a_quorum_is_the_smallest_majority(members in any_members()) {
            let tally = Tally::of(&members);
            prop_assert!(tally.quorum * 2 > tally.voters);
            prop_assert!((tally.quorum - 1) * 2 <= tally.voters);
            prop_assert_eq!(tally.voters + tally.learners, members.len());
        }

        /// As many as the tolerance says may fail, in any order, and not one more.
        #[test]
        fn the_tolerance_is_how_many_may_fail(members in any_members()) {
            let tally = Tally::of(&members);
            let mut left = members.clone();
            let mut failed: usize = 0;
            while Tally::of(&left).has_quorum() {
                let Some(next) = left.iter_mut().find(|member| member.votes && member.healthy)
                else {
                    break;
                };
                next.healthy = false;
                failed += 1;
            }
            // The last failure is the one too many.
            prop_assert_eq!(tally.tolerance, failed.checked_sub(1));
        }

        /// A learner changes nothing, coming or going.
        #[test]
        fn a_learner_never_matters(members in any_members()) {
            let (change, _) = addition(&members, false);
            prop_assert_eq!(change.before.quorum, change.after.quorum);
            prop_assert_eq!(change.before.tolerance, change.after.tolerance);
            for learner in members.iter().filter(|member| !member.votes) {
                let (change, _) = removal(&members, learner.id);
                prop_assert_eq!(change.before.tolerance, change.after.tolerance);
            }
        }

        /// Every allowed change leaves a quorum; a dead member can always be removed while there is
        /// one.
        #[test]
        fn what_passes_keeps_the_quorum(members in any_members()) {
            for member in &members {
                let (change, against) = removal(&members, member.id);
                if against.is_none() {
                    prop_assert!(change.before.has_quorum() && change.after.has_quorum());
                } else if change.before.has_quorum() && change.after.voters > 0 {
                    prop_assert!(member.healthy && member.votes);
                }
            }
            for votes in [true, false] {
                let (change, against) = addition(&members, votes);
                prop_assert!(against.is_some() || change.after.has_quorum());
            }
        }
    }
}
