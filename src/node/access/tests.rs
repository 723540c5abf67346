use std::fs;

use super::*;
use crate::node::detection::look;

struct Node {
    _dir: tempfile::TempDir,
    layout: NodeLayout,
}

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = NodeLayout::new(dir.path());
        for (path, text) in files {
            let path = layout.host(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { _dir: dir, layout }
    }

    fn access(&self, overrides: &AccessOverrides) -> Result<EtcdAccess> {
        find_access(&self.layout, &look(&self.layout, None)?, overrides)
    }
}

fn told(addresses: &[&str]) -> AccessOverrides {
    AccessOverrides {
        local_addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        ..AccessOverrides::default()
    }
}

fn given<T>(value: T) -> Option<Sourced<T>> {
    Some(Sourced::new(value, "the caller"))
}

const ENV_PATH: &str =
    "/etc/kubernetes/static-pod-resources/etcd-certs/configmaps/etcd-scripts/etcd.env";
const CERTS: &str = "/etc/kubernetes/static-pod-resources/etcd-certs";
const ENV: &str = r#"export ALL_ETCD_ENDPOINTS="https://10.0.0.1:2379,https://10.0.0.9:2379,https://[fd00::2]:12379"
export ETCDCTL_CACERT="/etc/kubernetes/static-pod-certs/configmaps/etcd-all-bundles/server-ca-bundle.crt"
export ETCDCTL_CERT="/etc/kubernetes/static-pod-certs/secrets/etcd-all-certs/etcd-peer-master-0.crt"
export ETCDCTL_ENDPOINTS="https://10.0.0.1:2379,https://[fd00::2]:12379"
export ETCDCTL_KEY="/etc/kubernetes/static-pod-certs/secrets/etcd-all-certs/etcd-peer-master-0.key"
export ETCD_DATA_DIR="/var/lib/etcd"
export NODE_master_0_ETCD_NAME="master-0"
export NODE_master_0_IP="10.0.0.1"
export NODE_master_1_ETCD_NAME="master-1"
export NODE_master_1_IP="[fd00::2]"
export NODE_master_2_ETCD_NAME="master-2"
export NODE_master_2_IP="10.0.0.3"
"#;

fn at(path: &str) -> String {
    format!("{CERTS}/{path}")
}

fn openshift(certs: &[&str]) -> Node {
    let paths: Vec<String> = certs.iter().map(|path| at(path)).collect();
    let mut files = vec![(ENV_PATH, ENV)];
    files.extend(paths.iter().map(|path| (path.as_str(), "x")));
    Node::new(&files)
}

const CA: &str = "configmaps/etcd-all-bundles/server-ca-bundle.crt";
const PEER: [&str; 2] = [
    "secrets/etcd-all-certs/etcd-peer-master-0.crt",
    "secrets/etcd-all-certs/etcd-peer-master-0.key",
];

fn tls(access: &EtcdAccess) -> (PathBuf, PathBuf, PathBuf) {
    let tls = access.tls.clone().unwrap();
    let id = tls.identity.unwrap();
    (tls.ca.unwrap().value, id.cert.value, id.key.value)
}

#[test]
fn openshift_tells_everything() {
    let node = openshift(&[CA, PEER[0], PEER[1]]);
    let access = node.access(&told(&["127.0.0.1", "10.0.0.1"])).unwrap();
    assert_eq!(access.endpoint.value, "https://10.0.0.1:2379");
    assert_eq!(
        access.member_endpoints.value,
        ["https://10.0.0.1:2379", "https://[fd00::2]:12379"]
    );
    assert_eq!(access.member_name.as_ref().unwrap().value, "master-0");
    assert_eq!(
        access.peer_urls.as_ref().unwrap().value,
        ["https://10.0.0.1:2380"]
    );
    assert_eq!(
        access.data_dir.as_ref().unwrap().value,
        node.layout.host("/var/lib/etcd")
    );
    let host = |path: &str| node.layout.host(at(path));
    assert_eq!(tls(&access), (host(CA), host(PEER[0]), host(PEER[1])));
    assert_eq!(
        access.tls.unwrap().ca.unwrap().source,
        format!("ETCDCTL_CACERT in {ENV_PATH}")
    );
}

