//! What etcd's API answers, in types of our own. Sizes are bytes.

use std::fmt;

use serde::{Serialize, Serializer};

use super::endpoint::Endpoint;
use super::messages;
use crate::error::{Result, cut, cut_all};
use crate::etcd::ids::{ClusterId, MemberId};
use crate::etcd::membership::Member;

/// What every answer begins with: who answered, and at which revision and term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The cluster that answered.
    pub cluster_id: ClusterId,
    /// The member that answered.
    pub member_id: MemberId,
    /// The member's newest key-value revision then.
    pub revision: i64,
    /// The member's raft term then.
    pub raft_term: u64,
}

/// A member's own view of itself (`Maintenance.Status`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Who answered.
    pub header: Header,
    /// The server's version, such as `3.5.16`.
    pub version: String,
    /// The database file's size.
    pub db_size: u64,
    /// How much of it holds data; 0 from servers that do not say.
    pub db_size_in_use: u64,
    /// The leader as this member sees it, if there is one.
    pub leader: Option<MemberId>,
    /// The raft index committed.
    pub raft_index: u64,
    /// The raft index applied.
    pub raft_applied_index: u64,
    /// The raft term.
    pub raft_term: u64,
    /// Whether it is a learner, which does not vote.
    pub is_learner: bool,
    /// What the member itself finds wrong (alarms, no leader).
    pub errors: Vec<String>,
    /// The storage version (3.6 and newer).
    pub storage_version: Option<String>,
    /// The quota of the database (3.6 and newer).
    pub db_size_quota: Option<u64>,
}

#[cfg(test)]
impl Status {
    /// What a leader answers whose cluster holds nothing.
    pub(crate) fn of_a_leader(id: MemberId, version: &str) -> Self {
        Self {
            header: Header {
                cluster_id: ClusterId(1),
                member_id: id,
                revision: 1,
                raft_term: 1,
            },
            version: version.to_owned(),
            db_size: 0,
            db_size_in_use: 0,
            leader: Some(id),
            raft_index: 1,
            raft_applied_index: 1,
            raft_term: 1,
            is_learner: false,
            errors: Vec::new(),
            storage_version: None,
            db_size_quota: None,
        }
    }
}

impl Status {
    /// Whether the member that answered is the leader.
    pub fn is_leader(&self) -> bool {
        self.leader == Some(self.header.member_id)
    }

    /// The alarms that a member repeats among its errors, as `memberID:8 alarm:NOSPACE` (the text
    /// form of `AlarmMember`, server/etcdserver/api/v3rpc/maintenance.go). It says them from its
    /// own memory, also where raft answers nothing.
    pub fn alarms_among_errors(&self) -> Vec<Alarm> {
        let alarm = |error: &String| {
            let mut words = error.split_whitespace();
            let member_id = words.next()?.strip_prefix("memberID:")?.parse().ok()?;
            let kind = match words.next()?.strip_prefix("alarm:")? {
                "NOSPACE" => AlarmKind::NoSpace,
                "CORRUPT" => AlarmKind::Corrupt,
                _ => AlarmKind::Other(-1),
            };
            Some(Alarm {
                member_id: MemberId(member_id),
                kind,
            })
        };
        self.errors.iter().filter_map(alarm).collect()
    }
}

/// All members, and who said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberList {
    /// Who answered.
    pub header: Header,
    /// The members.
    pub members: Vec<Member>,
}

/// The state of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthStatus {
    /// Whether it is on.
    pub enabled: bool,
    /// Raised with each change of a user or a role.
    pub revision: u64,
}

/// How an answer about members or keys is come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Agreed on by the cluster's majority (members: from 3.5 on; older servers answer alone).
    Linearizable,
    /// What this one member knows; answers without a quorum, too.
    Local,
}

/// An alarm that is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// The member that raised it.
    pub member_id: MemberId,
    /// What it is about.
    pub kind: AlarmKind,
}

