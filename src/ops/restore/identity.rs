//! Whether the set and the node belong together, and who else still serves.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Request;
use super::survey::Survey;
use crate::error::{Failure, Kind, Result};
use crate::etcd::client::{ConnectOptions, Connection, Consistency, Endpoint};
use crate::etcd::datadir::Layout;
use crate::etcd::kubernetes::{self, ClusterVersion};
use crate::etcd::restore::Evidence;
use crate::etcd::wal::Wal;
use crate::node::access::EtcdAccess;
use crate::ops::{Context, catalog, database, datadir, reach};
use crate::store::LocalStore;

/// How long a member may take to answer before it counts as silent: two round trips over a bad
/// line, and a server that is busy.
const ANSWER: Duration = Duration::from_secs(3);
/// The largest `revision.json` that is read, in bytes.
const REVISION_JSON: u64 = 1 << 20;

/// What the node's own etcd says of itself, running or not.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeSays {
    /// Its cluster id, in hexadecimal.
    pub(super) cluster_id: Option<String>,
    /// What the cluster says of itself.
    pub(super) version: Option<ClusterVersion>,
    /// Where that comes from, for people.
    pub(super) source: String,
}

/// Asks the running member, or reads a stopped one's files.
pub(super) async fn of_node(context: &Context, survey: &Survey) -> NodeSays {
    match live(survey).await {
        Ok(says) => says,
        Err(failure) => {
            context.tell(crate::event::Event::Note(failure.to_string()));
            match survey.access.data_dir.as_ref() {
                Some(dir) => from_files(context, &dir.value).await,
                None => NodeSays::default(),
            }
        }
    }
}

fn patient(access: &EtcdAccess) -> Result<ConnectOptions> {
    Ok(ConnectOptions {
        connect_timeout: ANSWER,
        call_timeout: ANSWER,
        ..reach::options(access)?
    })
}

async fn live(survey: &Survey) -> Result<NodeSays> {
    let connection = reach::connect(&survey.access, &patient(&survey.access)?).await?;
    let status = connection.status().await?;
    let mut version = None;
    for prefix in kubernetes::PREFIXES {
        let key = kubernetes::cluster_version_key(prefix);
        if let Some(stored) = connection.get(key.as_bytes(), Consistency::Local).await? {
            version = kubernetes::cluster_version(&stored.value).ok();
            break;
        }
    }
    Ok(NodeSays {
        cluster_id: Some(status.header.cluster_id.to_string()),
        version,
        source: format!("etcd at {}", connection.endpoint()),
    })
}

async fn from_files(context: &Context, data_dir: &Path) -> NodeSays {
    let layout = Layout::new(data_dir, None);
    let source = data_dir.display().to_string();
    let inner = context.clone();
    let read = tokio::task::spawn_blocking(move || {
        let cluster = Wal::list(&layout.wal)
            .and_then(|wal| wal.scan())
            .ok()
            .and_then(|scan| scan.metadata)
            .map(|metadata| format!("{:x}", metadata.cluster));
        // What a broken database says is nothing to go by.
        let report = database::read(&inner, &layout.db(), database::cluster_keys());
        let version = report
            .ok()
            .flatten()
            .and_then(|report| database::cluster_version(&report)?.ok());
        (cluster, version)
    });
    let (cluster_id, version) = read.await.unwrap_or_default();
    NodeSays {
        cluster_id,
        version,
        source,
    }
}

/// What does not fit between the set and the node: refusals by name, each with why.
pub(super) fn mismatches(
    request: &Request,
    survey: &Survey,
    node: &NodeSays,
) -> Vec<(&'static str, String)> {
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
        (Some((set, here)), _) if set != here => found.push((
            "other-cluster",
            format!(
                "the backup is of the cluster {set}, this node belongs to {here} ({})",
                node.source
            ),
        )),
        (Some(_), _) => {}
        (None, Some((set, here))) if set != here => found.push((
            "other-cluster",
            format!(
                "the backup is of etcd's cluster {set}, this node belongs to {here} ({}); a cluster that was restored before has another id than in its older backups",
                node.source
            ),
        )),
        _ => {}
    }
    if let Some(taken_on) = manifest.and_then(|manifest| manifest.node.name.as_ref())
        && *taken_on != survey.node
        && survey.has_resources
    {
        found.push((
            "other-node",
            format!(
                "the backup was taken on {taken_on}, this node is {}: its static pods are made for one node",
                survey.node
            ),
        ));
    }
    let versions = of_set.and_then(|version| version.version.as_ref()).zip(
        node.version
            .as_ref()
            .and_then(|version| version.version.as_ref()),
    );
    if let Some((set, here)) = versions.filter(|(set, here)| set != here) {
        found.push((
            "other-version",
            format!(
                "the backup is of OpenShift {set}, this node runs {here} ({}): a backup is for the very version it was taken of",
                node.source
            ),
        ));
    }
    found
}

