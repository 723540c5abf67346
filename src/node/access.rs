//! How to reach this node's own etcd member: endpoint, certificates, names, data directory, and
//! for each where it was found.
//! The caller's configuration takes precedence, then what the node says. Certificate paths may be those
//! that pods see, wherever they come from: one that does not exist as given is looked for where
//! the node keeps what the pods mount.

use std::path::{Path, PathBuf};

use super::detection::Detection;
use super::endpoint::Endpoint;
use super::evidence::{Identity, NodeAccess, host_file};
use super::files::exists;
use super::layout::NodeLayout;
use super::overrides::{AccessOverrides, Sourced};
use super::profile::Profile;
use super::{kubeadm, openshift};
use crate::error::{Fact, Failure, Kind, Result};

/// The files of a TLS connection, as local paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA that signed the server's certificate; absent only if nobody named one.
    pub ca: Option<Sourced<PathBuf>>,
    /// The client certificate and its key; absent only if nobody named them.
    pub identity: Option<Identity>,
}

/// How to reach this node's own etcd member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdAccess {
    /// The local member's client URL: the only one a snapshot is taken from.
    pub endpoint: Sourced<String>,
    /// Client URLs of all members that are known, the local one among them.
    pub member_endpoints: Sourced<Vec<String>>,
    /// Certificates, where the endpoint speaks TLS.
    pub tls: Option<TlsFiles>,
    /// The local member's name.
    pub member_name: Option<Sourced<String>>,
    /// The local member's peer URLs.
    pub peer_urls: Option<Sourced<Vec<String>>>,
    /// Members by name and peer URL, as `--initial-cluster` or `etcd.env` has them.
    pub peers: Vec<(String, String)>,
    /// The data directory's local path.
    pub data_dir: Option<Sourced<PathBuf>>,
    /// Where etcd keeps its WAL, if not in the data directory, as its pod sees it.
    pub wal_dir: Option<String>,
    /// What was passed over on the way, for a reader who asks for detail.
    pub notes: Vec<String>,
}

impl EtcdAccess {
    /// The local member's name.
    ///
    /// # Errors
    /// [`Kind::Usage`] if nothing tells it.
    pub fn own_name(&self) -> Result<String> {
        let name = self.member_name.as_ref();
        name.map(|name| name.value.clone()).ok_or_else(|| {
            Failure::new(Kind::Usage, "finding this node's member name")
                .with(Fact::Missing("node-name"))
        })
    }

    /// The data directory's local path; etcd's usual one if nothing tells it.
    pub fn data_dir_in(&self, layout: &NodeLayout) -> PathBuf {
        let told = self.data_dir.as_ref().map(|dir| dir.value.clone());
        told.unwrap_or_else(|| layout.default_data_dir())
    }

    /// The local member's peer URLs.
    ///
    /// # Errors
    /// [`Kind::Usage`] if nothing tells them.
    pub fn own_peer_urls(&self) -> Result<Vec<String>> {
        let urls = self.peer_urls.as_ref();
        urls.map(|urls| urls.value.clone()).ok_or_else(|| {
            Failure::new(Kind::Usage, "finding this member's peer URL")
                .with(Fact::Missing("peer-urls"))
        })
    }
}

/// Finds out how to reach this node's own etcd member.
pub fn find_access(
    layout: &NodeLayout,
    detection: &Detection,
    overrides: &AccessOverrides,
) -> Result<EtcdAccess> {
    let mut says = match detection.profile {
        Profile::Openshift => openshift::ask(layout, overrides)?,
        Profile::Kubeadm => kubeadm::ask(layout, detection, overrides)?,
        Profile::Bare => NodeAccess::default(),
    };
    let (endpoint, member_endpoints) = endpoints(overrides, &mut says)?;
    let tls = if endpoint_of(&endpoint.value)?.tls {
        Some(tls_files(layout, overrides, &says, detection.profile)?)
    } else {
        None
    };
    let data_dir = match &overrides.data_dir {
        Some(dir) => Some(Sourced::new(told_path(layout, &dir.value)?, &dir.source)),
        None => says.data_dir,
    };
    Ok(EtcdAccess {
        wal_dir: says.wal_dir,
        endpoint,
        member_endpoints,
        tls,
        member_name: overrides.node.clone().or(says.member_name),
        peer_urls: says.peer_urls,
        peers: says.peers,
        data_dir,
        notes: says.notes,
    })
}

fn endpoints(
    overrides: &AccessOverrides,
    says: &mut NodeAccess,
) -> Result<(Sourced<String>, Sourced<Vec<String>>)> {
    if let Some(list) = &overrides.endpoints {
        let local = local_of(list, overrides, says)?;
        // A single endpoint says nothing of the other members; the node may know them.
        let all = match says.member_endpoints.take() {
            Some(known) if list.value.len() == 1 && known.value.contains(&local) => known,
            _ => list.clone(),
        };
        return Ok((Sourced::new(local, &list.source), all));
    }
    match says.endpoint.take() {
        Some(endpoint) => {
            let alone = Sourced::new(vec![endpoint.value.clone()], &endpoint.source);
            let all = says.member_endpoints.take().unwrap_or(alone);
            Ok((endpoint, all))
        }
        None => Err(says.why_no_endpoint.take().unwrap_or_else(|| {
            Failure::new(Kind::Usage, "finding etcd's endpoint: none is configured")
                .with(Fact::Missing("endpoint"))
        })),
    }
}

