//! The catalog of a node's folder: the small objects of all its sets in one, so that a listing of a thousand
//! sets reads one object instead of two thousand.
//!
//! ```text
//! <cluster>/<node>/catalog-00000000.json.zst    {"schemaVersion": 1, "sets": {"backup-12": {…}, …}}
//! ```
//!
//! It is a cache, written by whoever lists and may write, and untrusted like everything in a store. What it
//! says of a set is believed only where the store's own listing bears it out:
//!
//! - the listing of the set's folder (names, sizes, ETags, times) is the one that the entry was made from, and
//!   where the store has no ETags it is older than the catalog by more than file times can hide;
//! - every document is as long as its object;
//! - the Manifest's SHA-256 is the one that the name of the folder's only claim begins with;
//! - for every file of the Manifest the listing has an object;
//! - the outcome is a whole set whose signature, if it has one, fits the Manifest. Bad news is never
//!   believed: the store is asked.
//!
//! So a false catalog costs reads and changes no answer. What remains is the result of a verification,
//! which anybody who may write there can put beside a set anyway.

use std::collections::BTreeMap;
use std::io::Read;

use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::folder::{Folder, read, unless_bad};
use super::index::SCHEMA_VERSION;
use super::place::{self, DONE, Place, is_claim};
use crate::backup::Manifest;
use crate::backup::names::MANIFEST;
use crate::error::{Doing, Kind, Result};
use crate::store::objects::{self, Listed, Store};
use crate::sys::digest::sha256_hex;

/// What the names begin and end with; eight digits stand between.
const NAME: (&str, &str) = ("catalog-", ".json.zst");
/// Digits of a generation.
const DIGITS: usize = 8;
/// The largest catalog that is read, as stored: some eight thousand sets.
const MAX_STORED: u64 = 8 << 20;
/// The same unpacked.
const MAX_BYTES: u64 = 64 << 20;
/// How hard zstd tries: documents of one node are much alike.
const LEVEL: i32 = 3;
/// Fewer sets than this are read one by one.
const LEAST: usize = 4;
/// A catalog is written again once one set of so many is not served by it, so that what is written in all
/// grows with the sets, and not with their square.
const OUTDATED: usize = 32;
/// The same where the store keeps what is replaced: each catalog stays.
const OUTDATED_KEPT: usize = 4;
/// How much older than the catalog an object must be where no ETag tells that it was replaced: file times
/// are whole seconds in SFTP, and two of them on FAT.
const RACY: SignedDuration = SignedDuration::from_secs(2);

/// The small objects of one set, by name.
pub(super) type Documents = BTreeMap<String, String>;

/// What one set's folder lists, in short.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    hash: Sha256,
    /// The newest time of an object that has no ETag.
    newest: Option<Timestamp>,
    /// Whether there is an object whose change would not show: it has neither.
    blind: bool,
}

impl Facts {
    fn add(&mut self, name: &str, object: &Listed) {
        let etag = object.etag.as_deref().unwrap_or_default();
        let modified = object.modified.map(|at| at.to_string());
        // The ETag is quoted, so that none can look like the fields behind it.
        let line = format!(
            "{name} {} {etag:?} {}\n",
            object.size,
            modified.as_deref().unwrap_or_default()
        );
        self.hash.update(line);
        if etag.is_empty() {
            self.blind |= object.modified.is_none();
            self.newest = self.newest.max(object.modified);
        }
    }

