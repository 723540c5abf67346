//! The member that gives the snapshot, and what it and etcd's content say of the cluster.

use std::time::Duration;

use jiff::Timestamp;

use crate::cluster::connect;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::client::{
    Alarm, ConnectOptions, Connection, Consistency, Endpoint, HashKvAnswer, Probe, Status,
    probe_members,
};
use crate::etcd::ids::MemberId;
use crate::etcd::kubernetes::{self, ClusterVersion};
use crate::etcd::membership::Member;
use crate::keep::quality::{HashSeen, MemberAnswer, MemberSeen, OperatorSeen, Seen};
use crate::node::access::EtcdAccess;
use crate::node::component::Component;
use crate::node::profile::Profile;

/// How often members' hashes are asked for again when their compactions differ.
const HASH_ATTEMPTS: u32 = 3;
/// How long between those.
const HASH_PAUSE: Duration = Duration::from_secs(1);
/// How long one member may take to scan its data for a hash.
const HASH_TIMEOUT: Duration = Duration::from_secs(300);

/// The source of a backup, connected, and everything that was asked of it.
pub(super) struct Source {
    pub(super) connection: Connection,
    pub(super) endpoint: String,
    pub(super) status: Status,
    pub(super) member_name: String,
    pub(super) seen: Seen,
    /// What could not be read of the cluster's objects.
    pub(super) notes: Vec<String>,
}

/// What is looked at besides the members.
pub(super) struct Scope<'a> {
    pub(super) profile: Profile,
    pub(super) node: Option<&'a str>,
    pub(super) check_members: bool,
}

impl Source {
    /// Connects to the local member and asks all that the quality gate looks at.
    pub(super) async fn open(access: &EtcdAccess, scope: &Scope<'_>) -> Result<Self> {
        let options = connect::options(access)?;
        let connection = connect::connect(access, &options).await?;
        let status = connection.status().await?;
        let voter = if status.is_learner {
            another_voter(access, &options, &connection).await
        } else {
            Ok(connection.clone())
        };
        let members = match &voter {
            // From the member itself: a cluster without a leader answers nothing that goes through
            // raft.
            Ok(voter) => voter.member_list(Consistency::Local).await?.members,
            Err(_) => Vec::new(),
        };
        connect::refuse_proxy(connection.endpoint(), &members)?;
        let own = status.header.member_id;
        let listed = members.iter().find(|member| member.id == own);
        if listed.is_none() && voter.is_ok() {
            let what = format!("member {own} answers, but is not in its own member list");
            let endpoint = Fact::Endpoint(access.endpoint.value.clone());
            return Err(Failure::new(Kind::Unreachable, what).with(endpoint));
        }
        let member_name = label(&members, own);
        let alarms = match &voter {
            // It is asked through raft, which answers nobody without a leader.
            Ok(voter) if status.leader.is_some() => voter.alarms().await?,
            _ => status.alarms_among_errors(),
        };
        let named = |alarm: &Alarm| (label(&members, alarm.member_id), alarm.kind.to_string());
        let alarms = alarms.iter().map(named).collect();
        let probes = probe_members(members, &options).await;
        let hashes = if scope.check_members {
            Some(hashes(&probes, &options).await)
        } else {
            None
        };
        let content = Content::read(&connection, scope).await?;
        let unasked = voter.err().map(|why| MemberSeen {
            name: "list".to_owned(),
            learner: false,
            answer: Err(why),
        });
        let seen = Seen {
            source: member_name.clone(),
            source_learner: status.is_learner,
            has_leader: status.leader.is_some(),
            members: probes.iter().map(seen_member).chain(unasked).collect(),
            alarms,
            hashes,
            operators: content.operators,
            births: content.births,
        };
        let endpoint = access.endpoint.value.clone();
        Ok(Self {
            connection,
            endpoint,
            status,
            member_name,
            seen,
            notes: content.notes,
        })
    }
}

/// What a member is called: its id if it has no name, or is not among these.
fn label(members: &[Member], id: MemberId) -> String {
    let found = members.iter().find(|member| member.id == id);
    found.map_or_else(|| id.to_string(), Member::label)
}

/// A voting member, since a learner does not answer questions about the cluster; or why no voting
/// member answers.
async fn another_voter(
    access: &EtcdAccess,
    options: &ConnectOptions,
    learner: &Connection,
) -> Result<Connection, String> {
    let mut why = "a learner does not serve it, and no other endpoint is known".to_owned();
    for url in &access.member_endpoints.value {
        let asked = async {
            let endpoint = Endpoint::parse(url, access.tls.is_some())?;
            if endpoint == *learner.endpoint() {
                return Ok(None);
            }
            let connection = Connection::open(&endpoint, options).await?;
            let status = connection.status().await?;
            Ok((!status.is_learner).then_some(connection))
        };
        match asked.await {
            Ok(Some(voter)) => return Ok(voter),
            Ok(None) => {}
            Err(failure) => {
                let failure: Failure = failure;
                why = failure.to_string();
            }
        }
    }
    Err(why)
}

