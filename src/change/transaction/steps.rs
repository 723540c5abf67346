//! The steps of every change of a node. Each step is data: the journal holds all that is needed to
//! resume it or to undo it.
//!
//! | step | does | undone by |
//! | --- | --- | --- |
//! | `make-folders` | makes the directories that were missing | removing those that are empty |
//! | `unpack` | unpacks the archives beside their places | removing what was unpacked |
//! | `build-data` | makes etcd's new data beside its place | removing it |
//! | `build-from-member` | the same, from the member's own data once that is set aside | removing it |
//! | `stop-pods` | moves the manifests away from the kubelet | moving them back, etcd's first, and waiting until they serve |
//! | `await-stopped` | waits until no container is left and nobody holds the database | - |
//! | `set-data-aside` | moves the old data away | moving it back; bumped, if clients were served |
//! | `own-data-dir` | gives the data directory to the user that etcd runs as | giving it back |
//! | `switch-data` | moves the new data into place | moving it out again |
//! | `put-back` | moves what was there away, and what comes into place | the same backwards |
//! | `start-pods` | as `put-back`, for manifests; those of the others once etcd itself is about to start | moving them out; etcd's, which is undone last, waits for all as `await-stopped` |
//! | `prove-etcd` | waits until etcd serves what was restored, and accepts writes | - |
//! | `prove-pods` | waits until every pod runs the revision that was put back | - |
//!
//! Only a join has these, since its etcd receives the data from the cluster:
//!
//! | step | does | undone by |
//! | --- | --- | --- |
//! | `stop-etcd` | moves etcd's manifest away from the kubelet | moving it back |
//! | `add-learner` | adds the member without a vote | removing it, unless it was there before |
//! | `write-manifest` | writes the manifest that goes into place | removing it |
//! | `start-etcd` | puts the manifest in place | moving it out, waiting, clearing the new data |
//! | `await-vote` | waits until the member has caught up, and promotes it | - |
//! | `prove-member` | compares its data with another member's | - |
//!
//! If a completed change is rolled back, the data that was built is kept in the safety folder
//! instead of being removed: it may have accepted writes.

pub(crate) mod build;
pub(crate) mod join;
mod joined;
pub(crate) mod manifest;
pub(crate) mod unpack;

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::build::{Building, Surviving, build, survive};
use self::join::JoinStep;
use self::unpack::{Unpacking, discard, unpack};
use super::context::StepContext;
use super::data::{self, Owning};
use super::exchange::{self, Exchange};
use super::files::{make_folders, unbuild, unmake_folders};
use super::info::PodInfo;
use super::{moves, proof, rollback};
use crate::error::Result;
use crate::journal::{Known, Step};

/// Up to so many folders a step names them all.
const FEW: usize = 2;

/// A step. All paths are the node's own unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "step",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum NodeStep {
    /// Makes directories that are missing, those above first.
    MakeFolders {
        /// Which.
        folders: Vec<PathBuf>,
    },
    /// Prepares what goes into place.
    Unpack {
        /// The archives.
        archives: Vec<Unpacking>,
        /// Files to be copied afterwards.
        copies: Vec<(PathBuf, PathBuf)>,
        /// Links to be made: where, and where to.
        links: Vec<(PathBuf, PathBuf)>,
    },
    /// Makes etcd's new data.
    BuildData(Box<Building>),
    /// Builds etcd's new data from the member's own, once no process holds that.
    BuildFromMember(Box<Surviving>),
    /// Moves manifests away.
    StopPods {
        /// From where to where.
        moves: Vec<Exchange>,
    },
    /// Waits until the pods have ended.
    AwaitStopped,
    /// Moves what is in the data directory away.
    SetDataAside {
        /// The data directory.
        data_dir: PathBuf,
        /// Where to.
        aside: PathBuf,
        /// What stays in it.
        keep: Vec<OsString>,
        /// What is etcd's, and moves; if nothing is named, all but `keep`.
        #[serde(default)]
        only: Vec<String>,
    },
    /// Gives the data directory to the user that etcd runs as.
    OwnDataDir(Owning),
    /// Moves the new data into the data directory.
    SwitchData {
        /// What was built.
        built: PathBuf,
        /// The data directory.
        data_dir: PathBuf,
        /// What is in there and not etcd's.
        keep: Vec<OsString>,
        /// What is etcd's, and moves; if nothing is named, all but `keep`.
        #[serde(default)]
        only: Vec<String>,
    },
    /// Puts something in place of something.
    PutBack {
        /// In a sentence.
        what: String,
        /// What, where.
        exchange: Exchange,
    },
    /// Puts manifests in place.
    StartPods {
        /// What, where.
        moves: Vec<Exchange>,
    },
    /// Proves that etcd serves what was restored.
    ProveEtcd,
    /// Proves that the pods run what was put back.
    ProvePods,
    /// A step that only a join has.
    #[serde(untagged)]
    Join(JoinStep),
}

impl Step for NodeStep {
    type World = StepContext;