#[test]
fn the_local_members_own_url_is_used_in_both_families() {
    let node = openshift(&[CA, PEER[0], PEER[1]]);
    let access = node.access(&told(&["fd00::2"])).unwrap();
    assert_eq!(access.endpoint.value, "https://[fd00::2]:12379");
    assert_eq!(access.peer_urls.unwrap().value, ["https://[fd00::2]:2380"]);
    // A member that the endpoints do not list yet.
    let access = node.access(&told(&["10.0.0.3"])).unwrap();
    assert_eq!(access.endpoint.value, "https://10.0.0.3:2379");
    // The node's name decides over addresses.
    let mut by_name = told(&["10.0.0.1"]);
    by_name.node = given("master-2".to_owned());
    assert_eq!(
        node.access(&by_name).unwrap().endpoint.value,
        "https://10.0.0.3:2379"
    );
    by_name.node = given("master-9".to_owned());
    assert_eq!(
        node.access(&by_name).unwrap_err().refusal(),
        Some("local-member-unknown")
    );
    let failure = node.access(&told(&["10.9.9.9"])).unwrap_err();
    assert_eq!(failure.refusal(), Some("local-member-unknown"));
    assert!(failure.to_string().contains(ENV_PATH), "{failure}");
}

#[test]
fn older_names_of_certificates_are_found() {
    let node = openshift(&[
        "configmaps/etcd-serving-ca/ca-bundle.crt",
        "secrets/etcd-all-peer/etcd-peer-master-0.crt",
        "secrets/etcd-all-peer/etcd-peer-master-0.key",
    ]);
    let access = node.access(&told(&["10.0.0.1"])).unwrap();
    let (ca, cert, _) = tls(&access);
    assert!(ca.ends_with("etcd-serving-ca/ca-bundle.crt"));
    assert!(cert.ends_with("etcd-all-peer/etcd-peer-master-0.crt"));
    // Half of a pair is not an identity.
    let node = openshift(&[CA, PEER[0]]);
    let failure = node.access(&told(&["10.0.0.1"])).unwrap_err();
    assert!(
        failure.facts().contains(&Fact::Missing("cert")),
        "{failure}"
    );
    assert!(
        failure.to_string().contains("etcd-all-serving"),
        "{failure}"
    );
    let node = openshift(&PEER);
    let failure = node.access(&told(&["10.0.0.1"])).unwrap_err();
    assert!(failure.facts().contains(&Fact::Missing("ca")));
}

#[test]
fn the_configuration_goes_first_and_is_mapped_too() {
    let node = openshift(&[CA, PEER[0], PEER[1], "secrets/mine.crt", "secrets/mine.key"]);
    let mut overrides = told(&["10.0.0.1"]);
    overrides.cert = given("/etc/kubernetes/static-pod-certs/secrets/mine.crt".into());
    let failure = node.access(&overrides).unwrap_err();
    assert!(failure.facts().contains(&Fact::Missing("key")));
    overrides.key = given("/etc/kubernetes/static-pod-certs/secrets/mine.key".into());
    let access = node.access(&overrides).unwrap();
    let (ca, cert, key) = tls(&access);
    assert_eq!(ca, node.layout.host(at(CA)));
    assert_eq!(cert, node.layout.host(at("secrets/mine.crt")));
    assert_eq!(key, node.layout.host(at("secrets/mine.key")));
    overrides.ca = given("/etc/kubernetes/static-pod-certs/absent.crt".into());
    let failure = node.access(&overrides).unwrap_err();
    assert_eq!(failure.kind(), Kind::Usage);
    assert!(failure.to_string().contains("absent.crt"));
}

