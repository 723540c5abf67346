//! The steps of a join. Each is data: its journal holds all that is needed to go on or back.
//!
//! | step | does | undone by |
//! | --- | --- | --- |
//! | `make-folders` | makes the directories that were missing | removing those that are empty |
//! | `stop-etcd` | moves etcd's manifest away from the kubelet | moving it back |
//! | `await-stopped` | waits until no container is left and nobody holds the database | - |
//! | `set-data-aside` | moves the old data away | moving it back |
//! | `own-data-dir` | gives the data directory to the user that etcd runs as | giving it back |
//! | `add-learner` | adds the member without a vote | removing it, unless it was there before |
//! | `write-manifest` | writes the manifest that goes into place | removing it |
//! | `start-etcd` | puts the manifest in place | moving it out, waiting, clearing the new data |
//! | `await-vote` | waits until the member has caught up, and promotes it | - |
//! | `prove-member` | holds its data against another member's | - |

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::about::About;
use super::{manifest, proof};
use crate::change::member::add;
use crate::change::member::add::{Action, AddRequest, Gone};
use crate::change::member::catchup::{Awaited, until_it_votes};
use crate::change::restore::about::PodAbout;
use crate::change::restore::data::Owning;
use crate::change::restore::steps::{Exchange, clear, make_folders, unmake_folders};
use crate::change::restore::world::World as NodeWorld;
use crate::change::restore::{back, data, moves};
use crate::cluster::connect::Target;
use crate::cluster::peer_url;
use crate::cluster::survey::{MemberState, Survey};
use crate::context::Context;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::client::Id;
use crate::node::layout::NodeLayout;
use crate::plan::{Known, Step};
use crate::sys::fs;

/// What the steps act upon: the node, and the cluster that it joins.
pub struct World {
    /// The node.
    pub(super) node: NodeWorld,
    /// What the journal says.
    pub(super) about: About,
}

impl World {
    pub(super) fn new(context: &Context, layout: &NodeLayout, about: About) -> Self {
        Self {
            node: NodeWorld {
                layout: layout.clone(),
                about: about.of_node(),
                context: context.clone(),
                proves_back: false,
                ran: std::sync::Mutex::default(),
            },
            about,
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.node.context
    }

    fn host(&self, path: &Path) -> PathBuf {
        self.node.host(path)
    }

    /// The cluster as it is now.
    pub(super) async fn survey(&self) -> Result<Survey> {
        let reach = self.about.cluster.reach()?;
        self.context().cancel.guard(reach.survey()).await
    }

    /// The member that this operation added and that has not started, where no answer told its id.
    fn unstarted<'a>(&self, survey: &'a Survey) -> Option<&'a MemberState> {
        let urls = &self.about.etcd.peer_urls;
        survey
            .members
            .iter()
            .find(|state| !state.has_started() && peer_url::same_all(&state.member.peer_urls, urls))
    }

    /// The id of the member in the cluster, if this operation has added it as far as can be told.
    pub(super) fn joined<'a>(
        &self,
        survey: &'a Survey,
        known: &Known,
    ) -> Result<Option<&'a MemberState>> {
        match known.field("memberId") {
            Some(_) => Ok(survey.find(member_id(known)?)),
            None => Ok(self.unstarted(survey)),
        }
    }

    async fn stopped(&self) -> Result<()> {
        let pods: Vec<&PodAbout> = self.node.about.pods.iter().collect();
        self.node.stopped(&pods).await
    }
}

/// A step. All paths are the node's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "step",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum JoinStep {
    /// Makes directories that are missing, those above first.
    MakeFolders {
        /// Which.
        folders: Vec<PathBuf>,
    },
    /// Moves the manifest away.
    StopEtcd {
        /// From where to where; none where it was away already.
        manifest: Option<Exchange>,
    },
    /// Waits until the pod has ended.
    AwaitStopped,
    /// Moves what is in the data directory away.
    SetDataAside {
        /// The data directory.
        data_dir: PathBuf,
        /// Where to.
        aside: PathBuf,
        /// What stays in it.
        keep: Vec<OsString>,
        /// What is etcd's, and moves; where nothing is named, all but `keep`.
        #[serde(default)]
        only: Vec<String>,
    },
    /// Gives the data directory to the user that etcd runs as.
    OwnDataDir(Owning),
    /// Adds the member as a learner.
    AddLearner {
        /// Its id in hexadecimal, where an earlier attempt has left it in the list.
        existing: Option<String>,
    },
    /// Writes the manifest that goes into place.
    WriteManifest {
        /// What it is made from.
        from: PathBuf,
        /// Where it is written.
        to: PathBuf,
        /// Whether it must say how the cluster is joined; otherwise it is a copy.
        flags: bool,
    },
    /// Puts the manifest in place.
    StartEtcd {
        /// What, where.
        manifest: Exchange,
        /// The data directory.
        data_dir: PathBuf,
        /// Where a rollback moves what etcd wrote in it.
        made: PathBuf,
        /// What stays in it.
        keep: Vec<OsString>,
        /// What is etcd's, and moves; where nothing is named, all but `keep`.
        #[serde(default)]
        only: Vec<String>,
    },
    /// Waits until the member votes; promotes it.
    AwaitVote,
    /// Proves that the member serves what the others do.
    ProveMember,
}

