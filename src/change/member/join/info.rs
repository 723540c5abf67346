//! What a join is about, as its journal keeps it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::transaction::info::{
    ClusterInfo, EtcdInfo, Joining, NodeFacts, OperationInfo, PodInfo, Scope,
};

/// What a join is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinInfo {
    /// The node's profile, by its word.
    pub profile: String,
    /// How the node's own member is reached, and what it is called. Paths are the node's own.
    pub etcd: EtcdInfo,
    /// The cluster that it joins.
    pub cluster: ClusterInfo,
    /// The container runtime's socket.
    pub runtime: PathBuf,
    /// The etcd pod.
    pub pod: PodInfo,
    /// The longest wait for the pod to end, and for the member to vote, in seconds.
    pub wait_seconds: u64,
    /// Refusals that are allowed.
    #[serde(deserialize_with = "crate::error::names::list")]
    pub allow: Vec<String>,
    /// Where the old data and the manifest that was there are kept.
    pub safety: Vec<PathBuf>,
}

impl OperationInfo for JoinInfo {
    fn facts(&self) -> NodeFacts {
        NodeFacts {
            node: self.etcd.member.clone(),
            etcd: self.etcd.clone(),
            runtime: self.runtime.clone(),
            pods: vec![self.pod.clone()],
            scope: Scope::Etcd,
            wait: Duration::from_secs(self.wait_seconds),
            grace: None,
            etcd_served: None,
            alarms_allowed: false,
            proves_rollback: false,
            joins: Some(Joining {
                cluster: self.cluster.clone(),
                allow: self.allow.clone(),
            }),
        }
    }

    fn safety(&self) -> &[PathBuf] {
        &self.safety
    }
}
