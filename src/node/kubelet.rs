//! What the node's kubelet was configured with: flags in its units and files of variables, then
//! its configuration file, as the kubelet itself lets flags win (Kubernetes' reference of
//! KubeletConfiguration).

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use x509_parser::pem::Pem;

use super::endpoint::{Endpoint, initial_cluster};
use super::files::{list, read_bounded};
use super::layout::NodeLayout;
use super::overrides::{AccessOverrides, Sourced};
use super::pod::{NodeFacts, PodManifest};
use crate::error::Result;
use crate::sys::yaml;

/// Longer files of the kubelet's are not read.
const MAX_BYTES: u64 = 1 << 20;

/// The fields of a KubeletConfiguration that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KubeletConfiguration {
    kind: Option<String>,
    pub(super) container_runtime_endpoint: Option<String>,
    pub(super) static_pod_path: Option<String>,
}

/// A field of the configuration.
pub(super) type Field = fn(&KubeletConfiguration) -> Option<&String>;

/// The folder of static pods, as a node path, where the kubelet is configured with one.
pub(super) fn static_pod_path(layout: &NodeLayout) -> Option<PathBuf> {
    let mut looked = Vec::new();
    let field: Field = |config| config.static_pod_path.as_ref();
    let (path, file) = setting(layout, "--pod-manifest-path", Some(field), &mut looked)?;
    let path = PathBuf::from(path);
    if path.is_absolute() {
        return Some(path);
    }
    // The kubelet takes a relative path from where its configuration is.
    let file = layout.node_path(&file);
    Some(file.parent().unwrap_or(Path::new("/")).join(path))
}

/// The names that the node may go by in Kubernetes, by the kubelet's own files, the most certain
/// first.
pub fn node_names(layout: &NodeLayout) -> Vec<String> {
    let found = named(layout).into_iter();
    found.map(|name| name.value).collect()
}

/// The names that the node may go by and where each was found: what the kubelet is configured to call
/// it, what its certificate calls it, the machine's own name. In lower case, as the kubelet has
/// them.
pub(super) fn named(layout: &NodeLayout) -> Vec<Sourced<String>> {
    let mut found: Vec<Sourced<String>> = Vec::new();
    let mut add = |name: &str, source: String| {
        let name = name.trim().to_lowercase();
        if !name.is_empty() && name != "localhost" && found.iter().all(|f| f.value != name) {
            found.push(Sourced::new(name, source));
        }
    };
    let flag = "--hostname-override";
    if let Some((name, file)) = flag_of(layout, flag, &mut Vec::new()) {
        add(
            &name,
            format!("{flag} in {}", layout.node_path(&file).display()),
        );
    }
    let certificate = layout.kubelet_certificate();
    if let Ok(Some(bytes)) = read(layout, &certificate)
        && let Some(name) = node_of_certificate(&bytes)
    {
        add(
            &name,
            format!("{}", layout.node_path(&certificate).display()),
        );
    }
    let file = layout.hostname();
    if let Ok(Some(bytes)) = read(layout, &file) {
        let name = String::from_utf8_lossy(&bytes).into_owned();
        add(&name, layout.node_path(&file).display().to_string());
    }
    found
}

/// What the kubelet fills into the fields of etcd's pod: what the caller configured, what the
/// kubelet's own files say, or what etcd's manifest says of this machine's addresses.
pub(super) fn facts(
    layout: &NodeLayout,
    overrides: &AccessOverrides,
    pod: &PodManifest,
) -> NodeFacts {
    let container = pod.container("etcd").or(pod.containers.first());
    let members = container.and_then(|container| container.flag("initial-cluster"));
    let known = KnownOfNode {
        layout,
        overrides,
        members: members.map(initial_cluster).unwrap_or_default(),
    };
    let node_name = known.node_name();
    let host_ip = known
        .flag_node_ip()
        .or_else(|| known.member_ip(node_name.as_deref()?))
        .or_else(|| address_in(pod.annotations.get(ADVERTISED)?))
        .or_else(|| known.only_address());
    NodeFacts {
        node_name,
        host_ip: host_ip.map(|ip| ip.to_string()),
    }
}

