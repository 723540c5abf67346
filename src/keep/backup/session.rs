//! One run of a backup, with the store locked.

use std::path::Path;
use std::sync::Arc;

use super::node_found::NodeFound;
use super::request::BackupRequest;
use crate::context::Context;
use crate::error::Result;
use crate::store::LocalStore;
use crate::sys::lock::Lock;
use crate::sys::space;

/// One run, with the store locked.
pub(super) struct Run<'a> {
    pub(super) context: &'a Context,
    pub(super) request: &'a BackupRequest,
    pub(super) node: NodeFound,
    pub(super) store: &'a LocalStore,
    pub(super) lock: &'a Lock,
}

impl Run<'_> {
    /// Whether a directory is on the file system of etcd's data, if that is known.
    pub(super) fn is_beside_etcd(&self, dir: &Path) -> bool {
        let data_dir = self.node.access.data_dir.as_ref();
        let data_dir = data_dir.map(|dir| dir.value.as_path());
        let Some(data_dir) = data_dir.filter(|dir| dir.exists()) else {
            return false;
        };
        let device = |dir: &Path| space::space(dir).ok().map(|space| space.device);
        device(data_dir).is_some() && device(data_dir) == device(dir)
    }

    /// Fails where a directory has no room for a snapshot of the size that the server announces,
    /// which may be another than its status said.
    pub(super) fn room(&self, dir: &Path) -> Arc<dyn Fn(u64) -> Result<()> + Send + Sync> {
        let (dir, beside_etcd) = (dir.to_owned(), self.is_beside_etcd(dir));
        Arc::new(move |size| {
            let space = space::space(&dir)?;
            let needed = size.saturating_add(space.reserve(beside_etcd));
            space.check(needed, "the snapshot that the server announces")
        })
    }
}