fn seen_member(probe: &Probe) -> MemberSeen {
    let answer = match &probe.status {
        Ok(status) => Ok(MemberAnswer {
            applied: status.raft_applied_index,
            errors: status.errors.clone(),
        }),
        Err(failure) => Err(failure.to_string()),
    };
    MemberSeen {
        name: probe.member.label(),
        learner: probe.member.is_learner,
        answer,
    }
}

/// Every voting member's HashKV at the highest revision that all of them have; a learner gives
/// none.
async fn hashes(probes: &[Probe], options: &ConnectOptions) -> Vec<HashSeen> {
    let voters = || probes.iter().filter(|probe| !probe.member.is_learner);
    // The lowest of their current ones: every member has that revision.
    let revisions = voters().filter_map(|probe| Some(probe.status.as_ref().ok()?.header.revision));
    let revision = revisions.min().unwrap_or(0);
    let mut seen = Vec::new();
    for attempt in 1..=HASH_ATTEMPTS {
        seen.clear();
        for probe in voters() {
            let hash = hash_of(probe, revision, options)
                .await
                .map_err(|failure| failure.to_string());
            seen.push(HashSeen {
                member: probe.member.label(),
                hash,
            });
        }
        // A member that is just compacting is asked again.
        let mut compacted = seen
            .iter()
            .filter_map(|seen| Some(seen.hash.as_ref().ok()?.1));
        let first = compacted.next();
        if attempt == HASH_ATTEMPTS || compacted.all(|other| Some(other) == first) {
            break;
        }
        tokio::time::sleep(HASH_PAUSE).await;
    }
    seen
}

async fn hash_of(probe: &Probe, revision: i64, options: &ConnectOptions) -> Result<(u32, i64)> {
    let endpoint = match (&probe.status, &probe.endpoint) {
        (Ok(_), Some(endpoint)) => endpoint,
        _ => {
            return Err(Failure::new(
                Kind::Unreachable,
                "the member does not answer",
            ));
        }
    };
    let connection = Connection::open(endpoint, options)
        .await?
        .with_call_timeout(HASH_TIMEOUT);
    match connection.hash_kv(revision).await? {
        HashKvAnswer::Hash(answer) => Ok((answer.hash, answer.compact_revision)),
        HashKvAnswer::Compacted => Err(no_hash(format!("it has compacted revision {revision}"))),
        HashKvAnswer::Future => Err(no_hash(format!("it has not reached revision {revision}"))),
    }
}

fn no_hash(why: String) -> Failure {
    Failure::new(Kind::Unreachable, why)
}

/// What is read of the cluster's own objects.
#[derive(Default)]
struct Content {
    version: Option<ClusterVersion>,
    operators: Option<Vec<OperatorSeen>>,
    births: Vec<(String, Timestamp)>,
    notes: Vec<String>,
}

impl Content {
    async fn read(connection: &Connection, scope: &Scope<'_>) -> Result<Self> {
        let mut content = Self::default();
        if scope.profile != Profile::Openshift {
            return Ok(content);
        }
        content.openshift(connection).await?;
        if let Some(node) = scope.node {
            for prefix in kubernetes::PREFIXES {
                let key = kubernetes::node_key(prefix, node);
                let Some(stored) = value(connection, &key).await? else {
                    continue;
                };
                match kubernetes::node_created(&stored) {
                    Ok(born) => content.births.push((format!("node {node}"), born)),
                    Err(why) => content
                        .notes
                        .push(format!("cannot tell the age of node {node}: {why}")),
                }
                break;
            }
        }
        Ok(content)
    }

    async fn openshift(&mut self, connection: &Connection) -> Result<()> {
        let mut prefix = kubernetes::PREFIXES[0];
        for candidate in kubernetes::PREFIXES {
            if let Some(stored) =
                value(connection, &kubernetes::cluster_version_key(candidate)).await?
            {
                prefix = candidate;
                match kubernetes::cluster_version(&stored) {
                    Ok(version) => self.version = Some(version),
                    Err(why) => self
                        .notes
                        .push(format!("the ClusterVersion cannot be read: {why}")),
                }
                break;
            }
        }
        if let Some(born) = self.version.as_ref().and_then(|version| version.created) {
            self.births.push(("the cluster".to_owned(), born));
        }
        let mut operators = Vec::new();
        for component in Component::ALL {
            let name = component.name();
            let stored = value(connection, &kubernetes::cluster_operator_key(prefix, name)).await?;
            operators.push(OperatorSeen {
                name,
                progressing: progressing(stored),
            });
        }
        self.operators = Some(operators);
        Ok(())
    }
}

async fn value(connection: &Connection, key: &str) -> Result<Option<Vec<u8>>> {
    Ok(connection
        .get(key.as_bytes(), Consistency::Local)
        .await?
        .map(|stored| stored.value))
}

fn progressing(stored: Option<Vec<u8>>) -> Result<(bool, String), String> {
    let stored = stored.ok_or_else(|| "there is no such ClusterOperator in etcd".to_owned())?;
    let operator = kubernetes::cluster_operator(&stored)?;
    match operator.progressing {
        Some(progressing) => Ok((progressing, operator.message)),
        None => Err("it has no Progressing condition that is True or False".to_owned()),
    }
}
