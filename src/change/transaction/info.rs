//! What the journal of a change keeps besides its steps: enough to resume it, to roll it back and
//! to report on it.
//!
//! Paths of the node are node paths, wherever its root is mounted. Paths of a backup, and of the
//! files for the cluster that is joined, are paths of the process that made the plan.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cluster::connect::{self, PemFiles};
use crate::cluster::survey::ClusterClient;
use crate::error::Result;
use crate::etcd::client::{ConnectOptions, Endpoint};
use crate::etcd::history::Moment;
use crate::keep::ranges::Recorded;
use crate::node::access::EtcdAccess;
use crate::node::component::Component;
use crate::node::layout::NodeLayout;
use crate::node::manifests::PodKey;
use crate::node::pod::PodManifest;

/// What a change keeps in its journal besides its steps.
pub trait OperationInfo: Serialize + for<'de> Deserialize<'de> + Clone {
    /// What its steps need to know of the node.
    fn facts(&self) -> NodeFacts;

    /// The folders that keep what a rollback needs, as node paths.
    fn safety(&self) -> &[PathBuf];
}

/// What the steps of any change need to know of the node.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The node's name.
    pub node: String,
    /// How its etcd is reached.
    pub etcd: EtcdInfo,
    /// The container runtime's socket.
    pub runtime: PathBuf,
    /// The static pods that stop and start.
    pub pods: Vec<PodInfo>,
    /// Which of the node's components those are.
    pub scope: Scope,
    /// The bound of each wait.
    pub wait: Duration,
    /// The grace period of pods other than etcd's, if it is shorter than the kubelet's.
    pub grace: Option<Duration>,
    /// Whether etcd served when the plan was made, if known.
    pub etcd_served: Option<bool>,
    /// Whether alarms in the data are no failure.
    pub alarms_allowed: bool,
    /// Whether a rollback waits until the pods serve again.
    pub proves_rollback: bool,
    /// The cluster that the node joins, if it joins one.
    pub joins: Option<Joining>,
}

/// The cluster that a node joins.
#[derive(Debug, Clone)]
pub struct Joining {
    /// How its members are reached.
    pub cluster: ClusterInfo,
    /// Refusals that are allowed.
    pub allow: Vec<String>,
}

/// Which of the node's static pods are rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// All four.
    ControlPlane,
    /// etcd alone, as `cluster-restore.sh` of OpenShift 4.18 and later does.
    Etcd,
}

impl Scope {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Etcd => "etcd",
        }
    }

    /// The components that are rolled back, in the order in which they stop: etcd last.
    pub(crate) fn components(self) -> &'static [Component] {
        match self {
            Self::ControlPlane => &Component::ALL,
            Self::Etcd => &[Component::Etcd],
        }
    }
}

/// What is restored: a backup, or a member's data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceInfo {
    /// What the operator called it.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// When it was taken, if that is known.
    pub created: Option<Timestamp>,
    /// Its KV revision.
    pub kv_revision: Option<i64>,
    /// The OpenShift version in it.
    pub ocp_version: Option<String>,
    /// The cluster's UUID in it.
    pub cluster_uuid: Option<String>,
    /// The node it was taken on.
    pub node: Option<String>,
    /// The revision to restore to; none: the backup's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Moment>,
    /// The directory whose WAL is applied to the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roll_forward: Option<PathBuf>,
    /// The recorded changes that are applied to the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

impl SourceInfo {
    /// A member's own data directory.
    pub(crate) fn member(dir: PathBuf, node: String) -> Self {
        Self {
            name: "this member's own data".to_owned(),
            dir,
            created: None,
            kv_revision: None,
            ocp_version: None,
            cluster_uuid: None,
            node: Some(node),
            to: None,
            roll_forward: None,
            recorded: None,
        }
    }
}

/// How the node's etcd is reached, for the proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdInfo {
    /// Its client URL.
    pub endpoint: String,
    /// The CA's file.
    pub ca: Option<PathBuf>,
    /// The client certificate's file.
    pub cert: Option<PathBuf>,
    /// Its key's file.
    pub key: Option<PathBuf>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The member's name.
    pub member: String,
    /// Its peer URLs.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
}

impl EtcdInfo {
    /// Describes the member with this name, these peer URLs and this data directory, reached by
    /// `access`.
    pub(crate) fn of(
        access: &EtcdAccess,
        layout: &NodeLayout,
        data_dir: &Path,
        member: String,
        peer_urls: Vec<String>,
    ) -> Self {
        let tls = access.tls.as_ref();
        let ca = tls.and_then(|tls| tls.ca.as_ref());
        let identity = tls.and_then(|tls| tls.identity.as_ref());
        Self {
            endpoint: access.endpoint.value.clone(),
            ca: ca.map(|ca| layout.node_path(&ca.value)),
            cert: identity.map(|identity| layout.node_path(&identity.cert.value)),
            key: identity.map(|identity| layout.node_path(&identity.key.value)),
            data_dir: layout.node_path(data_dir),
            member,
            peer_urls,
        }
    }
}

/// A static pod that is rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodInfo {
    /// `etcd`, `kube-apiserver`, …
    pub component: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Its name, without the node's.
    pub name: String,
    /// The PodRevision that is put back, if the profile has revisions.
    pub revision: Option<u32>,
    /// The containers that must run at the end.
    pub containers: Vec<String>,
    /// Where its manifest goes; journals of earlier versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
}

impl PodInfo {
    /// What the kubelet tells the pod from others by.
    pub(crate) fn key(&self) -> PodKey<'_> {
        PodKey {
            namespace: &self.namespace,
            name: &self.name,
        }
    }

    /// Describes the pod of a component by its manifest, which goes to this node path.
    pub(crate) fn of(
        component: Component,
        revision: Option<u32>,
        pod: &PodManifest,
        manifest: Option<PathBuf>,
    ) -> Self {
        let containers = pod.containers.iter();
        Self {
            component: component.name().to_owned(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            revision,
            containers: containers.map(|container| container.name.clone()).collect(),
            manifest,
        }
    }
}

/// How the members of the cluster that is joined are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInfo {
    /// Its id, in hexadecimal.
    pub id: String,
    /// Client URLs of its healthy members, without this node's own.
    pub endpoints: Vec<String>,
    /// The CA's file.
    pub ca: Option<PathBuf>,
    /// The client certificate's file.
    pub cert: Option<PathBuf>,
    /// Its key's file.
    pub key: Option<PathBuf>,
}

impl ClusterInfo {
    /// How to reach it.
    ///
    /// # Errors
    /// Those of reading the certificates.
    pub(crate) fn reach(&self) -> Result<ClusterClient> {
        let endpoints = self
            .endpoints
            .iter()
            .map(|url| Endpoint::parse(url, self.ca.is_some()))
            .collect::<Result<Vec<_>>>()?;
        let mut options = ConnectOptions::default();
        if endpoints.iter().any(Endpoint::is_tls) {
            let files = PemFiles {
                ca: self.ca.as_deref(),
                cert: self.cert.as_deref(),
                key: self.key.as_deref(),
            };
            options.tls = Some(connect::tls(&files)?);
        }
        Ok(ClusterClient::at(endpoints, options))
    }
}
