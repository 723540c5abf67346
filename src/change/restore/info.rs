//! What a restore is about, as its journal keeps it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::others::Known;
use crate::change::transaction::info::{
    EtcdInfo, NodeFacts, OperationInfo, PodInfo, Scope, SourceInfo,
};

/// What a restore, or a `disable`, is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreInfo {
    /// What is restored; none if nothing is, as by `disable`.
    #[serde(
        rename = "set",
        default,
        deserialize_with = "read_source",
        serialize_with = "write_source"
    )]
    pub source: Option<SourceInfo>,
    /// The node's profile, by its word.
    pub profile: String,
    /// The node's name.
    pub node: String,
    /// All known control-plane nodes, including this one.
    pub nodes: Vec<String>,
    /// What is rolled back.
    pub scope: Scope,
    /// How etcd is reached.
    pub etcd: EtcdInfo,
    /// The container runtime's socket.
    pub runtime: PathBuf,
    /// The pods, in the order in which they are stopped.
    pub pods: Vec<PodInfo>,
    /// The longest wait for pods to end, and for anything to start, in seconds.
    pub wait_seconds: u64,
    /// The time that pods other than etcd's get to end, in seconds; none: what the kubelet gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// Whether etcd served when the plan was made, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_served: Option<bool>,
    /// Whether alarms in the backup are accepted.
    pub alarms_allowed: bool,
    /// Where the old data and the revisions taken away are kept.
    pub safety: Vec<PathBuf>,
    /// The former ids of etcd's cluster: the node's and the backup's, and those before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_clusters: Vec<String>,
    /// The other members, which must not run when the restored etcd starts; empty if the operator
    /// has allowed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Known>,
    /// Whether the node runs etcd and no other component of a control plane.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub etcd_alone: bool,
}

impl RestoreInfo {
    /// What is restored, in words.
    pub fn source_name(&self) -> &str {
        self.source
            .as_ref()
            .map_or("nothing", |source| &source.name)
    }
}

impl OperationInfo for RestoreInfo {
    fn facts(&self) -> NodeFacts {
        NodeFacts {
            node: self.node.clone(),
            etcd: self.etcd.clone(),
            runtime: self.runtime.clone(),
            pods: self.pods.clone(),
            scope: self.scope,
            wait: Duration::from_secs(self.wait_seconds),
            grace: self.grace_seconds.map(Duration::from_secs),
            etcd_served: self.etcd_served,
            alarms_allowed: self.alarms_allowed,
            // `enable` itself waits for etcd, and fails if it does not serve.
            proves_rollback: self.source.is_some(),
            joins: None,
        }
    }

    fn safety(&self) -> &[PathBuf] {
        &self.safety
    }
}

/// If nothing is restored, journals and documents name a backup without a directory, as every
/// version has done.
const NO_BACKUP: &str = "no backup";

fn read_source<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SourceInfo>, D::Error> {
    let source = Option::<SourceInfo>::deserialize(from)?;
    Ok(source.filter(|source| !source.dir.as_os_str().is_empty()))
}

fn write_source<S: Serializer>(source: &Option<SourceInfo>, to: S) -> Result<S::Ok, S::Error> {
    match source {
        Some(source) => source.serialize(to),
        None => SourceInfo {
            name: NO_BACKUP.to_owned(),
            dir: PathBuf::new(),
            created: None,
            kv_revision: None,
            ocp_version: None,
            cluster_uuid: None,
            node: None,
            to: None,
            roll_forward: None,
            recorded: None,
        }
        .serialize(to),
    }
}
