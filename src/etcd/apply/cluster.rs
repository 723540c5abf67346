//! Who the members are, and the cluster's version (etcd,
//! `server/etcdserver/api/membership/cluster.go` and `storev2.go`).
//!
//! Up to 3.5 changes are judged by the v2 store, which a server has from its `.snap` file and the
//! whole WAL after it; what it changes there it changes in the database too, from the consistent
//! index on.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::base::{Base, unknown};
use super::entries::{Entries, bucket, difference};
use crate::error::Result;
use crate::etcd::bbolt::write::Edit;
use crate::etcd::datadir::RaftMembers;
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::etcd::proto::raft::{ConfChange, ConfChangeKind};
use crate::etcd::proto::request::{RaftRequest, RequestKind, V2Request};
use crate::etcd::proto::{Fields, WireError};
use crate::etcd::release::Release;

/// One learner more is refused (`maxLearners`, membership/cluster.go).
const MAX_LEARNERS: usize = 1;

/// The members, as the v2 store has them, and the changes of the database.
pub(super) struct Cluster {
    members: BTreeMap<MemberId, Member>,
    removed: BTreeSet<MemberId>,
    stored: Stored,
    before: Stored,
    /// Raft's own configuration, which the members' attributes need not agree with.
    raft: RaftMembers,
    /// Whether it was written down.
    changed: bool,
}

#[derive(Clone)]
struct Stored {
    members: Entries,
    removed: Entries,
    cluster: Entries,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Promotion {
    #[serde(default)]
    is_promote: bool,
}

impl Cluster {
    pub(super) fn read(base: &Base<'_>) -> Result<Self> {
        let stored = Stored {
            members: bucket(base, "members")?,
            removed: bucket(base, "members_removed")?,
            cluster: bucket(base, "cluster")?,
        };
        let members = base
            .members
            .iter()
            .map(|member| (member.id, member.clone()));
        Ok(Self {
            members: members.collect(),
            removed: base.removed.iter().copied().collect(),
            before: stored.clone(),
            stored,
            raft: base
                .conf_state
                .map_or_else(RaftMembers::default, RaftMembers::of),
            changed: false,
        })
    }

    fn save(&mut self, id: MemberId, now: bool) {
        if let Some(member) = self.members.get(&id).filter(|_| now) {
            let (key, value) = (member.db_key(), member.to_json());
            self.stored
                .members
                .insert(key.into_bytes(), value.into_bytes());
        }
    }

    // ---- changes of membership ----------------------------------------------------------------

    pub(super) fn change(&mut self, index: u64, change: &ConfChange, now: bool) -> Result<()> {
        let id = MemberId(change.node);
        // A change that does not hold is not an error, but one without effect.
        if self.removed.contains(&id) {
            return Ok(());
        }
        match change.kind {
            ConfChangeKind::AddNode | ConfChangeKind::AddLearnerNode => {
                let member = context(index, change)?;
                let promotes = serde_json::from_slice::<Promotion>(&change.context);
                if promotes.is_ok_and(|context| context.is_promote) {
                    match self.members.get_mut(&id) {
                        Some(known) if known.is_learner => known.is_learner = false,
                        _ => return Ok(()),
                    }
                } else if self.may_add(&member) {
                    self.members.insert(id, member);
                } else {
                    return Ok(());
                }
                self.save(id, now);
            }
            ConfChangeKind::RemoveNode => {
                if self.members.remove(&id).is_none() {
                    return Ok(());
                }
                self.removed.insert(id);
                if now {
                    let key = id.to_string().into_bytes();
                    self.stored.members.remove(&key);
                    self.stored.removed.insert(key, b"removed".to_vec());
                }
            }
            ConfChangeKind::UpdateNode => {
                let member = context(index, change)?;
                if self.taken(&member.peer_urls, Some(id)) {
                    return Ok(());
                }
                let Some(known) = self.members.get_mut(&id) else {
                    return Ok(());
                };
                known.peer_urls = member.peer_urls;
                known.is_learner = member.is_learner;
                self.save(id, now);
            }
            ConfChangeKind::Other(kind) => {
                return Err(unknown(index, format_args!("a change of kind {kind}")));
            }
        }
        self.raft.apply(change.kind, id);
        self.changed |= now;
        Ok(())
    }

    fn taken(&self, urls: &[String], except: Option<MemberId>) -> bool {
        let others = self.members.values().filter(|m| Some(m.id) != except);
        let mut known = others.flat_map(|member| &member.peer_urls);
        known.any(|url| urls.contains(url))
    }

    fn may_add(&self, member: &Member) -> bool {
        let learners = self.members.values().filter(|m| m.is_learner).count();
        let known = self.members.contains_key(&member.id);
        let too_many = member.is_learner && learners + 1 > MAX_LEARNERS;
        !known && !too_many && !self.taken(&member.peer_urls, None)
    }

    // ---- what members and servers say of themselves --------------------------------------------

    fn attributes(
        &mut self,
        index: u64,
        id: MemberId,
        attributes: Member,
        now: bool,
    ) -> Result<()> {
        match self.members.get_mut(&id) {
            Some(member) => {
                member.name = attributes.name;
                member.client_urls = attributes.client_urls;
                self.save(id, now);
                Ok(())
            }
            None if self.removed.contains(&id) => Ok(()),
            None => Err(unknown(
                index,
                format_args!("about {id}, which is not a member"),
            )),
        }
    }

