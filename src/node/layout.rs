//! Every path of a control-plane node, under one root directory.
//!
//! A *node path* is what the node itself calls a file (`/etc/kubernetes/manifests`); a *local path*
//! is where it is for this process, below [`NodeLayout::root`]. No other module of the crate
//! spells a node path.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::component::{Component, PodRevision};
use crate::error::Result;
use crate::sys::rooted;

/// Directory of configuration, manifests and static-pod resources; archives are relative to it.
pub const KUBERNETES: &str = "/etc/kubernetes";
/// Where pods of OpenShift mount their component's certificates: exists inside pods only.
pub const STATIC_POD_CERTS_IN_POD: &str = "/etc/kubernetes/static-pod-certs";
/// Below [`KUBERNETES`]: revisioned and unrevisioned resources of OpenShift's static pods.
pub const STATIC_POD_RESOURCES: &str = "static-pod-resources";
/// Below [`KUBERNETES`]: the static pods' manifests, in every archive and, unless the kubelet's
/// configuration says otherwise, on the node.
pub const MANIFESTS: &str = "manifests";
/// etcd's data directory unless the node says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/etcd";

/// A node's file system, below one root.
#[derive(Debug, Clone)]
pub struct NodeLayout {
    root: PathBuf,
    /// The kubelet's folder of static pods, read once it is asked for.
    pub(super) static_pods: OnceLock<PathBuf>,
}

impl PartialEq for NodeLayout {
    fn eq(&self, other: &Self) -> bool {
        self.root == other.root
    }
}

impl Eq for NodeLayout {}

impl NodeLayout {
    /// The node whose file system starts at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            static_pods: OnceLock::new(),
        }
    }

    /// Where the node's file system starts.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The local path of a node path. `..` stops at the root, as it does on the node.
    pub fn host(&self, node_path: impl AsRef<Path>) -> PathBuf {
        let mut path = self.root.clone();
        path.extend(below_root(node_path.as_ref()));
        path
    }

    /// The node path of a local path; a path outside the root stays as it is.
    pub fn node_path(&self, host_path: &Path) -> PathBuf {
        match host_path.strip_prefix(&self.root) {
            Ok(below) => Path::new("/").join(below),
            Err(_) => host_path.to_path_buf(),
        }
    }

    /// The local path of a node path with every symbolic link followed as the node would: an
    /// absolute target starts at the root given here. What does not exist yet is kept as named.
    pub fn resolve(&self, node_path: impl AsRef<Path>) -> Result<PathBuf> {
        rooted::resolve(&self.root, node_path.as_ref())
    }

    /// `/etc/kubernetes`.
    pub fn kubernetes(&self) -> PathBuf {
        self.host(KUBERNETES)
    }

    /// Revisioned and unrevisioned resources of OpenShift's static pods.
    pub fn resources(&self) -> PathBuf {
        self.kubernetes().join(STATIC_POD_RESOURCES)
    }

    /// The directory of one revision.
    pub fn revision(&self, revision: PodRevision) -> PathBuf {
        self.resources().join(revision.to_string())
    }

    /// The directory of a component's unrevisioned certificates.
    pub fn certs(&self, component: Component) -> PathBuf {
        self.resources().join(component.certs_dir())
    }

    /// The directory of OpenShift's own etcd scripts.
    pub fn etcd_scripts(&self) -> PathBuf {
        self.certs(Component::Etcd).join("configmaps/etcd-scripts")
    }

    /// The variables that OpenShift's etcd scripts source.
    pub fn etcd_env(&self) -> PathBuf {
        self.etcd_scripts().join("etcd.env")
    }

    /// The manifest that a two-node-with-fencing node hands to Pacemaker.
    pub fn external_etcd_pod(&self) -> PathBuf {
        self.certs(Component::Etcd)
            .join("configmaps/external-etcd-pod")
    }

    /// The manifests that OpenShift's restore scripts start etcd from.
    pub fn restore_pods(&self) -> PathBuf {
        self.certs(Component::Etcd)
            .join("configmaps/restore-etcd-pod")
    }

    /// A kubeconfig for the API server on this node, with no load balancer between.
    pub fn localhost_kubeconfig(&self) -> PathBuf {
        self.certs(Component::KubeApiserver)
            .join("secrets/node-kubeconfigs/localhost.kubeconfig")
    }

    /// kubeadm's certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.kubernetes().join("pki")
    }

    /// kubeadm's certificates and keys of etcd.
    pub fn etcd_pki(&self) -> PathBuf {
        self.pki().join("etcd")
    }

    /// etcd's data directory unless the node says otherwise.
    pub fn default_data_dir(&self) -> PathBuf {
        self.host(DEFAULT_DATA_DIR)
    }

    /// Where OpenShift's restore scripts keep the data directory they replaced.
    pub fn data_dir_backup(&self) -> PathBuf {
        self.host("/var/lib/etcd-backup")
    }

    /// The default tree of backups.
    pub fn backups(&self) -> PathBuf {
        self.kubernetes().join("static-pod-backups")
    }

    /// The default tree of backups, where it is: without its link the backups are still there.
    pub fn store(&self) -> PathBuf {
        let (link, target) = (self.backups(), self.backups_target());
        if link.symlink_metadata().is_err() && target.is_dir() {
            return target;
        }
        link
    }

    /// What [`backups`](Self::backups) is made a link to if it is absent: `/etc` of an OSTree
    /// host is copied with every deployment.
    pub fn backups_target(&self) -> PathBuf {
        self.state().join("static-pod-backups")
    }

    /// State of this tool: journals and safety folders.
    pub fn state(&self) -> PathBuf {
        self.host("/var/lib/etcd-dr")
    }

    /// The lock that commands which change the node take.
    pub fn lock(&self) -> PathBuf {
        self.host("/run/etcd-dr.lock")
    }

    /// The lock that OpenShift's installer pods of a component hold while they write.
    pub fn installer_lock(&self, component: Component) -> PathBuf {
        self.host("/var/lock")
            .join(format!("{}-installer.lock", component.pod_name()))
    }

    /// CRI-O's socket.
    pub fn crio_socket(&self) -> PathBuf {
        self.host("/run/crio/crio.sock")
    }

    /// Where containerd listens.
    pub fn containerd_socket(&self) -> PathBuf {
        self.host("/run/containerd/containerd.sock")
    }

    /// Files that name the kubelet's flags, those that win first: what an administrator adds to
    /// its command line (kubeadm, "Configuring each kubelet in your cluster"), kubeadm's own, and
    /// the systemd unit, which is where OpenShift has them.
    pub fn kubelet_flags(&self) -> Vec<PathBuf> {
        [
            "/etc/default/kubelet",
            "/etc/sysconfig/kubelet",
            "/var/lib/kubelet/kubeadm-flags.env",
            "/etc/systemd/system/kubelet.service",
            "/usr/lib/systemd/system/kubelet.service",
        ]
        .iter()
        .map(|path| self.host(path))
        .collect()
    }

    /// Directories of what is dropped into the kubelet's systemd unit, those that win first.
    pub fn kubelet_drop_ins(&self) -> [PathBuf; 2] {
        [
            self.host("/etc/systemd/system/kubelet.service.d"),
            self.host("/usr/lib/systemd/system/kubelet.service.d"),
        ]
    }

    /// The kubelet's configuration: kubeadm's place and OpenShift's. The latter is a kubeconfig
    /// on kubeadm's nodes.
    pub fn kubelet_configs(&self) -> [PathBuf; 2] {
        [
            self.host("/var/lib/kubelet/config.yaml"),
            self.kubernetes().join("kubelet.conf"),
        ]
    }

    /// The certificate with which the kubelet meets the API server.
    pub fn kubelet_certificate(&self) -> PathBuf {
        self.host("/var/lib/kubelet/pki/kubelet-client-current.pem")
    }

    /// The machine's name.
    pub fn hostname(&self) -> PathBuf {
        self.host("/etc/hostname")
    }

    /// Where the systemd unit of an etcd that is not a static pod is: an administrator's or
    /// Kubespray's, then a distribution's.
    pub fn etcd_services(&self) -> [PathBuf; 3] {
        [
            self.host("/etc/systemd/system/etcd.service"),
            self.host("/usr/lib/systemd/system/etcd.service"),
            self.host("/lib/systemd/system/etcd.service"),
        ]
    }

    /// Pacemaker's and Corosync's own files, which only a cluster of theirs has.
    pub fn pacemaker(&self) -> [PathBuf; 2] {
        [
            self.host("/var/lib/pacemaker/cib/cib.xml"),
            self.host("/etc/corosync/corosync.conf"),
        ]
    }

    /// Where `oc debug node` mounts the node's own file system.
    pub fn debug_mount(&self) -> PathBuf {
        self.host("/host")
    }
}