impl Step for JoinStep {
    type World = World;

    fn name(&self) -> &'static str {
        match self {
            Self::MakeFolders { .. } => "make-folders",
            Self::StopEtcd { .. } => "stop-etcd",
            Self::AwaitStopped => "await-stopped",
            Self::SetDataAside { .. } => "set-data-aside",
            Self::OwnDataDir(_) => "own-data-dir",
            Self::AddLearner { .. } => "add-learner",
            Self::WriteManifest { .. } => "write-manifest",
            Self::StartEtcd { .. } => "start-etcd",
            Self::AwaitVote => "await-vote",
            Self::ProveMember => "prove-member",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::MakeFolders { folders } => {
                let all: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
                format!("make {}", all.join(", "))
            }
            Self::StopEtcd { manifest: Some(m) } => {
                format!("stop etcd: move {} away", m.place.display())
            }
            Self::StopEtcd { manifest: None } => "keep etcd's manifest away".to_owned(),
            Self::AwaitStopped => {
                "wait until its containers are gone and no process holds the database".to_owned()
            }
            Self::SetDataAside {
                data_dir,
                aside,
                only,
                ..
            } => data::describe_aside(data_dir, aside, only),
            Self::OwnDataDir(owning) => owning.describe(),
            Self::AddLearner { existing: None } => "add the member as a learner".to_owned(),
            Self::AddLearner { existing: Some(id) } => {
                format!("continue with member {id}, which was added before")
            }
            Self::WriteManifest { from, to, flags } => format!(
                "write {} as {}{}",
                to.display(),
                from.display(),
                if *flags {
                    " with the flags of a joining member"
                } else {
                    ""
                }
            ),
            Self::StartEtcd { manifest, .. } => {
                format!("put {} in place", manifest.place.display())
            }
            Self::AwaitVote => {
                "wait until the member serves and has caught up; promote it".to_owned()
            }
            Self::ProveMember => {
                "prove that it votes and has the same data as the other members".to_owned()
            }
        }
    }

    async fn apply(&self, world: &World, known: &Known) -> Result<Option<Value>> {
        match self {
            Self::MakeFolders { folders } => make_folders(&world.node, folders)?,
            Self::StopEtcd { manifest } => {
                if let Some(manifest) = manifest {
                    manifest.there(&world.node)?;
                }
            }
            Self::AwaitStopped => world.stopped().await?,
            Self::SetDataAside {
                data_dir,
                aside,
                keep,
                only,
            } => moves::move_data(&world.host(data_dir), &world.host(aside), only, keep)?,
            Self::OwnDataDir(owning) => owning.apply(&world.node)?,
            Self::AddLearner { .. } => return add_learner(world).await.map(Some),
            Self::WriteManifest { from, to, flags } => {
                write_manifest(world, known, from, to, *flags)?
            }
            Self::StartEtcd { manifest, .. } => manifest.there(&world.node)?,
            Self::AwaitVote => await_vote(world, known).await?,
            Self::ProveMember => return proof::prove(world, member_id(known)?).await.map(Some),
        }
        Ok(None)
    }

    async fn undo(&self, world: &World, known: &Known) -> Result<Option<Value>> {
        match self {
            Self::MakeFolders { folders } => unmake_folders(&world.node, folders)?,
            Self::StopEtcd { manifest } => {
                if let Some(manifest) = manifest {
                    manifest.back(&world.node)?;
                }
            }
            Self::SetDataAside {
                data_dir, aside, ..
            } => {
                let (data_dir, aside) = (world.host(data_dir), world.host(aside));
                return back::data(&world.node, &data_dir, &aside, known).await;
            }
            Self::OwnDataDir(owning) => owning.undo(&world.node)?,
            Self::AddLearner { existing } => take_out(world, known, existing.as_deref()).await?,
            Self::WriteManifest { to, .. } => fs::unlink(&world.host(to))?,
            Self::StartEtcd {
                manifest,
                data_dir,
                made,
                keep,
                only,
            } => {
                manifest.back(&world.node)?;
                world.stopped().await?;
                let made = world.host(made);
                moves::move_data(&world.host(data_dir), &made, only, keep)?;
                if !known.completed {
                    // A copy of what the cluster has, of a member that never voted.
                    clear(&made)?;
                    return Ok(None);
                }
                return Ok(back::taken_out(&world.node, known, &made));
            }
            Self::AwaitStopped | Self::AwaitVote | Self::ProveMember => {}
        }
        Ok(None)
    }
}

