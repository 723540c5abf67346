//! What went wrong, in the operator's terms: a [`Failure`] carries a [`Kind`], the chain of what
//! was being done, and [`Fact`]s that the command line turns into the next command to type.
//!
//! No layer below `cli` knows an option's name or a hint's wording; it states facts only.

pub mod names;

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Bytes that are kept of a text that another machine sent.
pub const MAX_TEXT: usize = 4 << 10;

/// A text that another machine sent, cut to what a person reads: nobody else decides how much an
/// error prints or a log takes.
pub fn cut(mut text: String) -> String {
    let more = text.len().saturating_sub(MAX_TEXT);
    if more > 0 {
        let end = (0..=MAX_TEXT).rev().find(|&at| text.is_char_boundary(at));
        let end = end.unwrap_or(0);
        let more = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("… {more} bytes more"));
    }
    text
}

/// The first of many texts that another machine sent, each cut and together no longer than one.
pub fn cut_all(texts: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut length = 0usize;
    for text in texts {
        if length >= MAX_TEXT {
            kept.push(format!("… {} more", texts.len() - kept.len()));
            break;
        }
        length = length.saturating_add(text.len().max(1));
        kept.push(cut(text.clone()));
    }
    kept
}

/// Answers "what state is my node in?", and decides the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A failure nobody foresaw; nothing is known to have changed.
    Unexpected,
    /// The command line or the configuration is wrong.
    Usage,
    /// The backup itself is bad.
    BadBackup,
    /// etcd or the container runtime cannot be reached.
    Unreachable,
    /// A precondition does not hold; nothing changed.
    Refused,
    /// The store is unavailable or full; nothing half-written counts as a backup.
    Store,
    /// Locked by another run, or an unfinished restore waits.
    Busy,
    /// Failed, and rolled back: the node is as before.
    RolledBack,
    /// Failed, and the roll-back could not finish.
    RollbackFailed,
    /// The backup is good here; a copy or a prune after it failed.
    Partial,
    /// Checked, and found stale or different.
    Differs,
    /// Could not be checked.
    NotChecked,
    /// Interrupted; nothing changed, or rolled back on request.
    Interrupted,
}

/// The exit statuses as named constants: a stable promise (docs/interface.md).
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Unexpected failure, nothing is known to have changed.
    pub const UNEXPECTED: u8 = 1;
    /// Usage or configuration.
    pub const USAGE: u8 = 2;
    /// The backup is bad.
    pub const BAD_BACKUP: u8 = 3;
    /// etcd or the container runtime cannot be reached.
    pub const UNREACHABLE: u8 = 4;
    /// Refused: a precondition does not hold; nothing changed.
    pub const REFUSED: u8 = 5;
    /// The store is unavailable or full.
    pub const STORE: u8 = 6;
    /// Busy (locked), or an unfinished restore waits.
    pub const BUSY: u8 = 7;
    /// Failed, and rolled back.
    pub const ROLLED_BACK: u8 = 8;
    /// Failed, and the roll-back could not finish.
    pub const ROLLBACK_FAILED: u8 = 9;
    /// Done in part.
    pub const PARTIAL: u8 = 10;
    /// Checked: stale, or the live cluster differs.
    pub const DIFFERS: u8 = 11;
    /// Could not check.
    pub const NOT_CHECKED: u8 = 12;
    /// Interrupted.
    pub const INTERRUPTED: u8 = 130;
}

