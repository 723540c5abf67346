//! `restore BACKUP` on a node: what is refused, and what is planned.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::backup_planner::{BackupPlanner, ForwardWal};
use super::fit;
use super::identity::{self, NodeSays};
use super::info::RestoreInfo;
use super::plan::{RestorePlan, WAY_BACK};
use super::preflight::Survey;
use super::replacements::{Archive, Put};
use super::request::Request;
use crate::change::transaction::context::RUNTIME_TIMEOUT;
use crate::change::transaction::data::{self, Whose};
use crate::change::transaction::exchange::Exchange;
use crate::change::transaction::folders::{self, Folders};
use crate::change::transaction::info::{EtcdInfo, PodInfo, Scope, SourceInfo};
use crate::change::transaction::planner::{self, Planner, file_name, refuse_wal_apart};
use crate::change::transaction::pods::PodSeen;
use crate::change::transaction::steps::NodeStep;
use crate::change::transaction::steps::build::Building;
use crate::change::transaction::steps::unpack::Unpacking;
use crate::change::transaction::unsettled::{RESTORE, free_name, refuse_while_unsettled};
use crate::context::Context;
use crate::error::Result;
use crate::etcd::restore::{Bump, Question, decide_at};
use crate::event::Event;
use crate::keep::{advice, lineage};
use crate::node::apiserver::ApiServer;
use crate::node::component::Component;
use crate::node::profile::Profile;
use crate::node::runtime::{Runtime, find_socket};
use crate::node::settings::Settings;
use crate::sys::mount::Mounts;
use crate::sys::space::space;
use crate::sys::{fs, tree};

/// Room beyond the database itself: the log's first segment and some pages, in bytes.
const DATA_ROOM: u64 = 72 << 20;
/// How much more than the estimate must be free, in per cent.
const HEADROOM_PER_CENT: u64 = 10;

