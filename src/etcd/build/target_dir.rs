//! Where a data directory is built, and how it gets into its place.
//!
//! A directory that does not exist is built under a hidden name next to its place and renamed. An
//! empty one keeps its mount, owner and label: `member` is built in a hidden directory inside it
//! and renamed. Either way one rename makes it complete. A WAL directory elsewhere is renamed
//! first; it has a mark until the data directory is in place, which tells the next run that it is a
//! leftover.
//!
//! The next run removes what an interrupted one left. A run in progress holds a lock on
//! what it builds.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::datadir::Layout;
use crate::sys::fs as change;
use crate::sys::owner::{Owner, chown};

/// How hidden names begin: of what is being built, and of the mark in a WAL directory.
pub const HIDDEN: &str = ".etcd-dr-restore-";
/// What a file system itself makes at the root of a mount.
pub const LOST_AND_FOUND: &str = "lost+found";
const MARK: &str = ".etcd-dr-restore-unfinished";

/// The directories that are built in, and those that they become.
#[derive(Debug)]
pub(in crate::etcd) struct TargetDir {
    /// Where `member` is built.
    root: Staging,
    /// Where the WAL is built.
    wal: PathBuf,
    data_dir: PathBuf,
    /// Whether the data directory is there already.
    existing: bool,
    outer_wal: Option<(Staging, PathBuf)>,
}

/// A hidden directory that is locked as long as this lives, and removed unless it got its place.
#[derive(Debug)]
struct Staging {
    path: PathBuf,
    _lock: File,
    done: bool,
}

impl Staging {
    fn make(dir: &Path, tag: u64) -> Result<Self> {
        let path = dir.join(format!("{HIDDEN}{tag:016x}"));
        change::mkdir(&path)?;
        let lock =
            File::open(&path).doing(Kind::Store, || format!("opening {}", path.display()))?;
        // Made before the lock is taken, so that a failure removes the directory.
        let staging = Self {
            path,
            _lock: lock,
            done: false,
        };
        flock(&staging._lock, FlockOperation::NonBlockingLockExclusive)
            .doing(Kind::Store, || {
                format!("locking {}", staging.path.display())
            })?;
        Ok(staging)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            // The failure that led here is reported; the next run removes what is left.
            let _ = change::remove_tree(&self.path);
        }
    }
}

fn refuse(name: &'static str, path: &Path, what: String) -> Failure {
    Failure::refused_for_good(name, what).with(Fact::Path(path.to_owned()))
}

/// Removes what earlier runs left in a directory, and returns the paths.
fn sweep(dir: &Path, removed: &mut Vec<PathBuf>) -> Result<()> {
    let doing = || format!("listing {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.doing(Kind::Store, doing)?,
    };
    for entry in entries {
        let entry = entry.doing(Kind::Store, doing)?;
        let ours = entry.file_name().to_string_lossy().starts_with(HIDDEN);
        if !ours || !entry.file_type().doing(Kind::Store, doing)?.is_dir() {
            continue;
        }
        let path = entry.path();
        // It is gone by now, or another user's.
        let Ok(lock) = File::open(&path) else {
            continue;
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Failure::new(
                Kind::Busy,
                format!("another restore is building {}", path.display()),
            )
            .with(Fact::Path(path)));
        }
        change::remove_tree(&path)?;
        removed.push(path);
    }
    Ok(())
}

/// An absolute path without `.` and `..`, so that one can be recognised as being below the other.
fn absolute(path: &Path) -> Result<PathBuf> {
    let full =
        std::path::absolute(path).doing(Kind::Usage, || format!("finding {}", path.display()))?;
    let mut out = PathBuf::new();
    for part in full.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    Ok(out)
}

