//! What a restore of the first database would lose or leave behind where the second is in use now, beyond counts.
//!
//! etcd is rolled back; nodes, volumes and clouds are not. What runs or exists outside of etcd and is not known to the
//! backup has to be looked after by hand, so that it is named.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::diff::{Difference, Differing};
use crate::objects::Object;

/// Names of one sort that are listed; the number of all is told.
const MAX_NAMES: usize = 200;

/// Names, the first of many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// How many there are.
    pub count: u64,
    /// The first of them: `NAMESPACE/NAME` or `NAME`.
    pub names: Vec<String>,
}

impl Names {
    fn add(&mut self, name: String) {
        self.count += 1;
        if self.names.len() < MAX_NAMES {
            self.names.push(name);
        }
    }
}

/// What a restore would lose or leave behind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Pods that run and are not in the backup, by node: their kubelet must be restarted, or they run on unknown to the
    /// API server.
    pub phantom_pods: BTreeMap<String, Names>,
    /// PersistentVolumes, claims and VolumeAttachments that are not in the backup: their storage would be orphaned.
    pub volumes: Names,
    /// Services of type LoadBalancer that are not in the backup: their load balancers would stay.
    pub load_balancers: Names,
    /// Nodes, Machines and CertificateSigningRequests that are newer than the backup.
    pub machines: Names,
    /// CustomResourceDefinitions that would vanish, with the number of their objects.
    pub definitions: BTreeMap<String, u64>,
    /// Secrets that were changed since: what was rotated would be the old one again.
    pub changed_secrets: Names,
    /// Newest revisions of OpenShift's static pods that are not in the backup, by namespace.
    pub static_pod_revisions: BTreeMap<String, u64>,
}

impl Loss {
    /// Whether there is nothing to name.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes one difference, in the order of keys: definitions come before their objects.
    pub fn take(&mut self, differing: &Differing<'_>) {
        let place = &differing.place;
        let name = match place.namespace {
            Some(namespace) => format!("{namespace}/{}", place.name),
            None => place.name.to_owned(),
        };
        let new = matches!(
            differing.difference,
            Difference::Added | Difference::Replaced
        );
        let now = differing.objects.1.as_ref();
        match place.path {
            "pods" if new => {
                if let Some(node) = now.and_then(runs_on) {
                    self.phantom_pods.entry(node).or_default().add(name);
                }
            }
            "persistentvolumes" | "persistentvolumeclaims" | "volumeattachments" if new => {
                self.volumes.add(format!("{} {name}", place.path));
            }
            "services/specs" if new && now.is_some_and(is_load_balancer) => {
                self.load_balancers.add(name);
            }
            "minions" | "certificatesigningrequests" if new => {
                self.machines.add(format!("{} {name}", differing.kind));
            }
            "secrets" if differing.difference == Difference::Changed => {
                self.changed_secrets.add(name)
            }
            "configmaps" if new => self.revision(place.namespace, place.name),
            "apiextensions.k8s.io/customresourcedefinitions" if new => {
                self.definitions.entry(name).or_default();
            }
            path if new => {
                if path.ends_with("/machines") {
                    self.machines.add(format!("{} {name}", differing.kind));
                }
                if let Some(count) = self.definitions.get_mut(&definition_of(path)) {
                    *count += 1;
                }
            }
            _ => {}
        }
    }

    /// `revision-status-7`: how OpenShift's operators record a revision of their static pods.
    fn revision(&mut self, namespace: Option<&str>, name: &str) {
        let number = name
            .strip_prefix("revision-status-")
            .and_then(|number| number.parse().ok());
        if let (Some(namespace), Some(number)) = (namespace, number) {
            let newest = self
                .static_pod_revisions
                .entry(namespace.to_owned())
                .or_insert(number);
            *newest = number.max(*newest);
        }
    }
}

/// The name of the definition of a custom resource's kind, from the path of its keys.
fn definition_of(path: &str) -> String {
    let (group, plural) = path.split_once('/').unwrap_or(("", path));
    format!("{plural}.{group}")
}

fn at<'v>(object: &'v Object, path: [&str; 2]) -> &'v str {
    let [first, second] = path;
    let value = object.json.get(first).and_then(|value| value.get(second));
    value.and_then(Value::as_str).unwrap_or_default()
}

/// The node that a pod runs on, unless it has ended.
fn runs_on(pod: &Object) -> Option<String> {
    let node = at(pod, ["spec", "nodeName"]);
    let ended = matches!(at(pod, ["status", "phase"]), "Succeeded" | "Failed");
    (!node.is_empty() && !ended).then(|| node.to_owned())
}

fn is_load_balancer(service: &Object) -> bool {
    at(service, ["spec", "type"]) == "LoadBalancer"
}
