//! Copies a backup into a store: a claim, the objects, the index, and the Manifest last.

mod claim;

use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::catalog::{self, Folder};
use super::form::{self, Form, Plain};
use super::index::{self, Arrival, Index, ObjectEntry, SCHEMA_VERSION, to_bytes};
use super::place::{self, DONE, INDEX};
use crate::backup::manifest::{self, FileEntry, Manifest};
use crate::backup::names;
use crate::backup::signature;
use crate::context::Context;
use crate::error::{Doing, Failure, Kind, Result};
use crate::event::Event;
use crate::keep::catalog::BackupSet;
use crate::store::objects::{self, Store, Upload};
use crate::sys::digest::sha256_hex;
use crate::sys::small;

/// The phase's name in events.
const PHASE: &str = "copy";
/// Pieces between a codec and the network.
const PIECES: usize = 4;

/// The result of a copy.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Copied {
    /// The set's URL.
    pub url: String,
    /// Its name in the store.
    pub name: String,
    /// Whether it was there already.
    pub already_there: bool,
    /// Objects that an earlier transfer had brought.
    pub resumed: usize,
    /// Bytes sent, as stored.
    pub sent: u64,
}

/// Copies a set of the node's store, whose Manifest it must have, to another store.
///
/// # Errors
/// [`Kind::BadBackup`] if a file is not what the Manifest says, [`Kind::Store`] if the store
/// fails; what was brought before stays, and the next copy resumes from it.
pub async fn copy_backup(
    context: &Context,
    set: &BackupSet,
    store: &dyn Store,
    form: &Form,
    host: &str,
) -> Result<Copied> {
    let work = async {
        let transfer = Transfer::begin(context, set, store, form, host).await?;
        match transfer {
            Begun::There(copied) => Ok(copied),
            Begun::Claimed(transfer) => transfer.run().await,
        }
    };
    let done = context.cancel.guard(work).await;
    done.map_err(|failure| failure.doing(format!("copying {} to {}", set.name, store.url())))
}

/// Whether there is anything to do.
enum Begun<'a> {
    There(Copied),
    Claimed(Box<Transfer<'a>>),
}

/// A set on its way.
struct Transfer<'a> {
    context: &'a Context,
    set: &'a BackupSet,
    store: &'a dyn Store,
    form: &'a Form,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    manifest_sha256: String,
    /// `<cluster>/<node>/backup-N`
    name: String,
    folder: Folder,
    /// The name of this set's claim.
    claim: String,
    writer: String,
    done: u64,
    sent: u64,
    resumed: usize,
}

