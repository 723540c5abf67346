//! What a kubeadm node's static pods use besides manifests and kubeconfigs: folders that they mount,
//! files that flags and variables name, and files that those files name.
//!
//! Nothing here knows the names of flags or the form of configuration files: whatever looks like a
//! path and leads to a file that the pod sees counts. Bounds keep what is not a configuration out, and
//! what is left out is said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Component as Part, Path, PathBuf};

use super::resources::{Elsewhere, OUTSIDE, ResourcePlan};
use crate::error::Result;
use crate::node::component::Component;
use crate::node::files::{list, read_bounded};
use crate::node::layout::NodeLayout;
use crate::node::pod::{Container, PodManifest};

/// Larger folders are not configuration.
const MAX_FOLDER_ENTRIES: usize = 2_000;
/// Folders with more bytes are not configuration.
const MAX_FOLDER_BYTES: u64 = 16 << 20;
/// A larger file that a flag names is not configuration.
const MAX_FILE: u64 = 16 << 20;
/// Larger files are not read for the names of others.
const MAX_READ: u64 = 1 << 20;
/// As many files are followed.
const MAX_FOLLOWED: usize = 1_000;
/// As many words of a file are looked at.
const MAX_WORDS: usize = 20_000;

/// What every installation of the system has, or a running system makes: never configuration.
const SYSTEM: [&str; 19] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/boot",
    "/dev",
    "/proc",
    "/sys",
    "/run",
    "/tmp",
    "/var/run",
    "/var/tmp",
    "/var/log",
    "/var/cache",
    "/etc/ssl/certs",
    "/etc/ca-certificates",
    "/etc/pki/ca-trust",
    "/etc/pki/tls",
];
/// Folders that hold far more than a pod's configuration; what is in them may be that.
const TOO_WIDE: [&str; 16] = [
    "/",
    "/etc",
    "/etc/kubernetes",
    "/etc/kubernetes/manifests",
    "/etc/pki",
    "/etc/ssl",
    "/home",
    "/mnt",
    "/opt",
    "/root",
    "/srv",
    "/var",
    "/var/lib",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/kubelet",
];
/// Flags that name what a program writes.
const WRITTEN: [&str; 6] = [
    "audit-log-path",
    "data-dir",
    "log-dir",
    "log-file",
    "log_file",
    "wal-dir",
];
/// Endings of names that a configuration file may give relative to itself.
const ENDINGS: [&str; 7] = ["yaml", "yml", "json", "conf", "crt", "pem", "key"];

/// Adds all of it to a plan.
pub(super) fn add(
    plan: &mut ResourcePlan,
    layout: &NodeLayout,
    pods: &[(Component, PodManifest, Vec<u8>)],
) -> Result<()> {
    let mut named = Named {
        layout,
        data_dirs: data_dirs(layout, pods),
        seen: BTreeSet::new(),
        todo: VecDeque::new(),
        files: BTreeMap::new(),
    };
    for (component, pod, _) in pods {
        for container in pod.containers.iter().chain(&pod.init_containers) {
            named.words(plan, *component, pod, container)?;
        }
    }
    named.follow(plan)?;
    for folder in named.folders(pods)? {
        named.add_folder(plan, &folder)?;
    }
    for (node_path, source) in &named.files {
        let size = fs::metadata(source).map_or(0, |meta| meta.len());
        if size > MAX_FILE {
            plan.left_out.push(format!(
                "{} is larger than {} MiB",
                node_path.display(),
                MAX_FILE >> 20
            ));
        } else if !named.is_systems(node_path) {
            add_path(plan, layout, &layout.host(node_path), source.clone());
        } else {
            plan.left_out
                .push(format!("{} belongs to the system", node_path.display()));
        }
    }
    Ok(())
}

/// A file as a container sees it, to be read for the names of others.
struct Seen<'a> {
    pod: &'a PodManifest,
    container: &'a Container,
    inside: PathBuf,
    source: PathBuf,
}

struct Named<'a> {
    layout: &'a NodeLayout,
    /// etcd's data directories: what is in them is in the snapshot.
    data_dirs: Vec<PathBuf>,
    seen: BTreeSet<PathBuf>,
    todo: VecDeque<Seen<'a>>,
    /// Files by node path, and where they are.
    files: BTreeMap<PathBuf, PathBuf>,
}

