//! Buckets and containers: S3 and what speaks it, Google Cloud Storage, Azure Blob, through the
//! `object_store` crate.
//!
//! An object of more than one part goes up in parts, a few at a time, each tried again by itself;
//! until the last call completes it, nothing is listed. S3 is sent the SHA-256 of each part and of
//! each whole object and holds the bytes against it.

mod build;
mod http;
mod listing;
mod meaning;
mod page;

/// Reads any bytes as a page of a listing.
#[cfg(feature = "fuzzing")]
pub fn fuzzed(data: &[u8]) {
    let page = bytes::Bytes::copy_from_slice(data);
    let kept = page::of_names(page.clone());
    assert!(kept.len() <= page.len());
    assert_eq!(page::of_names(kept.clone()), kept, "once is enough");
}

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectStore,
    ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use tokio::task::JoinHandle;

use self::build::Client;
use self::http::{Answered, Content, Retained, answered};
use self::meaning::{Teller, is_absent};
use super::address::{Address, Scheme};
use super::contract::{Body, Level, Listed, Store, Upload, bounded, take, take_folder, too_long};
use super::name::check_name;
use super::settings::Settings;
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
    client: Client,
    scheme: Scheme,
    checks_content: bool,
    /// Whether an object's version tells of a bucket that keeps versions; Google's always has one.
    shows_versions: bool,
    /// Whether the service has refused the condition that a claim has.
    unconditional: AtomicBool,
    teller: Arc<Teller>,
}

