//! From what was seen to the steps of a join.
//!
//! Its folders are those of a restore ([`crate::change::restore::folders`]): `manifests` has what was
//! there, `manifests-new` what comes, `data` the old data, and `data-new` on the way back what was
//! made.

use std::path::{Path, PathBuf};

use super::about::{About, ClusterAbout};
use super::steps::JoinStep;
use super::{Request, manifest, refuse};
use crate::change::restore::about::{EtcdAbout, PodAbout};
use crate::change::restore::data;
use crate::change::restore::folders::Folders;
use crate::change::restore::steps::Exchange;
use crate::cluster::survey::Survey;
use crate::error::{Doing, Kind, Result};
use crate::etcd::client::Id;
use crate::node::access::{EtcdAccess, TlsFiles};
use crate::node::component::{Component, PodRevision};
use crate::node::layout::NodeLayout;
use crate::node::pod::{self, PodManifest, RevisionInUse};
use crate::node::profile::Profile;
use crate::sys::mount::Mounts;

/// etcd's manifest as it was found.
pub(super) struct Found {
    /// Its host path.
    pub(super) path: PathBuf,
    /// The file with its content: another one where it is a link.
    content: PathBuf,
    /// Whether the kubelet runs it from there.
    pub(super) live: bool,
    pub(super) pod: PodManifest,
    text: String,
}

/// Finds etcd's manifest: where the kubelet reads it, or `disable` keeps it; on OpenShift also where the documented
/// procedure moves it, or in the newest revision.
///
/// # Errors
/// [`Kind::Refused`] where there is none, or one that cannot join.
pub(super) fn find_manifest(layout: &NodeLayout, profile: Profile) -> Result<Found> {
    let Some(place) = layout.manifest(Component::Etcd, profile) else {
        return Err(refuse(
            "no-static-pods",
            "this node has no static pods: start etcd with the settings that member-add prints"
                .to_owned(),
        ));
    };
    let mut candidates = vec![place.clone()];
    candidates.extend(layout.disabled_manifest(Component::Etcd, profile));
    if profile == Profile::Openshift {
        candidates.push(layout.host("/home/core/assets/manifests-stopped/etcd-pod.yaml"));
        let newest = std::fs::read_dir(layout.resources())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| PodRevision::from_dir_name(entry.file_name().to_str()?))
            .filter(|revision| revision.component == Component::Etcd)
            .max_by_key(|revision| revision.number);
        candidates.extend(newest.map(|newest| layout.revision(newest).join("etcd-pod.yaml")));
    }
    for path in candidates {
        let content = layout.manifest_content(&path)?;
        let Some(bytes) = crate::keep::catalog::read_bounded(&content, pod::MAX_BYTES)? else {
            continue;
        };
        let doing = || format!("reading {}", path.display());
        let pod = PodManifest::parse(&bytes).map_err(|failure| failure.doing(doing()))?;
        let text = String::from_utf8(bytes).doing(Kind::Unexpected, doing)?;
        let live = path == place;
        return Ok(Found {
            path,
            content,
            live,
            pod,
            text,
        });
    }
    Err(refuse(
        "no-manifest",
        format!(
            "etcd's manifest {} does not exist: put it back",
            place.display()
        ),
    ))
}

/// Everything that the steps are made from.
pub(super) struct Drafting<'a> {
    pub(super) request: &'a Request,
    pub(super) profile: Profile,
    /// How the node's own member is reached.
    pub(super) own: &'a EtcdAccess,
    /// With what the living members are reached.
    pub(super) tls: Option<&'a TlsFiles>,
    pub(super) survey: &'a Survey,
    pub(super) manifest: &'a Found,
    /// The member that an earlier attempt has left.
    pub(super) existing: Option<Id>,
    pub(super) id: String,
    pub(super) runtime: PathBuf,
}

