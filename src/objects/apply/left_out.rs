//! Reasons.

/// Why an object is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// Another object's controller makes it.
    Controlled,
    /// The API server or the control plane makes it.
    BuiltIn,
    /// It is the state of machines, elections or requests of the time of the backup.
    State,
    /// It is a Job that has ended, and would run again.
    Finished,
    /// It was being deleted.
    Deleting,
}

impl LeftOut {
    /// In words, after a number of objects.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Controlled => "made by a controller of another object",
            Self::BuiltIn => "made by the control plane",
            Self::State => "state of nodes, elections or requests",
            Self::Finished => "Jobs that have ended and would run again",
            Self::Deleting => "being deleted",
        }
    }
}
