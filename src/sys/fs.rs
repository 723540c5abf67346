//! Changes to the file system, each through a [failpoint](super::failpoints).
//!
//! Modes are given, never left to the umask: 0600 for files, 0700 for directories, unless a
//! recorded mode is put back. Nothing here follows a symbolic link it is about to create over.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::dir::Dir;
use super::failpoints::{self, Op};
use super::xattr::xattrs;
use crate::error::{Doing, Kind, Result};

pub use super::out_file::{DIR_MODE, FILE_MODE, OutFile, parent};

/// Whether others than its owner may look into a directory, although it was made with
/// [`DIR_MODE`]: then its file system keeps no modes.
pub fn is_open_to_others(dir: &Path) -> bool {
    let mode = std::fs::metadata(dir).map(|meta| meta.permissions().mode());
    mode.is_ok_and(|mode| mode & 0o077 != 0)
}

/// Makes a directory, mode 0700; its parent must exist.
pub fn mkdir(path: &Path) -> Result<()> {
    let make = || {
        failpoints::pass(Op::Mkdir(path))?;
        std::fs::DirBuilder::new().mode(DIR_MODE).create(path)?;
        failpoints::done(Op::Mkdir(path));
        io::Result::Ok(())
    };
    make().doing(Kind::Store, || {
        format!("creating directory {}", path.display())
    })
}

/// Makes a directory and those above it that are missing, each durable in its parent.
pub fn mkdir_all(path: &Path) -> Result<()> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.exists() {
        missing.push(at);
        match at.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => at = parent,
            _ => break,
        }
    }
    for dir in missing.into_iter().rev() {
        match mkdir(dir) {
            // Another run has just made it; fsync it anyway, since that run may not have done so
            // yet.
            Err(failure)
                if failure.io_kind() == Some(io::ErrorKind::AlreadyExists) && dir.is_dir() => {}
            made => made?,
        }
        if let Some(parent) = dir.parent() {
            sync_dir(if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            })?;
        }
    }
    Ok(())
}

/// Makes a directory's entries durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    let sync = || {
        failpoints::pass(Op::SyncDir(path))?;
        File::open(path)?.sync_all()?;
        failpoints::done(Op::SyncDir(path));
        io::Result::Ok(())
    };
    sync().doing(Kind::Store, || {
        format!("syncing directory {}", path.display())
    })
}

/// Moves an entry within one file system; neither parent is synced.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    let go = || {
        failpoints::pass(Op::Rename(from, to))?;
        std::fs::rename(from, to)?;
        failpoints::done(Op::Rename(from, to));
        io::Result::Ok(())
    };
    go().doing(Kind::Store, || {
        format!("renaming {} to {}", from.display(), to.display())
    })
}

/// Makes a symbolic link.
pub fn symlink(target: &Path, link: &Path) -> Result<()> {
    let go = || {
        failpoints::pass(Op::Symlink(target, link))?;
        std::os::unix::fs::symlink(target, link)?;
        failpoints::done(Op::Symlink(target, link));
        io::Result::Ok(())
    };
    go().doing(Kind::Store, || {
        format!("linking {} to {}", link.display(), target.display())
    })
}

/// Removes a file or a link; one that is already gone is not an error.
pub fn unlink(path: &Path) -> Result<()> {
    if_there(removing(path, Dir::unlink)).map(|_| ())
}

/// Removes a directory and everything below it, without following links: a crash leaves a smaller
/// tree, never a moved one.
pub fn remove_tree(path: &Path) -> Result<()> {
    removing(path, Dir::remove_tree)
}

/// Removes a directory if it is empty, durably. Returns whether it is gone, also when it was gone
/// before.
pub fn remove_empty_dir(path: &Path) -> Result<bool> {
    let removed = removing(path, |holder, name| match holder.rmdir(name) {
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        other => other.map(|()| true),
    });
    // Synced below even if it was gone before: the run that removed it may have been killed before
    // its fsync.
    let gone = if_there(removed)?.unwrap_or(true);
    let above = parent(path);
    if gone && above.is_dir() {
        sync_dir(above)?;
    }
    Ok(gone)
}

/// `None` for an entry that is not there, nor perhaps the directory that would hold it.
fn if_there<T>(removed: Result<T>) -> Result<Option<T>> {
    match removed {
        Err(failure) if failure.io_kind() == Some(io::ErrorKind::NotFound) => Ok(None),
        other => other.map(Some),
    }
}

/// Removes an entry through the directory that holds it.
fn removing<T>(path: &Path, remove: impl FnOnce(&Dir, &OsStr) -> io::Result<T>) -> Result<T> {
    let go = || {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        remove(&Dir::holding(path)?, name)
    };
    go().doing(Kind::Store, || format!("removing {}", path.display()))
}