/// Whether a directory exists; it must be empty once leftovers in it are removed.
fn look(data_dir: &Path, removed: &mut Vec<PathBuf>) -> Result<bool> {
    let doing = || format!("looking at {}", data_dir.display());
    match fs::symlink_metadata(data_dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.doing(Kind::Store, doing).map(|_| ())?,
    }
    let kind = fs::metadata(data_dir).doing(Kind::Store, doing)?;
    if !kind.is_dir() {
        let what = format!("{} is not a directory", data_dir.display());
        return Err(refuse("data-dir-not-empty", data_dir, what));
    }
    sweep(data_dir, removed)?;
    for entry in fs::read_dir(data_dir).doing(Kind::Store, doing)? {
        let entry = entry.doing(Kind::Store, doing)?;
        // A file system has it at the root of a fresh mount.
        let of_mount = entry.file_name() == LOST_AND_FOUND
            && entry.file_type().doing(Kind::Store, doing)?.is_dir();
        if !of_mount {
            let what = format!(
                "{} is not empty: a restore never replaces data",
                data_dir.display()
            );
            return Err(refuse("data-dir-not-empty", data_dir, what));
        }
    }
    Ok(true)
}

impl TargetDir {
    /// Checks the places and makes the hidden directories; removes what earlier runs left and adds
    /// it to `removed`. `tag` is random.
    pub(in crate::etcd) fn prepare(
        data_dir: &Path,
        wal_dir: Option<&Path>,
        tag: u64,
        removed: &mut Vec<PathBuf>,
    ) -> Result<Self> {
        let data_dir = absolute(data_dir)?;
        if data_dir.file_name().is_none() {
            let what = format!("{} cannot be a data directory", data_dir.display());
            return Err(refuse("data-dir-not-empty", &data_dir, what));
        }
        let inner = data_dir.join("member").join("wal");
        let wal_dir = wal_dir.map(absolute).transpose()?;
        let wal_dir = wal_dir.filter(|wal| *wal != inner);
        if let Some(wal) = &wal_dir {
            if wal.starts_with(data_dir.join("member")) || data_dir.starts_with(wal) {
                let what = format!(
                    "{} cannot be the WAL directory of {}",
                    wal.display(),
                    data_dir.display()
                );
                return Err(refuse("wal-dir-in-the-way", wal, what));
            }
            clear_marked(wal, &data_dir, removed)?;
        }
        let existing = look(&data_dir, removed)?;
        let parent = change::parent(&data_dir).to_owned();
        if !existing {
            change::mkdir_all(&parent)?;
            sweep(&parent, removed)?;
        }
        let beside = if existing { &data_dir } else { &parent };
        let root = Staging::make(beside, tag)?;
        let built = (beside.as_path(), existing);
        let (wal, outer_wal) = wal_places(&root, wal_dir, &data_dir, built, tag, removed)?;
        Ok(Self {
            root,
            wal,
            data_dir,
            existing,
            outer_wal,
        })
    }

    /// Where the files are built.
    pub(in crate::etcd) fn layout(&self) -> Layout {
        Layout {
            snap: self.root.path.join("member").join("snap"),
            wal: self.wal.clone(),
        }
    }

    /// Makes the entries of the directories durable; the files are durable already.
    pub(in crate::etcd) fn sync(&self) -> Result<()> {
        let layout = self.layout();
        for dir in [&layout.wal, &layout.snap, &self.root.path.join("member")] {
            change::sync_dir(dir)?;
        }
        Ok(())
    }

