//! What a tree has and an archive does not get.

use std::fs::Metadata;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Something that an archive does not get.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// Where it is.
    pub path: PathBuf,
    /// Why, in a few words.
    pub why: String,
    /// Whether nothing is lost: a socket is made by who listens on it, and the system's own files
    /// are on every node.
    pub harmless: bool,
}

impl LeftOut {
    pub(super) fn new(path: &Path, why: impl Into<String>, harmless: bool) -> Self {
        Self {
            path: path.to_owned(),
            why: why.into(),
            harmless,
        }
    }
}

/// Why something of this kind cannot be archived.
pub(super) fn special(path: &Path, meta: &Metadata) -> Option<LeftOut> {
    let kind = meta.file_type();
    let of = |what: &str, harmless| Some(LeftOut::new(path, what, harmless));
    if kind.is_socket() {
        of("it is a socket", true)
    } else if kind.is_fifo() {
        of("it is a named pipe", false)
    } else if kind.is_block_device() || kind.is_char_device() {
        of("it is a device", false)
    } else {
        None
    }
}
