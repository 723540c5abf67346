//! What a kubeadm control-plane node says about its etcd: the flags in `manifests/etcd.yaml`, or
//! the variables that etcd reads in their place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::component::Component;
use super::detection::{Detection, ExternalEtcd};
use super::endpoint::{Endpoint, initial_cluster, split_list};
use super::evidence::{Identity, NodeAccess};
use super::files::read_bounded;
use super::kubelet;
use super::layout::NodeLayout;
use super::overrides::{AccessOverrides, Sourced};
use super::pod::{self, Container, PodManifest};
use super::profile::Profile;
use super::wanted::{Use, WantedCertificate};
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::sys::yaml;

/// A manifest, its main container, and where they were read.
struct Live {
    pod: PodManifest,
    container: Container,
    source: String,
    config: Option<Config>,
}

impl Live {
    fn read(
        layout: &NodeLayout,
        component: Component,
        overrides: &AccessOverrides,
    ) -> Result<Self> {
        let Some(current) = layout.current_manifest(component, Profile::Kubeadm) else {
            let usual = layout.manifest(component, Profile::Kubeadm);
            let path = usual.unwrap_or_else(|| layout.manifests());
            let failure = Failure::new(Kind::Usage, "there is no such file");
            let doing = format!("reading {}", path.display());
            return Err(failure.doing(doing).with(Fact::Moved(path)));
        };
        let path = current.path;
        let doing = |e: Failure| e.doing(format!("reading {}", path.display()));
        let pod = layout.read_pod(&path)?;
        let facts = kubelet::facts(layout, overrides, &pod);
        let pod = pod.resolved(&facts);
        let container = pod
            .container(component.name())
            .or(pod.containers.first())
            .cloned();
        let container = container
            .ok_or_else(|| Failure::new(Kind::Unexpected, "expected a container, found none"))
            .map_err(doing)?;
        let source = layout.node_path(&path).display().to_string();
        let mut live = Self {
            pod,
            container,
            source,
            config: None,
        };
        let config = live
            .etcd_flag("config-file")
            .map(|told| live.host_file(layout, &told));
        if let Some(file) = config {
            live.config = Some(Config::read(layout, &file.value)?);
        }
        Ok(live)
    }

    /// A flag of etcd, or the variable etcd reads when the flag is absent (etcd documentation,
    /// "Configuration options").
    fn etcd_flag(&self, name: &str) -> Option<Sourced<&str>> {
        // With a configuration file etcd reads nothing else.
        if let Some(config) = &self.config {
            let value = config.values.get(name)?;
            return Some(Sourced::new(value, format!("{name} in {}", config.source)));
        }
        if let Some(value) = self.container.flag(name) {
            return Some(Sourced::new(value, format!("--{name} in {}", self.source)));
        }
        let variable = format!("ETCD_{}", name.replace('-', "_").to_uppercase());
        let value = self.container.env(&variable)?;
        Some(Sourced::new(
            value,
            format!("{variable} in {}", self.source),
        ))
    }

    /// Those of a flag's list that do not need what only the kubelet knows.
    fn known_of(&self, name: &str) -> Option<Sourced<Vec<String>>> {
        let mut list = split_list(self.container.flag_text(name)?);
        list.retain(|part| self.container.is_known(part));
        (!list.is_empty()).then(|| Sourced::new(list, format!("--{name} in {}", self.source)))
    }

