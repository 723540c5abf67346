//! What the node's API server says about where Kubernetes' objects are, and how they are encrypted:
//! their own etcd for some of them, and keys that a KMS holds.

use std::path::Path;

use serde_yaml_ng::Value;

use super::component::Component;
use super::files::read_bounded;
use super::layout::NodeLayout;
use super::pod::RevisionInUse;
use super::profile::Profile;
use crate::sys::yaml;

/// Longer configuration files are not read.
const CONFIG_MAX: u64 = 4 << 20;

/// Where OpenShift keeps the API server's arguments, below its revision.
const OPENSHIFT_CONFIG: &str = "configmaps/config/config.yaml";
/// Where OpenShift keeps the encryption configuration, below its revision.
const OPENSHIFT_ENCRYPTION: &str = "secrets/encryption-config/encryption-config";

/// Objects that another etcd keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Group and resource as the flag has them, such as `/events`.
    pub resource: String,
    /// The servers.
    pub servers: Vec<String>,
}

/// What was found. What cannot be read is passed over: it is advice, and no precondition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// `--etcd-servers-overrides`.
    pub shards: Vec<Shard>,
    /// The KMS plugins of the encryption configuration, by name.
    pub kms: Vec<String>,
}

impl ApiServer {
    /// Looks at the live manifest, and at the configuration that it names.
    pub fn look(layout: &NodeLayout, profile: Profile) -> Self {
        let mut found = Self::default();
        let current = layout.current_manifest(Component::KubeApiserver, profile);
        let Some(pod) = current.and_then(|current| layout.read_pod(&current.path).ok()) else {
            return found;
        };
        let named = pod.container(Component::KubeApiserver.name());
        if let Some(container) = named.or(pod.containers.first()) {
            if let Some(flag) = container.flag("etcd-servers-overrides") {
                found.shards = shards(flag);
            }
            if let Some(inside) = container.flag("encryption-provider-config") {
                let inside = Path::new(inside);
                let there = pod.node_path(container, inside);
                let path = there.unwrap_or_else(|| inside.to_owned());
                found.encryption(&layout.host(path));
            }
        }
        if let Ok(RevisionInUse::Revision(revision)) = pod.revision(Component::KubeApiserver) {
            let dir = layout.revision(revision);
            found.openshift(&dir);
        }
        found
    }

    fn openshift(&mut self, revision: &Path) {
        let arguments = read(&revision.join(OPENSHIFT_CONFIG));
        let arguments = arguments
            .as_ref()
            .and_then(|config| config.get("apiServerArguments"));
        let overrides = arguments.and_then(|all| all.get("etcd-servers-overrides"));
        for flag in words(overrides) {
            self.shards.extend(shards(&flag));
        }
        self.encryption(&revision.join(OPENSHIFT_ENCRYPTION));
    }

    fn encryption(&mut self, path: &Path) {
        let Some(config) = read(path) else { return };
        let list = |value: Option<&Value>| value.and_then(Value::as_sequence).cloned();
        for resource in list(config.get("resources")).unwrap_or_default() {
            for provider in list(resource.get("providers")).unwrap_or_default() {
                if let Some(kms) = provider.get("kms") {
                    let name = kms.get("name").and_then(Value::as_str);
                    let name = name.unwrap_or("without a name").to_owned();
                    if !self.kms.contains(&name) {
                        self.kms.push(name);
                    }
                }
            }
        }
    }
}

fn read(path: &Path) -> Option<Value> {
    let bytes = read_bounded(path, CONFIG_MAX).ok()?;
    yaml::from_slice(&bytes).ok()
}

/// A text, or a list of them.
fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Sequence(all)) => {
            let texts = all.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// `group/resource#server;server,…` (kube-apiserver, `--etcd-servers-overrides`).
fn shards(flag: &str) -> Vec<Shard> {
    let one = |text: &str| {
        let (resource, servers) = text.trim().split_once('#')?;
        let servers = servers.split(';').map(str::trim);
        let servers = servers.filter(|server| !server.is_empty());
        Some(Shard {
            resource: resource.to_owned(),
            servers: servers.map(str::to_owned).collect(),
        })
    };
    flag.split(',').filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::for_tests::node;

    const KMS: &str = "kind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
                       providers:\n  - kms: {apiVersion: v2, name: vault, endpoint: 'unix:///k'}\n  \
                       - identity: {}\n";

    #[test]
    fn shards_and_kms_of_kubeadm() {
        let pod = "kind: Pod\nmetadata: {name: kube-apiserver}\nspec: {containers: [{name: \
                   kube-apiserver, command: [kube-apiserver, '--etcd-servers-overrides=/events#\
                   https://10.0.0.8:2379;https://10.0.0.9:2379,coordination.k8s.io/leases#\
                   https://10.0.0.8:2379', '--encryption-provider-config=/etc/kubernetes/enc.yaml']}]}";
        let (_dir, layout) = node(&[
            ("etc/kubernetes/manifests/kube-apiserver.yaml", pod),
            ("etc/kubernetes/enc.yaml", KMS),
        ]);
        let found = ApiServer::look(&layout, Profile::Kubeadm);
        let resources: Vec<_> = found.shards.iter().map(|s| s.resource.as_str()).collect();
        assert_eq!(resources, ["/events", "coordination.k8s.io/leases"]);
        assert_eq!(found.shards[0].servers.len(), 2);
        assert_eq!(found.kms, ["vault"]);
    }

    #[test]
    fn shards_and_kms_of_openshift() {
        let pod = r#"{"kind":"Pod","metadata":{"name":"kube-apiserver"},"spec":{"volumes":[{"name":
            "resource-dir","hostPath":{"path":"/etc/kubernetes/static-pod-resources/kube-apiserver-pod-7"}}],
            "containers":[{"name":"kube-apiserver"}]}}"#;
        let dir = "etc/kubernetes/static-pod-resources/kube-apiserver-pod-7";
        let config = r#"{"apiServerArguments":{"etcd-servers-overrides":["/events#https://h:1"]}}"#;
        let (_dir, layout) = node(&[
            ("etc/kubernetes/manifests/kube-apiserver-pod.yaml", pod),
            (&format!("{dir}/configmaps/config/config.yaml"), config),
            (
                &format!("{dir}/secrets/encryption-config/encryption-config"),
                KMS,
            ),
        ]);
        let found = ApiServer::look(&layout, Profile::Openshift);
        assert_eq!(found.shards[0].resource, "/events");
        assert_eq!(found.kms, ["vault"]);
        let (_dir, layout) = node(&[]);
        assert_eq!(
            ApiServer::look(&layout, Profile::Kubeadm),
            ApiServer::default()
        );
    }
}
