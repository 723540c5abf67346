//! The container runtime's client, asked about pods that a kubelet runs.

use std::fs;
use std::process::Command;
use std::time::Duration;

use etcd_dr::node::runtime::{ContainerState, Runtime, static_pod_name};

use crate::bench::{ETCD_NAMESPACE, MAIN, NAME, RealNode, boot};
use crate::older;
use testbench::bulk::block_on;
use testbench::process::expect_success;

/// Namespace, name and revision of the four pods, in the order of [`MAIN`].
const PODS: [(&str, &str, &str); 4] = [
    (ETCD_NAMESPACE, "etcd", "7"),
    ("openshift-kube-apiserver", "kube-apiserver", "10"),
    (
        "openshift-kube-controller-manager",
        "kube-controller-manager",
        "8",
    ),
    ("openshift-kube-scheduler", "openshift-kube-scheduler", "6"),
];

#[test]
fn static_pods_as_they_come_and_go() {
    let settings = machine_settings();
    let Some(node) = boot() else { return };
    all_four(&node);
    // Two listings are compared, and the kubelet still starts the pods' lesser containers.
    node.settle();
    both_versions_say_the_same(&node);
    gone_and_back(&node);
    died_and_restarted(&node);
    let name = node.folder();
    drop(node);
    assert_eq!(machine_settings(), settings);
    assert_eq!(left_of(&name), Vec::<String>::new());
}

/// Values of the machine's own that a kubelet sets.
fn machine_settings() -> Vec<String> {
    [
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/panic",
        "kernel/panic_on_oops",
        "kernel/keys/root_maxkeys",
        "kernel/keys/root_maxbytes",
    ]
    .iter()
    .map(|name| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default())
    .collect()
}

/// Mounts, processes and cgroups of a node that has ended.
fn left_of(name: &str) -> Vec<String> {
    let with_name = |text: String| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains(name));
        lines.map(str::to_owned).collect()
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("reading the mounts");
    let mut left = with_name(mounts);
    for process in fs::read_dir("/proc").expect("listing processes").flatten() {
        let cgroup = fs::read_to_string(process.path().join("cgroup"));
        left.extend(with_name(cgroup.unwrap_or_default()));
    }
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-name", name])
        .output();
    // Other cgroups come and go in the meantime, which find would call a failure.
    let found = found.expect("running find").stdout;
    left.extend(with_name(String::from_utf8_lossy(&found).into_owned()));
    left
}

fn all_four(node: &RealNode) {
    let (containers, sandboxes) = node.listed();
    assert_eq!(sandboxes.len(), PODS.len(), "{sandboxes:#?}");
    for ((namespace, pod, revision), main) in PODS.into_iter().zip(MAIN) {
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
        assert_eq!(container.attempt, 0);
        assert!(container.created > sandbox.created);
    }
    // Init containers have ended and stay listed; sandboxes are not containers.
    let setup = node.containers("setup", &ContainerState::Exited);
    assert_eq!(setup.len(), 2, "{containers:#?}");
    assert!(containers.iter().all(|c| !c.pod_name.is_empty()));
}

/// containerd 1.6 knows both versions of the CRI; this kubelet speaks the older one, our client
/// the newer one.
fn both_versions_say_the_same(node: &RealNode) {
    let dir = tempfile::tempdir().expect("making a folder");
    let socket = dir.path().join("older.sock");
    let ask = async |socket: &std::path::Path| {
        let runtime = Runtime::connect(socket, Duration::from_secs(20))
            .await
            .expect("connecting");
        let mut containers = runtime.containers().await.expect("containers");
        let mut sandboxes = runtime.sandboxes().await.expect("sandboxes");
        containers.sort_by(|a, b| a.id.cmp(&b.id));
        sandboxes.sort_by(|a, b| a.id.cmp(&b.id));
        (runtime.info().clone(), containers, sandboxes)
    };
    let (newer, older) = block_on(async {
        let relay = older::relay(&node.socket(), &socket);
        let both = (ask(&node.socket()).await, ask(&socket).await);
        relay.abort();
        both
    });
    assert_eq!(newer.0.api, "v1");
    assert_eq!(older.0.api, "v1alpha2");
    assert_eq!(older.0.name, "containerd");
    assert!(older.0.version.starts_with("1.6."), "{:?}", older.0);
    assert_eq!(older.0.version, newer.0.version);
    assert_eq!(older.1, newer.1);
    assert_eq!(older.2, newer.2);
}

/// A manifest that goes, and comes back as it was.
fn gone_and_back(node: &RealNode) {
    let first = node.containers("etcd", &ContainerState::Running).remove(0);
    let live = node.path("/etc/kubernetes/manifests/etcd-pod.yaml");
    let aside = node.path("/etc/kubernetes/etcd-pod.yaml.aside");
    fs::rename(&live, &aside).expect("moving the manifest away");
    node.wait_stopped("etcd");
    node.wait_no_sandbox(ETCD_NAMESPACE);
    let ended = node.containers("etcd", &ContainerState::Exited);
    assert!(
        ended.iter().all(|c| c.id == first.id && c.attempt == 0),
        "{ended:#?}"
    );

    fs::rename(&aside, &live).expect("moving the manifest back");
    node.wait_running(&["etcd"]);
    node.wait_etcd();
    let second = node.containers("etcd", &ContainerState::Running).remove(0);
    assert_ne!(second.id, first.id);
    assert_ne!(second.sandbox_id, first.sandbox_id);
    // The manifest is the same, and so is the pod.
    assert_eq!(second.pod_uid, first.pod_uid);
    let (_, sandboxes) = node.listed();
    let standing: Vec<_> = sandboxes
        .iter()
        .filter(|s| s.ready && s.pod_namespace == ETCD_NAMESPACE)
        .collect();
    assert_eq!(standing.len(), 1, "{sandboxes:#?}");
    assert_eq!(standing[0].id, second.sandbox_id);
}

/// A program that ends, and that the kubelet starts again in the pod that stands.
fn died_and_restarted(node: &RealNode) {
    let first = node.containers("etcd", &ContainerState::Running).remove(0);
    let killed = node
        .inside("/opt/node/bin/ctr")
        .args(["-n", "k8s.io", "tasks", "kill", "-s", "KILL", &first.id])
        .output();
    expect_success("ctr", &killed.expect("running ctr"));
    node.wait("etcd to be restarted", || {
        let running = node.containers("etcd", &ContainerState::Running);
        match running.iter().any(|c| c.id != first.id) {
            true => Ok(()),
            false => Err(format!("{running:?}")),
        }
    });
    let second = node.containers("etcd", &ContainerState::Running).remove(0);
    assert_eq!(second.sandbox_id, first.sandbox_id);
    assert_eq!(second.attempt, first.attempt + 1);
    let ended = node.containers("etcd", &ContainerState::Exited);
    assert!(ended.iter().any(|c| c.id == first.id), "{ended:#?}");
}