    /// The WAL's directory as etcd is given it, even if it has variables that are not known here.
    fn wal_dir(&self) -> Option<String> {
        let text = match &self.config {
            Some(config) => config.values.get("wal-dir").map(String::as_str),
            None => self
                .container
                .flag_text("wal-dir")
                .or(self.container.env("ETCD_WAL_DIR")),
        };
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn host_path(&self, layout: &NodeLayout, inside: &str) -> PathBuf {
        let inside = Path::new(inside);
        let node_path = self.pod.node_path(&self.container, inside);
        layout.host(node_path.as_deref().unwrap_or(inside))
    }

    fn host_file(&self, layout: &NodeLayout, told: &Sourced<&str>) -> Sourced<PathBuf> {
        Sourced::new(self.host_path(layout, told.value), &told.source)
    }
}

/// etcd's configuration file.
struct Config {
    /// By the names that flags have.
    values: BTreeMap<String, String>,
    source: String,
}

impl Config {
    /// Reads a file (etcd documentation, "Configuration file").
    fn read(layout: &NodeLayout, file: &Path) -> Result<Self> {
        let node_path = layout.node_path(file);
        let doing = || format!("reading etcd's configuration file {}", node_path.display());
        let bytes = read_bounded(&layout.resolve(&node_path)?, pod::MAX_BYTES)
            .map_err(|failure| failure.as_kind(Kind::Usage))?;
        let fields: BTreeMap<String, serde_json::Value> =
            yaml::from_slice(&bytes).doing(Kind::Usage, doing)?;
        let mut values = BTreeMap::new();
        for (name, value) in fields {
            let prefix = match name.as_str() {
                // Below these two, the file has the flags' names without their prefixes.
                "client-transport-security" => "",
                "peer-transport-security" => "peer-",
                _ => {
                    if let serde_json::Value::String(text) = value {
                        values.insert(name, text);
                    }
                    continue;
                }
            };
            for (name, value) in value.as_object().into_iter().flatten() {
                if let Some(text) = value.as_str() {
                    values.insert(format!("{prefix}{name}"), text.to_owned());
                }
            }
        }
        let source = node_path.display().to_string();
        Ok(Self { values, source })
    }
}

/// Asks the node.
pub(super) fn ask(
    layout: &NodeLayout,
    detection: &Detection,
    overrides: &AccessOverrides,
) -> Result<NodeAccess> {
    let mut says = NodeAccess::default();
    match Live::read(layout, Component::Etcd, overrides) {
        Ok(etcd) => describe_member(layout, &etcd, &mut says),
        Err(failure) => {
            says.notes.push(failure.to_string());
            says.why_no_endpoint = Some(match &detection.external_etcd {
                Some(external) => external_endpoint(external),
                None => failure.with(Fact::Missing("endpoint")),
            });
        }
    }
    client_certificates(layout, overrides, &mut says);
    Ok(says)
}

/// The failure of an endpoint that is asked of a node whose etcd is elsewhere.
fn external_endpoint(external: &ExternalEtcd) -> Failure {
    let service = match &external.service {
        Some(unit) => format!(", but a systemd service ({})", unit.display()),
        None => String::new(),
    };
    let what = format!(
        "finding etcd's endpoint: the API server uses an etcd that is not a static pod of this \
         node ({} in {}){service}",
        external.servers.join(", "),
        external.manifest.display()
    );
    let mut failure = Failure::refused_for_good("external-etcd", what)
        .with(Fact::Candidates(external.servers.clone()))
        .with(Fact::Missing("endpoint"));
    if let Some(unit) = &external.service {
        failure = failure.with(Fact::HostService(unit.clone()));
    }
    failure
}

fn describe_member(layout: &NodeLayout, etcd: &Live, says: &mut NodeAccess) {
    says.member_name = etcd
        .etcd_flag("name")
        .map(|name| Sourced::new(name.value.to_owned(), name.source));
    for word in etcd.container.unknown_words() {
        says.notes.push(format!(
            "{word} in {}: the kubelet fills it in, and its value is not known here",
            etcd.source
        ));
    }
    let urls = |flag: &str| {
        etcd.etcd_flag(flag)
            .map(|told| Sourced::new(split_list(told.value), told.source))
    };
    let advertised = urls("advertise-client-urls");
    let listening = urls("listen-client-urls").or_else(|| etcd.known_of("listen-client-urls"));
    // A loopback URL can be nobody else's, and it stays right when the node's address changes.
    says.endpoint = pick(&listening, |e| e.is_loopback())
        .or_else(|| pick(&advertised, |e| !is_unspecified(e)))
        .or_else(|| pick(&listening, |e| !is_unspecified(e)));
    says.member_ip = pick(&advertised, |_| true)
        .and_then(|url| Endpoint::parse(&url.value))
        .and_then(|endpoint| endpoint.ip());
    says.member_endpoints = advertised;
    says.peer_urls = urls("initial-advertise-peer-urls");
    says.peers = etcd
        .etcd_flag("initial-cluster")
        .map(|list| initial_cluster(list.value))
        .unwrap_or_default();
    says.wal_dir = etcd.wal_dir();
    says.data_dir = etcd
        .etcd_flag("data-dir")
        .map(|told| etcd.host_file(layout, &told));
    if says.endpoint.is_none() {
        says.why_no_endpoint = Some(no_endpoint(etcd));
    }
    member_certificates(layout, etcd, says);
}

fn no_endpoint(etcd: &Live) -> Failure {
    let why = match etcd.container.is_scripted() {
        true => ": a shell script starts etcd, and its flags cannot be read",
        false => "",
    };
    let what = format!(
        "finding etcd's endpoint: {} names no client URL{why}",
        etcd.source
    );
    Failure::new(Kind::Usage, what).with(Fact::Missing("endpoint"))
}

/// The certificates that etcd's manifest leads to: a client's of kubeadm, then etcd's own.
fn member_certificates(layout: &NodeLayout, etcd: &Live, says: &mut NodeAccess) {
    if let Some(ca) = etcd.etcd_flag("trusted-ca-file") {
        let ca = etcd.host_file(layout, &ca);
        if let Some(dir) = ca.value.parent() {
            says.identities
                .push(pair(layout, dir, "healthcheck-client"));
        }
        says.cas.push(ca);
    }
    says.identities
        .push(pair(layout, &layout.etcd_pki(), "healthcheck-client"));
    if let (Some(cert), Some(key)) = (etcd.etcd_flag("cert-file"), etcd.etcd_flag("key-file")) {
        says.identities.push(Identity {
            cert: etcd.host_file(layout, &cert),
            key: etcd.host_file(layout, &key),
        });
    }
}

/// What does not depend on etcd's own manifest: kubeadm's file names, then the API server's
/// identity as a client of etcd, which is all there is for an external one.
fn client_certificates(layout: &NodeLayout, overrides: &AccessOverrides, says: &mut NodeAccess) {
    let external = says.endpoint.is_none();
    let mut cas = Vec::new();
    let mut identities = Vec::new();
    if let Ok(api) = Live::read(layout, Component::KubeApiserver, overrides) {
        let flag = |name: &str| {
            let value = api.container.flag(name)?;
            let source = format!("--{name} in {}", api.source);
            Some(Sourced::new(api.host_path(layout, value), source))
        };
        cas.extend(flag("etcd-cafile"));
        if let (Some(cert), Some(key)) = (flag("etcd-certfile"), flag("etcd-keyfile")) {
            identities.push(Identity { cert, key });
        }
    }
    let own_ca = layout.etcd_pki().join("ca.crt");
    let own_source = layout.node_path(&own_ca).display().to_string();
    let own_ca = Sourced::new(own_ca, own_source);
    let server = pair(layout, &layout.etcd_pki(), "server");
    // Another node's etcd may not know this node's CA: the API server's files come first.
    if external {
        says.cas.extend(cas);
        says.identities.extend(identities);
        says.cas.push(own_ca);
        says.identities
            .push(pair(layout, &layout.etcd_pki(), "healthcheck-client"));
        says.identities.push(server);
    } else {
        says.cas.push(own_ca);
        says.identities.push(server);
        says.cas.extend(cas);
        says.identities.extend(identities);
    }
}

/// What etcd's manifest gives it to serve clients with, and to meet its peers with: kubeadm's own
/// names where the manifest is not there or says nothing (kubeadm, `phases/certs`).
pub(super) fn server_certificates(
    layout: &NodeLayout,
    overrides: &AccessOverrides,
) -> Vec<WantedCertificate> {
    let live = Live::read(layout, Component::Etcd, overrides).ok();
    let file = |flag: &str, usual: &str| {
        let told = live.as_ref().and_then(|etcd| {
            let told = etcd.etcd_flag(flag)?;
            Some(etcd.host_file(layout, &told).value)
        });
        told.unwrap_or_else(|| layout.etcd_pki().join(usual))
    };
    let wanted = |name: &str, flags: [&str; 3], stem: &str, uses| WantedCertificate {
        name: format!("etcd's {name} certificate"),
        cert: file(flags[0], &format!("{stem}.crt")),
        key: file(flags[1], &format!("{stem}.key")),
        ca: file(flags[2], "ca.crt"),
        hosts: Vec::new(),
        addresses: Vec::new(),
        uses,
    };
    let client = ["cert-file", "key-file", "trusted-ca-file"];
    let peer = ["peer-cert-file", "peer-key-file", "peer-trusted-ca-file"];
    vec![
        wanted("serving", client, "server", vec![Use::Server]),
        wanted("peer", peer, "peer", vec![Use::Server, Use::Client]),
    ]
}

fn pair(layout: &NodeLayout, dir: &Path, stem: &str) -> Identity {
    let file = |extension: &str| {
        let path = dir.join(format!("{stem}.{extension}"));
        let source = layout.node_path(&path).display().to_string();
        Sourced::new(path, source)
    };
    Identity {
        cert: file("crt"),
        key: file("key"),
    }
}

fn pick(
    urls: &Option<Sourced<Vec<String>>>,
    fits: impl Fn(&Endpoint) -> bool,
) -> Option<Sourced<String>> {
    let urls = urls.as_ref()?;
    let url = urls
        .value
        .iter()
        .find(|url| Endpoint::parse(url).is_some_and(|endpoint| fits(&endpoint)))?;
    Some(Sourced::new(url.clone(), &urls.source))
}

fn is_unspecified(endpoint: &Endpoint) -> bool {
    endpoint.ip().is_some_and(|ip| ip.is_unspecified())
}