/// Makes the plan. Nothing has changed when it returns.
///
/// # Errors
/// [`Kind::BadBackup`], the refusals, [`Kind::Unreachable`] without a container runtime,
/// [`Kind::Busy`] while another operation is unfinished, [`Kind::Store`] without room.
pub async fn plan(context: &Context, request: &Request) -> Result<RestorePlan> {
    let layout = &request.target.layout;
    refuse_while_unsettled(layout)?;
    let mut refusals: Vec<(&'static str, String)> = Vec::new();
    if !request.privileged {
        refusals.push((
            "root-required",
            "only root can restore owners and SELinux labels".to_owned(),
        ));
    }
    let survey = context.cancel.guard(Survey::make(context, request)).await?;
    survey.refuse_copies(layout)?;
    let source = match survey.has_resources {
        true => &survey.unpacked,
        false => layout,
    };
    let api = ApiServer::look(source, survey.profile);
    for (name, what) in advice::of_set(request.set.manifest.as_ref(), &api) {
        context.warn(name, what);
    }
    let settings = Settings::read(source, survey.profile);
    if let Some(what) = advice::removed_flags(&settings) {
        context.warn(advice::FLAG_REMOVED, what);
    }
    let socket = find_socket(layout)?;
    let runtime = Runtime::connect(&socket, RUNTIME_TIMEOUT).await?;
    context.tell(Event::Note(format!(
        "container runtime {} {} at {}",
        runtime.info().name,
        runtime.info().version,
        socket.display()
    )));
    let node = context
        .cancel
        .guard(async {
            let data_dir = survey.access.data_dir_in(layout);
            Ok(identity::of_node(context, &survey.asking, &data_dir).await)
        })
        .await?;
    refusals.extend(identity::mismatches(request, &survey, &node));
    let others = context
        .cancel
        .guard(async { Ok(identity::others(request, &survey, &node).await) })
        .await?;
    refusals.extend(others.refusals("a restored single member would be a second cluster beside them; stop etcd on those nodes first"));
    if survey.unsealed {
        refusals.push((
            "no-integrity-hash",
            "the snapshot has no SHA-256 of itself: nothing tells whether bytes of it were changed"
                .to_owned(),
        ));
    }
    if let Some(alarm) = survey.facts.alarms.first() {
        refusals.push((
            "alarm-in-backup",
            format!(
                "the alarm {} of member {:x} is in the backup and will be raised again: etcd may refuse writes",
                alarm.alarm, alarm.member
            ),
        ));
    }
    refusals.retain(|(name, what)| {
        let allowed = *name != fit::OTHER_NODE && request.allows(name);
        if allowed {
            context.warn(name, what.clone());
        }
        !allowed
    });
    let refused = identity::refused(refusals, &others.names);
    let plan = || {
        let mut plan = planned(context, request, &survey, &node, &socket)?;
        plan.info.others = others.to_stay_away(|name| request.allows(name));
        Ok(plan)
    };
    if !request.rehearsal {
        refused.map_or(Ok(()), Err)?;
        return plan();
    }
    RestorePlan::unless_refused(plan(), refused)
}

/// The plan of what was seen.
fn planned(
    context: &Context,
    request: &Request,
    survey: &Survey,
    node: &NodeSays,
    socket: &Path,
) -> Result<RestorePlan> {
    let layout = &request.target.layout;
    let evidence = identity::evidence(context, request, survey, node)?;
    let planner = BackupPlanner {
        context,
        request,
        survey,
        evidence,
        cluster_id: node.cluster_id.clone(),
        etcd_serves: node.serves,
        id: free_name(context, layout, RESTORE),
        runtime: layout.node_path(socket),
    };
    planner.plan()
}

impl BackupPlanner<'_> {
    /// Makes the plan.
    fn plan(&self) -> Result<RestorePlan> {
        let data_dir = self.data_dir()?;
        let mounts = Mounts::read()?;
        let folders = Folders::find(
            self.layout(),
            &mounts,
            &data_dir,
            &self.id,
            &folders::places(self.layout()),
        )?;
        let planner = Planner {
            layout: self.layout(),
            folders: &folders,
            data_dir: &data_dir,
        };
        let mut notes = self.scope_notes();
        if let Some((_, why)) = self
            .survey
            .misfit
            .as_ref()
            .filter(|_| !self.survey.has_resources)
        {
            notes.push(format!("this node's own etcd manifest is kept: {why}"));
        }
        notes.push(WAY_BACK.to_owned());
        let wal = self.forward_wal(&data_dir)?;
        match &wal {
            Some(wal) => notes.extend(wal.notes.clone()),
            None => notes.extend(self.revision_notes()?),
        }
        let manifests = self.survey.pods.iter().filter_map(|pod| self.manifest(pod));
        notes.extend(manifests.filter_map(|path| self.layout().link_note(&path)));
        notes.extend(data::strangers(self.layout(), &data_dir)?);
        let snapshot = self.request.set.files.snapshot.as_deref();
        data::refuse_inside(&data_dir, snapshot.unwrap_or(&self.request.set.dir))?;
        let whose = self.whose(&data_dir)?;
        let puts = self.replacements(&folders, &mounts, &mut notes)?;
        self.check_space(&data_dir, &folders)?;

        let mut safety = folders.safety(self.layout());
        if puts.iter().any(|put| put.apart) {
            safety.push(self.node_path(&folders.outside(self.layout())));
        }
        let mut steps = vec![
            NodeStep::MakeFolders {
                folders: self.missing(&folders, &puts, &data_dir),
            },
            self.unpack(&folders, &puts),
            NodeStep::BuildData(Box::new(Building {
                owner: whose.data,
                roll_forward: wal.as_ref().map(|wal| wal.forward.clone()),
                wal_on_node: wal.as_ref().is_some_and(|wal| wal.on_node),
                ..self.building(&folders)
            })),
            NodeStep::StopPods {
                moves: self.stops(&planner),
            },
            NodeStep::AwaitStopped,
            planner.set_data_aside(),
        ];
        steps.extend(whose.dir.map(NodeStep::OwnDataDir));
        steps.push(planner.switch_data());
        steps.extend(puts.into_iter().map(|put| NodeStep::PutBack {
            what: put.what,
            exchange: put.exchange,
        }));
        let etcd = |pod: &&PodSeen| pod.component == Component::Etcd;
        let first: Vec<&PodSeen> = self.survey.pods.iter().filter(etcd).collect();
        let others: Vec<&PodSeen> = self.survey.pods.iter().filter(|pod| !etcd(pod)).collect();
        steps.push(planner.start_pods(self.manifests(&first)));
        if !others.is_empty() {
            steps.push(planner.start_pods(self.manifests(&others)));
        }
        steps.extend([NodeStep::ProveEtcd, NodeStep::ProvePods]);
        Ok(RestorePlan {
            id: self.id.clone(),
            info: self.info(safety, &data_dir, wal.as_ref())?,
            steps,
            notes,
            refused: None,
        })
    }

    /// The directories that are to be made.
    fn missing(&self, folders: &Folders, puts: &[Put], data_dir: &Path) -> Vec<PathBuf> {
        let layout = self.layout();
        let mut missing = folders.missing(layout, self.survey.profile, data_dir);
        let mut more: Vec<PathBuf> = Vec::new();
        if puts.iter().any(|put| put.apart) {
            more.extend(["new", "aside"].map(|name| folders.outside(layout).join(name)));
        }
        let incoming = puts.iter().filter(|put| put.exchange.incoming.is_some());
        more.extend(incoming.map(|put| fs::parent(&layout.host(&put.exchange.place)).to_owned()));
        for folder in folders.missing_of(layout, more) {
            if !missing.contains(&folder) {
                missing.push(folder);
            }
        }
        missing
    }

    /// The data directory with every link followed, as a host path.
    fn data_dir(&self) -> Result<PathBuf> {
        let survey = self.survey;
        let named = survey.access.data_dir_in(self.layout());
        let etcd = survey
            .pod(Component::Etcd)
            .and_then(|seen| seen.pod.container("etcd").or(seen.pod.containers.first()));
        let flag = etcd.and_then(|container| container.flag_text("wal-dir"));
        refuse_wal_apart(flag.or(survey.access.wal_dir.as_deref()))?;
        self.layout().resolve(self.node_path(&named))
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
        if self.survey.scope != self.request.scope {
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

    /// What becomes of the revision, and why; the step decides the same way.
    fn revision_notes(&self) -> Result<Vec<String>> {
        let bump = self.request.bump;
        let question = Question {
            bump,
            mark_compacted: !matches!(bump, Bump::By(0)),
            snapshot: self.survey.facts.revision,
            evidence: &self.evidence,
            allow_low: self.request.allows("bump-too-small"),
        };
        let to = self.request.to.as_ref().map(|to| to.revision);
        let decision = decide_at(&question, to)?;
        Ok(decision
            .reasons
            .into_iter()
            .map(|reason| format!("revision: {reason}"))
            .collect())
    }

    fn building(&self, folders: &Folders) -> Building {
        let (slack, bump_by) = planner::bump(self.request.bump);
        let allow = |name: &&str| self.request.allows(name);
        let names = ["bump-too-small", "unknown-version", "no-integrity-hash"];
        Building {
            snapshot: self.request.set.files.snapshot.clone().unwrap_or_default(),
            into: self.node_path(&folders.new_data()),
            token: format!("etcd-dr-{:032x}", self.request.random),
            slack,
            bump_by,
            evidence: planner::evidence(&self.evidence),
            to: self.request.to.clone(),
            roll_forward: None,
            wal_on_node: false,
            allow: names
                .iter()
                .filter(|name| allow(name))
                .map(|name| (*name).to_owned())
                .collect(),
            owner: None,
        }
    }

    fn whose(&self, data_dir: &Path) -> Result<Whose> {
        match self.survey.pod(Component::Etcd) {
            Some(etcd) => data::whose(self.layout(), data_dir, &etcd.pod),
            None => Ok(Whose {
                data: None,
                dir: None,
            }),
        }
    }

    /// The manifests of the scope that are there, and where they are kept.
    fn stops(&self, planner: &Planner<'_>) -> Vec<Exchange> {
        let all: Vec<&PodSeen> = self.survey.pods.iter().collect();
        let mut manifests = self.manifests(&all);
        if self.survey.scope == Scope::ControlPlane && self.survey.profile == Profile::Openshift {
            // On a single node it watches a rollout, and would put an older manifest back.
            let monitor = "kube-apiserver-startup-monitor-pod.yaml";
            manifests.insert(0, self.layout().manifests().join(monitor));
        }
        planner.stops(manifests)
    }

    /// Where a pod's manifest is, or is put, as a host path.
    fn manifest(&self, pod: &PodSeen) -> Option<PathBuf> {
        self.layout().manifest(pod.component, self.survey.profile)
    }

    /// The places of the manifests of these pods.
    fn manifests(&self, pods: &[&PodSeen]) -> Vec<PathBuf> {
        pods.iter().filter_map(|pod| self.manifest(pod)).collect()
    }

    fn unpack(&self, folders: &Folders, puts: &[Put]) -> NodeStep {
        let files = &self.request.set.files;
        let incoming = folders.incoming();
        let mut archives = Vec::new();
        let from = |archive: Archive| {
            puts.iter()
                .filter(move |put| put.archive == Some(archive) && !put.apart)
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
        if let Some(archive) = files
            .resources
            .as_ref()
            .filter(|_| self.survey.has_resources)
        {
            archives.push(Unpacking {
                archive: archive.clone(),
                only: resources(),
                into: self.node_path(&incoming.join("resources")),
            });
        }
        let apart: Vec<PathBuf> = puts
            .iter()
            .filter(|put| put.apart)
            .map(|put| put.name.clone())
            .collect();
        if let (Some(archive), false) = (&files.resources, apart.is_empty()) {
            archives.push(Unpacking {
                archive: archive.clone(),
                only: apart,
                into: self.node_path(&folders.outside(self.layout()).join("new")),
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
        let resources = self.node_path(&incoming.join("resources"));
        let copies = self.survey.pods.iter().filter_map(|pod| {
            let place = self.manifest(pod)?;
            // Of a snapshot alone it is the node's own, whose path is absolute.
            Some((
                resources.join(&pod.manifest),
                self.node_path(&folders.manifests_new().join(file_name(&place))),
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

    fn info(
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
                match &self.request.peer_urls {
                    Some(urls) => urls.clone(),
                    None => survey.access.own_peer_urls()?,
                },
            ),
            runtime: self.runtime.clone(),
            pods: survey.pods.iter().map(|pod| self.pod_info(pod)).collect(),
            wait_seconds: self.request.wait.as_secs(),
            grace_seconds: Some(self.request.grace.as_secs()),
            etcd_served: Some(self.etcd_serves),
            alarms_allowed: self.request.allows("alarm-in-backup"),
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
}