#[test]
fn of_several_endpoints_the_local_one_is_taken() {
    let node = openshift(&[CA, PEER[0], PEER[1]]);
    let mut overrides = told(&["10.0.0.1"]);
    let list = |urls: &[&str]| given(urls.iter().map(|u| (*u).to_owned()).collect::<Vec<_>>());
    overrides.endpoints = list(&["https://[fd00::2]:2379", "https://10.0.0.1:3379"]);
    let access = node.access(&overrides).unwrap();
    assert_eq!(access.endpoint.value, "https://10.0.0.1:3379");
    assert_eq!(access.member_endpoints.value.len(), 2);
    overrides.endpoints = list(&["https://10.0.0.7:2379", "https://10.0.0.8:2379"]);
    let failure = node.access(&overrides).unwrap_err();
    assert_eq!(failure.refusal(), Some("local-endpoint-unknown"));
    overrides.endpoints = list(&["https://10.0.0.7:2379"]);
    assert_eq!(
        node.access(&overrides).unwrap().endpoint.value,
        "https://10.0.0.7:2379"
    );
    overrides.endpoints = list(&["https://10.0.0.1:2379"]);
    assert_eq!(
        node.access(&overrides)
            .unwrap()
            .member_endpoints
            .value
            .len(),
        2
    );
    overrides.endpoints = list(&["nonsense"]);
    assert_eq!(node.access(&overrides).unwrap_err().kind(), Kind::Usage);
    // With a configured endpoint, an unknown local member does not matter.
    overrides.local_addresses.clear();
    overrides.endpoints = list(&["https://10.0.0.7:2379", "https://localhost:2379"]);
    overrides.cert = given(node.layout.host(at(PEER[0])));
    overrides.key = given(node.layout.host(at(PEER[1])));
    let access = node.access(&overrides).unwrap();
    assert_eq!(access.endpoint.value, "https://localhost:2379");
    assert_eq!(access.member_name, None);
}

#[test]
fn the_live_pod_is_read_if_etcd_env_is_broken() {
    let env: Vec<String> = EnvPairs::of(ENV)
        .map(|(name, value)| format!("{{\"name\":{name:?},\"value\":{value}}}"))
        .collect();
    let pod = format!(
        "{{\"kind\":\"Pod\",\"metadata\":{{\"name\":\"etcd\"}},\"spec\":{{\"volumes\":[{{\"name\":\
         \"data-dir\",\"hostPath\":{{\"path\":\"/srv/etcd\"}}}}],\"containers\":[{{\"name\":\"etcd\",\
         \"env\":[{}],\"volumeMounts\":[{{\"name\":\"data-dir\",\"mountPath\":\"/var/lib/etcd\"}}]}}]}}}}",
        env.join(",")
    );
    let mut files = vec![
        (ENV_PATH.to_owned(), "export BROKEN".to_owned()),
        ("/etc/kubernetes/manifests/etcd-pod.yaml".to_owned(), pod),
    ];
    files.extend([CA, PEER[0], PEER[1]].map(|path| (at(path), "x".to_owned())));
    let borrowed: Vec<(&str, &str)> = files
        .iter()
        .map(|(p, t)| (p.as_str(), t.as_str()))
        .collect();
    let node = Node::new(&borrowed);
    let access = node.access(&told(&["10.0.0.1"])).unwrap();
    assert_eq!(access.endpoint.value, "https://10.0.0.1:2379");
    assert_eq!(
        access.data_dir.as_ref().unwrap().value,
        node.layout.host("/srv/etcd")
    );
    assert!(
        access.notes.iter().any(|note| note.contains("line 1")),
        "{:?}",
        access.notes
    );
    assert!(
        access.endpoint.source.contains("live etcd pod"),
        "{}",
        access.endpoint.source
    );

    let bare = Node::new(&[(ENV_PATH, "export BROKEN")]);
    let failure = bare.access(&told(&["10.0.0.1"])).unwrap_err();
    assert!(failure.to_string().contains("line 1"), "{failure}");
    assert!(failure.facts().contains(&Fact::Missing("endpoint")));
}

struct EnvPairs;

impl EnvPairs {
    fn of(text: &str) -> impl Iterator<Item = (&str, &str)> {
        text.lines().map(|line| {
            line.strip_prefix("export ")
                .unwrap()
                .split_once('=')
                .unwrap()
        })
    }
}

fn kubeadm_pod(urls: (&str, &str)) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: etcd
  namespace: kube-system
