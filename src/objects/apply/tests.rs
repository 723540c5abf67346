use serde_json::json;

use super::super::decode::Encoding;
use super::*;

fn object(json: Value) -> Object {
    let Value::Object(json) = json else {
        panic!("no object")
    };
    Object {
        encoding: Encoding::Json,
        json,
        unknown_fields: Vec::new(),
    }
}

fn cleaned(json: Value) -> Value {
    let mut object = object(json);
    clean(&mut object).unwrap();
    Value::Object(object.json)
}

#[test]
fn what_a_cluster_sets_itself_is_removed() {
    let found = cleaned(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{}], "labels": {"app": "web"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "finalizers": ["service.kubernetes.io/load-balancer-cleanup"],
            "ownerReferences": [{"uid": "x", "kind": "Thing"}]},
        "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "type": "NodePort",
            "ports": [{"port": 80, "nodePort": 30080}]},
        "status": {"loadBalancer": {}}
    }));
    let expected = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}
    });
    assert_eq!(found, expected);
    let headless = cleaned(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "h"},
        "spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
    );
    assert_eq!(headless["spec"]["clusterIP"], "None");
}

#[test]
fn jobs_and_pods_lose_what_binds_them_to_the_old_cluster() {
    let job = cleaned(json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "j", "labels": {"job-name": "j", "mine": "1"}},
        "spec": {"selector": {"matchLabels": {"controller-uid": "u"}},
            "template": {"metadata": {"labels": {"controller-uid": "u", "batch.kubernetes.io/job-name": "j"}}}}}));
    assert_eq!(job["spec"], json!({"template": {"metadata": {}}}));
    assert_eq!(job["metadata"]["labels"], json!({"mine": "1"}));
    let pod = cleaned(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "priority": 0, "volumes": [{"name": "kube-api-access-x"}, {"name": "d"}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "kube-api-access-x"}, {"name": "d"}]}]}}),
    );
    let expected = json!({"volumes": [{"name": "d"}], "containers": [{"name": "c", "volumeMounts": [{"name": "d"}]}]});
    assert_eq!(pod["spec"], expected);
}

#[test]
fn what_comes_back_by_itself_is_left_out() {
    for (json, reason) in [
        (
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}}),
            LeftOut::State,
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"ownerReferences": [{"controller": true}]}}),
            LeftOut::Controlled,
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}),
            LeftOut::State,
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}}),
            LeftOut::BuiltIn,
        ),
        (
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}}),
            LeftOut::BuiltIn,
        ),
        (
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}),
            LeftOut::Finished,
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            LeftOut::Deleting,
        ),
    ] {
        assert_eq!(clean(&mut object(json.clone())), Err(reason), "{json}");
    }
}

#[test]
fn the_order_is_that_of_dependencies() {
    let order = [
        ("", "Namespace"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("storage.k8s.io", "StorageClass"),
        ("", "ServiceAccount"),
        ("", "Secret"),
        ("", "PersistentVolume"),
        ("", "PersistentVolumeClaim"),
        ("rbac.authorization.k8s.io", "Role"),
        ("rbac.authorization.k8s.io", "RoleBinding"),
        ("", "ResourceQuota"),
        ("", "Service"),
        ("apps", "Deployment"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("example.com", "Widget"),
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration",
        ),
    ];
    let ranks: Vec<u8> = order
        .iter()
        .map(|(group, kind)| rank(group, kind))
        .collect();
    assert!(ranks.windows(2).all(|pair| pair[0] < pair[1]), "{ranks:?}");
}
