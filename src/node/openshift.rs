//! What an OpenShift control-plane node says about its etcd: `etcd.env`, or the same variables in
//! the live manifest where that file is missing or broken.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::component::Component;
use super::endpoint::{Endpoint, split_list};
use super::env_file::{self, EnvFile};
use super::evidence::{Identity, NodeAccess, host_file};
use super::files::{exists, read_bounded};
use super::layout::NodeLayout;
use super::member::{self, Evidence, NamedMember};
use super::overrides::{AccessOverrides, Sourced};
use super::pod::{PodManifest, RevisionInUse};
use super::profile::Profile;
use crate::error::{Doing, Fact, Failure, Kind, Result};

/// Ports of OpenShift's etcd members (cluster-etcd-operator, `bindata/etcd/pod.yaml`).
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// Variables and where they were read.
struct Variables {
    list: Vec<(String, String)>,
    source: String,
}

impl Variables {
    fn get(&self, name: &str) -> Option<Sourced<&str>> {
        // In a shell, which sources the file, the last assignment counts.
        let (_, value) = self.list.iter().rev().find(|(n, _)| n == name)?;
        let source = format!("{name} in {}", self.source);
        (!value.is_empty()).then(|| Sourced::new(value.as_str(), source))
    }
}

/// Asks the node.
pub(super) fn ask(layout: &NodeLayout, overrides: &AccessOverrides) -> Result<NodeAccess> {
    let mut says = NodeAccess::default();
    let manifest = live_manifest(layout, &mut says);
    let Some(variables) = variables(layout, manifest.as_ref(), &mut says)? else {
        says.member_name = overrides.node.clone();
        let what = format!("finding etcd's endpoint: {}", says.notes.join("; "));
        let mut failure = Failure::new(Kind::Usage, what)
            .with(Fact::Missing("endpoint"))
            .with(Fact::Path(layout.etcd_env()));
        if let Some(kind) = says.io_kind {
            failure = failure.with(Fact::Io(kind));
        }
        says.why_no_endpoint = Some(failure);
        fallbacks(layout, manifest.as_ref(), None, &mut says);
        return Ok(says);
    };
    let pairs = variables.list.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let members = member::members(pairs);
    says.peers = members
        .iter()
        .filter_map(|member| {
            let url = Endpoint::of(true, member.ip?, PEER_PORT);
            Some((member.name.clone(), url.to_string()))
        })
        .collect();
    let named = overrides.node.as_ref().map(|node| node.value.as_str());
    match member::local_member(&members, named, &overrides.local_addresses) {
        Ok((member, evidence)) => describe_member(&variables, &member, &evidence, &mut says)?,
        // A configured name must be right; addresses matter only if no endpoint is configured.
        Err(failure) if named.is_some() => return Err(failure.doing(variables.source)),
        Err(failure) => says.why_no_endpoint = Some(failure.doing(variables.source.clone())),
    }
    says.data_dir = Some(data_dir(layout, &variables, manifest.as_ref()));
    identities_of(layout, &variables, &mut says)?;
    let name = says.member_name.as_ref().map(|name| name.value.clone());
    fallbacks(layout, manifest.as_ref(), name.as_deref(), &mut says);
    Ok(says)
}

fn live_manifest(layout: &NodeLayout, says: &mut NodeAccess) -> Option<PodManifest> {
    let current = layout.current_manifest(Component::Etcd, Profile::Openshift);
    let path = match current {
        Some(current) => current.path,
        None => layout.manifest(Component::Etcd, Profile::Openshift)?,
    };
    layout
        .read_pod(&path)
        .map_err(|failure| says.could_not_read(&failure))
        .ok()
}

fn variables(
    layout: &NodeLayout,
    manifest: Option<&PodManifest>,
    says: &mut NodeAccess,
) -> Result<Option<Variables>> {
    let path = layout.etcd_env();
    let source = layout.node_path(&path).display().to_string();
    if exists(&path)? {
        let parsed = read_bounded(&path, env_file::MAX_BYTES).and_then(|bytes| {
            EnvFile::parse(&bytes).doing(Kind::Unexpected, || format!("reading {}", path.display()))
        });
        match parsed {
            Ok(file) => {
                let list = file
                    .variables()
                    .iter()
                    .map(|v| (v.name.clone(), v.value.clone()))
                    .collect();
                return Ok(Some(Variables { list, source }));
            }
            // The manifest may have the same variables.
            Err(failure) => says.could_not_read(&failure),
        }
    } else {
        says.notes.push(format!("{source} does not exist"));
    }
    let from_pod = manifest.and_then(|pod| {
        pod.containers
            .iter()
            .find(|container| container.env("ALL_ETCD_ENDPOINTS").is_some())
    });
    Ok(from_pod.map(|container| Variables {
        list: container.env.clone(),
        source: format!("the live etcd pod's container {}", container.name),
    }))
}

