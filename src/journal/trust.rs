//! Who may have written a journal. Its steps run as root, so the journal and its folder must belong
//! to root (or to this user), and no other user may be able to write to them. The same holds for
//! the directories above, except those like `/tmp`, whose sticky bit protects the entries of
//! others.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{Doing, Fact, Failure, Kind, Result};

/// Write permission of the group and of all others.
const OTHERS_WRITE: u32 = 0o022;
/// The sticky bit: only owners rename and remove what is in the directory.
const STICKY: u32 = 0o1000;

/// Refuses a journal that another user has written or could have.
///
/// # Errors
/// [`Kind::Refused`].
pub(super) fn check(journal: &Path) -> Result<()> {
    let dir = journal.parent().unwrap_or(journal);
    trusted(dir, &[dir, journal])
}

/// Refuses a folder in which another user could write a journal.
///
/// # Errors
/// As those of [`check`].
pub(super) fn check_folder(dir: &Path) -> Result<()> {
    trusted(dir, &[dir])
}

fn trusted(dir: &Path, all: &[&Path]) -> Result<()> {
    for own in all {
        let meta = own
            .symlink_metadata()
            .doing(Kind::Store, || format!("looking at {}", own.display()))?;
        if meta.is_symlink() {
            return Err(foreign(own, "it is a symbolic link"));
        }
    }
    let real = dir
        .canonicalize()
        .doing(Kind::Store, || format!("looking at {}", dir.display()))?;
    let user = rustix::process::geteuid().as_raw();
    let above = real.ancestors().skip(1).map(|path| (path, false));
    let own = all.iter().map(|path| (*path, true));
    for (path, own) in own.chain(above) {
        let meta = path
            .symlink_metadata()
            .doing(Kind::Store, || format!("looking at {}", path.display()))?;
        // In a sticky parent directory only the owner of a folder can replace it.
        let sticky = meta.mode() & STICKY != 0 && !own;
        if meta.uid() != 0 && meta.uid() != user {
            return Err(foreign(path, &format!("it belongs to user {}", meta.uid())));
        }
        if meta.mode() & OTHERS_WRITE != 0 && !sticky {
            let mode = format!("others may write to it (mode {:o})", meta.mode() & 0o7777);
            return Err(foreign(path, &mode));
        }
    }
    Ok(())
}

fn foreign(path: &Path, why: &str) -> Failure {
    let what = format!(
        "{} cannot be trusted: {why}; the steps in a journal run as root, so only root may write there",
        path.display()
    );
    Failure::refused_for_good("state-not-trusted", what).with(Fact::Path(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_others_could_have_written_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state/restore-1");
        std::fs::create_dir_all(&dir).unwrap();
        let journal = dir.join("journal");
        std::fs::write(&journal, "x").unwrap();
        let modes = |bad: &Path, mode: u32| {
            for path in [&journal, &dir, &root.path().join("state")] {
                let plain = if path.is_dir() { 0o700 } else { 0o600 };
                set_permissions(path, Permissions::from_mode(plain)).unwrap();
            }
            set_permissions(bad, Permissions::from_mode(mode)).unwrap();
            check(&journal).map_err(|failure| failure.to_string())
        };
        assert_eq!(modes(&journal, 0o644), Ok(()));
        for (bad, mode) in [
            (journal.clone(), 0o666),
            (dir.clone(), 0o770),
            (root.path().join("state"), 0o777),
        ] {
            let told = modes(&bad, mode).unwrap_err();
            assert!(told.contains(&bad.display().to_string()), "{told}");
        }
        assert_eq!(modes(&journal, 0o600), Ok(()));
        let link = root.path().join("state/restore-2");
        symlink(&dir, &link).unwrap();
        assert!(check(&link.join("journal")).is_err());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&dir, Some(12345), None).unwrap();
            let told = check(&journal).unwrap_err().to_string();
            assert!(told.contains("user 12345"), "{told}");
        }
    }
}
