//! The operations: each takes a request and a [`Context`] and returns a result to be shown.

pub mod advice;
pub mod backup;
mod bounds;
pub mod cancel;
pub mod catalog;
pub mod checkup;
pub mod compare;
pub mod copies;
pub mod database;
pub mod datadir;
pub mod live;
pub mod member;
pub mod member_files;
pub mod metrics;
pub mod operation;
pub mod prune;
pub mod quality;
pub mod reach;
pub mod remote;
pub mod restore;
pub mod schedule;
pub mod survivor;
pub mod upgrade;
pub mod verify;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::event::{Event, Observer};
use crate::sys::fs;
pub use cancel::Cancel;

/// Warns where a directory that was just made for its owner alone is open to others: FAT, exFAT and
/// some network shares keep no modes.
pub(crate) fn warn_of_modes(context: &Context, dir: &Path) {
    if fs::is_open_to_others(dir) {
        let what = format!(
            "the file system of {} keeps no modes: whoever can reach it reads the private keys in the backups \
             there; mount it with umask=077, or keep encrypted copies there only (--recipient)",
            dir.display()
        );
        context.warn("modes-not-kept", what);
    }
}

/// What every operation is given: who watches, what time it is, and whether to stop.
#[derive(Clone)]
pub struct Context {
    /// Told what goes on.
    pub observer: Arc<dyn Observer>,
    /// The time the operation began; stamps and ages are reckoned from it.
    pub now: Timestamp,
    /// Set when the operator wants it to stop.
    pub cancel: Cancel,
}

impl Context {
    /// The same, which the wish to stop does not reach: for what must come to its end.
    pub fn unstopped(&self) -> Self {
        Self {
            cancel: Cancel::default(),
            ..self.clone()
        }
    }

    /// Sends an event.
    pub fn tell(&self, event: Event) {
        self.observer.event(event);
    }

    /// Sends a warning.
    pub fn warn(&self, name: &'static str, message: impl Into<String>) {
        self.tell(Event::Warning {
            name,
            message: message.into(),
        });
    }
}
