//! What a store holds: its own sets, what OpenShift's scripts made, and what is not ours.
//!
//! Nothing is guessed: a set of ours is bound together by its Manifest, a script-made pair by the
//! stamp that both names bear, and what fits neither is shown as it is and never touched.

mod look;
mod set;

use std::path::Path;

use jiff::Timestamp;

use crate::backup::names::{self, BackupId};
use crate::backup::newest::{self, Age};
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::store::local::{self, LocalStore, STAGING_PREFIX, StoreEntry};

use look::{bare, group, numbered, of_others, staging};
pub use set::{BackupSet, Distrust, Rehearsed, SetFiles, SetSignature, SetState, Shared, Verified};

/// Threads that look at the sets of a store.
const THREADS: usize = 4;
/// Sets that are not worth another thread.
const ALONE: usize = 32;

/// All sets of a store: ours by number, then what others made, by name.
pub fn list(store: &LocalStore) -> Result<Vec<BackupSet>> {
    let latest = store.latest();
    let entries = store.entries()?;
    let mut own = Vec::new();
    let mut others = Vec::new();
    for entry in entries.iter().filter(|entry| entry.is_dir) {
        match BackupId::parse(&entry.name) {
            Some(id) => own.push((id, entry)),
            None if entry.name.starts_with(STAGING_PREFIX) => others.push(staging(entry)),
            // One level is looked into, as OpenShift's scripts make a directory a backup.
            None if !entry.name.starts_with('.') => {
                others.extend(of_others(&entry.path, &entry.name)?)
            }
            None => {}
        }
    }
    own.sort_by_key(|(id, _)| *id);
    others.extend(group(store.dir(), "", &entries));
    let look = |(_, entry): &(BackupId, &StoreEntry)| {
        numbered(entry, latest.as_deref() == Some(&entry.name))
    };
    let mut sets = side_by_side(&own, look)?;
    sets.extend(others);
    Ok(sets)
}

/// Looks at many things with a few threads; few things need no other.
fn side_by_side<T: Sync, S: Send>(all: &[T], look: impl Fn(&T) -> S + Sync) -> Result<Vec<S>> {
    let each = all.len().div_ceil(THREADS).max(ALONE);
    if all.len() <= each {
        return Ok(all.iter().map(look).collect());
    }
    std::thread::scope(|scope| {
        let look = &look;
        let threads: Vec<_> = all
            .chunks(each)
            .map(|some| scope.spawn(move || some.iter().map(look).collect::<Vec<S>>()))
            .collect();
        let mut found = Vec::with_capacity(all.len());
        for thread in threads {
            let some = thread.join();
            let failed = |_| Failure::new(Kind::Unexpected, "a thread that reads backups failed");
            found.extend(some.map_err(failed)?);
        }
        Ok(found)
    })
}

/// The newest set of ours that is good and counts now.
pub fn newest_good(sets: &[BackupSet], now: Timestamp) -> Option<&BackupSet> {
    newest(sets, now, BackupSet::is_good)
}

/// The newest of those that count now.
pub fn newest(
    sets: &[BackupSet],
    now: Timestamp,
    counts: impl Fn(&BackupSet) -> bool,
) -> Option<&BackupSet> {
    let ages: Vec<Age<'_>> = sets.iter().map(BackupSet::age).collect();
    let ranked = sets.iter().zip(newest::ranks(&ages, now));
    let counting = ranked.filter_map(|(set, rank)| Some((rank?, set)));
    counting
        .filter(|(_, set)| counts(set))
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, set)| set)
}

/// Finds the one set that a word means: `latest`, a name of this store, a directory or a `.db`.
///
/// # Errors
/// [`Kind::Usage`] if nothing or more than one thing is meant, with [`Fact::Candidates`].
pub fn resolve(store: &LocalStore, word: &str) -> Result<BackupSet> {
    resolve_marked(store, word, |_| ())
}

