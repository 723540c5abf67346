//! A store in a directory: one directory for each backup, made under another name and renamed.
//!
//! ```text
//! .etcd-dr.lock        held while the store is changed
//! .staging-12/         a set being made, or left by an interrupted run
//! .removing-3/         a set being removed, or left by an interrupted run
//! backup-12/           a set
//! latest-backup        symbolic link to the newest set
//! changes/             what was written between the sets, if it is recorded
//! ```

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::error::{Doing, Failure, Kind, Result};
use crate::sys::fs;
use crate::sys::lock::Lock;

/// The lock file's name within a store.
pub const LOCK: &str = ".etcd-dr.lock";
/// The link to the newest set.
pub const LATEST: &str = "latest-backup";
/// What the names of sets in the making begin with.
pub const STAGING_PREFIX: &str = ".staging-";
/// What the names of sets that are being removed begin with.
pub const REMOVING_PREFIX: &str = ".removing-";
/// Counting does not reach these numbers: at one backup a second it takes 30,000 years. They are
/// ignored, so that an entry with such a number does not end all backups.
const UNREACHABLE: u64 = 1_000_000_000_000;
/// The directory of recorded changes.
pub const CHANGES: &str = "changes";
/// The prefix of directories that a run makes in a directory which is not a store (`backup
/// --flat`); 16 random hex digits follow.
pub const FLAT_PREFIX: &str = ".etcd-dr-staging-";
/// What the names of sets begin with.
pub const SET_PREFIX: &str = "backup-";

/// A directory of sets.
#[derive(Debug, Clone)]
pub struct LocalStore {
    dir: PathBuf,
}

/// A directory within a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEntry {
    /// Its name within the store.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is a directory (a link to one is not).
    pub is_dir: bool,
    /// Bytes, of a file.
    pub size: u64,
    /// When what it holds was last written.
    pub modified: Option<Timestamp>,
}

impl LocalStore {
    /// The store in a directory, which need not exist yet.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of recorded changes, which need not exist.
    pub fn changes(&self) -> PathBuf {
        self.dir.join(CHANGES)
    }

    /// Makes the directory, durably, where it is missing.
    pub fn ensure(&self) -> Result<()> {
        fs::mkdir_all(&self.dir)
    }

    /// Takes the store's lock; the directory must exist.
    pub fn lock(&self, doing: &str) -> Result<Lock> {
        Lock::acquire(&self.dir.join(LOCK), doing)
    }

    /// What is in the store's directory, sorted by name.
    pub fn entries(&self) -> Result<Vec<StoreEntry>> {
        entries(&self.dir)
    }

    /// The name that `latest-backup` points at, if there is such a link.
    pub fn latest(&self) -> Option<String> {
        let target = std::fs::read_link(self.dir.join(LATEST)).ok()?;
        target.to_str().map(str::to_owned)
    }

