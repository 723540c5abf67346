//! Plans the steps of a join.
//!
//! Its folders are those of a restore ([`crate::change::transaction::folders`]): `manifests` has
//! the old manifest, `manifests-new` the new one, `data` the old data, and `data-new` what etcd had
//! written when it was rolled back.

use std::path::PathBuf;
use std::time::Duration;

use super::info::JoinInfo;
use crate::change::transaction::data;
use crate::change::transaction::folders::Folders;
use crate::change::transaction::info::{ClusterInfo, EtcdInfo, PodInfo};
use crate::change::transaction::planner::{Planner, refuse_wal_apart};
use crate::change::transaction::pods::{
    self, Found, NO_MANIFEST, RESTORE_POD, newest_etcd, no_static_pods,
};
use crate::change::transaction::steps::join::JoinStep;
use crate::change::transaction::steps::{NodeStep, manifest};
use crate::cluster::survey::Survey;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::client::Id;
use crate::node::access::{EtcdAccess, TlsFiles};
use crate::node::component::Component;
use crate::node::layout::NodeLayout;
use crate::node::profile::Profile;
use crate::sys::mount::Mounts;

/// Finds etcd's manifest where the kubelet reads it or `disable` keeps it; on OpenShift also where
/// the documented procedure moves it, and in the newest revision.
///
/// # Errors
/// [`Kind::Refused`] if there is no manifest, or one that cannot join.
pub(super) fn find_manifest(layout: &NodeLayout, profile: Profile) -> Result<Found> {
    let Some(place) = layout.manifest(Component::Etcd, profile) else {
        return Err(no_static_pods(
            "start etcd with the settings that member-add prints",
        ));
    };
    let mut candidates = vec![place.clone()];
    candidates.extend(layout.disabled_manifest(Component::Etcd, profile));
    if profile == Profile::Openshift {
        candidates.push(layout.host("/home/core/assets/manifests-stopped/etcd-pod.yaml"));
        candidates.extend(newest_etcd(layout)?);
    }
    for path in candidates {
        let found = pods::read(layout, Component::Etcd, &path)
            .map_err(|failure| failure.doing(format!("reading {}", path.display())))?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let what = format!(
        "etcd's manifest {} does not exist: put it back",
        place.display()
    );
    Err(Failure::refused_for_good(NO_MANIFEST, what))
}

/// How to reach the members of the cluster that is joined.
pub(super) fn cluster(survey: &Survey, tls: Option<&TlsFiles>) -> ClusterInfo {
    let identity = tls.and_then(|tls| tls.identity.as_ref());
    let endpoints = survey
        .members
        .iter()
        .filter(|state| state.is_healthy() && !state.member.is_learner)
        .filter_map(|state| state.endpoint.clone())
        .collect();
    ClusterInfo {
        id: survey.cluster_id.to_string(),
        endpoints,
        ca: tls.and_then(|tls| Some(tls.ca.as_ref()?.value.clone())),
        cert: identity.map(|identity| identity.cert.value.clone()),
        key: identity.map(|identity| identity.key.value.clone()),
    }
}

/// What the steps are made from.
pub(super) struct JoinPlanner<'a> {
    pub(super) layout: &'a NodeLayout,
    pub(super) profile: Profile,
    /// How the node's own member is reached.
    pub(super) own: &'a EtcdAccess,
    pub(super) manifest: &'a Found,
    /// The operation's name.
    pub(super) id: String,
}

