//! Fetching a set: every object is checked against the index as it arrives and, unpacked, against
//! the Manifest, which is written last.

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::catalog;
use super::form::{self, Identities, Plain};
use super::index::{Index, MAX_BYTES, ObjectEntry};
use super::place;
use crate::backup::manifest::{self, FileEntry, Manifest};
use crate::backup::names::{self, BackupId, FileKind};
use crate::context::Context;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::event::Event;
use crate::keep::catalog::SetSignature;
use crate::keep::trust::Trust;
use crate::store::LocalStore;
use crate::store::objects::{self, Store};
use crate::sys::digest::sha256_hex;
use crate::sys::small;
use crate::sys::{fs, space};

/// The phase's name in events.
const PHASE: &str = "fetch";
/// Pieces between the network and a codec.
const PIECES: usize = 4;

/// Which of a set's files are brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of them.
    Whole,
    /// All of them, but for archives that no identity opens.
    Readable,
    /// All but the archives: what a data directory is made from needs no key of the control plane.
    Data,
}

impl Part {
    fn has(self, file: &FileEntry) -> bool {
        let archive = matches!(file.kind, FileKind::Resources | FileKind::Certificates);
        self != Self::Data || !archive
    }
}

/// Brings a set into an empty directory that is there: its files, checked, as they were on the
/// node. `name` is what [`super::resolve`] found. The directory is a set once this returns, and has
/// no Manifest before.
///
/// # Errors
/// [`Kind::BadBackup`] if something is not what index or Manifest say, [`Kind::Usage`] with
/// [`Fact::Missing`] `identity` if it is encrypted and none was given, [`Kind::Store`] if the
/// store or the disk fails.
pub async fn fetch(
    context: &Context,
    store: &dyn Store,
    name: &str,
    into: &Path,
    identities: Arc<Identities>,
    trust: &Trust,
    part: Part,
) -> Result<Manifest> {
    let work = bring(context, store, name, (into, part), identities, trust);
    let done = context.cancel.guard(work).await;
    done.map_err(|failure| failure.doing(format!("fetching {}/{name}", store.url())))
}

/// Brings a set into the node's own store, under its next number; returns that.
///
/// # Errors
/// As [`fetch`], and [`Kind::Busy`] if the store is locked.
pub async fn import(
    context: &Context,
    store: &dyn Store,
    name: &str,
    into: &LocalStore,
    identities: Arc<Identities>,
    trust: &Trust,
) -> Result<BackupId> {
    into.ensure()?;
    let lock = into.lock("copy")?;
    for path in into.remove_leftovers(&lock, &names::is_of_a_set)? {
        context.tell(Event::LeftoverRemoved(path));
    }
    let number = into.next_number()?;
    let staging = into.stage(number, &lock)?;
    crate::context::warn_of_modes(context, staging.dir());
    let dir = staging.dir();
    fetch(context, store, name, dir, identities, trust, Part::Whole).await?;
    into.commit(staging, number)?;
    Ok(BackupId(number))
}

/// Puts what a verification and a rehearsal of a fetched set found beside the set, if there are such
/// records.
///
/// # Errors
/// [`Kind::Store`]: a store that may not be written to is no reason to fail.
pub async fn record(store: &dyn Store, name: &str, fetched: &Path, now: Timestamp) -> Result<()> {
    for record in [names::VERIFIED, names::REHEARSED] {
        if let Some(bytes) = small::read(&fetched.join(record), MAX_BYTES)? {
            put_record(store, name, record, bytes, now).await?;
        }
    }
    Ok(())
}

/// Puts a record in the place of the one before, or under its own name where that cannot be replaced.
async fn put_record(
    store: &dyn Store,
    name: &str,
    record: &str,
    bytes: Vec<u8>,
    now: Timestamp,
) -> Result<()> {
    let put = objects::put(store, &format!("{name}/{record}"), bytes.clone()).await;
    match put {
        Err(failure) if failure.kind() == Kind::Store => {
            let other = format!("{name}/{}", place::at(record, now));
            objects::put(store, &other, bytes)
                .await
                .map_err(|_| failure)
        }
        other => other,
    }
}

