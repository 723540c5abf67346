//! The survey before a plan: reads the whole backup, and looks at the node.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::fit;
use super::request::Request;
use crate::backup::resources::{
    ArchiveContents, STATIC_POD_RESOURCES, check_archive, extract_to_look,
};
use crate::change::transaction::info::Scope;
use crate::change::transaction::pods::{
    self, NO_MANIFEST, PodSeen, no_static_pods, refuse_copies, refuse_what_is_not_ours, revisions,
};
use crate::change::transaction::steps::unpack::rules;
use crate::cluster::connect;
use crate::context::Context;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::kubernetes::ClusterVersion;
use crate::etcd::restore::RAW_COPY;
use crate::etcd::snapshot::{DatabaseFacts, Trailer};
use crate::inspect::verify;
use crate::keep::catalog::SetState;
use crate::keep::database;
use crate::node::access::{EtcdAccess, find_access};
use crate::node::collect::OUTSIDE;
use crate::node::component::{Component, PodRevision};
use crate::node::detection::{Detection, look};
use crate::node::layout::{KUBERNETES, NodeLayout};
use crate::node::profile::Profile;
use crate::sys::scratch::Scratch;
use crate::sys::space::space;

/// Everything that was seen.
pub(super) struct Survey {
    pub(super) profile: Profile,
    pub(super) access: EtcdAccess,
    /// The same with certificates that can be read now: the backup's, if the node has lost its own.
    pub(super) asking: EtcdAccess,
    /// The node's name.
    pub(super) node: String,
    pub(super) pods: Vec<PodSeen>,
    /// Whether the backup has an archive of resources that is used.
    pub(super) has_resources: bool,
    /// The refusal of static pods that are not this node's, and why.
    pub(super) misfit: Option<(&'static str, String)>,
    /// The archives' content, as a node's root.
    pub(super) unpacked: NodeLayout,
    /// What the archive of resources has, each with all below it.
    pub(super) roots: Vec<PathBuf>,
    pub(super) facts: DatabaseFacts,
    pub(super) version: Option<ClusterVersion>,
    /// The uid of the namespace `kube-system`.
    pub(super) kube_system_uid: Option<String>,
    pub(super) unsealed: bool,
    /// What is rolled back: etcd alone, if this node or the backup's runs nothing else.
    pub(super) scope: Scope,
    _scratch: Scratch,
}

impl Survey {
    /// Makes the survey. Writes only to a scratch directory, which is removed again.
    pub(super) async fn make(context: &Context, request: &Request) -> Result<Self> {
        let (facts, version, kube_system_uid, unsealed) = verified(context, request).await?;
        let scratch = Scratch::make(&request.scratch, "plan")?;
        let unpacked = NodeLayout::new(scratch.path());
        let roots = unpack(request, &unpacked)?;
        let profile = profile(context, request, &unpacked)?;
        let layout = &request.options.target.layout;
        let access = access(context, request, profile, &unpacked)?;
        let asking = asking(context, layout, &unpacked, &access);
        let node = access.own_name()?;
        let has_resources = request.set.files.resources.is_some();
        let source = if has_resources { &unpacked } else { layout };
        let scope = match request.options.scope {
            Scope::ControlPlane if source.is_etcd_only(profile) => Scope::Etcd,
            scope => scope,
        };
        if scope == Scope::ControlPlane && !has_resources {
            return Err(no_pods(request));
        }
        let pods = |from_backup: bool| -> Result<Vec<PodSeen>> {
            let components = scope.components().iter();
            components
                .map(|component| match from_backup {
                    true => pod_of_backup(&unpacked, profile, *component),
                    false => pod_of_node(layout, profile, *component),
                })
                .collect()
        };
        let mut seen = pods(has_resources)?;
        let mut misfit = None;
        if has_resources {
            misfit = fit::misfit(request, &access, &node, &seen);
        }
        // To restore etcd alone, the node's own pods suffice.
        let own_pod = scope == Scope::Etcd && misfit.is_some();
        if own_pod {
            seen = pods(false)?;
        }
        Ok(Self {
            profile,
            access,
            asking,
            node,
            pods: seen,
            has_resources: has_resources && !own_pod,
            misfit,
            unpacked,
            roots,
            facts,
            version,
            kube_system_uid,
            unsealed,
            scope,
            _scratch: scratch,
        })
    }