impl Kind {
    /// The process exit status that stands for this kind.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Unexpected => exit::UNEXPECTED,
            Self::Usage => exit::USAGE,
            Self::BadBackup => exit::BAD_BACKUP,
            Self::Unreachable => exit::UNREACHABLE,
            Self::Refused => exit::REFUSED,
            Self::Store => exit::STORE,
            Self::Busy => exit::BUSY,
            Self::RolledBack => exit::ROLLED_BACK,
            Self::RollbackFailed => exit::ROLLBACK_FAILED,
            Self::Partial => exit::PARTIAL,
            Self::Differs => exit::DIFFERS,
            Self::NotChecked => exit::NOT_CHECKED,
            Self::Interrupted => exit::INTERRUPTED,
        }
    }

    /// The word used for this kind in machine-readable output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unexpected => "unexpected",
            Self::Usage => "usage",
            Self::BadBackup => "bad-backup",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Store => "store",
            Self::Busy => "busy",
            Self::RolledBack => "rolled-back",
            Self::RollbackFailed => "rollback-failed",
            Self::Partial => "partial",
            Self::Differs => "differs",
            Self::NotChecked => "not-checked",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A fact that a hint can be made from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fact {
    /// The name of the refusal; where `allowable`, it can be overridden by this name alone.
    Refusal {
        /// Stable name, lower case with hyphens.
        name: &'static str,
        /// Whether an operator may override it.
        allowable: bool,
    },
    /// A path that matters to the reader.
    Path(PathBuf),
    /// Where the node's file system is mounted, when it is not the root that was given.
    Mounted(PathBuf),
    /// The endpoint that was spoken to.
    Endpoint(String),
    /// Who holds a lock.
    Holder {
        /// Process id, as the holder wrote it.
        pid: u32,
        /// What it was doing, as the holder wrote it.
        doing: String,
    },
    /// An operation that is not finished.
    Unfinished {
        /// Its name.
        id: String,
        /// Its journal.
        journal: PathBuf,
        /// Whether it is being rolled back already, and cannot be resumed.
        goes_back: bool,
    },
    /// An operation that is done, and whose rollback is possible until it is committed.
    Unsettled {
        /// Its name.
        id: String,
    },
    /// A file of the node that is not at its place, and may have been moved away by hand.
    Moved(PathBuf),
    /// Members by name that a refusal is about.
    Members(Vec<String>),
    /// A member that an unfinished change has left in the cluster, by its id.
    MemberRemains(String),
    /// A member that needs another peer URL first, by its id.
    MustMove(String),
    /// The things that were meant, where one had to be chosen.
    Candidates(Vec<String>),
    /// The systemd unit of an etcd that is not a static pod.
    HostService(PathBuf),
    /// A member's data directory, or its WAL's own, whose WAL is whole though its database is not.
    SoundWal(PathBuf),
    /// The operating system's error of one of several causes, whose texts one message joins.
    Io(io::ErrorKind),
    /// A setting that was not given and could not be found; the word names it ("endpoint").
    Missing(&'static str),
}

/// An error with its [`Kind`], its [`Fact`]s and the chain of what was being done.
///
/// `Display` prints the whole chain, outermost first, joined by `": "`.
pub struct Failure {
    kind: Kind,
    facts: Vec<Fact>,
    chain: anyhow::Error,
}

impl Failure {
    /// A failure of its own, with no cause below it.
    pub fn new(kind: Kind, what: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self {
            kind,
            facts: Vec::new(),
            chain: anyhow::Error::msg(what),
        }
    }

    /// A precondition that does not hold, by its stable name.
    pub fn refused(
        name: &'static str,
        what: impl fmt::Display + fmt::Debug + Send + Sync + 'static,
    ) -> Self {
        Self::new(Kind::Refused, what).with(Fact::Refusal {
            name,
            allowable: true,
        })
    }

    /// A refusal that nothing overrides, by its stable name.
    pub fn refused_for_good(
        name: &'static str,
        what: impl fmt::Display + fmt::Debug + Send + Sync + 'static,
    ) -> Self {
        Self::new(Kind::Refused, what).with(Fact::Refusal {
            name,
            allowable: false,
        })
    }

    /// Wraps an error from below, saying what was being done ("opening /etc/…").
    pub fn wrap(
        kind: Kind,
        cause: impl Into<anyhow::Error>,
        doing: impl fmt::Display + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind,
            facts: Vec::new(),
            chain: cause.into().context(doing),
        }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, fact: Fact) -> Self {
        self.facts.push(fact);
        self
    }

    /// Adds what was being done, outside of what is known already.
    #[must_use]
    pub fn doing(mut self, doing: impl fmt::Display + Send + Sync + 'static) -> Self {
        self.chain = self.chain.context(doing);
        self
    }

    /// The same failure, with refusals that nothing overrides.
    #[must_use]
    pub fn firmly(mut self) -> Self {
        for fact in &mut self.facts {
            if let Fact::Refusal { allowable, .. } = fact {
                *allowable = false;
            }
        }
        self
    }

    /// The same failure under another kind, for a caller who knows better what it means.
    #[must_use]
    pub fn as_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The facts, in the order they were added.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// The refusal's name, if it is one.
    pub fn refusal(&self) -> Option<&'static str> {
        self.facts.iter().find_map(|fact| match fact {
            Fact::Refusal { name, .. } => Some(*name),
            _ => None,
        })
    }

    /// The names of all refusals it holds.
    pub fn refusals(&self) -> Vec<&'static str> {
        let name = |fact: &Fact| match fact {
            Fact::Refusal { name, .. } => Some(*name),
            _ => None,
        };
        self.facts.iter().filter_map(name).collect()
    }

    /// The chain of messages, outermost first.
    pub fn chain(&self) -> Vec<String> {
        self.chain.chain().map(ToString::to_string).collect()
    }

    /// The operating system's error at the bottom of the chain, or of one of several causes, if there is one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        let mut chain = self.chain.chain();
        let own = chain.find_map(|e| e.downcast_ref::<io::Error>().map(io::Error::kind));
        own.or_else(|| {
            self.facts.iter().find_map(|fact| match fact {
                Fact::Io(kind) => Some(*kind),
                _ => None,
            })
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.chain)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}: {:#}", self.kind, self.facts, self.chain)
    }
}

