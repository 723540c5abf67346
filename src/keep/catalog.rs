//! What a store holds: its own sets, what OpenShift's scripts made, and what is not ours.
//!
//! Nothing is guessed: a set of ours is bound together by its Manifest, a script-made pair by the
//! stamp that both names bear, and what fits neither is shown as it is and never touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::manifest::{MAX_BYTES, QualityState};
use crate::backup::names::{self, BackupId, FileKind, Stamp};
use crate::backup::newest::{self, Age};
use crate::backup::{Manifest, names::recognise};
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::store::local::{self, LATEST, LocalStore, STAGING_PREFIX, StoreEntry};
pub use crate::sys::small::read as read_bounded;

/// Threads that look at the sets of a store.
const THREADS: usize = 4;
/// Sets that are not worth another thread.
const ALONE: usize = 32;

/// What kind of set it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetState {
    /// Ours, and every check held when it was taken.
    Good,
    /// Ours, and taken although a check failed.
    Dirty,
    /// In progress, interrupted, or with files missing.
    Incomplete,
    /// Made by another program.
    Foreign,
}

impl SetState {
    /// The word shown for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Dirty => "dirty",
            Self::Incomplete => "incomplete",
            Self::Foreign => "foreign",
        }
    }
}

/// When a set was last verified, and with what result; kept beside the Manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The schema version of this document.
    pub schema_version: u32,
    /// When.
    pub time: Timestamp,
    /// Whether nothing was found.
    pub good: bool,
    /// The version of the tool that looked.
    pub tool_version: String,
    /// The layers that were found broken.
    #[serde(default)]
    pub failed: Vec<String>,
}

/// The files of a set, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetFiles {
    /// The snapshot.
    pub snapshot: Option<PathBuf>,
    /// The archive of static-pod resources.
    pub resources: Option<PathBuf>,
    /// The archive of certificate directories.
    pub certificates: Option<PathBuf>,
}

/// A set as the catalog knows it.
#[derive(Debug, Clone)]
pub struct BackupSet {
    /// How it is called in this store.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// What kind it is.
    pub state: SetState,
    /// When it was taken: from the Manifest, or from a script-made stamp read as UTC.
    pub created: Option<Timestamp>,
    /// Bytes of its files.
    pub size: u64,
    /// Whether a script-made name carries the dirty suffix.
    pub marked_dirty: bool,
    /// Its Manifest, where it has a readable one.
    pub manifest: Option<Manifest>,
    /// Its files.
    pub files: SetFiles,
    /// Whether `latest-backup` points at it.
    pub latest: bool,
    /// What is wrong with it, in sentences.
    pub problems: Vec<String>,
    /// When it was last verified.
    pub verified: Option<Verified>,
    /// Whether it is pinned: no retention removes it.
    pub pinned: bool,
    /// Bytes of its snapshot that share their blocks with the set before.
    pub shared: Option<u64>,
}

/// How much of a snapshot shares its blocks with another's; kept beside the Manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shared {
    /// The schema version of this document.
    pub schema_version: u32,
    /// The set whose snapshot it is.
    pub with: String,
    /// Bytes.
    pub bytes: u64,
}

impl BackupSet {
    /// Whether this is a set of ours that is whole and good.
    pub fn is_good(&self) -> bool {
        self.state == SetState::Good
    }

    /// Whether its time is later than any right clock can say now: it counts for nothing until
    /// then.
    pub fn is_future(&self, now: Timestamp) -> bool {
        self.created.is_some_and(|at| newest::is_future(at, now))
    }

    /// Whether its record of a verification is of a time that has not come: it says nothing.
    pub fn is_verified_in_future(&self, now: Timestamp) -> bool {
        let verified = self.verified.as_ref();
        verified.is_some_and(|last| newest::is_future(last.time, now))
    }

    /// Its number, where it is ours; away from the node its name is the last part of a path.
    pub fn number(&self) -> Option<u64> {
        let last = self.name.rsplit('/').next()?;
        BackupId::parse(last).map(|id| id.0)
    }

    /// The number that a directory gave it when it was taken there: one that was brought from
    /// elsewhere has another in its Manifest, and a copy has a path for a name.
    pub fn sequence(&self) -> Option<u64> {
        let manifest = self.manifest.as_ref()?;
        (manifest.id == self.name).then(|| self.number()).flatten()
    }