async fn bring(
    context: &Context,
    store: &dyn Store,
    name: &str,
    (into, part): (&Path, Part),
    identities: Arc<Identities>,
    trust: &Trust,
) -> Result<Manifest> {
    let (whole, signature) = trusted(store, name, trust).await?;
    let catalog::Whole {
        manifest,
        bytes,
        index,
        ..
    } = whole;
    let files = wanted(&manifest, &index, part);
    let entries = || files.iter().map(|(_, entry)| *entry);
    if form::needs_identity(entries(), &identities) {
        let what = "it is encrypted, and no identity was given";
        return Err(Failure::new(Kind::Usage, what).with(Fact::Missing("identity")));
    }
    let total = files.iter().map(|(file, _)| file.size);
    let total = total.fold(0, u64::saturating_add);
    // The Manifest says how much: the sizes of the objects are those of a store that is not
    // trusted.
    space::space(into)?.check(total, "the backup")?;
    let stored = entries().map(|entry| entry.size);
    context.tell(Event::PhaseStarted {
        phase: PHASE,
        about: format!("fetching {}/{name}", store.url()),
        total: Some(stored.fold(0, u64::saturating_add)),
    });
    let mut done = 0u64;
    for (file, entry) in files {
        let object = Arriving {
            context,
            store,
            name: format!("{name}/{}", entry.object),
            entry,
            before: done,
        };
        match object.write(file, into, Arc::clone(&identities)).await {
            Err(failure) if part == Part::Readable && is_for_others(&failure) => {
                context.tell(Event::Note(failure.to_string()));
                fs::unlink(&into.join(&file.name))?;
                continue;
            }
            other => other?,
        }
        done = done.saturating_add(entry.size);
    }
    // Read again, since another process may have replaced the backup in the meantime.
    let again = catalog::read(store, name, names::MANIFEST, manifest::MAX_BYTES).await?;
    if again.as_deref() != Some(bytes.as_slice()) {
        let what = "its Manifest has changed in the meantime";
        return Err(Failure::new(Kind::BadBackup, what));
    }
    if let Some(signature) = &signature {
        fs::write_new(&into.join(names::SIGNATURE), signature)?;
    }
    // The files' names are durable before the Manifest makes them a backup.
    fs::sync_dir(into)?;
    fs::write_new(&into.join(names::MANIFEST), &bytes)?;
    fs::sync_dir(into)?;
    context.tell(Event::PhaseDone { phase: PHASE, done });
    Ok(manifest)
}

/// A complete backup whose Manifest and index are trusted, and its signature.
async fn trusted(
    store: &dyn Store,
    name: &str,
    trust: &Trust,
) -> Result<(catalog::Whole, Option<Vec<u8>>)> {
    let listed = catalog::folders(store.list(name).await?);
    let Some(folder) = listed.get(name) else {
        let what = format!("there is no {name}");
        return Err(Failure::new(Kind::Usage, what));
    };
    let whole = catalog::whole(store, name, folder)
        .await?
        .map_err(|(_, problem)| Failure::new(Kind::BadBackup, problem))?;
    let signature = match folder.contains_key(names::SIGNATURE) {
        true => catalog::signature(store, name, names::SIGNATURE).await?,
        false => None,
    };
    let of_manifest = SetSignature::of(&whole.bytes, signature.as_deref());
    trust.check(Some(&whole.manifest), &of_manifest)?;
    check_index(store, name, &whole, trust).await?;
    Ok((whole, signature))
}

/// Whether an archive is encrypted to recipients whose identity was not given.
fn is_for_others(failure: &Failure) -> bool {
    let missing = Fact::Missing(form::SECRETS_IDENTITY);
    failure.facts().contains(&missing)
}

/// The files that are brought, with their objects: those that only some identities open come first, so that a
/// missing one is noticed before much is read.
fn wanted<'a>(
    manifest: &'a Manifest,
    index: &'a Index,
    part: Part,
) -> Vec<(&'a FileEntry, &'a ObjectEntry)> {
    let files = manifest.files.iter().filter(|file| part.has(file));
    let mut wanted: Vec<_> = files
        .filter_map(|file| {
            let mut objects = index.objects.iter();
            Some((file, objects.find(|entry| entry.file == file.name)?))
        })
        .collect();
    wanted.sort_by_key(|(_, entry)| !entry.secrets);
    wanted
}