/// The kinds of alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AlarmKind {
    /// The database's quota is used up: no more writes.
    NoSpace,
    /// Data of members differ.
    Corrupt,
    /// One that a newer server knows, by its number.
    Other(i32),
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => f.write_str("NOSPACE"),
            Self::Corrupt => f.write_str("CORRUPT"),
            Self::Other(number) => write!(f, "alarm {number}"),
        }
    }
}

impl Serialize for AlarmKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A member's hash over its key-value store (`Maintenance.HashKV`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HashKv {
    /// Who answered; its revision is the member's newest, not the one hashed.
    pub header: Header,
    /// CRC-32C over keys and values up to the revision asked for.
    pub hash: u32,
    /// The compaction that the hash was made with; only hashes with the same one compare.
    pub compact_revision: i64,
    /// The revision hashed, where the server says so (3.6 and newer).
    pub hash_revision: Option<i64>,
}

/// The answer to a request for the hash at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashKvAnswer {
    /// The hash.
    Hash(HashKv),
    /// The revision is compacted away there.
    Compacted,
    /// The member has not come as far as that revision.
    Future,
}

/// A key with its value; `Debug` shows no value, for it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// The value; empty if only keys were asked for.
    pub value: Vec<u8>,
    /// The revision that created it.
    pub create_revision: i64,
    /// The revision that changed it last.
    pub mod_revision: i64,
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("key", &String::from_utf8_lossy(&self.key))
            .field("value", &format_args!("{} bytes", self.value.len()))
            .field("mod_revision", &self.mod_revision)
            .finish_non_exhaustive()
    }
}

/// A range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Who answered.
    pub header: Header,
    /// The keys, ascending.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit has cut more off.
    pub more: bool,
    /// How many keys the whole range has.
    pub count: u64,
}

/// What one member answered, or why it did not.
#[derive(Debug)]
pub struct Probe {
    /// The member.
    pub member: Member,
    /// The endpoint that answered, or the last one tried; none if the member has none.
    pub endpoint: Option<Endpoint>,
    /// Its status.
    pub status: Result<Status>,
    /// The status of another member that answers in its place.
    pub other: Option<Status>,
}

impl From<messages::Header> for Header {
    fn from(header: messages::Header) -> Self {
        Self {
            cluster_id: ClusterId(header.cluster_id),
            member_id: MemberId(header.member_id),
            revision: header.revision,
            raft_term: header.raft_term,
        }
    }
}

impl From<Option<&etcd_client::ResponseHeader>> for Header {
    fn from(header: Option<&etcd_client::ResponseHeader>) -> Self {
        header.map_or_else(Self::default, |header| Self {
            cluster_id: ClusterId(header.cluster_id()),
            member_id: MemberId(header.member_id()),
            revision: header.revision(),
            raft_term: header.raft_term(),
        })
    }
}

impl From<etcd_client::StatusResponse> for Status {
    fn from(status: etcd_client::StatusResponse) -> Self {
        let storage_version = status.storage_version();
        Self {
            header: status.header().into(),
            version: cut(status.version().to_owned()),
            db_size: size(status.db_size()),
            db_size_in_use: size(status.raft_used_db_size()),
            // raft's 0 is no member.
            leader: (status.leader() != 0).then_some(MemberId(status.leader())),
            raft_index: status.raft_index(),
            raft_applied_index: status.raft_applied_index(),
            raft_term: status.raft_term(),
            is_learner: status.is_learner(),
            errors: cut_all(status.errors()),
            storage_version: (!storage_version.is_empty()).then(|| cut(storage_version.to_owned())),
            db_size_quota: Some(size(status.db_size_quota())).filter(|quota| *quota != 0),
        }
    }
}

impl MemberList {
    /// The most members that are believed in, and the most URLs of one; raft's own limit is that
    /// each write waits for half of them.
    const MAX_MEMBERS: usize = 100;
    /// The longest name or URL.
    const MAX_TEXT: usize = 2_048;

