//! What is special about a kind.

use serde_json::{Map, Value};

use super::super::decode::Object;
use super::fields::clean_map;
use super::left_out::LeftOut;

/// Kinds that describe the moment of the backup.
const STATE: [(&str, &str); 21] = [
    ("", "Node"),
    ("", "Event"),
    ("events.k8s.io", "Event"),
    ("apps", "ControllerRevision"),
    ("coordination.k8s.io", "Lease"),
    ("coordination.k8s.io", "LeaseCandidate"),
    ("certificates.k8s.io", "CertificateSigningRequest"),
    ("certificates.k8s.io", "PodCertificateRequest"),
    ("internal.apiserver.k8s.io", "StorageVersion"),
    ("networking.k8s.io", "IPAddress"),
    ("resource.k8s.io", "ResourceSlice"),
    ("resource.k8s.io", "ResourcePoolStatusRequest"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "CSIStorageCapacity"),
    ("storage.k8s.io", "VolumeAttachment"),
    ("storagemigration.k8s.io", "StorageVersionMigration"),
    ("build.openshift.io", "Build"),
    ("oauth.openshift.io", "OAuthAccessToken"),
    ("oauth.openshift.io", "OAuthAuthorizeToken"),
    ("security.openshift.io", "RangeAllocation"),
    ("template.openshift.io", "BrokerTemplateInstance"),
];
/// Labels and annotations of objects that the control plane makes and keeps.
const BUILT_IN: [(&str, &str, Option<&str>); 6] = [
    ("labels", "kubernetes.io/bootstrapping", None),
    ("labels", "kube-aggregator.kubernetes.io/automanaged", None),
    ("labels", "endpointslice.kubernetes.io/managed-by", None),
    (
        "labels",
        "endpoints.kubernetes.io/managed-by",
        Some("endpoint-controller"),
    ),
    (
        "annotations",
        "endpoints.kubernetes.io/last-change-trigger-time",
        None,
    ),
    (
        "annotations",
        "apf.kubernetes.io/autoupdate-spec",
        Some("true"),
    ),
];
/// Namespaced objects that controllers put into every namespace, by kind and name.
const EVERYWHERE: [(&str, &str); 2] = [
    ("ConfigMap", "kube-root-ca.crt"),
    ("ConfigMap", "openshift-service-ca.crt"),
];

fn group_kind(object: &Object) -> (&str, &str) {
    let group = object
        .api_version()
        .split_once('/')
        .map_or("", |(group, _)| group);
    (group, object.kind())
}

pub(super) fn leave_out(object: &Object) -> Result<(), LeftOut> {
    let (group, kind) = group_kind(object);
    if STATE.contains(&(group, kind))
        || has(object, "annotations", "kubernetes.io/config.mirror", None)
    {
        return Err(LeftOut::State);
    }
    let name = object.meta("name");
    let built_in = BUILT_IN
        .iter()
        .any(|(map, name, value)| has(object, map, name, *value))
        || EVERYWHERE.contains(&(kind, name))
        || (group, kind, name) == ("", "Service", "kubernetes")
            && object.meta("namespace") == "default"
        || (group, kind, name) == ("", "Endpoints", "kubernetes")
            && object.meta("namespace") == "default"
        || (group, kind) == ("networking.k8s.io", "ServiceCIDR") && name == "kubernetes"
        || (group, kind) == ("scheduling.k8s.io", "PriorityClass") && name.starts_with("system-");
    if built_in {
        return Err(LeftOut::BuiltIn);
    }
    if (group, kind) == ("batch", "Job") && is_finished(object) {
        return Err(LeftOut::Finished);
    }
    Ok(())
}

fn has(object: &Object, map: &str, name: &str, value: Option<&str>) -> bool {
    let found = object
        .json
        .get("metadata")
        .and_then(|metadata| metadata.get(map)?.get(name)?.as_str());
    found.is_some_and(|found| value.is_none_or(|value| value == found))
}

fn is_finished(job: &Object) -> bool {
    let conditions = job
        .json
        .get("status")
        .and_then(|status| status.get("conditions")?.as_array());
    conditions.into_iter().flatten().any(|condition| {
        let text = |field: &str| condition.get(field).and_then(Value::as_str);
        matches!(text("type"), Some("Complete" | "Failed")) && text("status") == Some("True")
    })
}