fn data_dirs(layout: &NodeLayout, pods: &[(Component, PodManifest, Vec<u8>)]) -> Vec<PathBuf> {
    let etcd = pods.iter().filter(|(is, ..)| *is == Component::Etcd);
    let told = etcd.filter_map(|(_, pod, _)| {
        let container = pod.container("etcd").or(pod.containers.first())?;
        let inside = container
            .flag("data-dir")
            .or(container.env("ETCD_DATA_DIR"))?;
        pod.node_path(container, Path::new(inside))
    });
    told.chain([layout.node_path(&layout.default_data_dir())])
        .collect()
}

impl<'a> Named<'a> {
    /// What belongs to the system or to etcd's data.
    fn is_systems(&self, node_path: &Path) -> bool {
        SYSTEM.iter().any(|system| node_path.starts_with(system))
            || self.data_dirs.iter().any(|dir| node_path.starts_with(dir))
    }

    /// The flags and variables of a container.
    fn words(
        &mut self,
        plan: &mut ResourcePlan,
        component: Component,
        pod: &'a PodManifest,
        container: &'a Container,
    ) -> Result<()> {
        let mut flag = "";
        for word in &container.words {
            let value = match word.strip_prefix('-') {
                Some(rest) => {
                    let rest = rest.trim_start_matches('-');
                    let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
                    flag = name;
                    value
                }
                None => word.as_str(),
            };
            if WRITTEN.contains(&flag) {
                continue;
            }
            for path in paths(value) {
                let found = self.find(pod, container, path, true)?;
                // Other flags may name what the program will write.
                if !found && (flag.ends_with("file") || flag.ends_with("config")) {
                    self.not_there(plan, component, pod, container, flag, path);
                }
            }
        }
        for (name, value) in &container.env {
            let written = ["ETCD_DATA_DIR", "ETCD_WAL_DIR"].contains(&name.as_str());
            for path in paths(value).filter(|_| !written) {
                self.find(pod, container, path, true)?;
            }
        }
        Ok(())
    }

    fn not_there(
        &self,
        plan: &mut ResourcePlan,
        component: Component,
        pod: &PodManifest,
        container: &Container,
        flag: &str,
        path: &Path,
    ) {
        let node_path = pod.node_path(container, path);
        let node_path = node_path.unwrap_or_else(|| path.to_owned());
        let message = format!(
            "--{flag} of {component} names {}, which is not a file on this node",
            node_path.display()
        );
        if flag == "encryption-provider-config" {
            plan.problem("encryption-config-missing", component, message);
        } else {
            plan.notes.push(message);
        }
    }

    /// Takes a file that a container sees by this name; a name of a command line may also be the
    /// node's. Says whether there is one.
    fn find(
        &mut self,
        pod: &'a PodManifest,
        container: &'a Container,
        inside: &Path,
        or_node: bool,
    ) -> Result<bool> {
        let Some(node_path) = pod
            .node_path(container, inside)
            .or_else(|| or_node.then(|| inside.to_owned()))
        else {
            return Ok(false);
        };
        let source = self.layout.resolve(&node_path)?;
        let Ok(meta) = fs::metadata(&source) else {
            return Ok(false);
        };
        if !meta.is_file() {
            return Ok(meta.is_dir());
        }
        self.files.insert(node_path, source.clone());
        let first = self.seen.insert(source.clone());
        if first && meta.len() <= MAX_READ && self.seen.len() <= MAX_FOLLOWED {
            self.todo.push_back(Seen {
                pod,
                container,
                inside: inside.to_owned(),
                source,
            });
        }
        Ok(true)
    }

    /// Reads each file for the names of others.
    fn follow(&mut self, plan: &mut ResourcePlan) -> Result<()> {
        while let Some(seen) = self.todo.pop_front() {
            let Ok(bytes) = read_bounded(&seen.source, MAX_READ) else {
                plan.notes
                    .push(format!("{} cannot be read", seen.source.display()));
                continue;
            };
            let Ok(text) = String::from_utf8(bytes) else {
                continue;
            };
            // Certificates and keys name no other files.
            if text.starts_with("-----BEGIN") {
                continue;
            }
            let beside = seen.inside.parent().unwrap_or(Path::new("/"));
            for word in words(&text).take(MAX_WORDS) {
                let path = Path::new(word);
                let ending = path.extension().and_then(|ending| ending.to_str());
                if word.starts_with('/') {
                    self.find(seen.pod, seen.container, path, false)?;
                } else if ending.is_some_and(|ending| ENDINGS.contains(&ending)) && is_plain(path) {
                    self.find(seen.pod, seen.container, &beside.join(path), false)?;
                }
            }
        }
        Ok(())
    }

