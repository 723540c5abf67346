//! The record of a rehearsal, beside the Manifest.

use crate::backup::names;
use crate::context::Context;
use crate::event::Event;
use crate::keep::catalog::{BackupSet, Rehearsed};
use crate::sys::fs;

/// Writes what was found; false if the store does not let us.
pub(super) fn write(context: &Context, set: &BackupSet, record: &Rehearsed) -> bool {
    let Ok(mut bytes) = serde_json::to_vec_pretty(record) else {
        return false;
    };
    bytes.push(b'\n');
    match fs::write_atomic(&set.dir.join(names::REHEARSED), &bytes) {
        Ok(()) => true,
        Err(failure) => {
            let note = format!("the rehearsal is not recorded: {failure}");
            context.tell(Event::Note(note));
            false
        }
    }
}
