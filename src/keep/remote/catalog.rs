//! What a store away from the node holds: one listing, and a few small reads a set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::folder::or_unfitting;
pub(super) use super::folder::{Folder, document, read, signature, unless_bad};
use super::index::{Claim, Index, MAX_BYTES};
use super::kept::{self, Catalogs, Documents, Found};
use super::place::{self, INDEX, Place, is_claim};
use super::recordings::{self, Recordings};
use crate::backup::manifest::{self, QualityState};
use crate::backup::names::{BackupId, FileKind};
use crate::backup::{Manifest, foreign, names, newest, signature};
use crate::error::{Fact, Failure, Kind, Result};
use crate::keep::catalog;
use crate::keep::catalog::{BackupSet, Rehearsed, SetSignature, SetState, Verified};
use crate::keep::chain::record;
use crate::keep::trust::Trust;
use crate::store::objects::{Listed, Store};
use crate::sys::digest::sha256_hex;

/// Sets that are read of at a time.
const AT_A_TIME: usize = 16;
/// The word for the newest good one of a place.
const LATEST: &str = "latest";

/// Sorts a listing into the folders of sets; what is not one of them is left out.
pub(super) fn folders(listed: Vec<Listed>) -> BTreeMap<String, Folder> {
    let mut folders: BTreeMap<String, Folder> = BTreeMap::new();
    for object in listed {
        if let Some((folder, name)) = object.name.rsplit_once('/')
            && Place::split(folder).is_some()
        {
            let folder = folders.entry(folder.to_owned()).or_default();
            folder.insert(name.to_owned(), object.size);
        }
    }
    folders
}

/// When objects of a folder came, by the store's clock.
#[derive(Debug, Clone, Copy, Default)]
struct Arrival {
    last: Option<Timestamp>,
    manifest: Option<Timestamp>,
}

/// The arrivals of each folder.
fn arrivals(listed: &[Listed]) -> BTreeMap<String, Arrival> {
    let mut folders: BTreeMap<String, Arrival> = BTreeMap::new();
    for object in listed {
        if let (Some((folder, name)), Some(at)) = (object.name.rsplit_once('/'), object.modified) {
            let folder = folders.entry(folder.to_owned()).or_default();
            folder.last = folder.last.max(Some(at));
            if name == names::MANIFEST {
                folder.manifest = Some(at);
            }
        }
    }
    folders
}

/// Every set below a folder of a store (`""`: all of it): by place, and there by number. One that
/// cannot be read is one set with a problem, and nothing is known of when it was taken, so that no
/// retention removes it.
///
/// # Errors
/// If the store as such cannot be listed.
pub async fn list(store: &dyn Store, below: &str) -> Result<Vec<BackupSet>> {
    Ok(listing(store, below).await?.sets)
}

/// What a store holds below a folder.
pub(super) struct Listing {
    /// Every set, as [`list`] has them.
    pub(super) sets: Vec<BackupSet>,
    /// The names of the records of what was pruned.
    pub(super) records: Vec<String>,
    /// The recorded changes, by the folder of their node.
    pub(super) recordings: BTreeMap<Place, Recordings>,
}

/// Every set below a folder of a store, and the recorded changes, by the folder of their node.
///
/// # Errors
/// As [`list`].
pub async fn list_recorded(
    store: &dyn Store,
    below: &str,
) -> Result<(Vec<BackupSet>, BTreeMap<String, Recordings>)> {
    let listing = listing(store, below).await?;
    let recordings = listing.recordings.into_iter();
    let recordings = recordings.map(|(place, found)| (place.to_string(), found));
    Ok((listing.sets, recordings.collect()))
}

/// The same with what is beside the sets.
///
/// # Errors
/// As [`list`].
pub(super) async fn listing(store: &dyn Store, below: &str) -> Result<Listing> {
    let found = store.list(below).await?;
    let arrived = arrivals(&found);
    let names = found.iter().map(|object| object.name.clone());
    let is_record = |name: &String| {
        let last = name.rsplit_once('/');
        last.is_some_and(|(place, last)| record::is_record(last) && place.split('/').count() == 2)
    };
    let records: Vec<String> = names.filter(is_record).collect();
    let recordings = recordings::among(&found, Timestamp::now());
    let others = foreign_of(store, &found);
    let catalogs = Catalogs::read(store, &found, AT_A_TIME).await?;
    let (facts, folders) = (kept::facts(&found), folders(found));
    let reads = futures_util::stream::iter(&folders).map(|(name, folder)| {
        let arrived = arrived.get(name).copied().unwrap_or_default();
        let known = catalogs.documents(name, folder, facts.get(name));
        async move {
            match looked_at(store, (name, folder), arrived, known).await {
                // Whether it is the object or the store that failed, another listing tells.
                Err(failure) if store.list(name).await.is_ok() => {
                    Ok((unread(store, name, folder, failure.to_string()), None))
                }
                other => other,
            }
        }
    });
    let read: Vec<(BackupSet, Option<Found>)> = reads.buffered(AT_A_TIME).try_collect().await?;
    let (mut sets, documents): (Vec<BackupSet>, Vec<Option<Found>>) = read.into_iter().unzip();
    let documents = documents.into_iter().flatten().collect();
    catalogs.renew(store, documents, &folders, &facts).await;
    sets.sort_by_cached_key(|set| Place::split(&set.name));
    sets.extend(others);
    Ok(Listing {
        sets,
        records,
        recordings,
    })
}

