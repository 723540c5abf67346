//! The container runtime's client, asked about pods that a kubelet runs.

use std::fs;

use etcd_dr::node::runtime::{ContainerState, static_pod_name};

use crate::bench::{ETCD_NAMESPACE, MAIN, NAME, boot};

#[test]
fn static_pods_as_they_come_and_go() {
    let Some(node) = boot() else { return };
    let (containers, sandboxes) = node.listed();

    let pods = [
        ("openshift-etcd", "etcd", "7"),
        ("openshift-kube-apiserver", "kube-apiserver", "10"),
        (
            "openshift-kube-controller-manager",
            "kube-controller-manager",
            "8",
        ),
        ("openshift-kube-scheduler", "openshift-kube-scheduler", "6"),
    ];
    assert_eq!(sandboxes.len(), pods.len(), "{sandboxes:#?}");
    for ((namespace, pod, revision), main) in pods.into_iter().zip(MAIN) {
        let sandbox = sandboxes
            .iter()
            .find(|s| s.pod_namespace == namespace)
            .unwrap_or_else(|| panic!("no pod in {namespace}: {sandboxes:#?}"));
        assert_eq!(sandbox.pod_name, static_pod_name(pod, NAME));
        assert_eq!(sandbox.labels["revision"], revision);
        assert_eq!(sandbox.annotations["kubernetes.io/config.source"], "file");
        assert_eq!(sandbox.attempt, 0);
        assert!(sandbox.ready);
        let container = containers
            .iter()
            .find(|c| c.name == main && c.state == ContainerState::Running)
            .unwrap_or_else(|| panic!("{main} does not run: {containers:#?}"));
        assert_eq!(container.sandbox_id, sandbox.id);
        assert_eq!(container.pod_name, sandbox.pod_name);
        assert_eq!(container.pod_namespace, namespace);
        assert_eq!(container.pod_uid, sandbox.pod_uid);
        assert!(container.created > sandbox.created);
    }
    // Init containers have ended and stay listed.
    assert!(!node.containers("setup", &ContainerState::Exited).is_empty());

    let first = node.containers("etcd", &ContainerState::Running);
    let live = node.path("/etc/kubernetes/manifests/etcd-pod.yaml");
    let aside = node.path("/etc/kubernetes/etcd-pod.yaml.aside");
    fs::rename(&live, &aside).expect("moving the manifest away");
    node.wait_stopped("etcd");
    let ended = node.containers("etcd", &ContainerState::Exited);
    eprintln!("after the manifest went: {ended:#?}");
    fs::rename(&aside, &live).expect("moving the manifest back");
    node.wait_running(&["etcd"]);
    node.wait_etcd();
    let second = node.containers("etcd", &ContainerState::Running);
    assert_ne!(second[0].id, first[0].id);
    assert_eq!(second[0].pod_uid, first[0].pod_uid);
    assert_eq!(second[0].pod_namespace, ETCD_NAMESPACE);
    let all = node.listed();
    eprintln!("after it came back: {all:#?}");
}
