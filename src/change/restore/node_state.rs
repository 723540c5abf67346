//! The node as a change without a backup finds it.

use std::path::{Path, PathBuf};

use super::identity::{self, NodeSays};
use super::others::{Circle, Others, Own};
use crate::change::transaction::context::RUNTIME_TIMEOUT;
use crate::change::transaction::info::{EtcdInfo, PodInfo, Scope};
use crate::change::transaction::pods::{
    self, NO_MANIFEST, RESTORE_POD, no_static_pods, refuse_copies, refuse_what_is_not_ours,
};
use crate::cluster::connect::Target;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::node::access::EtcdAccess;
use crate::node::certificates::{Fitness, check_certificates, wanted_by_etcd};
use crate::node::component::Component;
use crate::node::endpoint::Endpoint;
use crate::node::layout::NodeLayout;
use crate::node::pod::PodManifest;
use crate::node::profile::Profile;
use crate::node::runtime::{Runtime, find_socket};
use crate::node::wanted::{Use, WantedCertificate};

/// The node, its etcd and its container runtime.
pub(crate) struct NodeState {
    target: Target,
    pub(crate) layout: NodeLayout,
    pub(crate) profile: Profile,
    pub(crate) access: EtcdAccess,
    pub(crate) node: String,
    /// The data directory with every link followed.
    pub(crate) data_dir: PathBuf,
    /// The container runtime's socket.
    pub(crate) socket: PathBuf,
}

/// A static pod of the node and where its plain manifest is.
pub(crate) struct PlainPod {
    pub(crate) component: Component,
    pub(crate) info: PodInfo,
    pub(crate) pod: PodManifest,
    /// The file with the manifest's content, as a host path.
    pub(crate) manifest: PathBuf,
}

impl NodeState {
    /// Looks at the node. Changes nothing.
    pub(crate) async fn look(context: &Context, target: &Target) -> Result<Self> {
        let detection = target.detect(context)?;
        refuse_what_is_not_ours(&detection)?;
        if detection.profile == Profile::Bare {
            return Err(no_static_pods("nothing here can be stopped and started"));
        }
        let access = target.access(context, &detection)?;
        let node = access.own_name()?;
        let layout = target.layout.clone();
        let named = access.data_dir_in(&layout);
        let data_dir = layout.resolve(layout.node_path(&named))?;
        let socket = find_socket(&layout)?;
        Runtime::connect(&socket, RUNTIME_TIMEOUT).await?;
        Ok(Self {
            target: target.clone(),
            layout,
            profile: detection.profile,
            access,
            node,
            data_dir,
            socket,
        })
    }

    pub(crate) fn node_path(&self, host: &Path) -> PathBuf {
        self.layout.node_path(host)
    }

    /// Refuses copies of the manifests of these pods.
    pub(crate) fn refuse_copies(&self, pods: &[PlainPod]) -> Result<()> {
        let pods = pods.iter().map(|pod| (pod.component, pod.info.key()));
        refuse_copies(
            &self.layout,
            self.profile,
            &pods.collect::<Vec<_>>(),
            &self.data_dir,
        )
    }

    /// What is worth knowing of the manifests of these pods.
    pub(crate) fn manifest_notes(&self, pods: &[PlainPod]) -> Vec<String> {
        let live = pods
            .iter()
            .filter_map(|pod| self.layout.manifest(pod.component, self.profile));
        live.filter_map(|path| self.layout.link_note(&path))
            .collect()
    }

    /// How to reach etcd, for the journal; with other peer URLs, if given.
    pub(crate) fn etcd(&self, peer_urls: Option<&[String]>) -> EtcdInfo {
        let own = || {
            let urls = self.access.peer_urls.as_ref();
            urls.map(|urls| urls.value.clone()).unwrap_or_default()
        };
        EtcdInfo::of(
            &self.access,
            &self.layout,
            &self.data_dir,
            self.node.clone(),
            peer_urls.map_or_else(own, <[String]>::to_vec),
        )
    }

    /// The live manifest's path.
    pub(crate) fn live(&self, component: Component) -> Result<PathBuf> {
        let path = self.layout.manifest(component, self.profile);
        path.ok_or_else(|| Failure::new(Kind::Unexpected, "this profile has no manifests"))
    }