/// The one set that a name means: `<cluster>/<node>/backup-N`, or `latest` in the last place: the newest
/// good one whose signature counts.
///
/// # Errors
/// The refusals of [`Trust::check`]; [`Kind::Usage`] with [`Fact::Candidates`] if it does not
/// exist.
pub async fn resolve(store: &dyn Store, name: &str, trust: &Trust) -> Result<BackupSet> {
    let place = name.rsplit_once('/').map_or("", |(place, _)| place);
    if Place::split(name).is_some() {
        let listed = store.list(name).await?;
        let arrived = arrivals(&listed).get(name).copied().unwrap_or_default();
        if let Some(folder) = folders(listed).remove(name) {
            let set = set(&Small::new(store, name, None), &folder, arrived).await?;
            trust.check_set(&set)?;
            return Ok(set);
        }
    }
    let mut sets = list(store, place).await?;
    trust.mark(&mut sets);
    let foreign = |set: &&BackupSet| set.state == SetState::Foreign && set.name == name;
    if let Some(set) = sets.iter().find(foreign) {
        trust.check_set(set)?;
        return Ok(set.clone());
    }
    if name.ends_with(&format!("/{LATEST}"))
        && let Some(newest) = catalog::newest_good(&sets, Timestamp::now())
    {
        return Ok(newest.clone());
    }
    let what = format!(
        "finding {name} in {}: there is no such backup; the URL of one ends in CLUSTER/NODE/backup-N \
         or CLUSTER/NODE/latest",
        store.url()
    );
    Err(Failure::new(Kind::Usage, what).with(Fact::Candidates(
        sets.into_iter().map(|set| set.name).collect(),
    )))
}

/// How a node's copies stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes of all of them.
    pub size: u64,
    /// When the newest good one that counts now was taken.
    pub newest: Option<Timestamp>,
}

/// Looks at the copies of one node, given the Manifest of one of its sets.
///
/// # Errors
/// Those of the store.
pub async fn look(store: &dyn Store, manifest: &Manifest) -> Result<Seen> {
    let sets = list(store, &Place::of(manifest).to_string()).await?;
    let sizes = sets.iter().map(|set| set.size);
    Ok(Seen {
        size: sizes.fold(0, u64::saturating_add),
        newest: catalog::newest_good(&sets, Timestamp::now()).and_then(|set| set.created),
    })
}

/// The snapshots of other programs among some objects.
pub fn foreign_of(store: &dyn Store, objects: &[Listed]) -> Vec<BackupSet> {
    let of_others = |object| of_others(store, object);
    objects.iter().filter_map(of_others).collect()
}

/// A snapshot of another program.
fn of_others(store: &dyn Store, object: &Listed) -> Option<BackupSet> {
    let (folder, last) = object.name.rsplit_once('/').unwrap_or(("", &object.name));
    // Of a folder that is called as ours are nothing is another program's.
    let own = folder.rsplit('/').next().and_then(BackupId::parse);
    if own.is_some() {
        return None;
    }
    let stamped = names::recognise(last).filter(|(kind, _)| *kind == FileKind::Snapshot);
    let named = foreign::recognise(last);
    if stamped.is_none() && named.is_none() {
        return None;
    }
    let created = named.and_then(|found| found.created);
    let mut set = listed(store, &object.name, &Folder::new());
    set.state = SetState::Foreign;
    set.size = object.size;
    set.created = created.or_else(|| stamped.and_then(|(_, stamp)| stamp.as_utc()));
    set.arrived = object.modified;
    Some(set)
}

/// A folder of which nothing is known but what it lists, and why.
fn unread(store: &dyn Store, name: &str, folder: &Folder, problem: String) -> BackupSet {
    let mut set = listed(store, name, folder);
    set.problems.push(problem);
    set
}

