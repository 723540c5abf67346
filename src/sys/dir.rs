//! Changes below an open directory, where no symbolic link can lead them elsewhere.
//!
//! Every name here is one plain component, taken relative to an open directory, and never
//! followed: what is written through a [`Dir`] lands in that directory, whatever is there. Each
//! change passes a failpoint (see [`failpoints`]) under its whole path.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    chownat, fchmod, fchown, fsetxattr, fsync, futimens, linkat, lsetxattr, mkdirat, openat,
    statat, symlinkat, unlinkat, utimensat,
};

use super::failpoints::{self, Op};
use super::out_file::{DIR_MODE, FILE_MODE, OutFile, parent};

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A link, or something special.
    Other,
}
/// How deep a tree may be that is removed. Each level holds a descriptor and a stack frame; no tree
/// of ours is deeper than the names that an archive may have.
const MAX_DEPTH: usize = 256;

const OPEN_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a directory; a symbolic link to one is an error.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(path, OPEN_DIR, Mode::empty())?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Opens the directory that holds an entry. The path to it is followed, as the caller gave it;
    /// from there on nothing is.
    pub fn holding(path: &Path) -> io::Result<Self> {
        let parent = parent(path);
        let fd = rustix::fs::open(parent, OPEN_DIR - OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Self {
            fd,
            path: parent.to_owned(),
        })
    }

    /// Opens a directory in this one; a symbolic link to one is an error.
    pub fn enter(&self, name: &OsStr) -> io::Result<Self> {
        let fd = openat(&self.fd, plain(name)?, OPEN_DIR, Mode::empty())?;
        Ok(Self {
            fd,
            path: self.path.join(name),
        })
    }

    /// The same directory, opened again.
    pub fn again(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            path: self.path.clone(),
        })
    }

    /// Where it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds, without the contents of directories, by name.
    pub fn entries(&self) -> io::Result<Vec<(OsString, Kind)>> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if [b".".as_slice(), b".."].contains(&name.to_bytes()) {
                continue;
            }
            let stat = statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Kind::Directory,
                FileType::RegularFile => Kind::File,
                _ => Kind::Other,
            };
            found.push((OsStr::from_bytes(name.to_bytes()).to_owned(), kind));
        }
        // The kernel's order may differ from run to run, and the tests count calls.
        found.sort();
        Ok(found)
    }

    /// Its owner, mode and the like.
    pub fn metadata(&self) -> io::Result<std::fs::Metadata> {
        File::from(self.fd.try_clone()?).metadata()
    }

    /// Opens a file of it to be written on; a symbolic link to one is an error.
    pub fn open_file(&self, name: &OsStr) -> io::Result<OutFile> {
        // To open a pipe that was put there instead would wait for its reader.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(&self.fd, plain(name)?, flags, Mode::empty())?;
        let file = File::from(fd);
        let offset = file.metadata()?.len();
        Ok(OutFile {
            file,
            path: self.path.join(name),
            offset,
        })
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> io::Result<bool> {
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            if ![b".".as_slice(), b".."].contains(&entry.file_name().to_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes a file or a link.
    pub fn unlink(&self, name: &OsStr) -> io::Result<()> {
        let path = self.path.join(plain(name)?);
        through(Op::Unlink(&path), || {
            unlinkat(&self.fd, name, AtFlags::empty())
        })
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, name: &OsStr) -> io::Result<()> {
        let path = self.path.join(plain(name)?);
        through(Op::Rmdir(&path), || {
            unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
        })
    }

    /// Removes a directory and everything in it. The owner of a part of the tree may replace a
    /// directory by a link while this runs. Each directory is entered through its parent's
    /// descriptor and never followed, so nothing outside the tree is touched (CVE-2022-21658 is
    /// what following them leads to).
    pub fn remove_tree(&self, name: &OsStr) -> io::Result<()> {
        self.enter(name)?.clear(MAX_DEPTH)?;
        self.rmdir(name)
    }

    /// Removes everything in it, files before the directories that hold them.
    fn clear(&self, depth: usize) -> io::Result<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(io::Error::other(format!(
                "{} is nested deeper than {MAX_DEPTH} directories",
                self.path.display()
            )));
        };
        for (name, kind) in self.entries()? {
            if kind == Kind::Directory {
                self.enter(&name)?.clear(depth)?;
                self.rmdir(&name)?;
            } else {
                self.unlink(&name)?;
            }
        }
        Ok(())
    }

    /// Makes a directory that must not exist yet, mode 0700.
    pub fn mkdir(&self, name: &OsStr) -> io::Result<()> {
        let path = self.path.join(plain(name)?);
        through(Op::Mkdir(&path), || {
            mkdirat(&self.fd, name, Mode::from_raw_mode(DIR_MODE))
        })
    }

    /// Makes a file that must not exist yet, mode 0600.
    pub fn create(&self, name: &OsStr) -> io::Result<OutFile> {
        let path = self.path.join(plain(name)?);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = through(Op::Create(&path), || {
            let mode = Mode::from_raw_mode(FILE_MODE);
            openat(&self.fd, name, flags, mode)
        })?;
        Ok(OutFile {
            file: File::from(fd),
            path,
            offset: 0,
        })
    }

    /// Makes a symbolic link; the target may be anything.
    pub fn symlink(&self, target: &Path, name: &OsStr) -> io::Result<()> {
        let path = self.path.join(plain(name)?);
        through(Op::Symlink(target, &path), || {
            symlinkat(target, &self.fd, name)
        })
    }

    /// Gives a file of this directory another name, there or in another one.
    pub fn hard_link(&self, file: &OsStr, to: &Self, name: &OsStr) -> io::Result<()> {
        let from = self.path.join(plain(file)?);
        let path = to.path.join(plain(name)?);
        through(Op::Link(&from, &path), || {
            linkat(&self.fd, file, &to.fd, name, AtFlags::empty())
        })
    }

    /// Makes its entries and its own attributes durable.
    pub fn sync(&self) -> io::Result<()> {
        through(Op::SyncDir(&self.path), || fsync(&self.fd))
    }

    /// Its attributes.
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes {
            fd: self.fd.as_fd(),
            link: None,
            path: self.path.clone(),
        }
    }

    /// The attributes of a symbolic link in it: the link's own, never its target's.
    pub fn link_attributes<'a>(&'a self, name: &'a OsStr) -> io::Result<Attributes<'a>> {
        Ok(Attributes {
            fd: self.fd.as_fd(),
            link: Some(plain(name)?),
            path: self.path.join(name),
        })
    }
}