    /// Removes what interrupted runs have left; the lock must be held, since a directory in the
    /// making looks the same. Returns what was removed.
    ///
    /// Removes only what is provably etcd-dr's: a directory (not a link) that has exactly such a
    /// name, belongs to the user whom files belong to that this process makes here, and holds only
    /// plain files whose names `is_ours` accepts. Anything else under such a name stays.
    pub fn remove_leftovers(
        &self,
        held: &Lock,
        is_ours: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<PathBuf>> {
        self.remove_named(is_leftover, held, is_ours)
    }

    /// The same in a directory that is not a store and may be anybody's: only the random names of
    /// [`LocalStore::stage_flat`] are ours there.
    pub fn remove_flat_leftovers(
        &self,
        held: &Lock,
        is_ours: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<PathBuf>> {
        self.remove_named(is_flat, held, is_ours)
    }

    fn remove_named(
        &self,
        is_name: fn(&str) -> bool,
        held: &Lock,
        is_ours: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        for entry in self.entries()? {
            if entry.is_dir && is_name(&entry.name) && holds_only(&entry.path, held, is_ours) {
                fs::remove_tree(&entry.path)?;
                removed.push(entry.path);
            }
        }
        Ok(removed)
    }

    /// The number of the next backup: one above every number in any name, so that no number is used
    /// twice while a trace of it exists. Numbers that no store can reach by counting are ignored.
    pub fn next_number(&self) -> Result<u64> {
        let bearing = |name: &str| {
            let digits = name
                .strip_prefix(SET_PREFIX)
                .or_else(|| name.strip_prefix(STAGING_PREFIX))
                .or_else(|| name.strip_prefix(REMOVING_PREFIX))?;
            let end = digits.bytes().take_while(u8::is_ascii_digit).count();
            digits.get(..end)?.parse::<u64>().ok()
        };
        let entries = self.entries()?;
        let names = entries.iter().map(|entry| entry.name.as_str());
        let mut taken: BTreeSet<u64> = names.filter_map(bearing).collect();
        taken.extend(self.latest().and_then(|name| bearing(&name)));
        let counted = taken.range(..UNREACHABLE).next_back();
        let mut next = counted.map_or(1, |highest| highest.saturating_add(1));
        while taken.contains(&next) && next < u64::MAX {
            next += 1;
        }
        Ok(next)
    }

    /// The directory of set `number`.
    pub fn set_dir(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{SET_PREFIX}{number}"))
    }

    /// Makes a private directory to prepare set `number` in.
    pub fn stage(&self, number: u64, _held: &Lock) -> Result<Staging> {
        let dir = self.dir.join(format!("{STAGING_PREFIX}{number}"));
        fs::mkdir(&dir)?;
        Ok(Staging { dir, armed: true })
    }

    /// Makes a private directory in one that is not a store, under a name that nothing there has.
    pub fn stage_flat(&self, random: [u8; 8], _held: &Lock) -> Result<Staging> {
        let dir = self
            .dir
            .join(format!("{FLAT_PREFIX}{:016x}", u64::from_ne_bytes(random)));
        fs::mkdir(&dir)?;
        Ok(Staging { dir, armed: true })
    }

    /// Makes a staged set one of the store's: its directory synced, renamed, the store synced.
    ///
    /// # Errors
    /// [`Kind::Partial`] if only the last failed: the set is there.
    pub fn commit(&self, mut staging: Staging, number: u64) -> Result<PathBuf> {
        let to = self.dir.join(format!("{SET_PREFIX}{number}"));
        if to.symlink_metadata().is_ok() {
            return Err(Failure::new(
                Kind::Store,
                format!("committing {}: it exists already", to.display()),
            ));
        }
        // Before it gets its name: what is listed must be whole.
        fs::sync_dir(&staging.dir)?;
        fs::rename(&staging.dir, &to)?;
        staging.armed = false;
        // From here on it is listed, and no failure may claim that it does not exist.
        let synced = fs::sync_dir(&self.dir);
        synced.map_err(|failure| {
            let what = format!(
                "{} was created, but may not survive a power failure",
                to.display()
            );
            failure.as_kind(Kind::Partial).doing(what)
        })?;
        Ok(to)
    }

    /// Removes backups by their numbers: renames each to a hidden name, fsyncs the store, and only
    /// then removes the contents, so that no crash leaves half a backup. Returns those that are no
    /// longer listed, and what stopped the rest.
    pub fn remove(&self, numbers: &[u64], _held: &Lock) -> (Vec<u64>, Result<()>) {
        let mut hidden = Vec::new();
        let mut renamed = Ok(());
        for &number in numbers {
            let from = self.dir.join(format!("{SET_PREFIX}{number}"));
            let to = self.dir.join(format!("{REMOVING_PREFIX}{number}"));
            renamed = fs::rename(&from, &to);
            if renamed.is_err() {
                break;
            }
            hidden.push((number, to));
        }
        let gone = hidden.iter().map(|(number, _)| *number).collect();
        let finish = || {
            if !hidden.is_empty() {
                fs::sync_dir(&self.dir)?;
            }
            hidden.iter().try_for_each(|(_, dir)| fs::remove_tree(dir))
        };
        (gone, finish().and(renamed))
    }

    /// Points `latest-backup` at a set, atomically and durably.
    pub fn point_latest(&self, number: u64) -> Result<()> {
        fs::swap_symlink(
            Path::new(&format!("{SET_PREFIX}{number}")),
            &self.dir.join(LATEST),
        )
    }
}

/// Whether a name is exactly one that a store gives to a backup that is being made or removed.
fn is_leftover(name: &str) -> bool {
    let number = name
        .strip_prefix(STAGING_PREFIX)
        .or_else(|| name.strip_prefix(REMOVING_PREFIX));
    // `.staging-012` and `.staging-area` are not ours.
    number.is_some_and(|digits| {
        digits
            .parse::<u64>()
            .is_ok_and(|number| number.to_string() == digits)
    })
}

fn is_flat(name: &str) -> bool {
    name.strip_prefix(FLAT_PREFIX).is_some_and(|random| {
        random.len() == 16
            && random
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// Whether a directory belongs to us and holds only plain files of ours. What cannot be read is not
/// provably ours.
fn holds_only(dir: &Path, held: &Lock, is_ours: &dyn Fn(&str) -> bool) -> bool {
    let owner = |path: &Path| path.symlink_metadata().ok().map(|meta| meta.uid());
    let own = rustix::process::geteuid().as_raw();
    // A share may give files to another user than the one who makes them, the lock among them.
    let is_own = owner(dir).is_some_and(|uid| uid == own || Some(uid) == owner(held.path()));
    is_own
        && std::fs::read_dir(dir).is_ok_and(|entries| {
            entries.into_iter().all(|entry| {
                entry.is_ok_and(|entry| {
                    let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
                    is_file && entry.file_name().to_str().is_some_and(is_ours)
                })
            })
        })
}

/// What is in a directory, sorted by name; names that are not UTF-8 are nothing of ours.
pub fn entries(dir: &Path) -> Result<Vec<StoreEntry>> {
    let doing = || format!("listing {}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).doing(Kind::Store, doing)? {
        let entry = entry.doing(Kind::Store, doing)?;
        let meta = match entry.metadata() {
            // Gone since the directory was listed: another run's leftover or temporary name.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.doing(Kind::Store, doing)?,
        };
        if let Ok(name) = entry.file_name().into_string() {
            found.push(StoreEntry {
                name,
                path: entry.path(),
                is_dir: meta.is_dir(),
                size: meta.len(),
                modified: meta.modified().ok().and_then(|time| time.try_into().ok()),
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// A backup in progress. If dropped without a commit, it removes what it can of itself; the next
/// run removes the rest.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
    armed: bool,
}

impl Staging {
    /// The private directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.armed {
            // The failure that led here is what the operator must see; the next run cleans up.
            let _ = fs::remove_tree(&self.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ours(name: &str) -> bool {
        ["backup.json", "x"].contains(&name)
    }

    #[test]
    fn what_vanishes_during_a_listing_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("backup-1")).unwrap();
        let vanishing: Vec<_> = (0..200)
            .map(|n| dir.path().join(format!("foreign-{n}")))
            .collect();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..5 {
                    vanishing
                        .iter()
                        .for_each(|path| std::fs::create_dir(path).unwrap());
                    vanishing
                        .iter()
                        .for_each(|path| std::fs::remove_dir(path).unwrap());
                }
                done.store(true, std::sync::atomic::Ordering::SeqCst);
            });
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let listed = entries(dir.path()).unwrap();
                assert!(listed.iter().any(|entry| entry.name == "backup-1"));
            }
        });
    }

    #[test]
    fn directories_of_others_are_never_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::at(dir.path());
        let lock = store.lock("test").unwrap();
        let there = |path: &str| dir.path().join(path);
        for (name, content) in [
            (".staging-area", "important/file"),
            (".removing-customer-data", "file"),
            (".staging-", "file"),
            (".staging-012", "backup.json"),
            (".staging-+1", "backup.json"),
            (".staging-18446744073709551616", "backup.json"),
            // The whole name, but not what we would put into it.
            (".staging-3", "site/index.html"),
            (".removing-4", "notes.txt"),
            (".staging-web", "x"),
            (".etcd-dr-staging-0123456789abcdeg", "x"),
            (".etcd-dr-staging-0123456789abcdef", "backup.json"),
        ] {
            let file = there(name).join(content);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, b"").unwrap();
        }
        std::os::unix::fs::symlink(there(".staging-area"), there(".staging-7")).unwrap();
        std::fs::create_dir(there(".staging-8")).unwrap();
        std::os::unix::fs::symlink("/", there(".staging-8/x")).unwrap();
        assert!(store.remove_leftovers(&lock, &is_ours).unwrap().is_empty());
        assert_eq!(
            store.remove_flat_leftovers(&lock, &is_ours).unwrap(),
            [there(".etcd-dr-staging-0123456789abcdef")]
        );
        // Ours: empty, or with files that a set has.
        std::fs::create_dir(there(".staging-5")).unwrap();
        std::fs::create_dir(there(".removing-6")).unwrap();
        std::fs::write(there(".removing-6/backup.json"), b"{}").unwrap();
        assert_eq!(
            store.remove_leftovers(&lock, &is_ours).unwrap(),
            [there(".removing-6"), there(".staging-5")]
        );
    }

    #[test]
    fn numbers_only_grow() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::at(dir.path().join("s"));
        store.ensure().unwrap();
        let lock = store.lock("test").unwrap();
        assert_eq!(store.next_number().unwrap(), 1);
        let staging = store.stage(1, &lock).unwrap();
        fs::write_new(&staging.dir().join("backup.json"), b"{}").unwrap();
        store.commit(staging, 1).unwrap();
        store.point_latest(1).unwrap();
        std::fs::create_dir(dir.path().join("s/backup-7.broken")).unwrap();
        assert_eq!(store.next_number().unwrap(), 8);
        std::fs::remove_dir(dir.path().join("s/backup-7.broken")).unwrap();
        std::fs::remove_dir_all(dir.path().join("s/backup-1")).unwrap();
        assert_eq!(store.next_number().unwrap(), 2, "the link still bears 1");
        // Names with unreachable numbers, as directories and in the link, are ignored.
        for odd in [u64::MAX, u64::MAX - 1, i64::MAX as u64, UNREACHABLE] {
            std::fs::create_dir(dir.path().join(format!("s/backup-{odd}"))).unwrap();
            std::fs::create_dir(dir.path().join(format!("s/.staging-{odd}"))).unwrap();
        }
        std::fs::create_dir(dir.path().join("s/backup-99999999999999999999")).unwrap();
        assert_eq!(store.next_number().unwrap(), 2);
        store.point_latest(u64::MAX).unwrap();
        assert_eq!(store.next_number().unwrap(), 1);
        std::fs::create_dir(dir.path().join("s/backup-5")).unwrap();
        assert_eq!(store.next_number().unwrap(), 6);
        let last = UNREACHABLE - 1;
        std::fs::create_dir(dir.path().join(format!("s/backup-{last}"))).unwrap();
        assert_eq!(store.next_number().unwrap(), UNREACHABLE + 1);
    }

