//! Whether the backup and the node belong together, and which other members still serve.

use std::path::Path;

use serde_json::Value;

use super::others::{ANSWER, Circle, Known, Others, Own};
use super::preflight::Survey;
use super::refusals::{CLUSTER_MISMATCH, NODE_MISMATCH, Refusals, VERSION_MISMATCH};
use super::request::Request;
use crate::change::datadir;
use crate::change::transaction::served;
use crate::cluster::connect;
use crate::context::Context;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::client::{ConnectOptions, Consistency};
use crate::etcd::datadir::{self as files, DbFacts, Layout};
use crate::etcd::kubernetes::{self, ClusterVersion};
use crate::etcd::restore::Evidence;
use crate::etcd::wal::Wal;
use crate::keep::{database, lineage};
use crate::node::access::EtcdAccess;
use crate::node::component::Component;
use crate::node::endpoint::initial_cluster;
use crate::node::pod::{Container, PodManifest};
use crate::store::LocalStore;

/// The largest `revision.json` that is read, in bytes.
const REVISION_JSON: u64 = 1 << 20;

/// What the node's own etcd says of itself, running or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeSays {
    /// Its cluster id, in hexadecimal.
    pub(crate) cluster_id: Option<String>,
    /// What the cluster says of itself.
    pub(crate) version: Option<ClusterVersion>,
    /// The uid of the namespace `kube-system` in its database.
    pub(crate) kube_system_uid: Option<String>,
    /// Its member id.
    pub(crate) member_id: Option<u64>,
    /// The members that it knows.
    pub(crate) members: Option<Vec<Known>>,
    /// Where that comes from, for people.
    pub(crate) source: String,
    /// Whether it answers and sees a leader.
    pub(crate) serves: bool,
    /// The revision that it serves.
    pub(crate) revision: Option<i64>,
}

/// Asks the running member, or reads a stopped one's files.
pub(crate) async fn of_node(context: &Context, access: &EtcdAccess, data_dir: &Path) -> NodeSays {
    let files_say = member_id(data_dir).await;
    match live(access).await {
        // Another member may answer there: the files tell which member this node's is.
        Ok(says) => NodeSays {
            member_id: files_say.or(says.member_id),
            ..says
        },
        Err(failure) => {
            context.tell(crate::event::Event::Note(failure.to_string()));
            from_files(context, data_dir).await
        }
    }
}

/// How to ask members of which some may be gone.
pub(crate) fn patient(access: &EtcdAccess) -> Result<ConnectOptions> {
    Ok(ConnectOptions {
        connect_timeout: ANSWER,
        call_timeout: ANSWER,
        ..connect::options(access)?
    })
}

/// Whose the files in a data directory are, by the log.
async fn member_id(data_dir: &Path) -> Option<u64> {
    let layout = Layout::new(data_dir, None);
    let read = tokio::task::spawn_blocking(move || {
        let scan = Wal::list(&layout.wal).and_then(|wal| wal.scan()).ok();
        Some(scan?.metadata?.node)
    });
    read.await.ok().flatten()
}

async fn live(access: &EtcdAccess) -> Result<NodeSays> {
    let connection = connect::connect(access, &patient(access)?).await?;
    let status = connection.status().await?;
    let members = connection.member_list(Consistency::Local).await.ok();
    let members = members.map(|list| list.members.iter().map(Known::from).collect());
    let mut version = None;
    for prefix in kubernetes::PREFIXES {
        let key = kubernetes::cluster_version_key(prefix);
        if let Some(stored) = connection.get(key.as_bytes(), Consistency::Local).await? {
            version = kubernetes::cluster_version(&stored.value).ok();
            break;
        }
    }
    let mut kube_system_uid = None;
    for prefix in kubernetes::PREFIXES {
        let key = kubernetes::kube_system_key(prefix);
        if let Some(stored) = connection.get(key.as_bytes(), Consistency::Local).await? {
            kube_system_uid = kubernetes::uid(&stored.value).ok();
            break;
        }
    }
    Ok(NodeSays {
        kube_system_uid,
        cluster_id: Some(status.header.cluster_id.to_string()),
        version,
        member_id: Some(status.header.member_id.0),
        members,
        source: format!("etcd at {}", connection.endpoint()),
        serves: status.leader.is_some(),
        revision: Some(status.header.revision),
    })
}

