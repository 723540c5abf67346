//! The files that a restore replaces besides manifests and etcd's data: revisions, certificates and
//! links.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::backup_planner::BackupPlanner;
use super::preflight::node_path;
use super::refusals::{CERTIFICATES_INVALID, OUTSIDE_IN_THE_WAY};
use crate::backup::resources::STATIC_POD_RESOURCES;
use crate::change::transaction::exchange::Exchange;
use crate::change::transaction::folders::Folders;
use crate::change::transaction::pods::{PodSeen, revisions};
use crate::context::Context;
use crate::error::{Doing, Failure, Kind, Result};
use crate::node::certificates::{check_certificates, wanted_by_etcd};
use crate::node::collect::{OUTSIDE, resource_plan};
use crate::node::component::{Component, PodRevision};
use crate::node::detection::look;
use crate::node::layout::NodeLayout;
use crate::node::profile::Profile;
use crate::node::wanted::WantedCertificate;
use crate::sys::mount::Mounts;
use crate::sys::tree;

/// Files of kubeadm's `pki` that etcd's data and other members depend on.
const CONSTANT: [&str; 7] = [
    "ca.crt",
    "ca.key",
    "sa.pub",
    "sa.key",
    "front-proxy-ca.crt",
    "etcd/ca.crt",
    "etcd/ca.key",
];