impl JoinPlanner<'_> {
    /// The place of etcd's live manifest.
    fn live(&self) -> PathBuf {
        let place = self.layout.manifest(Component::Etcd, self.profile);
        place.unwrap_or_else(|| self.manifest.path.clone())
    }

    /// Plans the steps; `existing` is the member that an earlier attempt has left.
    ///
    /// # Errors
    /// The refusals.
    pub(super) fn plan(
        &self,
        info: JoinInfo,
        existing: Option<Id>,
    ) -> Result<(JoinInfo, Vec<NodeStep>)> {
        let layout = self.layout;
        let data_dir = layout.resolve(&info.etcd.data_dir)?;
        let taken = [layout.manifests()];
        let folders = Folders::find(layout, &Mounts::read()?, &data_dir, &self.id, &taken)?;
        let wanted = [
            data_dir.clone(),
            folders.manifests_new(),
            folders.manifests(),
            folders.old_data(),
            folders.new_data(),
        ];
        let mut steps = vec![NodeStep::MakeFolders {
            folders: folders.missing_of(layout, wanted),
        }];
        let planner = Planner {
            layout,
            folders: &folders,
            data_dir: &data_dir,
        };
        steps.extend(self.steps(&planner, existing)?);
        let safety = folders.safety(layout);
        Ok((JoinInfo { safety, ..info }, steps))
    }

    /// All steps after the creation of the folders.
    fn steps(&self, planner: &Planner<'_>, existing: Option<Id>) -> Result<Vec<NodeStep>> {
        let (layout, found) = (self.layout, self.manifest);
        let flags = self.profile == Profile::Kubeadm;
        if flags {
            let doing = || format!("reading {}", found.path.display());
            let text = str::from_utf8(&found.bytes).doing(Kind::Unexpected, doing)?;
            // Tried here, so that a manifest which cannot be edited is refused before etcd stops.
            manifest::joining(text, "x=https://x:2380").map_err(|f| f.doing(doing()))?;
        }
        let place = self.live();
        let is_live = found.path == place;
        let (kept, prepared) = (planner.kept(&place), planner.prepared(&place));
        // A live manifest that stays as it is only moves away and back.
        let writes = flags || !is_live;
        let mut steps = vec![
            NodeStep::Join(JoinStep::StopEtcd {
                manifest: is_live.then(|| planner.stop(&place)),
            }),
            NodeStep::AwaitStopped,
            planner.set_data_aside(),
        ];
        let whose = data::whose(layout, planner.data_dir, &found.pod)?;
        steps.extend(whose.dir.map(NodeStep::OwnDataDir));
        // As late as possible: until it votes, etcd accepts no other learner.
        steps.push(NodeStep::Join(JoinStep::AddLearner {
            existing: existing.map(|id| id.to_string()),
        }));
        if writes {
            // By then a live manifest is where it is kept; a link's target has not moved.
            let from = match is_live && !found.path.is_symlink() {
                true => &kept,
                false => &found.content,
            };
            steps.push(NodeStep::Join(JoinStep::WriteManifest {
                from: layout.node_path(from),
                to: layout.node_path(&prepared),
                flags,
            }));
        }
        let incoming = if writes { &prepared } else { &kept };
        steps.extend(
            [
                JoinStep::StartEtcd {
                    manifest: planner.start(&place, incoming),
                    data_dir: layout.node_path(planner.data_dir),
                    made: layout.node_path(&planner.folders.new_data()),
                    keep: planner.folders.keep.clone(),
                    only: data::etcds(),
                },
                JoinStep::AwaitVote,
                JoinStep::ProveMember,
            ]
            .map(NodeStep::Join),
        );
        Ok(steps)
    }

    /// What the journal keeps, but for the safety folders.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the node's files lack a name or a peer URL; the refusals.
    pub(super) fn info(
        &self,
        cluster: ClusterInfo,
        runtime: PathBuf,
        wait: Duration,
        allow: &[String],
    ) -> Result<JoinInfo> {
        let own = self.own;
        let data_dir = own.data_dir_in(self.layout);
        let (name, peer_urls) = (own.own_name()?, own.own_peer_urls()?);
        Ok(JoinInfo {
            profile: self.profile.word().to_owned(),
            etcd: EtcdInfo::of(own, self.layout, &data_dir, name, peer_urls),
            cluster,
            runtime,
            pod: self.pod()?,
            wait_seconds: wait.as_secs(),
            allow: allow.to_vec(),
            safety: Vec::new(),
        })
    }

    fn pod(&self) -> Result<PodInfo> {
        let pod = &self.manifest.pod;
        let main = pod.container("etcd").or(pod.containers.first());
        let flag = main.and_then(|container| container.flag_text("wal-dir"));
        refuse_wal_apart(flag.or(self.own.wal_dir.as_deref()))?;
        let revision = match self.manifest.revision(self.profile) {
            Err(failure) if failure.refusal() == Some(RESTORE_POD) => return Err(failure),
            // A manifest without a revision can join, too.
            other => other.ok().flatten().map(|revision| revision.number),
        };
        let place = self.layout.manifest(Component::Etcd, self.profile);
        let place = place.map(|place| self.layout.node_path(&place));
        Ok(PodInfo::of(Component::Etcd, revision, pod, place))
    }
}