    fn digest(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    /// Whether no object of the folder can have been replaced since a catalog was written without that
    /// showing.
    fn is_settled(&self, catalog: Option<Timestamp>) -> bool {
        !self.blind
            && self.newest.is_none_or(|newest| {
                catalog.is_some_and(|catalog| catalog.duration_since(newest) >= RACY)
            })
    }
}

/// The facts of each folder of a listing.
pub(super) fn facts(listed: &[Listed]) -> BTreeMap<String, Facts> {
    let mut folders: BTreeMap<String, Facts> = BTreeMap::new();
    for object in listed {
        if let Some((folder, name)) = object.name.rsplit_once('/')
            && Place::split(folder).is_some()
        {
            folders
                .entry(folder.to_owned())
                .or_default()
                .add(name, object);
        }
    }
    folders
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    sets: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// SHA-256 of what the folder listed, hex.
    listing: String,
    documents: Documents,
}

/// The catalogs of the places of a listing, as far as they can be read.
#[derive(Debug, Default)]
pub(super) struct Catalogs(BTreeMap<String, Catalog>);

/// That of one place.
#[derive(Debug)]
struct Catalog {
    /// Its object's whole name.
    name: String,
    modified: Option<Timestamp>,
    sets: BTreeMap<String, Entry>,
}

impl Catalogs {
    /// Reads the newest of each place; what cannot be read as one holds nothing.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn read(
        store: &dyn Store,
        listed: &[Listed],
        at_a_time: usize,
    ) -> Result<Self> {
        let mut newest: BTreeMap<&str, &Listed> = BTreeMap::new();
        for object in listed {
            let Some((place, last)) = object.name.rsplit_once('/') else {
                continue;
            };
            if place.split('/').count() != 2 || generation(last).is_none() {
                continue;
            }
            let known = newest.entry(place).or_insert(object);
            if (known.modified, &known.name) < (object.modified, &object.name) {
                *known = object;
            }
        }
        let reads = futures_util::stream::iter(newest).map(|(place, object)| async move {
            let last = object.name.rsplit('/').next().unwrap_or_default();
            let bytes = unless_bad(read(store, place, last, MAX_STORED).await)?;
            let catalog = Catalog {
                name: object.name.clone(),
                modified: object.modified,
                sets: bytes.and_then(|bytes| parse(&bytes)).unwrap_or_default(),
            };
            Ok((place.to_owned(), catalog))
        });
        let read: Vec<Result<(String, Catalog)>> = reads.buffered(at_a_time).collect().await;
        Ok(Self(read.into_iter().collect::<Result<_>>()?))
    }

    /// The documents of a set, where the listing bears them out.
    pub(super) fn documents(
        &self,
        name: &str,
        folder: &Folder,
        facts: Option<&Facts>,
    ) -> Option<&Documents> {
        let (place, last) = name.rsplit_once('/')?;
        let catalog = self.0.get(place)?;
        let entry = catalog.sets.get(last)?;
        let facts = facts?;
        let same = facts.digest() == entry.listing && facts.is_settled(catalog.modified);
        (same && fits(&entry.documents, folder)).then_some(&entry.documents)
    }
}

/// Reads a catalog. What is no such thing is as good as none.
fn parse(bytes: &[u8]) -> Option<BTreeMap<String, Entry>> {
    let mut text = Vec::new();
    let unpacked = zstd::Decoder::with_buffer(bytes).ok()?;
    unpacked.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    unpacked_sets(&text)
}

fn unpacked_sets(text: &[u8]) -> Option<BTreeMap<String, Entry>> {
    let document: Document = serde_json::from_slice(text).ok()?;
    (document.schema_version == SCHEMA_VERSION).then_some(document.sets)
}

/// Reads any bytes as a catalog, packed and unpacked.
#[cfg(feature = "fuzzing")]
pub fn fuzzed(data: &[u8]) {
    for sets in [parse(data), unpacked_sets(data)].into_iter().flatten() {
        for entry in sets.values() {
            fits(&entry.documents, &Folder::new());
        }
    }
}

/// Whether documents can be those of a folder: by their lengths, by the name of its only claim, and by the
/// files that the Manifest names.
fn fits(documents: &Documents, folder: &Folder) -> bool {
    let as_long =
        |(name, text): (&String, &String)| folder.get(name).copied() == Some(text.len() as u64);
    let Some(bytes) = documents.get(MANIFEST) else {
        return false;
    };
    let mut claims = folder.keys().filter(|object| is_claim(object));
    let claim = place::claim(&sha256_hex(bytes.as_bytes()));
    let claimed = claims.next() == Some(&claim) && claims.next().is_none();
    claimed && documents.iter().all(as_long) && has_files(bytes, folder)
}