fn local_of(
    list: &Sourced<Vec<String>>,
    overrides: &AccessOverrides,
    says: &NodeAccess,
) -> Result<String> {
    let parsed: Vec<(&String, Endpoint)> = list
        .value
        .iter()
        .map(|url| {
            Ok((
                url,
                endpoint_of(url).map_err(|e| e.doing(list.source.clone()))?,
            ))
        })
        .collect::<Result<_>>()?;
    if let [(url, _)] = parsed.as_slice() {
        return Ok((*url).clone());
    }
    let members = |endpoint: &Endpoint| endpoint.ip().is_some() && endpoint.ip() == says.member_ip;
    let machines = |endpoint: &Endpoint| {
        endpoint.is_loopback()
            || endpoint.ip().is_some_and(|ip| {
                overrides
                    .local_addresses
                    .iter()
                    .any(|own| own.to_canonical() == ip)
            })
    };
    // The member's own address first: the machine may have others.
    for is_local in [&members as &dyn Fn(&Endpoint) -> bool, &machines] {
        let mut local = parsed.iter().filter(|(_, endpoint)| is_local(endpoint));
        match (local.next(), local.next()) {
            (Some((url, _)), None) => return Ok((*url).clone()),
            // A weaker sign does not decide between two that fit.
            (Some(_), Some(_)) => break,
            (None, _) => {}
        }
    }
    Err(Failure::refused_for_good(
        "local-endpoint-unknown",
        format!(
            "choosing the local member's endpoint among {} from {}: exactly one must be this \
             machine's",
            parsed.len(),
            list.source
        ),
    )
    .with(Fact::Candidates(list.value.clone()))
    .with(Fact::Missing("endpoint")))
}

fn endpoint_of(url: &str) -> Result<Endpoint> {
    Endpoint::parse(url).ok_or_else(|| {
        Failure::new(
            Kind::Usage,
            format!("reading the endpoint {url:?}: expected https://HOST:PORT, IPv6 in brackets"),
        )
    })
}

fn tls_files(
    layout: &NodeLayout,
    overrides: &AccessOverrides,
    says: &NodeAccess,
    profile: Profile,
) -> Result<TlsFiles> {
    let ca = match &overrides.ca {
        Some(path) => Some(told_file(layout, path)?),
        None => first_existing(&says.cas, |ca| vec![&ca.value])?.cloned(),
    };
    let identity = match (&overrides.cert, &overrides.key) {
        (Some(cert), Some(key)) => Some(Identity {
            cert: told_file(layout, cert)?,
            key: told_file(layout, key)?,
        }),
        (None, None) => {
            first_existing(&says.identities, |id| vec![&id.cert.value, &id.key.value])?.cloned()
        }
        (Some(only), None) => return Err(half(only, "key")),
        (None, Some(only)) => return Err(half(only, "cert")),
    };
    // Of a bare node nothing is known: what is missing shows when etcd is dialled.
    if profile != Profile::Bare {
        if ca.is_none() {
            return Err(nowhere(
                "the CA certificate",
                "ca",
                says.cas.iter().map(|ca| &ca.value),
            ));
        }
        if identity.is_none() {
            let tried = says
                .identities
                .iter()
                .flat_map(|id| [&id.cert.value, &id.key.value]);
            return Err(nowhere("a client certificate with its key", "cert", tried));
        }
    }
    Ok(TlsFiles { ca, identity })
}

fn first_existing<T>(candidates: &[T], files: impl Fn(&T) -> Vec<&PathBuf>) -> Result<Option<&T>> {
    for candidate in candidates {
        let mut all = true;
        for file in files(candidate) {
            all &= exists(file)?;
        }
        if all {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

fn half(only: &Sourced<PathBuf>, other: &'static str) -> Failure {
    Failure::new(
        Kind::Usage,
        format!(
            "reading the client identity: {} sets {}, but its {other} is not set",
            only.source,
            only.value.display()
        ),
    )
    .with(Fact::Missing(other))
}

fn nowhere<'a>(
    what: &str,
    missing: &'static str,
    tried: impl Iterator<Item = &'a PathBuf>,
) -> Failure {
    let tried: Vec<String> = tried.map(|path| path.display().to_string()).collect();
    let found = if tried.is_empty() {
        "none is configured".to_owned()
    } else {
        format!("none of these exists: {}", tried.join(", "))
    };
    Failure::new(Kind::Usage, format!("finding {what} for etcd: {found}"))
        .with(Fact::Missing(missing))
}

fn told_file(layout: &NodeLayout, path: &Sourced<PathBuf>) -> Result<Sourced<PathBuf>> {
    let found = told_path(layout, &path.value)?;
    if exists(&found)? {
        return Ok(Sourced::new(found, &path.source));
    }
    Err(Failure::new(
        Kind::Usage,
        format!(
            "finding {} from {}: it exists neither at that path nor where this node mounts it into pods",
            path.value.display(),
            path.source
        ),
    )
    .with(Fact::Path(path.value.clone())))
}

/// A configured path may be meant as this process sees it, so that is tried first.
fn told_path(layout: &NodeLayout, path: &Path) -> Result<PathBuf> {
    if !path.is_absolute() || exists(path)? {
        return Ok(path.to_path_buf());
    }
    host_file(layout, path)
}

#[cfg(test)]
mod tests;