/// Voting members besides this node's own that still answer.
pub(super) async fn living_voters(survey: &Survey) -> Result<Vec<String>> {
    let members: Vec<(String, Vec<String>)> = survey
        .facts
        .members
        .iter()
        .map(|member| (member.name.clone(), member.client_urls.clone()))
        .collect();
    living(&survey.access, &survey.node, &members).await
}

/// The same, of members by name and client URLs.
pub(super) async fn living(
    access: &EtcdAccess,
    node: &str,
    members: &[(String, Vec<String>)],
) -> Result<Vec<String>> {
    let options = patient(access)?;
    let own = Endpoint::parse(&access.endpoint.value, options.tls.is_some())?;
    let mut urls: Vec<(String, String)> = Vec::new();
    let of_own = members.iter().filter(|(name, _)| name == node);
    let own_urls: Vec<&String> = of_own.flat_map(|(_, urls)| urls).collect();
    for (name, urls_of) in members.iter().filter(|(name, _)| name != node) {
        urls.extend(urls_of.iter().map(|url| (name.clone(), url.clone())));
    }
    for url in &access.member_endpoints.value {
        if !own_urls.contains(&url) && !urls.iter().any(|(_, known)| known == url) {
            urls.push((url.clone(), url.clone()));
        }
    }
    let mut asked = Vec::new();
    for (name, url) in urls {
        let Ok(endpoint) = Endpoint::parse(&url, options.tls.is_some()) else {
            continue;
        };
        let local = endpoint.host() == own.host()
            || endpoint
                .host()
                .is_some_and(|host| ["localhost", "127.0.0.1", "::1"].contains(&host));
        if endpoint != own && !local {
            let options = options.clone();
            asked.push(tokio::spawn(async move {
                let connection = Connection::open(&endpoint, &options).await?;
                let status = connection.status().await?;
                Ok::<_, Failure>((!status.is_learner).then(|| {
                    if name == url {
                        url
                    } else {
                        format!("{name} at {url}")
                    }
                }))
            }));
        }
    }
    let mut living = Vec::new();
    for answer in asked {
        if let Ok(Ok(Some(voter))) = answer.await
            && !living.contains(&voter)
        {
            living.push(voter);
        }
    }
    Ok(living)
}

/// All that is known of revisions that clients have seen: other sets, the node's own database,
/// and the raft index that OpenShift writes beside it.
pub(super) fn evidence(
    context: &Context,
    request: &Request,
    survey: &Survey,
    node: &NodeSays,
) -> Result<Vec<Evidence>> {
    let mut known = match &request.store {
        Some(store) if store.is_dir() => datadir::evidence(&catalog::list(&LocalStore::at(store))?),
        _ => Vec::new(),
    };
    let Some(data_dir) = survey.access.data_dir.as_ref().map(|dir| &dir.value) else {
        return Ok(known);
    };
    match datadir::evidence_of_member(&Layout::new(data_dir, None).db()) {
        Ok(evidence) => known.extend(evidence),
        Err(failure) => context.warn(
            "revision-unknown",
            format!("how far this node's own database had come is not known: {failure}"),
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
    let Ok(Some(bytes)) = catalog::read_bounded(path, REVISION_JSON) else {
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
pub(super) fn refused(found: Vec<(&'static str, String)>) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let what: Vec<String> = found
        .iter()
        .map(|(name, what)| format!("{what} [{name}]"))
        .collect();
    let mut failure = Failure::new(Kind::Refused, what.join("; "));
    for (name, _) in found {
        failure = failure.with(crate::error::Fact::Refusal {
            name,
            allowable: true,
        });
    }
    Err(failure.doing("holding the backup against this node"))
}
