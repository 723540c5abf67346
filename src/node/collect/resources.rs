//! What a backup archives of a node.

use std::path::PathBuf;

use crate::node::component::{Component, PodRevision};

/// In the archive of a kubeadm node: what its manifests use from outside of `/etc/kubernetes`
/// is under this name, followed by its node path.
pub const OUTSIDE: &str = "outside-etc-kubernetes";

/// Files and directories to archive, named relative to a base.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectList {
    /// The local path that `entries` and `skip` are relative to.
    pub base: PathBuf,
    /// Files, and directories with all they hold, in the archive's order.
    pub entries: Vec<PathBuf>,
    /// Left out, with all they hold.
    pub skip: Vec<PathBuf>,
    /// What has another name in the archive than below `base`; after `entries`.
    pub elsewhere: Vec<Elsewhere>,
}

/// A file or directory that is archived under its own name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Elsewhere {
    /// Its local path; never a symbolic link.
    pub source: PathBuf,
    /// Its name in the archive.
    pub name: PathBuf,
}

/// A component as its live manifest shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveComponent {
    /// Which one.
    pub component: Component,
    /// The live manifest's local path.
    pub manifest: PathBuf,
    /// SHA-256 of the live manifest, where it could be read.
    pub manifest_sha256: Option<[u8; 32]>,
    /// The revision in use, on OpenShift.
    pub revision: Option<PodRevision>,
    /// The image of the component's main container.
    pub image: Option<String>,
}

/// Something that keeps a backup of the resources from being whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable name: `manifest-missing`, `manifest-unreadable`, `restore-pod-running`,
    /// `revision-unknown`, `revision-missing`, `encryption-config-missing`.
    pub name: &'static str,
    /// The component concerned.
    pub component: Component,
    /// What is so, in a sentence.
    pub message: String,
}

/// What a backup must archive on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcePlan {
    /// The components, in the archive's order.
    pub components: Vec<LiveComponent>,
    /// On OpenShift the revisions in use, on kubeadm manifests, keys and kubeconfigs. Empty on a
    /// bare etcd.
    pub resources: CollectList,
    /// On OpenShift the unrevisioned certificates, which the pods mount too.
    pub certs: Option<CollectList>,
    /// What keeps the backup from being whole; the rest is still listed.
    pub problems: Vec<Problem>,
    /// What the pods use and the backup does not get, and why.
    pub left_out: Vec<String>,
    /// Worth knowing.
    pub notes: Vec<String>,
}