/// A folder as the listing shows it.
fn listed(store: &dyn Store, name: &str, folder: &Folder) -> BackupSet {
    let dir = PathBuf::from(format!("{}/{name}", store.url()));
    BackupSet {
        size: folder
            .values()
            .fold(0u64, |sum, size| sum.saturating_add(*size)),
        pinned: folder.contains_key(names::PINNED),
        ..BackupSet::at(name.to_owned(), &dir, SetState::Incomplete)
    }
}

/// What one folder holds, out of a catalog's documents if these make a whole set, and else out of the store;
/// and what is to be in the catalog of it.
///
/// # Errors
/// As [`set`].
async fn looked_at(
    store: &dyn Store,
    (name, folder): (&str, &Folder),
    arrived: Arrival,
    known: Option<&Documents>,
) -> Result<(BackupSet, Option<Found>)> {
    if let Some(known) = known {
        let small = Small::new(store, name, Some(known));
        let set = set(&small, folder, arrived).await?;
        if is_sound(&set) {
            return Ok((set, Some(small.found())));
        }
    }
    let small = Small::new(store, name, None);
    let set = set(&small, folder, arrived).await?;
    let found = is_sound(&set).then(|| small.found());
    Ok((set, found))
}

/// Whether a set is whole, with a signature that fits if it has one: only this is believed of a catalog.
fn is_sound(set: &BackupSet) -> bool {
    let whole = matches!(set.state, SetState::Good | SetState::Dirty);
    whole && set.problems.is_empty() && !matches!(set.signature, SetSignature::Bad(_))
}

/// What one folder holds.
///
/// # Errors
/// [`Kind::Store`] if an object of it cannot be read. One that is read and is not what it should
/// be is a problem of the set.
async fn set(small: &Small<'_>, folder: &Folder, arrived: Arrival) -> Result<BackupSet> {
    let mut set = listed(small.store, small.folder, folder);
    if !folder.contains_key(names::MANIFEST) {
        set.problems
            .push("its transfer is in progress, or was interrupted".to_owned());
        let claim = match folder.keys().find(|object| is_claim(object)) {
            Some(object) => small.document::<Claim>(object).await?,
            None => None,
        };
        set.created = last_grown(
            claim.map(|claim| claim.begun),
            arrived.last,
            Timestamp::now(),
        );
        return Ok(set);
    }
    set.arrived = arrived.manifest;
    match whole_of(small, folder).await? {
        Ok(whole) => {
            let signature = match folder.contains_key(names::SIGNATURE) {
                true => small.signature(names::SIGNATURE).await?,
                false => None,
            };
            set.signed(&whole.bytes, signature.as_deref());
            adopt(&mut set, whole.manifest);
        }
        Err((manifest, problem)) => {
            set.problems.push(problem);
            set.created = manifest.as_ref().map(|manifest| manifest.created);
            set.manifest = manifest;
        }
    }
    let time = |verified: &Verified| verified.time;
    set.verified = last_record(small, folder, names::VERIFIED, time).await?;
    let time = |rehearsed: &Rehearsed| rehearsed.time;
    set.rehearsed = last_record(small, folder, names::REHEARSED, time).await?;
    Ok(set)
}

/// The later of a record beside the set and of the newest one that could not replace it. What cannot be read
/// says nothing; the set is what it is.
async fn last_record<T: DeserializeOwned>(
    small: &Small<'_>,
    folder: &Folder,
    record: &str,
    time: impl Fn(&T) -> Timestamp,
) -> Result<Option<T>> {
    let first = match folder.contains_key(record) {
        true => small.document::<T>(record).await?,
        false => None,
    };
    let later = match place::last_of(record, folder.keys()) {
        Some(later) => small.document::<T>(later).await?,
        None => None,
    };
    let time = |record: &Option<T>| record.as_ref().map(&time);
    Ok(match time(&later) > time(&first) {
        true => later,
        false => first,
    })
}

/// When a transfer that has not ended last brought something: by the clock of whoever sends it and
/// by the store's, of which either may be wrong. What is in the future is believed only where there
/// is nothing else.
fn last_grown(
    begun: Option<Timestamp>,
    arrived: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let told = [begun, arrived].into_iter().flatten();
    let past = told.clone().filter(|at| !newest::is_future(*at, now)).max();
    past.or_else(|| told.min())
}

fn adopt(set: &mut BackupSet, manifest: Manifest) {
    set.created = Some(manifest.created);
    set.state = match manifest.quality.state {
        QualityState::Good => SetState::Good,
        QualityState::Dirty => SetState::Dirty,
    };
    set.manifest = Some(manifest);
}

/// The Manifest and the index of a folder, and the bytes that they were read from.
pub(super) struct Whole {
    pub(super) manifest: Manifest,
    pub(super) bytes: Vec<u8>,
    pub(super) index: Index,
    pub(super) index_bytes: Vec<u8>,
}

