//! The static pods of a node that is changed: reads and judges their manifests, and has the
//! refusals that all changes share.

use std::path::{Path, PathBuf};

use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::node::component::{Component, PodRevision};
use crate::node::detection::{Detection, ExternalEtcd};
use crate::node::layout::NodeLayout;
use crate::node::manifests::{MANIFEST_COPY, PodKey, describe_rivals};
use crate::node::pod::{MAX_BYTES, PodManifest, RevisionInUse};
use crate::node::profile::Profile;

/// The node has no manifest of the pod.
pub(crate) const NO_MANIFEST: &str = "no-manifest";
/// The node runs no static pods.
pub(crate) const NO_STATIC_PODS: &str = "no-static-pods";
/// The manifest is one that OpenShift's restore script made.
pub(crate) const RESTORE_POD: &str = "restore-pod";

/// A static pod of a backup or, with a snapshot alone, of the node.
pub(crate) struct PodSeen {
    pub(crate) component: Component,
    /// The revision it is of, if there are revisions.
    pub(crate) revision: Option<PodRevision>,
    pub(crate) pod: PodManifest,
    /// Its manifest's name in the archive, or the node path if it is the node's own manifest.
    pub(crate) manifest: PathBuf,
}

/// A static pod's manifest as it was found.
pub(crate) struct Found {
    pub(crate) component: Component,
    /// Its host path.
    pub(crate) path: PathBuf,
    /// The file with its content: another one where it is a link.
    pub(crate) content: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) pod: PodManifest,
}

/// Reads the manifest at a host path; `None` if there is no such file.
///
/// # Errors
/// Those of reading it, and of a file that is not a pod.
pub(crate) fn read(
    layout: &NodeLayout,
    component: Component,
    path: &Path,
) -> Result<Option<Found>> {
    let content = layout.manifest_content(path)?;
    let Some(bytes) = crate::sys::small::read(&content, MAX_BYTES)? else {
        return Ok(None);
    };
    let pod = PodManifest::parse(&bytes)?;
    Ok(Some(Found {
        component,
        path: path.to_owned(),
        content,
        bytes,
        pod,
    }))
}

impl Found {
    /// Its revision, if the profile has revisions.
    ///
    /// # Errors
    /// [`RESTORE_POD`], which nothing overrides; those of a manifest without a revision.
    pub(crate) fn revision(&self, profile: Profile) -> Result<Option<PodRevision>> {
        if profile != Profile::Openshift {
            return Ok(None);
        }
        match self.pod.revision(self.component) {
            Ok(RevisionInUse::Revision(revision)) => Ok(Some(revision)),
            Ok(RevisionInUse::RestorePod { .. }) => {
                let what = format!(
                    "{} is a restore pod of OpenShift's scripts, which cannot be stopped and started \
                     again: put the manifest of a normal revision in place, or use a backup that has \
                     the static pods",
                    self.path.display()
                );
                Err(Failure::refused_for_good(RESTORE_POD, what))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// The revisions of a component on the disk, by number.
///
/// # Errors
/// Those of listing them.
pub(crate) fn revisions(layout: &NodeLayout, component: Component) -> Result<Vec<PodRevision>> {
    let dir = layout.resources();
    let doing = || format!("listing {}", dir.display());
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(Kind::Store, doing)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.doing(Kind::Store, doing)?.file_name();
        let revision = name.to_str().and_then(PodRevision::from_dir_name);
        found.extend(revision.filter(|revision| revision.component == component));
    }
    found.sort();
    Ok(found)
}

/// The manifest of etcd's newest revision on the disk, as a host path: OpenShift keeps one for each
/// revision.
///
/// # Errors
/// Those of [`revisions`].
pub(crate) fn newest_etcd(layout: &NodeLayout) -> Result<Option<PathBuf>> {
    let newest = revisions(layout, Component::Etcd)?.pop();
    Ok(newest.map(|revision| layout.revision(revision).join("etcd-pod.yaml")))
}

/// The refusal of a node without static pods.
pub(crate) fn no_static_pods(then: &str) -> Failure {
    let what = format!("this node has no static pods: {then}");
    Failure::refused_for_good(NO_STATIC_PODS, what)
}

/// Refuses nodes whose etcd is not a static pod of their own.
///
/// # Errors
/// [`Kind::Refused`], which nothing overrides.
pub(crate) fn refuse_what_is_not_ours(detection: &Detection) -> Result<()> {
    if !detection.two_node_fencing.is_empty() {
        return Err(Failure::refused_for_good(
            "two-node-fencing",
            format!(
                "Pacemaker owns etcd on this node ({}): a restore must go through Pacemaker. With the backup's snapshot in DIR, on one node: sudo pcs resource disable etcd && sudo /usr/local/bin/cluster-restore.sh DIR, which restores and starts etcd with force_new_cluster",
                detection.two_node_fencing.join("; ")
            ),
        ));
    }
    if let Some(sign) = &detection.arbiter {
        return Err(Failure::refused_for_good(
            "arbiter-node",
            format!(
                "this is an arbiter ({sign}): it has etcd, but no API server. Restore on one of the two control-plane nodes; then move /var/lib/etcd/member aside here, and let the arbiter join again"
            ),
        ));
    }
    if let Some(external) = &detection.external_etcd {
        return Err(external_refusal(external));
    }
    Ok(())
}

/// The refusal of a node whose etcd is not a static pod.
pub(crate) fn external_refusal(external: &ExternalEtcd) -> Failure {
    let failure = Failure::refused_for_good("external-etcd", external.told());
    match &external.service {
        Some(unit) => failure.with(Fact::HostService(unit.clone())),
        None => failure,
    }
}

/// Refuses copies next to the manifests of these pods: the kubelet could start them instead.
pub(crate) fn refuse_copies(
    layout: &NodeLayout,
    profile: Profile,
    pods: &[(Component, PodKey<'_>)],
    data_dir: &Path,
) -> Result<()> {
    let rivals = layout.rivals(profile, pods, data_dir)?;
    if rivals.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::refused_for_good(MANIFEST_COPY, describe_rivals(layout, &rivals));
    for rival in rivals {
        failure = failure.with(Fact::Path(layout.node_path(&rival.path)));
    }
    Err(failure)
}
