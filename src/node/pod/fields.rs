//! The fields of a pod that its variables may refer to.

use std::collections::BTreeMap;

/// What the kubelet fills into a pod's fields on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `spec.nodeName`.
    pub node_name: Option<String>,
    /// `status.hostIP`, which is `status.podIP` too on the host's network.
    pub host_ip: Option<String>,
}

/// A pod's fields, as the kubelet of its node fills them in.
pub(super) struct PodFields<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) annotations: &'a BTreeMap<String, String>,
    pub(super) node: &'a NodeFacts,
}

impl PodFields<'_> {
    /// The value of a `fieldPath`, where it is known.
    pub(super) fn value(&self, path: &str) -> Option<String> {
        match path {
            "metadata.namespace" => Some(self.namespace.to_owned()),
            // A static pod's name ends in its node's.
            "metadata.name" => {
                let node = self.node.node_name.as_ref()?;
                Some(format!("{}-{}", self.name, node.to_lowercase()))
            }
            "spec.nodeName" => self.node.node_name.clone(),
            "status.hostIP" | "status.podIP" | "status.hostIPs" | "status.podIPs" => {
                self.node.host_ip.clone()
            }
            _ => entry(path, "metadata.labels", self.labels)
                .or_else(|| entry(path, "metadata.annotations", self.annotations)),
        }
    }
}

/// The entry that `metadata.labels['KEY']` means; one that is absent is empty.
fn entry(path: &str, field: &str, entries: &BTreeMap<String, String>) -> Option<String> {
    let key = path.strip_prefix(field)?;
    let key = key.strip_prefix("['")?.strip_suffix("']")?;
    Some(entries.get(key).cloned().unwrap_or_default())
}
