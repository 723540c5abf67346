//! One thing of the node's tree that is to be archived.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::left::{LeftOut, special};
use super::names::plain_name;
use crate::error::{Doing, Kind, Result};

/// One thing to archive.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it is.
    pub(super) source: PathBuf,
    /// Its name in the archive.
    pub(super) name: PathBuf,
    /// What it was when it was listed.
    pub(super) meta: Metadata,
    /// Where it leads, if it is a symbolic link.
    pub(super) target: Option<PathBuf>,
}

/// What something is; or why it cannot be archived.
pub(super) fn look(source: PathBuf, name: PathBuf) -> Result<std::result::Result<Node, LeftOut>> {
    if let Err(found) = plain_name(name.as_os_str().as_bytes()) {
        let why = format!("its name in the archive would be {found}");
        return Ok(Err(LeftOut::new(&source, why, false)));
    }
    let meta = fs::symlink_metadata(&source).doing(Kind::Unexpected, || {
        format!("looking at {}", source.display())
    })?;
    if let Some(special) = special(&source, &meta) {
        return Ok(Err(special));
    }
    let target = if meta.is_symlink() {
        let target = fs::read_link(&source).doing(Kind::Unexpected, || {
            format!("reading the link {}", source.display())
        })?;
        Some(target)
    } else {
        None
    };
    Ok(Ok(Node {
        source,
        name,
        meta,
        target,
    }))
}

pub(super) fn children(node: &Node) -> Result<Vec<(PathBuf, PathBuf)>> {
    let doing = || format!("listing {}", node.source.display());
    fs::read_dir(&node.source)
        .doing(Kind::Unexpected, doing)?
        .map(|entry| {
            let entry = entry.doing(Kind::Unexpected, doing)?;
            Ok((entry.path(), node.name.join(entry.file_name())))
        })
        .collect()
}

/// Bytes of content that a node has.
pub(super) fn size(node: &Node) -> u64 {
    if node.meta.is_file() {
        node.meta.size()
    } else {
        0
    }
}
