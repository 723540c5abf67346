//! Plans the steps that all changes of a node share: where manifests and data go, and where the old
//! ones are kept.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::data;
use super::exchange::Exchange;
use super::folders::Folders;
use super::steps::NodeStep;
use crate::error::{Failure, Result};
use crate::etcd::restore::{Bump, Evidence, SLACK};
use crate::node::layout::NodeLayout;

/// Plans the steps of one operation. It takes host paths; the steps have node paths.
pub(crate) struct Planner<'a> {
    pub(crate) layout: &'a NodeLayout,
    pub(crate) folders: &'a Folders,
    /// The data directory with every link followed.
    pub(crate) data_dir: &'a Path,
}

impl Planner<'_> {
    fn node_path(&self, host: &Path) -> PathBuf {
        self.layout.node_path(host)
    }

    /// Moves a live manifest to the safety folder.
    pub(crate) fn stop(&self, live: &Path) -> Exchange {
        Exchange {
            incoming: None,
            place: self.node_path(live),
            aside: self.node_path(&self.kept(live)),
        }
    }

    /// The same for the existing ones of these manifests.
    pub(crate) fn stops(&self, live: impl IntoIterator<Item = PathBuf>) -> Vec<Exchange> {
        live.into_iter()
            .filter(|path| path.symlink_metadata().is_ok())
            .map(|path| self.stop(&path))
            .collect()
    }

    /// Where a live manifest is kept while it is away.
    pub(crate) fn kept(&self, live: &Path) -> PathBuf {
        self.folders.manifests().join(file_name(live))
    }

    /// Where the manifest is prepared that replaces a live one.
    pub(crate) fn prepared(&self, live: &Path) -> PathBuf {
        self.folders.manifests_new().join(file_name(live))
    }

    /// Moves `incoming` to the place of a live manifest; a manifest that is there by then is set
    /// aside.
    pub(crate) fn start(&self, live: &Path, incoming: &Path) -> Exchange {
        let mut met = OsString::from("met-");
        met.push(file_name(live));
        Exchange {
            incoming: Some(self.node_path(incoming)),
            place: self.node_path(live),
            aside: self.node_path(&self.folders.manifests_new().join(met)),
        }
    }

    /// Starts the pods of these prepared manifests.
    pub(crate) fn start_pods(&self, live: impl IntoIterator<Item = PathBuf>) -> NodeStep {
        let moves = live.into_iter();
        NodeStep::StartPods {
            moves: moves
                .map(|path| self.start(&path, &self.prepared(&path)))
                .collect(),
        }
    }

    /// Moves etcd's data out of the data directory.
    pub(crate) fn set_data_aside(&self) -> NodeStep {
        NodeStep::SetDataAside {
            data_dir: self.node_path(self.data_dir),
            aside: self.node_path(&self.folders.old_data()),
            keep: self.folders.keep.clone(),
            only: data::etcds(),
        }
    }

    /// Moves the new data into the data directory.
    pub(crate) fn switch_data(&self) -> NodeStep {
        NodeStep::SwitchData {
            built: self.node_path(&self.folders.new_data()),
            data_dir: self.node_path(self.data_dir),
            keep: self.folders.keep.clone(),
            only: data::etcds(),
        }
    }
}

/// Refuses a WAL that is not in the data directory.
pub(crate) fn refuse_wal_apart(wal: Option<&str>) -> Result<()> {
    let Some(wal) = wal else {
        return Ok(());
    };
    let what = format!("a separate --wal-dir ({wal}) is not supported yet");
    Err(Failure::refused_for_good("separate-wal-dir", what))
}

/// A bump as steps keep it: the slack above the highest known revision, or the number that is
/// added.
pub(crate) fn bump(bump: Bump) -> (Option<i64>, i64) {
    match bump {
        Bump::Auto { .. } => (Some(SLACK), 0),
        Bump::By(more) => (None, more),
    }
}

/// Evidence as steps keep it.
pub(crate) fn evidence(known: &[Evidence]) -> Vec<(String, i64)> {
    known
        .iter()
        .map(|known| (known.source.clone(), known.revision))
        .collect()
}

/// The name of a file.
pub(crate) fn file_name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}
