//! What a member's database says that its WAL and `.snap` files must agree with.

use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::etcd::release::Release;
use crate::etcd::snapshot::{self, DatabaseFacts};

/// What the database says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DbFacts {
    /// `meta/consistent_index`; 0 if absent.
    pub consistent_index: u64,
    /// `meta/term`: since 3.5.
    pub term: Option<u64>,
    /// The bucket `members`.
    pub members: Vec<Member>,
    /// The bucket `members_removed`.
    pub removed: Vec<MemberId>,
    /// `meta/storageVersion`: since 3.6.
    pub storage_version: Option<String>,
    /// The release that a downgrade leads to, while one is enabled.
    pub downgrade: Option<String>,
}

impl DbFacts {
    /// Whether the etcd that this database is of reads no `.snap` file: from 3.7 on.
    pub fn reads_no_snap(&self) -> bool {
        let version = self.storage_version.as_deref();
        let version = version.and_then(|text| text.parse::<Release>().ok());
        version.is_some_and(|version| version >= Release::first(3, 7))
    }

    /// What matters here of all that a database says.
    pub fn of(facts: &DatabaseFacts) -> Self {
        let member = |member: &snapshot::Member| Member {
            id: MemberId(member.id),
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            is_learner: member.is_learner,
        };
        Self {
            consistent_index: facts.consistent_index.unwrap_or_default(),
            term: facts.term,
            members: facts.members.iter().map(member).collect(),
            removed: facts
                .members_removed
                .iter()
                .filter_map(|id| MemberId::from_hex(id))
                .collect(),
            storage_version: facts.storage_version.clone(),
            downgrade: facts
                .downgrade
                .as_ref()
                .filter(|downgrade| downgrade.enabled)
                .map(|downgrade| downgrade.target_version.clone()),
        }
    }
}