fn below_root(path: &Path) -> Vec<OsString> {
    let mut kept: Vec<OsString> = Vec::new();
    for part in rooted::parts(path) {
        if part == ".." {
            kept.pop();
        } else {
            kept.push(part);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_stay_below_the_root() {
        let layout = NodeLayout::new("/host");
        assert_eq!(layout.host("/etc/../../../x"), Path::new("/host/x"));
        assert_eq!(
            layout.etcd_env(),
            Path::new(
                "/host/etc/kubernetes/static-pod-resources/etcd-certs/configmaps/etcd-scripts/etcd.env"
            )
        );
        assert_eq!(
            layout.node_path(&layout.manifests()),
            Path::new("/etc/kubernetes/manifests")
        );
        let plain = NodeLayout::new("/");
        assert_eq!(plain.lock(), Path::new("/run/etcd-dr.lock"));
        assert_eq!(plain.node_path(&plain.lock()), plain.lock());
    }

    #[test]
    fn backups_are_found_without_their_link() {
        let dir = tempfile::tempdir().unwrap();
        let layout = NodeLayout::new(dir.path());
        assert_eq!(layout.store(), layout.backups());
        fs::create_dir_all(layout.backups_target()).unwrap();
        assert_eq!(layout.store(), layout.backups_target());
        fs::create_dir_all(layout.backups()).unwrap();
        assert_eq!(layout.store(), layout.backups());
    }

    #[test]
    fn links_are_followed_as_the_node_would() {
        let dir = tempfile::tempdir().unwrap();
        let layout = NodeLayout::new(dir.path());
        fs::create_dir_all(layout.kubernetes()).unwrap();
        fs::create_dir_all(layout.backups_target()).unwrap();
        symlink("/var/lib/etcd-dr/static-pod-backups", layout.backups()).unwrap();
        assert_eq!(
            layout
                .resolve("/etc/kubernetes/static-pod-backups/backup-1")
                .unwrap(),
            layout.backups_target().join("backup-1")
        );
        symlink("../../../../../..", layout.kubernetes().join("up")).unwrap();
        assert_eq!(
            layout.resolve("/etc/kubernetes/up/etc").unwrap(),
            dir.path().join("etc")
        );
        symlink("loop", layout.kubernetes().join("loop")).unwrap();
        assert!(layout.resolve("/etc/kubernetes/loop").is_err());
    }
}
