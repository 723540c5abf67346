//! From what was seen to the steps that a restore takes.
//!
//! Folders of a restore, each on the mount of what lies in it, since no rename crosses a mount:
//!
//! ```text
//! /etc/kubernetes/.etcd-dr/<id>/        a hidden name, which neither kubelet nor operators read
//!   incoming/        the archives, unpacked
//!   manifests-new/   the manifests that go into place
//!   manifests/       those that were there
//!   aside/           revisions and certificates that were there
//! <state or data directory>/<id>/
//!   data-new/        etcd's new data until it is in place
//!   data/            the old data
//! ```
//!
//! The second lies in `/var/lib/etcd-dr` where that is on the data directory's mount, otherwise
//! hidden in the data directory itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::about::{About, EtcdAbout, PodAbout, SetAbout};
use super::steps::{Building, Exchange, NodeStep, Unpacking};
use super::survey::{PodSeen, Survey, revisions};
use super::{Request, Scope};
use crate::backup::resources::STATIC_POD_RESOURCES;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::restore::{Bump, Evidence, Question, SLACK, decide};
use crate::node::certificates::{WantedCertificate, check_certificates, wanted_by_etcd};
use crate::node::component::{Component, PodRevision};
use crate::node::layout::NodeLayout;
use crate::node::profile::{Profile, look};
use crate::ops::Context;
use crate::sys::mount::Mounts;
use crate::sys::space::space;
use crate::sys::tree;

/// The hidden directory for what must stay on a mount.
pub(in crate::ops) const HIDDEN: &str = ".etcd-dr";
/// Room beyond the database itself: the log's first segment and some pages, in bytes.
const DATA_ROOM: u64 = 72 << 20;
/// How much more than the estimate must be free, in per cent.
const HEADROOM_PER_CENT: u64 = 10;

/// A plan before it is begun.
#[derive(Debug)]
pub struct Draft {
    /// What the journal keeps.
    pub about: About,
    /// The steps.
    pub steps: Vec<NodeStep>,
    /// What was decided and why, for people.
    pub notes: Vec<String>,
}

/// Everything that the steps are made from.
pub(super) struct Drafting<'a> {
    pub(super) context: &'a Context,
    pub(super) request: &'a Request,
    pub(super) survey: &'a Survey,
    pub(super) evidence: Vec<Evidence>,
    /// The operation's name.
    pub(super) id: String,
    /// The container runtime's socket, as a node path.
    pub(super) runtime: PathBuf,
}

/// The folders, as host paths.
struct Folders {
    etc: PathBuf,
    data: PathBuf,
    /// What in the data directory is ours and stays.
    keep: Vec<OsString>,
}

impl Folders {
    fn incoming(&self) -> PathBuf {
        self.etc.join("incoming")
    }

    fn aside(&self, name: &Path) -> PathBuf {
        self.etc.join("aside").join(flat(name))
    }
}

/// One name for a path, so that what lay in different directories can lie in one.
fn flat(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("+")
}