/// Whether a folder has an object for each file of a Manifest: the file itself, or what it became.
fn has_files(manifest: &str, folder: &Folder) -> bool {
    let read = Manifest::from_bytes(manifest.as_bytes(), std::path::Path::new(MANIFEST));
    let Ok(manifest) = read else { return false };
    manifest.files.iter().all(|file| {
        let start = format!("{}.", file.name);
        let mut changed = folder
            .range(start.clone()..)
            .map(|(name, _)| name)
            .take_while(|name| name.starts_with(&start));
        folder.get(&file.name) == Some(&file.size) || changed.any(|name| !name.ends_with(DONE))
    })
}

/// What was found of one set, for a catalog.
#[derive(Debug)]
pub(super) struct Found {
    /// The set's whole name.
    pub(super) name: String,
    /// Its documents.
    pub(super) documents: Documents,
    /// Whether a catalog served them.
    pub(super) served: bool,
}

impl Catalogs {
    /// Writes the catalogs that are missing or out of date. They save later reads and nothing else: a store
    /// that takes none is asked no further, and that is no failure.
    pub(super) async fn renew(
        &self,
        store: &dyn Store,
        found: Vec<Found>,
        folders: &BTreeMap<String, Folder>,
        facts: &BTreeMap<String, Facts>,
    ) {
        let mut places: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        for one in found {
            let fitting = |folder| one.served || fits(&one.documents, folder);
            if folders.get(&one.name).is_some_and(fitting)
                && let Some((place, _)) = one.name.rsplit_once('/')
            {
                places.entry(place.to_owned()).or_default().push(one);
            }
        }
        for (place, sets) in places {
            let known = self.0.get(&place);
            let Some(missing) = self.outdated(known, &sets) else {
                continue;
            };
            let entries = sets.into_iter().filter_map(|set| {
                let last = set.name.rsplit('/').next()?.to_owned();
                let listing = facts.get(&set.name)?.digest();
                let documents = set.documents;
                Some((last, Entry { listing, documents }))
            });
            let document = Document {
                schema_version: SCHEMA_VERSION,
                sets: entries.collect(),
            };
            let written = write(
                store,
                &place,
                known.map(|known| known.name.as_str()),
                &document,
                missing,
            );
            if written.await.is_err() {
                return;
            }
        }
    }

    /// Whether a place's catalog is to be written, and whether also where the old one stays beside it.
    fn outdated(&self, known: Option<&Catalog>, sets: &[Found]) -> Option<bool> {
        let served = sets.iter().filter(|set| set.served).count();
        let dead = known.map_or(0, |known| known.sets.len().saturating_sub(served));
        let off = sets.len().saturating_sub(served).saturating_add(dead);
        if sets.len() < LEAST || off.saturating_mul(OUTDATED) < sets.len() || off == 0 {
            return None;
        }
        Some(off.saturating_mul(OUTDATED_KEPT) >= sets.len())
    }
}

/// Puts a catalog in the place of the one before or, where nothing may be replaced and it is worth it, beside
/// it.
async fn write(
    store: &dyn Store,
    place: &str,
    known: Option<&str>,
    document: &Document,
    beside: bool,
) -> Result<()> {
    let text = serde_json::to_vec(document).doing(Kind::Unexpected, || "writing JSON")?;
    let packed = zstd::bulk::compress(&text, LEVEL).doing(Kind::Unexpected, || "compressing")?;
    if packed.len() as u64 > MAX_STORED || text.len() as u64 > MAX_BYTES {
        // It would not be read.
        return Ok(());
    }
    let last = known.and_then(|name| name.rsplit('/').next());
    let last = last.and_then(generation);
    let put = objects::put(store, &object(place, last.unwrap_or(0)), packed.clone()).await;
    match (put, last.and_then(|last| last.checked_add(1))) {
        (Err(failure), Some(next)) if failure.kind() == Kind::Store && beside => {
            objects::put(store, &object(place, next), packed).await
        }
        (Err(failure), Some(_)) if failure.kind() == Kind::Store => Ok(()),
        (put, _) => put,
    }
}