    /// Moves everything into its place. All of it must be durable but the entries of the hidden
    /// directories themselves.
    ///
    /// A directory that is there gives what comes into it its owner, so that etcd, run by that
    /// user, can read it; another gets `owner`, if that is known. Only root can give files away.
    pub(in crate::etcd) fn commit(mut self, owner: Option<Owner>) -> Result<()> {
        let owner = if self.existing {
            let of = Owner::of(&self.data_dir, &self.data_dir)?;
            of.map(|of| Owner::private(of.uid, of.gid))
        } else {
            owner
        };
        // Before the renames: what is in place must be readable for etcd at once.
        if let Some(owner) = owner.filter(|_| rustix::process::geteuid().is_root()) {
            owner.give(&self.root.path.join("member"))?;
            if self.outer_wal.is_some() {
                owner.give(&self.wal)?;
            }
            if !self.existing {
                chown(&self.root.path, owner.uid, owner.gid)?;
            }
        }
        change::sync_dir(&self.root.path)?;
        let Some((staging, place)) = self.outer_wal.take() else {
            return self.place_data();
        };
        let placed = self
            .place_wal(staging, &place)
            .and_then(|()| self.place_data());
        if placed.is_err() && !self.root.done && marked(&place) {
            // The failure that led here is reported; the next run sees the mark.
            let _ = change::remove_tree(&place);
        }
        placed?;
        // Last: until the data is in its place, too, the next run must see that this WAL is a
        // leftover.
        change::unlink(&place.join(MARK))?;
        change::sync_dir(&place)
    }

    fn place_wal(&self, mut staging: Staging, place: &Path) -> Result<()> {
        // The mark first, and durably: a WAL directory without it counts as data of someone else.
        change::write_new(&self.wal.join(MARK), b"")?;
        change::sync_dir(&self.wal)?;
        change::rename(&self.wal, place)?;
        change::sync_dir(&staging.path)?;
        change::sync_dir(change::parent(place))?;
        change::remove_tree(&staging.path)?;
        staging.done = true;
        Ok(())
    }

    fn place_data(&mut self) -> Result<()> {
        if self.existing {
            let from = self.root.path.join("member");
            change::rename(&from, &self.data_dir.join("member"))?;
            // What is left is an empty hidden directory.
            self.root.done = true;
            change::sync_dir(&self.root.path)?;
            change::sync_dir(&self.data_dir)?;
            change::remove_tree(&self.root.path)?;
            return change::sync_dir(&self.data_dir);
        }
        change::rename(&self.root.path, &self.data_dir)?;
        self.root.done = true;
        change::sync_dir(change::parent(&self.data_dir))
    }
}

/// Where the WAL is built, and where it goes if that is not with the data directory. `built` is the
/// directory that holds what is built, and whether that is the data directory itself.
fn wal_places(
    root: &Staging,
    wal_dir: Option<PathBuf>,
    data_dir: &Path,
    built: (&Path, bool),
    tag: u64,
    removed: &mut Vec<PathBuf>,
) -> Result<(PathBuf, Option<(Staging, PathBuf)>)> {
    let (beside, existing) = built;
    let Some(wal) = wal_dir else {
        return Ok((root.path.join("member").join("wal"), None));
    };
    match wal.strip_prefix(data_dir) {
        // Goes into place with the directory that contains it.
        Ok(below) if !existing => Ok((root.path.join(below), None)),
        Ok(below) if below.components().count() > 1 => {
            let what = format!(
                "{} exists already, so the WAL cannot be deeper in it than {}",
                data_dir.display(),
                wal.display()
            );
            Err(refuse("wal-dir-in-the-way", &wal, what))
        }
        _ => {
            let parent = change::parent(&wal).to_owned();
            change::mkdir_all(&parent)?;
            if parent != beside {
                sweep(&parent, removed)?;
            }
            let staging = Staging::make(&parent, tag.wrapping_add(1))?;
            Ok((staging.path.join("wal"), Some((staging, wal))))
        }
    }
}

fn marked(wal: &Path) -> bool {
    wal.join(MARK).symlink_metadata().is_ok()
}

/// An interrupted run has put a WAL directory with a mark in place. It is removed, unless the data
/// directory is in place, too.
fn clear_marked(wal: &Path, data_dir: &Path, removed: &mut Vec<PathBuf>) -> Result<()> {
    if wal.symlink_metadata().is_err() {
        return Ok(());
    }
    if !marked(wal) || data_dir.join("member").symlink_metadata().is_ok() {
        let what = format!("{} exists already", wal.display());
        return Err(refuse("wal-dir-not-absent", wal, what));
    }
    change::remove_tree(wal)?;
    removed.push(wal.to_owned());
    Ok(())
}
