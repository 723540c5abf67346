//! The manifests of the node's static pods: which file is a component's, wherever the kubelet
//! reads it or `disable` keeps it, and which files would run the same pod again.
//!
//! The kubelet reads every file of its folder whose name does not begin with a dot, whatever the
//! ending, and follows links (kubernetes, `pkg/kubelet/config/file.go`).

use std::fs;
use std::path::{Path, PathBuf};

use super::component::Component;
use super::files::{list, read_bounded};
use super::kubelet;
use super::layout::{KUBERNETES, MANIFESTS, NodeLayout};
use super::pod::{self, PodManifest};
use super::profile::Profile;
use crate::error::Result;

/// A component's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Its local path.
    pub path: PathBuf,
    /// Whether the kubelet reads it there; otherwise `disable` keeps it.
    pub live: bool,
}

/// A pod as the kubelet tells it from others: its namespace and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodKey<'a> {
    /// `metadata.namespace`.
    pub namespace: &'a str,
    /// `metadata.name`.
    pub name: &'a str,
}

/// A file that the kubelet runs in place of a manifest that goes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Its local path.
    pub path: PathBuf,
    /// What it would do, in a sentence.
    pub why: String,
}

impl NodeLayout {
    /// The directory that the kubelet runs static pods from: what its configuration or its flags
    /// name, or `/etc/kubernetes/manifests`.
    pub fn manifests(&self) -> PathBuf {
        let found = self.static_pods.get_or_init(|| {
            kubelet::static_pod_path(self).unwrap_or_else(|| Path::new(KUBERNETES).join(MANIFESTS))
        });
        self.host(found)
    }

    /// Where a component's manifest is, or would be put; nothing if the profile has none. A
    /// manifest by another name than the usual one is known by its pod.
    pub fn manifest(&self, component: Component, profile: Profile) -> Option<PathBuf> {
        let usual = self.manifests().join(component.manifest_file(profile)?);
        if usual.symlink_metadata().is_ok() {
            return Some(usual);
        }
        let other = self
            .find_in(&self.manifests(), component, profile)
            .or_else(|| {
                let kept = self.disabled_manifest(component, profile)?;
                Some(self.manifests().join(kept.file_name()?))
            });
        Some(other.unwrap_or(usual))
    }

    /// A component's manifest as the node has it: live, or kept by `disable`.
    pub fn current_manifest(&self, component: Component, profile: Profile) -> Option<Current> {
        let live = self.manifest(component, profile)?;
        if live.symlink_metadata().is_ok() {
            let path = live;
            return Some(Current { path, live: true });
        }
        let path = self.disabled_manifest(component, profile)?;
        Some(Current { path, live: false })
    }

