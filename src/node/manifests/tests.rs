use std::os::unix::fs::symlink;

use super::*;
use crate::node::detection::look;
use crate::node::for_tests::node;

fn pod(namespace: &str, name: &str, command: &str) -> String {
    format!(
        "kind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{containers: \
         [{{name: {name}, command: [{command}], volumeMounts: [{{name: d, mountPath: /data}}]}}], \
         volumes: [{{name: d, hostPath: {{path: /var/lib/etcd}}}}]}}\n"
    )
}

fn etcd() -> String {
    pod("kube-system", "etcd", "etcd, --data-dir=/data")
}

fn write(layout: &NodeLayout, path: &str, text: &str) -> PathBuf {
    let path = layout.host(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

const LIVE: &str = "/etc/kubernetes/manifests";
const KEPT: &str = "/etc/kubernetes/.etcd-dr/disable-1/manifests";

#[test]
fn a_node_whose_etcd_is_disabled_is_what_it_was() {
    let api = pod(
        "kube-system",
        "kube-apiserver",
        "kube-apiserver, \"--etcd-servers=https://a.example:2379,https://192.0.2.9:2379\"",
    );
    let api_path = format!("{LIVE}/kube-apiserver.yaml");
    for (name, profile) in [
        ("etcd.yaml", Profile::Kubeadm),
        ("etcd.yml", Profile::Kubeadm),
        ("etcd-pod.yaml", Profile::Openshift),
    ] {
        let pod = match profile {
            Profile::Openshift => pod("openshift-etcd", "etcd", "etcd"),
            _ => etcd(),
        };
        for dir in [LIVE, KEPT] {
            let (_dir, layout) = node(&[(&format!("{dir}/{name}"), &pod)]);
            let found = look(&layout, None).unwrap();
            assert_eq!(found.profile, profile, "{dir}/{name}");
            let current = layout.current_manifest(Component::Etcd, profile).unwrap();
            assert_eq!(current.path, layout.host(format!("{dir}/{name}")));
            assert_eq!(current.live, dir == LIVE);
            assert_eq!(
                layout.manifest(Component::Etcd, profile).unwrap(),
                layout.host(format!("{LIVE}/{name}")),
                "it goes back to where it was"
            );
            if profile == Profile::Kubeadm {
                write(&layout, &api_path, &api);
                assert_eq!(look(&layout, None).unwrap().external_etcd, None, "{dir}");
            }
        }
    }
    let (_dir, layout) = node(&[(&api_path, &api)]);
    assert!(look(&layout, None).unwrap().external_etcd.is_some());
}

#[test]
fn a_manifest_by_another_name_is_known_by_its_pod() {
    let events = pod(
        "kube-system",
        "etcd-events",
        "etcd, --data-dir=/var/lib/events",
    );
    let (_dir, layout) = node(&[
        (&format!("{LIVE}/etcd-events.yaml"), &events),
        (&format!("{LIVE}/.etcd.yaml.swp"), &etcd()),
        (&format!("{LIVE}/a"), "no manifest"),
    ]);
    let find = || layout.current_manifest(Component::Etcd, Profile::Kubeadm);
    assert_eq!(find(), None);
    let other = write(&layout, &format!("{LIVE}/etcd.manifest"), &etcd());
    assert_eq!(find().unwrap().path, other);
    let usual = write(&layout, &format!("{LIVE}/etcd.yaml"), &etcd());
    assert_eq!(find().unwrap().path, usual);
}

#[test]
fn copies_that_the_kubelet_would_start_are_found() {
    let (_dir, layout) = node(&[(&format!("{LIVE}/etcd.yaml"), &etcd())]);
    let data_dir = layout.host("/var/lib/etcd");
    let key = Component::Etcd.pod_key(Profile::Kubeadm).unwrap();
    let rivals = || {
        let pods = [(Component::Etcd, key)];
        let found = layout.rivals(Profile::Kubeadm, &pods, &data_dir).unwrap();
        let names = found.iter().map(|rival| rival.path.file_name().unwrap());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(rivals(), Vec::<String>::new());
    for (name, text) in [
        ("etcd.yaml.bak", etcd()),
        ("etcd.yaml.orig", format!("\u{feff}{}---\n", etcd())),
        ("etcd~", etcd()),
        ("old.json", "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"etcd\",\"namespace\":\"kube-system\"},\"spec\":{\"containers\":[{\"name\":\"x\"}]}}".to_owned()),
        ("second.yaml", pod("kube-system", "etcd-2", "/usr/local/bin/etcd, --data-dir, /data")),
    ] {
        let path = write(&layout, &format!("{LIVE}/{name}"), &text);
        assert_eq!(rivals(), [name]);
        fs::remove_file(path).unwrap();
    }
    for (name, text) in [
        (".etcd.yaml.bak", etcd()),
        ("notes.txt", "etcd.yaml is ansible's".to_owned()),
        (
            "etcd-events.yaml",
            pod(
                "kube-system",
                "etcd-events",
                "etcd, --data-dir=/var/lib/events",
            ),
        ),
        (
            "backup.yaml",
            pod("kube-system", "backup", "etcdctl, snapshot, save, /data/x"),
        ),
        ("etcd-default.yaml", pod("default", "etcd", "sleep")),
        ("folder/etcd.yaml", etcd()),
    ] {
        write(&layout, &format!("{LIVE}/{name}"), &text);
        assert_eq!(rivals(), Vec::<String>::new(), "{name}");
    }
    let elsewhere = write(&layout, "/srv/etcd.yaml", &etcd());
    assert!(elsewhere.is_file());
    symlink("/srv/etcd.yaml", layout.host(format!("{LIVE}/linked"))).unwrap();
    assert_eq!(rivals(), ["linked"]);
}

#[test]
fn a_relative_link_that_was_moved_leads_where_it_did() {
    let (_dir, layout) = node(&[("/etc/kubernetes/gitops/etcd.yaml", &etcd())]);
    fs::create_dir_all(layout.host(LIVE)).unwrap();
    fs::create_dir_all(layout.host(KEPT)).unwrap();
    for link in [LIVE, KEPT].map(|dir| layout.host(dir).join("etcd.yaml")) {
        symlink("../gitops/etcd.yaml", &link).unwrap();
        let current = layout.current_manifest(Component::Etcd, Profile::Kubeadm);
        assert_eq!(current.unwrap().path, link);
        assert_eq!(layout.read_pod(&link).unwrap().name, "etcd");
        assert!(
            layout
                .link_note(&link)
                .unwrap()
                .contains("../gitops/etcd.yaml")
        );
        fs::remove_file(&link).unwrap();
    }
}

#[test]
fn a_node_of_etcd_alone_is_told_from_a_control_plane_without_manifests() {
    let etcd_pod = pod("openshift-etcd", "etcd", "etcd");
    let kubeadm = format!("{LIVE}/etcd.yaml");
    let openshift = format!("{LIVE}/etcd-pod.yaml");
    let resources = "/etc/kubernetes/static-pod-resources";
    for (files, profile, expected) in [
        (vec![&*kubeadm], Profile::Kubeadm, true),
        (
            vec![&*kubeadm, "/etc/kubernetes/pki/ca.crt"],
            Profile::Kubeadm,
            true,
        ),
        (
            vec![&*kubeadm, "/etc/kubernetes/scheduler.conf"],
            Profile::Kubeadm,
            false,
        ),
        (
            vec![&*kubeadm, "/etc/kubernetes/pki/apiserver.crt"],
            Profile::Kubeadm,
            false,
        ),
        (
            vec!["/etc/kubernetes/pki/etcd/ca.crt"],
            Profile::Kubeadm,
            false,
        ),
        (vec![&*openshift], Profile::Openshift, true),
        (
            vec![&*openshift, &format!("{resources}/etcd-certs/x")],
            Profile::Openshift,
            true,
        ),
        (
            vec![&format!("{resources}/etcd-pod-7/x")],
            Profile::Openshift,
            true,
        ),
        (
            vec![&*openshift, &format!("{resources}/kube-apiserver-pod-7/x")],
            Profile::Openshift,
            false,
        ),
        (
            vec![&*openshift, &format!("{LIVE}/kube-scheduler-pod.yaml")],
            Profile::Openshift,
            false,
        ),
    ] {
        let files: Vec<(&str, &str)> = files.iter().map(|f| (*f, etcd_pod.as_str())).collect();
        let (_dir, layout) = node(&files);
        assert_eq!(layout.is_etcd_only(profile), expected, "{files:?}");
    }
}