/// What tells this node from others.
struct KnownOfNode<'a> {
    layout: &'a NodeLayout,
    overrides: &'a AccessOverrides,
    /// etcd's `--initial-cluster`.
    members: Vec<(String, String)>,
}

impl KnownOfNode<'_> {
    /// Of several names the one that etcd has; no member of that name may be another machine's.
    fn node_name(&self) -> Option<String> {
        let configured = self.overrides.node.iter().map(|name| name.value.clone());
        let names = named(self.layout).into_iter().map(|name| name.value);
        let names: Vec<String> = configured.chain(names).collect();
        let is_member = |name: &&String| self.members.iter().any(|(member, _)| member == *name);
        let by_name = names.iter().find(is_member).cloned();
        by_name
            .or_else(|| {
                let own = self.members.iter().find(|(_, url)| self.is_here(url));
                own.map(|(member, _)| member.clone())
            })
            .or_else(|| names.first().cloned())
    }

    fn is_here(&self, url: &str) -> bool {
        let own = self.overrides.local_addresses.iter();
        address_in(url).is_some_and(|ip| own.map(IpAddr::to_canonical).any(|own| own == ip))
    }

    /// The kubelet's `--node-ip`.
    fn flag_node_ip(&self) -> Option<IpAddr> {
        let (list, _) = flag_of(self.layout, "--node-ip", &mut Vec::new())?;
        // A node with both families lists two addresses, the primary one first.
        let ip: IpAddr = list.split(',').next()?.parse().ok()?;
        (!ip.is_unspecified()).then_some(ip)
    }

    /// The address at which etcd's peers find the member of this name.
    fn member_ip(&self, name: &str) -> Option<IpAddr> {
        let (_, url) = self.members.iter().find(|(member, _)| member == name)?;
        address_in(url)
    }

    /// The machine's address, where it has only one that others can use.
    fn only_address(&self) -> Option<IpAddr> {
        let usable = |ip: &&IpAddr| !ip.is_loopback() && !is_link_local(ip);
        let mut own = self.overrides.local_addresses.iter().filter(usable);
        own.next().copied().filter(|_| own.next().is_none())
    }
}

fn address_in(url: &str) -> Option<IpAddr> {
    Endpoint::parse(url).and_then(|endpoint| endpoint.ip())
}

/// kubeadm's annotation of etcd's pod (kubeadm, `cmd/kubeadm/app/constants`).
const ADVERTISED: &str = "kubeadm.kubernetes.io/etcd.advertise-client-urls";

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The node that a kubelet's client certificate is made out to: `CN=system:node:NAME`
/// (Kubernetes' documentation of node authorization).
fn node_of_certificate(pem: &[u8]) -> Option<String> {
    let block = Pem::iter_from_buffer(pem)
        .flatten()
        .find(|block| block.label == "CERTIFICATE")?;
    let certificate = block.parse_x509().ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    let name = name.as_str().ok()?.strip_prefix("system:node:")?;
    Some(name.to_owned())
}

/// What the kubelet is configured with, and by which file (a local path). A file that is there and cannot be
/// read is noted as such among those looked at.
pub(super) fn setting(
    layout: &NodeLayout,
    flag: &str,
    field: Option<Field>,
    looked: &mut Vec<String>,
) -> Option<(String, PathBuf)> {
    if let Some(found) = flag_of(layout, flag, looked) {
        return Some(found);
    }
    let field = field?;
    for file in configs(layout) {
        let value = read(layout, &file)
            .and_then(|bytes| Ok(bytes.map(|bytes| parse(&bytes)).transpose()?.flatten()))
            .map(|config| config.and_then(|config| field(&config).cloned()));
        let found = value.map(|value| value.filter(|value| !value.is_empty()));
        if let Some(value) = note(layout, &file, found, looked) {
            return Some((value, file));
        }
    }
    None
}