impl OutFile {
    /// The file's attributes. Writing may take set-id bits away again, so they come last.
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes {
            fd: self.file.as_fd(),
            link: None,
            path: self.path.clone(),
        }
    }
}

/// Sets the attributes of an open file or directory, or of a symbolic link.
///
/// Each call may undo another's work; in this order none does: owner, extended attributes, mode,
/// modification time.
#[derive(Debug)]
pub struct Attributes<'a> {
    /// The thing itself, or the directory that holds the link.
    fd: BorrowedFd<'a>,
    link: Option<&'a OsStr>,
    path: PathBuf,
}

impl Attributes<'_> {
    /// Sets owner and group by number.
    pub fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        if uid == u32::MAX || gid == u32::MAX {
            // The kernel takes this number for "as it is".
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        through(Op::SetOwner(&self.path, uid, gid), || match self.link {
            None => fchown(self.fd, owner, group),
            Some(name) => chownat(self.fd, name, owner, group, AtFlags::SYMLINK_NOFOLLOW),
        })
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&self, name: &str, value: &[u8]) -> io::Result<()> {
        through(Op::SetXattr(&self.path, name, value), || {
            match self.link {
                None => fsetxattr(self.fd, name, value, XattrFlags::empty()),
                Some(link) => {
                    // Linux has no call for this below an open directory before 6.13.
                    let mut path = PathBuf::from("/proc/self/fd");
                    path.push(self.fd.as_raw_fd().to_string());
                    path.push(link);
                    lsetxattr(&path, name, value, XattrFlags::empty())
                }
            }
        })
    }

    /// Sets permission bits with set-id and sticky bits. A symbolic link has none of its own.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        if self.link.is_some() {
            return Ok(());
        }
        through(Op::SetMode(&self.path, mode), || {
            fchmod(self.fd, Mode::from_raw_mode(mode & 0o7777))
        })
    }

    /// Sets the modification time, in seconds since 1970.
    pub fn set_modified(&self, seconds: i64) -> io::Result<()> {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: seconds,
                tv_nsec: 0,
            },
        };
        through(Op::SetModified(&self.path, seconds), || match self.link {
            None => futimens(self.fd, &times),
            Some(name) => utimensat(self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW),
        })
    }
}

fn through<T>(op: Op<'_>, change: impl FnOnce() -> rustix::io::Result<T>) -> io::Result<T> {
    failpoints::pass(op)?;
    let made = change()?;
    failpoints::done(op);
    Ok(made)
}

