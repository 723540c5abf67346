//! The steps of a restore. Each is data: its journal holds all that is needed to go on or back.
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
//! | `start-pods` | as `put-back`, for manifests | moving them out, and waiting as `await-stopped` |
//! | `prove-etcd` | waits until etcd serves what was restored, and takes writes | - |
//! | `prove-pods` | waits until every pod runs the revision that was put back | - |
//!
//! Undone after they were all done once, what was built is kept in the safety folder instead of
//! being removed: it may have taken writes.

pub(super) mod build;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::build::{build, survive};
use super::about::PodAbout;
use super::data::{self, Owning};
use super::world::World;
use super::{back, moves, proof};
use crate::backup::resources::{Rules, extract_archive};
use crate::error::{Doing, Kind, Result};
use crate::etcd::restore::HIDDEN as UNFINISHED;
use crate::node::layout::KUBERNETES;
use crate::plan::{Known, Step};
use crate::sys::fs;
use crate::sys::owner::Owner;

/// Up to so many folders a step names them all.
const FEW: usize = 2;

/// An archive to be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unpacking {
    /// The archive, as the process finds it.
    pub archive: PathBuf,
    /// Names in it, with all below them.
    pub only: Vec<PathBuf>,
    /// The directory that names are relative to.
    pub into: PathBuf,
}

/// One thing to be put in place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchange {
    /// What comes; none: the place stays empty.
    pub incoming: Option<PathBuf>,
    /// Where it goes.
    pub place: PathBuf,
    /// Where what is there goes.
    pub aside: PathBuf,
}

/// The data to be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Building {
    /// The snapshot, as the process finds it.
    pub snapshot: PathBuf,
    /// The directory to be made.
    pub into: PathBuf,
    /// The token that the new ids are made from.
    pub token: String,
    /// Added to the highest revision known; none: `bump_by`.
    pub slack: Option<i64>,
    /// Added to the snapshot's revision.
    pub bump_by: i64,
    /// Revisions known to have been served, and who says so.
    pub evidence: Vec<(String, i64)>,
    /// Refusals that are allowed.
    pub allow: Vec<String>,
    /// Whose the new data is to be, and with which modes; none: as this program makes it.
    #[serde(default)]
    pub owner: Option<Owner>,
}

/// The data to be built from a member's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Surviving {
    /// The member's files, as a node path, or elsewhere as the process finds them.
    pub from: PathBuf,
    /// Whether `from` is a node path.
    pub on_node: bool,
    /// The directory to be made.
    pub into: PathBuf,
    /// The member's peer URLs, where they changed.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Option<String>,
    /// Added to the highest revision known; none: `bump_by`.
    pub slack: Option<i64>,
    /// Added to the revision.
    pub bump_by: i64,
    /// Revisions known to have been served, and who says so.
    pub evidence: Vec<(String, i64)>,
    /// Refusals that are allowed.
    pub allow: Vec<String>,
    /// Randomness that the new cluster's id is made from, in hexadecimal.
    pub random: String,
    /// Whose the new data is to be, and with which modes; none: as this program makes it.
    #[serde(default)]
    pub owner: Option<Owner>,
}

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
    /// Makes etcd's new data from the member's own, which nobody holds any more.
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
        /// What is etcd's, and moves; where nothing is named, all but `keep`.
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
        /// What is etcd's, and moves; where nothing is named, all but `keep`.
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
}

