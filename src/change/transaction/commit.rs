//! Committing: removes what a change kept for its rollback.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::bounds;
use super::folders::HIDDEN;
use super::steps::NodeStep;
use super::unsettled::{DISABLE, safety, superseded_by, undone_by_others};
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::journal::{Operation, State, registry};
use crate::node::layout::NodeLayout;
use crate::sys::fs;

/// Removes what an operation kept for its rollback, and returns the paths.
///
/// # Errors
/// [`Kind::Busy`] if it is unfinished; [`Kind::Store`].
pub(crate) fn commit(
    layout: &NodeLayout,
    operation: &mut Operation<NodeStep>,
) -> Result<Vec<PathBuf>> {
    let progress = operation.progress();
    if progress.state.is_unfinished() {
        let what = format!(
            "cannot commit {}: it is {}",
            progress.begin.id,
            progress.state.word()
        );
        return Err(Failure::new(Kind::Busy, what).with(operation.unfinished()));
    }
    bounds::check(layout, progress)?;
    let safety = safety(progress)?;
    let mut removed = Vec::new();
    operation.commit(|| {
        for folder in &safety {
            let folder = layout.host(folder);
            if folder.symlink_metadata().is_ok() {
                fs::remove_tree(&folder)?;
                fs::sync_dir(fs::parent(&folder))?;
                removed.push(folder.clone());
            }
            // Also if the folder is gone: a commit that was killed may have got as far as that.
            remove_hidden(&folder)?;
        }
        Ok(())
    })?;
    Ok(removed)
}

/// The operation's hidden directory and its parent are removed once they are empty.
fn remove_hidden(folder: &Path) -> Result<()> {
    let is_hidden = |path: &Path| path.file_name().is_some_and(|name| name == HIDDEN);
    let above: Vec<&Path> = folder.ancestors().skip(1).take(2).collect();
    let hidden = above.iter().position(|path| is_hidden(path));
    for path in above.iter().take(hidden.map_or(0, |at| at + 1)) {
        fs::remove_empty_dir(path)?;
    }
    Ok(())
}

/// Commits the disablings that are no longer in force: etcd's manifest is back, and no operation
/// that put it there can be rolled back.
///
/// # Errors
/// Those of listing the operations, and of removing what one kept.
pub fn settle_disablings(context: &Context, layout: &NodeLayout) -> Result<()> {
    for found in registry::list(&layout.state())? {
        let ours = matches!(&found.progress, Ok(progress)
            if progress.begin.kind == DISABLE && progress.state == State::Completed);
        if !ours || !undone_by_others(layout, &found)? {
            continue;
        }
        let later = superseded_by(layout, &found)?;
        // Its rollback would move the manifest away again, and would need what this one keeps.
        if later.is_some_and(|later| later.is_uncommitted()) {
            continue;
        }
        let observer = context.observer.clone();
        let mut operation = Operation::open(&found.dir, observer, Timestamp::now)?;
        commit(layout, &mut operation)?;
    }
    Ok(())
}
