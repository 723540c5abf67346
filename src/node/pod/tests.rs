use super::*;
use crate::node::component::{Component, PodRevision};
use std::path::Path;

const JSON: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"etcd","namespace":"openshift-etcd","creationTimestamp":null,"labels":{"app":"etcd","revision":"7"}},"spec":{"volumes":[{"name":"resource-dir","hostPath":{"path":"/etc/kubernetes/static-pod-resources/etcd-pod-7"}},{"name":"cert-dir","hostPath":{"path":"/etc/kubernetes/static-pod-resources/etcd-certs"}},{"name":"tmp","emptyDir":{}}],"containers":[{"name":"etcd","image":"quay.io/x@sha256:1","command":["/bin/sh","-c","exec etcd --name a\u003cb"],"env":[{"name":"A","value":"1"},{"name":"POD","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}],"volumeMounts":[{"name":"resource-dir","mountPath":"/etc/kubernetes/static-pod-resources"},{"name":"cert-dir","mountPath":"/etc/kubernetes/static-pod-certs"}]}]},"status":{}}
"#;

#[test]
fn one_line_json_and_yaml_mean_the_same() {
    let json = PodManifest::parse(JSON.as_bytes()).unwrap();
    let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(JSON).unwrap();
    let yaml = serde_yaml_ng::to_string(&value).unwrap();
    assert!(yaml.lines().count() > 20);
    assert_eq!(PodManifest::parse(yaml.as_bytes()).unwrap(), json);
    let etcd = json.container("etcd").unwrap();
    assert_eq!(etcd.env("A"), Some("1"));
    assert_eq!(etcd.env("POD"), None);
    assert_eq!(etcd.image, "quay.io/x@sha256:1");
    assert_eq!(
        json.revision(Component::Etcd).unwrap(),
        RevisionInUse::Revision(PodRevision {
            component: Component::Etcd,
            number: 7
        })
    );
}

#[test]
fn references_have_the_values_that_the_kubelet_gives_them() {
    let text = r#"
kind: Pod
metadata: {name: etcd, namespace: kube-system, annotations: {a/b: ann}, labels: {l: lab}}
spec:
  containers:
  - name: etcd
    command: [etcd, "--name=$(NODE)", "--peer=https://$(IP):$(PORT)", "--plain=$(URL)"]
    args: ["--escaped=$$(NODE)", "--none=$(NOTHING)", --two, "$(NODE)", "--pod=$(POD).$(NS)", "--m=$(A)$(L)"]
    env:
    - {name: PORT, value: "2380"}
    - {name: URL, value: "https://x:$(PORT)/$(LATER)"}
    - {name: LATER, value: "later"}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: IP, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: status.hostIP}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NS, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: A, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['a/b']"}}}
    - {name: L, valueFrom: {fieldRef: {fieldPath: "metadata.labels['l']"}}}
    - {name: ETCD_NAME, value: "$(NODE)"}
"#;
    let pod = PodManifest::parse(text.as_bytes()).unwrap();
    let here = pod.clone().resolved(&NodeFacts {
        node_name: Some("cp-0".to_owned()),
        host_ip: Some("10.0.0.1".to_owned()),
    });
    let flag = |pod: &PodManifest, name: &str| {
        let value = pod.containers[0].flag(name);
        value.map(str::to_owned)
    };
    for (name, there, value) in [
        ("name", None, "cp-0"),
        ("peer", None, "https://10.0.0.1:2380"),
        (
            "plain",
            Some("https://x:2380/$(LATER)"),
            "https://x:2380/$(LATER)",
        ),
        ("none", Some("$(NOTHING)"), "$(NOTHING)"),
        ("two", None, "cp-0"),
        ("pod", None, "etcd-cp-0.kube-system"),
        ("m", Some("annlab"), "annlab"),
    ] {
        assert_eq!(flag(&pod, name).as_deref(), there, "{name}");
        assert_eq!(flag(&here, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(flag(&here, "escaped").as_deref(), Some("$(NODE)"));
    assert_eq!(pod.containers[0].env("ETCD_NAME"), None);
    assert_eq!(here.containers[0].env("ETCD_NAME"), Some("cp-0"));
    assert_eq!(pod.containers[0].flag_text("name"), Some("$(NODE)"));
    assert!(here.containers[0].runs("etcd"));
}

#[test]
fn a_program_that_a_shell_starts_has_its_flags() {
    let pod = |script: &str| {
        let script = serde_json::to_string(script).unwrap();
        let text = format!(
            "kind: Pod\nmetadata: {{name: etcd}}\nspec: {{containers: [{{name: etcd, command: \
             [/bin/sh, -ec, {script}], env: [{{name: IP, value: 10.0.0.1}}]}}]}}"
        );
        PodManifest::parse(text.as_bytes()).unwrap().containers[0].clone()
    };
    let plain = pod("exec etcd --name=a --data-dir /data \\\n --peer=https://$IP:2380\n");
    assert_eq!(plain.flag("name"), Some("a"));
    assert_eq!(plain.flag("data-dir"), Some("/data"));
    assert_eq!(plain.flag("peer"), Some("https://10.0.0.1:2380"));
    assert!(plain.runs("etcd") && !plain.is_scripted());
    let other = pod("if test -e /x; then exec etcd --name=a; else exec etcd --name=b; fi");
    assert_eq!(other.flag("name"), None);
    assert!(other.is_scripted());
}

#[test]
fn the_revision_is_the_resource_dirs_and_never_the_labels() {
    let other = JSON.replace("etcd-pod-7", "etcd-pod-12");
    let manifest = PodManifest::parse(other.as_bytes()).unwrap();
    assert_eq!(manifest.labels["revision"], "7");
    assert_eq!(
        manifest.revision(Component::Etcd).unwrap(),
        RevisionInUse::Revision(PodRevision {
            component: Component::Etcd,
            number: 12
        })
    );
    for wrong in [
        "kube-apiserver-pod-7",
        "etcd-pod-x",
        "sub/etcd-pod-7",
        "../etcd-pod-7",
    ] {
        let text = JSON.replace("etcd-pod-7", wrong);
        let result = PodManifest::parse(text.as_bytes()).and_then(|m| m.revision(Component::Etcd));
        assert!(result.is_err(), "{wrong}");
    }
}

#[test]
fn a_restore_pod_is_told_apart_from_a_pod_without_revision() {
    let restore = JSON.replace("resource-dir", "backup-dir");
    let manifest = PodManifest::parse(restore.as_bytes()).unwrap();
    assert_eq!(
        manifest.revision(Component::Etcd).unwrap(),
        RevisionInUse::RestorePod {
            label: Some("7".into())
        }
    );
    let none = JSON.replace("resource-dir", "data");
    let manifest = PodManifest::parse(none.as_bytes()).unwrap();
    let text = manifest.revision(Component::Etcd).unwrap_err().to_string();
    assert!(text.contains("resource-dir"), "{text}");
}

#[test]
fn paths_inside_a_container_lead_to_the_node() {
    let manifest = PodManifest::parse(JSON.as_bytes()).unwrap();
    let etcd = manifest.container("etcd").unwrap();
    let at = |path: &str| manifest.node_path(etcd, Path::new(path));
    assert_eq!(
        at("/etc/kubernetes/static-pod-certs/secrets/a.crt"),
        Some("/etc/kubernetes/static-pod-resources/etcd-certs/secrets/a.crt".into())
    );
    assert_eq!(at("/etc/kubernetes/static-pod-certs-other"), None);
    assert_eq!(at("/etc/kubernetes/static-pod-certs/../x"), None);
    assert_eq!(at("relative"), None);
}

#[test]
fn a_container_runs_as_itself_says_or_its_pod() {
    let runs_as = |pod: &str, container: &str| {
        let text = format!(
            "kind: Pod\nmetadata: {{name: a}}\nspec:\n  securityContext: {pod}\n  containers:\n  \
             - {{name: etcd, securityContext: {container}}}\n"
        );
        PodManifest::parse(text.as_bytes()).unwrap().runs_as("etcd")
    };
    assert_eq!(runs_as("{}", "{}"), None);
    assert_eq!(runs_as("{runAsUser: 7}", "{}"), Some((7, None)));
    let both = runs_as("{runAsUser: 7, runAsGroup: 9}", "{runAsUser: 8}");
    assert_eq!(both, Some((8, Some(9))));
}

#[test]
fn flags_in_both_spellings() {
    let container = Container {
        words: [
            "etcd",
            "--name=a",
            "--data-dir",
            "/d",
            "--verbose",
            "--name",
            "b",
            "-peer=c",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Container::default()
    };
    assert_eq!(container.flag("name"), Some("b"));
    assert_eq!(container.flag("data-dir"), Some("/d"));
    assert_eq!(container.flag("verbose"), None);
    assert_eq!(container.flag("peer"), Some("c"));
    assert_eq!(container.flag("absent"), None);
}

#[test]
fn a_file_that_is_not_a_pod_is_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                  c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                  e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    for text in [
        "",
        "{}",
        "[]",
        "kind: Pod",
        "kind: List\nmetadata: {name: a}\nspec: {containers: [{name: a}]}",
        "kind: Pod\nmetadata: {name: a}\nspec: {}",
        "kind: Pod\nmetadata: {}\nspec: {containers: [{name: a}]}",
        "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}], volumes: [{name: v, hostPath: {path: ../x}}]}",
        "\u{0}",
        deep.as_str(),
        laughs,
    ] {
        assert!(PodManifest::parse(text.as_bytes()).is_err(), "{:.40}", text);
    }
    assert!(PodManifest::parse(&vec![b' '; (1 << 20) + 1]).is_err());
    for end in 0..JSON.len() - 2 {
        assert!(
            PodManifest::parse(&JSON.as_bytes()[..end]).is_err(),
            "{end}"
        );
    }
}