/// The same, where something is noted of the store's sets before the latest good one is chosen.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_marked(
    store: &LocalStore,
    word: &str,
    mark: impl FnOnce(&mut [BackupSet]),
) -> Result<BackupSet> {
    let path = Path::new(word);
    let as_path = word.contains('/') || word.ends_with(".db") || word == "." || word == "..";
    if as_path && path.symlink_metadata().is_ok() {
        return resolve_path(path);
    }
    if let Some(pair) = pair_in(path)? {
        return Ok(pair);
    }
    let mut sets = if store.dir().is_dir() {
        list(store)?
    } else {
        Vec::new()
    };
    mark(&mut sets);
    if word == "latest" {
        return newest_good(&sets, Timestamp::now())
            .cloned()
            .ok_or_else(|| {
                candidates(
                    format!(
                        "finding the latest good backup in {}: there is no good backup",
                        store.dir().display()
                    ),
                    &sets,
                )
            });
    }
    let number = word
        .parse::<u64>()
        .ok()
        .map(|number| BackupId(number).to_string());
    let meant = |set: &&BackupSet| set.name == word || Some(&set.name) == number.as_ref();
    match sets.iter().filter(meant).collect::<Vec<_>>().as_slice() {
        [one] => Ok((*one).clone()),
        [] if path.symlink_metadata().is_ok() => resolve_path(path),
        [] => Err(candidates(
            format!(
                "finding backup {word:?} in {}: no backup has that name",
                store.dir().display()
            ),
            &sets,
        )),
        several => Err(Failure::new(
            Kind::Usage,
            format!("finding backup {word:?}: several backups have that name"),
        )
        .with(Fact::Candidates(
            several.iter().map(|set| set.name.clone()).collect(),
        ))),
    }
}

fn candidates(what: String, sets: &[BackupSet]) -> Failure {
    Failure::new(Kind::Usage, what).with(Fact::Candidates(
        sets.iter().map(|set| set.name.clone()).collect(),
    ))
}

/// One pair of a directory that holds several, as their candidates are named: `DIR/STAMP`.
fn pair_in(path: &Path) -> Result<Option<BackupSet>> {
    let (Some(dir), Some(stamp)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    if dir.as_os_str().is_empty() || !dir.is_dir() {
        return Ok(None);
    }
    let sets = group(dir, "", &local::entries(dir)?);
    let found = sets.into_iter().find(|set| stamp == set.name.as_str());
    Ok(found.map(|set| BackupSet {
        name: path.display().to_string(),
        ..set
    }))
}

/// A set given by its path: a directory of ours or of others, or one snapshot.
fn resolve_path(path: &Path) -> Result<BackupSet> {
    let full = path
        .canonicalize()
        .doing(Kind::Usage, || format!("opening {}", path.display()))?;
    let name = full
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    if !full.is_dir() {
        return Ok(bare(
            &full,
            path.display().to_string(),
            std::fs::metadata(&full).map_or(0, |meta| meta.len()),
        ));
    }
    if full.join(names::MANIFEST).exists() {
        let entry = StoreEntry {
            name,
            path: full,
            is_dir: true,
            size: 0,
            modified: None,
        };
        return Ok(BackupSet {
            name: path.display().to_string(),
            ..numbered(&entry, false)
        });
    }
    let mut sets = group(&full, "", &local::entries(&full)?);
    match sets.len() {
        1 => Ok(BackupSet {
            name: path.display().to_string(),
            ..sets.remove(0)
        }),
        0 => Err(Failure::new(
            Kind::Usage,
            format!(
                "finding a backup in {}: there is no snapshot there",
                path.display()
            ),
        )),
        _ => Err(Failure::new(
            Kind::Usage,
            format!(
                "finding the backup in {}: it contains several",
                path.display()
            ),
        )
        .with(Fact::Candidates(
            sets.iter()
                .map(|set| path.join(&set.name).display().to_string())
                .collect(),
        ))),
    }
}
