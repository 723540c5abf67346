//! Which backups a restore of this node still needs.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Result;
use crate::journal::registry;
use crate::node::layout::NodeLayout;

/// What a journal's `about` says of the backup that the operation was made from; an operation that
/// needs no backup has none.
#[derive(Deserialize)]
struct About {
    set: Source,
}

#[derive(Deserialize)]
struct Source {
    dir: PathBuf,
}

/// The names of the backups of `store` that an operation of this node was made from and that it needs
/// to be resumed or rolled back: they must not be removed.
///
/// # Errors
/// Those of listing the operations.
pub fn sets(layout: &NodeLayout, store: &Path) -> Result<Vec<String>> {
    let Ok(store) = store.canonicalize() else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for found in registry::list(&layout.state())? {
        let Ok(progress) = &found.progress else {
            continue;
        };
        if !progress.state.can_roll_back() {
            continue;
        }
        let Ok(about) = About::deserialize(&progress.begin.about) else {
            continue;
        };
        let set = about.set.dir;
        let in_store = set
            .parent()
            .and_then(|parent| parent.canonicalize().ok())
            .is_some_and(|parent| parent == store);
        if let (true, Some(name)) = (in_store, set.file_name()) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}