impl Drafting<'_> {
    fn layout(&self) -> &NodeLayout {
        &self.request.target.layout
    }

    fn node_path(&self, host: &Path) -> PathBuf {
        self.layout().node_path(host)
    }

    /// Makes the plan.
    pub(super) fn draft(&self) -> Result<Draft> {
        let data_dir = self.data_dir()?;
        let mounts = Mounts::read()?;
        let folders = self.folders(&mounts, &data_dir)?;
        let mut notes = self.scope_notes();
        notes.extend(self.revision_notes()?);
        let puts = self.puts(&folders, &mut notes)?;
        self.check_space(&data_dir, &folders)?;

        let mut steps = vec![
            NodeStep::MakeFolders {
                folders: self.missing_folders(&folders, &data_dir),
            },
            self.unpack(&folders, &puts),
            NodeStep::BuildData(Box::new(self.building(&folders))),
            NodeStep::StopPods {
                moves: self.stops(&folders)?,
            },
            NodeStep::AwaitStopped,
            NodeStep::SetDataAside {
                data_dir: self.node_path(&data_dir),
                aside: self.node_path(&folders.data.join("data")),
                keep: folders.keep.clone(),
            },
            NodeStep::SwitchData {
                built: self.node_path(&folders.data.join("data-new")),
                data_dir: self.node_path(&data_dir),
                keep: folders.keep.clone(),
            },
        ];
        steps.extend(puts.into_iter().map(|put| NodeStep::PutBack {
            what: put.what,
            exchange: put.exchange,
        }));
        let etcd = |pod: &&PodSeen| pod.component == Component::Etcd;
        let first: Vec<&PodSeen> = self.survey.pods.iter().filter(etcd).collect();
        let others: Vec<&PodSeen> = self.survey.pods.iter().filter(|pod| !etcd(pod)).collect();
        steps.push(self.start(&folders, &first));
        steps.push(NodeStep::ProveEtcd);
        if !others.is_empty() {
            steps.push(self.start(&folders, &others));
        }
        steps.push(NodeStep::ProvePods);
        Ok(Draft {
            about: self.about(&folders, &data_dir)?,
            steps,
            notes,
        })
    }

    /// The data directory with every link followed, as a host path.
    fn data_dir(&self) -> Result<PathBuf> {
        let survey = self.survey;
        let named = survey
            .access
            .data_dir
            .as_ref()
            .map_or_else(|| self.layout().default_data_dir(), |dir| dir.value.clone());
        let etcd = survey
            .pod(Component::Etcd)
            .and_then(|seen| seen.pod.container("etcd").or(seen.pod.containers.first()));
        if let Some(wal) = etcd.and_then(|container| container.flag("wal-dir")) {
            return Err(Failure::new(
                Kind::Refused,
                format!(
                    "etcd keeps its log apart, in {wal}: that cannot be restored on a node yet"
                ),
            )
            .with(Fact::Refusal {
                name: "wal-dir-apart",
                allowable: false,
            }));
        }
        self.layout().resolve(self.node_path(&named))
    }

    /// Where everything goes, each part on the mount of what it takes.
    fn folders(&self, mounts: &Mounts, data_dir: &Path) -> Result<Folders> {
        let layout = self.layout();
        let kubernetes = layout.resolve(self.node_path(&layout.kubernetes()))?;
        let etc = kubernetes.join(HIDDEN).join(&self.id);
        for taken in [layout.manifests(), layout.resources(), layout.pki()] {
            let taken = layout.resolve(self.node_path(&taken))?;
            if taken.exists() && mounts.of(&taken)? != mounts.of_nearest(&etc)? {
                return Err(Failure::new(
                    Kind::Refused,
                    format!(
                        "{} and {} are on different mounts, and nothing could be moved between them",
                        taken.display(),
                        kubernetes.display()
                    ),
                )
                .with(Fact::Refusal {
                    name: "mount-between",
                    allowable: false,
                }));
            }
        }
        let state = layout.state();
        let together = mounts.of_nearest(&state)? == mounts.of_nearest(data_dir)?;
        let (data, keep) = if together {
            (state.join(&self.id), Vec::new())
        } else {
            (
                data_dir.join(HIDDEN).join(&self.id),
                vec![OsString::from(HIDDEN)],
            )
        };
        Ok(Folders { etc, data, keep })
    }

    /// The directories that are to be made, those above first. The operation's own folder is made
    /// with its journal.
    fn missing_folders(&self, folders: &Folders, data_dir: &Path) -> Vec<PathBuf> {
        let own = self.layout().state().join(&self.id);
        let wanted = [
            data_dir.to_owned(),
            // An archive goes into a directory that is there and empty.
            folders.incoming().join("resources"),
            folders.incoming().join("certificates"),
            folders.etc.join("manifests-new"),
            folders.etc.join("manifests"),
            folders.etc.join("aside"),
            self.layout().manifests(),
            self.layout().resources(),
            folders.data.join("data"),
        ];
        let mut missing: Vec<PathBuf> = Vec::new();
        for path in wanted {
            let mut chain: Vec<&Path> = path
                .ancestors()
                .take_while(|above| !above.exists() && **above != own)
                .collect();
            chain.reverse();
            for above in chain {
                let above = self.node_path(above);
                if !missing.contains(&above) {
                    missing.push(above);
                }
            }
        }
        missing
    }

    fn scope_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let version = self
            .survey
            .version
            .as_ref()
            .and_then(|version| version.version.clone());
        let generation = match &version {
            Some(version) => format!("OpenShift {version}"),
            None => format!("profile {}", self.survey.profile),
        };
        notes.push(match self.request.scope {
            Scope::ControlPlane => format!(
                "{generation}: all four static pods stop and go back to what the backup had, so that no cache outlives the data it was filled from"
            ),
            Scope::Etcd => format!(
                "{generation}: only etcd stops and goes back; the others keep running, and list anew since all they have seen is marked as compacted (the stock script does so from 4.18 on)"
            ),
        });
        notes
    }

    /// What becomes of the revision, and why; the step decides the same way.
    fn revision_notes(&self) -> Result<Vec<String>> {
        let bump = self.request.bump;
        let decision = decide(&Question {
            bump,
            mark_compacted: !matches!(bump, Bump::By(0)),
            snapshot: self.survey.facts.revision,
            evidence: &self.evidence,
            allow_low: self.request.allows("bump-too-small"),
        })?;
        Ok(decision
            .reasons
            .into_iter()
            .map(|reason| format!("revision: {reason}"))
            .collect())
    }

    fn building(&self, folders: &Folders) -> Building {
        let (slack, bump_by) = match self.request.bump {
            Bump::Auto { .. } => (Some(SLACK), 0),
            Bump::By(more) => (None, more),
        };
        let allow = |name: &&str| self.request.allows(name);
        let names = ["bump-too-small", "unknown-version", "unsealed-snapshot"];
        Building {
            snapshot: self.request.set.files.snapshot.clone().unwrap_or_default(),
            into: self.node_path(&folders.data.join("data-new")),
            token: format!("etcd-dr-{:032x}", self.request.random),
            slack,
            bump_by,
            evidence: self
                .evidence
                .iter()
                .map(|known| (known.source.clone(), known.revision))
                .collect(),
            allow: names
                .iter()
                .filter(|name| allow(name))
                .map(|name| (*name).to_owned())
                .collect(),
        }
    }

    /// The manifests of the scope that are there, and where they are kept.
    fn stops(&self, folders: &Folders) -> Result<Vec<Exchange>> {
        let layout = self.layout();
        let mut names: Vec<String> = self
            .survey
            .pods
            .iter()
            .filter_map(|pod| pod.component.manifest_file(self.survey.profile))
            .collect();
        if self.request.scope == Scope::ControlPlane && self.survey.profile == Profile::Openshift {
            // On a single node it watches a rollout, and would put an older manifest back.
            names.insert(0, "kube-apiserver-startup-monitor-pod.yaml".to_owned());
        }
        let there = |name: &String| layout.manifests().join(name).symlink_metadata().is_ok();
        Ok(names
            .into_iter()
            .filter(there)
            .map(|name| Exchange {
                incoming: None,
                place: self.node_path(&layout.manifests().join(&name)),
                aside: self.node_path(&folders.etc.join("manifests").join(&name)),
            })
            .collect())
    }

    /// The manifests that come into place.
    fn start(&self, folders: &Folders, pods: &[&PodSeen]) -> NodeStep {
        let manifests = self.layout().manifests();
        let moves = pods
            .iter()
            .filter_map(|pod| pod.component.manifest_file(self.survey.profile))
            .map(|name| Exchange {
                incoming: Some(self.node_path(&folders.etc.join("manifests-new").join(&name))),
                place: self.node_path(&manifests.join(&name)),
                aside: self.node_path(
                    &folders
                        .etc
                        .join("manifests-new")
                        .join(format!("met-{name}")),
                ),
            });
        NodeStep::StartPods {
            moves: moves.collect(),
        }
    }

    fn unpack(&self, folders: &Folders, puts: &[Put]) -> NodeStep {
        let files = &self.request.set.files;
        let incoming = folders.incoming();
        let mut archives = Vec::new();
        let from = |archive: Archive| {
            puts.iter()
                .filter(move |put| put.archive == Some(archive))
                .map(|put| put.name.clone())
                .collect::<Vec<_>>()
        };
        let mut manifests = Vec::new();
        for pod in &self.survey.pods {
            manifests.push(pod.manifest.clone());
        }
        let resources = || {
            let mut only = from(Archive::Resources);
            let covered = |name: &PathBuf| {
                puts.iter().any(|put| {
                    put.archive == Some(Archive::Resources) && name.starts_with(&put.name)
                })
            };
            only.extend(manifests.iter().filter(|name| !covered(name)).cloned());
            only
        };
        if let Some(archive) = &files.resources {
            archives.push(Unpacking {
                archive: archive.clone(),
                only: resources(),
                into: self.node_path(&incoming.join("resources")),
            });
        }
        let certificates = from(Archive::Certificates);
        if let (Some(archive), false) = (&files.certificates, certificates.is_empty()) {
            archives.push(Unpacking {
                archive: archive.clone(),
                only: certificates,
                into: self.node_path(&incoming.join("certificates")),
            });
        }
        let source = if self.survey.has_resources {
            incoming.join("resources")
        } else {
            self.layout().kubernetes()
        };
        let copies = self.survey.pods.iter().filter_map(|pod| {
            let name = pod.component.manifest_file(self.survey.profile)?;
            Some((
                self.node_path(&source.join(&pod.manifest)),
                self.node_path(&folders.etc.join("manifests-new").join(name)),
            ))
        });
        NodeStep::Unpack {
            archives,
            copies: copies.collect(),
            links: puts
                .iter()
                .filter_map(|put| {
                    let link = put.exchange.incoming.clone()?;
                    Some((link, put.link_to.clone()?))
                })
                .collect(),
        }
    }

    /// What is put in place of what, besides manifests and data.
    fn puts(&self, folders: &Folders, notes: &mut Vec<String>) -> Result<Vec<Put>> {
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
                incoming: Some(
                    self.node_path(&folders.etc.join("manifests-new").join("last-known-good")),
                ),
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
            let unfit = self.unfit(self.layout())?;
            if changed.is_empty() && unfit.is_empty() {
                notes.push(
                    "the certificates in pki are of the backup's authorities and fit".to_owned(),
                );
            } else {
                let why = if changed.is_empty() {
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
            let in_backup = self.survey.unpacked.certs(component).is_dir()
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

    fn check_space(&self, data_dir: &Path, folders: &Folders) -> Result<()> {
        let database = self.survey.facts.total_size.saturating_add(DATA_ROOM);
        let unpacked: u64 = tree::describe(
            &self.survey.unpacked.kubernetes(),
            &tree::Options {
                xattrs: false,
                ..tree::Options::default()
            },
        )?
        .values()
        .map(|node| match node.kind {
            tree::NodeKind::File { size, .. } => size.max(4096),
            _ => 4096,
        })
        .sum();
        let (data, etc) = (space(data_dir)?, space(&folders.etc)?);
        let wanted = if data.device == etc.device {
            vec![(data, database.saturating_add(unpacked))]
        } else {
            vec![(data, database), (etc, unpacked)]
        };
        for (place, estimate) in wanted {
            let needed = estimate.saturating_add(estimate / 100 * HEADROOM_PER_CENT);
            if place.available < needed {
                return Err(Failure::new(
                    Kind::Store,
                    format!(
                        "{} has {} bytes free, and the restore needs {needed} beside what is there",
                        place.mount.display(),
                        place.available
                    ),
                )
                .with(Fact::Path(place.mount)));
            }
        }
        Ok(())
    }

    fn about(&self, folders: &Folders, data_dir: &Path) -> Result<About> {
        let survey = self.survey;
        let set = &self.request.set;
        let manifest = set.manifest.as_ref();
        let tls = survey.access.tls.as_ref();
        let identity = tls.and_then(|tls| tls.identity.as_ref());
        let node_path = |path: &PathBuf| self.node_path(path);
        let peer_urls = survey
            .access
            .peer_urls
            .as_ref()
            .map(|urls| urls.value.clone())
            .ok_or_else(|| {
                Failure::new(Kind::Usage, "finding this member's peer URL")
                    .with(Fact::Missing("node-name"))
            })?;
        let mut safety = vec![self.node_path(&folders.etc)];
        for name in ["data", "data-new"] {
            safety.push(self.node_path(&folders.data.join(name)));
        }
        Ok(About {
            set: SetAbout {
                name: set.name.clone(),
                dir: set.dir.clone(),
                created: set.created,
                kv_revision: Some(survey.facts.revision),
                ocp_version: survey.version.as_ref().and_then(|v| v.version.clone()),
                cluster_uuid: survey.version.as_ref().and_then(|v| v.uuid.clone()),
                node: manifest.and_then(|manifest| manifest.node.name.clone()),
            },
            profile: survey.profile.word().to_owned(),
            node: survey.node.clone(),
            nodes: survey.nodes(),
            scope: self.request.scope,
            etcd: EtcdAbout {
                endpoint: survey.access.endpoint.value.clone(),
                ca: tls
                    .and_then(|tls| tls.ca.as_ref())
                    .map(|ca| node_path(&ca.value)),
                cert: identity.map(|identity| node_path(&identity.cert.value)),
                key: identity.map(|identity| node_path(&identity.key.value)),
                data_dir: self.node_path(data_dir),
                member: survey.node.clone(),
                peer_urls,
            },
            runtime: self.runtime.clone(),
            pods: survey.pods.iter().map(pod_about).collect(),
            wait_seconds: self.request.wait.as_secs(),
            alarms_allowed: self.request.allows("alarm-in-backup"),
            safety,
        })
    }
}

fn pod_about(seen: &PodSeen) -> PodAbout {
    PodAbout {
        component: seen.component.name().to_owned(),
        namespace: seen.pod.namespace.clone(),
        name: seen.pod.name.clone(),
        revision: seen.revision.map(|revision| revision.number),
        containers: seen
            .pod
            .containers
            .iter()
            .map(|container| container.name.clone())
            .collect(),
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
enum Archive {
    Resources,
    Certificates,
}

/// Something put in place, and where it comes from.
struct Put {
    what: String,
    archive: Option<Archive>,
    /// Its name below `/etc/kubernetes`, and in the archive.
    name: PathBuf,
    link_to: Option<PathBuf>,
    exchange: Exchange,
}