    fn name(&self) -> &'static str {
        match self {
            Self::MakeFolders { .. } => "make-folders",
            Self::Unpack { .. } => "unpack",
            Self::BuildData(_) => "build-data",
            Self::BuildFromMember(_) => "build-from-member",
            Self::StopPods { .. } => "stop-pods",
            Self::AwaitStopped => "await-stopped",
            Self::SetDataAside { .. } => "set-data-aside",
            Self::OwnDataDir(_) => "own-data-dir",
            Self::SwitchData { .. } => "switch-data",
            Self::PutBack { .. } => "put-back",
            Self::StartPods { .. } => "start-pods",
            Self::ProveEtcd => "prove-etcd",
            Self::ProvePods => "prove-pods",
            Self::Join(step) => step.name(),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::MakeFolders { folders } => match folders.as_slice() {
                // A screen of names tells less than the first.
                [first, .., _] if folders.len() > FEW => format!(
                    "make {} and {} more folders",
                    first.display(),
                    folders.len() - 1
                ),
                _ => format!("make {}", paths(folders.iter())),
            },
            Self::Unpack {
                archives, copies, ..
            } if archives.is_empty() => format!(
                "copy {} beside their targets",
                paths(copies.iter().map(|(from, _)| from))
            ),
            Self::Unpack { archives, .. } => format!(
                "unpack {} beside their targets",
                paths(archives.iter().map(|unpacking| &unpacking.archive))
            ),
            Self::BuildData(building) => format!(
                "build etcd's new data from {} in {}",
                building.snapshot.display(),
                building.into.display()
            ),
            Self::BuildFromMember(surviving) => format!(
                "build a cluster of this member alone from {}, with its whole WAL, in {}",
                surviving.from.display(),
                surviving.into.display()
            ),
            Self::StopPods { moves } if moves.is_empty() => {
                "stop no static pod: none of their manifests is in place".to_owned()
            }
            Self::StopPods { moves } => format!(
                "stop the static pods: move {} away",
                paths(moves.iter().map(|exchange| &exchange.place))
            ),
            Self::AwaitStopped => {
                "wait until their containers are gone and no process holds the database".to_owned()
            }
            Self::SetDataAside {
                data_dir,
                aside,
                only,
                ..
            } => data::describe_aside(data_dir, aside, only),
            Self::OwnDataDir(owning) => owning.describe(),
            Self::SwitchData { data_dir, .. } => {
                format!("move the new data into {}", data_dir.display())
            }
            Self::PutBack { what, .. } => what.clone(),
            Self::StartPods { moves } => format!(
                "put {} in place",
                paths(moves.iter().map(|exchange| &exchange.place))
            ),
            Self::ProveEtcd => {
                "wait until etcd serves the restored data and accepts writes".to_owned()
            }
            Self::ProvePods => "wait until every pod runs the restored revision".to_owned(),
            Self::Join(step) => step.describe(),
        }
    }

    async fn apply(&self, node: &StepContext, known: &Known) -> Result<Option<Value>> {
        match self {
            Self::MakeFolders { folders } => make_folders(node, folders)?,
            Self::Unpack {
                archives,
                copies,
                links,
            } => return unpack(node, archives, copies, links).await,
            Self::BuildData(building) => return build(node, building).await,
            Self::BuildFromMember(surviving) => return survive(node, surviving).await,
            Self::StopPods { moves } => {
                node.note_running().await;
                for exchange in moves {
                    exchange.apply(node)?;
                }
            }
            Self::AwaitStopped => {
                let all: Vec<&PodInfo> = node.facts.pods.iter().collect();
                node.stopped(&all).await?;
            }
            Self::SetDataAside {
                data_dir,
                aside,
                keep,
                only,
            } => moves::move_data(&node.host(data_dir), &node.host(aside), only, keep)?,
            Self::OwnDataDir(owning) => owning.apply(node)?,
            Self::SwitchData {
                built, data_dir, ..
            } => moves::move_contents(&node.host(built), &node.host(data_dir), &[])?,
            Self::PutBack { exchange, .. } => exchange.apply(node)?,
            Self::StartPods { moves } => {
                node.relisted().await?;
                // These pods use etcd, whose own manifest was put in place by the step before.
                if !exchange::moves_etcd(node, moves) {
                    proof::others_may_start(node).await?;
                }
                for exchange in moves {
                    exchange.apply(node)?;
                }
            }
            Self::ProveEtcd => return proof::etcd(node, known).await.map(Some),
            Self::ProvePods => return proof::pods(node).await.map(Some),
            Self::Join(step) => return step.apply(node, known).await,
        }
        Ok(None)
    }

    async fn undo(&self, node: &StepContext, known: &Known) -> Result<Option<Value>> {
        match self {
            Self::MakeFolders { folders } => unmake_folders(node, folders)?,
            Self::Unpack {
                archives,
                copies,
                links,
            } => discard(node, archives, copies, links)?,
            Self::BuildData(building) if !known.completed => {
                unbuild(&node.host(&building.into))?;
            }
            Self::BuildFromMember(surviving) if !known.completed => {
                unbuild(&node.host(&surviving.into))?;
            }
            Self::StopPods { moves } => return rollback::pods(node, moves, known).await,
            Self::SetDataAside {
                data_dir, aside, ..
            } => {
                let (data_dir, aside) = (node.host(data_dir), node.host(aside));
                return rollback::data(node, &data_dir, &aside, known).await;
            }
            Self::OwnDataDir(owning) => owning.undo(node)?,
            Self::SwitchData {
                built,
                data_dir,
                keep,
                only,
            } => {
                let built = node.host(built);
                moves::move_data(&node.host(data_dir), &built, only, keep)?;
                return Ok(rollback::taken_out(node, known, &built));
            }
            Self::PutBack { exchange, .. } => exchange.revert(node)?,
            Self::StartPods { moves } => rollback::stop(node, moves).await?,
            Self::Join(step) => return step.undo(node, known).await,
            Self::BuildData(_)
            | Self::BuildFromMember(_)
            | Self::AwaitStopped
            | Self::ProveEtcd
            | Self::ProvePods => {}
        }
        Ok(None)
    }
}

fn paths<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> String {
    paths
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