    /// What tells its place in time.
    pub fn age(&self) -> Age<'_> {
        Age {
            created: self.created,
            origin: self.manifest.as_ref().map(Manifest::origin),
            sequence: self.sequence(),
            number: self.number().unwrap_or(0),
            name: &self.name,
        }
    }
}

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
            // One level is looked into, as the stock programs make a directory a backup.
            None if !entry.name.starts_with('.') => {
                others.extend(foreign(&entry.path, &entry.name)?)
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
/// [`Kind::Usage`] where nothing or more than one thing is meant, with [`Fact::Candidates`].
pub fn resolve(store: &LocalStore, word: &str) -> Result<BackupSet> {
    let path = Path::new(word);
    let as_path = word.contains('/') || word.ends_with(".db") || word == "." || word == "..";
    if as_path && path.symlink_metadata().is_ok() {
        return resolve_path(path);
    }
    if let Some(pair) = pair_in(path)? {
        return Ok(pair);
    }
    let sets = if store.dir().is_dir() {
        list(store)?
    } else {
        Vec::new()
    };
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

/// A directory called `backup-N`.
fn numbered(entry: &StoreEntry, latest: bool) -> BackupSet {
    let mut set = BackupSet {
        name: entry.name.clone(),
        dir: entry.path.clone(),
        state: SetState::Incomplete,
        created: None,
        size: 0,
        marked_dirty: false,
        manifest: None,
        files: SetFiles::default(),
        latest,
        problems: Vec::new(),
        verified: None,
        pinned: false,
        shared: None,
    };
    // Whatever lies under that name, the operator's wish holds.
    set.pinned = entry.path.join(names::PINNED).symlink_metadata().is_ok();
    let path = entry.path.join(names::MANIFEST);
    match read_manifest(&path) {
        Ok(Some(manifest)) => adopt(&mut set, manifest),
        Ok(None) => return without_manifest(entry, set),
        Err(failure) => {
            set.problems.push(failure.to_string());
            // Its files can still be read by their names.
            if let Ok([found]) = <[BackupSet; 1]>::try_from(files_of(entry)) {
                (set.files, set.size) = (found.files, found.size);
            }
        }
    }
    let shared = read_bounded(&entry.path.join(names::SHARED), MAX_BYTES).ok();
    // It tells of a saving: what cannot be read tells of none.
    set.shared = shared
        .flatten()
        .and_then(|bytes| serde_json::from_slice::<Shared>(&bytes).ok())
        .map(|shared| shared.bytes);
    match read_verified(&entry.path.join(names::VERIFIED)) {
        Ok(verified) => set.verified = verified,
        Err(failure) => set.problems.push(failure.to_string()),
    }
    set
}

/// Takes over what a Manifest says, and holds it against the files' presence and sizes.
fn adopt(set: &mut BackupSet, manifest: Manifest) {
    for file in &manifest.files {
        let path = set.dir.join(&file.name);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if !meta.is_file() => set
                .problems
                .push(format!("{} is not a plain file", file.name)),
            Ok(meta) if meta.len() != file.size => {
                set.problems.push(format!(
                    "{} has {} bytes, but the Manifest says {}",
                    file.name,
                    meta.len(),
                    file.size
                ));
            }
            Ok(_) => {}
            Err(e) => set.problems.push(format!("{}: {e}", file.name)),
        }
        match file.kind {
            FileKind::Snapshot => set.files.snapshot = Some(path),
            FileKind::Resources => set.files.resources = Some(path),
            FileKind::Certificates => set.files.certificates = Some(path),
            FileKind::Environment | FileKind::Sums => {}
        }
    }
    set.size = manifest.total_size();
    set.created = Some(manifest.created);
    set.state = match (set.problems.is_empty(), manifest.quality.state) {
        (false, _) => SetState::Incomplete,
        (true, QualityState::Good) => SetState::Good,
        (true, QualityState::Dirty) => SetState::Dirty,
    };
    set.manifest = Some(manifest);
}

/// The files of a directory, by their names alone.
fn files_of(entry: &StoreEntry) -> Vec<BackupSet> {
    local::entries(&entry.path)
        .map(|inside| group(&entry.path, "", &inside))
        .unwrap_or_default()
}

/// `backup-N` with no Manifest: a script's pair, or what is left of a set.
fn without_manifest(entry: &StoreEntry, mut set: BackupSet) -> BackupSet {
    match <[BackupSet; 1]>::try_from(files_of(entry)) {
        Ok([pair]) if pair.files.resources.is_some() && pair.files.snapshot.is_some() => {
            BackupSet {
                name: set.name,
                latest: set.latest,
                pinned: set.pinned,
                ..pair
            }
        }
        _ => {
            set.problems.push(format!("it has no {}", names::MANIFEST));
            set
        }
    }
}

fn staging(entry: &StoreEntry) -> BackupSet {
    BackupSet {
        name: entry.name.clone(),
        dir: entry.path.clone(),
        state: SetState::Incomplete,
        created: None,
        size: local::entries(&entry.path)
            .map_or(0, |files| files.iter().map(|file| file.size).sum()),
        marked_dirty: false,
        manifest: None,
        files: SetFiles::default(),
        latest: false,
        problems: vec![
            "it is being taken, or was interrupted; the next backup removes it".to_owned(),
        ],
        verified: None,
        pinned: false,
        shared: None,
    }
}

/// What other programs left in a directory of the store.
fn foreign(dir: &Path, name: &str) -> Result<Vec<BackupSet>> {
    let inside = match local::entries(dir) {
        Ok(inside) => inside,
        Err(failure) if failure.io_kind() == Some(std::io::ErrorKind::PermissionDenied) => {
            return Ok(Vec::new());
        }
        Err(failure) => return Err(failure),
    };
    let mut sets = group(dir, name, &inside);
    if let [one] = sets.as_mut_slice() {
        one.name = name.to_owned();
    }
    Ok(sets)
}

/// Pairs the files of one directory by their stamp.
fn group(dir: &Path, prefix: &str, entries: &[StoreEntry]) -> Vec<BackupSet> {
    let mut pairs: BTreeMap<Stamp, Vec<(FileKind, &StoreEntry)>> = BTreeMap::new();
    let mut sets = Vec::new();
    let named = |name: &str| {
        if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}/{name}")
        }
    };
    for entry in entries
        .iter()
        .filter(|entry| !entry.is_dir && entry.name != LATEST)
    {
        match recognise(&entry.name) {
            Some((kind, stamp)) => pairs.entry(stamp).or_default().push((kind, entry)),
            None if entry.name.ends_with(".db") && !entry.name.starts_with('.') => {
                sets.push(bare(&entry.path, named(&entry.name), entry.size));
            }
            None => {}
        }
    }
    for (stamp, files) in pairs {
        let mut set = BackupSet {
            name: named(&stamp.to_string()),
            dir: dir.to_owned(),
            state: SetState::Foreign,
            created: stamp.as_utc(),
            size: files.iter().map(|(_, entry)| entry.size).sum(),
            marked_dirty: stamp.is_dirty(),
            manifest: None,
            files: SetFiles::default(),
            latest: false,
            problems: Vec::new(),
            verified: None,
            pinned: false,
            shared: None,
        };
        for (kind, entry) in files {
            let place = match kind {
                FileKind::Snapshot => &mut set.files.snapshot,
                FileKind::Resources => &mut set.files.resources,
                _ => &mut set.files.certificates,
            };
            *place = Some(entry.path.clone());
        }
        if set.files.snapshot.is_none() {
            set.state = SetState::Incomplete;
            set.problems
                .push(format!("{} is missing", stamp.snapshot()));
        } else if set.files.resources.is_none() {
            set.problems
                .push(format!("{} is missing", stamp.resources()));
        }
        sets.push(set);
    }
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    sets
}

/// A snapshot by itself.
fn bare(path: &Path, name: String, size: u64) -> BackupSet {
    BackupSet {
        name,
        dir: path.parent().unwrap_or(Path::new(".")).to_owned(),
        state: SetState::Foreign,
        created: None,
        size,
        marked_dirty: false,
        manifest: None,
        files: SetFiles {
            snapshot: Some(path.to_owned()),
            ..SetFiles::default()
        },
        latest: false,
        problems: Vec::new(),
        verified: None,
        pinned: false,
        shared: None,
    }
}

fn read_manifest(path: &Path) -> Result<Option<Manifest>> {
    match read_bounded(path, MAX_BYTES)? {
        Some(bytes) => Manifest::from_bytes(&bytes, path).map(Some),
        None => Ok(None),
    }
}

fn read_verified(path: &Path) -> Result<Option<Verified>> {
    match read_bounded(path, MAX_BYTES)? {
        Some(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .doing(Kind::BadBackup, || format!("reading {}", path.display())),
        None => Ok(None),
    }
}