impl Step for NodeStep {
    type World = World;

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
        }
    }

    async fn apply(&self, world: &World, known: &Known) -> Result<Option<Value>> {
        match self {
            Self::MakeFolders { folders } => make_folders(world, folders)?,
            Self::Unpack {
                archives,
                copies,
                links,
            } => return unpack(world, archives, copies, links).await,
            Self::BuildData(building) => return build(world, building).await,
            Self::BuildFromMember(surviving) => return survive(world, surviving).await,
            Self::StopPods { moves } => {
                world.note_running().await;
                for exchange in moves {
                    exchange.there(world)?;
                }
            }
            Self::AwaitStopped => {
                let all: Vec<&PodAbout> = world.about.pods.iter().collect();
                world.stopped(&all).await?;
            }
            Self::SetDataAside {
                data_dir,
                aside,
                keep,
                only,
            } => moves::move_data(&world.host(data_dir), &world.host(aside), only, keep)?,
            Self::OwnDataDir(owning) => owning.apply(world)?,
            Self::SwitchData {
                built, data_dir, ..
            } => moves::move_contents(&world.host(built), &world.host(data_dir), &[])?,
            Self::PutBack { exchange, .. } => exchange.there(world)?,
            Self::StartPods { moves } => {
                for exchange in moves {
                    exchange.there(world)?;
                }
            }
            Self::ProveEtcd => return proof::etcd(world, known).await.map(Some),
            Self::ProvePods => return proof::pods(world).await.map(Some),
        }
        Ok(None)
    }

    async fn undo(&self, world: &World, known: &Known) -> Result<Option<Value>> {
        match self {
            Self::MakeFolders { folders } => unmake_folders(world, folders)?,
            Self::Unpack {
                archives,
                copies,
                links,
            } => {
                let links = links.iter().map(|(link, _)| link);
                let made: Vec<PathBuf> = copies
                    .iter()
                    .map(|(_, to)| to)
                    .chain(links)
                    .map(|path| world.host(path))
                    .collect();
                for path in &made {
                    fs::unlink(path)?;
                }
                sync_above(&made)?;
                for unpacking in archives {
                    clear(&world.host(&unpacking.into))?;
                }
            }
            Self::BuildData(building) if !known.completed => {
                unbuild(&world.host(&building.into))?;
            }
            Self::BuildFromMember(surviving) if !known.completed => {
                unbuild(&world.host(&surviving.into))?;
            }
            Self::StopPods { moves } => return back::pods(world, moves, known).await,
            Self::SetDataAside {
                data_dir, aside, ..
            } => {
                let (data_dir, aside) = (world.host(data_dir), world.host(aside));
                return back::data(world, &data_dir, &aside, known).await;
            }
            Self::OwnDataDir(owning) => owning.undo(world)?,
            Self::SwitchData {
                built,
                data_dir,
                keep,
                only,
            } => {
                let built = world.host(built);
                moves::move_data(&world.host(data_dir), &built, only, keep)?;
                return Ok(back::taken_out(world, known, &built));
            }
            Self::PutBack { exchange, .. } => exchange.back(world)?,
            Self::StartPods { moves } => {
                world.note_running().await;
                for exchange in moves.iter().rev() {
                    exchange.back(world)?;
                }
                // The others' turn comes with the steps that started them.
                let ours: Vec<&PodAbout> = world
                    .about
                    .pods
                    .iter()
                    .filter(|pod| moves.iter().any(|exchange| exchange.is_manifest_of(pod)))
                    .collect();
                world.stopped(&ours).await?;
            }
            Self::BuildData(_)
            | Self::BuildFromMember(_)
            | Self::AwaitStopped
            | Self::ProveEtcd
            | Self::ProvePods => {}
        }
        Ok(None)
    }
}

impl Exchange {
    pub(crate) fn there(&self, world: &World) -> Result<()> {
        let incoming = self.incoming.as_ref().map(|path| world.host(path));
        moves::swap(
            incoming.as_deref(),
            &world.host(&self.place),
            &world.host(&self.aside),
        )
    }

    pub(crate) fn back(&self, world: &World) -> Result<()> {
        let incoming = self.incoming.as_ref().map(|path| world.host(path));
        moves::swap_back(
            incoming.as_deref(),
            &world.host(&self.place),
            &world.host(&self.aside),
        )
    }

    /// Whether its place is that of a pod's live manifest, by default `etcd-pod.yaml` on
    /// OpenShift, `etcd.yaml` on kubeadm's nodes.
    pub(super) fn is_manifest_of(&self, pod: &PodAbout) -> bool {
        if let Some(manifest) = &pod.manifest {
            return *manifest == self.place;
        }
        let name = self.place.file_name().unwrap_or_default();
        ["-pod.yaml", ".yaml"]
            .iter()
            .any(|end| name.to_str() == Some(format!("{}{end}", pod.component).as_str()))
    }
}