/// The name, if it is one component and leads nowhere else.
fn plain(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    let bad = bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/');
    if bad {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected one plain name",
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn nothing_is_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = scratch.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::create_dir(scratch.path().join("in")).unwrap();
        symlink("in", scratch.path().join("in-link")).unwrap();
        assert!(Dir::open(&scratch.path().join("in-link")).is_err());
        let dir = Dir::open(&scratch.path().join("in")).unwrap();
        assert!(dir.is_empty().unwrap());
        dir.symlink(&outside, OsStr::new("out")).unwrap();
        dir.symlink(&outside.join("file"), OsStr::new("f")).unwrap();
        assert!(!dir.is_empty().unwrap());
        assert!(dir.enter(OsStr::new("out")).is_err());
        assert!(dir.create(OsStr::new("f")).is_err());
        assert!(dir.mkdir(OsStr::new("out")).is_err());
        for name in ["", ".", "..", "out/x", "/x"] {
            let name = OsStr::new(name);
            assert!(dir.create(name).is_err(), "{name:?}");
            assert!(dir.mkdir(name).is_err());
            assert!(dir.enter(name).is_err());
            assert!(dir.symlink(Path::new("x"), name).is_err());
            assert!(dir.link_attributes(name).is_err());
        }
        let before = fs::metadata(&outside).unwrap();
        let link = dir.link_attributes(OsStr::new("out")).unwrap();
        link.set_mode(0o777).unwrap();
        link.set_modified(1_000).unwrap();
        let after = fs::metadata(&outside).unwrap();
        assert_eq!(
            (before.mode(), before.mtime()),
            (after.mode(), after.mtime())
        );
        let own = fs::symlink_metadata(dir.path().join("out")).unwrap();
        assert_eq!(own.mtime(), 1_000);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_becomes_a_link_leads_nowhere() {
        let scratch = tempfile::tempdir().unwrap();
        let victim = scratch.path().join("victim");
        fs::create_dir(&victim).unwrap();
        for file in 0..50 {
            fs::write(victim.join(format!("f{file}")), b"x").unwrap();
        }
        let tree = scratch.path().join("tree");
        let parked = scratch.path().join("parked");
        fs::create_dir(&parked).unwrap();
        for round in 0..4 {
            for dir in 0..100 {
                fs::create_dir_all(tree.join(format!("d{dir:03}/below"))).unwrap();
            }
            std::thread::scope(|scope| {
                // The owner of the tree replaces its directories by links while it is removed.
                scope.spawn(|| {
                    for dir in (0..100).rev() {
                        let name = tree.join(format!("d{dir:03}"));
                        let _ = fs::rename(&name, parked.join(format!("{round}-{dir}")));
                        let _ = symlink(&victim, &name);
                    }
                });
                let _ = Dir::holding(&tree).unwrap().remove_tree(OsStr::new("tree"));
            });
            assert_eq!(fs::read_dir(&victim).unwrap().count(), 50, "round {round}");
            let _ = Dir::holding(&tree).unwrap().remove_tree(OsStr::new("tree"));
        }
    }

    #[test]
    fn a_tree_of_any_width_is_removed_and_a_bottomless_one_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let holder = Dir::open(scratch.path()).unwrap();
        let mut deep = scratch.path().join("deep");
        for _ in 0..=MAX_DEPTH {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        let refused = holder.remove_tree(OsStr::new("deep")).unwrap_err();
        assert!(refused.to_string().contains("nested deeper"), "{refused}");
        fs::create_dir_all(scratch.path().join("tree/x/y")).unwrap();
        fs::write(scratch.path().join("tree/x/f"), b"x").unwrap();
        symlink("..", scratch.path().join("tree/x/up")).unwrap();
        holder.remove_tree(OsStr::new("tree")).unwrap();
        assert!(!scratch.path().join("tree").exists());
        symlink("deep", scratch.path().join("link")).unwrap();
        assert!(holder.remove_tree(OsStr::new("link")).is_err());
    }

    #[test]
    fn attributes_are_set_and_names_added() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        let mut file = dir.create(OsStr::new("f")).unwrap();
        file.write_all(b"x").unwrap();
        file.attributes().set_mode(0o6751).unwrap();
        file.attributes().set_modified(5).unwrap();
        file.sync().unwrap();
        dir.mkdir(OsStr::new("d")).unwrap();
        let below = dir.enter(OsStr::new("d")).unwrap();
        dir.hard_link(OsStr::new("f"), &below, OsStr::new("g"))
            .unwrap();
        below.attributes().set_mode(0o1500).unwrap();
        below.sync().unwrap();
        let meta = fs::metadata(below.path().join("g")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o6751, 5));
        assert_eq!(meta.nlink(), 2);
        let meta = fs::metadata(below.path()).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o1500);
        let none = dir.attributes().set_owner(u32::MAX, 0).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::InvalidInput);
    }
}