spec:
  containers:
  - name: etcd
    image: registry.k8s.io/etcd:3.5.16-0
    command:
    - etcd
    - --advertise-client-urls={}
    - --listen-client-urls={}
    args:
    - --name
    - node-a
    - --data-dir=/var/lib/etcd
    - --initial-advertise-peer-urls=https://10.0.0.1:2380
    - --cert-file=/etc/kubernetes/pki/etcd/server.crt
    - --key-file=/etc/kubernetes/pki/etcd/server.key
    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
    volumeMounts:
    - {{mountPath: /var/lib/etcd, name: etcd-data}}
    - {{mountPath: /etc/kubernetes/pki/etcd, name: etcd-certs}}
  volumes:
  - {{hostPath: {{path: /srv/pki, type: DirectoryOrCreate}}, name: etcd-certs}}
  - {{hostPath: {{path: /data/etcd, type: DirectoryOrCreate}}, name: etcd-data}}
",
        urls.0, urls.1
    )
}

const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

#[test]
fn kubeadm_tells_everything_by_flags() {
    let pod = kubeadm_pod((
        "https://10.0.0.1:2379",
        "https://127.0.0.1:2379,https://10.0.0.1:2379",
    ));
    let node = Node::new(&[
        (MANIFEST, &pod),
        ("/srv/pki/ca.crt", "x"),
        ("/srv/pki/healthcheck-client.crt", "x"),
        ("/srv/pki/healthcheck-client.key", "x"),
    ]);
    let access = node.access(&told(&[])).unwrap();
    assert_eq!(access.endpoint.value, "https://127.0.0.1:2379");
    assert_eq!(access.member_endpoints.value, ["https://10.0.0.1:2379"]);
    assert_eq!(access.member_name.as_ref().unwrap().value, "node-a");
    assert_eq!(
        access.peer_urls.as_ref().unwrap().value,
        ["https://10.0.0.1:2380"]
    );
    assert_eq!(
        access.data_dir.as_ref().unwrap().value,
        node.layout.host("/data/etcd")
    );
    let (ca, cert, _) = tls(&access);
    assert_eq!(ca, node.layout.host("/srv/pki/ca.crt"));
    assert_eq!(cert, node.layout.host("/srv/pki/healthcheck-client.crt"));
}

#[test]
fn what_the_kubelet_fills_in_is_filled_in() {
    let pod = kubeadm_pod((
        "https://$(IP):2379",
        "https://127.0.0.1:2379,https://$(IP):2379",
    ))
    .replace("    - node-a\n", "    - $(NODE)\n")
    .replace("https://10.0.0.1:2380", "https://$(IP):$(PORT)")
    .replace(
        "    image:",
        "    env:\n    - {name: PORT, value: '2380'}\n    - {name: NODE, valueFrom: {fieldRef: \
         {fieldPath: spec.nodeName}}}\n    - {name: IP, valueFrom: {fieldRef: {fieldPath: \
         status.hostIP}}}\n    image:",
    );
    let files = [
        (MANIFEST, pod.as_str()),
        ("/etc/hostname", "node-a"),
        ("/srv/pki/ca.crt", "x"),
        ("/srv/pki/healthcheck-client.crt", "x"),
        ("/srv/pki/healthcheck-client.key", "x"),
    ];
    let node = Node::new(&files);
    let access = node.access(&told(&["127.0.0.1", "10.0.0.1"])).unwrap();
    assert_eq!(access.endpoint.value, "https://127.0.0.1:2379");
    assert_eq!(access.own_name().unwrap(), "node-a");
    assert_eq!(access.own_peer_urls().unwrap(), ["https://10.0.0.1:2380"]);
    // Of two addresses nothing tells which is the host's: it is not known, and never as written.
    let access = node.access(&told(&["10.0.0.1", "10.0.0.2"])).unwrap();
    assert_eq!(access.endpoint.value, "https://127.0.0.1:2379");
    assert_eq!(access.peer_urls, None);
    let notes = access.notes.join("\n");
    assert!(
        notes.contains("--initial-advertise-peer-urls=https://$(IP):2380"),
        "{notes}"
    );
}

