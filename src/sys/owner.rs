//! Owners and modes of files: new data gets those of the data that it replaces.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dir::{Attributes, Dir, Kind as Entry};
use super::fs::{DIR_MODE, FILE_MODE, parent};
use crate::error::{Doing, Kind, Result};

/// The mode bits that are passed on: no set-id bits, and no write permission for others.
const PASSED_ON: u32 = 0o775;

/// An owner, a group, and the modes of directories and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The user's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
    /// The mode of directories.
    pub dir_mode: u32,
    /// The mode of files.
    pub file_mode: u32,
}

impl Owner {
    /// This user and group, with the modes that this program gives.
    pub fn private(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            gid,
            dir_mode: DIR_MODE,
            file_mode: FILE_MODE,
        }
    }

    /// The owner of a directory, with its mode; files get that of `file`, if that is there.
    /// None if there is no such directory.
    pub fn of(dir: &Path, file: &Path) -> Result<Option<Self>> {
        let look = |path: &Path| match path.metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other
                .map(Some)
                .doing(Kind::Store, || format!("looking at {}", path.display())),
        };
        let Some(meta) = look(dir)?.filter(|meta| meta.is_dir()) else {
            return Ok(None);
        };
        let file = look(file)?.filter(|meta| meta.is_file());
        Ok(Some(Self {
            uid: meta.uid(),
            gid: meta.gid(),
            dir_mode: meta.mode() & PASSED_ON,
            file_mode: file.map_or(FILE_MODE, |meta| meta.mode() & PASSED_ON),
        }))
    }

    /// Gives a directory and all directories and files below it to this owner, durably. Links are
    /// not followed, and what is right already is not touched.
    pub fn give(&self, root: &Path) -> Result<()> {
        let doing = || {
            format!(
                "changing the owner of {} to user {}",
                root.display(),
                self.uid
            )
        };
        let give = || {
            let name = root.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            self.give_dir(&Dir::open(parent(root))?.enter(name)?)
        };
        give().doing(Kind::Store, doing)
    }

    fn give_dir(&self, dir: &Dir) -> io::Result<()> {
        for (name, kind) in dir.entries()? {
            match kind {
                Entry::Directory => self.give_dir(&dir.enter(&name)?)?,
                Entry::File => self.give_file(dir, &name)?,
                Entry::Other => {}
            }
        }
        let meta = dir.metadata()?;
        let is = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
        if self.set(&dir.attributes(), is, self.dir_mode)? {
            dir.sync()?;
        }
        Ok(())
    }

    fn give_file(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        let mut file = dir.open_file(name)?;
        let meta = file.file().metadata()?;
        let is = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
        if self.set(&file.attributes(), is, self.file_mode)? {
            file.sync()?;
        }
        Ok(())
    }

    /// Says whether anything had to be set.
    fn set(&self, of: &Attributes<'_>, is: (u32, u32, u32), mode: u32) -> io::Result<bool> {
        let owner = (is.0, is.1) != (self.uid, self.gid);
        if owner {
            of.set_owner(self.uid, self.gid)?;
        }
        if is.2 != mode {
            of.set_mode(mode)?;
        }
        Ok(owner || is.2 != mode)
    }
}

/// Gives one directory to a user and a group, durably; what it holds is not touched.
pub fn chown(dir: &Path, uid: u32, gid: u32) -> Result<()> {
    let doing = || format!("changing the owner of {} to user {uid}", dir.display());
    let give = || {
        let dir = Dir::open(dir)?;
        let meta = dir.metadata()?;
        if (meta.uid(), meta.gid()) != (uid, gid) {
            dir.attributes().set_owner(uid, gid)?;
        }
        // Even if an earlier attempt has done it: that one may not have fsynced.
        dir.sync()
    };
    give().doing(Kind::Store, doing)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn all_below_gets_owner_and_modes_and_no_link_is_followed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root gives files away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new/member"));
        for tree in [&old, &new] {
            std::fs::create_dir_all(tree.join("snap")).unwrap();
            std::fs::write(tree.join("snap/db"), b"x").unwrap();
        }
        let outside = dir.path().join("outside");
        std::fs::write(&outside, b"x").unwrap();
        symlink(&outside, new.join("link")).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&old, 0o2757);
        mode(&old.join("snap/db"), 0o640);
        std::os::unix::fs::chown(&old, Some(52034), Some(52035)).unwrap();
        let owner = Owner::of(&old, &old.join("snap/db")).unwrap().unwrap();
        for _ in 0..2 {
            owner.give(&new).unwrap();
        }
        let facts = |path: &Path| {
            let meta = path.symlink_metadata().unwrap();
            (meta.uid(), meta.gid(), meta.mode() & 0o7777)
        };
        assert_eq!(facts(&new), (52034, 52035, 0o755));
        assert_eq!(facts(&new.join("snap")), (52034, 52035, 0o755));
        assert_eq!(facts(&new.join("snap/db")), (52034, 52035, 0o640));
        assert_eq!(facts(&outside).0, 0);
        assert_eq!(Owner::of(&dir.path().join("absent"), &old).unwrap(), None);
        assert!(owner.give(&new.join("link")).is_err());
    }
}
