//! The file that node_exporter's textfile collector reads.

use std::path::Path;

use crate::error::{Failure, Kind, Result};
use crate::sys::fs;

/// The collector runs as a user of its own.
const MODE: u32 = 0o644;

/// Writes metrics, as they were rendered, as a file, in one rename; the directory must exist.
///
/// # Errors
/// [`Kind::Usage`] if the name does not end in `.prom`, as the collector wants it, and
/// [`Kind::Store`] if it cannot be written.
pub fn textfile(metrics: &str, path: &Path) -> Result<()> {
    if path.extension().is_none_or(|extension| extension != "prom") {
        let what = format!(
            "{} does not end in .prom, so no collector reads it",
            path.display()
        );
        return Err(Failure::new(Kind::Usage, what));
    }
    fs::write_atomic_for_all(path, metrics.as_bytes(), MODE)
        .map_err(|failure| failure.doing("writing the metrics"))
}