#[test]
fn etcds_configuration_file_is_read_in_place_of_flags() {
    let pod = kubeadm_pod(("https://10.0.0.9:2379", "https://10.0.0.9:2379")).replace(
        "    args:\n",
        "    args:\n    - --config-file=/etc/kubernetes/pki/etcd/etcd.conf.yaml\n",
    );
    let config = "name: node-b\ndata-dir: /var/lib/etcd\nlisten-client-urls: https://127.0.0.1:2379\n\
                  initial-advertise-peer-urls: https://10.0.0.1:2380\nwal-dir: /wal\n\
                  client-transport-security: {trusted-ca-file: /etc/kubernetes/pki/etcd/other.crt, \
                  client-cert-auth: true}\n";
    let node = Node::new(&[
        (MANIFEST, &pod),
        ("/srv/pki/etcd.conf.yaml", config),
        ("/srv/pki/other.crt", "x"),
        ("/srv/pki/healthcheck-client.crt", "x"),
        ("/srv/pki/healthcheck-client.key", "x"),
    ]);
    let access = node.access(&told(&[])).unwrap();
    assert_eq!(access.endpoint.value, "https://127.0.0.1:2379");
    assert_eq!(access.own_name().unwrap(), "node-b");
    assert_eq!(access.own_peer_urls().unwrap(), ["https://10.0.0.1:2380"]);
    assert_eq!(
        access.data_dir.as_ref().unwrap().value,
        node.layout.host("/data/etcd")
    );
    assert_eq!(access.wal_dir.as_deref(), Some("/wal"));
    assert_eq!(tls(&access).0, node.layout.host("/srv/pki/other.crt"));
}

#[test]
fn kubeadm_falls_back_to_the_servers_identity_and_the_advertised_url() {
    let pod = kubeadm_pod(("https://[fd00::1]:2379", "https://[::]:2379"));
    let node = Node::new(&[
        (MANIFEST, &pod),
        ("/srv/pki/ca.crt", "x"),
        ("/srv/pki/server.crt", "x"),
        ("/srv/pki/server.key", "x"),
    ]);
    let access = node.access(&told(&[])).unwrap();
    assert_eq!(access.endpoint.value, "https://[fd00::1]:2379");
    assert_eq!(tls(&access).1, node.layout.host("/srv/pki/server.crt"));
    let pod = kubeadm_pod(("http://10.0.0.1:2379", "http://127.0.0.1:2379"));
    let node = Node::new(&[(MANIFEST, &pod)]);
    assert_eq!(node.access(&told(&[])).unwrap().tls, None);
}

#[test]
fn external_etcd_needs_an_endpoint_and_has_the_api_servers_identity() {
    let api = "kind: Pod\nmetadata: {name: kube-apiserver}\nspec: {containers: [{name: kube-apiserver, \
               command: [kube-apiserver, --etcd-servers=https://10.0.0.8:2379, \
               --etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt, \
               --etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt, \
               --etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key]}]}";
    let node = Node::new(&[
        ("/etc/kubernetes/manifests/kube-apiserver.yaml", api),
        ("/etc/kubernetes/pki/etcd/ca.crt", "x"),
        ("/etc/kubernetes/pki/apiserver-etcd-client.crt", "x"),
        ("/etc/kubernetes/pki/apiserver-etcd-client.key", "x"),
    ]);
    let failure = node.access(&told(&[])).unwrap_err();
    assert_eq!(failure.refusal(), Some("external-etcd"));
    assert!(
        failure
            .facts()
            .contains(&Fact::Candidates(vec!["https://10.0.0.8:2379".into()]))
    );
    let mut with = told(&[]);
    with.endpoints = given(vec!["https://10.0.0.8:2379".to_owned()]);
    let access = node.access(&with).unwrap();
    assert!(tls(&access).1.ends_with("apiserver-etcd-client.crt"));
}

#[test]
fn a_bare_etcd_is_known_by_the_caller_alone() {
    let node = Node::new(&[("/certs/ca.crt", "x")]);
    let failure = node.access(&told(&[])).unwrap_err();
    assert!(failure.facts().contains(&Fact::Missing("endpoint")));
    let mut with = told(&[]);
    with.endpoints = given(vec!["https://10.0.0.8:2379".to_owned()]);
    let files = node.access(&with).unwrap().tls.unwrap();
    assert_eq!(
        files,
        TlsFiles {
            ca: None,
            identity: None
        }
    );
    with.ca = given("/certs/ca.crt".into());
    with.data_dir = given("/data".into());
    let access = node.access(&with).unwrap();
    assert_eq!(
        access.tls.unwrap().ca.unwrap().value,
        node.layout.host("/certs/ca.crt")
    );
    assert_eq!(access.data_dir.unwrap().value, node.layout.host("/data"));
}
