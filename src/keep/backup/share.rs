//! After the commit: the new snapshot shares the blocks in which it is equal to the one before,
//! where the store's file system can share any.

use std::fs::File;

use crate::backup::names::{self, BackupId};
use crate::context::Context;
use crate::error::{Doing, Kind, Result};
use crate::event::Event;
use crate::keep::catalog;
use crate::keep::catalog::{BackupSet, Shared};
use crate::store::LocalStore;
use crate::sys::fs::{self, OutFile};
use crate::sys::lock::Lock;
use crate::sys::share::share_equal;

/// Shares what can be shared with the set before; `None` if nothing can. What goes wrong is a
/// note: the backup is what it was.
pub(super) fn share(
    context: &Context,
    store: &LocalStore,
    number: u64,
    lock: &Lock,
) -> Option<u64> {
    match try_share(context, store, number, lock) {
        Ok(shared) => shared,
        Err(failure) => {
            let note = format!("sharing blocks with the previous backup: {failure}");
            context.tell(Event::Note(note));
            None
        }
    }
}

fn try_share(
    context: &Context,
    store: &LocalStore,
    number: u64,
    lock: &Lock,
) -> Result<Option<u64>> {
    let sets = catalog::list(store)?;
    let number_of = |set: &BackupSet| BackupId::parse(&set.name).map(|id| id.0);
    let Some(new) = sets.iter().find(|set| number_of(set) == Some(number)) else {
        return Ok(None);
    };
    let before = sets
        .iter()
        .filter(|set| set.manifest.is_some() && set.problems.is_empty())
        .filter(|set| number_of(set).is_some_and(|other| other < number))
        .max_by_key(|set| number_of(set));
    let Some(before) = before else {
        return Ok(None);
    };
    let (Some(to), Some(from)) = (&new.files.snapshot, &before.files.snapshot) else {
        return Ok(None);
    };
    let old = File::open(from).doing(Kind::Store, || format!("opening {}", from.display()))?;
    // Without this, `copy_file_range` would copy all the bytes again and share nothing.
    if !clones(store, number, &old, lock)? {
        return Ok(None);
    }
    let go_on = || !context.cancel.is_cancelled();
    let bytes = share_equal(&old, to, go_on).doing(Kind::Store, || {
        format!("sharing blocks of {}", from.display())
    })?;
    let record = Shared {
        schema_version: 1,
        with: before.name.clone(),
        bytes,
    };
    let record = serde_json::to_vec(&record).doing(Kind::Unexpected, || "writing JSON")?;
    fs::write_atomic(&new.dir.join(names::SHARED), &record)?;
    Ok(Some(bytes))
}

/// Whether the file system lets files share blocks: tried on a file that is gone again.
fn clones(store: &LocalStore, number: u64, old: &File, lock: &Lock) -> Result<bool> {
    let staging = store.stage(number, lock)?;
    let path = staging.dir().join(names::PROBE);
    let doing = || format!("writing {}", path.display());
    let mut file = OutFile::create(&path).doing(Kind::Store, doing)?;
    file.clone_from(old, 0).doing(Kind::Store, doing)
}