/// What a stopped member's files say.
pub(crate) async fn from_files(context: &Context, data_dir: &Path) -> NodeSays {
    let layout = Layout::new(data_dir, None);
    let source = data_dir.display().to_string();
    let inner = context.clone();
    let read = tokio::task::spawn_blocking(move || {
        // What a broken database says is nothing to go by.
        let report = database::read(&inner, &layout.db(), database::cluster_keys());
        let report = report.ok().flatten();
        let facts = report.as_ref().and_then(|report| report.facts.as_ref());
        let facts = facts.map(DbFacts::of);
        let files = files::check(&layout, facts.as_ref()).ok();
        let identity = files.as_ref().and_then(|files| files.wal.scan.metadata);
        let members = files
            .as_ref()
            .and_then(|files| files.membership(facts.as_ref()));
        // The database alone still lists the members.
        let members = members.or(facts.map(|facts| facts.members));
        let members = members.filter(|members| !members.is_empty());
        NodeSays {
            cluster_id: identity.map(|identity| format!("{:x}", identity.cluster)),
            kube_system_uid: report.as_ref().and_then(database::kube_system_uid),
            version: report.and_then(|report| database::cluster_version(&report)?.ok()),
            member_id: identity.map(|identity| identity.node),
            members: members.map(|members| members.iter().map(Known::from).collect()),
            source,
            serves: false,
            revision: None,
        }
    });
    read.await.unwrap_or_default()
}

/// The differences between the backup and the node, as refusals.
pub(crate) fn mismatches(request: &Request, survey: &Survey, node: &NodeSays) -> Refusals {
    let mut found = Vec::new();
    let manifest = request.set.manifest.as_ref();
    let of_set = survey.version.as_ref();
    let uuids = of_set.and_then(|version| version.uuid.as_ref()).zip(
        node.version
            .as_ref()
            .and_then(|version| version.uuid.as_ref()),
    );
    let ids = manifest
        .map(|manifest| &manifest.cluster.etcd_id)
        .zip(node.cluster_id.as_ref());
    match (uuids, ids) {
        // OpenShift's own id survives a restore, which gives etcd's cluster another one.
        (Some((set, here)), _) if set != here => found.push((
            CLUSTER_MISMATCH,
            format!(
                "the backup belongs to the cluster {set}, this node to {here} ({})",
                node.source
            ),
        )),
        (Some(_), _) => {}
        (None, Some((set, here)))
            if set != here && !is_own_lineage(request, survey, node, here) =>
        {
            found.push((
                CLUSTER_MISMATCH,
                format!(
                    "the backup belongs to the etcd cluster {set}, this node to {here} ({}), and neither an earlier restore of this node nor the uid of the namespace kube-system shows that they are the same",
                    node.source
                ),
            ));
        }
        _ => {}
    }
    found.extend(survey.misfit.clone().filter(|_| survey.has_resources));
    let versions = of_set.and_then(|version| version.version.as_ref()).zip(
        node.version
            .as_ref()
            .and_then(|version| version.version.as_ref()),
    );
    if let Some((set, here)) = versions.filter(|(set, here)| set != here) {
        found.push((
            VERSION_MISMATCH,
            format!(
                "the backup is of OpenShift {set}, but this node runs {here} ({}): restore a backup only to the version it was taken from",
                node.source
            ),
        ));
    }
    found
}

/// Whether a backup with another cluster id is of this node's cluster before a restore.
fn is_own_lineage(request: &Request, survey: &Survey, node: &NodeSays, id: &str) -> bool {
    let uids = survey
        .kube_system_uid
        .as_ref()
        .zip(node.kube_system_uid.as_ref());
    // It is part of the data, so every restore keeps it; a journal can be lost.
    if let Some((set, here)) = uids {
        return set == here;
    }
    let former = lineage::former_ids(&request.options.target.layout, id).unwrap_or_default();
    let manifest = request.set.manifest.as_ref();
    manifest.is_some_and(|manifest| lineage::is_own(manifest, &survey.node, id, &former))
}