/// The two, or what is wrong with them.
type Read = std::result::Result<Whole, (Option<Manifest>, String)>;

/// Reads Manifest and index, and holds the listing against them.
pub(super) async fn whole(store: &dyn Store, name: &str, folder: &Folder) -> Result<Read> {
    whole_of(&Small::new(store, name, None), folder).await
}

async fn whole_of(small: &Small<'_>, folder: &Folder) -> Result<Read> {
    let path = format!("{}/{}/{}", small.store.url(), small.folder, names::MANIFEST);
    let bytes = match small.read(names::MANIFEST, manifest::MAX_BYTES).await {
        Err(failure) if failure.kind() == Kind::BadBackup => {
            return Ok(Err((None, failure.to_string())));
        }
        bytes => bytes?.unwrap_or_default(),
    };
    let manifest = match Manifest::from_bytes(&bytes, Path::new(&path)) {
        Ok(manifest) => manifest,
        Err(failure) => return Ok(Err((None, failure.to_string()))),
    };
    let index = match small.read(INDEX, MAX_BYTES).await {
        Ok(Some(index)) => {
            let parsed = Index::parse(&index, &manifest, &sha256_hex(&bytes));
            parsed.map(|parsed| (parsed, index))
        }
        Ok(None) => return Ok(Err((Some(manifest), format!("it has no {INDEX}")))),
        Err(failure) if failure.kind() == Kind::BadBackup => Err(failure),
        Err(failure) => return Err(failure),
    };
    let (index, index_bytes) = match index {
        Ok(read) => read,
        Err(failure) => return Ok(Err((Some(manifest), failure.to_string()))),
    };
    for entry in &index.objects {
        let there = folder.get(&entry.object);
        if there != Some(&entry.size) {
            let found = there.map_or("none".to_owned(), |size| format!("{size} bytes"));
            let problem = format!(
                "{}: expected {} bytes, found {found}",
                entry.object, entry.size
            );
            return Ok(Err((Some(manifest), problem)));
        }
    }
    Ok(Ok(Whole {
        manifest,
        bytes,
        index,
        index_bytes,
    }))
}

/// The small objects of one folder: out of a catalog as far as it has them, else read from the store.
struct Small<'a> {
    store: &'a dyn Store,
    folder: &'a str,
    known: Option<&'a Documents>,
    /// All that was read so far, as far as it is text.
    read: Mutex<Documents>,
}

impl<'a> Small<'a> {
    fn new(store: &'a dyn Store, folder: &'a str, known: Option<&'a Documents>) -> Self {
        Self {
            store,
            folder,
            known,
            read: Mutex::default(),
        }
    }

    async fn read(&self, object: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let known = self.known.and_then(|known| known.get(object));
        let known = known.filter(|text| text.len() as u64 <= most);
        let bytes = match known {
            Some(text) => Some(text.clone().into_bytes()),
            None => read(self.store, self.folder, object, most).await?,
        };
        if let Some(Ok(text)) = bytes.clone().map(String::from_utf8) {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.insert(object.to_owned(), text);
        }
        Ok(bytes)
    }

    async fn document<T: DeserializeOwned>(&self, object: &str) -> Result<Option<T>> {
        let bytes = unless_bad(self.read(object, MAX_BYTES).await)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    async fn signature(&self, object: &str) -> Result<Option<Vec<u8>>> {
        or_unfitting(self.read(object, signature::MAX_BYTES).await)
    }

    /// What is to be in a catalog.
    fn found(self) -> Found {
        let documents = self.read.into_inner();
        let documents = documents.unwrap_or_else(PoisonError::into_inner);
        // A later version's catalog may have more than this one reads.
        let of = |known: &Documents| {
            documents
                .iter()
                .all(|(name, text)| known.get(name) == Some(text))
        };
        Found {
            name: self.folder.to_owned(),
            served: self.known.is_some_and(of),
            documents,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_as_old_as_the_clock_says_that_is_not_ahead() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let now = Timestamp::from_second(1_000_000).unwrap();
        // A day behind, a day ahead, both, and a store that says nothing.
        assert_eq!(last_grown(at(900_000), at(999_999), now), at(999_999));
        assert_eq!(last_grown(at(1_086_400), at(100_000), now), at(100_000));
        assert_eq!(last_grown(at(999_000), at(1_086_400), now), at(999_000));
        assert_eq!(last_grown(at(1_200_000), at(1_086_400), now), at(1_086_400));
        assert_eq!(last_grown(at(7), None, now), at(7));
        assert_eq!(last_grown(None, None, now), None);
    }
}