/// A flag of the kubelet's, in the files that name its flags.
fn flag_of(layout: &NodeLayout, flag: &str, looked: &mut Vec<String>) -> Option<(String, PathBuf)> {
    let mut texts = layout.kubelet_flags();
    for dir in layout.kubelet_drop_ins() {
        match list(&dir) {
            Ok(files) => texts.extend(files),
            Err(failure) => looked.push(failure.to_string()),
        }
    }
    for file in texts {
        let found = read(layout, &file)
            .map(|bytes| bytes.and_then(|bytes| flag_in(flag, &String::from_utf8_lossy(&bytes))));
        if let Some(value) = note(layout, &file, found, looked) {
            return Some((value, file));
        }
    }
    None
}

/// The configuration files: the one that `--config` names, or the usual ones.
fn configs(layout: &NodeLayout) -> Vec<PathBuf> {
    match flag_of(layout, "--config", &mut Vec::new()) {
        Some((path, _)) if path.starts_with('/') => vec![layout.host(path)],
        _ => layout.kubelet_configs().to_vec(),
    }
}

/// A file's bytes; nothing if there is no file.
fn read(layout: &NodeLayout, file: &Path) -> Result<Option<Vec<u8>>, String> {
    let read = layout
        .resolve(layout.node_path(file))
        .and_then(|path| read_bounded(&path, MAX_BYTES));
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(failure) if failure.io_kind() == Some(io::ErrorKind::NotFound) => Ok(None),
        Err(failure) => Err(failure.to_string()),
    }
}

fn note(
    layout: &NodeLayout,
    file: &Path,
    found: Result<Option<String>, String>,
    looked: &mut Vec<String>,
) -> Option<String> {
    let path = layout.node_path(file);
    let path = path.display();
    match found {
        Ok(Some(value)) => return Some(value),
        Ok(None) => looked.push(path.to_string()),
        Err(why) => looked.push(format!("{path} (unreadable: {why})")),
    }
    None
}

/// A flag's value in a text of shell variables or in a systemd unit; of several the last. One
/// that is a variable itself tells nothing.
fn flag_in(flag: &str, text: &str) -> Option<String> {
    let mut found = None;
    for line in text.lines() {
        let line = line.trim_start();
        if line.starts_with(['#', ';']) {
            continue;
        }
        for (at, _) in line.match_indices(flag) {
            let rest = line.get(at + flag.len()..).unwrap_or_default();
            let Some(rest) = rest.strip_prefix(['=', ' ', '\t']) else {
                continue;
            };
            let value = rest.trim_start().trim_start_matches(['"', '\'']);
            let end = |c: char| c.is_whitespace() || ['"', '\'', '\\'].contains(&c);
            let value = value.split(end).next().unwrap_or_default();
            if !value.is_empty() && !value.contains('$') {
                found = Some(value.to_owned());
            }
        }
    }
    found
}