    /// Refuses copies of the manifests that are to be stopped.
    pub(super) fn refuse_copies(&self, layout: &NodeLayout) -> Result<()> {
        let pods = self
            .pods
            .iter()
            .map(|seen| (seen.component, seen.pod.key()));
        let data_dir = self.access.data_dir_in(layout);
        refuse_copies(layout, self.profile, &pods.collect::<Vec<_>>(), &data_dir)
    }

    /// The pod of a component, where it is in scope.
    pub(super) fn pod(&self, component: Component) -> Option<&PodSeen> {
        self.pods.iter().find(|pod| pod.component == component)
    }

    /// The control-plane nodes that are members in the backup, and this one.
    pub(super) fn nodes(&self) -> Vec<String> {
        let members = self.facts.members.iter().map(|member| member.name.clone());
        let all: BTreeSet<String> = members
            .filter(|name| !name.is_empty())
            .chain([self.node.clone()])
            .collect();
        all.into_iter().collect()
    }
}

fn no_pods(request: &Request) -> Failure {
    let what = format!(
        "{} has only a snapshot, and no static pods to roll back",
        request.set.name
    );
    Failure::new(Kind::Usage, what).with(Fact::Missing("scope"))
}

/// Reads all of the set; nothing overrides what is broken.
async fn verified(
    context: &Context,
    request: &Request,
) -> Result<(DatabaseFacts, Option<ClusterVersion>, Option<String>, bool)> {
    let set = request.set.clone();
    if set.state == SetState::Incomplete {
        let what = format!(
            "restoring {}: it is incomplete: {}",
            set.name,
            set.problems.join("; ")
        );
        return Err(Failure::new(Kind::BadBackup, what));
    }
    let name = set.name.clone();
    let inner = context.clone();
    let report = tokio::task::spawn_blocking(move || verify::run(&inner, &set))
        .await
        .doing(Kind::Unexpected, || "running a thread")??;
    if !report.good {
        let first = report
            .findings
            .iter()
            .find(|finding| finding.severity == crate::finding::Severity::Error);
        let what = first.map_or_else(|| "it is broken".to_owned(), ToString::to_string);
        return Err(
            Failure::new(Kind::BadBackup, what).doing(format!("verifying {name}, to restore it"))
        );
    }
    let database = report.database.ok_or_else(|| {
        Failure::new(
            Kind::BadBackup,
            format!("restoring {name}: it has no snapshot"),
        )
    })?;
    let version = match database::cluster_version(&database) {
        Some(Ok(version)) => Some(version),
        Some(Err(why)) => {
            context.warn(
                "object-unreadable",
                format!("ClusterVersion in {name}: {why}"),
            );
            None
        }
        None => None,
    };
    let uid = database::kube_system_uid(&database);
    let mut unsealed = matches!(database.trailer, Trailer::Unsealed);
    if unsealed && database.raw_copy {
        context.warn("snapshot-state", RAW_COPY);
        unsealed = false;
    }
    let facts = database.facts.ok_or_else(|| {
        Failure::new(
            Kind::BadBackup,
            format!("restoring {name}: the database is not readable"),
        )
    })?;
    Ok((facts, version, uid, unsealed))
}

/// Unpacks the backup's archives into a directory that can be read as a node's root.
fn unpack(request: &Request, unpacked: &NodeLayout) -> Result<Vec<PathBuf>> {
    let into = unpacked.kubernetes();
    let make = |path: &Path| {
        std::fs::create_dir_all(path).doing(Kind::Store, || format!("making {}", path.display()))
    };
    make(&into)?;
    let Some(resources) = &request.set.files.resources else {
        return Ok(Vec::new());
    };
    let certificates = request.set.files.certificates.as_ref();
    let looked = contents(resources)?;
    let mut needed = looked.content_bytes();
    if let Some(certificates) = certificates {
        needed = needed.saturating_add(contents(certificates)?.content_bytes());
    }
    space(&into)?.check(needed, "the backup's files, to read them")?;
    extract_to_look(resources, &into, &rules())?;
    let roots = archive_roots(&looked);
    for root in &roots {
        // Files from elsewhere on the node are below that root, too.
        let (from, to) = (into.join(root), unpacked.host(node_path(root)));
        if from != to && to.symlink_metadata().is_err() {
            make(crate::sys::fs::parent(&to))?;
            std::fs::rename(&from, &to)
                .doing(Kind::Store, || format!("moving {}", to.display()))?;
        }
    }
    let Some(certificates) = certificates else {
        return Ok(roots);
    };
    // Both archives begin with the same directory, and each needs an empty target.
    let beside = unpacked.host("/certificates");
    make(&beside)?;
    extract_to_look(certificates, &beside, &rules())?;
    let from = beside.join(STATIC_POD_RESOURCES);
    make(&unpacked.resources())?;
    let listing = || format!("listing {}", from.display());
    for entry in std::fs::read_dir(&from).doing(Kind::Store, listing)? {
        let entry = entry.doing(Kind::Store, listing)?;
        let to = unpacked.resources().join(entry.file_name());
        std::fs::rename(entry.path(), &to)
            .doing(Kind::Store, || format!("moving {}", to.display()))?;
    }
    Ok(roots)
}

/// The node path of a name in the archive of resources.
pub(super) fn node_path(name: &Path) -> PathBuf {
    match name.strip_prefix(OUTSIDE) {
        Ok(below) => Path::new("/").join(below),
        Err(_) => Path::new(KUBERNETES).join(name),
    }
}

/// What is in an archive.
fn contents(archive: &Path) -> Result<ArchiveContents> {
    let doing = || format!("reading {}", archive.display());
    let file = std::fs::File::open(archive).doing(Kind::Store, doing)?;
    let report = check_archive(file, &rules()).map_err(|failure| failure.doing(doing()))?;
    Ok(report.contents)
}

/// The entries of an archive that are in no other one.
fn archive_roots(contents: &ArchiveContents) -> Vec<PathBuf> {
    let names: BTreeSet<&Path> = contents
        .entries
        .iter()
        .map(|entry| entry.name.as_path())
        .collect();
    let is_root = |name: &&&Path| !name.ancestors().skip(1).any(|above| names.contains(above));
    names
        .iter()
        .filter(is_root)
        .map(|name| name.to_path_buf())
        .collect()
}

/// The node's profile; the backup's, if the node has lost all files that tell it.
fn profile(context: &Context, request: &Request, unpacked: &NodeLayout) -> Result<Profile> {
    let detection = request.options.target.detect(context)?;
    refuse_what_is_not_ours(&detection)?;
    if request.set.files.resources.is_none() {
        return if detection.profile == Profile::Bare {
            Err(bare())
        } else {
            Ok(detection.profile)
        };
    }
    let of_set = if unpacked.resources().is_dir() {
        Profile::Openshift
    } else {
        Profile::Kubeadm
    };
    match detection.profile {
        Profile::Bare if request.options.target.profile == Some(Profile::Bare) => Err(bare()),
        Profile::Bare => Ok(of_set),
        profile if profile == of_set => Ok(profile),
        profile => Err(Failure::refused_for_good(
            "profile-mismatch",
            format!(
                "the backup was taken on a node of profile {of_set}, but this node is {profile}"
            ),
        )),
    }
}

fn bare() -> Failure {
    no_static_pods("only a data directory can be built here")
}

/// How to reach etcd; by the backup's certificates, if the node has none.
fn access(
    context: &Context,
    request: &Request,
    profile: Profile,
    unpacked: &NodeLayout,
) -> Result<EtcdAccess> {
    let layout = &request.options.target.layout;
    // The node may have lost the files that tell its profile.
    let detection = Detection {
        profile,
        ..look(layout, Some(profile))?
    };
    let first = match find_access(layout, &detection, &request.options.target.overrides) {
        Ok(access) => return Ok(access),
        Err(failure) => failure,
    };
    let Ok(mut access) = find_access(unpacked, &detection, &request.options.target.overrides)
    else {
        return Err(first);
    };
    context.warn(
        "access-from-backup",
        format!("this node does not say how to reach its etcd; the backup does: {first}"),
    );
    let ours = |path: &mut PathBuf| *path = layout.host(unpacked.node_path(path));
    if let Some(tls) = &mut access.tls {
        if let Some(ca) = &mut tls.ca {
            ours(&mut ca.value);
        }
        if let Some(identity) = &mut tls.identity {
            ours(&mut identity.cert.value);
            ours(&mut identity.key.value);
        }
    }
    if let Some(data_dir) = &mut access.data_dir {
        ours(&mut data_dir.value);
    }
    Ok(access)
}

/// How to ask members before the backup's files are in place.
fn asking(
    context: &Context,
    layout: &NodeLayout,
    unpacked: &NodeLayout,
    access: &EtcdAccess,
) -> EtcdAccess {
    let Err(failure) = connect::options(access) else {
        return access.clone();
    };
    let theirs = |path: &mut PathBuf| *path = unpacked.host(layout.node_path(path));
    let mut other = access.clone();
    if let Some(tls) = &mut other.tls {
        if let Some(ca) = &mut tls.ca {
            theirs(&mut ca.value);
        }
        if let Some(identity) = &mut tls.identity {
            theirs(&mut identity.cert.value);
            theirs(&mut identity.key.value);
        }
    }
    let (how, access) = match connect::options(&other) {
        Ok(_) => ("the backup's are used to ask other members", other),
        Err(_) => ("the backup has none either", access.clone()),
    };
    context.warn(
        "certificates-from-backup",
        format!("this node's certificates cannot be used ({failure}): {how}"),
    );
    access
}

/// The one pod of a component in the backup's archive.
fn pod_of_backup(unpacked: &NodeLayout, profile: Profile, component: Component) -> Result<PodSeen> {
    let (path, revision) = if profile == Profile::Openshift {
        let revision = only_revision(unpacked, component)?;
        let file = format!("{component}-pod.yaml");
        (unpacked.revision(revision).join(file), Some(revision))
    } else {
        (live(unpacked, profile, component)?, None)
    };
    let doing = || {
        let path = unpacked.node_path(&path);
        format!(
            "reading the {component} pod's manifest {} of the backup",
            path.display()
        )
    };
    let bad = |failure: Failure| failure.as_kind(Kind::BadBackup).doing(doing());
    let found = pods::read(unpacked, component, &path).map_err(bad)?;
    let found = found.ok_or_else(|| bad(Failure::new(Kind::BadBackup, "there is no such file")))?;
    let manifest = found
        .content
        .strip_prefix(unpacked.kubernetes())
        .map(Path::to_owned)
        .doing(Kind::Unexpected, || "naming a manifest")?;
    Ok(PodSeen {
        component,
        revision,
        pod: found.pod,
        manifest,
    })
}

/// The pod of a component as the node has it.
fn pod_of_node(layout: &NodeLayout, profile: Profile, component: Component) -> Result<PodSeen> {
    let path = live(layout, profile, component)?;
    let doing = || {
        let path = layout.node_path(&path);
        format!(
            "reading the {component} pod's manifest {} of this node",
            path.display()
        )
    };
    let refused = |failure: Failure| failure.as_kind(Kind::Refused).doing(doing());
    let found = pods::read(layout, component, &path).map_err(refused)?;
    let found = found.ok_or_else(|| {
        let none = Failure::refused_for_good(NO_MANIFEST, "there is no such file");
        none.doing(doing())
            .with(Fact::Moved(layout.node_path(&path)))
    })?;
    Ok(PodSeen {
        component,
        revision: found.revision(profile).map_err(refused)?,
        manifest: layout.node_path(&found.content),
        pod: found.pod,
    })
}

/// Where the manifest of a component is, or would be.
fn live(layout: &NodeLayout, profile: Profile, component: Component) -> Result<PathBuf> {
    match layout.current_manifest(component, profile) {
        Some(current) => Ok(current.path),
        None => layout.manifest(component, profile).ok_or_else(bare),
    }
}

/// The one revision of a component that an archive holds.
fn only_revision(unpacked: &NodeLayout, component: Component) -> Result<PodRevision> {
    let all = revisions(unpacked, component)?;
    match all.as_slice() {
        [one] => Ok(*one),
        several => Err(Failure::new(
            Kind::BadBackup,
            format!(
                "expected one revision of {component} in the backup, found {}",
                if several.is_empty() {
                    "none".to_owned()
                } else {
                    several
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                }
            ),
        )),
    }
}
