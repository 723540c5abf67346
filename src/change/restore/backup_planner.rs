//! What the plan of a restore from a backup is made from, and the notes that explain it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::info::RestoreInfo;
use super::preflight::Survey;
use super::refusals::{ALARM_IN_BACKUP, BUMP_TOO_SMALL, ETCD_RUNNING};
use super::request::Request;
use crate::change::datadir::RollForward;
use crate::change::transaction::data::{self, Whose};
use crate::change::transaction::folders::Folders;
use crate::change::transaction::info::{EtcdInfo, PodInfo, Scope, SourceInfo};
use crate::change::transaction::planner::refuse_wal_apart;
use crate::change::transaction::pods::PodSeen;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::etcd::ids::ClusterId;
use crate::etcd::restore::{Bump, Evidence, Question, decide_at};
use crate::etcd::roll::Joined;
use crate::etcd::wal::SEGMENT_SIZE;
use crate::keep::lineage;
use crate::node::component::Component;
use crate::node::layout::NodeLayout;
use crate::sys::space::space;
use crate::sys::tree;

/// Room beyond the database itself, in bytes: the WAL's first segment, which is allocated at once, and
/// the pages that are added.
const DATA_ROOM: u64 = SEGMENT_SIZE + (8 << 20);
/// The least space that a file takes, in bytes: the default block size of ext4 and XFS.
const BLOCK: u64 = 4096;
/// How much more than the estimate must be free, in per cent.
const HEADROOM_PER_CENT: u64 = 10;

/// Everything that the steps are made from.
pub(super) struct BackupPlanner<'a> {
    pub(super) context: &'a Context,
    pub(super) request: &'a Request,
    pub(super) survey: &'a Survey,
    pub(super) evidence: Vec<Evidence>,
    /// The id of the cluster that the node belongs to.
    pub(super) cluster_id: Option<String>,
    /// Whether the node's etcd serves now.
    pub(super) etcd_serves: bool,
    /// The operation's name.
    pub(super) id: String,
    /// The container runtime's socket, as a node path.
    pub(super) runtime: PathBuf,
}

/// A WAL that is applied to the backup.
pub(super) struct ForwardWal {
    pub(super) forward: RollForward,
    /// Whether its directory is a node path.
    pub(super) on_node: bool,
    pub(super) notes: Vec<String>,
}