    /// Where `disable` keeps a component's manifest while it is in force: the newest one in
    /// `/etc/kubernetes/.etcd-dr/disable-*/manifests`; `None` if none is disabled.
    pub fn disabled_manifest(&self, component: Component, profile: Profile) -> Option<PathBuf> {
        let file = component.manifest_file(profile)?;
        let entries = fs::read_dir(self.kubernetes().join(".etcd-dr")).ok()?;
        let mut kept: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("disable-"))
            .map(|entry| entry.path().join("manifests"))
            .collect();
        // The names end with a time.
        kept.sort();
        kept.iter().rev().find_map(|dir| {
            let usual = dir.join(&file);
            if usual.symlink_metadata().is_ok() {
                return Some(usual);
            }
            self.find_in(dir, component, profile)
        })
    }

    /// The file of a folder whose pod is this component's.
    fn find_in(&self, dir: &Path, component: Component, profile: Profile) -> Option<PathBuf> {
        let key = component.pod_key(profile)?;
        let files = self.kubelet_files(dir).ok()?;
        files.into_iter().find(|path| {
            let pod = self.read_pod(path);
            pod.is_ok_and(|pod| pod.key() == key)
        })
    }

    /// The files of a folder that the kubelet reads as manifests, in its order.
    fn kubelet_files(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let hidden = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            name.as_encoded_bytes().starts_with(b".")
        };
        Ok(list(dir)?
            .into_iter()
            .filter(|path| !hidden(path))
            .filter(|path| {
                let real = self.manifest_content(path);
                real.is_ok_and(|real| fs::metadata(real).is_ok_and(|meta| meta.is_file()))
            })
            .collect())
    }

    /// Namespace and name of every pod that the kubelet has a manifest of; what cannot be
    /// read is left out.
    pub fn static_pod_keys(&self) -> Vec<(String, String)> {
        let files = self.kubelet_files(&self.manifests());
        let pods = files
            .into_iter()
            .flatten()
            .filter_map(|path| self.read_pod(&path).ok());
        pods.map(|pod| (pod.namespace, pod.name)).collect()
    }

    /// A note on a manifest that is a symbolic link; none for a regular file.
    pub fn link_note(&self, path: &Path) -> Option<String> {
        let target = fs::read_link(path).ok()?;
        Some(format!(
            "{} is a symbolic link to {}: a file replaces the link; its target is not changed",
            self.node_path(path).display(),
            target.display()
        ))
    }

    /// The file that a manifest's content is in: links are followed as the node would, also a
    /// relative one that has been moved out of the kubelet's folder.
    pub fn manifest_content(&self, path: &Path) -> Result<PathBuf> {
        match fs::read_link(path) {
            Ok(target) if target.is_relative() => {
                let manifests = self.node_path(&self.manifests());
                self.resolve(manifests.join(target))
            }
            _ => self.resolve(self.node_path(path)),
        }
    }

    /// A manifest's bytes.
    ///
    /// # Errors
    /// [`crate::error::Kind::Unexpected`] if it cannot be read or is too long.
    pub fn read_manifest(&self, path: &Path) -> Result<Vec<u8>> {
        read_bounded(&self.manifest_content(path)?, pod::MAX_BYTES)
    }

    /// The pod of a manifest.
    ///
    /// # Errors
    /// As those of [`read_manifest`](Self::read_manifest), and where it is not a pod's.
    pub fn read_pod(&self, path: &Path) -> Result<PodManifest> {
        let bytes = self.read_manifest(path)?;
        let doing = || format!("reading {}", self.node_path(path).display());
        PodManifest::parse(&bytes).map_err(|failure| failure.doing(doing()))
    }

    /// Files beside the manifests of these pods that the kubelet would run once those are gone:
    /// copies of them, and others that run an etcd with the same data directory (a local path).
    ///
    /// # Errors
    /// If the folder cannot be listed. A file that is not a pod's is not a pod for the kubelet either.
    pub fn rivals(
        &self,
        profile: Profile,
        pods: &[(Component, PodKey<'_>)],
        data_dir: &Path,
    ) -> Result<Vec<Rival>> {
        if pods.is_empty() {
            return Ok(Vec::new());
        }
        let own: Vec<PathBuf> = pods
            .iter()
            .filter_map(|(component, _)| self.manifest(*component, profile))
            .collect();
        let etcd = pods.iter().any(|(c, _)| *c == Component::Etcd);
        let mut rivals = Vec::new();
        for path in self.kubelet_files(&self.manifests())? {
            if own.contains(&path) {
                continue;
            }
            let Ok(pod) = self.read_pod(&path) else {
                continue;
            };
            if let Some((component, _)) = pods.iter().find(|(_, key)| *key == pod.key()) {
                let why = format!("it is another manifest of the {component} pod {}", pod.name);
                rivals.push(Rival { path, why });
            } else if etcd && self.runs_etcd_on(&pod, data_dir) {
                let data_dir = self.node_path(data_dir);
                let why = format!(
                    "its pod {} runs an etcd with the data directory {}",
                    pod.name,
                    data_dir.display()
                );
                rivals.push(Rival { path, why });
            }
        }
        Ok(rivals)
    }

    /// Whether a container of the pod runs an etcd with this data directory.
    fn runs_etcd_on(&self, pod: &PodManifest, data_dir: &Path) -> bool {
        let real = |path: PathBuf| self.resolve(&path).unwrap_or_else(|_| self.host(path));
        let wanted = real(self.node_path(data_dir));
        pod.containers.iter().any(|container| {
            let named = container
                .flag("data-dir")
                .or_else(|| container.env("ETCD_DATA_DIR"));
            container.runs("etcd")
                && named.is_some_and(|inside| {
                    let inside = Path::new(inside);
                    let path = pod.node_path(container, inside);
                    real(path.unwrap_or_else(|| inside.to_owned())) == wanted
                })
        })
    }

    /// Whether the node runs etcd and no other component of the control plane, and never did:
    /// kubeadm's external etcd nodes, arbiters. Certificates, kubeconfigs and revisions of the
    /// others tell a control plane whose manifests are gone.
    pub fn is_etcd_only(&self, profile: Profile) -> bool {
        let has = |component| self.current_manifest(component, profile).is_some();
        let others = || Component::ALL.into_iter().filter(|c| *c != Component::Etcd);
        let etcd = match profile {
            Profile::Bare => false,
            Profile::Kubeadm => has(Component::Etcd),
            // An archive has revisions only.
            Profile::Openshift => has(Component::Etcd) || self.has_resources_of(Component::Etcd),
        };
        etcd && !others().any(has) && !self.was_control_plane(profile, others())
    }

    fn was_control_plane(
        &self,
        profile: Profile,
        mut others: impl Iterator<Item = Component>,
    ) -> bool {
        let is_there = |path: PathBuf| path.symlink_metadata().is_ok();
        match profile {
            Profile::Openshift => others.any(|component| self.has_resources_of(component)),
            Profile::Kubeadm => [
                "controller-manager.conf",
                "scheduler.conf",
                "pki/apiserver.crt",
            ]
            .iter()
            .any(|name| is_there(self.kubernetes().join(name))),
            Profile::Bare => false,
        }
    }

    /// Whether OpenShift's resources have anything of a component's.
    fn has_resources_of(&self, component: Component) -> bool {
        let prefixes = [component.revision_prefix(), component.certs_dir()];
        list(&self.resources())
            .unwrap_or_default()
            .iter()
            .any(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                prefixes.iter().any(|prefix| name.starts_with(prefix))
            })
    }
}