    /// Node paths of folders that are mounted to be read, or that hold a file that is named; those
    /// above first.
    fn folders(&self, pods: &[(Component, PodManifest, Vec<u8>)]) -> Result<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        for (_, pod, _) in pods {
            for container in pod.containers.iter().chain(&pod.init_containers) {
                for mount in &container.mounts {
                    let Some(path) = pod.host_paths.get(&mount.volume) else {
                        continue;
                    };
                    let mut path = path.clone();
                    path.extend(mount.sub_path.iter());
                    let named = || self.files.keys().any(|file| file.starts_with(&path));
                    let wide = TOO_WIDE.iter().any(|wide| Path::new(wide) == path)
                        || self.data_dirs.iter().any(|dir| dir.starts_with(&path));
                    let is_dir =
                        fs::metadata(self.layout.resolve(&path)?).is_ok_and(|meta| meta.is_dir());
                    // What a pod may write is no configuration, unless something names a file in
                    // it.
                    if is_dir && !wide && !self.is_systems(&path) && (mount.read_only || named()) {
                        found.insert(path);
                    }
                }
            }
        }
        Ok(found)
    }

    fn add_folder(&self, plan: &mut ResourcePlan, node_path: &Path) -> Result<()> {
        let source = self.layout.resolve(node_path)?;
        if let Some(why) = too_big(&source)? {
            plan.left_out.push(format!(
                "{}: {why}; only the files in it that are named are archived",
                node_path.display()
            ));
            return Ok(());
        }
        add_path(plan, self.layout, &self.layout.host(node_path), source);
        Ok(())
    }
}

/// Why a folder is not a configuration.
fn too_big(folder: &Path) -> Result<Option<String>> {
    let (mut entries, mut bytes) = (0, 0_u64);
    let mut todo = vec![folder.to_owned()];
    while let Some(dir) = todo.pop() {
        for path in list(&dir)? {
            entries += 1;
            let Ok(meta) = fs::symlink_metadata(&path) else {
                continue;
            };
            if meta.is_dir() {
                todo.push(path);
            } else if meta.is_file() {
                bytes = bytes.saturating_add(meta.len());
            }
            if entries > MAX_FOLDER_ENTRIES {
                return Ok(Some(format!("more than {MAX_FOLDER_ENTRIES} files")));
            }
            if bytes > MAX_FOLDER_BYTES {
                return Ok(Some(format!("more than {} MiB", MAX_FOLDER_BYTES >> 20)));
            }
        }
    }
    Ok(None)
}

/// Takes a file or a folder, unless it is taken already.
fn add_path(plan: &mut ResourcePlan, layout: &NodeLayout, named: &Path, source: PathBuf) {
    let inside = named
        .strip_prefix(layout.kubernetes())
        .ok()
        .map(Path::to_path_buf);
    let below = layout.node_path(named);
    let name = inside
        .clone()
        .unwrap_or_else(|| Path::new(OUTSIDE).join(below.strip_prefix("/").unwrap_or(&below)));
    let list = &plan.resources;
    let covered = list.entries.iter().any(|entry| name.starts_with(entry))
        || list.elsewhere.iter().any(|e| name.starts_with(&e.name));
    if covered {
        return;
    }
    if inside.is_some() && named == source {
        plan.resources.entries.push(name);
        return;
    }
    plan.notes.push(format!(
        "{} is archived as {}",
        below.display(),
        name.display()
    ));
    plan.resources.elsewhere.push(Elsewhere { source, name });
}

/// Paths in the value of a flag or variable: one, a list of them, or a certificate and its key with
/// the names they are for (`--tls-sni-cert-key`).
fn paths(value: &str) -> impl Iterator<Item = &Path> {
    words(value)
        .flat_map(|word| [Some(word), word.split_once(':').map(|(path, _)| path)])
        .flatten()
        .filter(|word| word.starts_with('/') && word.len() > 1)
        .map(Path::new)
        .filter(|path| !path.components().any(|part| part == Part::ParentDir))
}

/// What stands between blanks, quotes and the like.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let splits = |c: char| c.is_whitespace() || c.is_control() || "\"'`,;=()[]{}<>|".contains(c);
    text.split(splits).filter(|word| !word.is_empty())
}

fn is_plain(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, Part::Normal(_)))
}