/// Writes a whole new file and makes its content durable; the parent is not synced.
pub fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    let go = || {
        let mut file = OutFile::create(path)?;
        file.write_all(content)?;
        file.sync()
    };
    go().doing(Kind::Store, || format!("writing {}", path.display()))
}

/// Writes a whole new file that takes the place of another: with that one's mode, owner and
/// extended attributes, its SELinux label among them. The parent is not synced.
pub fn write_like(model: &Path, path: &Path, content: &[u8]) -> Result<()> {
    let wanted = xattrs(model)?;
    let go = || {
        let meta = std::fs::metadata(model)?;
        let mut file = OutFile::create(path)?;
        file.write_all(content)?;
        let made = file.file().metadata()?;
        let attributes = file.attributes();
        if (made.uid(), made.gid()) != (meta.uid(), meta.gid()) {
            attributes.set_owner(meta.uid(), meta.gid())?;
        }
        for (name, value) in &wanted {
            attributes.set_xattr(name, value)?;
        }
        attributes.set_mode(meta.mode() & 0o7777)?;
        file.sync()
    };
    go().doing(Kind::Store, || format!("writing {}", path.display()))
}

/// Replaces a file's content atomically and durably: sibling, fsync, rename, fsync of the parent.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, content, |_| Ok(()))
}

/// The same for a file that is added to later: `room` bytes behind the content are kept for that, as
/// zeros.
pub fn write_atomic_with_room(path: &Path, content: &[u8], room: u64) -> Result<()> {
    replace(path, content, |file| file.reserve(room))
}

/// The same for a file that others read: with this mode, whatever the umask is. The mode is set
/// through the open file: the owner of the directory may have put another one under its name.
pub fn write_atomic_for_all(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    replace(path, content, |file| file.attributes().set_mode(mode))
}

/// `finish` is what the new file gets besides its content, before it is durable and takes its place.
fn replace(
    path: &Path,
    content: &[u8],
    finish: impl FnOnce(&mut OutFile) -> io::Result<()>,
) -> Result<()> {
    let beside = beside(path);
    // A killed run may have left one, and `create` accepts none.
    unlink(&beside)?;
    let go = || {
        let mut file = OutFile::create(&beside)?;
        file.write_all(content)?;
        finish(&mut file)?;
        file.sync()
    };
    go().doing(Kind::Store, || format!("writing {}", beside.display()))?;
    // The content is durable before it gets the name: after a crash the name leads to the old
    // content or to all of the new.
    rename(&beside, path)?;
    sync_dir(parent(path))
}

/// Points a symbolic link at another target, atomically and durably.
pub fn swap_symlink(target: &Path, link: &Path) -> Result<()> {
    let beside = beside(link);
    // `symlink` cannot replace a link, but `rename` can.
    unlink(&beside)?;
    symlink(target, &beside)?;
    rename(&beside, link)?;
    sync_dir(parent(link))
}

/// The name under which a replacement is prepared: hidden, in the same directory.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_made_is_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        mkdir_all(&deep).unwrap();
        assert_eq!(
            std::fs::metadata(&deep).unwrap().permissions().mode() & 0o777,
            DIR_MODE
        );
        let file = deep.join("f");
        write_atomic(&file, b"one").unwrap();
        write_atomic(&file, b"two").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"two");
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            FILE_MODE
        );
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 1);
        let link = dir.path().join("l");
        swap_symlink(Path::new("a"), &link).unwrap();
        swap_symlink(Path::new("a/b"), &link).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("a/b"));
    }

    #[test]
    fn whoever_makes_a_directory_first() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let deep = dir.path().join(format!("{round}/a/b"));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| mkdir_all(&deep).unwrap());
                }
            });
            assert!(deep.is_dir());
        }
        let file = dir.path().join("f");
        std::fs::write(&file, b"").unwrap();
        assert!(mkdir_all(&file.join("below")).is_err());
    }

    #[test]
    fn a_tree_is_removed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, b"x").unwrap();
        let tree = dir.path().join("tree");
        mkdir_all(&tree.join("x/y")).unwrap();
        std::fs::write(tree.join("x/f"), b"x").unwrap();
        std::os::unix::fs::symlink(dir.path(), tree.join("x/y/up")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.exists());
    }

    #[test]
    fn a_new_file_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        write_new(&file, b"one").unwrap();
        assert_eq!(
            write_new(&file, b"two").unwrap_err().io_kind(),
            Some(io::ErrorKind::AlreadyExists)
        );
        assert_eq!(std::fs::read(&file).unwrap(), b"one");
    }
}
