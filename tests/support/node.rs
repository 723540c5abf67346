//! A scratch control-plane node around a running member: its root is the member's own folder, so
//! that `var/lib/etcd` in it is the live data directory.

use std::path::PathBuf;
use std::process::Command;

use crate::cluster::Cluster;
use crate::process::expect_success;

/// What the node is to be like; the fixture generator's own defaults fill in the rest.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// `openshift` or `kubeadm`.
    pub profile: &'static str,
    /// `json`, as OpenShift's installer writes, or `yaml`.
    pub manifest_form: &'static str,
    /// The release whose names of certificates and variables are used.
    pub certs_layout: &'static str,
    /// Arguments for `fixtures/make-node.py` besides.
    pub more: Vec<String>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            profile: "openshift",
            manifest_form: "json",
            certs_layout: "4.17",
            more: Vec::new(),
        }
    }
}

impl NodeOptions {
    /// A kubeadm node.
    pub fn kubeadm() -> Self {
        Self {
            profile: "kubeadm",
            manifest_form: "yaml",
            ..Self::default()
        }
    }

    /// With further arguments for the generator.
    pub fn with<S: Into<String>>(mut self, more: impl IntoIterator<Item = S>) -> Self {
        self.more.extend(more.into_iter().map(Into::into));
        self
    }
}

/// Revisions in use on a scratch node, in the generator's order of components.
pub const REVISIONS: [(&str, u32); 4] = [
    ("kube-apiserver", 10),
    ("kube-controller-manager", 8),
    ("kube-scheduler", 6),
    ("etcd", 7),
];

/// Makes the node of a member and says where its root is.
pub fn make(cluster: &Cluster, i: usize, options: &NodeOptions) -> PathBuf {
    let root = cluster.node_root(i).to_owned();
    let nodes: Vec<String> = (0..cluster.size())
        .map(|i| format!("{}={}", cluster.name(i), cluster.ip(i)))
        .collect();
    let mut command = generator();
    command
        .arg(&root)
        .args(["--profile", options.profile])
        .args(["--manifest-form", options.manifest_form])
        .args(["--certs-layout", options.certs_layout])
        .args(["--node", cluster.name(i), "--nodes", &nodes.join(",")]);
    if let Some(certs) = cluster.certs() {
        command.arg("--certs-from").arg(certs.dir());
    }
    if cluster.is_running(i) {
        let status = cluster.status(i);
        let number = |value: &serde_json::Value| value.as_u64().expect("a number").to_string();
        command
            .args(["--cluster-id", &number(&status["header"]["cluster_id"])])
            .args(["--raft-index", &number(&status["raftIndex"])]);
    }
    command.args(&options.more);
    let output = command.output().expect("running python3");
    expect_success("make-node.py", &output);
    root
}

/// Makes nodes of all members.
pub fn make_all(cluster: &Cluster, options: &NodeOptions) -> Vec<PathBuf> {
    (0..cluster.size())
        .map(|i| make(cluster, i, options))
        .collect()
}

/// The fixture generator.
pub fn generator() -> Command {
    let script = crate::project().join("fixtures/make-node.py");
    let mut command = Command::new("python3");
    command.arg(script);
    command
}