/// The member's id, which the step that added it found out.
pub(super) fn member_id(known: &Known) -> Result<Id> {
    let text: String = known.read("memberId")?;
    u64::from_str_radix(&text, 16)
        .map(Id)
        .doing(Kind::Unexpected, || {
            format!("reading the member's id {text:?}")
        })
}

/// What is asked of the cluster.
pub(super) fn request(about: &About, layout: &NodeLayout) -> AddRequest {
    AddRequest {
        // The cluster has been found already.
        target: Target {
            layout: layout.clone(),
            profile: None,
            told: crate::node::access::Told::default(),
        },
        name: about.etcd.member.clone(),
        peer_urls: about.etcd.peer_urls.clone(),
        learner: true,
        promote: true,
        wait: about.wait(),
        allow: about.allow.clone(),
    }
}

async fn add_learner(world: &World) -> Result<Value> {
    let request = request(&world.about, &world.node.layout);
    let survey = world.survey().await?;
    let peer_urls = request.peer_urls.clone();
    let plan = add::judge(world.context(), &request, survey, peer_urls)?;
    if let Action::Nothing(id) = plan.action {
        let what = format!("member {id} was promoted in the meantime, but not by this operation");
        return Err(Failure::new(Kind::Unexpected, what));
    }
    let added = add::begin(world.context(), &request, plan).await?;
    Ok(json!({
        "memberId": added.id.to_string(),
        "initialCluster": added.start.initial_cluster,
    }))
}

/// Removes the member again. What an earlier attempt had left in the list stays there.
async fn take_out(world: &World, known: &Known, existing: Option<&str>) -> Result<()> {
    if let Some(id) = existing {
        let what = format!("member {id} stays in the member list, as before");
        world.context().warn("member-remains", what);
        return Ok(());
    }
    let survey = world.survey().await?;
    let Some(state) = world.joined(&survey, known)? else {
        return Ok(());
    };
    let id = state.member.id;
    let remains = |failure: Failure| failure.with(Fact::MemberRemains(id.to_string()));
    match add::remove_again(&survey, id, true).await {
        Ok(Gone::Removed) => Ok(()),
        Ok(Gone::Votes { .. }) => Err(remains(Failure::new(
            Kind::RollbackFailed,
            format!("member {id} remains because it was promoted"),
        ))),
        Err(failure) => Err(remains(
            failure.doing(format!("removing member {id} again")),
        )),
    }
}

fn write_manifest(world: &World, known: &Known, from: &Path, to: &Path, flags: bool) -> Result<()> {
    let (from, to) = (world.host(from), world.host(to));
    let text = std::fs::read_to_string(&from)
        .doing(Kind::Unexpected, || format!("reading {}", from.display()))?;
    let text = if flags {
        let initial_cluster: String = known.read("initialCluster")?;
        manifest::joining(&text, &initial_cluster)
            .map_err(|failure| failure.doing(format!("changing {}", from.display())))?
    } else {
        text
    };
    // Written by an attempt that was killed before it could say so.
    fs::unlink(&to)?;
    fs::write_like(&from, &to, text.as_bytes())?;
    fs::sync_dir(fs::parent(&to))
}

async fn await_vote(world: &World, known: &Known) -> Result<()> {
    let survey = world.survey().await?;
    let awaited = Awaited {
        id: member_id(known)?,
        name: &world.about.etcd.member,
        wait: world.about.wait(),
        node: Some(&world.node),
    };
    until_it_votes(world.context(), &survey, &awaited)
        .await
        .map(drop)
}

/// Whether the member votes by now, and may not be taken out any more.
///
/// # Errors
/// [`Kind::Unreachable`].
pub(super) async fn votes(world: &World, known: &Known) -> Result<Option<Id>> {
    let unstopped = World::new(
        &world.context().unstopped(),
        &world.node.layout,
        world.about.clone(),
    );
    let survey = unstopped.survey().await?;
    Ok(world
        .joined(&survey, known)?
        .filter(|state| !state.member.is_learner)
        .map(|state| state.member.id))
}
