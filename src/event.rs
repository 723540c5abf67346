//! What a running operation tells the outside: [`Event`]s to an [`Observer`].
//!
//! The library never prints. The binary's observers draw a bar, write plain lines or write
//! JSON lines; tests collect.

use std::path::PathBuf;
use std::sync::Mutex;

/// One thing worth telling while an operation runs. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A phase began ("snapshot", "archive", "check"); `total` is in bytes where it is known.
    PhaseStarted {
        /// The phase's stable name.
        phase: &'static str,
        /// A sentence for people: what is done, to or from where.
        about: String,
        /// Expected size in bytes.
        total: Option<u64>,
    },
    /// How far the phase has come, in bytes since it began.
    PhaseProgress {
        /// The phase's stable name.
        phase: &'static str,
        /// Bytes done.
        done: u64,
    },
    /// How a phase that waits for others stands, in a sentence; each replaces the last.
    PhaseStatus {
        /// The phase's stable name.
        phase: &'static str,
        /// What it waits for now, and how far that is.
        message: String,
    },
    /// The phase ended well.
    PhaseDone {
        /// The phase's stable name.
        phase: &'static str,
        /// Bytes handled.
        done: u64,
    },
    /// A step of a plan begins, or is done.
    Step {
        /// Which, counted from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Its stable name.
        name: &'static str,
        /// What it does, in a sentence.
        about: String,
        /// Whether it is being undone.
        undo: bool,
        /// Whether that is done.
        done: bool,
    },
    /// What is waited for, and is not there yet.
    Waiting {
        /// The stable name of what is waited for.
        what: &'static str,
        /// What is still missing, in words.
        missing: String,
        /// Seconds since the wait began.
        seconds: u64,
        /// Seconds after which it fails.
        limit: u64,
    },
    /// Something the operator should know, which does not stop the operation.
    Warning {
        /// The stable name of the condition.
        name: &'static str,
        /// What is so, in a sentence.
        message: String,
    },
    /// A new member waits to be started on its own machine, with these settings.
    MustStart {
        /// The member's name.
        member: String,
        /// `ETCD_NAME="…"` and so on, one each.
        settings: Vec<String>,
    },
    /// What was decided and why, for a reader who asked for detail.
    Note(String),
    /// A leftover of an interrupted run was removed.
    LeftoverRemoved(PathBuf),
}

/// Receives events; called from any thread, and must not block for long.
pub trait Observer: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// Drops every event.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: Event) {}
}

/// Keeps every event, for tests.
#[derive(Debug, Default)]
pub struct Collected(Mutex<Vec<Event>>);

impl Collected {
    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        self.0
            .lock()
            .map(|events| events.clone())
            .unwrap_or_default()
    }
}

impl Observer for Collected {
    fn event(&self, event: Event) {
        if let Ok(mut events) = self.0.lock() {
            events.push(event);
        }
    }
}
