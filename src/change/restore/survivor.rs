//! `restore --from-data-dir` on a node: a member's own disk becomes a cluster of that member alone,
//! by the same steps and with the same way back as a restore from a backup.
//!
//! The new data is made once etcd has stopped and its data is in the safety folder, which is what
//! is read. What goes into place is a plain etcd pod: a restart later does nothing special.

use std::path::PathBuf;
use std::time::Duration;

use super::about::{About, Scope, SetAbout};
use super::data::{self, Whose};
use super::folders::{self, Folders};
use super::identity::NodeSays;
use super::plan::{Draft, refuse_wal_apart};
use super::site::{Plain, Site};
use super::steps::build::surviving_request;
use super::steps::{Exchange, NodeStep, Surviving};
use super::{KIND, identity, served};
use crate::change;
use crate::change::{datadir, operation};
use crate::cluster::connect::Target;
use crate::context::Context;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::datadir::{Layout, holders};
use crate::etcd::restore::{Bump, Evidence, SLACK};
use crate::event::Event;
use crate::keep::{catalog, lineage};
use crate::node::component::Component;
use crate::store::LocalStore;
use crate::sys::mount::Mounts;
use crate::sys::owner::Owner;
use crate::sys::space::space;

/// Room for what is added to the member's own, in bytes.
const ROOM: u64 = 136 << 20;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The node.
    pub target: Target,
    /// The member's data directory: the node's own, or a disk brought here.
    pub from: PathBuf,
    /// The member's peer URLs, where they changed.
    pub peer_urls: Option<Vec<String>>,
    /// The store's directory, whose sets say how far the cluster had come.
    pub store: Option<PathBuf>,
    /// Which pods are stopped and started again.
    pub scope: Scope,
    /// How the revision is raised.
    pub bump: Bump,
    /// Names of refusals that are allowed.
    pub allow: Vec<String>,
    /// The longest wait for pods to end, and for anything to start.
    pub wait: Duration,
    /// The time that pods other than etcd's get to end.
    pub grace: Duration,
    /// Whether the process is root.
    pub privileged: bool,
    /// Randomness, for the new cluster's id.
    pub random: u128,
    /// Whether the plan is only shown: then what is refused comes with it.
    pub rehearsal: bool,
}

/// Makes the plan. Nothing has changed when it returns.
///
/// # Errors
/// As those of [`super::draft`].
pub async fn draft(context: &Context, request: &Request) -> Result<Draft> {
    let layout = &request.target.layout;
    operation::refuse_while_unsettled(layout)?;
    let site = context
        .cancel
        .guard(Site::look(context, &request.target))
        .await?;
    let mut refusals = Vec::new();
    if !request.privileged {
        refusals.push((
            "root-required",
            "only root can restore owners and SELinux labels".to_owned(),
        ));
    }
    let from = request.from.canonicalize();
    let from = from.unwrap_or_else(|_| request.from.clone());
    let (others, node) = context
        .cancel
        .guard(async { Ok(site.others(context, &from).await) })
        .await?;
    refusals.extend(
        others.refusals("stop etcd on those nodes first, and find out which disk is the best"),
    );
    refusals.retain(|(name, what)| {
        let allowed = request.allow.iter().any(|allowed| allowed == name);
        if allowed {
            context.warn(name, what.clone());
        }
        !allowed
    });
    for lack in site.names_that_lack(context, request.peer_urls.as_deref())? {
        context.warn("certificate-lacks-name", lack);
    }
    let refused = identity::refused(refusals, &others.names);
    let allows = |name: &str| request.allow.iter().any(|allowed| allowed == name);
    let plan = async {
        let mut draft = planned(context, request, site, &node).await?;
        draft.about.others = others.to_stay_away(allows);
        Ok(draft)
    };
    if !request.rehearsal {
        refused.map_or(Ok(()), Err)?;
        return plan.await;
    }
    match (refused, plan.await) {
        (None, plan) => plan,
        (Some(refused), Ok(draft)) => Ok(Draft {
            refused: Some(refused),
            ..draft
        }),
        (Some(refused), Err(_)) => Err(refused),
    }
}

/// The plan of what was seen.
async fn planned(
    context: &Context,
    request: &Request,
    site: Site,
    node: &NodeSays,
) -> Result<Draft> {
    let layout = &request.target.layout;
    let pods = site.pods(request.scope)?;
    site.refuse_copies(&pods)?;
    refuse_wal_apart(site.access.wal_dir.as_deref())?;
    let drafting = Drafting {
        context,
        request,
        id: operation::free_name(context, layout, KIND),
        pods,
        former: match &node.cluster_id {
            Some(id) => [vec![id.clone()], lineage::former_ids(layout, id)?].concat(),
            None => Vec::new(),
        },
        etcd_serves: node.serves,
        site,
    };
    let draft = drafting.draft()?;
    examine(context, request, &draft).await?;
    Ok(draft)
}

