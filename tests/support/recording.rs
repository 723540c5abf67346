//! What the failpoints recorded: every call that changed the disk, in order.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One recorded call.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Call {
    Mkdir {
        path: PathBuf,
    },
    Create {
        path: PathBuf,
    },
    Write {
        path: PathBuf,
        offset: usize,
        data: String,
    },
    /// Room for what is yet to be written, or zeros behind it.
    Resize {},
    SyncFile {
        path: PathBuf,
    },
    SyncDir {
        path: PathBuf,
    },
    Rename {
        path: PathBuf,
        to: PathBuf,
    },
    Symlink {
        path: PathBuf,
        to: PathBuf,
    },
    Link {
        path: PathBuf,
        to: PathBuf,
    },
    SetMode {
        path: PathBuf,
        mode: u32,
    },
    SetOwner {
        path: PathBuf,
        uid: u32,
        gid: u32,
    },
    SetModified {
        path: PathBuf,
        seconds: i64,
    },
    SetXattr {
        path: PathBuf,
        name: String,
        value: String,
    },
    Unlink {
        path: PathBuf,
    },
    Rmdir {
        path: PathBuf,
    },
}

/// Reads a recording.
pub fn read(path: &Path) -> Vec<Call> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

impl Call {
    pub fn is_sync(&self) -> bool {
        matches!(self, Self::SyncFile { .. } | Self::SyncDir { .. })
    }

    /// The attribute that the call sets: of which entry, which one, and to what.
    pub(crate) fn attribute(&self) -> Option<(&Path, String, String)> {
        Some(match self {
            Self::SetMode { path, mode } => (path, "mode".to_owned(), format!("{mode:04o}")),
            Self::SetOwner { path, uid, gid } => (path, "owner".to_owned(), format!("{uid}:{gid}")),
            Self::SetModified { path, seconds } => {
                (path, "modified".to_owned(), seconds.to_string())
            }
            Self::SetXattr { path, name, value } => (path, name.clone(), value.clone()),
            _ => return None,
        })
    }
}
