//! What every restore to a data directory has in common, whether from a snapshot or from a member's
//! own disk.

use std::path::PathBuf;

use crate::context::Context;
use crate::etcd::restore::{Bump, Evidence, Phase, SLACK, Watch};
use crate::event::Event;

/// What every restore to a data directory is asked for.
#[derive(Debug, Clone)]
pub struct DirOptions {
    /// The directory to be made: absent, or there and empty.
    pub data_dir: PathBuf,
    /// Its own directory for the new WAL; it must not be there.
    pub wal_dir: Option<PathBuf>,
    /// How the revision is bumped; none: as [`Bump::Auto`].
    pub bump: Option<Bump>,
    /// Whether all below the new revision is marked as compacted; with [`Bump::Auto`] it always is.
    pub mark_compacted: bool,
    /// Revisions known besides the source's own.
    pub evidence: Vec<Evidence>,
    /// Names of refusals that are allowed.
    pub allow: Vec<String>,
    /// Randomness, for ids and hidden names.
    pub random: u128,
}

impl DirOptions {
    pub(super) fn allows(&self, name: &str) -> bool {
        self.allow.iter().any(|allowed| allowed == name)
    }

    pub(super) fn bump(&self) -> Bump {
        self.bump.unwrap_or(Bump::Auto { slack: SLACK })
    }

    pub(super) fn marks_compacted(&self) -> bool {
        self.mark_compacted || matches!(self.bump(), Bump::Auto { .. })
    }

    /// What tells this run's hidden files from another's.
    pub(super) fn tag(&self) -> u64 {
        (self.random >> 64) as u64
    }
}

/// Hands progress to the observer.
pub(super) struct Watcher<'a> {
    pub(super) context: &'a Context,
}

impl Watcher<'_> {
    /// Runs `work`, which first removes the leftovers of interrupted runs, and reports them even if
    /// `work` fails.
    pub(super) fn report_leftovers<T>(&self, work: impl FnOnce(&mut Vec<PathBuf>) -> T) -> T {
        let mut removed = Vec::new();
        let done = work(&mut removed);
        for path in removed {
            self.context.tell(Event::LeftoverRemoved(path));
        }
        done
    }
}

fn name(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Copy => ("copy", "copying the database"),
        Phase::Check => ("verify", "checking the database"),
        Phase::Rewrite => ("rewrite", "rewriting the database"),
        Phase::Settle => ("settle", "syncing the database to disk and reading it back"),
    }
}

impl Watch for Watcher<'_> {
    fn begin(&self, phase: Phase, total: u64) {
        let (phase, about) = name(phase);
        self.context.tell(Event::PhaseStarted {
            phase,
            about: about.to_owned(),
            total: Some(total),
        });
    }

    fn progress(&self, phase: Phase, done: u64) {
        let (phase, _) = name(phase);
        self.context.tell(Event::PhaseProgress { phase, done });
    }

    fn done(&self, phase: Phase, done: u64) {
        let (phase, _) = name(phase);
        self.context.tell(Event::PhaseDone { phase, done });
    }

    fn stopped(&self) -> bool {
        self.context.cancel.is_cancelled()
    }
}
