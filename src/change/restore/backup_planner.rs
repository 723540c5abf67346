//! What the plan of a restore from a backup is made from.

use std::path::{Path, PathBuf};

use super::preflight::Survey;
use super::request::Request;
use crate::change::datadir::RollForward;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::etcd::ids::ClusterId;
use crate::etcd::restore::Evidence;
use crate::etcd::roll::Joined;
use crate::node::layout::NodeLayout;

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
    /// Looks at the WAL that is to be applied, so that what is refused is refused before anything
    /// stops. The data is built while the node's etcd is down, from a WAL that does not grow.
    ///
    /// # Errors
    /// The refusal `etcd-running`, not to be allowed, if the WAL is that of an etcd that serves, and
    /// those of [`Joined::open`].
    pub(super) fn forward_wal(&self, data_dir: &Path) -> Result<Option<ForwardWal>> {
        let Some(named) = &self.request.roll_forward else {
            return Ok(None);
        };
        let on_node = named.as_os_str().is_empty();
        if on_node && self.etcd_serves {
            return Err(Failure::refused_for_good(
                "etcd-running",
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

    pub(super) fn layout(&self) -> &NodeLayout {
        &self.request.target.layout
    }

    pub(super) fn node_path(&self, host: &Path) -> PathBuf {
        self.layout().node_path(host)
    }
}
