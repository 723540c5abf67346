//! The segments of one chain: files of a directory, by their names.

use std::path::{Path, PathBuf};

use super::header::Name;
use super::parse::Segment;
use crate::error::{Doing, Failure, Kind, Result};

/// The refusal of a chain that lacks a segment.
pub const MISSING: &str = "missing-segment";
/// The refusal of one with a segment that is not what it was.
pub const DAMAGED: &str = "damaged-segment";
/// The refusal of one that is not of the backup's history.
pub const MISMATCH: &str = "segment-mismatch";

/// The names of a chain's segments, ascending. What else is in the directory is left out.
///
/// # Errors
/// [`Kind::Store`].
pub fn names(dir: &Path) -> Result<Vec<Name>> {
    let doing = || format!("listing {}", dir.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).doing(Kind::Store, doing)? {
        let name = entry.doing(Kind::Store, doing)?.file_name();
        names.extend(name.to_str().and_then(Name::parse));
    }
    names.sort_unstable();
    Ok(names)
}

/// The segments that lead from a revision, which is not among them, to another one, which is.
///
/// # Errors
/// The refusal `missing-segment`, not to be allowed.
pub fn between(dir: &Path, after: i64, until: i64) -> Result<Vec<PathBuf>> {
    let (mut found, mut next) = (Vec::new(), after.saturating_add(1));
    for name in names(dir)? {
        if name.last < next || next > until {
            continue;
        }
        if name.first > next {
            break;
        }
        found.push(dir.join(name.to_string()));
        next = name.last.saturating_add(1);
    }
    if next > until {
        return Ok(found);
    }
    let what = format!(
        "the changes of revisions {next} to {until} are not in {}",
        dir.display()
    );
    Err(Failure::refused_for_good(MISSING, what))
}

/// Reads a segment that something depends on.
///
/// # Errors
/// The refusal `damaged-segment`, not to be allowed, for one that is not what was sealed.
pub fn sound(path: &Path) -> Result<Segment> {
    Segment::open(path).map_err(|failure| match failure.kind() {
        Kind::BadBackup => Failure::refused_for_good(DAMAGED, failure.to_string()),
        _ => failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_leads_on_only_without_a_hole() {
        let dir = tempfile::tempdir().unwrap();
        let name = |first, last| Name { first, last }.to_string();
        for file in [name(5, 9), name(10, 12), name(14, 20), ".new".to_owned()] {
            std::fs::write(dir.path().join(file), b"").unwrap();
        }
        let found = |after, until| {
            let found = between(dir.path(), after, until)?;
            let names = found.iter().filter_map(|path| path.file_name()?.to_str());
            Ok::<_, Failure>(names.map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(found(4, 12).unwrap(), [name(5, 9), name(10, 12)]);
        assert_eq!(found(7, 9).unwrap(), [name(5, 9)]);
        assert_eq!(found(9, 11).unwrap(), [name(10, 12)]);
        assert_eq!(found(13, 15).unwrap(), [name(14, 20)]);
        assert_eq!(found(9, 9).unwrap(), Vec::<String>::new());
        for (after, until) in [(3, 9), (4, 13), (9, 20), (20, 21)] {
            let refused = found(after, until).unwrap_err();
            assert_eq!(refused.refusal(), Some("missing-segment"), "{after}");
        }
        let damaged = sound(&dir.path().join(name(5, 9))).unwrap_err();
        assert_eq!(damaged.refusal(), Some(DAMAGED));
    }
}