/// Asks the other members that the backup, the node and its own member know of.
pub(crate) async fn others(request: &Request, survey: &Survey, node: &NodeSays) -> Others {
    let mut own = Own::of(&survey.access, &survey.node, &request.options.target);
    own.ids.extend(node.member_id);
    let manifest = request.set.manifest.as_ref();
    let taken_here = manifest.filter(|m| m.node.name.as_ref() == Some(&survey.node));
    let id = taken_here.and_then(|m| u64::from_str_radix(&m.member.id, 16).ok());
    own.ids.extend(id);
    let mut circle = Circle {
        own,
        members: survey.facts.members.iter().map(Known::from).collect(),
        endpoints: Vec::new(),
        current: node.members.clone(),
    };
    circle.add_access(&survey.access);
    if let Some(etcd) = survey.pod(Component::Etcd) {
        circle.add_peers(&initial_cluster_of(&etcd.pod));
    }
    circle.ask(patient(&survey.asking).ok().as_ref()).await
}

/// The members that a manifest's `--initial-cluster` names.
fn initial_cluster_of(pod: &PodManifest) -> Vec<(String, String)> {
    let container = pod.container("etcd").or(pod.containers.first());
    let flag = |container: &'_ Container| {
        let flag = container.flag("initial-cluster");
        flag.or(container.env("ETCD_INITIAL_CLUSTER"))
            .map(initial_cluster)
    };
    container.and_then(flag).unwrap_or_default()
}

/// All evidence of revisions that clients have seen: other backups, this node's operations, its
/// etcd and its data, and the raft index that OpenShift writes next to it.
pub(crate) fn evidence(
    context: &Context,
    request: &Request,
    survey: &Survey,
    node: &NodeSays,
) -> Result<Vec<Evidence>> {
    let mut known = match &request.options.store {
        Some(store) if store.is_dir() => datadir::evidence_of_store(&LocalStore::at(store))?,
        _ => Vec::new(),
    };
    known.extend(served::of_operations(
        context,
        &request.options.target.layout,
    ));
    known.extend(node.revision.map(|revision| Evidence {
        source: node.source.clone(),
        revision,
    }));
    let Some(data_dir) = survey.access.data_dir.as_ref().map(|dir| &dir.value) else {
        return Ok(known);
    };
    match datadir::evidence_of_data(data_dir) {
        Ok(evidence) => known.extend(evidence),
        Err(failure) => context.warn(
            "revision-unknown",
            format!("cannot tell the last revision of this node's own database: {failure}"),
        ),
    }
    known.extend(from_raft_index(
        request,
        node,
        &data_dir.join("revision.json"),
    )?);
    Ok(known)
}

/// OpenShift's `revision.json`: `maxRaftIndex` bounds the revision within one raft history.
fn from_raft_index(request: &Request, node: &NodeSays, path: &Path) -> Result<Option<Evidence>> {
    let Some(manifest) = &request.set.manifest else {
        return Ok(None);
    };
    let Ok(Some(bytes)) = crate::sys::small::read(path, REVISION_JSON) else {
        return Ok(None);
    };
    let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
        return Ok(None);
    };
    let number = |name: &str| match value.get(name) {
        Some(Value::String(text)) => text.parse().ok(),
        Some(other) => other.as_u64(),
        None => None,
    };
    let same = number("clusterId").map(|id| format!("{id:x}"))
        == Some(manifest.cluster.etcd_id.clone())
        && node
            .cluster_id
            .as_ref()
            .is_none_or(|id| *id == manifest.cluster.etcd_id);
    let (Some(index), Some(revision), true) =
        (number("maxRaftIndex"), manifest.database.kv_revision, same)
    else {
        return Ok(None);
    };
    let at = (revision, manifest.member.raft_applied_index);
    Ok(Evidence::from_raft_index(
        format!("{}, the raft index", path.display()),
        index,
        at,
    ))
}

/// The failure that names several refusals at once.
pub(crate) fn refused(found: Refusals, living: &[String]) -> Option<Failure> {
    if found.is_empty() {
        return None;
    }
    let what: Vec<String> = found
        .iter()
        .map(|(name, what)| format!("{what} [{name}]"))
        .collect();
    let mut failure = Failure::new(Kind::Refused, what.join("; "));
    if !living.is_empty() {
        failure = failure.with(Fact::Members(living.to_vec()));
    }
    for (name, _) in found {
        failure = failure.with(Fact::Refusal {
            name,
            allowable: name != NODE_MISMATCH,
        });
    }
    Some(failure.doing("comparing the backup with this node"))
}
