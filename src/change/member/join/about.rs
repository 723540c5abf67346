//! What a join is about, as its journal keeps it: enough to go on, to go back and to tell.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::restore::about::{About as NodeAbout, EtcdAbout, PodAbout, Scope, SetAbout};
use crate::cluster::survey::Reach;
use crate::error::Result;
use crate::etcd::client::{ConnectOptions, Endpoint, Pem, TlsConfig};

/// How the members that live are reached. Paths are as the process that made the plan finds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAbout {
    /// Its id, in hexadecimal.
    pub id: String,
    /// Client URLs of its healthy members, this node's own not among them.
    pub endpoints: Vec<String>,
    /// The CA's file.
    pub ca: Option<PathBuf>,
    /// The client certificate's file.
    pub cert: Option<PathBuf>,
    /// Its key's file.
    pub key: Option<PathBuf>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The node's profile, by its word.
    pub profile: String,
    /// How the node's own member is reached, and what it is called. Paths are the node's own.
    pub etcd: EtcdAbout,
    /// The cluster that it joins.
    pub cluster: ClusterAbout,
    /// The container runtime's socket.
    pub runtime: PathBuf,
    /// The etcd pod.
    pub pod: PodAbout,
    /// The longest wait for the pod to end, and for the member to vote, in seconds.
    pub wait_seconds: u64,
    /// Refusals that are allowed.
    #[serde(deserialize_with = "crate::error::names::list")]
    pub allow: Vec<String>,
    /// Where the old data and the manifest that was there are kept.
    pub safety: Vec<PathBuf>,
}

impl About {
    /// The bound of each wait.
    pub fn wait(&self) -> Duration {
        Duration::from_secs(self.wait_seconds)
    }

    /// What the steps that a restore has too need to know of the node.
    pub(super) fn of_node(&self) -> NodeAbout {
        NodeAbout {
            set: SetAbout {
                name: String::new(),
                dir: PathBuf::new(),
                created: None,
                kv_revision: None,
                ocp_version: None,
                cluster_uuid: None,
                node: None,
            },
            profile: self.profile.clone(),
            node: self.etcd.member.clone(),
            nodes: vec![self.etcd.member.clone()],
            scope: Scope::Etcd,
            etcd: self.etcd.clone(),
            runtime: self.runtime.clone(),
            pods: vec![self.pod.clone()],
            wait_seconds: self.wait_seconds,
            grace_seconds: None,
            etcd_served: None,
            alarms_allowed: false,
            safety: self.safety.clone(),
            former_clusters: Vec::new(),
            others: Vec::new(),
            etcd_alone: false,
        }
    }
}

impl ClusterAbout {
    /// How to reach it.
    ///
    /// # Errors
    /// Those of reading the certificates.
    pub(super) fn reach(&self) -> Result<Reach> {
        let endpoints = self
            .endpoints
            .iter()
            .map(|url| Endpoint::parse(url, self.ca.is_some()))
            .collect::<Result<Vec<_>>>()?;
        let mut options = ConnectOptions::default();
        if endpoints.iter().any(Endpoint::is_tls) {
            let pem = |path: &PathBuf| Pem::read(path.clone());
            let ca: Vec<Pem> = self.ca.iter().map(pem).collect::<Result<_>>()?;
            let cert = self.cert.as_ref().map(pem).transpose()?;
            let key = self.key.as_ref().map(pem).transpose()?;
            options.tls = Some(TlsConfig::new(&ca, cert.as_ref().zip(key.as_ref()))?);
        }
        Ok(Reach::at(endpoints, options))
    }
}
