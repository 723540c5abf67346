//! Unpacks and copies what will go into place next to it, while everything still runs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::backup::resources::{Rules, extract_archive};
use crate::change::transaction::context::StepContext;
use crate::change::transaction::files::{clear, sync_above};
use crate::error::{Doing, Kind, Result};
use crate::node::layout::KUBERNETES;
use crate::sys::fs;

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

/// The rules that a backup's archives must keep to.
pub(crate) fn rules() -> Rules {
    Rules {
        node_base: Some(KUBERNETES.into()),
        ..Rules::default()
    }
}

pub(crate) async fn unpack(
    node: &StepContext,
    archives: &[Unpacking],
    copies: &[(PathBuf, PathBuf)],
    links: &[(PathBuf, PathBuf)],
) -> Result<Option<Value>> {
    let mut skipped = 0;
    let mut bytes = 0;
    for unpacking in archives {
        let into = node.host(&unpacking.into);
        let unpacking = unpacking.clone();
        let done = node
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
        let (from, to) = (node.host(from), node.host(to));
        let content =
            std::fs::read(&from).doing(Kind::Store, || format!("reading {}", from.display()))?;
        // An interrupted attempt may have made it.
        fs::unlink(&to)?;
        fs::write_new(&to, &content)?;
        made.push(to);
    }
    for (link, target) in links {
        let link = node.host(link);
        fs::unlink(&link)?;
        fs::symlink(target, &link)?;
        made.push(link);
    }
    sync_above(&made)?;
    if skipped > 0 {
        node.context.warn(
            "labels-not-restored",
            format!("the owner or the SELinux label of {skipped} files could not be restored"),
        );
    }
    Ok(Some(json!({ "unpackedBytes": bytes })))
}

/// Removes what [`unpack`] has made.
pub(super) fn discard(
    node: &StepContext,
    archives: &[Unpacking],
    copies: &[(PathBuf, PathBuf)],
    links: &[(PathBuf, PathBuf)],
) -> Result<()> {
    let links = links.iter().map(|(link, _)| link);
    let made: Vec<PathBuf> = copies
        .iter()
        .map(|(_, to)| to)
        .chain(links)
        .map(|path| node.host(path))
        .collect();
    for path in &made {
        fs::unlink(path)?;
    }
    sync_above(&made)?;
    for unpacking in archives {
        clear(&node.host(&unpacking.into))?;
    }
    Ok(())
}
