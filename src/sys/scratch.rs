//! Scratch folders: what is fetched or unpacked only to be looked at.
//!
//! ```text
//! .etcd-dr-<purpose>-<16 hex digits>/     mode 0700, locked (flock) by the process that uses it
//! ```
//!
//! They hold snapshots and keys in the clear. So each removes itself when it is dropped; the folders of
//! a process that is about to exit without that are removed by [`remove_all`]; and those of one that was
//! killed are removed by the next run, which finds their locks free.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::fs::OutFile;
use super::{fs, random};
use crate::error::{Doing, Kind, Result};

/// How many random bytes are in a name; each is two hex digits.
const RANDOM: usize = 8;
/// The older form of a name ends in so many letters and digits, and such a folder has no lock.
const UNLOCKED: usize = 6;
/// A folder of an older form is a leftover once nothing in it has changed for this time.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// The folders of this process.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn live() -> MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A scratch folder that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes a file in it.
    ///
    /// # Errors
    /// [`Kind::Store`].
    pub fn file(&self, name: &str) -> Result<OutFile> {
        let path = self.path.join(name);
        OutFile::create(&path).doing(Kind::Store, || format!("writing {}", path.display()))
    }

    /// Makes a folder in `base`, mode 0700, after removing those that killed runs have left there.
    ///
    /// # Errors
    /// [`Kind::Store`].
    pub fn make(base: &Path, purpose: &str) -> Result<Self> {
        let prefix = prefix(purpose);
        sweep(base, purpose);
        loop {
            let random = hex::encode(random::bytes::<RANDOM>()?);
            let path = base.join(format!("{prefix}{random}"));
            fs::mkdir(&path)?;
            // Before it is locked: whenever the process exits from here on, `remove_all` knows of
            // it.
            live().push(path.clone());
            let doing = || format!("locking {}", path.display());
            let lock = match File::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    forget(&path);
                    continue;
                }
                other => other.doing(Kind::Store, doing)?,
            };
            flock(&lock, FlockOperation::LockExclusive)
                .map_err(io::Error::from)
                .doing(Kind::Store, doing)?;
            // Another run may have found it in the moment before it was locked.
            if is_same(&path, &lock) {
                return Ok(Self { path, _lock: lock });
            }
            forget(&path);
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now the next run removes.
        let _ = fs::remove_tree(&self.path);
        forget(&self.path);
    }
}

/// Removes the folders of this process, before it exits without dropping them.
pub fn remove_all() {
    for path in live().drain(..) {
        // No caller is left for the error; the next run removes the rest.
        let _ = fs::remove_tree(&path);
    }
}

fn forget(path: &Path) {
    live().retain(|known| known != path);
}

fn is_same(path: &Path, open: &File) -> bool {
    let identity = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let (there, here) = (path.symlink_metadata(), open.metadata());
    matches!((there.map(identity), here.map(identity)), (Ok(there), Ok(here)) if there == here)
}

/// What the names of the folders for a purpose begin with.
fn prefix(purpose: &str) -> String {
    format!(".etcd-dr-{purpose}-")
}

/// Removes leftovers in a folder that others may write to as well: only directories of this user with
/// a whole name of ours that nobody has locked. Failures leave a leftover, and are no reason to fail.
pub fn sweep(base: &Path, purpose: &str) {
    let prefix = prefix(purpose);
    let own = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(random) = name
            .to_str()
            .and_then(|name| name.strip_prefix(prefix.as_str()))
        else {
            continue;
        };
        let path = entry.path();
        let is_own = path
            .symlink_metadata()
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == own);
        // The lock is held until the folder is gone: its maker may be about to take it.
        if let Some(_held) = is_own.then(|| abandoned(&path, random)).flatten() {
            let _ = fs::remove_tree(&path);
        }
    }
}

/// The folder, open and where it can be locked, if nobody uses it any more.
fn abandoned(path: &Path, random: &str) -> Option<File> {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let dir = File::open(path).ok()?;
    if random.len() == 2 * RANDOM && random.bytes().all(is_hex) {
        flock(&dir, FlockOperation::NonBlockingLockExclusive).ok()?;
        return Some(dir);
    }
    let is_older_form =
        random.len() == UNLOCKED && random.bytes().all(|b| b.is_ascii_alphanumeric());
    let changed = dir.metadata().and_then(|meta| meta.modified()).ok()?;
    (is_older_form && changed.elapsed().is_ok_and(|age| age > ABANDONED)).then_some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(base: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(base)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_run_left_goes_and_what_is_in_use_or_of_others_stays() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let used = Scratch::make(base, "verify").unwrap();
        std::fs::write(used.path().join("snapshot.db"), b"x").unwrap();
        let left = base.join(".etcd-dr-verify-0123456789abcdef");
        std::fs::create_dir_all(left.join("pki")).unwrap();
        std::fs::write(left.join("pki/ca.key"), b"x").unwrap();
        let others = [
            ".etcd-dr-verify-of-mine",
            ".etcd-dr-verify-0123456789abcdeg",
            // The older form, in use until a day ago at least.
            ".etcd-dr-verify-aB3dE9",
            ".etcd-dr-restore-0123456789abcdef",
        ];
        for name in others {
            std::fs::create_dir(base.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(used.path(), base.join(".etcd-dr-verify-fedcba9876543210"))
            .unwrap();
        let second = Scratch::make(base, "verify").unwrap();
        let now = names(base);
        assert!(!left.exists(), "{now:?}");
        assert_eq!(now.len(), others.len() + 3, "{now:?}");
        assert!(used.path().join("snapshot.db").exists());
        drop(second);
        drop(used);
        assert_eq!(names(base).len(), others.len() + 1);
    }

    #[test]
    fn runs_at_the_same_time_never_take_each_others_folder() {
        let base = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let scratch = Scratch::make(base.path(), "t").unwrap();
                        std::fs::write(scratch.path().join("f"), b"x").unwrap();
                    }
                });
            }
        });
        assert!(names(base.path()).is_empty());
    }
}