impl BackupPlanner<'_> {
    /// Looks at the WAL that will be applied, so that refusals come before anything stops. The data
    /// is built later, while the node's etcd is down and its WAL does not grow.
    ///
    /// # Errors
    /// The refusal `etcd-running` for good if the WAL belongs to an etcd that serves; those of
    /// [`Joined::open`].
    pub(super) fn forward_wal(&self, data_dir: &Path) -> Result<Option<ForwardWal>> {
        let Some(named) = &self.request.roll_forward else {
            return Ok(None);
        };
        let on_node = named.as_os_str().is_empty();
        if on_node && self.etcd_serves {
            return Err(Failure::refused_for_good(
                ETCD_RUNNING,
                "this node's etcd serves: nothing of it is lost, and its WAL grows while it runs",
            ));
        }
        let dir = if on_node { data_dir } else { named.as_path() };
        let manifest = self.request.set.manifest.as_ref();
        let cluster_id = manifest.map(|manifest| manifest.cluster.etcd_id.clone());
        let cluster = cluster_id.as_deref().and_then(ClusterId::from_hex);
        let (first, last) = Joined::open(dir, &self.survey.facts, cluster)?.span();
        let entries = last.saturating_sub(first);
        Ok(Some(ForwardWal {
            forward: RollForward {
                dir: if on_node {
                    self.node_path(dir)
                } else {
                    dir.to_owned()
                },
                cluster_id,
            },
            on_node,
            notes: vec![
                format!("roll forward: {entries} entries of the WAL, from {first} to {last}"),
                "revision: decided once they are applied, above all that they reach".to_owned(),
            ],
        }))
    }

    /// The data directory with every link followed, as a host path.
    pub(super) fn data_dir(&self) -> Result<PathBuf> {
        let survey = self.survey;
        let named = survey.access.data_dir_in(self.layout());
        let etcd = survey
            .pod(Component::Etcd)
            .and_then(|seen| seen.pod.container("etcd").or(seen.pod.containers.first()));
        let flag = etcd.and_then(|container| container.flag_text("wal-dir"));
        refuse_wal_apart(flag.or(survey.access.wal_dir.as_deref()))?;
        self.layout().resolve(self.node_path(&named))
    }

    pub(super) fn scope_notes(&self) -> Vec<String> {
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
        if self.survey.scope != self.request.options.scope {
            notes.push("this node runs only etcd, so only etcd is rolled back".to_owned());
            return notes;
        }
        notes.push(match self.survey.scope {
            Scope::ControlPlane => format!(
                "{generation}: all four static pods stop and return to the backup's revisions, so that no cache outlives the data that filled it"
            ),
            Scope::Etcd => format!(
                "{generation}: only etcd stops and is restored; the others keep running and re-list, because every revision they have seen is marked as compacted (as OpenShift's cluster-restore.sh does since 4.18)"
            ),
        });
        notes
    }

    /// How the revision is bumped, and why; the step decides in the same way.
    pub(super) fn revision_notes(&self) -> Result<Vec<String>> {
        let bump = self.request.options.bump;
        let question = Question {
            bump,
            mark_compacted: !matches!(bump, Bump::By(0)),
            snapshot: self.survey.facts.revision,
            evidence: &self.evidence,
            allow_low: self.request.options.allows(BUMP_TOO_SMALL),
        };
        let to = self.request.to.as_ref().map(|to| to.revision);
        let decision = decide_at(&question, to)?;
        Ok(decision
            .reasons
            .into_iter()
            .map(|reason| format!("revision: {reason}"))
            .collect())
    }

    pub(super) fn whose(&self, data_dir: &Path) -> Result<Whose> {
        match self.survey.pod(Component::Etcd) {
            Some(etcd) => data::whose(self.layout(), data_dir, &etcd.pod),
            None => Ok(Whose {
                data: None,
                dir: None,
            }),
        }
    }

    /// Where a pod's manifest is, or is put, as a host path.
    pub(super) fn manifest(&self, pod: &PodSeen) -> Option<PathBuf> {
        self.layout().manifest(pod.component, self.survey.profile)
    }

    /// The places of the manifests of these pods.
    pub(super) fn manifests(&self, pods: &[&PodSeen]) -> Vec<PathBuf> {
        pods.iter().filter_map(|pod| self.manifest(pod)).collect()
    }

    /// Refuses if the data or the unpacked files would not fit.
    pub(super) fn check_space(&self, data_dir: &Path, folders: &Folders) -> Result<()> {
        let database = self.survey.facts.total_size.saturating_add(DATA_ROOM);
        let unpacked: u64 = tree::describe(
            &self.survey.unpacked.kubernetes(),
            &tree::Options {
                // Only the sizes are of interest.
                xattrs: false,
                ..tree::Options::default()
            },
        )?
        .values()
        .map(|node| match node.kind {
            tree::NodeKind::File { size, .. } => size.max(BLOCK),
            _ => BLOCK,
        })
        .sum();
        let (data, etc) = (space(data_dir)?, space(&folders.etc)?);
        // On one file system the two add up.
        let wanted = if data.device == etc.device {
            vec![(data, database.saturating_add(unpacked))]
        } else {
            vec![(data, database), (etc, unpacked)]
        };
        for (place, estimate) in wanted {
            let needed = estimate.saturating_add(estimate / 100 * HEADROOM_PER_CENT);
            place.check(needed, "the restore")?;
        }
        Ok(())
    }

    /// The ids that the new cluster's is made from.
    fn former_clusters(&self) -> Result<Vec<String>> {
        let mut former = Vec::new();
        if let Some(id) = &self.cluster_id {
            former.push(id.clone());
            former.extend(lineage::former_ids(self.layout(), id)?);
        }
        former.extend(self.request.set.manifest.iter().flat_map(lineage::of_set));
        let mut seen = BTreeSet::new();
        former.retain(|id| seen.insert(id.clone()));
        Ok(former)
    }

    /// What the journal keeps.
    pub(super) fn info(
        &self,
        safety: Vec<PathBuf>,
        data_dir: &Path,
        wal: Option<&ForwardWal>,
    ) -> Result<RestoreInfo> {
        let survey = self.survey;
        let set = &self.request.set;
        let manifest = set.manifest.as_ref();
        Ok(RestoreInfo {
            source: Some(SourceInfo {
                name: set.name.clone(),
                dir: set.dir.clone(),
                created: set.created,
                kv_revision: Some(survey.facts.revision),
                ocp_version: survey.version.as_ref().and_then(|v| v.version.clone()),
                cluster_uuid: survey.version.as_ref().and_then(|v| v.uuid.clone()),
                node: manifest.and_then(|manifest| manifest.node.name.clone()),
                to: self.request.to.clone(),
                roll_forward: wal.map(|wal| wal.forward.dir.clone()),
                recorded: self.request.recorded.clone(),
            }),
            profile: survey.profile.word().to_owned(),
            node: survey.node.clone(),
            nodes: survey.nodes(),
            scope: survey.scope,
            etcd: EtcdInfo::of(
                &survey.access,
                self.layout(),
                data_dir,
                survey.node.clone(),
                match &self.request.options.peer_urls {
                    Some(urls) => urls.clone(),
                    None => survey.access.own_peer_urls()?,
                },
            ),
            runtime: self.runtime.clone(),
            pods: survey.pods.iter().map(|pod| self.pod_info(pod)).collect(),
            wait_seconds: self.request.options.wait.as_secs(),
            grace_seconds: Some(self.request.options.grace.as_secs()),
            etcd_served: Some(self.etcd_serves),
            alarms_allowed: self.request.options.allows(ALARM_IN_BACKUP),
            safety,
            former_clusters: self.former_clusters()?,
            others: Vec::new(),
            etcd_alone: self.layout().is_etcd_only(survey.profile),
        })
    }

    fn pod_info(&self, seen: &PodSeen) -> PodInfo {
        let revision = seen.revision.map(|revision| revision.number);
        let manifest = self.manifest(seen).map(|path| self.node_path(&path));
        PodInfo::of(seen.component, revision, &seen.pod, manifest)
    }
    pub(super) fn layout(&self) -> &NodeLayout {
        &self.request.options.target.layout
    }

    pub(super) fn node_path(&self, host: &Path) -> PathBuf {
        self.layout().node_path(host)
    }
}
