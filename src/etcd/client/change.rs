//! The calls that change who is a member and who leads. Each is etcd's own, once: whether to try
//! again is the caller's to decide, who learns whether the change may have been made.

use super::cause::Cause;
use super::connection::{Connection, of_library};
use super::refusal::{NotChanged, Refusal, perhaps_done};
use super::types::MemberList;
use crate::error::Kind;
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;

/// What a new member is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewMember {
    /// It gets the data but has no vote until it is promoted (3.4 and later).
    Learner,
    /// It counts for the quorum from the moment it is added.
    Voter,
}

/// A member that was added, and all members with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedMember {
    /// The new one; it has no name until it starts.
    pub member: Member,
    /// All members, the new one among them, and who said so.
    pub list: MemberList,
}

impl Connection {
    /// Adds a member that has not started yet.
    ///
    /// # Errors
    /// [`NotChanged`], as of every call here: [`Kind::Refused`] if etcd gave a reason that is
    /// known, [`Kind::Unreachable`] otherwise.
    pub async fn member_add(
        &self,
        peer_urls: &[String],
        new: NewMember,
    ) -> Result<AddedMember, NotChanged> {
        let options = match new {
            NewMember::Learner => Some(etcd_client::MemberAddOptions::new().with_is_learner()),
            NewMember::Voter => None,
        };
        let mut cluster = self.client.cluster_client();
        let what = format!("to add a member at {}", peer_urls.join(","));
        let reply = self
            .change(&what, cluster.member_add(peer_urls, options))
            .await
            .map_err(|not| NotChanged {
                // The one id that an addition names is its own.
                refusal: not.refusal.map(|refusal| match refusal {
                    Refusal::MemberNotFound => Refusal::IdRemoved,
                    other => other,
                }),
                ..not
            })?;
        let list = MemberList {
            header: reply.header().into(),
            members: reply.member_list().iter().map(Member::from).collect(),
        };
        match reply.member() {
            Some(member) => Ok(AddedMember {
                member: member.into(),
                list,
            }),
            None => Err(self.not_changed(
                Cause::Protocol("the answer does not say which member was added".to_owned()),
                &what,
            )),
        }
    }

    /// Removes a member; what is left of the cluster.
    ///
    /// # Errors
    /// [`NotChanged`].
    pub async fn member_remove(&self, id: MemberId) -> Result<MemberList, NotChanged> {
        let mut cluster = self.client.cluster_client();
        let what = format!("to remove member {id}");
        let reply = self.change(&what, cluster.member_remove(id.0)).await?;
        Ok(MemberList {
            header: reply.header().into(),
            members: reply.members().iter().map(Member::from).collect(),
        })
    }

    /// Gives a learner its vote; any voting member may be asked, the leader decides.
    ///
    /// # Errors
    /// [`NotChanged`], with [`Refusal::LearnerNotReady`] while it is too far behind.
    pub async fn member_promote(&self, id: MemberId) -> Result<MemberList, NotChanged> {
        let mut cluster = self.client.cluster_client();
        let what = format!("to promote learner {id}");
        let reply = self.change(&what, cluster.member_promote(id.0)).await?;
        Ok(MemberList {
            header: reply.header().into(),
            members: reply.members().iter().map(Member::from).collect(),
        })
    }

    /// Gives a member other peer URLs.
    ///
    /// # Errors
    /// [`NotChanged`].
    pub async fn member_update(
        &self,
        id: MemberId,
        peer_urls: &[String],
    ) -> Result<(), NotChanged> {
        let mut cluster = self.client.cluster_client();
        let what = format!("to move member {id} to {}", peer_urls.join(","));
        self.change(&what, cluster.member_update(id.0, peer_urls))
            .await
            .map(drop)
    }

    /// Asks the leader, which this connection must lead to, to hand its office to a voting
    /// member.
    ///
    /// # Errors
    /// [`NotChanged`], with [`Refusal::NotLeader`] if another member leads.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), NotChanged> {
        let mut maintenance = self.client.maintenance_client();
        let what = format!("to make member {to} the leader");
        self.change(&what, maintenance.move_leader(to.0))
            .await
            .map(drop)
    }

    async fn change<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, NotChanged> {
        self.bounded(of_library(call))
            .await
            .map_err(|cause| self.not_changed(cause, what))
    }

    fn not_changed(&self, cause: Cause, what: &str) -> NotChanged {
        let refusal = Refusal::of(&cause);
        let perhaps = perhaps_done(&cause);
        let failure = self.failed(cause, what);
        let failure = match refusal {
            // Another member, or this one a moment later, may well do it.
            Some(Refusal::NoLeader | Refusal::AskedALearner) | None => failure,
            Some(_) => failure.as_kind(Kind::Refused),
        };
        NotChanged::new(refusal, perhaps, failure)
    }
}
