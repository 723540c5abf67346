//! Finding this node's etcd, and how to connect to it.

use std::path::Path;

use crate::context::Context;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::client::{ConnectOptions, Connection, Endpoint, Pem, TlsConfig};
use crate::etcd::membership::Member;
use crate::event::Event;
use crate::node::access::{EtcdAccess, find_access};
use crate::node::detection::{Detection, look_from};
use crate::node::layout::NodeLayout;
use crate::node::overrides::AccessOverrides;
use crate::node::profile::Profile;

/// The node, and the configuration of its etcd.
#[derive(Debug, Clone)]
pub struct Target {
    /// The node's paths.
    pub layout: NodeLayout,
    /// Its profile, if configured.
    pub profile: Option<Profile>,
    /// The configuration of etcd.
    pub overrides: AccessOverrides,
}

impl Target {
    /// Looks which kind of node it is.
    pub fn detect(&self, context: &Context) -> Result<Detection> {
        let addresses = &self.overrides.local_addresses;
        let detection = look_from(&self.layout, self.profile, addresses)?;
        for reason in &detection.reasons {
            context.tell(Event::Note(format!(
                "profile {}: {reason}",
                detection.profile
            )));
        }
        if let Some(mount) = &detection.mounted_at {
            let what = format!("the node's file system is mounted at {}", mount.display());
            return Err(Failure::new(Kind::Usage, what).with(Fact::Mounted(mount.clone())));
        }
        Ok(detection)
    }

    /// Finds out how the node's member is reached.
    pub fn access(&self, context: &Context, detection: &Detection) -> Result<EtcdAccess> {
        let access = find_access(&self.layout, detection, &self.overrides)?;
        for note in &access.notes {
            context.tell(Event::Note(note.clone()));
        }
        context.tell(Event::Note(format!(
            "endpoint {} from {}",
            access.endpoint.value, access.endpoint.source
        )));
        Ok(access)
    }
}

/// The files of a client's TLS, as this process finds them.
#[derive(Debug, Clone, Copy)]
pub struct PemFiles<'a> {
    /// The CA's certificates.
    pub ca: Option<&'a Path>,
    /// The client's certificate.
    pub cert: Option<&'a Path>,
    /// Its key.
    pub key: Option<&'a Path>,
}

/// Reads them.
///
/// # Errors
/// Those of reading a file, and of certificates that cannot be used.
pub fn tls(files: &PemFiles<'_>) -> Result<TlsConfig> {
    let read = |path: Option<&Path>| path.map(|path| Pem::read(path.to_owned())).transpose();
    let ca: Vec<Pem> = read(files.ca)?.into_iter().collect();
    let (cert, key) = (read(files.cert)?, read(files.key)?);
    TlsConfig::new(&ca, cert.as_ref().zip(key.as_ref()))
}

/// How to connect, with the certificates that were found.
pub fn options(access: &EtcdAccess) -> Result<ConnectOptions> {
    let mut options = ConnectOptions::default();
    if let Some(found) = &access.tls {
        let identity = found.identity.as_ref();
        options.tls = Some(tls(&PemFiles {
            ca: found.ca.as_ref().map(|ca| ca.value.as_path()),
            cert: identity.map(|identity| identity.cert.value.as_path()),
            key: identity.map(|identity| identity.key.value.as_path()),
        })?);
    }
    Ok(options)
}

/// Refuses etcd's gRPC proxy, which gives a list of itself: the id in it is 0, which no member has.
///
/// # Errors
/// [`Kind::Unreachable`].
pub fn refuse_proxy(endpoint: &Endpoint, members: &[Member]) -> Result<()> {
    if members.iter().all(|member| member.id.0 != 0) {
        return Ok(());
    }
    let what = format!(
        "a gRPC proxy (etcd grpc-proxy) answers at {endpoint}, and not a member: the address of a \
         member itself is needed"
    );
    Err(Failure::new(Kind::Unreachable, what)
        .with(Fact::Endpoint(endpoint.to_string()))
        .with(Fact::Missing("endpoint")))
}

/// Connects to the local member.
pub async fn connect(access: &EtcdAccess, options: &ConnectOptions) -> Result<Connection> {
    let endpoint = Endpoint::parse(&access.endpoint.value, access.tls.is_some())?;
    Connection::open(&endpoint, options).await
}
