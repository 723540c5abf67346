//! Buckets and containers: S3 and what speaks it, Google Cloud Storage, Azure Blob, through the
//! `object_store` crate.
//!
//! An object of more than one part goes up in parts, a few at a time, each tried again by itself;
//! until the last call completes it, nothing is listed. S3 is sent the SHA-256 of each part and of
//! each whole object and holds the bytes against it.

mod build;

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload,
};
use tokio::task::JoinHandle;

use super::{Address, Body, Listed, Scheme, Settings, Store, Upload, check_name};
use crate::error::{Failure, Kind, Result};

/// Bytes of a part, at least: with 10,000 parts, which is what S3 takes, up to 80 GiB.
const PART: usize = 8 << 20;
/// The most parts that are reckoned with.
const PARTS: u64 = 9_000;
/// Parts on their way at a time. With the one being filled this bounds the memory.
const AT_A_TIME: usize = 4;

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    url: String,
    prefix: String,
    inner: Arc<dyn ObjectStore>,
    checks_content: bool,
    /// Whether an object's version tells of a bucket that keeps versions; Google's always has one.
    shows_versions: bool,
    settings: Arc<Settings>,
}

impl Bucket {
    /// The bucket there; nothing is asked of it yet.
    pub(super) fn open(address: &Address, settings: &Settings) -> Result<Self> {
        Ok(Self {
            url: address.to_string(),
            prefix: address.prefix().to_owned(),
            inner: build::build(address, settings)?,
            checks_content: address.scheme() == Scheme::S3,
            shows_versions: address.scheme() != Scheme::Gcs,
            settings: Arc::new(settings.clone()),
        })
    }

    /// The path of an object.
    fn path(&self, name: &str) -> Result<Path> {
        check_name(name)?;
        Ok(self.below(name))
    }

    fn below(&self, name: &str) -> Path {
        let whole = [self.prefix.as_str(), name];
        let parts = whole.iter().flat_map(|text| text.split('/'));
        Path::from_iter(parts.filter(|part| !part.is_empty()))
    }

    fn failure(&self, doing: &str, name: &str, cause: &Error) -> Failure {
        told(&self.settings, cause).doing(format!("{doing} {}/{name}", self.url))
    }
}

/// A service's error, without what is secret, and with what it means where that is known.
fn told(settings: &Settings, cause: &Error) -> Failure {
    let mut text = cause.to_string();
    let mut below = std::error::Error::source(cause);
    while let Some(deeper) = below {
        let more = deeper.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        below = deeper.source();
    }
    // Codes of the S3 API reference, "Error responses".
    let meanings = [
        (
            "RequestTimeTooSkewed",
            "this machine's clock is wrong, says the service",
        ),
        (
            "InvalidAccessKeyId",
            "the service does not know the access key",
        ),
        (
            "SignatureDoesNotMatch",
            "the secret key is not the access key's",
        ),
        ("NoSuchBucket", "there is no such bucket"),
        ("AccessDenied", "access is denied"),
        ("ExpiredToken", "the credentials have run out"),
        ("QuotaExceeded", "the quota there is used up"),
        // RFC 4918, and the codes that servers give it.
        ("507 Insufficient Storage", "the store is full"),
    ];
    let failure = Failure::new(Kind::Store, settings.redact(&text));
    match meanings.iter().find(|(code, _)| text.contains(code)) {
        Some((_, meaning)) => failure.doing(*meaning),
        None => failure,
    }
}

/// Whether it is the object that is not there, and not the bucket.
fn is_absent(cause: &Error) -> bool {
    matches!(cause, Error::NotFound { .. }) && !cause.to_string().contains("NoSuchBucket")
}