/// A KubeletConfiguration; nothing for anything else.
fn parse(bytes: &[u8]) -> Result<Option<KubeletConfiguration>, String> {
    let config: KubeletConfiguration = yaml::from_slice(bytes).map_err(|e| e.to_string())?;
    let is_one = config.kind.as_deref() == Some("KubeletConfiguration");
    Ok(is_one.then_some(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_fills_in_is_found() {
        let pod = |more: &str| {
            let text = format!(
                "kind: Pod\nmetadata: {{name: etcd, annotations: {{{more}}}}}\nspec: {{containers: \
                 [{{name: etcd, command: [etcd, \"--initial-cluster=cp-0=https://10.9.0.1:2380,\
                 cp-1=https://10.9.0.2:2380\"]}}]}}"
            );
            PodManifest::parse(text.as_bytes()).unwrap()
        };
        let bare = "kind: Pod\nmetadata: {name: etcd}\nspec: {containers: [{name: etcd}]}";
        let bare = PodManifest::parse(bare.as_bytes()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let layout = NodeLayout::new(dir.path());
        let told = |addresses: &[&str]| AccessOverrides {
            local_addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ..AccessOverrides::default()
        };
        let found = |overrides: &AccessOverrides, pod: &PodManifest| {
            let facts = facts(&layout, overrides, pod);
            (
                facts.node_name.unwrap_or_default(),
                facts.host_ip.unwrap_or_default(),
            )
        };
        let is = |name: &str, ip: &str| (name.to_owned(), ip.to_owned());
        assert_eq!(found(&told(&["127.0.0.1"]), &bare), is("", ""));
        assert_eq!(
            found(&told(&["127.0.0.1", "10.9.0.7"]), &bare),
            is("", "10.9.0.7")
        );
        assert_eq!(found(&told(&["10.9.0.7", "10.9.0.8"]), &bare), is("", ""));
        assert_eq!(
            found(&told(&["10.9.0.2", "10.8.0.1"]), &pod("")),
            is("cp-1", "10.9.0.2")
        );
        let annotated = pod(&format!("{ADVERTISED}: 'https://10.9.0.5:2379'"));
        assert_eq!(found(&told(&[]), &annotated), is("", "10.9.0.5"));
        let write = |path: &str, text: &str| {
            let path = layout.host(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("/etc/hostname", "Machine\n");
        assert_eq!(
            found(&told(&["10.9.0.2"]), &pod("")),
            is("cp-1", "10.9.0.2")
        );
        assert_eq!(found(&told(&[]), &pod("")), is("machine", ""));
        write("/etc/hostname", "cp-0\n");
        assert_eq!(found(&told(&[]), &pod("")), is("cp-0", "10.9.0.1"));
        write(
            "/var/lib/kubelet/kubeadm-flags.env",
            "X=\"--hostname-override=CP-1 --node-ip=fd00::7,10.0.0.1\"\n",
        );
        assert_eq!(found(&told(&[]), &pod("")), is("cp-1", "fd00::7"));
        let named = AccessOverrides {
            node: Some(Sourced::new("cp-0".to_owned(), "--node-name")),
            ..AccessOverrides::default()
        };
        assert_eq!(found(&named, &pod("")).0, "cp-0");
    }

    #[test]
    fn static_pods_are_where_the_kubelet_is_told() {
        let default = "/etc/kubernetes/manifests";
        let config = "/var/lib/kubelet/config.yaml";
        let flags = "/var/lib/kubelet/kubeadm-flags.env";
        let told = |path: &str| format!("kind: KubeletConfiguration\nstaticPodPath: {path}\n");
        for (files, expected) in [
            (vec![], default),
            (vec![(config, told("\"\""))], default),
            (
                vec![(config, "kind: Config\nstaticPodPath: /x\n".to_owned())],
                default,
            ),
            (
                vec![(config, told("/etc/kubernetes/static"))],
                "/etc/kubernetes/static",
            ),
            (vec![(config, told("pods"))], "/var/lib/kubelet/pods"),
            (
                vec![
                    (config, told("/a")),
                    (
                        flags,
                        "KUBELET_KUBEADM_ARGS=\"--pod-manifest-path=/b --v=2\"\n".to_owned(),
                    ),
                ],
                "/b",
            ),
            (
                vec![
                    (config, told("/a")),
                    ("/etc/other.yaml", told("/c")),
                    (
                        "/etc/systemd/system/kubelet.service",
                        "ExecStart=/usr/bin/kubelet --config-dir=/y --config=/etc/other.yaml\n"
                            .to_owned(),
                    ),
                ],
                "/c",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let layout = NodeLayout::new(dir.path());
            for (path, text) in &files {
                let path = layout.host(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            assert_eq!(layout.manifests(), layout.host(expected), "{files:?}");
        }
    }
}