impl std::error::Error for Failure {}

/// Turns a plain error into a [`Failure`] at the place that knows what was being done.
pub trait Doing<T> {
    /// Wraps the error with a kind and a gerund phrase.
    fn doing<S: fmt::Display + Send + Sync + 'static>(
        self,
        kind: Kind,
        doing: impl FnOnce() -> S,
    ) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing<S: fmt::Display + Send + Sync + 'static>(
        self,
        kind: Kind,
        doing: impl FnOnce() -> S,
    ) -> Result<T> {
        self.map_err(|cause| Failure::wrap(kind, cause, doing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_reads_outermost_first() {
        let low: Result<()> = Err(io::Error::new(io::ErrorKind::NotFound, "no such file"))
            .doing(Kind::Store, || "opening a");
        let failure = low.unwrap_err().doing("taking the backup");
        assert_eq!(
            failure.to_string(),
            "taking the backup: opening a: no such file"
        );
        assert_eq!(failure.io_kind(), Some(io::ErrorKind::NotFound));
        assert_eq!(failure.kind().exit_code(), exit::STORE);
    }

    #[test]
    fn a_long_text_from_outside_is_cut_between_characters() {
        assert_eq!(cut("short".to_owned()), "short");
        let whole = "x".repeat(MAX_TEXT);
        assert_eq!(cut(whole.clone()), whole);
        let long = format!("x{}", "é".repeat(MAX_TEXT));
        let shown = cut(long.clone());
        let (kept, rest) = shown.split_once('…').unwrap();
        assert!(long.starts_with(kept) && kept.len() >= MAX_TEXT - 1);
        assert_eq!(rest, format!(" {} bytes more", long.len() - kept.len()));

        let few = ["a".to_owned(), String::new()];
        assert_eq!(cut_all(&few), few);
        let many = cut_all(&vec!["x".repeat(1_000); 9_000]);
        assert_eq!((many.len(), many[5].as_str()), (6, "… 8995 more"));
        assert!(cut_all(&vec![String::new(); 9_000]).len() <= MAX_TEXT + 1);
    }

    #[test]
    fn a_refusal_keeps_its_name() {
        let failure = Failure::refused("learner-source", "the member is a learner");
        assert_eq!(failure.refusal(), Some("learner-source"));
        assert_eq!(failure.kind().exit_code(), 5);
    }
}
