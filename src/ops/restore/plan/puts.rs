//! What a restore puts in place of what, besides manifests and etcd's data: revisions, certificates
//! and links.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::folders::Folders;
use super::super::steps::Exchange;
use super::super::survey::{PodSeen, revisions};
use super::Drafting;
use crate::backup::resources::STATIC_POD_RESOURCES;
use crate::error::{Doing, Failure, Kind, Result};
use crate::node::certificates::{WantedCertificate, check_certificates, wanted_by_etcd};
use crate::node::component::{Component, PodRevision};
use crate::node::layout::NodeLayout;
use crate::node::profile::{Profile, look};
use crate::ops::Context;
use crate::sys::tree;

impl Drafting<'_> {
    /// What is put in place of what, besides manifests and data.
    pub(super) fn puts(&self, folders: &Folders, notes: &mut Vec<String>) -> Result<Vec<Put>> {
        let mut puts = Vec::new();
        match self.survey.profile {
            Profile::Openshift => {
                for pod in &self.survey.pods {
                    self.revision_puts(folders, pod, &mut puts, notes)?;
                }
                self.last_known_good(folders, &mut puts)?;
            }
            Profile::Kubeadm => self.kubeadm_puts(folders, &mut puts, notes)?,
            Profile::Bare => {}
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
            exchange: Exchange {
                incoming: Some(self.node_path(&folders.incoming().join(below).join(name))),
                place: self.node_path(&self.layout().kubernetes().join(name)),
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
            notes.push(format!("{revision} is here already, and the same"));
        } else {
            let what = format!("put {revision} back");
            puts.push(self.put(folders, Archive::Resources, &name, what));
        }
        let newer = |found: &PodRevision| found.number > revision.number;
        for newer in revisions(self.layout(), pod.component)?
            .into_iter()
            .filter(newer)
        {
            let name = Path::new(STATIC_POD_RESOURCES).join(newer.to_string());
            puts.push(Put {
                what: format!("take {newer} away, which is newer than {revision}"),
                archive: None,
                link_to: None,
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

    /// Whether the node's and the backup's are the same, owners aside where they cannot be set.
    fn same(&self, name: &Path) -> Result<bool> {
        let options = tree::Options {
            // Labels follow the place; the archive need not hold them.
            xattrs: false,
            ..tree::Options::default()
        };
        let here = self.layout().kubernetes().join(name);
        let there = self.survey.unpacked.kubernetes().join(name);
        if here.symlink_metadata().is_err() {
            return Ok(false);
        }
        Ok(tree::describe(&here, &options)? == tree::describe(&there, &options)?)
    }

    /// On a single node the API server's startup monitor falls back to what this link leads to.
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
            what: format!("lead kube-apiserver-last-known-good to {revision}"),
            archive: None,
            link_to: Some(wanted),
            exchange: Exchange {
                incoming: Some(self.node_path(&folders.manifests_new().join("last-known-good"))),
                place: self.node_path(&link),
                aside: self.node_path(&folders.aside(&name)),
            },
            name,
        });
        Ok(())
    }

    /// kubeadm: the authorities and the keys must be those that the data was made with. What is
    /// here and fits stays: it may have been renewed since.
    fn kubeadm_puts(
        &self,
        folders: &Folders,
        puts: &mut Vec<Put>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        if !self.survey.has_resources {
            return Ok(());
        }
        let pki = Path::new("pki");
        if self.survey.unpacked.kubernetes().join(pki).is_dir() {
            let constant = [
                "ca.crt",
                "ca.key",
                "sa.pub",
                "sa.key",
                "front-proxy-ca.crt",
                "etcd/ca.crt",
                "etcd/ca.key",
            ];
            let same = |name: &&str| {
                let read = |layout: &NodeLayout| std::fs::read(layout.pki().join(name)).ok();
                read(self.layout()) == read(&self.survey.unpacked)
            };
            let changed: Vec<&str> = constant.into_iter().filter(|name| !same(name)).collect();
            let gone = !self.layout().pki().exists();
            let unfit = self.unfit(self.layout())?;
            if changed.is_empty() && unfit.is_empty() {
                self.missing_puts(folders, pki, puts)?;
                notes.push(
                    "the certificates in pki are of the backup's authorities and fit".to_owned(),
                );
            } else {
                let why = if gone {
                    "it is gone".to_owned()
                } else if changed.is_empty() {
                    unfit.join("; ")
                } else {
                    format!("{} differ", changed.join(", "))
                };
                let what = format!("put the backup's pki back: {why}");
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
                let what = format!("put {} back, which is gone", name.display());
                puts.push(self.put(folders, Archive::Resources, &name, what));
            }
        }
        Ok(())
    }

    /// What a folder of the backup has and the node's has lost.
    fn missing_puts(&self, folders: &Folders, name: &Path, puts: &mut Vec<Put>) -> Result<()> {
        let mut todo = vec![name.to_owned()];
        while let Some(name) = todo.pop() {
            let doing = || format!("listing {} of the backup", name.display());
            let theirs = self.survey.unpacked.kubernetes().join(&name);
            for entry in std::fs::read_dir(&theirs).doing(Kind::Store, doing)? {
                let entry = entry.doing(Kind::Store, doing)?;
                let below = name.join(entry.file_name());
                let ours = self.layout().kubernetes().join(&below);
                if ours.symlink_metadata().is_err() {
                    let what = format!("put {} back, which is gone", below.display());
                    puts.push(self.put(folders, Archive::Resources, &below, what));
                } else if entry.file_type().doing(Kind::Store, doing)?.is_dir() {
                    todo.push(below);
                }
            }
        }
        Ok(())
    }

    /// What is wrong with the certificates that etcd starts with, as they lie below a root.
    fn unfit(&self, layout: &NodeLayout) -> Result<Vec<String>> {
        let detection = look(layout, Some(self.survey.profile))?;
        Ok(
            match wanted_by_etcd(layout, &detection, &self.request.target.told) {
                Ok(wanted) => defects(self.context, &wanted),
                // Where the node does not even tell their names they are not there.
                Err(failure) => vec![failure.to_string()],
            },
        )
    }

    /// OpenShift: the unrevisioned directories that the manifests mount must be there, and etcd's
    /// must fit; those that are not come from the backup.
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
                unfit.insert(pod.component, "it is gone".to_owned());
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
                let what = format!("put {} back: {why}", component.certs_dir());
                puts.push(self.put(folders, Archive::Certificates, &name, what));
            } else if self.request.allows("certificates-unfit") {
                notes.push(format!("{} is as it is: {why}", component.certs_dir()));
            } else {
                let source = if in_backup {
                    "the backup's are no better"
                } else {
                    "the backup has none"
                };
                return Err(Failure::refused(
                    "certificates-unfit",
                    format!(
                        "{} does not fit, and {source}: {why}",
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
    pub(super) exchange: Exchange,
}
