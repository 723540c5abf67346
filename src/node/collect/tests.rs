use std::os::unix::fs::symlink;

use super::*;

fn write(layout: &NodeLayout, path: &str, text: &str) {
    let path = layout.host(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn pod(component: Component, number: u32) -> String {
    format!(
        "{{\"kind\":\"Pod\",\"metadata\":{{\"name\":{:?},\"labels\":{{\"revision\":\"3\"}}}},\
         \"spec\":{{\"volumes\":[{{\"name\":\"resource-dir\",\"hostPath\":{{\"path\":\
         \"/etc/kubernetes/static-pod-resources/{component}-pod-{number}\"}}}}],\
         \"containers\":[{{\"name\":{:?},\"image\":\"quay.io/{component}@sha256:{number}\"}}]}}}}\n",
        component.pod_name(),
        component.name(),
    )
}

/// Revisions 6 (older), 7 (in use) and 9 (newer in number and time) of each component.
fn openshift() -> (tempfile::TempDir, NodeLayout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = NodeLayout::new(dir.path());
    for component in Component::ALL {
        for number in [6, 7, 9] {
            let at = format!("/etc/kubernetes/static-pod-resources/{component}-pod-{number}");
            write(
                &layout,
                &format!("{at}/{component}-pod.yaml"),
                &pod(component, number),
            );
            write(&layout, &format!("{at}/secrets/s/tls.key"), "key");
        }
        let certs = format!("/etc/kubernetes/static-pod-resources/{component}-certs");
        write(&layout, &format!("{certs}/secrets/s/tls.key"), "key");
        write(&layout, &format!("{certs}/staging/cert-sync/x"), "half");
        write(
            &layout,
            &format!("/etc/kubernetes/manifests/{component}-pod.yaml"),
            &pod(component, 7),
        );
    }
    (dir, layout)
}

fn names(list: &[PathBuf]) -> Vec<&str> {
    list.iter().map(|path| path.to_str().unwrap()).collect()
}

#[test]
fn openshift_archives_the_revisions_in_use_in_the_scripts_order() {
    let (_dir, layout) = openshift();
    let plan = resource_plan(&layout, Profile::Openshift).unwrap();
    assert_eq!(plan.problems, []);
    assert_eq!(plan.notes, Vec::<String>::new());
    assert_eq!(plan.resources.base, layout.kubernetes());
    assert_eq!(
        names(&plan.resources.entries),
        [
            "static-pod-resources/kube-apiserver-pod-7",
            "static-pod-resources/kube-controller-manager-pod-7",
            "static-pod-resources/kube-scheduler-pod-7",
            "static-pod-resources/etcd-pod-7",
        ]
    );
    let certs = plan.certs.unwrap();
    assert_eq!(certs.entries.len(), 4);
    assert!(
        certs
            .skip
            .contains(&"static-pod-resources/etcd-certs/staging".into())
    );
    let etcd = &plan.components[3];
    assert_eq!(etcd.revision.unwrap().to_string(), "etcd-pod-7");
    assert_eq!(etcd.image.as_deref(), Some("quay.io/etcd@sha256:7"));
}

#[test]
fn what_is_missing_has_a_name_and_the_rest_is_listed() {
    let (_dir, layout) = openshift();
    let manifest = |component| layout.manifest(component, Profile::Openshift).unwrap();
    fs::remove_file(manifest(Component::KubeScheduler)).unwrap();
    fs::write(manifest(Component::KubeApiserver), "{").unwrap();
    let restore = pod(Component::Etcd, 7).replace("resource-dir", "backup-dir");
    fs::write(manifest(Component::Etcd), restore).unwrap();
    fs::remove_dir_all(layout.resources().join("kube-controller-manager-pod-7")).unwrap();
    fs::remove_dir_all(layout.certs(Component::KubeScheduler)).unwrap();
    let plan = resource_plan(&layout, Profile::Openshift).unwrap();
    let found: Vec<_> = plan
        .problems
        .iter()
        .map(|p| (p.name, p.component))
        .collect();
    assert_eq!(
        found,
        [
            ("manifest-unreadable", Component::KubeApiserver),
            ("manifest-missing", Component::KubeScheduler),
            ("revision-missing", Component::KubeControllerManager),
            ("restore-pod-running", Component::Etcd),
        ]
    );
    assert_eq!(plan.resources.entries, Vec::<PathBuf>::new());
    assert_eq!(plan.certs.unwrap().entries.len(), 3);
    assert_eq!(plan.notes.len(), 1);
    // A pipe in a manifest's place must not hang the reader.
    fs::remove_file(manifest(Component::KubeApiserver)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        manifest(Component::KubeApiserver),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let plan = resource_plan(&layout, Profile::Openshift).unwrap();
    assert_eq!(plan.problems[0].name, "manifest-unreadable");
}

#[test]
fn a_rollout_in_between_shows() {
    let (_dir, layout) = openshift();
    let take = || rollout_fingerprint(&layout, Profile::Openshift).unwrap();
    let before = take();
    assert_eq!(before.differences(&take()), Vec::<String>::new());
    // What no pod uses is no rollout.
    write(
        &layout,
        "/etc/kubernetes/static-pod-resources/etcd-pod-10/x",
        "1",
    );
    write(
        &layout,
        "/etc/kubernetes/static-pod-resources/etcd-pod-7/staging/x",
        "1",
    );
    assert_eq!(before.differences(&take()), Vec::<String>::new());

    write(
        &layout,
        "/etc/kubernetes/static-pod-resources/etcd-pod-7/secrets/s/tls.key",
        "yek",
    );
    write(
        &layout,
        "/etc/kubernetes/static-pod-resources/etcd-pod-7/secrets/s/new",
        "",
    );
    fs::remove_file(
        layout
            .resources()
            .join("kube-apiserver-pod-7/secrets/s/tls.key"),
    )
    .unwrap();
    assert_eq!(
        before.differences(&take()),
        [
            "static-pod-resources/etcd-pod-7/secrets/s/tls.key: changed",
            "static-pod-resources/kube-apiserver-pod-7/secrets/s/tls.key: gone",
            "static-pod-resources/etcd-pod-7/secrets/s/new: new",
        ]
    );
    let before = take();
    write(
        &layout,
        "/etc/kubernetes/manifests/etcd-pod.yaml",
        &pod(Component::Etcd, 9),
    );
    let told = before.differences(&take());
    assert_eq!(
        told[0],
        "etcd: the revision in use was etcd-pod-7 and is etcd-pod-9"
    );
    let before = take();
    let text = pod(Component::Etcd, 9).replace("sha256:9", "sha256:a");
    write(&layout, "/etc/kubernetes/manifests/etcd-pod.yaml", &text);
    assert_eq!(
        before.differences(&take()),
        ["etcd: the live manifest changed"]
    );
}

const API: &str = "kind: Pod
metadata: {name: kube-apiserver}
spec:
  containers:
  - name: kube-apiserver
    command: [kube-apiserver, --encryption-provider-config=/enc/enc.yaml,
      --audit-policy-file=/etc/kubernetes/audit.yaml, --client-ca-file=/etc/kubernetes/pki/ca.crt,
      --audit-log-path=/var/log/audit.log, --oidc-ca-file=/absent]
    volumeMounts: [{name: enc, mountPath: /enc}, {name: pki, mountPath: /etc/kubernetes/pki}]
  volumes: [{name: enc, hostPath: {path: /srv/enc}}, {name: pki, hostPath: {path: /etc/kubernetes/pki}}]
";

fn kubeadm() -> (tempfile::TempDir, NodeLayout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = NodeLayout::new(dir.path());
    for name in ["etcd", "kube-controller-manager", "kube-scheduler"] {
        let text = format!(
            "kind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: {name}, image: i}}]}}"
        );
        write(
            &layout,
            &format!("/etc/kubernetes/manifests/{name}.yaml"),
            &text,
        );
    }
    write(
        &layout,
        "/etc/kubernetes/manifests/kube-apiserver.yaml",
        API,
    );
    for path in [
        "/etc/kubernetes/pki/ca.crt",
        "/etc/kubernetes/admin.conf",
        "/etc/kubernetes/kubelet.conf",
        "/etc/kubernetes/audit.yaml",
        "/srv/enc/enc.yaml",
        "/var/log/audit.log",
    ] {
        write(&layout, path, "x");
    }
    (dir, layout)
}

#[test]
fn kubeadm_archives_manifests_keys_kubeconfigs_and_what_flags_name() {
    let (_dir, layout) = kubeadm();
    let plan = resource_plan(&layout, Profile::Kubeadm).unwrap();
    assert_eq!(plan.problems, []);
    assert_eq!(
        names(&plan.resources.entries),
        [
            "manifests/etcd.yaml",
            "manifests/kube-apiserver.yaml",
            "manifests/kube-controller-manager.yaml",
            "manifests/kube-scheduler.yaml",
            "pki",
            "admin.conf",
            "kubelet.conf",
            "audit.yaml",
        ]
    );
    assert_eq!(
        plan.resources.elsewhere,
        [Elsewhere {
            source: layout.host("/srv/enc/enc.yaml"),
            name: "outside-etc-kubernetes/srv/enc/enc.yaml".into(),
        }]
    );
    assert_eq!(plan.certs, None);
    assert_eq!(plan.notes.len(), 2, "{:?}", plan.notes);
    fs::remove_file(layout.host("/srv/enc/enc.yaml")).unwrap();
    let plan = resource_plan(&layout, Profile::Kubeadm).unwrap();
    assert_eq!(plan.problems[0].name, "encryption-config-missing");
}

#[test]
fn a_linked_pki_is_archived_itself() {
    let (_dir, layout) = kubeadm();
    fs::rename(layout.pki(), layout.host("/srv/pki")).unwrap();
    symlink("/srv/pki", layout.pki()).unwrap();
    let plan = resource_plan(&layout, Profile::Kubeadm).unwrap();
    assert!(plan.resources.elsewhere.contains(&Elsewhere {
        source: layout.host("/srv/pki"),
        name: "pki".into(),
    }));
    let before = rollout_fingerprint(&layout, Profile::Kubeadm).unwrap();
    write(&layout, "/srv/pki/new.crt", "");
    let after = rollout_fingerprint(&layout, Profile::Kubeadm).unwrap();
    assert_eq!(before.differences(&after), ["pki/new.crt: new"]);
}

#[test]
fn a_bare_etcd_has_nothing_to_archive() {
    let dir = tempfile::tempdir().unwrap();
    let plan = resource_plan(&NodeLayout::new(dir.path()), Profile::Bare).unwrap();
    assert_eq!(plan.resources.entries, Vec::<PathBuf>::new());
    assert_eq!(plan.problems, []);
}