impl<'a> Transfer<'a> {
    async fn begin(
        context: &'a Context,
        set: &'a BackupSet,
        store: &'a dyn Store,
        form: &'a Form,
        host: &str,
    ) -> Result<Begun<'a>> {
        let path = set.dir.join(names::MANIFEST);
        let bytes = small::read(&path, manifest::MAX_BYTES)?;
        let (Some(bytes), true) = (bytes, set.problems.is_empty()) else {
            let what = format!("{} is not a complete backup with a Manifest", set.name);
            return Err(Failure::new(Kind::BadBackup, what));
        };
        let manifest = Manifest::from_bytes(&bytes, &path)?;
        let random = crate::sys::random::bytes::<4>()?;
        let mut transfer = Box::new(Self {
            context,
            set,
            store,
            form,
            claim: place::claim(&sha256_hex(&bytes)),
            manifest_sha256: sha256_hex(&bytes),
            manifest,
            manifest_bytes: bytes,
            name: String::new(),
            folder: Folder::new(),
            writer: hex::encode(random),
            done: 0,
            sent: 0,
            resumed: 0,
        });
        Ok(if transfer.find_folder(host).await? {
            Begun::There(transfer.copied(true))
        } else {
            Begun::Claimed(transfer)
        })
    }

    fn copied(&self, already_there: bool) -> Copied {
        Copied {
            url: format!("{}/{}", self.store.url(), self.name),
            name: self.name.clone(),
            already_there,
            resumed: self.resumed,
            sent: self.sent,
        }
    }

    async fn run(mut self: Box<Self>) -> Result<Copied> {
        let total = self.manifest.total_size();
        self.context.tell(Event::PhaseStarted {
            phase: PHASE,
            about: format!(
                "copying {} to {}/{}",
                self.set.name,
                self.store.url(),
                self.name
            ),
            total: Some(total),
        });
        let mut entries = Vec::new();
        for file in self.manifest.files.clone() {
            let there = self.arrived(&file).await?;
            self.resumed += usize::from(there.is_some());
            let entry = match there {
                Some(entry) => entry,
                None => self.send(&file).await?,
            };
            self.done = self.done.saturating_add(file.size);
            entries.push(entry);
        }
        self.commit(entries).await?;
        let dir = format!("{}/{}", self.store.url(), self.name);
        if let (false, Some(dir)) = (self.form.encrypts(), dir.strip_prefix("file://")) {
            crate::context::warn_of_modes(self.context, Path::new(dir));
        }
        self.context.tell(Event::PhaseDone {
            phase: PHASE,
            done: total,
        });
        Ok(self.copied(false))
    }

    /// The object of a file that an earlier transfer has brought, in the same form.
    async fn arrived(&self, file: &FileEntry) -> Result<Option<ObjectEntry>> {
        let starts = |name: &&String| name.starts_with(&file.name) && name.ends_with(DONE);
        for name in self.folder.keys().filter(starts) {
            let Some(arrival) = catalog::document::<Arrival>(self.store, &self.name, name).await?
            else {
                continue;
            };
            let entry = arrival.entry;
            let same = entry.file == file.name
                && arrival.plain_sha256 == file.sha256
                && arrival.recipients == self.form.recipients_for(&file.name)
                && entry.compression.is_some() == self.form.compresses(&file.name)
                && self.folder.get(&entry.object) == Some(&entry.size);
            if same {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The name of a file's object. Two who encrypt the same file make different bytes of it, and
    /// must not replace each other's.
    fn object(&self, file: &str) -> String {
        let compressed = if self.form.compresses(file) {
            ".zst"
        } else {
            ""
        };
        let encrypted = if self.form.encrypts() {
            format!(".{}.age", self.writer)
        } else {
            String::new()
        };
        format!("{file}{compressed}{encrypted}")
    }

    /// Sends a file, and records that it has arrived.
    async fn send(&mut self, file: &FileEntry) -> Result<ObjectEntry> {
        let object = self.object(&file.name);
        let sent = self.put_file(file, object.clone()).await;
        let entry = match sent {
            // What an interrupted transfer left under that name cannot be replaced in every store.
            Err(failure) if failure.kind() == Kind::Store && self.folder.contains_key(&object) => {
                let other = format!("{object}.{}", self.writer);
                let again = self.put_file(file, other).await;
                again.map_err(|_| failure)?
            }
            other => other?,
        };
        let arrival = Arrival {
            plain_sha256: file.sha256.clone(),
            recipients: self.form.recipients_for(&file.name),
            entry: entry.clone(),
        };
        let record = format!("{}{DONE}", entry.object);
        let put = objects::put(self.store, &self.name_of(&record), to_bytes(&arrival)?).await;
        match put {
            // It only saves a later transfer the object.
            Err(failure) if self.folder.contains_key(&record) => {
                self.context.tell(Event::Note(failure.to_string()));
            }
            other => other?,
        }
        self.folder.insert(record, 0);
        self.sent = self.sent.saturating_add(entry.size);
        Ok(entry)
    }

    /// The whole name of an object of the folder.
    fn name_of(&self, object: &str) -> String {
        format!("{}/{object}", self.name)
    }

    /// Puts a file under an object's name, and checks what arrived.
    async fn put_file(&self, file: &FileEntry, object: String) -> Result<ObjectEntry> {
        let whole = self.name_of(&object);
        let (to, from) = mpsc::channel(PIECES);
        let (path, form) = (self.set.dir.join(&file.name), self.form.clone());
        let compress = form.compresses(&file.name);
        let reading = tokio::task::spawn_blocking(move || form::encode(&path, &form, compress, to));
        let mut upload = self.store.stage(&whole, file.size).await?;
        // What is stored as it is was hashed when it was read.
        let changed = compress || self.form.encrypts();
        let sent = self.pump(upload.as_mut(), from, changed).await;
        let read = reading
            .await
            .doing(Kind::Unexpected, || "running a thread")?;
        // What the network says is the cause of what the reader says.
        let checked = sent.and_then(|stored| {
            let read = read?;
            same(file, &read)?;
            Ok(stored.unwrap_or(read))
        });
        let stored = match checked {
            Ok(stored) => stored,
            Err(failure) => {
                upload.abort().await;
                return Err(failure);
            }
        };
        upload.commit().await?;
        let entry = ObjectEntry {
            file: file.name.clone(),
            object,
            size: stored.size,
            sha256: stored.sha256,
            compression: compress.then(|| "zstd".to_owned()),
            encryption: self.form.encrypts().then(|| "age".to_owned()),
            secrets: self.form.is_secret(&file.name),
        };
        if !self.store.checks_content() {
            self.read_back(&entry).await?;
        }
        Ok(entry)
    }

    /// Hands on what the codec makes, hashing it where that is another thing than the file.
    async fn pump(
        &self,
        upload: &mut dyn Upload,
        mut from: mpsc::Receiver<Bytes>,
        changed: bool,
    ) -> Result<Option<Plain>> {
        let mut hash = changed.then(Sha256::new);
        let mut size = 0u64;
        while let Some(piece) = from.recv().await {
            if let Some(hash) = &mut hash {
                hash.update(&piece);
            }
            size = size.saturating_add(piece.len() as u64);
            upload.write(piece).await?;
            self.context.tell(Event::PhaseProgress {
                phase: PHASE,
                done: self.done.saturating_add(size),
            });
        }
        Ok(hash.map(|hash| Plain {
            size,
            sha256: hex::encode(hash.finalize()),
        }))
    }

    /// Reads an object again where the store itself did not hold it against its hash.
    async fn read_back(&self, entry: &ObjectEntry) -> Result<()> {
        let name = format!("{}/{}", self.name, entry.object);
        let mut hash = Sha256::new();
        let read = async {
            if let Some(mut body) = self.store.read(&name, entry.size).await? {
                while let Some(piece) = body.next().await {
                    hash.update(&piece?);
                }
            }
            Ok(())
        };
        // It is the store's doing, and not the backup's, where more comes than was sent.
        read.await
            .map_err(|failure: Failure| failure.as_kind(Kind::Store))?;
        if hex::encode(hash.finalize()) == entry.sha256 {
            return Ok(());
        }
        let what = format!("reading {name} back: it differs from what was sent");
        Err(Failure::new(Kind::Store, what))
    }

    /// Makes the objects a set: everything is looked at again, and the Manifest comes last.
    async fn commit(&mut self, objects: Vec<ObjectEntry>) -> Result<()> {
        let name = |name: &str| format!("{}/{name}", self.name);
        let index = Index {
            schema_version: SCHEMA_VERSION,
            manifest_sha256: self.manifest_sha256.clone(),
            objects,
            recipients: self.form.encrypts().then(|| self.form.recipients()),
            secrets_recipients: self.form.secrets_recipients(),
        };
        self.put_index(&to_bytes(&index)?).await?;
        self.put_signature().await?;
        if self.set.pinned && !self.folder.contains_key(names::PINNED) {
            let content = Bytes::from_static(b"pinned\n");
            objects::put(self.store, &name(names::PINNED), content).await?;
        }
        // Another process may have pruned the folder: the Manifest must not name what is gone.
        let folder = self.look().await?;
        let lost = |entry: &&ObjectEntry| folder.get(&entry.object) != Some(&entry.size);
        if let Some(entry) = index.objects.iter().find(lost) {
            let what = format!("{} has disappeared since it was sent", entry.object);
            return Err(Failure::new(Kind::Store, what));
        }
        if !folder.contains_key(&self.claim) {
            let what = format!(
                "the claim on {} is gone: it was removed in the meantime",
                self.name
            );
            return Err(Failure::new(Kind::Busy, what));
        }
        let manifest = Bytes::from(self.manifest_bytes.clone());
        self.store.claim(&name(names::MANIFEST), manifest).await?;
        let there = catalog::read(self.store, &self.name, names::MANIFEST, manifest::MAX_BYTES);
        if catalog::unless_bad(there.await)?.as_deref() != Some(self.manifest_bytes.as_slice()) {
            let what = format!("{} contains another Manifest", self.name);
            return Err(Failure::new(Kind::Store, what));
        }
        self.sweep(&folder).await;
        Ok(())
    }

    /// Puts the index and its signature. What is there already and the same is not put again: not every
    /// store lets anything be replaced.
    async fn put_index(&self, bytes: &[u8]) -> Result<()> {
        if let Some(key) = &self.form.sign {
            let object = place::index_signature(&sha256_hex(bytes));
            if !self.folder.contains_key(&object) {
                objects::put(self.store, &self.name_of(&object), key.sign(bytes)?).await?;
            }
        }
        if self.folder.contains_key(INDEX) {
            let there = catalog::read(self.store, &self.name, INDEX, index::MAX_BYTES).await;
            if catalog::unless_bad(there)?.as_deref() == Some(bytes) {
                return Ok(());
            }
        }
        objects::put(self.store, &self.name_of(INDEX), bytes.to_vec()).await
    }

    /// Puts the signature of the Manifest, where the backup has one that is not there yet: a backup
    /// can be signed after it was copied.
    async fn put_signature(&self) -> Result<()> {
        if self.folder.contains_key(names::SIGNATURE) {
            return Ok(());
        }
        let path = self.set.dir.join(names::SIGNATURE);
        match small::read(&path, signature::MAX_BYTES)? {
            Some(bytes) => {
                let name = format!("{}/{}", self.name, names::SIGNATURE);
                objects::put(self.store, &name, bytes).await
            }
            None => Ok(()),
        }
    }

    /// Removes the records of arrival, which are of no use any more and do no harm; and from a copy
    /// that is encrypted what an interrupted transfer left in the clear.
    async fn sweep(&self, folder: &Folder) {
        let in_the_clear = |name: &str| {
            let file = name.strip_suffix(".zst").unwrap_or(name);
            let own = self.manifest.files.iter().any(|entry| entry.name == file);
            own && self.form.encrypts()
        };
        let left = |name: &&String| name.ends_with(DONE) || in_the_clear(name);
        for object in folder.keys().filter(left) {
            let removed = self.store.remove(&format!("{}/{object}", self.name)).await;
            if let Err(failure) = removed {
                self.context.tell(Event::Note(failure.to_string()));
                return;
            }
        }
    }
}

/// Whether what was read is the file that the Manifest means.
fn same(file: &FileEntry, read: &Plain) -> Result<()> {
    if read.size == file.size && read.sha256 == file.sha256 {
        return Ok(());
    }
    let what = format!("{} is not the file that the Manifest names", file.name);
    Err(Failure::new(Kind::BadBackup, what)
        .with(crate::error::Fact::Path(Path::new(&file.name).to_owned())))
}