impl Component {
    /// Its static pod's namespace and name, as the profile's own tools write them.
    pub fn pod_key(self, profile: Profile) -> Option<PodKey<'static>> {
        match profile {
            Profile::Openshift => Some(PodKey {
                namespace: self.namespace(),
                name: self.pod_name(),
            }),
            Profile::Kubeadm => Some(PodKey {
                namespace: "kube-system",
                name: self.name(),
            }),
            Profile::Bare => None,
        }
    }
}

impl PodManifest {
    /// What the kubelet tells this pod from others by.
    pub fn key(&self) -> PodKey<'_> {
        PodKey {
            namespace: &self.namespace,
            name: &self.name,
        }
    }
}

/// A copy of a manifest would be started by the kubelet.
pub const MANIFEST_COPY: &str = "manifest-copy";

/// Says which files rival a manifest, and what to do.
pub fn describe_rivals(layout: &NodeLayout, rivals: &[Rival]) -> String {
    let each = rivals.iter().map(|rival| {
        let path = layout.node_path(&rival.path);
        format!("{}: {}", path.display(), rival.why)
    });
    format!(
        "{}; the kubelet reads every file in {} whose name does not begin with a dot, and would start this one when the other is gone: move it out of that folder",
        each.collect::<Vec<_>>().join("; "),
        layout.node_path(&layout.manifests()).display()
    )
}

#[cfg(test)]
mod tests;