#[async_trait]
impl Store for Bucket {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn checks_content(&self) -> bool {
        self.checks_content
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let from = match folder {
            "" => self.below(folder),
            folder => self.path(folder)?,
        };
        let cut = match self.prefix.len() {
            0 => 0,
            length => length + 1,
        };
        let metas: Vec<_> = self
            .inner
            .list(Some(&from))
            .try_collect()
            .await
            .map_err(|cause| self.failure("listing", folder, &cause))?;
        let mut found: Vec<Listed> = metas
            .into_iter()
            .filter_map(|meta| {
                let name = meta.location.as_ref().get(cut..)?.to_owned();
                check_name(&name).is_ok().then_some(Listed {
                    name,
                    size: meta.size,
                    modified: Timestamp::from_second(meta.last_modified.timestamp()).ok(),
                })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn read(&self, name: &str) -> Result<Option<Body>> {
        let path = self.path(name)?;
        // Most objects are small: the first range is all of them, and tells the size.
        let first = GetOptions {
            range: Some(GetRange::Bounded(0..PART as u64)),
            ..GetOptions::default()
        };
        let result = match self.inner.get_opts(&path, first).await {
            // Of an empty object no range can be had.
            Err(cause) if !is_absent(&cause) => self.inner.get(&path).await,
            other => other,
        };
        let result = match result {
            Err(cause) if is_absent(&cause) => return Ok(None),
            other => other.map_err(|cause| self.failure("reading", name, &cause))?,
        };
        let size = result.meta.size;
        let first = result.bytes().await;
        let first = first.map_err(|cause| self.failure("reading", name, &cause))?;
        let first = futures_util::stream::iter([Ok(first)]);
        if size <= PART as u64 {
            return Ok(Some(first.boxed()));
        }
        // By ranges: each is a request of its own, tried again by itself, and several are on their
        // way at a time.
        let (inner, settings) = (Arc::clone(&self.inner), Arc::clone(&self.settings));
        let doing = format!("reading {}/{name}", self.url);
        let starts = (PART as u64..size).step_by(PART);
        let pieces = futures_util::stream::iter(starts).map(move |start| {
            let (inner, settings) = (Arc::clone(&inner), Arc::clone(&settings));
            let (path, doing) = (path.clone(), doing.clone());
            async move {
                let end = size.min(start.saturating_add(PART as u64));
                let piece = inner.get_range(&path, start..end).await;
                piece.map_err(|cause| told(&settings, &cause).doing(doing))
            }
        });
        Ok(Some(first.chain(pieces.buffered(AT_A_TIME)).boxed()))
    }

    async fn stage(&self, name: &str, size: u64) -> Result<Box<dyn Upload>> {
        let least = usize::try_from(size / PARTS).unwrap_or(usize::MAX);
        Ok(Box::new(Parts {
            inner: Arc::clone(&self.inner),
            settings: Arc::clone(&self.settings),
            path: self.path(name)?,
            doing: format!("uploading {}/{name}", self.url),
            // Whole MiB, and all parts but the last of one size.
            part: PART.max(least.div_ceil(1 << 20) << 20),
            filling: Vec::new(),
            filled: 0,
            begun: None,
            on_their_way: VecDeque::new(),
        }))
    }

    async fn claim(&self, name: &str, content: Bytes) -> Result<bool> {
        let path = self.path(name)?;
        let options = PutOptions::from(PutMode::Create);
        match self.inner.put_opts(&path, content.into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(cause) => Err(self.failure("claiming", name, &cause)),
        }
    }

    async fn remove(&self, name: &str) -> Result<()> {
        match self.inner.delete(&self.path(name)?).await {
            Err(cause) if is_absent(&cause) => Ok(()),
            other => other.map_err(|cause| self.failure("removing", name, &cause)),
        }
    }

    async fn keeps_versions(&self, name: &str) -> Result<bool> {
        if !self.shows_versions {
            return Ok(false);
        }
        match self.inner.head(&self.path(name)?).await {
            Err(cause) if is_absent(&cause) => Ok(false),
            // S3 has an object without a version in a bucket whose versioning was suspended.
            Ok(meta) => Ok(meta.version.is_some_and(|version| version != "null")),
            Err(cause) => Err(self.failure("reading", name, &cause)),
        }
    }

    async fn remove_folder(&self, _folder: &str) -> Result<()> {
        // A bucket has objects only.
        Ok(())
    }
}

/// An object on its way, in parts.
struct Parts {
    inner: Arc<dyn ObjectStore>,
    settings: Arc<Settings>,
    path: Path,
    doing: String,
    part: usize,
    filling: Vec<Bytes>,
    filled: usize,
    begun: Option<Box<dyn MultipartUpload>>,
    on_their_way: VecDeque<JoinHandle<object_store::Result<()>>>,
}

impl Parts {
    fn failure(&self, cause: &Error) -> Failure {
        told(&self.settings, cause).doing(self.doing.clone())
    }

    /// What was filled, piece by piece: nothing is copied.
    fn take(&mut self) -> PutPayload {
        self.filled = 0;
        std::mem::take(&mut self.filling).into_iter().collect()
    }

    /// Sends what was filled, once there is room for it on the way.
    async fn send(&mut self) -> Result<()> {
        if self.begun.is_none() {
            let begun = self.inner.put_multipart(&self.path).await;
            self.begun = Some(begun.map_err(|cause| self.failure(&cause))?);
        }
        if self.on_their_way.len() >= AT_A_TIME {
            self.one_arrived().await?;
        }
        let part = self.take();
        if let Some(upload) = &mut self.begun {
            let sending = upload.put_part(part);
            self.on_their_way.push_back(tokio::spawn(sending));
        }
        Ok(())
    }

    async fn one_arrived(&mut self) -> Result<()> {
        let Some(first) = self.on_their_way.pop_front() else {
            return Ok(());
        };
        let sent = first.await.map_err(Error::from).and_then(|sent| sent);
        sent.map_err(|cause| self.failure(&cause))
    }

    async fn finish(&mut self) -> Result<()> {
        if self.begun.is_none() {
            let whole = self.take();
            let put = self.inner.put(&self.path, whole).await;
            return put.map(drop).map_err(|cause| self.failure(&cause));
        }
        if !self.filling.is_empty() {
            self.send().await?;
        }
        while !self.on_their_way.is_empty() {
            self.one_arrived().await?;
        }
        if let Some(mut upload) = self.begun.take() {
            let done = upload.complete().await;
            self.begun = Some(upload);
            done.map_err(|cause| self.failure(&cause))?;
        }
        Ok(())
    }

    async fn give_up(&mut self) {
        for task in self.on_their_way.drain(..) {
            task.abort();
        }
        if let Some(mut upload) = self.begun.take() {
            // What cannot be removed is parts that nothing lists; buckets expire them.
            let _ = upload.abort().await;
        }
    }
}

#[async_trait]
impl Upload for Parts {
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.part.saturating_sub(self.filled);
            let piece = bytes.split_to(room.min(bytes.len()));
            self.filled = self.filled.saturating_add(piece.len());
            self.filling.push(piece);
            if self.filled >= self.part {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let done = self.finish().await;
        if done.is_err() {
            self.give_up().await;
        }
        done
    }

    async fn abort(mut self: Box<Self>) {
        self.give_up().await;
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for task in &self.on_their_way {
            task.abort();
        }
    }
}
