//! The members by raft: voters and learners.

use std::collections::BTreeSet;

use super::facts::DbFacts;
use crate::etcd::ids::MemberId;
use crate::etcd::proto::raft::{ConfChangeKind, ConfState};

/// Ids of voters and learners.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RaftMembers {
    /// Members that vote.
    pub voters: BTreeSet<MemberId>,
    /// Members that only follow.
    pub learners: BTreeSet<MemberId>,
}

impl RaftMembers {
    pub(in crate::etcd) fn of(state: &ConfState) -> Self {
        let ids = |list: &[u64]| list.iter().copied().map(MemberId).collect();
        Self {
            voters: ids(&state.voters),
            learners: ids(&state.learners),
        }
    }

    pub(super) fn of_database(db: &DbFacts) -> Self {
        let of = |learner: bool| {
            let members = db.members.iter();
            let of = members.filter(|member| member.is_learner == learner);
            of.map(|member| member.id).collect()
        };
        Self {
            voters: of(false),
            learners: of(true),
        }
    }

    /// The same as a WAL and a `.snap` file have it.
    pub(in crate::etcd) fn conf_state(&self) -> ConfState {
        let ids = |members: &BTreeSet<MemberId>| members.iter().map(|id| id.0).collect();
        ConfState {
            voters: ids(&self.voters),
            learners: ids(&self.learners),
            ..ConfState::default()
        }
    }

    pub(in crate::etcd) fn apply(&mut self, kind: ConfChangeKind, id: MemberId) {
        match kind {
            ConfChangeKind::AddNode => {
                self.learners.remove(&id);
                self.voters.insert(id);
            }
            ConfChangeKind::AddLearnerNode => {
                self.voters.remove(&id);
                self.learners.insert(id);
            }
            ConfChangeKind::RemoveNode => {
                self.voters.remove(&id);
                self.learners.remove(&id);
            }
            ConfChangeKind::UpdateNode | ConfChangeKind::Other(_) => {}
        }
    }

    /// Whether it is a member of either kind.
    pub fn contains(&self, id: MemberId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// All ids.
    pub fn ids(&self) -> BTreeSet<MemberId> {
        self.voters.union(&self.learners).copied().collect()
    }
}