/// Checks who signed the list of encrypted objects, before any of them is read.
async fn check_index(
    store: &dyn Store,
    name: &str,
    whole: &catalog::Whole,
    trust: &Trust,
) -> Result<()> {
    let objects = &whole.index.objects;
    if !trust.is_asked() || objects.iter().all(|entry| entry.encryption.is_none()) {
        return Ok(());
    }
    let object = place::index_signature(&sha256_hex(&whole.index_bytes));
    let signature = catalog::signature(store, name, &object).await?;
    trust.check_index(&whole.manifest, &whole.index_bytes, signature.as_deref())
}

/// The result for an object.
enum Received {
    /// It is the file.
    AsItIs,
    /// It is compressed or encrypted; its size and hash.
    Changed(Plain),
    /// The one who was to take it has gone.
    NotTaken,
}

/// One object on its way.
struct Arriving<'a> {
    context: &'a Context,
    store: &'a dyn Store,
    name: String,
    entry: &'a ObjectEntry,
    before: u64,
}

impl Arriving<'_> {
    async fn write(
        &self,
        file: &FileEntry,
        into: &Path,
        identities: Arc<Identities>,
    ) -> Result<()> {
        let (to, from) = mpsc::channel(PIECES);
        let (path, entry, most) = (into.join(&file.name), self.entry.clone(), file.size);
        let writing = tokio::task::spawn_blocking(move || -> Result<Plain> {
            let doing = || format!("writing {}", path.display());
            let mut out = fs::OutFile::create(&path).doing(Kind::Store, doing)?;
            let plain = form::decode(&entry, &identities, from, &mut out, most)?;
            out.sync().doing(Kind::Store, doing)?;
            Ok(plain)
        });
        let received = self.receive(to).await;
        let written = writing
            .await
            .doing(Kind::Unexpected, || "running a thread")?;
        let received = match received {
            // The reader has gone: why is what it says.
            Ok(Received::NotTaken) => {
                written?;
                let what = format!("{}: received more than the size of its file", self.name);
                return Err(Failure::new(Kind::BadBackup, what));
            }
            Ok(Received::AsItIs) => None,
            Ok(Received::Changed(received)) => Some(received),
            Err(failure) => return Err(failure),
        };
        let stored = (self.entry.size, self.entry.sha256.as_str());
        let differs = |got: &Plain| (got.size, got.sha256.as_str()) != stored;
        if received.as_ref().is_some_and(differs) {
            return Err(self.altered("the index"));
        }
        let written = written?;
        // What is stored as it is was hashed when it was written.
        if !self.is_changed() && differs(&written) {
            return Err(self.altered("the index"));
        }
        if (written.size, written.sha256.as_str()) != (file.size, file.sha256.as_str()) {
            return Err(self.altered("the Manifest"));
        }
        Ok(())
    }

    fn altered(&self, against: &str) -> Failure {
        let what = format!("{}: its SHA-256 differs from {against}", self.name);
        Failure::new(Kind::BadBackup, what)
    }

    /// Whether the object is another thing than the file.
    fn is_changed(&self) -> bool {
        self.entry.compression.is_some() || self.entry.encryption.is_some()
    }

    /// Hands on what comes, hashing it where it is another thing than the file.
    async fn receive(&self, to: mpsc::Sender<bytes::Bytes>) -> Result<Received> {
        let Some(mut body) = self.store.read(&self.name, self.entry.size).await? else {
            let what = format!("{} is gone", self.name);
            return Err(Failure::new(Kind::BadBackup, what));
        };
        let mut hash = self.is_changed().then(Sha256::new);
        let mut size = 0u64;
        while let Some(piece) = body.next().await {
            let piece = piece?;
            if let Some(hash) = &mut hash {
                hash.update(&piece);
            }
            size = size.saturating_add(piece.len() as u64);
            if to.send(piece).await.is_err() {
                return Ok(Received::NotTaken);
            }
            self.context.tell(Event::PhaseProgress {
                phase: PHASE,
                done: self.before.saturating_add(size),
            });
        }
        Ok(hash.map_or(Received::AsItIs, |hash| {
            Received::Changed(Plain {
                size,
                sha256: hex::encode(hash.finalize()),
            })
        }))
    }
}