fn describe_member(
    variables: &Variables,
    member: &NamedMember,
    evidence: &Evidence,
    says: &mut NodeAccess,
) -> Result<()> {
    let why = match evidence {
        Evidence::Named => "named by the caller".to_owned(),
        Evidence::Address(ip) => format!("this machine has its address {ip}"),
    };
    let name_source = format!(
        "NODE_{}_ETCD_NAME in {} ({why})",
        member.safe, variables.source
    );
    says.member_name = Some(Sourced::new(member.name.clone(), name_source));
    says.member_ip = member.ip;
    let all = ["ETCDCTL_ENDPOINTS", "ALL_ETCD_ENDPOINTS"]
        .into_iter()
        .find_map(|name| variables.get(name));
    says.member_endpoints = all
        .as_ref()
        .map(|list| Sourced::new(split_list(list.value), &list.source));
    let Some(ip) = member.ip else {
        says.why_no_endpoint = Some(
            Failure::new(
                Kind::Usage,
                format!(
                    "finding the endpoint of {}: NODE_{}_IP in {} is not an IP address",
                    member.name, member.safe, variables.source
                ),
            )
            .with(Fact::Missing("endpoint")),
        );
        return Ok(());
    };
    says.endpoint = Some(own_endpoint(
        variables,
        member,
        ip,
        says.member_endpoints.as_ref(),
    )?);
    says.peer_urls = Some(Sourced::new(
        vec![Endpoint::of(true, ip, PEER_PORT).to_string()],
        format!(
            "NODE_{}_IP in {}, port {PEER_PORT}",
            member.safe, variables.source
        ),
    ));
    Ok(())
}

/// The listed URL with the member's address, whatever its port, or the usual one if none is.
fn own_endpoint(
    variables: &Variables,
    member: &NamedMember,
    ip: IpAddr,
    all: Option<&Sourced<Vec<String>>>,
) -> Result<Sourced<String>> {
    let listed = all.map(|list| list.value.as_slice()).unwrap_or_default();
    let own: Vec<&String> = listed
        .iter()
        .filter(|url| Endpoint::parse(url).and_then(|e| e.ip()) == Some(ip))
        .collect();
    match own.as_slice() {
        [url] => {
            let source = all.map(|list| list.source.clone()).unwrap_or_default();
            Ok(Sourced::new((*url).clone(), source))
        }
        [] => Ok(Sourced::new(
            Endpoint::of(true, ip, CLIENT_PORT).to_string(),
            format!(
                "NODE_{}_IP in {}, port {CLIENT_PORT}",
                member.safe, variables.source
            ),
        )),
        several => {
            let what = format!(
                "choosing the endpoint of {}: several have its address",
                member.name
            );
            let candidates = several.iter().map(|url| (*url).clone()).collect();
            Err(Failure::refused_for_good("local-endpoint-unknown", what)
                .with(Fact::Candidates(candidates)))
        }
    }
}

fn data_dir(
    layout: &NodeLayout,
    variables: &Variables,
    manifest: Option<&PodManifest>,
) -> Sourced<PathBuf> {
    let Some(told) = variables.get("ETCD_DATA_DIR") else {
        return Sourced::new(layout.default_data_dir(), "the default");
    };
    let inside = Path::new(told.value);
    // The variable is a path in the container.
    let mounted = manifest.and_then(|pod| pod.node_path(pod.container("etcd")?, inside));
    match mounted {
        Some(path) => Sourced::new(
            layout.host(path),
            told.source + ", mounted by the live etcd pod",
        ),
        None => Sourced::new(layout.host(inside), told.source),
    }
}

fn identities_of(layout: &NodeLayout, variables: &Variables, says: &mut NodeAccess) -> Result<()> {
    let file = |name: &str| -> Result<Option<Sourced<PathBuf>>> {
        variables
            .get(name)
            .map(|told| {
                Ok(Sourced::new(
                    host_file(layout, Path::new(told.value))?,
                    told.source,
                ))
            })
            .transpose()
    };
    says.cas.extend(file("ETCDCTL_CACERT")?);
    if let (Some(cert), Some(key)) = (file("ETCDCTL_CERT")?, file("ETCDCTL_KEY")?) {
        says.identities.push(Identity { cert, key });
    }
    Ok(())
}

/// Where releases before kept the same files: the CA in `etcd-serving-ca` up to 4.16, one secret
/// for each kind of certificate up to 4.6 (cluster-etcd-operator, its release branches).
fn fallbacks(
    layout: &NodeLayout,
    manifest: Option<&PodManifest>,
    node: Option<&str>,
    says: &mut NodeAccess,
) {
    let mut bases = vec![layout.certs(Component::Etcd)];
    if let Some(Ok(RevisionInUse::Revision(revision))) =
        manifest.map(|m| m.revision(Component::Etcd))
    {
        bases.push(layout.revision(revision));
    }
    for base in &bases {
        for ca in [
            "configmaps/etcd-all-bundles/server-ca-bundle.crt",
            "configmaps/etcd-serving-ca/ca-bundle.crt",
        ] {
            says.cas.push(found_by_name(layout, base.join(ca)));
        }
    }
    let Some(node) = node.or(says.member_name.as_ref().map(|n| n.value.as_str())) else {
        return;
    };
    for base in &bases {
        for (secret, kind) in [
            ("etcd-all-certs", "peer"),
            ("etcd-all-peer", "peer"),
            ("etcd-all-certs", "serving"),
            ("etcd-all-serving", "serving"),
        ] {
            let stem = base.join("secrets").join(secret);
            says.identities.push(Identity {
                cert: found_by_name(layout, stem.join(format!("etcd-{kind}-{node}.crt"))),
                key: found_by_name(layout, stem.join(format!("etcd-{kind}-{node}.key"))),
            });
        }
    }
}

fn found_by_name(layout: &NodeLayout, path: PathBuf) -> Sourced<PathBuf> {
    let source = format!(
        "{}, where releases keep it",
        layout.node_path(&path).display()
    );
    Sourced::new(path, source)
}