impl Drafting<'_> {
    fn layout(&self) -> &NodeLayout {
        &self.request.target.layout
    }

    fn node_path(&self, host: &Path) -> PathBuf {
        self.layout().node_path(host)
    }

    /// Makes the plan.
    ///
    /// # Errors
    /// The refusals; [`Kind::Usage`] where the node does not tell what is needed.
    pub(super) fn draft(&self) -> Result<(About, Vec<JoinStep>)> {
        let about = self.about()?;
        let data_dir = self.layout().resolve(&about.etcd.data_dir)?;
        let layout = self.layout();
        let mounts = Mounts::read()?;
        let taken = [layout.manifests()];
        let folders = Folders::find(layout, &mounts, &data_dir, &self.id, &taken)?;
        let wanted = [
            data_dir.clone(),
            folders.manifests_new(),
            folders.manifests(),
            folders.old_data(),
            folders.new_data(),
        ];
        let mut steps = vec![JoinStep::MakeFolders {
            folders: folders.missing_of(layout, wanted),
        }];
        steps.extend(self.steps(&folders, &data_dir)?);
        let safety = folders.safety(layout);
        Ok((About { safety, ..about }, steps))
    }

    /// What is done once the folders are there.
    fn steps(&self, folders: &Folders, data_dir: &Path) -> Result<Vec<JoinStep>> {
        let flags = self.profile == Profile::Kubeadm;
        if flags {
            let tried = manifest::joining(&self.manifest.text, "x=https://x:2380");
            tried.map_err(|f| f.doing(format!("reading {}", self.manifest.path.display())))?;
        }
        let place = self.layout().manifest(Component::Etcd, self.profile);
        let place = place.unwrap_or_else(|| self.manifest.path.clone());
        let file = place.file_name().map(PathBuf::from).unwrap_or_default();
        let stopped = self.node_path(&folders.manifests().join(&file));
        let new = self.node_path(&folders.manifests_new().join(&file));
        let met = format!("met-{}", file.display());
        let met = self.node_path(&folders.manifests_new().join(met));
        let place = self.node_path(&place);
        let writes = flags || !self.manifest.live;
        let write = JoinStep::WriteManifest {
            from: match self.manifest.live && !self.manifest.path.is_symlink() {
                true => stopped.clone(),
                false => self.node_path(&self.manifest.content),
            },
            to: new.clone(),
            flags,
        };
        let place_of_data = self.node_path(data_dir);
        let mut steps = vec![
            JoinStep::StopEtcd {
                manifest: self.manifest.live.then(|| Exchange {
                    incoming: None,
                    place: place.clone(),
                    aside: stopped.clone(),
                }),
            },
            JoinStep::AwaitStopped,
            JoinStep::SetDataAside {
                data_dir: place_of_data.clone(),
                aside: self.node_path(&folders.old_data()),
                keep: folders.keep.clone(),
                only: data::etcds(),
            },
        ];
        let whose = data::whose(self.layout(), data_dir, &self.manifest.pod)?;
        steps.extend(whose.dir.map(JoinStep::OwnDataDir));
        steps.push(JoinStep::AddLearner {
            existing: self.existing.map(|id| id.to_string()),
        });
        steps.extend(writes.then_some(write));
        steps.extend([
            JoinStep::StartEtcd {
                manifest: Exchange {
                    incoming: Some(if writes { new } else { stopped }),
                    place,
                    aside: met,
                },
                data_dir: place_of_data,
                made: self.node_path(&folders.new_data()),
                keep: folders.keep.clone(),
                only: data::etcds(),
            },
            JoinStep::AwaitVote,
            JoinStep::ProveMember,
        ]);
        Ok(steps)
    }

    fn about(&self) -> Result<About> {
        let own = self.own;
        let data_dir = own.data_dir_in(self.layout());
        let (name, peer_urls) = (own.own_name()?, own.own_peer_urls()?);
        let etcd = EtcdAbout::of(own, self.layout(), &data_dir, name, peer_urls);
        let identity = self.tls.and_then(|tls| tls.identity.as_ref());
        let endpoints = self
            .survey
            .members
            .iter()
            .filter(|state| state.is_healthy() && !state.member.is_learner)
            .filter_map(|state| state.endpoint.clone())
            .collect();
        Ok(About {
            profile: self.profile.word().to_owned(),
            etcd,
            cluster: ClusterAbout {
                id: self.survey.cluster_id.to_string(),
                endpoints,
                ca: self
                    .tls
                    .and_then(|tls| Some(tls.ca.as_ref()?.value.clone())),
                cert: identity.map(|identity| identity.cert.value.clone()),
                key: identity.map(|identity| identity.key.value.clone()),
            },
            runtime: self.runtime.clone(),
            pod: self.pod()?,
            wait_seconds: self.request.wait.as_secs(),
            allow: self.request.allow.clone(),
            safety: Vec::new(),
        })
    }

    fn pod(&self) -> Result<PodAbout> {
        let pod = &self.manifest.pod;
        let main = pod.container("etcd").or(pod.containers.first());
        let flag = main.and_then(|container| container.flag_text("wal-dir"));
        if let Some(wal) = flag.or(self.own.wal_dir.as_deref()) {
            let what = format!("a separate --wal-dir ({wal}) is not supported yet");
            return Err(refuse("separate-wal-dir", what));
        }
        let revision = match (self.profile, pod.revision(Component::Etcd)) {
            (Profile::Openshift, Ok(RevisionInUse::Revision(revision))) => Some(revision.number),
            (Profile::Openshift, Ok(RevisionInUse::RestorePod { .. })) => {
                let what = "a restore pod of OpenShift's scripts starts a new cluster and cannot join one: put a normal revision's manifest in place";
                return Err(refuse("restore-pod", what.to_owned()));
            }
            _ => None,
        };
        let place = self.layout().manifest(Component::Etcd, self.profile);
        let place = place.map(|place| self.node_path(&place));
        Ok(PodAbout::of(Component::Etcd, revision, pod, place))
    }
}