pub(super) fn clean(object: &mut Object) {
    let (group, kind) = group_kind(object);
    let (group, kind) = (group.to_owned(), kind.to_owned());
    let json = &mut object.json;
    match (group.as_str(), kind.as_str()) {
        ("", "Service") => service(json),
        ("", "Pod") => pod(json),
        ("", "Secret") => secret(json),
        // They name token Secrets of the old cluster.
        ("", "ServiceAccount") => {
            json.remove("secrets");
        }
        // Its finalizers, which the API server sets.
        ("", "Namespace") => {
            json.remove("spec");
        }
        ("", "PersistentVolumeClaim") => remove(json, &["spec", "volumeName"]),
        // The claim gets another uid: with the old one the volume would count as released.
        ("", "PersistentVolume") => {
            for field in ["uid", "resourceVersion"] {
                remove(json, &["spec", "claimRef", field]);
            }
        }
        ("batch", "Job") => job(json),
        _ => {}
    }
}

fn at<'v>(json: &'v mut Map<String, Value>, path: &[&str]) -> Option<&'v mut Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(json.get_mut(*first)?, |value, name| value.get_mut(*name))
}

fn remove(json: &mut Map<String, Value>, path: &[&str]) {
    if let Some((last, parents)) = path.split_last()
        && let Some(parent) = at(json, parents).and_then(Value::as_object_mut)
    {
        parent.remove(*last);
    }
}

/// Addresses and node ports are the new cluster's; a headless service says so by its address.
fn service(json: &mut Map<String, Value>) {
    let Some(spec) = json.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if spec.get("clusterIP").and_then(Value::as_str) != Some("None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    spec.remove("healthCheckNodePort");
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
}

/// The scheduler chooses the node, and admission adds priority and the token's volume again.
fn pod(json: &mut Map<String, Value>) {
    const TOKEN: &str = "kube-api-access-";
    let Some(spec) = json.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    for field in ["nodeName", "priority", "ephemeralContainers"] {
        spec.remove(field);
    }
    let is_token = |entry: &Value| {
        entry
            .get("name")
            .and_then(Value::as_str)
            .is_some_and(|name| name.starts_with(TOKEN))
    };
    let retain = |list: Option<&mut Value>| {
        if let Some(list) = list.and_then(Value::as_array_mut) {
            list.retain(|entry| !is_token(entry));
        }
    };
    retain(spec.get_mut("volumes"));
    for containers in ["containers", "initContainers"] {
        for container in spec
            .get_mut(containers)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            retain(container.get_mut("volumeMounts"));
        }
    }
}

/// A token is of the cluster that signed it: the controller fills in a new one.
fn secret(json: &mut Map<String, Value>) {
    if json.get("type").and_then(Value::as_str) == Some("kubernetes.io/service-account-token") {
        json.remove("data");
    }
}

/// The selector and the labels that the API server generates carry the Job's old uid.
fn job(json: &mut Map<String, Value>) {
    const LABELS: [&str; 4] = [
        "controller-uid",
        "batch.kubernetes.io/controller-uid",
        "job-name",
        "batch.kubernetes.io/job-name",
    ];
    if at(json, &["spec", "manualSelector"]) == Some(&mut Value::Bool(true)) {
        return;
    }
    remove(json, &["spec", "selector"]);
    if let Some(metadata) =
        at(json, &["spec", "template", "metadata"]).and_then(Value::as_object_mut)
    {
        clean_map(metadata, "labels", &LABELS);
    }
    if let Some(metadata) = at(json, &["metadata"]).and_then(Value::as_object_mut) {
        clean_map(metadata, "labels", &LABELS);
    }
}

pub(super) fn rank(group: &str, kind: &str) -> u8 {
    match (group, kind) {
        ("", "Namespace") => 0,
        ("apiextensions.k8s.io", _) => 1,
        ("storage.k8s.io" | "scheduling.k8s.io" | "node.k8s.io", _) | (_, "IngressClass") => 2,
        ("", "ServiceAccount") => 3,
        ("", "Secret" | "ConfigMap") => 4,
        ("", "PersistentVolume") => 5,
        ("", "PersistentVolumeClaim") => 6,
        (_, "ClusterRole" | "Role") => 7,
        (_, "ClusterRoleBinding" | "RoleBinding") => 8,
        ("", "LimitRange" | "ResourceQuota") => 9,
        ("", "Service" | "Endpoints") | ("discovery.k8s.io", _) => 10,
        ("", _) | ("apps" | "batch", _) => 12,
        // One whose service does not run yet refuses everything else.
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => 15,
        (group, _) if group.ends_with("k8s.io") || !group.contains('.') => 13,
        // Custom resources: their controllers may make any of the above.
        _ => 14,
    }
}
