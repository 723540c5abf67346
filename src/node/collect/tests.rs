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
    // What no pod uses is not a rollout.
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
            source: layout.host("/srv/enc"),
            name: "outside-etc-kubernetes/srv/enc".into(),
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

/// A kubeadm node whose API server uses files of all sorts.
fn with_volumes(flags: &[&str]) -> (tempfile::TempDir, NodeLayout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = NodeLayout::new(dir.path());
    let volumes = [
        (
            "certs",
            "/var/lib/minikube/certs",
            "/var/lib/minikube/certs",
        ),
        ("conf", "/etc/kubernetes/conf", "/conf"),
        ("big", "/srv/big", "/srv/big"),
        ("trust", "/etc/ssl/certs", "/etc/ssl/certs"),
        ("log", "/srv/audit", "/srv/audit"),
    ];
    let mounts = volumes.map(|(name, _, at)| {
        let read_only = name != "log";
        format!("{{name: {name}, mountPath: {at}, readOnly: {read_only}}}")
    });
    let paths =
        volumes.map(|(name, path, _)| format!("{{name: {name}, hostPath: {{path: {path}}}}}"));
    for component in Component::ALL {
        let mut words = vec![component.name().to_owned()];
        if component == Component::KubeApiserver {
            words.extend(flags.iter().map(|flag| (*flag).to_owned()));
        }
        let manifest = format!(
            "kind: Pod\nmetadata: {{name: {component}}}\nspec:\n  volumes: [{}]\n  containers:\n  - name: \
             {component}\n    command: {words:?}\n    volumeMounts: [{}]\n",
            paths.join(", "),
            mounts.join(", "),
        );
        write(
            &layout,
            &format!("/etc/kubernetes/manifests/{component}.yaml"),
            &manifest,
        );
    }
    for (path, text) in [
        ("/var/lib/minikube/certs/ca.key", "key"),
        ("/var/lib/minikube/certs/etcd/ca.crt", "ca"),
        ("/etc/ssl/certs/ca.pem", "trust"),
        ("/srv/audit/audit.log", "log"),
        ("/srv/big/used.yaml", "kind: X\n"),
    ] {
        write(&layout, path, text);
    }
    for n in 0..2_001 {
        write(&layout, &format!("/srv/big/{n}"), "");
    }
    (dir, layout)
}

#[test]
fn folders_that_are_mounted_and_files_that_files_name_are_archived() {
    let (_dir, layout) = with_volumes(&[
        "--audit-log-path=/srv/audit/audit.log",
        "--tls-sni-cert-key=/sni/a.crt,/sni/a.key:example.com",
        "--admission-control-config-file",
        "/conf/admission.yaml",
        "--token-auth=/srv/big/used.yaml",
    ]);
    for (path, text) in [
        ("/sni/a.crt", "-----BEGIN CERTIFICATE-----"),
        ("/sni/a.key", "-----BEGIN PRIVATE KEY-----"),
        (
            "/etc/kubernetes/conf/admission.yaml",
            "plugins: [{path: rate/limits.yaml}]\n",
        ),
        (
            "/etc/kubernetes/conf/rate/limits.yaml",
            "config: /var/lib/minikube/certs/etcd/ca.crt\n",
        ),
    ] {
        write(&layout, path, text);
    }
    let plan = resource_plan(&layout, Profile::Kubeadm).unwrap();
    assert_eq!(plan.problems, []);
    let mut all = names(&plan.resources.entries);
    all.retain(|name| !name.starts_with("manifests"));
    assert_eq!(all, ["conf"]);
    let elsewhere: Vec<&str> = plan
        .resources
        .elsewhere
        .iter()
        .map(|other| other.name.to_str().unwrap())
        .collect();
    assert_eq!(
        elsewhere,
        [
            "outside-etc-kubernetes/var/lib/minikube/certs",
            "outside-etc-kubernetes/sni/a.crt",
            "outside-etc-kubernetes/sni/a.key",
            "outside-etc-kubernetes/srv/big/used.yaml",
        ]
    );
    assert_eq!(plan.left_out.len(), 1, "{:?}", plan.left_out);
    let left = &plan.left_out[0];
    assert!(left.starts_with("/srv/big: more than 2000 files"), "{left}");
}

#[test]
fn files_named_in_configuration_are_taken_where_the_pod_sees_them() {
    let (_dir, layout) = with_volumes(&["--authorization-config=/etc/kubernetes/auth.yaml"]);
    write(
        &layout,
        "/etc/kubernetes/auth.yaml",
        "kubeConfigFile: \"/conf/hook.kubeconfig\"\nother: /etc/shadow\n",
    );
    write(&layout, "/etc/shadow", "secret");
    write(&layout, "/etc/kubernetes/conf/hook.kubeconfig", "x");
    let plan = resource_plan(&layout, Profile::Kubeadm).unwrap();
    let all = names(&plan.resources.entries);
    assert!(
        all.contains(&"auth.yaml") && all.contains(&"conf"),
        "{all:?}"
    );
    assert_eq!(plan.resources.elsewhere.len(), 1, "{plan:?}");
}
