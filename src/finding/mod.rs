//! What a check found: which layer is broken, where, what was expected there and what stands there.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

mod findings;

pub use self::findings::{DEFAULT_KEPT, Findings, Tally};
pub use crate::sys::quote::printable;

/// The layers a backup, a database or a data directory is checked in, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layer {
    /// The 32 bytes of SHA-256 that a streamed snapshot ends with.
    Trailer,
    /// The two bbolt meta pages.
    Meta,
    /// bbolt's pages: tree, freelist, bounds.
    Pages,
    /// etcd's view: buckets, revisions, values, leases, membership.
    Keys,
    /// The tar.gz archives of static-pod resources and certificates.
    Archive,
    /// The backup's own Manifest, SHA256SUMS and file sizes.
    Manifest,
    /// X.509 certificates in the archives.
    Certificates,
    /// Whether snapshot and archives belong together.
    Pair,
    /// The write-ahead log of a data directory.
    Wal,
    /// The `.snap` files of a data directory.
    RaftSnap,
    /// Whether database, WAL and `.snap` files of a data directory agree.
    Agreement,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; a restore works.
    Warning,
    /// The layer is broken.
    Error,
}

/// Where in a file something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Place {
    /// Byte offset from the file's start.
    Offset(u64),
    /// Byte offset in the tar stream that a `tar.gz` unpacks to.
    Unpacked(u64),
    /// A bbolt page number, and a byte offset within that page (0: the page as a whole).
    Page {
        /// bbolt page number.
        page: u64,
        /// Bytes from the page's first byte.
        offset: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset(offset) => write!(f, "offset {offset}"),
            Self::Unpacked(offset) => write!(f, "unpacked offset {offset}"),
            Self::Page { page, offset: 0 } => write!(f, "page {page}"),
            Self::Page { page, offset } => write!(f, "page {page} offset {offset}"),
        }
    }
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The layer that is concerned.
    pub layer: Layer,
    /// How bad it is.
    pub severity: Severity,
    /// Its stable name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'static, str>>,
    /// The file, as the reader would name it; empty if there is only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Where in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl Finding {
    /// An error in a layer.
    pub fn error(layer: Layer, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            layer,
            severity: Severity::Error,
            name: None,
            file: String::new(),
            place: None,
            expected: printable(expected.into()),
            found: printable(found.into()),
        }
    }

    /// A warning in a layer.
    pub fn warning(layer: Layer, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(layer, expected, found)
        }
    }

    /// The same finding, placed.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same finding, with a stable name.
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = Some(Cow::Borrowed(name));
        self
    }

    /// The same finding, in a named file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = printable(file.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}: ", self.file)?;
        }
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        match &self.name {
            Some(name) => write!(f, " [{name}]"),
            None => Ok(()),
        }
    }
}