/// Reads the member's data as the step will, where no etcd writes to it: what cannot be used is
/// refused before anything stops.
async fn examine(context: &Context, request: &Request, draft: &Draft) -> Result<()> {
    let surviving = draft.steps.iter().find_map(|step| match step {
        NodeStep::BuildFromMember(surviving) => Some(surviving),
        _ => None,
    });
    let Some(surviving) = surviving.filter(|_| matches!(holders(&request.from), Ok(None))) else {
        context.tell(Event::Note(format!(
            "{} is in use: its WAL can be checked only when etcd has stopped",
            request.from.display()
        )));
        return Ok(());
    };
    let (from, into) = (request.from.clone(), surviving.into.clone());
    let wanted = surviving_request(surviving, &draft.about.etcd.member, from, into)?;
    let inner = context.clone();
    let read = tokio::task::spawn_blocking(move || change::survivor::examine(&inner, &wanted));
    read.await.doing(Kind::Unexpected, || "running a thread")?
}

struct Drafting<'a> {
    context: &'a Context,
    request: &'a Request,
    site: Site,
    id: String,
    pods: Vec<Plain>,
    /// The cluster's id and those before it.
    former: Vec<String>,
    etcd_serves: bool,
}

impl Drafting<'_> {
    fn draft(&self) -> Result<Draft> {
        let site = &self.site;
        let layout = &site.layout;
        let from = self.request.from.canonicalize().map_err(|cause| {
            let doing = format!("opening {}", self.request.from.display());
            Failure::wrap(Kind::Usage, cause, doing)
        })?;
        let own = site.data_dir.canonicalize().is_ok_and(|dir| dir == from);
        if !own && let Some(holder) = holders(&from)? {
            return Err(super::survey::refuse(
                "etcd-running",
                format!("{holder} holds the database in {}", from.display()),
            ));
        }
        let folders = Folders::find(
            layout,
            &Mounts::read()?,
            &site.data_dir,
            &self.id,
            &folders::places(layout),
        )?;
        self.check_space(&from)?;
        if !own {
            data::refuse_inside(&site.data_dir, &from)?;
        }
        let whose = self.whose()?;
        let node = |path: &PathBuf| site.node_path(path);
        let data_dir = node(&site.data_dir);
        let mut steps = vec![NodeStep::MakeFolders {
            folders: folders.missing(layout, site.profile, &site.data_dir),
        }];
        // Read while it is certain to be what the operator sees.
        steps.push(NodeStep::Unpack {
            archives: Vec::new(),
            copies: self.copies(&folders)?,
            links: Vec::new(),
        });
        steps.push(NodeStep::StopPods {
            moves: self.stops(&folders)?,
        });
        steps.push(NodeStep::AwaitStopped);
        steps.push(NodeStep::SetDataAside {
            data_dir: data_dir.clone(),
            aside: node(&folders.old_data()),
            keep: folders.keep.clone(),
            only: data::etcds(),
        });
        steps.push(NodeStep::BuildFromMember(Box::new(
            self.surviving(&folders, own, from, whose.data),
        )));
        steps.extend(whose.dir.map(NodeStep::OwnDataDir));
        steps.push(NodeStep::SwitchData {
            built: node(&folders.new_data()),
            data_dir,
            keep: folders.keep.clone(),
            only: data::etcds(),
        });
        let (etcd, others): (Vec<&Plain>, Vec<&Plain>) = self
            .pods
            .iter()
            .partition(|pod| pod.component == Component::Etcd);
        steps.push(self.start(&folders, &etcd)?);
        steps.push(NodeStep::ProveEtcd);
        if !others.is_empty() {
            steps.push(self.start(&folders, &others)?);
        }
        steps.push(NodeStep::ProvePods);
        Ok(Draft {
            about: self.about(&folders),
            steps,
            notes: self.notes(own)?,
            refused: None,
        })
    }

    fn notes(&self, own: bool) -> Result<Vec<String>> {
        let mut notes = vec![
            super::WAY_BACK.to_owned(),
            "the member's whole WAL is kept, including entries that it did not know to be committed: as leader it would have committed them".to_owned(),
            "the other members are removed for good, and the cluster gets a new id: their disks cannot be used with it any more".to_owned(),
        ];
        notes.extend(self.site.manifest_notes(&self.pods));
        if !own {
            notes.push("the present data is set aside and not read".to_owned());
        }
        notes.extend(data::strangers(&self.site.layout, &self.site.data_dir)?);
        Ok(notes)
    }

    /// Copies of the plain manifests, taken before the live ones go.
    fn copies(&self, folders: &Folders) -> Result<Vec<(PathBuf, PathBuf)>> {
        let mut copies = Vec::new();
        for pod in &self.pods {
            let to = self.incoming(folders, pod)?;
            copies.push((self.site.node_path(&pod.manifest), self.site.node_path(&to)));
        }
        Ok(copies)
    }

    fn incoming(&self, folders: &Folders, pod: &Plain) -> Result<PathBuf> {
        let live = self.site.live(pod.component)?;
        let name = live.file_name().unwrap_or_default().to_owned();
        Ok(folders.manifests_new().join(name))
    }

    fn stops(&self, folders: &Folders) -> Result<Vec<Exchange>> {
        let mut stops = Vec::new();
        for pod in &self.pods {
            let live = self.site.live(pod.component)?;
            if live.symlink_metadata().is_ok() {
                let name = live.file_name().unwrap_or_default();
                stops.push(Exchange {
                    incoming: None,
                    aside: self.site.node_path(&folders.manifests().join(name)),
                    place: self.site.node_path(&live),
                });
            }
        }
        Ok(stops)
    }

    fn start(&self, folders: &Folders, pods: &[&Plain]) -> Result<NodeStep> {
        let mut moves = Vec::new();
        for pod in pods {
            let live = self.site.live(pod.component)?;
            let mut met = std::ffi::OsString::from("met-");
            met.push(live.file_name().unwrap_or_default());
            moves.push(Exchange {
                incoming: Some(self.site.node_path(&self.incoming(folders, pod)?)),
                aside: self.site.node_path(&folders.manifests_new().join(met)),
                place: self.site.node_path(&live),
            });
        }
        Ok(NodeStep::StartPods { moves })
    }

    /// Whose the new data is to be, by the manifest that etcd starts from.
    fn whose(&self) -> Result<Whose> {
        let etcd = |plain: &&Plain| plain.component == Component::Etcd;
        let Some(etcd) = self.pods.iter().find(etcd) else {
            return Ok(Whose {
                data: None,
                dir: None,
            });
        };
        data::whose(&self.site.layout, &self.site.data_dir, &etcd.pod)
    }

    fn surviving(
        &self,
        folders: &Folders,
        own: bool,
        from: PathBuf,
        owner: Option<Owner>,
    ) -> Surviving {
        let (slack, bump_by) = match self.request.bump {
            Bump::Auto { .. } => (Some(SLACK), 0),
            Bump::By(more) => (None, more),
        };
        Surviving {
            from: if own {
                self.site.node_path(&folders.old_data())
            } else {
                from
            },
            on_node: own,
            into: self.site.node_path(&folders.new_data()),
            peer_urls: self.request.peer_urls.as_ref().map(|urls| urls.join(",")),
            slack,
            bump_by,
            evidence: self
                .evidence()
                .into_iter()
                .map(|known| (known.source, known.revision))
                .collect(),
            allow: self.request.allow.clone(),
            random: format!("{:032x}", self.request.random),
            owner,
        }
    }

    /// What backups say of revisions that were served, and what this node's operations do; a store
    /// that cannot be read says nothing. The node's own data may be another disk than the one that
    /// is read, and then says how far clients were served here.
    fn evidence(&self) -> Vec<Evidence> {
        let mut known = served::of_operations(self.context, &self.site.layout);
        known.extend(served::of_data(self.context, &self.site.data_dir));
        let Some(store) = self.request.store.as_ref().filter(|store| store.is_dir()) else {
            return known;
        };
        match catalog::list(&LocalStore::at(store)) {
            Ok(sets) => known.extend(datadir::evidence(&sets)),
            Err(failure) => self.context.warn("revision-unknown", failure.to_string()),
        }
        known
    }

    fn check_space(&self, from: &std::path::Path) -> Result<()> {
        let size = std::fs::metadata(Layout::new(from, None).db()).map_or(0, |meta| meta.len());
        let log: u64 = std::fs::read_dir(Layout::new(from, None).wal)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .map(|meta| meta.len())
            .sum();
        let needed = size.saturating_add(log).saturating_add(ROOM);
        space(&self.site.data_dir)?.check(needed, "the restore")
    }

    fn about(&self, folders: &Folders) -> About {
        let site = &self.site;
        let members = site.access.member_endpoints.value.len();
        About {
            set: SetAbout {
                name: "this member's own data".to_owned(),
                dir: self.request.from.clone(),
                created: None,
                kv_revision: None,
                ocp_version: None,
                cluster_uuid: None,
                node: Some(site.node.clone()),
            },
            profile: site.profile.word().to_owned(),
            node: site.node.clone(),
            nodes: if members > 1 {
                vec![site.node.clone(), "the other members".to_owned()]
            } else {
                vec![site.node.clone()]
            },
            scope: match self.request.scope {
                Scope::ControlPlane if site.layout.is_etcd_only(site.profile) => Scope::Etcd,
                scope => scope,
            },
            etcd: site.etcd(self.request.peer_urls.as_deref()),
            runtime: site.node_path(&site.socket),
            pods: self.pods.iter().map(|pod| pod.about.clone()).collect(),
            wait_seconds: self.request.wait.as_secs(),
            grace_seconds: Some(self.request.grace.as_secs()),
            etcd_served: Some(self.etcd_serves),
            alarms_allowed: true,
            safety: folders.safety(&site.layout),
            former_clusters: self.former.clone(),
            others: Vec::new(),
            etcd_alone: site.layout.is_etcd_only(site.profile),
        }
    }
}
