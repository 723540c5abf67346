//! The OpenShift objects that a backup reads from etcd.
//!
//! Custom resources are stored as JSON, under the storage prefix, which is `/kubernetes.io` on
//! OpenShift, then group, plural and name; openshift/cluster-etcd-operator read ClusterVersion
//! from this very key (pkg/cmd/backuprestore).

use serde_json::{Value, json};

use crate::bulk::put_all;
use crate::cluster::Cluster;

/// Where the ClusterVersion is.
pub const CLUSTER_VERSION_KEY: &str = "/kubernetes.io/config.openshift.io/clusterversions/version";
/// The operators of the four static pods.
pub const OPERATORS: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

/// Where a ClusterOperator is.
pub fn cluster_operator_key(name: &str) -> String {
    format!("/kubernetes.io/config.openshift.io/clusteroperators/{name}")
}

/// What a made-up OpenShift cluster is like.
#[derive(Debug, Clone)]
pub struct OpenShift {
    /// `spec.clusterID`.
    pub cluster_id: String,
    /// `status.desired.version`.
    pub version: String,
    /// `metadata.creationTimestamp`, RFC 3339.
    pub created: String,
    /// Operators whose `Progressing` is `True`.
    pub progressing: Vec<&'static str>,
    /// The version that is being rolled out, where an upgrade is under way.
    pub upgrading_to: Option<String>,
}

impl Default for OpenShift {
    fn default() -> Self {
        Self {
            cluster_id: "6e2f1c58-9f0d-4c1b-8a3e-5d7b60a4f2c9".to_owned(),
            version: "4.17.12".to_owned(),
            created: "2025-02-03T09:41:27Z".to_owned(),
            progressing: Vec::new(),
            upgrading_to: None,
        }
    }
}

impl OpenShift {
    /// Puts ClusterVersion and ClusterOperators.
    pub fn write(&self, cluster: &Cluster) {
        let operators =
            OPERATORS.map(|name| (cluster_operator_key(name), self.cluster_operator(name)));
        let version = (CLUSTER_VERSION_KEY.to_owned(), self.cluster_version());
        let objects: Vec<_> = std::iter::once(version).chain(operators).collect();
        put_all(
            cluster,
            objects
                .iter()
                .map(|(key, object)| (key.as_str(), stored(object))),
        );
    }

    /// The ClusterVersion object.
    pub fn cluster_version(&self) -> Value {
        let release = |version: &str| {
            json!({
                "image": format!("quay.io/openshift-release-dev/ocp-release:{version}-x86_64"),
                "url": "https://access.redhat.com/errata/RHBA-2025:0115",
                "version": version,
            })
        };
        let desired = self.upgrading_to.as_ref().unwrap_or(&self.version);
        let mut history = vec![json!({
            "acceptedRisks": "",
            "completionTime": "2025-02-03T10:18:55Z",
            "image": release(&self.version)["image"],
            "startedTime": self.created,
            "state": "Completed",
            "verified": false,
            "version": self.version,
        })];
        if let Some(next) = &self.upgrading_to {
            history.insert(
                0,
                json!({
                    "completionTime": null,
                    "image": release(next)["image"],
                    "startedTime": "2025-06-11T06:00:03Z",
                    "state": "Partial",
                    "verified": true,
                    "version": next,
                }),
            );
        }
        let mut desired_release = release(desired);
        desired_release["channels"] = json!(["fast-4.17", "stable-4.17"]);
        json!({
            "apiVersion": "config.openshift.io/v1",
            "kind": "ClusterVersion",
            "metadata": self.metadata("version", 2),
            "spec": {
                "channel": "stable-4.17",
                "clusterID": self.cluster_id,
            },
            "status": {
                "availableUpdates": null,
                "conditions": self.conditions(self.upgrading_to.is_some(), "ClusterVersion"),
                "desired": desired_release,
                "history": history,
                "observedGeneration": 2,
                "versionHash": "QkJ6wUjWx1o=",
            },
        })
    }

    /// A ClusterOperator object.
    pub fn cluster_operator(&self, name: &str) -> Value {
        let progressing = self.progressing.contains(&name);
        json!({
            "apiVersion": "config.openshift.io/v1",
            "kind": "ClusterOperator",
            "metadata": self.metadata(name, 1),
            "spec": {},
            "status": {
                "conditions": self.conditions(progressing, "NodeInstaller"),
                "extension": null,
                "relatedObjects": [
                    {"group": "operator.openshift.io", "name": "cluster", "resource": format!("{name}s")},
                    {"group": "", "name": format!("openshift-{name}"), "resource": "namespaces"},
                ],
                "versions": [
                    {"name": "raw-internal", "version": self.version},
                    {"name": name, "version": self.version},
                    {"name": "operator", "version": self.version},
                ],
            },
        })
    }

    fn metadata(&self, name: &str, generation: u32) -> Value {
        json!({
            "creationTimestamp": self.created,
            "generation": generation,
            "name": name,
            "uid": "0b1f6a3e-2c64-4f0e-9d1a-7a5c8e9b3d10",
        })
    }

    fn conditions(&self, progressing: bool, reason: &str) -> Value {
        let condition = |kind: &str, holds: bool, message: &str| {
            json!({
                "lastTransitionTime": "2025-02-03T10:18:55Z",
                "message": message,
                "reason": reason,
                "status": if holds { "True" } else { "False" },
                "type": kind,
            })
        };
        let rollout = if progressing {
            "NodeInstallerProgressing: 2 nodes are at revision 7; 1 node is at revision 6"
        } else {
            "NodeInstallerProgressing: 3 nodes are at revision 7"
        };
        json!([
            condition(
                "Degraded",
                false,
                "NodeControllerDegraded: All master nodes are ready"
            ),
            condition("Progressing", progressing, rollout),
            condition("Available", true, "StaticPodsAvailable: 3 nodes are active"),
            condition("Upgradeable", true, "All is well"),
        ])
    }
}

/// The bytes as the API server stores them: compact JSON with a newline after it.
fn stored(object: &Value) -> Vec<u8> {
    let mut bytes = object.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}
