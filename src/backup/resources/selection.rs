//! What an archive is made of.

use std::path::{Path, PathBuf};

/// What to archive: files, and directories with all they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The directory that `entries` and `skip` are relative to.
    pub base: PathBuf,
    /// What the node itself calls `base`: an absolute link below it leads inside.
    pub node_base: Option<PathBuf>,
    /// What to archive, in the archive's order.
    pub entries: Vec<PathBuf>,
    /// Left out, with all it holds.
    pub skip: Vec<PathBuf>,
    /// Sources with their own names in the archive, after `entries`.
    pub elsewhere: Vec<(PathBuf, PathBuf)>,
}

impl Selection {
    /// Where the node's file system starts for this process.
    pub(super) fn root(&self) -> PathBuf {
        let inside = self
            .node_base
            .as_ref()
            .and_then(|base| base.strip_prefix("/").ok());
        let root = inside
            .filter(|inside| self.base.ends_with(inside))
            .and_then(|inside| self.base.ancestors().nth(inside.components().count()));
        root.unwrap_or(Path::new("/")).to_owned()
    }
}
