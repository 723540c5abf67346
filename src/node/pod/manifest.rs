//! A static pod as its manifest describes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::container::{Container, RunAs};
use super::fields::{NodeFacts, PodFields};
use super::path::plain_absolute;
use crate::error::{Failure, Kind, Result};
use crate::node::component::{Component, PodRevision};
use crate::node::layout::{KUBERNETES, STATIC_POD_RESOURCES};

/// The volume whose host path names the revision in use.
const RESOURCE_DIR: &str = "resource-dir";

/// What only a restore pod of OpenShift mounts.
const RESTORE_POD_VOLUME: &str = "backup-dir";

/// A static pod as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodManifest {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; the kubelet's `default` if the manifest has none.
    pub namespace: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Containers, in order.
    pub containers: Vec<Container>,
    /// Init containers, in order.
    pub init_containers: Vec<Container>,
    /// Volumes that are host paths, by name.
    pub host_paths: BTreeMap<String, PathBuf>,
    /// The user and the group that the pod's `securityContext` names.
    pub run_as: RunAs,
}

/// Which revision a live manifest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevisionInUse {
    /// The revision its `resource-dir` volume names.
    Revision(PodRevision),
    /// A restore pod of OpenShift's scripts: it runs no revision until the operator rolls out a
    /// normal pod. Its `revision` label tells only which installer laid its template down.
    RestorePod {
        /// The `revision` label.
        label: Option<String>,
    },
}

impl PodManifest {
    /// The pod with its references to variables replaced as the kubelet of this node does.
    pub fn resolved(mut self, facts: &NodeFacts) -> Self {
        let fields = PodFields {
            name: &self.name,
            namespace: &self.namespace,
            labels: &self.labels,
            annotations: &self.annotations,
            node: facts,
        };
        for container in self.containers.iter_mut().chain(&mut self.init_containers) {
            container.resolve(|path| fields.value(path));
        }
        self
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The revision that the manifest runs, for a component on OpenShift.
    pub fn revision(&self, component: Component) -> Result<RevisionInUse> {
        let Some(dir) = self.host_paths.get(RESOURCE_DIR) else {
            if component == Component::Etcd && self.host_paths.contains_key(RESTORE_POD_VOLUME) {
                return Ok(RevisionInUse::RestorePod {
                    label: self.labels.get("revision").cloned(),
                });
            }
            return Err(bad(format!(
                "expected a host path volume \"{RESOURCE_DIR}\" that names the revision in use, \
                 found none"
            )));
        };
        let resources = Path::new(KUBERNETES).join(STATIC_POD_RESOURCES);
        let revision = (dir.parent() == Some(resources.as_path()))
            .then(|| PodRevision::from_dir_name(dir.file_name()?.to_str()?))
            .flatten()
            .filter(|revision| revision.component == component);
        match revision {
            Some(revision) => Ok(RevisionInUse::Revision(revision)),
            None => Err(bad(format!(
                "expected \"{RESOURCE_DIR}\" to be {}/{}N, found {}",
                resources.display(),
                component.revision_prefix(),
                dir.display()
            ))),
        }
    }

    /// The user and, where it is named, the group that a container runs as, its own choice before
    /// the pod's; `None` if only the image tells. If no container has this name the first is
    /// meant.
    pub fn runs_as(&self, name: &str) -> Option<(u32, Option<u32>)> {
        let own = self.container(name).or(self.containers.first())?.run_as;
        let user = own.user.or(self.run_as.user)?;
        Some((user, own.group.or(self.run_as.group)))
    }

    /// The node path behind a path inside a container, if a host path is mounted there.
    pub fn node_path(&self, container: &Container, inside: &Path) -> Option<PathBuf> {
        let inside = plain_absolute(inside)?;
        container
            .mounts
            .iter()
            .filter(|mount| inside.starts_with(&mount.path))
            // The deepest mount hides those above it.
            .max_by_key(|mount| mount.path.components().count())
            .and_then(|mount| {
                let below = inside.strip_prefix(&mount.path).ok()?;
                let mut path = self.host_paths.get(&mount.volume)?.clone();
                path.extend(mount.sub_path.iter());
                path.extend(below.iter());
                Some(path)
            })
    }
}

fn bad(what: String) -> Failure {
    Failure::new(Kind::Unexpected, what)
}