    #[test]
    fn what_is_removed_is_hidden_first_and_its_number_is_not_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::at(dir.path());
        let lock = store.lock("test").unwrap();
        for number in 1..=3 {
            let staging = store.stage(number, &lock).unwrap();
            fs::write_new(&staging.dir().join("backup.json"), b"{}").unwrap();
            store.commit(staging, number).unwrap();
        }
        let (gone, done) = store.remove(&[1, 9, 2], &lock);
        assert_eq!(gone, [1]);
        assert_eq!(
            done.unwrap_err().io_kind(),
            Some(std::io::ErrorKind::NotFound)
        );
        assert_eq!(
            store
                .entries()
                .unwrap()
                .iter()
                .filter(|entry| entry.is_dir)
                .count(),
            2
        );
        std::fs::rename(dir.path().join("backup-3"), dir.path().join(".removing-3")).unwrap();
        assert_eq!(store.next_number().unwrap(), 4);
        assert_eq!(
            store.remove_leftovers(&lock, &is_ours).unwrap(),
            [dir.path().join(".removing-3")]
        );
    }

    #[test]
    fn a_dropped_staging_leaves_nothing_and_a_killed_one_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::at(dir.path());
        let lock = store.lock("test").unwrap();
        let staging = store.stage(3, &lock).unwrap();
        fs::write_new(&staging.dir().join("x"), b"x").unwrap();
        let path = staging.dir().to_owned();
        drop(staging);
        assert!(!path.exists());
        std::mem::forget(store.stage(4, &lock).unwrap());
        assert_eq!(store.next_number().unwrap(), 5);
        assert_eq!(
            store.remove_leftovers(&lock, &is_ours).unwrap(),
            vec![dir.path().join(".staging-4")]
        );
        assert!(store.remove_leftovers(&lock, &is_ours).unwrap().is_empty());
    }
}