/// The name of a generation in a place.
fn object(place: &str, generation: u32) -> String {
    let (start, end) = NAME;
    format!("{place}/{start}{generation:0DIGITS$}{end}")
}

/// The generation that a name means.
fn generation(name: &str) -> Option<u32> {
    let (start, end) = NAME;
    let digits = name.strip_prefix(start)?.strip_suffix(end)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, modified: Option<&str>, etag: Option<&str>) -> Listed {
        Listed {
            name: name.to_owned(),
            size: 7,
            modified: modified.map(|at| at.parse().unwrap()),
            etag: etag.map(str::to_owned),
        }
    }

    #[test]
    fn names_tell_the_generation() {
        assert_eq!(object("c/n", 12), "c/n/catalog-00000012.json.zst");
        assert_eq!(generation("catalog-00000012.json.zst"), Some(12));
        for other in [
            "catalog-12.json.zst",
            "catalog-+0000012.json.zst",
            "catalog-00000012.json",
        ] {
            assert_eq!(generation(other), None, "{other}");
        }
    }

    #[test]
    fn a_change_of_any_object_shows() {
        let at = |modified, etag| {
            let object = listed("c/n/backup-1/x", modified, etag);
            facts(&[object]).remove("c/n/backup-1").unwrap()
        };
        let first = at(Some("2026-01-01T00:00:00Z"), Some("a"));
        assert_ne!(
            first.digest(),
            at(Some("2026-01-01T00:00:00Z"), Some("b")).digest()
        );
        assert_ne!(
            first.digest(),
            at(Some("2026-01-01T00:00:01Z"), Some("a")).digest()
        );
        // With an ETag no time matters; without one the catalog must be clearly later.
        assert!(first.is_settled(None));
        let timed = at(Some("2026-01-01T00:00:00Z"), None);
        for (catalog, settled) in [
            ("2026-01-01T00:00:01.9Z", false),
            ("2026-01-01T00:00:02Z", true),
        ] {
            assert_eq!(
                timed.is_settled(Some(catalog.parse().unwrap())),
                settled,
                "{catalog}"
            );
        }
        assert!(!timed.is_settled(None));
        assert!(
            !at(None, None).is_settled(Some(Timestamp::MAX)),
            "it tells nothing"
        );
        // One that tells nothing is enough.
        let both = [
            listed("c/n/backup-1/x", None, None),
            listed("c/n/backup-1/y", Some("2026-01-01T00:00:00Z"), None),
        ];
        let both = facts(&both).remove("c/n/backup-1").unwrap();
        assert!(!both.is_settled(Some(Timestamp::MAX)));
    }

    #[test]
    fn a_catalog_is_written_when_it_serves_too_few() {
        let outdated = |sets: usize, served: usize, known: usize| {
            let found = (0..sets).map(|number| Found {
                name: format!("c/n/backup-{number}"),
                documents: Documents::new(),
                served: number < served,
            });
            let entry = || Entry {
                listing: String::new(),
                documents: Documents::new(),
            };
            let catalog = Catalog {
                name: object("c/n", 0),
                modified: None,
                sets: (0..known)
                    .map(|number| (number.to_string(), entry()))
                    .collect(),
            };
            let found: Vec<Found> = found.collect();
            Catalogs::default().outdated(Some(&catalog).filter(|_| known > 0), &found)
        };
        assert_eq!(outdated(3, 0, 0), None, "few sets are read one by one");
        assert_eq!(outdated(4, 0, 0), Some(true));
        assert_eq!(outdated(64, 64, 64), None);
        assert_eq!(outdated(64, 63, 63), None);
        assert_eq!(outdated(64, 62, 62), Some(false));
        assert_eq!(outdated(64, 48, 48), Some(true));
        assert_eq!(outdated(64, 64, 66), Some(false), "two of it are gone");
    }
}
