//! What a restore is about, as its journal keeps it: enough to go on, to go back and to tell.
//!
//! Paths of the node are the node's own, whatever its root is mounted at; the set's are those of
//! the process that made the plan.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::others::Known;

use crate::node::access::EtcdAccess;
use crate::node::component::Component;
use crate::node::layout::NodeLayout;
use crate::node::manifests::PodKey;
use crate::node::pod::PodManifest;

/// Which of the node's static pods are rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// All four.
    ControlPlane,
    /// etcd alone, as the stock script of OpenShift 4.18 and later does.
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
}

/// The set that is restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetAbout {
    /// How it was called.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// When it was taken, where that is known.
    pub created: Option<Timestamp>,
    /// Its KV revision.
    pub kv_revision: Option<i64>,
    /// The OpenShift version that stands in it.
    pub ocp_version: Option<String>,
    /// The cluster's UUID that stands in it.
    pub cluster_uuid: Option<String>,
    /// The node it was taken on.
    pub node: Option<String>,
}

/// How the node's etcd is reached, for the proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdAbout {
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

impl EtcdAbout {
    /// The member of this name and these peer URLs in this data directory, reached as `access` says.
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
pub struct PodAbout {
    /// `etcd`, `kube-apiserver`, …
    pub component: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Its name, without the node's.
    pub name: String,
    /// The PodRevision that is put back, where there are revisions.
    pub revision: Option<u32>,
    /// The containers that must run at the end.
    pub containers: Vec<String>,
    /// Where its manifest goes; journals of earlier versions do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
}

impl PodAbout {
    /// What the kubelet tells the pod from others by.
    pub(crate) fn key(&self) -> PodKey<'_> {
        PodKey {
            namespace: &self.namespace,
            name: &self.name,
        }
    }

    /// The pod of a component as its manifest has it, which goes to this node path.
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

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The set.
    pub set: SetAbout,
    /// The node's profile, by its word.
    pub profile: String,
    /// The node's name.
    pub node: String,
    /// All control-plane nodes that are known, this one among them.
    pub nodes: Vec<String>,
    /// What is rolled back.
    pub scope: Scope,
    /// How etcd is reached.
    pub etcd: EtcdAbout,
    /// The container runtime's socket.
    pub runtime: PathBuf,
    /// The pods, in the order in which they are stopped.
    pub pods: Vec<PodAbout>,
    /// The longest wait for pods to end, and for anything to start, in seconds.
    pub wait_seconds: u64,
    /// The time that pods other than etcd's get to end, in seconds; none: what the kubelet gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// Whether etcd served when the plan was made, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_served: Option<bool>,
    /// Whether alarms that stand in the backup are no failure.
    pub alarms_allowed: bool,
    /// Where the old data and the revisions taken away are kept.
    pub safety: Vec<PathBuf>,
    /// Ids of etcd's cluster from which this makes another: the node's and the backup's, and those
    /// before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_clusters: Vec<String>,
    /// The other members, which must not run when the restored etcd starts; none where the operator
    /// has allowed them to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Known>,
    /// Whether the node runs etcd and no other component of a control plane.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub etcd_alone: bool,
}

impl About {
    /// The time that pods other than etcd's get to end, where it is shorter than the kubelet's.
    pub fn grace(&self) -> Option<Duration> {
        self.grace_seconds.map(Duration::from_secs)
    }

    /// The bound of each wait.
    pub fn wait(&self) -> Duration {
        Duration::from_secs(self.wait_seconds)
    }
}
