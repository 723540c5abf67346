//! Paths as manifests write them.

use std::path::{Component, Path, PathBuf};

/// An absolute path without `.` and `..`, or nothing.
pub(super) fn plain_absolute(path: &Path) -> Option<PathBuf> {
    let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    plain.then(|| path.components().collect())
}
