//! What the node itself says about how its etcd is reached.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::component::Component;
use super::files::exists;
use super::layout::{KUBERNETES, NodeLayout, STATIC_POD_CERTS_IN_POD, STATIC_POD_RESOURCES};
use super::overrides::Sourced;
use crate::error::{Failure, Result};

/// A client certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate's local path.
    pub cert: Sourced<PathBuf>,
    /// The key's local path.
    pub key: Sourced<PathBuf>,
}

/// What the node itself says, before the configuration overrides it.
#[derive(Debug, Default)]
pub(super) struct NodeAccess {
    pub(super) member_name: Option<Sourced<String>>,
    pub(super) member_ip: Option<IpAddr>,
    pub(super) endpoint: Option<Sourced<String>>,
    pub(super) member_endpoints: Option<Sourced<Vec<String>>>,
    /// Host paths, the best first.
    pub(super) cas: Vec<Sourced<PathBuf>>,
    /// Host paths of certificate and key, the best first.
    pub(super) identities: Vec<Identity>,
    pub(super) peer_urls: Option<Sourced<Vec<String>>>,
    pub(super) peers: Vec<(String, String)>,
    pub(super) data_dir: Option<Sourced<PathBuf>>,
    pub(super) wal_dir: Option<String>,
    pub(super) notes: Vec<String>,
    /// The operating system's error of the last file that could not be read.
    pub(super) io_kind: Option<io::ErrorKind>,
    /// Why the local member or its endpoint is not known.
    pub(super) why_no_endpoint: Option<Failure>,
}

impl NodeAccess {
    /// Notes that a file could not be read; others may say the same.
    pub(super) fn could_not_read(&mut self, failure: &Failure) {
        self.io_kind = failure.io_kind().or(self.io_kind);
        self.notes.push(failure.to_string());
    }
}

/// The local path of a certificate's node path, mapped from the pods' view where it does not exist
/// as given.
pub(super) fn host_file(layout: &NodeLayout, node_path: &Path) -> Result<PathBuf> {
    let given = follow(layout, node_path)?;
    if exists(&given)? {
        return Ok(given);
    }
    match node_path.strip_prefix(STATIC_POD_CERTS_IN_POD) {
        Ok(below) => {
            let certs = Path::new(KUBERNETES)
                .join(STATIC_POD_RESOURCES)
                .join(Component::Etcd.certs_dir());
            follow(layout, &certs.join(below))
        }
        Err(_) => Ok(given),
    }
}

/// Under its own root, links must be followed here; the kernel would leave the root.
fn follow(layout: &NodeLayout, node_path: &Path) -> Result<PathBuf> {
    if layout.root() == Path::new("/") {
        Ok(layout.host(node_path))
    } else {
        layout.resolve(node_path)
    }
}