impl Bucket {
    /// The bucket there; nothing is asked of it yet.
    pub(super) fn open(address: &Address, settings: &Settings) -> Result<Self> {
        let client = build::build(address, settings)?;
        Ok(Self {
            url: address.to_string(),
            prefix: address.prefix().to_owned(),
            scheme: address.scheme(),
            checks_content: address.scheme() == Scheme::S3,
            shows_versions: address.scheme() != Scheme::Gcs,
            unconditional: AtomicBool::new(false),
            teller: Arc::new(Teller::new(settings, client.looked_at.clone())),
            client,
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
        let doing = format!("{doing} {}/{name}", self.url);
        self.teller.tell(cause).doing(doing)
    }

    /// Asks for an object, or the beginning of it.
    async fn get(&self, path: &Path, range: Option<GetRange>) -> object_store::Result<GetResult> {
        let mut options = GetOptions {
            range,
            ..GetOptions::default()
        };
        options.extensions.insert(Content);
        self.client.objects.get_opts(path, options).await
    }

    /// The rest of an object by ranges: each is a request of its own, tried again by itself, and
    /// several are on their way at a time.
    fn ranges(&self, path: Path, doing: String, size: u64) -> Body {
        let (inner, teller) = (Arc::clone(&self.client.objects), Arc::clone(&self.teller));
        let starts = (PART as u64..size).step_by(PART);
        let pieces = futures_util::stream::iter(starts).map(move |start| {
            let (inner, teller) = (Arc::clone(&inner), Arc::clone(&teller));
            let (path, doing) = (path.clone(), doing.clone());
            async move {
                let end = size.min(start.saturating_add(PART as u64));
                let mut options = GetOptions {
                    range: Some(GetRange::Bounded(start..end)),
                    ..GetOptions::default()
                };
                options.extensions.insert(Content);
                let piece = async { inner.get_opts(&path, options).await?.bytes().await };
                let piece = piece.await;
                let piece = piece.map_err(|cause| teller.tell(&cause).doing(doing.clone()))?;
                if piece.len() as u64 != end.saturating_sub(start) {
                    let what = "it shrank while it was being read";
                    return Err(Failure::new(Kind::Store, what).doing(doing));
                }
                Ok(piece)
            }
        });
        pieces.buffered(AT_A_TIME).boxed()
    }

    /// Takes over what a page lists, by its name in this store.
    fn take_page(&self, page: ListResult, found: &mut Level) -> Result<()> {
        let cut = match self.prefix.len() {
            0 => 0,
            length => length + 1,
        };
        for meta in page.objects {
            if let Some(name) = meta.location.as_ref().get(cut..) {
                let object = Listed {
                    name: name.to_owned(),
                    size: meta.size,
                    modified: Timestamp::from_second(meta.last_modified.timestamp()).ok(),
                    etag: meta.e_tag,
                };
                take(&mut found.objects, object)?;
            }
        }
        for folder in page.common_prefixes {
            if let Some(name) = folder.as_ref().get(cut..) {
                take_folder(found, name.to_owned())?;
            }
        }
        Ok(())
    }

    /// Makes an object unless there is one, for a service that knows no conditions: it looks first.
    /// Of two at one moment both may win; who claims looks at a listing afterwards.
    async fn claim_by_look(&self, path: &Path, content: Bytes) -> object_store::Result<bool> {
        match self.client.objects.head(path).await {
            Ok(_) => return Ok(false),
            Err(cause) if is_absent(&cause) => {}
            Err(cause) => return Err(cause),
        }
        let put = self.client.objects.put(path, content.into()).await;
        put.map(|_| true)
    }
}

/// Whether a service refuses the condition of a claim as something that it does not know.
fn knows_no_condition(cause: &Error) -> bool {
    let told = || cause.to_string().contains("NotImplemented");
    matches!(cause, Error::NotImplemented { .. })
        || matches!(answered(cause), Some(Answered::NotImplemented(_)))
        || told()
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
        Ok(self.pages(folder, None).await?.objects)
    }

    async fn level(&self, folder: &str) -> Result<Level> {
        self.pages(folder, Some("/")).await
    }

    async fn read(&self, name: &str, most: u64) -> Result<Option<Body>> {
        let path = self.path(name)?;
        let doing = format!("reading {}/{name}", self.url);
        // Most objects are small: the first range is all of them, and tells the size. A byte more
        // than may come tells that there are too many.
        let end = most.saturating_add(1).min(PART as u64);
        let first = match self.get(&path, Some(GetRange::Bounded(0..end))).await {
            // Of an empty object no range can be had, and not every service has any.
            Err(cause) if matches!(answered(&cause), Some(Answered::NoRange)) => {
                self.get(&path, None).await
            }
            other => other,
        };
        let first = match first {
            Err(cause) if is_absent(&cause) => return Ok(None),
            other => other.map_err(|cause| self.teller.tell(&cause).doing(doing.clone()))?,
        };
        let size = first.meta.size;
        if size > most {
            return Err(too_long(&doing, most));
        }
        let came = first.range.end;
        let (teller, told) = (Arc::clone(&self.teller), doing.clone());
        let first = first
            .into_stream()
            .map_err(move |cause| teller.tell(&cause).doing(told.clone()));
        let whole = match came < size {
            true => first.chain(self.ranges(path, doing.clone(), size)).boxed(),
            false => first.boxed(),
        };
        Ok(Some(bounded(whole, doing, most)))
    }

    async fn stage(&self, name: &str, size: u64) -> Result<Box<dyn Upload>> {
        let least = usize::try_from(size / PARTS).unwrap_or(usize::MAX);
        Ok(Box::new(Parts {
            inner: Arc::clone(&self.client.objects),
            teller: Arc::clone(&self.teller),
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
        if !self.unconditional.load(Ordering::Relaxed) {
            let options = PutOptions::from(PutMode::Create);
            let put = self
                .client
                .objects
                .put_opts(&path, content.clone().into(), options);
            match put.await {
                Ok(_) => return Ok(true),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => return Ok(false),
                Err(cause) if knows_no_condition(&cause) => {
                    self.unconditional.store(true, Ordering::Relaxed);
                }
                Err(cause) => return Err(self.failure("claiming", name, &cause)),
            }
        }
        let made = self.claim_by_look(&path, content).await;
        made.map_err(|cause| self.failure("claiming", name, &cause))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        match self.client.objects.delete(&self.path(name)?).await {
            Err(cause) if is_absent(&cause) => Ok(()),
            other => other.map_err(|cause| self.failure("removing", name, &cause)),
        }
    }

    async fn keeps_versions(&self, name: &str) -> Result<bool> {
        if !self.shows_versions {
            return Ok(false);
        }
        match self.client.objects.head(&self.path(name)?).await {
            Err(cause) if is_absent(&cause) => Ok(false),
            // S3 has an object without a version in a bucket whose versioning was suspended.
            Ok(meta) => Ok(meta.version.is_some_and(|version| version != "null")),
            Err(cause) => Err(self.failure("reading", name, &cause)),
        }
    }

    async fn retained_until(&self, name: &str) -> Result<Option<Timestamp>> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        match self
            .client
            .objects
            .get_opts(&self.path(name)?, options)
            .await
        {
            Err(cause) if is_absent(&cause) => Ok(None),
            Ok(found) => Ok(found.extensions.get::<Retained>().map(|until| until.0)),
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
    teller: Arc<Teller>,
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
        self.teller.tell(cause).doing(self.doing.clone())
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
            // If completing it failed, it is still to be aborted.
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