    /// Whether it can be a cluster's.
    ///
    /// # Errors
    /// What cannot be.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let count = self.members.len();
        if count > Self::MAX_MEMBERS {
            return Err(format!("it lists {count} members"));
        }
        for member in &self.members {
            let urls = || member.peer_urls.iter().chain(&member.client_urls);
            let mut texts = urls().chain([&member.name]);
            let is_long = |text: &String| text.len() > Self::MAX_TEXT;
            if urls().count() > Self::MAX_MEMBERS || texts.any(is_long) {
                return Err(format!(
                    "the names and URLs of member {} are too long",
                    member.id
                ));
            }
        }
        Ok(())
    }
}

impl From<etcd_client::MemberListResponse> for MemberList {
    fn from(list: etcd_client::MemberListResponse) -> Self {
        Self {
            header: list.header().into(),
            members: list.members().iter().map(Member::from).collect(),
        }
    }
}

impl From<&etcd_client::Member> for Member {
    fn from(member: &etcd_client::Member) -> Self {
        Self {
            id: MemberId(member.id()),
            name: member.name().to_owned(),
            peer_urls: member.peer_urls().to_vec(),
            client_urls: member.client_urls().to_vec(),
            is_learner: member.is_learner(),
        }
    }
}

impl From<messages::MemberListResponse> for MemberList {
    fn from(list: messages::MemberListResponse) -> Self {
        Self {
            header: list.header.unwrap_or_default().into(),
            members: list.members.into_iter().map(Member::from).collect(),
        }
    }
}

impl From<messages::Member> for Member {
    fn from(member: messages::Member) -> Self {
        Self {
            id: MemberId(member.id),
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            is_learner: member.is_learner,
        }
    }
}

impl From<messages::AlarmMember> for Alarm {
    fn from(alarm: messages::AlarmMember) -> Self {
        Self {
            member_id: MemberId(alarm.member_id),
            kind: match alarm.alarm {
                1 => AlarmKind::NoSpace,
                2 => AlarmKind::Corrupt,
                other => AlarmKind::Other(other),
            },
        }
    }
}

impl From<etcd_client::HashKvResponse> for HashKv {
    fn from(hash: etcd_client::HashKvResponse) -> Self {
        Self {
            header: hash.header().into(),
            hash: hash.hash(),
            compact_revision: hash.compact_version(),
            hash_revision: (hash.hash_revision() != 0).then_some(hash.hash_revision()),
        }
    }
}

impl From<etcd_client::KeyValue> for KeyValue {
    fn from(kv: etcd_client::KeyValue) -> Self {
        let (create_revision, mod_revision) = (kv.create_revision(), kv.mod_revision());
        let (key, value) = kv.into_key_value();
        Self {
            key,
            value,
            create_revision,
            mod_revision,
        }
    }
}

impl From<etcd_client::GetResponse> for Range {
    fn from(mut range: etcd_client::GetResponse) -> Self {
        Self {
            header: range.header().into(),
            kvs: range.take_kvs().into_iter().map(KeyValue::from).collect(),
            more: range.more(),
            count: size(range.count()),
        }
    }
}

/// A size that the protocol has as a signed number; a negative one is taken as unknown.
fn size(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: String) -> Member {
        Member {
            id: MemberId(1),
            name,
            peer_urls: vec!["https://10.0.0.1:2380".into()],
            client_urls: Vec::new(),
            is_learner: false,
        }
    }

    #[test]
    fn a_list_that_no_cluster_has_is_not_an_answer() {
        let list = |members: Vec<Member>| MemberList {
            header: Header::default(),
            members,
        };
        assert_eq!(list(vec![member("m".into()); 9]).check(), Ok(()));
        let many = list(vec![member("m".into()); 3_000]).check();
        assert_eq!(many, Err("it lists 3000 members".to_owned()));
        assert!(list(vec![member("m".repeat(4_096))]).check().is_err());
        let mut urls = member("m".into());
        urls.client_urls = vec![String::new(); 1_000];
        assert!(list(vec![urls]).check().is_err());
    }
}