fn paths<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> String {
    paths
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Makes those of these directories that are not there, durably; those above come first.
pub(crate) fn make_folders(world: &World, folders: &[PathBuf]) -> Result<()> {
    let folders: Vec<PathBuf> = folders.iter().map(|path| world.host(path)).collect();
    for folder in &folders {
        make_folder(folder)?;
    }
    sync_above(&folders)
}

/// Removes those that are empty: one that holds something was not made for this alone.
pub(crate) fn unmake_folders(world: &World, folders: &[PathBuf]) -> Result<()> {
    for folder in folders.iter().rev() {
        fs::remove_empty_dir(&world.host(folder))?;
    }
    Ok(())
}

/// Makes a directory, if it is not there; the one above is not synced.
fn make_folder(path: &Path) -> Result<()> {
    match fs::mkdir(path) {
        Err(failure)
            if failure.io_kind() == Some(std::io::ErrorKind::AlreadyExists) && path.is_dir() =>
        {
            Ok(())
        }
        made => made,
    }
}

/// Removes a tree durably, also one that an interrupted process has just removed.
pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        fs::remove_tree(path)?;
    }
    sync_above(&[path.to_owned()])
}

/// Syncs the directories that hold these entries, each once, where they are there.
fn sync_above(paths: &[PathBuf]) -> Result<()> {
    let dirs: BTreeSet<&Path> = paths.iter().map(|path| fs::parent(path)).collect();
    dirs.into_iter()
        .filter(|dir| dir.is_dir())
        .try_for_each(fs::sync_dir)
}

/// Removes what was built, or as much of it as there is.
fn unbuild(into: &Path) -> Result<()> {
    remove_if_there(into)?;
    remove_unfinished(fs::parent(into))
}

/// Removes what an interrupted build left beside its target.
fn remove_unfinished(dir: &Path) -> Result<()> {
    let doing = || format!("listing {}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.doing(Kind::Store, doing)?,
    };
    for entry in entries {
        let entry = entry.doing(Kind::Store, doing)?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// Empties a directory, if it is there.
pub(crate) fn clear(dir: &Path) -> Result<()> {
    let doing = || format!("listing {}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.doing(Kind::Store, doing)?,
    };
    for entry in entries {
        let entry = entry.doing(Kind::Store, doing)?;
        if entry.file_type().doing(Kind::Store, doing)?.is_dir() {
            fs::remove_tree(&entry.path())?;
        } else {
            fs::unlink(&entry.path())?;
        }
    }
    fs::sync_dir(dir)
}

/// The rules that a set's archives must keep to.
pub(super) fn rules() -> Rules {
    Rules {
        node_base: Some(KUBERNETES.into()),
        ..Rules::default()
    }
}

async fn unpack(
    world: &World,
    archives: &[Unpacking],
    copies: &[(PathBuf, PathBuf)],
    links: &[(PathBuf, PathBuf)],
) -> Result<Option<Value>> {
    let mut skipped = 0;
    let mut bytes = 0;
    for unpacking in archives {
        let into = world.host(&unpacking.into);
        let unpacking = unpacking.clone();
        let done = world
            .blocking(move || {
                // What an interrupted attempt left.
                clear(&into)?;
                extract_archive(&unpacking.archive, &into, &unpacking.only, &rules())
            })
            .await?;
        skipped += done.skipped.len();
        bytes += done.bytes;
    }
    let mut made = Vec::new();
    for (from, to) in copies {
        let (from, to) = (world.host(from), world.host(to));
        let content =
            std::fs::read(&from).doing(Kind::Store, || format!("reading {}", from.display()))?;
        fs::unlink(&to)?;
        fs::write_new(&to, &content)?;
        made.push(to);
    }
    for (link, target) in links {
        let link = world.host(link);
        fs::unlink(&link)?;
        fs::symlink(target, &link)?;
        made.push(link);
    }
    sync_above(&made)?;
    if skipped > 0 {
        world.context.warn(
            "labels-not-restored",
            format!("the owner or the SELinux label of {skipped} files could not be restored"),
        );
    }
    Ok(Some(json!({ "unpackedBytes": bytes })))
}
