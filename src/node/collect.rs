//! What a backup must archive of this node, and whether a rollout changed it in the meantime.

mod named;
mod resources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::component::{Component, PodRevision};
use super::files::{exists, list, read_bounded};
use super::layout::{MANIFESTS, NodeLayout, STATIC_POD_RESOURCES};
use super::pod::{self, PodManifest, RevisionInUse};
use super::profile::Profile;
use crate::error::{Doing, Failure, Kind, Result};

pub use resources::{CollectList, Elsewhere, LiveComponent, OUTSIDE, Problem, ResourcePlan};

/// Directories that an installer fills before it swaps them into place; never in use.
const STAGING: &str = "staging";

/// A larger file is not archived.
const MAX_ARCHIVED: u64 = 256 << 20;

/// More files than this are no static-pod resources.
const MAX_FILES: usize = 1_000_000;

/// Reads the live manifests and lists what a backup must archive.
pub fn resource_plan(layout: &NodeLayout, profile: Profile) -> Result<ResourcePlan> {
    let mut plan = ResourcePlan {
        components: Vec::new(),
        resources: CollectList {
            base: layout.kubernetes(),
            ..CollectList::default()
        },
        certs: None,
        problems: Vec::new(),
        left_out: Vec::new(),
        notes: Vec::new(),
    };
    let etcd_only = layout.is_etcd_only(profile);
    if etcd_only {
        plan.notes.push("this node runs only etcd".to_owned());
    }
    let runs = |component: &Component| !etcd_only || *component == Component::Etcd;
    let components: Vec<Component> = Component::ALL.into_iter().filter(runs).collect();
    let mut pods = Vec::new();
    for component in &components {
        pods.extend(plan.read_component(layout, profile, *component)?);
    }
    match profile {
        Profile::Openshift => {
            for (component, pod, bytes) in &pods {
                plan.add_revision(layout, *component, pod, bytes)?;
            }
            plan.add_certs(layout, &components)?;
        }
        Profile::Kubeadm => {
            plan.add_kubeadm(layout)?;
            // Without its encryption configuration an encrypted backup is unreadable, and without
            // its audit policy an API server does not start.
            named::add(&mut plan, layout, &pods)?;
        }
        Profile::Bare => {}
    }
    Ok(plan)
}

impl ResourcePlan {
    fn problem(&mut self, name: &'static str, component: Component, message: String) {
        self.problems.push(Problem {
            name,
            component,
            message,
        });
    }

    fn read_component(
        &mut self,
        layout: &NodeLayout,
        profile: Profile,
        component: Component,
    ) -> Result<Option<(Component, PodManifest, Vec<u8>)>> {
        let current = layout.current_manifest(component, profile);
        let is_there = current.is_some();
        let path = current.map(|current| current.path);
        let Some(manifest) = path.or_else(|| layout.manifest(component, profile)) else {
            return Ok(None);
        };
        let mut live = LiveComponent {
            component,
            manifest: manifest.clone(),
            manifest_sha256: None,
            revision: None,
            image: None,
        };
        let mut read = None;
        if is_there {
            let bytes = layout.read_manifest(&manifest);
            let parsed = bytes.and_then(|bytes| {
                live.manifest_sha256 = Some(Sha256::digest(&bytes).into());
                let pod = PodManifest::parse(&bytes)
                    .map_err(|e| e.doing(format!("reading {}", manifest.display())))?;
                Ok((pod, bytes))
            });
            match parsed {
                Ok((pod, bytes)) => {
                    let main = pod.container(component.name()).or(pod.containers.first());
                    live.image = main.map(|container| container.image.clone());
                    read = Some((component, pod, bytes));
                }
                Err(failure) => {
                    self.problem("manifest-unreadable", component, failure.to_string());
                }
            }
        } else {
            let path = layout.node_path(&manifest);
            self.problem(
                "manifest-missing",
                component,
                format!("{} does not exist", path.display()),
            );
        }
        self.components.push(live);
        Ok(read)
    }

