//! Objects as another cluster accepts them: without what that cluster sets itself, and in an order in which each finds
//! what it depends on.
//!
//! An object that a controller, a kubelet or the API server makes by itself is left out, with the reason: it would come
//! back on its own, or belongs to machines and requests that are gone. The rules follow what Velero's restore actions
//! (vmware-tanzu/velero, `pkg/restore/actions`) and the API server's validation require.

mod fields;
mod kinds;
mod left_out;

use serde_json::{Map, Value};

pub use left_out::LeftOut;

use self::fields::clean_map;
use super::decode::Object;

/// Fields of the metadata that a cluster sets itself.
const METADATA: [&str; 8] = [
    "resourceVersion",
    "uid",
    "creationTimestamp",
    "selfLink",
    "generation",
    "managedFields",
    "ownerReferences",
    "generateName",
];
/// Annotations that controllers and kubectl set themselves.
const ANNOTATIONS: [&str; 10] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    "kubernetes.io/service-account.uid",
    "control-plane.alpha.kubernetes.io/leader",
];
/// Finalizers that the control plane adds itself.
const FINALIZERS: [&str; 6] = [
    "kubernetes.io/pvc-protection",
    "kubernetes.io/pv-protection",
    "batch.kubernetes.io/job-tracking",
    "service.kubernetes.io/load-balancer-cleanup",
    "foregroundDeletion",
    "orphan",
];

/// Cleans an object.
///
/// # Errors
/// Why it is left out.
pub fn clean(object: &mut Object) -> Result<(), LeftOut> {
    if !object.meta("deletionTimestamp").is_empty() {
        return Err(LeftOut::Deleting);
    }
    if is_controlled(object) {
        return Err(LeftOut::Controlled);
    }
    kinds::leave_out(object)?;
    object.json.remove("status");
    if let Some(metadata) = object
        .json
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
    {
        for field in METADATA {
            // A name that the API server completed is a name like any other.
            metadata.remove(field);
        }
        clean_map(metadata, "annotations", &ANNOTATIONS);
        clean_finalizers(metadata);
    }
    kinds::clean(object);
    Ok(())
}

/// Where an object stands among others: lower numbers first, by group and kind.
pub fn rank(group: &str, kind: &str) -> u8 {
    kinds::rank(group, kind)
}

fn is_controlled(object: &Object) -> bool {
    let owners = object
        .json
        .get("metadata")
        .and_then(|metadata| metadata.get("ownerReferences"));
    let mut owners = owners.and_then(Value::as_array).into_iter().flatten();
    owners.any(|owner| owner.get("controller") == Some(&Value::Bool(true)))
}

fn clean_finalizers(metadata: &mut Map<String, Value>) {
    let Some(finalizers) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) else {
        return;
    };
    finalizers.retain(|one| !one.as_str().is_some_and(|one| FINALIZERS.contains(&one)));
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    }
}

#[cfg(test)]
mod tests;