impl BackupPlanner<'_> {
    /// All replacements besides manifests and data.
    pub(super) fn replacements(
        &self,
        folders: &Folders,
        mounts: &Mounts,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Put>> {
        let mut puts = Vec::new();
        match self.survey.profile {
            Profile::Openshift => {
                for pod in &self.survey.pods {
                    self.revision_puts(folders, pod, &mut puts, notes)?;
                }
                self.last_known_good(folders, &mut puts)?;
            }
            Profile::Kubeadm if self.survey.has_resources => {
                self.other_puts(folders, &mut puts, notes)?;
                self.kubeadm_puts(folders, &mut puts, notes)?;
            }
            Profile::Kubeadm | Profile::Bare => {}
        }
        for put in &mut puts {
            self.stage(folders, mounts, put)?;
        }
        self.certificate_puts(folders, &mut puts, notes)?;
        Ok(puts)
    }

    /// A directory or file of an archive, put in its place.
    fn put(&self, folders: &Folders, archive: Archive, name: &Path, what: String) -> Put {
        let below = match archive {
            Archive::Resources => "resources",
            Archive::Certificates => "certificates",
        };
        Put {
            what,
            archive: Some(archive),
            name: name.to_owned(),
            link_to: None,
            apart: false,
            exchange: Exchange {
                incoming: Some(self.node_path(&folders.incoming().join(below).join(name))),
                place: node_path(name),
                aside: self.node_path(&folders.aside(name)),
            },
        }
    }

    fn revision_puts(
        &self,
        folders: &Folders,
        pod: &PodSeen,
        puts: &mut Vec<Put>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let Some(revision) = pod.revision.filter(|_| self.survey.has_resources) else {
            return Ok(());
        };
        let name = Path::new(STATIC_POD_RESOURCES).join(revision.to_string());
        if self.same(&name)? {
            notes.push(format!("{revision} already exists and is identical"));
        } else {
            let what = format!("restore {revision}");
            puts.push(self.put(folders, Archive::Resources, &name, what));
        }
        let newer = |found: &PodRevision| found.number > revision.number;
        for newer in revisions(self.layout(), pod.component)?
            .into_iter()
            .filter(newer)
        {
            let name = Path::new(STATIC_POD_RESOURCES).join(newer.to_string());
            puts.push(Put {
                what: format!("set {newer} aside, which is newer than {revision}"),
                archive: None,
                link_to: None,
                apart: false,
                exchange: Exchange {
                    incoming: None,
                    place: self.node_path(&self.layout().revision(newer)),
                    aside: self.node_path(&folders.aside(&name)),
                },
                name,
            });
        }
        Ok(())
    }

    /// Whether the node's tree equals the backup's; owners are ignored if they cannot be set.
    fn same(&self, name: &Path) -> Result<bool> {
        let options = tree::Options {
            // Labels follow the place; the archive need not hold them.
            xattrs: false,
            ..tree::Options::default()
        };
        let (here, there) = (self.ours(name), self.theirs(name));
        if here.symlink_metadata().is_err() {
            return Ok(false);
        }
        Ok(tree::describe(&here, &options)? == tree::describe(&there, &options)?)
    }

    /// On a single node the API server's startup monitor falls back to the target of this link.
    fn last_known_good(&self, folders: &Folders, puts: &mut Vec<Put>) -> Result<()> {
        let Some(revision) = self
            .survey
            .pod(Component::KubeApiserver)
            .and_then(|pod| pod.revision)
        else {
            return Ok(());
        };
        let name = Path::new(STATIC_POD_RESOURCES).join("kube-apiserver-last-known-good");
        let link = self.layout().kubernetes().join(&name);
        let Ok(now) = std::fs::read_link(&link) else {
            return Ok(());
        };
        let wanted = self
            .node_path(&self.layout().revision(revision))
            .join("kube-apiserver-pod.yaml");
        if now == wanted {
            return Ok(());
        }
        puts.push(Put {
            what: format!("point kube-apiserver-last-known-good to {revision}"),
            archive: None,
            link_to: Some(wanted),
            apart: false,
            exchange: Exchange {
                incoming: Some(self.node_path(&folders.manifests_new().join("last-known-good"))),
                place: self.node_path(&link),
                aside: self.node_path(&folders.aside(&name)),
            },
            name,
        });
        Ok(())
    }

    /// kubeadm: the CAs and the keys must be those that the data was written with. Certificates
    /// here that fit stay, since they may have been renewed.
    fn kubeadm_puts(
        &self,
        folders: &Folders,
        puts: &mut Vec<Put>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let pki = Path::new("pki");
        if self.is_another(pki, puts)? {
            notes.push("pki is a link to a folder that another line names".to_owned());
        } else if self.survey.unpacked.kubernetes().join(pki).is_dir() {
            let same = |name: &&str| {
                let read = |layout: &NodeLayout| std::fs::read(layout.pki().join(name)).ok();
                read(self.layout()) == read(&self.survey.unpacked)
            };
            let changed: Vec<&str> = CONSTANT.into_iter().filter(|name| !same(name)).collect();
            let gone = !self.layout().pki().exists();
            let unfit = self.unfit(self.layout())?;
            if changed.is_empty() && unfit.is_empty() {
                self.missing_puts(folders, pki, puts)?;
                notes.push(
                    "the certificates in pki are valid and signed by the backup's CAs".to_owned(),
                );
            } else {
                let why = if gone {
                    "it is missing".to_owned()
                } else if changed.is_empty() {
                    unfit.join("; ")
                } else {
                    format!("{} differ", changed.join(", "))
                };
                let what = format!("restore the backup's pki: {why}");
                puts.push(self.put(folders, Archive::Resources, pki, what));
            }
        }
        let kubernetes = self.survey.unpacked.kubernetes();
        let Ok(entries) = std::fs::read_dir(&kubernetes) else {
            return Ok(());
        };
        let mut names: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| PathBuf::from(entry.file_name()))
            .filter(|name| name.extension().is_some_and(|ending| ending == "conf"))
            .collect();
        names.sort();
        for name in names {
            if self
                .layout()
                .kubernetes()
                .join(&name)
                .symlink_metadata()
                .is_err()
            {
                let what = format!("restore {}, which is missing", name.display());
                puts.push(self.put(folders, Archive::Resources, &name, what));
            }
        }
        Ok(())
    }

    /// The place on the node of a name in the archive.
    fn ours(&self, name: &Path) -> PathBuf {
        self.layout().host(node_path(name))
    }

    /// What the archive has of this name.
    fn theirs(&self, name: &Path) -> PathBuf {
        self.survey.unpacked.host(node_path(name))
    }

    /// Whether a name is, on the node, a link into another root of the archive.
    fn is_another(&self, name: &Path, puts: &[Put]) -> Result<bool> {
        if !self.ours(name).is_symlink() {
            return Ok(false);
        }
        let real = self.layout().resolve(node_path(name))?;
        let of_root = |root: &PathBuf| root != name && self.ours(root) == real;
        Ok(self.survey.roots.iter().any(of_root)
            || puts.iter().any(|put| self.ours(&put.name) == real))
    }

    /// What the manifests use besides `pki` and kubeconfigs. Certificates stay if the backup's CAs
    /// signed them and they fit; configuration files go back with the manifests that name them.
    fn other_puts(
        &self,
        folders: &Folders,
        puts: &mut Vec<Put>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let usual = |root: &&PathBuf| {
            let kubeconfig = root.extension().is_some_and(|ending| ending == "conf");
            root.starts_with("manifests")
                || root.as_path() == Path::new("pki")
                || (kubeconfig && root.components().count() == 1)
        };
        for root in self.survey.roots.iter().filter(|root| !usual(root)) {
            let shown = node_path(root).display().to_string();
            let why = if !self.ours(root).exists() {
                "it is missing".to_owned()
            } else if let Some(changed) = self.certificates(root)? {
                let unfit = self.unfit_in(&self.ours(root))?;
                if changed.is_empty() && unfit.is_empty() {
                    self.missing_puts(folders, root, puts)?;
                    continue;
                } else if changed.is_empty() {
                    unfit.join("; ")
                } else {
                    format!("{} differ", changed.join(", "))
                }
            } else if self.same(root)? {
                continue;
            } else {
                "it differs, and the backup's manifests use it".to_owned()
            };
            self.refuse_foreign(root, notes)?;
            let what = format!("restore {shown}: {why}");
            puts.push(self.put(folders, Archive::Resources, root, what));
        }
        Ok(())
    }

    /// The CAs and keys that differ from the backup's; empty for other kinds of files.
    fn certificates(&self, root: &Path) -> Result<Option<Vec<String>>> {
        let theirs = self.theirs(root);
        let is_pem = |path: &Path| {
            let text = std::fs::read(path).unwrap_or_default();
            text.starts_with(b"-----BEGIN")
        };
        let differs = |name: &Path| {
            let read = |path: PathBuf| std::fs::read(path.join(name)).ok();
            read(theirs.clone()).is_some_and(|is| Some(is) != read(self.ours(root)))
        };
        if theirs.is_dir() {
            let constant = CONSTANT.iter().map(Path::new);
            let any = CONSTANT.iter().any(|name| theirs.join(name).exists());
            let changed = constant.filter(|name| differs(name));
            let changed = changed.map(|name| name.display().to_string());
            return Ok(any.then(|| changed.collect()));
        }
        let name = Path::new(root.file_name().unwrap_or_default());
        let constant = CONSTANT
            .iter()
            .any(|known| Path::new(known).file_name() == name.file_name());
        let same = std::fs::read(&theirs).ok() == std::fs::read(self.ours(root)).ok();
        let changed = if constant && !same {
            vec![name.display().to_string()]
        } else {
            Vec::new()
        };
        Ok(is_pem(&theirs).then_some(changed))
    }

    /// What is wrong with etcd's certificates, if they are in this folder.
    fn unfit_in(&self, folder: &Path) -> Result<Vec<String>> {
        let detection = look(self.layout(), Some(self.survey.profile))?;
        let wanted = wanted_by_etcd(
            self.layout(),
            &detection,
            &self.request.options.target.overrides,
        );
        let wanted = wanted.unwrap_or_default();
        let inside: Vec<WantedCertificate> = wanted
            .into_iter()
            .filter(|wanted| wanted.cert.starts_with(folder))
            .collect();
        Ok(defects(self.context, &inside))
    }

    /// Refuses to replace what this node's own manifests do not use: it may belong to another
    /// program.
    fn refuse_foreign(&self, root: &Path, notes: &mut Vec<String>) -> Result<()> {
        let here = self.ours(root);
        if !root.starts_with(OUTSIDE) || here.symlink_metadata().is_err() {
            return Ok(());
        }
        let used = resource_plan(self.layout(), self.survey.profile)?.resources;
        let names = used.elsewhere.iter().map(|other| &other.name);
        if names
            .chain(&used.entries)
            .any(|name| name.starts_with(root) || root.starts_with(name))
        {
            return Ok(());
        }
        let shown = node_path(root);
        let what = format!(
            "{} differs from the backup's, and no manifest of this node uses it: it may belong to another program",
            shown.display()
        );
        if self.request.options.allows(OUTSIDE_IN_THE_WAY) {
            notes.push(format!("{what}; it is set aside"));
            return Ok(());
        }
        Err(Failure::refused(OUTSIDE_IN_THE_WAY, what))
    }

    /// Stages files that go outside of `/etc/kubernetes` on the mount of their place: no rename
    /// crosses a mount.
    fn stage(&self, folders: &Folders, mounts: &Mounts, put: &mut Put) -> Result<()> {
        if !put.name.starts_with(OUTSIDE) {
            return Ok(());
        }
        let layout = self.layout();
        let place = layout.host(&put.exchange.place);
        let mount = mounts.of_nearest(&place)?;
        if mount == mounts.of_nearest(&folders.etc)? {
            return Ok(());
        }
        if mount != mounts.of_nearest(&layout.state())? {
            let what = format!(
                "{} is on a separate mount, so it cannot be renamed there: restore it by hand from the backup's archive, where it is {}",
                put.exchange.place.display(),
                put.name.display()
            );
            return Err(Failure::refused_for_good("cross-mount", what));
        }
        put.apart = true;
        let new = folders.outside(layout).join("new").join(&put.name);
        put.exchange.incoming = Some(self.node_path(&new));
        put.exchange.aside = self.node_path(&folders.outside_aside(layout, &put.name));
        Ok(())
    }

    /// What a folder of the backup has and the node's has lost.
    fn missing_puts(&self, folders: &Folders, name: &Path, puts: &mut Vec<Put>) -> Result<()> {
        let mut todo = vec![name.to_owned()];
        while let Some(name) = todo.pop() {
            let doing = || format!("listing {} of the backup", name.display());
            let theirs = self.theirs(&name);
            for entry in std::fs::read_dir(&theirs).doing(Kind::Store, doing)? {
                let entry = entry.doing(Kind::Store, doing)?;
                let below = name.join(entry.file_name());
                let ours = self.ours(&below);
                if ours.symlink_metadata().is_err() {
                    let what = format!("restore {}, which is missing", below.display());
                    puts.push(self.put(folders, Archive::Resources, &below, what));
                } else if entry.file_type().doing(Kind::Store, doing)?.is_dir() {
                    todo.push(below);
                }
            }
        }
        Ok(())
    }

    /// The problems of the certificates that etcd starts with, below a root.
    fn unfit(&self, layout: &NodeLayout) -> Result<Vec<String>> {
        let detection = look(layout, Some(self.survey.profile))?;
        Ok(
            match wanted_by_etcd(layout, &detection, &self.request.options.target.overrides) {
                Ok(wanted) => defects(self.context, &wanted),
                // If the node does not even name them, they are missing.
                Err(failure) => vec![failure.to_string()],
            },
        )
    }

    /// OpenShift: the unrevisioned directories that the manifests mount must exist, and etcd's must
    /// fit; otherwise they come from the backup.
    fn certificate_puts(
        &self,
        folders: &Folders,
        puts: &mut Vec<Put>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        if self.survey.profile != Profile::Openshift {
            return Ok(());
        }
        let mut unfit: BTreeMap<Component, String> = BTreeMap::new();
        for pod in &self.survey.pods {
            let dir = self.layout().certs(pod.component);
            let mounted = pod
                .pod
                .host_paths
                .values()
                .any(|path| *path == self.node_path(&dir));
            if mounted && !dir.is_dir() {
                unfit.insert(pod.component, "it is missing".to_owned());
            }
        }
        let wrong = self.unfit(self.layout())?;
        if !wrong.is_empty() {
            unfit
                .entry(Component::Etcd)
                .or_insert_with(|| wrong.join("; "));
        }
        for (component, why) in unfit {
            let name = Path::new(STATIC_POD_RESOURCES).join(component.certs_dir());
            let in_backup = self.survey.has_resources
                && self.survey.unpacked.certs(component).is_dir()
                && self.request.set.files.certificates.is_some();
            let better =
                component != Component::Etcd || self.unfit(&self.survey.unpacked)?.is_empty();
            if in_backup && better {
                let what = format!("restore {}: {why}", component.certs_dir());
                puts.push(self.put(folders, Archive::Certificates, &name, what));
            } else if self.request.options.allows(CERTIFICATES_INVALID) {
                notes.push(format!("{} stays unchanged: {why}", component.certs_dir()));
            } else {
                let source = if in_backup {
                    "the backup's are not better"
                } else {
                    "the backup has none"
                };
                return Err(Failure::refused(
                    CERTIFICATES_INVALID,
                    format!(
                        "{} is not valid, and {source}: {why}",
                        component.certs_dir()
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// What is wrong with certificates, in words.
fn defects(context: &Context, wanted: &[WantedCertificate]) -> Vec<String> {
    check_certificates(wanted, context.now)
        .into_iter()
        .filter(|finding| finding.is_defect())
        .map(|finding| finding.to_string())
        .collect()
}

/// Which archive of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Archive {
    Resources,
    Certificates,
}

/// Something put in place, and where it comes from.
pub(super) struct Put {
    pub(super) what: String,
    pub(super) archive: Option<Archive>,
    /// Its name below `/etc/kubernetes`, and in the archive.
    pub(super) name: PathBuf,
    pub(super) link_to: Option<PathBuf>,
    /// Whether it is staged outside of `/etc/kubernetes`, on the state directory's mount.
    pub(super) apart: bool,
    pub(super) exchange: Exchange,
}