    fn add_revision(
        &mut self,
        layout: &NodeLayout,
        component: Component,
        pod: &PodManifest,
        live_bytes: &[u8],
    ) -> Result<()> {
        let revision = match pod.revision(component) {
            Ok(RevisionInUse::Revision(revision)) => revision,
            Ok(RevisionInUse::RestorePod { label }) => {
                let label = label.map_or("no revision label".to_owned(), |l| {
                    format!("label revision={l}")
                });
                let message = format!(
                    "a restore pod runs ({label}): no revision is in use until the operator has \
                     rolled out a normal pod"
                );
                self.problem("restore-pod-running", component, message);
                return Ok(());
            }
            Err(failure) => {
                let message = format!("the live manifest of {component}: {failure}");
                self.problem("revision-unknown", component, message);
                return Ok(());
            }
        };
        if let Some(live) = self
            .components
            .iter_mut()
            .find(|c| c.component == component)
        {
            live.revision = Some(revision);
        }
        let dir = layout.revision(revision);
        let own = dir.join(format!("{component}-pod.yaml"));
        if !exists(&own)? {
            let path = layout.node_path(&own);
            self.problem(
                "revision-missing",
                component,
                format!("{} does not exist", path.display()),
            );
            if !exists(&dir)? {
                return Ok(());
            }
        } else if read_bounded(&own, pod::MAX_BYTES).ok().as_deref() != Some(live_bytes) {
            self.notes.push(format!(
                "the live manifest of {component} differs from {}",
                layout.node_path(&own).display()
            ));
        }
        let entry = Path::new(STATIC_POD_RESOURCES).join(revision.to_string());
        self.resources.skip.push(entry.join(STAGING));
        self.resources.entries.push(entry);
        Ok(())
    }

    fn add_certs(&mut self, layout: &NodeLayout, components: &[Component]) -> Result<()> {
        let mut certs = CollectList {
            base: layout.kubernetes(),
            ..CollectList::default()
        };
        for component in components {
            let component = *component;
            if !exists(&layout.certs(component))? {
                self.notes.push(format!(
                    "{} does not exist",
                    layout.node_path(&layout.certs(component)).display()
                ));
                continue;
            }
            let entry = Path::new(STATIC_POD_RESOURCES).join(component.certs_dir());
            certs.skip.push(entry.join(STAGING));
            certs.entries.push(entry);
        }
        self.certs = Some(certs);
        Ok(())
    }

    fn add_kubeadm(&mut self, layout: &NodeLayout) -> Result<()> {
        let has_extension = |path: &PathBuf, wanted: &[&str]| {
            path.extension()
                .and_then(|e| e.to_str())
                .is_some_and(|e| wanted.contains(&e))
        };
        let live: Vec<PathBuf> = self.components.iter().map(|c| c.manifest.clone()).collect();
        let (mut paths, moved): (Vec<PathBuf>, Vec<PathBuf>) = list(&layout.manifests())?
            .into_iter()
            .filter(|path| has_extension(path, &["yaml", "yml", "json"]))
            .chain(live)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter(|path| path.symlink_metadata().is_ok())
            .partition(|path| path.parent() == Some(&layout.kubernetes().join(MANIFESTS)));
        for path in moved {
            self.add_manifest(layout, &path)?;
        }
        // An absolute link leads below the root here, not where the kernel would follow it.
        if layout.pki().is_symlink() || exists(&layout.pki())? {
            paths.push(layout.pki());
        }
        paths.extend(
            list(&layout.kubernetes())?
                .into_iter()
                .filter(|path| has_extension(path, &["conf"])),
        );
        for path in paths {
            let Ok(name) = path
                .strip_prefix(layout.kubernetes())
                .map(Path::to_path_buf)
            else {
                continue;
            };
            if path.is_symlink() {
                let source = layout.resolve(layout.node_path(&path))?;
                self.notes.push(format!(
                    "{} is a symbolic link; its target, {}, is archived in its place",
                    layout.node_path(&path).display(),
                    layout.node_path(&source).display()
                ));
                self.resources.elsewhere.push(Elsewhere { source, name });
            } else {
                self.resources.entries.push(name);
            }
        }
        Ok(())
    }

