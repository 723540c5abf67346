//! What every store promises.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use super::name::check_name;
use crate::error::{Failure, Kind, Result};

/// The most objects that are listed: ten a set, and one each hour of ten years.
pub const MAX_OBJECTS: usize = 1_000_000;

/// The longest name that is listed: two parts of 100 characters, a set's, and a file's.
const MAX_NAME: usize = 600;

/// How deep a store's directories are looked into: cluster, node, set, and one to spare.
pub(super) const MAX_DEPTH: usize = 4;

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it came, by the store's clock, if the store tells.
    pub modified: Option<Timestamp>,
    /// What the service changes with every change of the content, if it has one: an HTTP ETag.
    pub etag: Option<String>,
}

/// What is directly in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    /// The whole names of its folders, sorted.
    pub folders: Vec<String>,
    /// Its objects, sorted by name.
    pub objects: Vec<Listed>,
}

/// An object's bytes as they come.
pub type Body = BoxStream<'static, Result<Bytes>>;

/// A place for objects.
///
/// Every failure is [`Kind::Store`], and none shows a credential.
#[async_trait]
pub trait Store: Debug + Send + Sync {
    /// The store's URL, as it may be shown.
    fn url(&self) -> String;

    /// Whether the store itself holds what was put against a SHA-256 that travelled with it;
    /// where it does not, who puts reads back.
    fn checks_content(&self) -> bool;

    /// Every object below a folder (`""`: all), sorted by name. What is being put is not listed,
    /// nor what others keep there under names that [`check_name`] does not take.
    ///
    /// # Errors
    /// If there are more than [`MAX_OBJECTS`], or the listing does not end.
    async fn list(&self, folder: &str) -> Result<Vec<Listed>>;

    /// What is directly in a folder (`""`: the store), and nothing below its folders.
    ///
    /// # Errors
    /// As [`Store::list`].
    async fn level(&self, folder: &str) -> Result<Level>;

    /// An object's bytes; `None` if it does not exist. No more than `most` and a few are asked for
    /// or held, whatever the store says of its size.
    ///
    /// # Errors
    /// [`Kind::BadBackup`], also in what is returned, where it has more than `most` bytes.
    async fn read(&self, name: &str, most: u64) -> Result<Option<Body>>;

    /// Begins an object of about `size` bytes. It is there once it is committed, whole, and then
    /// replaces what was there.
    async fn stage(&self, name: &str, size: u64) -> Result<Box<dyn Upload>>;

    /// Makes a small object unless there is one of that name; says whether it did. Where the
    /// service ignores the condition the later of two wins.
    async fn claim(&self, name: &str, content: Bytes) -> Result<bool>;

    /// Removes an object; one that is not there is no error.
    async fn remove(&self, name: &str) -> Result<()>;

    /// Whether an object that is there stays as an earlier version once it is removed. S3 and Azure
    /// Blob tell; where a service does not, the answer is no.
    async fn keeps_versions(&self, _name: &str) -> Result<bool> {
        Ok(false)
    }

    /// Until when the store lets nobody remove or replace an object, if it tells (S3 Object Lock, Azure
    /// Blob's immutability).
    async fn retained_until(&self, _name: &str) -> Result<Option<Timestamp>> {
        Ok(None)
    }

    /// Removes what is left of a folder without objects: directories, parts of uploads.
    async fn remove_folder(&self, folder: &str) -> Result<()>;
}

/// An object on its way. Dropped, it leaves nothing that is listed.
#[async_trait]
pub trait Upload: Send {
    /// Sends the next bytes; waits while too many are on their way.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Makes it durable and visible.
    async fn commit(self: Box<Self>) -> Result<()>;

    /// Gives it up, and removes its parts where the store is still reached.
    async fn abort(self: Box<Self>);
}

/// Puts a small object.
pub async fn put(store: &dyn Store, name: &str, content: impl Into<Bytes> + Send) -> Result<()> {
    let content = content.into();
    let mut upload = store.stage(name, content.len() as u64).await?;
    if let Err(failure) = upload.write(content).await {
        upload.abort().await;
        return Err(failure);
    }
    upload.commit().await
}

/// Reads a small object; `None` if it does not exist.
///
/// # Errors
/// [`Kind::BadBackup`] if it has more than `most` bytes.
pub async fn read_small(store: &dyn Store, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
    let Some(mut body) = store.read(name, most).await? else {
        return Ok(None);
    };
    let mut content = Vec::new();
    while let Some(piece) = body.next().await {
        content.extend_from_slice(&piece?);
    }
    Ok(Some(content))
}

/// That an object has more bytes than its reader takes.
pub(super) fn too_long(doing: &str, most: u64) -> Failure {
    let what = format!("expected at most {most} bytes, found more");
    Failure::new(Kind::BadBackup, what).doing(doing.to_owned())
}

/// A body that fails once more than `most` bytes came.
pub(super) fn bounded(body: Body, doing: String, most: u64) -> Body {
    let mut left = most;
    let counted = body.map(move |piece| {
        let piece = piece?;
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| too_long(&doing, most))?;
        Ok(piece)
    });
    counted.boxed()
}

/// Takes a folder into a level, if its name can be one of ours.
///
/// # Errors
/// As [`take`].
pub(super) fn take_folder(level: &mut Level, name: String) -> Result<()> {
    if name.len() > MAX_NAME || check_name(&name).is_err() {
        return Ok(());
    }
    bound(level.folders.len())?;
    level.folders.push(name);
    Ok(())
}

/// Refuses a listing that has no end.
fn bound(found: usize) -> Result<()> {
    if found < MAX_OBJECTS {
        return Ok(());
    }
    let what = format!("it has more than {MAX_OBJECTS} objects: use a separate folder for backups");
    Err(Failure::new(Kind::Store, what))
}

/// Adds a part of a listing to what was found before.
///
/// # Errors
/// As [`take`].
pub(super) fn join(found: &mut Level, part: Level) -> Result<()> {
    let together = found.objects.len() + part.objects.len();
    bound(together.saturating_sub(1))?;
    found.objects.extend(part.objects);
    found.folders.extend(part.folders);
    Ok(())
}

/// Takes an object into a listing, if its name can be one of ours.
///
/// # Errors
/// [`Kind::Store`] if there are more than anybody's sets make.
pub(super) fn take(found: &mut Vec<Listed>, object: Listed) -> Result<()> {
    if object.name.len() > MAX_NAME || check_name(&object.name).is_err() {
        return Ok(());
    }
    bound(found.len())?;
    found.push(object);
    Ok(())
}
