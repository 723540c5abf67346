//! How much space a file system has, and which one a path is on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Fact, Failure, Kind, Result};

/// The room on the file system that holds a path. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// What an unprivileged writer can still use.
    pub available: u64,
    /// The file system's whole size.
    pub total: u64,
    /// The device number: equal numbers, same file system.
    pub device: u64,
    /// The nearest mount point above the path.
    pub mount: PathBuf,
}

impl Space {
    /// Passes where so many bytes more have room; `what` needs them.
    ///
    /// # Errors
    /// [`Kind::Store`] with [`Fact::Path`], the mount.
    pub fn check(&self, needed: u64, what: &str) -> Result<()> {
        if self.available >= needed {
            return Ok(());
        }
        let why = format!(
            "the file system at {} has {} bytes free, {what} needs {needed}",
            self.mount.display(),
            self.available
        );
        Err(Failure::new(Kind::Store, why).with(Fact::Path(self.mount.clone())))
    }
}

/// What a file system with etcd's data keeps free for it: two segments of its WAL and
/// more, or a twentieth of a small one.
const BESIDE_ETCD: (u64, u64) = (256 << 20, 20);
/// What any other keeps free: enough for everything else to continue.
const ELSEWHERE: (u64, u64) = (64 << 20, 100);

impl Space {
    /// The bytes that a growing file must leave free.
    pub fn reserve(&self, beside_etcd: bool) -> u64 {
        let (most, part) = if beside_etcd { BESIDE_ETCD } else { ELSEWHERE };
        most.min(self.total / part)
    }
}

/// Asks the file system that holds `path`, or the nearest existing directory above it.
pub fn space(path: &Path) -> Result<Space> {
    let mut at = path.to_owned();
    while !at.exists() {
        match at.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => at = parent.to_owned(),
            _ => {
                at = PathBuf::from(".");
                break;
            }
        }
    }
    let doing = || format!("asking for the free space of {}", path.display());
    let at = at.canonicalize().doing(Kind::Store, doing)?;
    let stat = rustix::fs::statvfs(&at).doing(Kind::Store, doing)?;
    let device = std::fs::metadata(&at).doing(Kind::Store, doing)?.dev();
    let unit = stat.f_frsize.max(1);
    let mut mount = at.clone();
    while let Some(parent) = mount.parent() {
        match std::fs::metadata(parent) {
            Ok(meta) if meta.dev() == device => mount = parent.to_owned(),
            _ => break,
        }
    }
    Ok(Space {
        available: stat.f_bavail.saturating_mul(unit),
        total: stat.f_blocks.saturating_mul(unit),
        device,
        mount,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_a_missing_path_its_parent_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let here = space(dir.path()).unwrap();
        let below = space(&dir.path().join("not/there")).unwrap();
        assert_eq!((here.device, here.mount), (below.device, below.mount));
        assert!(here.total > 0);
    }

    #[test]
    fn a_small_file_system_keeps_a_part_free_and_a_large_one_so_many_bytes() {
        let of = |total| Space {
            available: 0,
            total,
            device: 0,
            mount: PathBuf::new(),
        };
        assert_eq!(of(100 << 20).reserve(true), 5 << 20);
        assert_eq!(of(1 << 40).reserve(true), 256 << 20);
        assert!(of(1 << 40).reserve(false) < of(1 << 40).reserve(true));
    }
}