    /// Adds a manifest that is not in `/etc/kubernetes/manifests` on this node, but is there in
    /// every archive: what a restore puts in place does not depend on where it was.
    fn add_manifest(&mut self, layout: &NodeLayout, path: &Path) -> Result<()> {
        let source = layout.manifest_content(path)?;
        let name = Path::new(MANIFESTS).join(path.file_name().unwrap_or_default());
        self.notes.push(format!(
            "{} is archived as {}",
            layout.node_path(path).display(),
            name.display()
        ));
        self.resources.elsewhere.push(Elsewhere { source, name });
        Ok(())
    }
}

/// What would be different if a rollout had come in between: revisions in use, manifests, and
/// every archived file's name, size, times and owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    components: Vec<LiveComponent>,
    resources: CollectList,
    files: BTreeMap<PathBuf, Stat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    inode: u64,
    modified: (i64, i64),
}

/// Takes the fingerprint of what is in use now.
pub fn rollout_fingerprint(layout: &NodeLayout, profile: Profile) -> Result<Fingerprint> {
    let plan = resource_plan(layout, profile)?;
    let mut files = BTreeMap::new();
    let list = &plan.resources;
    for entry in &list.entries {
        stat_tree(&list.base.join(entry), entry, &list.skip, &mut files)?;
    }
    for elsewhere in &list.elsewhere {
        stat_tree(&elsewhere.source, &elsewhere.name, &[], &mut files)?;
    }
    Ok(Fingerprint {
        components: plan.components,
        resources: plan.resources,
        files,
    })
}

fn stat_tree(
    source: &Path,
    name: &Path,
    skip: &[PathBuf],
    files: &mut BTreeMap<PathBuf, Stat>,
) -> Result<()> {
    let mut todo = vec![(source.to_path_buf(), name.to_path_buf())];
    while let Some((source, name)) = todo.pop() {
        if skip.contains(&name) {
            continue;
        }
        let meta = match fs::symlink_metadata(&source) {
            Ok(meta) => meta,
            // It went away since it was listed: the other fingerprint will have it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                return Err(e).doing(Kind::Unexpected, || {
                    format!("looking at {}", source.display())
                });
            }
        };
        // A directory's size and time change with what it holds, which is compared itself.
        let is_dir = meta.is_dir();
        let stat = Stat {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            size: if is_dir { 0 } else { meta.size() },
            inode: meta.ino(),
            modified: if is_dir {
                (0, 0)
            } else {
                (meta.mtime(), meta.mtime_nsec())
            },
        };
        if files.len() >= MAX_FILES {
            return Err(Failure::new(
                Kind::Unexpected,
                format!("listing {}: more than {MAX_FILES} files", source.display()),
            ));
        }
        files.insert(name.clone(), stat);
        if is_dir {
            for child in list(&source)? {
                let below = child
                    .file_name()
                    .map(|file| name.join(file))
                    .unwrap_or_default();
                todo.push((child, below));
            }
        }
    }
    Ok(())
}

impl Fingerprint {
    /// Bytes of all files together that are archived.
    pub fn total_size(&self) -> u64 {
        self.files
            .values()
            .map(|stat| stat.size)
            .filter(|size| *size <= MAX_ARCHIVED)
            .fold(0, u64::saturating_add)
    }

    /// What is different in a later one, in sentences; none if nothing changed.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut told = Vec::new();
        for (before, after) in self.components.iter().zip(&later.components) {
            let name = before.component;
            if before.revision != after.revision {
                let show = |r: Option<PodRevision>| r.map_or("none".to_owned(), |r| r.to_string());
                told.push(format!(
                    "{name}: the revision in use was {} and is {}",
                    show(before.revision),
                    show(after.revision)
                ));
            } else if before.manifest_sha256 != after.manifest_sha256 {
                told.push(format!("{name}: the live manifest changed"));
            }
        }
        for (path, before) in &self.files {
            match later.files.get(path) {
                None => told.push(format!("{}: gone", path.display())),
                Some(after) if after != before => told.push(format!("{}: changed", path.display())),
                Some(_) => {}
            }
        }
        for path in later
            .files
            .keys()
            .filter(|path| !self.files.contains_key(*path))
        {
            told.push(format!("{}: new", path.display()));
        }
        if told.is_empty() && self != later {
            told.push("the list of files to archive changed".to_owned());
        }
        told
    }
}

#[cfg(test)]
mod tests;