    fn set_version(&mut self, index: u64, version: &str, now: bool) -> Result<()> {
        let parts: Vec<&str> = version.split('.').collect();
        let plain = |part: &&str| {
            let number = part.parse::<u64>().ok();
            number.is_some_and(|number| number.to_string() == **part)
        };
        if parts.len() != 3 || !parts.iter().all(plain) {
            return Err(unknown(
                index,
                format_args!("the cluster version {version:?}"),
            ));
        }
        if now {
            let key = b"clusterVersion".to_vec();
            self.stored.cluster.insert(key, version.as_bytes().to_vec());
        }
        Ok(())
    }

    /// A request of the v2 store; but for these none reaches the database.
    pub(super) fn v2(&mut self, index: u64, request: &V2Request<'_>, now: bool) -> Result<()> {
        let own = request.path.strip_prefix("/0/");
        let Some(own) = own else { return Ok(()) };
        let plain = request.method == "PUT" && !request.conditional;
        let id = own
            .strip_prefix("members/")
            .and_then(|rest| rest.strip_suffix("/attributes"))
            .filter(|id| (1..=16).contains(&id.len()))
            .and_then(MemberId::from_hex);
        match id {
            Some(id) if plain => {
                let attributes = Member::from_attributes(id, request.value);
                let attributes = attributes
                    .map_err(|cause| unknown(index, format_args!("undecodable ({cause})")))?;
                self.attributes(index, id, attributes, now)
            }
            None if plain && own == "version" => self.set_version(index, request.value, now),
            _ if request.method == "QGET" => Ok(()),
            _ => Err(unknown(
                index,
                format_args!("{} of {:?} in the v2 store", request.method, request.path),
            )),
        }
    }

    /// The same as requests of the v3 API, since 3.5.
    pub(super) fn request(
        &mut self,
        index: u64,
        request: &RaftRequest<'_>,
        now: bool,
    ) -> Result<()> {
        let damaged = |cause: WireError| unknown(index, format_args!("undecodable ({cause})"));
        let fields = Fields::new(request.body);
        match request.kind {
            RequestKind::ClusterVersionSet => {
                let version = text(fields, 1).map_err(damaged)?;
                self.set_version(index, version, now)
            }
            RequestKind::MemberAttributesSet => {
                let (id, attributes) = attributes(fields).map_err(damaged)?;
                self.attributes(index, id, attributes, now)
            }
            _ => {
                let version = text(fields.clone(), 2).map_err(damaged)?;
                let mut enabled = false;
                for field in fields {
                    let field = field.map_err(damaged)?;
                    if field.number == 1 {
                        enabled = field.bool().map_err(damaged)?;
                    }
                }
                let target = if enabled { version } else { "" };
                if !target.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
                    return Err(unknown(index, "a downgrade without a version"));
                }
                if now {
                    let value =
                        format!("{{\"target-version\":\"{target}\",\"enabled\":{enabled}}}");
                    let key = b"downgrade".to_vec();
                    self.stored.cluster.insert(key, value.into_bytes());
                }
                Ok(())
            }
        }
    }

    // ---- the results ----------------------------------------------------------------------------

    /// The cluster's version.
    pub(super) fn version(&self) -> Option<&str> {
        let version = self.stored.cluster.get(b"clusterVersion".as_slice())?;
        std::str::from_utf8(version).ok()
    }

    /// Whether all members are of a release or later: the cluster version follows the oldest.
    pub(super) fn is_at_least(&self, release: Release) -> bool {
        let version = self.version().and_then(|text| text.parse::<Release>().ok());
        version.is_some_and(|version| version >= release)
    }

    pub(super) fn members(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    /// Raft's configuration as JSON, where a change was written down (etcd, `confstate.go`).
    pub(super) fn conf_state(&self) -> Option<String> {
        let ids = |members: &BTreeSet<MemberId>| {
            let ids: Vec<String> = members.iter().map(|id| id.0.to_string()).collect();
            ids.join(",")
        };
        let list = |name: &str, ids: String| match ids.as_str() {
            "" => String::new(),
            ids => format!("\"{name}\":[{ids}],"),
        };
        self.changed.then(|| {
            let (voters, learners) = (
                list("voters", ids(&self.raft.voters)),
                list("learners", ids(&self.raft.learners)),
            );
            format!("{{{voters}{learners}\"auto_leave\":false}}")
        })
    }

    pub(super) fn edits(&self) -> [(&'static str, Edit); 3] {
        let (before, after) = (&self.before, &self.stored);
        [
            ("members", difference(&before.members, &after.members)),
            (
                "members_removed",
                difference(&before.removed, &after.removed),
            ),
            ("cluster", difference(&before.cluster, &after.cluster)),
        ]
    }
}

fn context(index: u64, change: &ConfChange) -> Result<Member> {
    match Member::from_json(&change.context) {
        Ok(member) if member.id.0 == change.node => Ok(member),
        _ => Err(unknown(index, "a change that does not name its member")),
    }
}

fn text(fields: Fields<'_>, number: u32) -> Result<&str, WireError> {
    let mut found = "";
    for field in fields {
        let field = field?;
        if field.number == number {
            found = field.text()?;
        }
    }
    Ok(found)
}

/// A `ClusterMemberAttrSetRequest`: member_ID=1, member_attributes=2 {name=1, client_urls=2}.
fn attributes(fields: Fields<'_>) -> Result<(MemberId, Member), WireError> {
    let mut member = Member {
        id: MemberId(0),
        name: String::new(),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
        is_learner: false,
    };
    for field in fields {
        let field = field?;
        match field.number {
            1 => member.id = MemberId(field.u64()?),
            2 => {
                for inner in field.message()? {
                    let inner = inner?;
                    match inner.number {
                        1 => member.name = inner.text()?.to_owned(),
                        2 => member.client_urls.push(inner.text()?.to_owned()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok((member.id, member))
}
