//! Which members are removed: the membership changes after the tail.

use super::source::Looked;
use super::spec::{Spec, refuse};
use crate::error::Result;
use crate::etcd::datadir::DbFacts;
use crate::etcd::ids::{ClusterId, MemberId};
use crate::etcd::membership::Member;
use crate::etcd::proto::raft::{ConfChange, ConfChangeKind};
use crate::etcd::proto::wal::Metadata;

/// What comes behind the last entry.
pub(super) struct Plan {
    pub(super) metadata: Metadata,
    pub(super) former_cluster: ClusterId,
    pub(super) member: Member,
    pub(super) removed: Vec<Member>,
    /// The changes, in order.
    pub(super) changes: Vec<ConfChange>,
    /// The term of the entries that are added: as if the member had been elected again.
    pub(super) term: u64,
}

impl Plan {
    pub(super) fn make(spec: &Spec<'_>, looked: &Looked, db: &DbFacts) -> Result<Self> {
        let report = &looked.report;
        let unknown = |what: &str| refuse("unknown-membership", what);
        let identity = report.wal.scan.metadata;
        let identity =
            identity.ok_or_else(|| unknown("the WAL does not say which member it belongs to"))?;
        let me = MemberId(identity.node);
        if looked.log.changes.iter().any(|c| c.change.is_none()) {
            return Err(unknown(
                "the WAL contains changes of several members at once, which etcd never writes",
            ));
        }
        let members = report
            .membership(Some(db))
            .ok_or_else(|| unknown("the members that the WAL began with are unknown"))?;
        let (own, removed): (Vec<Member>, Vec<Member>) =
            members.into_iter().partition(|member| member.id == me);
        let Some(mut member) = own.into_iter().next() else {
            return Err(refuse(
                "not-a-member",
                format!(
                    "{me} is not in the membership recorded in its own WAL: it was removed, or has not joined yet"
                ),
            ));
        };
        if member.is_learner {
            return Err(refuse(
                "learner-survivor",
                format!("{me} is a learner: it does not vote, and may lack acknowledged writes"),
            ));
        }
        if let Some(name) = spec.name.filter(|name| *name != member.name) {
            return Err(refuse(
                "other-member",
                format!("the data belongs to {} ({me}), not to {name}", member.name),
            ));
        }
        let changes = changes(spec, &removed, &mut member);
        let last = looked.log.term_of(looked.log.last).unwrap_or_default();
        let term = report.wal.hard_state().term.max(last);
        Ok(Self {
            metadata: Metadata {
                node: me.0,
                cluster: spec.cluster_id.0,
            },
            former_cluster: ClusterId(identity.cluster),
            member,
            removed,
            changes,
            term: term.saturating_add(1),
        })
    }
}

/// The changes that leave one member, in order; its own URLs change with them.
fn changes(spec: &Spec<'_>, removed: &[Member], member: &mut Member) -> Vec<ConfChange> {
    let mut changes: Vec<ConfChange> = removed
        .iter()
        .map(|gone| ConfChange {
            id: 0,
            kind: ConfChangeKind::RemoveNode,
            node: gone.id.0,
            context: Vec::new(),
        })
        .collect();
    // After the others are gone no URL can be theirs.
    if let Some(urls) = spec.peer_urls.map(|urls| urls.to_vec())
        && urls != member.peer_urls
    {
        member.peer_urls = urls;
        changes.push(ConfChange {
            id: 0,
            kind: ConfChangeKind::UpdateNode,
            node: member.id.0,
            context: member.to_json().into_bytes(),
        });
    }
    changes
}
