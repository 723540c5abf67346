//! The steps of a restore from a backup, in the order in which they run.

use std::path::{Path, PathBuf};

use super::backup_planner::{BackupPlanner, ForwardWal};
use super::refusals::{BUMP_TOO_SMALL, NO_INTEGRITY_HASH, UNKNOWN_VERSION};
use super::replacements::{Archive, Put};
use crate::change::transaction::data::Whose;
use crate::change::transaction::exchange::Exchange;
use crate::change::transaction::folders::Folders;
use crate::change::transaction::info::Scope;
use crate::change::transaction::planner::{self, Planner, file_name};
use crate::change::transaction::pods::PodSeen;
use crate::change::transaction::steps::NodeStep;
use crate::change::transaction::steps::build::Building;
use crate::change::transaction::steps::unpack::Unpacking;
use crate::node::component::Component;
use crate::node::profile::Profile;
use crate::sys::fs;

/// The static pod that watches a rollout on OpenShift's single nodes.
const STARTUP_MONITOR: &str = "kube-apiserver-startup-monitor-pod.yaml";

impl BackupPlanner<'_> {
    /// Everything from the first folder to the proof.
    pub(super) fn steps(
        &self,
        planner: &Planner<'_>,
        puts: Vec<Put>,
        whose: Whose,
        wal: Option<&ForwardWal>,
    ) -> Vec<NodeStep> {
        let folders = planner.folders;
        let mut steps = vec![
            NodeStep::MakeFolders {
                folders: self.missing(folders, &puts, planner.data_dir),
            },
            self.unpack(folders, &puts),
            // Before anything stops: if this fails, no one has noticed.
            NodeStep::BuildData(Box::new(Building {
                owner: whose.data,
                roll_forward: wal.map(|wal| wal.forward.clone()),
                wal_on_node: wal.is_some_and(|wal| wal.on_node),
                ..self.building(folders)
            })),
            NodeStep::StopPods {
                moves: self.stops(planner),
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
        // etcd's first: the others' containers crash as long as it does not serve.
        let etcd = |pod: &&PodSeen| pod.component == Component::Etcd;
        let first: Vec<&PodSeen> = self.survey.pods.iter().filter(etcd).collect();
        let others: Vec<&PodSeen> = self.survey.pods.iter().filter(|pod| !etcd(pod)).collect();
        steps.push(planner.start_pods(self.manifests(&first)));
        if !others.is_empty() {
            steps.push(planner.start_pods(self.manifests(&others)));
        }
        steps.extend([NodeStep::ProveEtcd, NodeStep::ProvePods]);
        steps
    }

    /// The directories to be made.
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

    fn building(&self, folders: &Folders) -> Building {
        let (slack, bump_by) = planner::bump(self.request.options.bump);
        let allow = |name: &&str| self.request.options.allows(name);
        let names = [BUMP_TOO_SMALL, UNKNOWN_VERSION, NO_INTEGRITY_HASH];
        Building {
            snapshot: self.request.set.files.snapshot.clone().unwrap_or_default(),
            into: self.node_path(&folders.new_data()),
            token: format!("etcd-dr-{:032x}", self.request.options.random),
            slack,
            bump_by,
            evidence: planner::evidence(&self.evidence),
            to: self.request.to.clone(),
            roll_forward: None,
            wal_on_node: false,
            recorded: self.request.recorded.clone(),
            allow: names
                .iter()
                .filter(|name| allow(name))
                .map(|name| (*name).to_owned())
                .collect(),
            owner: None,
        }
    }

    /// Moves the existing manifests of the scope away.
    fn stops(&self, planner: &Planner<'_>) -> Vec<Exchange> {
        let all: Vec<&PodSeen> = self.survey.pods.iter().collect();
        let mut manifests = self.manifests(&all);
        if self.survey.scope == Scope::ControlPlane && self.survey.profile == Profile::Openshift {
            // It would put an older manifest back.
            manifests.insert(0, self.layout().manifests().join(STARTUP_MONITOR));
        }
        planner.stops(manifests)
    }

    /// Unpacks what comes from the archives, and prepares manifests and links next to it.
    fn unpack(&self, folders: &Folders, puts: &[Put]) -> NodeStep {
        let resources = self.node_path(&folders.incoming().join("resources"));
        let copies = self.survey.pods.iter().filter_map(|pod| {
            let place = self.manifest(pod)?;
            // With a snapshot alone it is the node's own manifest, whose path is absolute: `join`
            // yields just that.
            Some((
                resources.join(&pod.manifest),
                self.node_path(&folders.manifests_new().join(file_name(&place))),
            ))
        });
        let link = |put: &Put| Some((put.exchange.incoming.clone()?, put.link_to.clone()?));
        NodeStep::Unpack {
            archives: self.archives(folders, puts),
            copies: copies.collect(),
            links: puts.iter().filter_map(link).collect(),
        }
    }

    /// What is unpacked of which archive, and where.
    fn archives(&self, folders: &Folders, puts: &[Put]) -> Vec<Unpacking> {
        let files = &self.request.set.files;
        let incoming = folders.incoming();
        let unpacking = |archive: &PathBuf, only, into: PathBuf| Unpacking {
            archive: archive.clone(),
            only,
            into: self.node_path(&into),
        };
        let in_place = |archive| names(puts, |put| put.archive == Some(archive) && !put.apart);
        let mut archives = Vec::new();
        let resources = files.resources.as_ref();
        if let Some(archive) = resources.filter(|_| self.survey.has_resources) {
            let mut only = in_place(Archive::Resources);
            only.extend(self.bare_manifests(puts));
            archives.push(unpacking(archive, only, incoming.join("resources")));
        }
        let apart = names(puts, |put| put.apart);
        if let (Some(archive), false) = (resources, apart.is_empty()) {
            let into = folders.outside(self.layout()).join("new");
            archives.push(unpacking(archive, apart, into));
        }
        let certificates = in_place(Archive::Certificates);
        if let (Some(archive), false) = (&files.certificates, certificates.is_empty()) {
            let into = incoming.join("certificates");
            archives.push(unpacking(archive, certificates, into));
        }
        archives
    }

    /// The pods' manifests that no replacement brings along.
    fn bare_manifests(&self, puts: &[Put]) -> Vec<PathBuf> {
        let covered = |name: &PathBuf| {
            let mut puts = puts.iter();
            puts.any(|put| put.archive == Some(Archive::Resources) && name.starts_with(&put.name))
        };
        let manifests = self.survey.pods.iter().map(|pod| &pod.manifest);
        manifests.filter(|name| !covered(name)).cloned().collect()
    }
}

/// The names inside the archives of these replacements.
fn names(puts: &[Put], which: impl Fn(&Put) -> bool) -> Vec<PathBuf> {
    let puts = puts.iter().filter(|put| which(put));
    puts.map(|put| put.name.clone()).collect()
}
