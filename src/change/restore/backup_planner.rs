//! What the plan of a restore from a backup is made from.

use std::path::{Path, PathBuf};

use super::preflight::Survey;
use super::request::Request;
use crate::context::Context;
use crate::etcd::restore::Evidence;
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

impl BackupPlanner<'_> {
    pub(super) fn layout(&self) -> &NodeLayout {
        &self.request.target.layout
    }

    pub(super) fn node_path(&self, host: &Path) -> PathBuf {
        self.layout().node_path(host)
    }
}