    /// The pods of a scope that this node has, always with etcd's: if its live manifest is missing
    /// or a restore pod's, the one that `disable` keeps, or the newest revision's.
    pub(crate) fn pods(&self, scope: Scope) -> Result<Vec<PlainPod>> {
        let mut pods = Vec::new();
        for component in scope.components() {
            let live = self.live(*component)?;
            let mut seen = self.plain(*component, &live)?;
            let kept = self.layout.disabled_manifest(*component, self.profile);
            if let (None, Some(kept)) = (&seen, kept) {
                seen = self.plain(*component, &kept)?;
            }
            match seen {
                Some(pod) => pods.push(pod),
                None if *component == Component::Etcd => pods.push(self.newest_etcd()?),
                None => {}
            }
        }
        Ok(pods)
    }

    /// The manifest as a plain pod's; none if it is not there or is a restore pod's.
    fn plain(&self, component: Component, path: &Path) -> Result<Option<PlainPod>> {
        let doing = |failure: Failure| failure.doing(format!("reading {}", path.display()));
        let Some(found) = pods::read(&self.layout, component, path).map_err(doing)? else {
            return Ok(None);
        };
        let revision = match found.revision(self.profile) {
            Err(failure) if failure.refusal() == Some(RESTORE_POD) => return Ok(None),
            other => other.map_err(doing)?.map(|revision| revision.number),
        };
        let place = self.layout.manifest(component, self.profile);
        let place = place.map(|place| self.node_path(&place));
        Ok(Some(PlainPod {
            component,
            info: PodInfo::of(component, revision, &found.pod, place),
            pod: found.pod,
            manifest: found.content,
        }))
    }

    /// etcd's pod of the newest revision on the disk.
    fn newest_etcd(&self) -> Result<PlainPod> {
        let newest = match pods::newest_etcd(&self.layout)? {
            Some(path) => self.plain(Component::Etcd, &path)?,
            None => None,
        };
        newest.ok_or_else(|| {
            let manifests = self.node_path(&self.layout.manifests());
            let what = format!(
                "neither {} nor a revision on disk has a normal etcd pod",
                manifests.display()
            );
            Failure::refused_for_good(NO_MANIFEST, what)
        })
    }

    /// Hosts of the new peer URLs that etcd's peer certificate lacks: other members could not
    /// connect to them.
    pub(crate) fn names_that_lack(
        &self,
        context: &Context,
        peer_urls: Option<&[String]>,
    ) -> Result<Vec<String>> {
        let places: Vec<Endpoint> = peer_urls
            .unwrap_or_default()
            .iter()
            .filter_map(|url| Endpoint::parse(url))
            .filter(|place| place.tls)
            .collect();
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let detection = self.target.detect(context)?;
        // The node's own names have not changed; unreadable files are reported when they are used.
        let wanted = wanted_by_etcd(&self.layout, &detection, &self.target.overrides);
        let peers = wanted.unwrap_or_default().into_iter();
        let peers = peers.filter(|wanted| wanted.uses.contains(&Use::Client));
        let wanted: Vec<WantedCertificate> = peers
            .map(|mut wanted| {
                wanted.addresses = places.iter().filter_map(Endpoint::ip).collect();
                let names = places.iter().filter(|place| place.ip().is_none());
                wanted.hosts = names.map(|place| place.host.clone()).collect();
                wanted
            })
            .collect();
        let found = check_certificates(&wanted, context.now).into_iter();
        let lacks = found.filter(|finding| {
            matches!(
                finding.what,
                Fitness::HostMissing(_) | Fitness::AddressMissing(_)
            )
        });
        Ok(lacks
            .map(|finding| format!("{finding}: members that join could not reach this one"))
            .collect())
    }

    /// Asks the other members that the node knows of, and those that a disk brought here knows of.
    pub(crate) async fn others(&self, context: &Context, from: &Path) -> (Others, NodeSays) {
        let node = identity::of_node(context, &self.access, &self.data_dir).await;
        let mut own = Own::of(&self.access, &self.node, &self.target);
        own.ids.extend(node.member_id);
        let mut circle = Circle {
            own,
            members: Vec::new(),
            endpoints: Vec::new(),
            current: node.members.clone(),
        };
        if from != self.data_dir {
            let brought = identity::from_files(context, from).await;
            circle.members.extend(brought.members.unwrap_or_default());
        }
        circle.add_access(&self.access);
        let options = identity::patient(&self.access).ok();
        (circle.ask(options.as_ref()).await, node)
    }
}
