//! A directory on another host, reached by SFTP (draft-ietf-secsh-filexfer-02, version 3, with
//! OpenSSH's extensions as in its PROTOCOL file), without an ssh program.
//!
//! An object is written beside its name, fsynced where the server can (`fsync@openssh.com`) and
//! renamed over what was there (`posix-rename@openssh.com`). A claim is renamed by the protocol's
//! own rename, which does not replace.
//!
//! A connection that breaks is replaced by another, and what was being done continues over that: an
//! object that was being written from the last piece that was acknowledged.

mod connect;
mod known;
mod link;
mod packets;
mod protocol;

#[cfg(feature = "fuzzing")]
pub use known::fuzzed;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use russh_sftp::client::error::Error;
use russh_sftp::protocol::{OpenFlags, StatusCode};

use self::link::{Host, Link, Seat, is_broken};
use self::protocol::{Entry, is, parent};
use super::address::Address;
use super::contract::{
    Body, Level, Listed, MAX_DEPTH, MAX_OBJECTS, Store, Upload, bounded, take, take_folder,
    too_long,
};
use super::name::check_name;
use super::settings::Settings;
use crate::error::{Failure, Kind, Result};

/// Bytes of a piece that is read.
const PIECE: u64 = 1 << 20;
/// What the names of objects that are being written begin with.
const PART_PREFIX: &str = ".part-";
/// How they are opened, at first and over the next connection. Their names are random.
const WRITING: OpenFlags = OpenFlags::WRITE.union(OpenFlags::CREATE);

/// A directory on another host.
pub(super) struct Sftp {
    url: String,
    dir: String,
    host: Arc<Host>,
}

impl std::fmt::Debug for Sftp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sftp({})", self.url)
    }
}

impl Sftp {
    /// Connects, and finds the directory, which must be there.
    pub(super) async fn open(address: &Address, settings: &Settings) -> Result<Self> {
        let host = Host::open(address, settings).await?;
        // `/~/x` is below the home directory.
        let path = address.path().display().to_string();
        let asked = match path.strip_prefix("/~") {
            Some(rest) => format!(".{rest}"),
            None => path,
        };
        let url = address.to_string();
        let doing = format!("opening {url}");
        let look = |link: Arc<Link>| {
            let asked = asked.clone();
            async move {
                let real = link.raw.realpath(asked).await?;
                let dir = real.files.first().map(|file| file.filename.clone());
                let dir = dir.unwrap_or_default();
                let is_dir = link.raw.stat(&dir).await?.attrs.is_dir();
                Ok((dir, is_dir))
            }
        };
        let (dir, is_dir) = host.again(&doing, look).await?;
        if !is_dir {
            return Err(Failure::new(Kind::Store, "there is no such directory").doing(doing));
        }
        let host = Arc::new(host);
        Ok(Self { url, dir, host })
    }

    fn path(&self, name: &str) -> Result<String> {
        check_name(name)?;
        Ok(format!("{}/{name}", self.dir))
    }

    fn part(&self, path: &str) -> Result<String> {
        let random = crate::sys::random::bytes::<8>()?;
        Ok(format!(
            "{}/{PART_PREFIX}{}",
            parent(path),
            hex::encode(random)
        ))
    }

    /// Begins a file beside the one it is to be.
    async fn begin(&self, name: &str) -> Result<Part> {
        let to = self.path(name)?;
        self.mkdirs(parent(&to)).await?;
        let path = self.part(&to)?;
        let doing = format!("writing {}/{name}", self.url);
        let open = |link| {
            let path = path.clone();
            async move { Seat::open(link, &path, WRITING).await }
        };
        let seat = self.host.again(&doing, open).await?;
        Ok(Part {
            host: Arc::clone(&self.host),
            doing,
            path,
            to,
            seat,
            closed: false,
            offset: 0,
        })
    }

    /// Makes the directories below the store's that are missing.
    async fn mkdirs(&self, dir: &str) -> Result<()> {
        let below = dir.strip_prefix(self.dir.as_str()).unwrap_or_default();
        let mut at = self.dir.clone();
        for part in below.split('/').filter(|part| !part.is_empty()) {
            at = format!("{at}/{part}");
            let make = |link: Arc<Link>| {
                let at = at.clone();
                async move { link.mkdir(&at).await }
            };
            self.host.again(&format!("creating {at}"), make).await?;
        }
        Ok(())
    }

    /// What is in a directory: names, whether it is one itself, and sizes; `None` if it is not.
    /// With `others` the directory may be another user's, and then nothing is seen of it.
    async fn entries(&self, dir: &str, others: bool) -> Result<Option<Vec<Entry>>> {
        let list = |link: Arc<Link>| {
            let dir = dir.to_owned();
            async move {
                match link.entries(&dir).await {
                    Err(cause) if is(&cause, StatusCode::NoSuchFile) => Ok(None),
                    Err(cause) if others && is(&cause, StatusCode::PermissionDenied) => Ok(None),
                    other => other.map(Some),
                }
            }
        };
        self.host.again(&format!("listing {dir}"), list).await
    }

    /// Removes a file or an empty directory; one that is not there is no error.
    async fn drop_entry(&self, path: &str, is_dir: bool) -> Result<()> {
        let drop_it = |link: Arc<Link>| {
            let path = path.to_owned();
            async move {
                let dropped = match is_dir {
                    true => link.raw.rmdir(path).await,
                    false => link.raw.remove(path).await,
                };
                match dropped {
                    Err(cause) if !is(&cause, StatusCode::NoSuchFile) => Err(cause),
                    _ => Ok(()),
                }
            }
        };
        self.host.again(&format!("removing {path}"), drop_it).await
    }

    /// Makes a directory's entries durable, as well as the server can.
    async fn sync_dir(&self, dir: &str) {
        self.host.link().await.sync_dir(dir).await;
    }
}

/// That a host never stops naming entries.
fn endless(url: &str) -> Failure {
    let what = format!("it has more than {MAX_OBJECTS} files: use a separate folder for backups");
    Failure::new(Kind::Store, what).doing(format!("listing {url}"))
}

#[async_trait]
impl Store for Sftp {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn checks_content(&self) -> bool {
        false
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let from = match folder {
            "" => self.dir.clone(),
            folder => self.path(folder)?,
        };
        let mut found = Vec::new();
        let mut dirs = vec![(from, 1)];
        let mut seen = 0usize;
        while let Some((dir, depth)) = dirs.pop() {
            let entries = self.entries(&dir, depth > 1).await?.unwrap_or_default();
            seen = seen.saturating_add(entries.len());
            if seen > MAX_OBJECTS {
                return Err(endless(&self.url));
            }
            for (name, is_dir, size, modified) in entries {
                let path = format!("{dir}/{name}");
                let below = path.get(self.dir.len() + 1..).unwrap_or_default();
                // Hidden names are parts, and what others keep here.
                if !is_dir {
                    let object = Listed {
                        name: below.to_owned(),
                        size,
                        modified,
                        etag: None,
                    };
                    take(&mut found, object)
                        .map_err(|failure| failure.doing(format!("listing {}", self.url)))?;
                } else if depth < MAX_DEPTH && check_name(below).is_ok() {
                    dirs.push((path, depth + 1));
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn level(&self, folder: &str) -> Result<Level> {
        let dir = match folder {
            "" => self.dir.clone(),
            folder => self.path(folder)?,
        };
        let mut found = Level::default();
        let entries = self.entries(&dir, !folder.is_empty()).await?;
        for (name, is_dir, size, modified) in entries.unwrap_or_default() {
            let path = format!("{dir}/{name}");
            let name = path
                .get(self.dir.len() + 1..)
                .unwrap_or_default()
                .to_owned();
            let taken = match is_dir {
                true => take_folder(&mut found, name),
                false => {
                    let object = Listed {
                        name,
                        size,
                        modified,
                        etag: None,
                    };
                    take(&mut found.objects, object)
                }
            };
            taken.map_err(|failure| failure.doing(format!("listing {}", self.url)))?;
        }
        found.folders.sort_unstable();
        found.objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn read(&self, name: &str, most: u64) -> Result<Option<Body>> {
        let path = self.path(name)?;
        let doing = format!("reading {}/{name}", self.url);
        let open = |link| {
            let path = path.clone();
            async move {
                let seat = match Seat::open(link, &path, OpenFlags::READ).await {
                    Err(cause) if is(&cause, StatusCode::NoSuchFile) => return Ok(None),
                    other => other?,
                };
                let attrs = seat.link.raw.fstat(&seat.handle).await?;
                Ok(Some((seat, attrs.attrs.size.unwrap_or(0))))
            }
        };
        let Some((seat, size)) = self.host.again(&doing, open).await? else {
            return Ok(None);
        };
        if size > most {
            return Err(too_long(&doing, most));
        }
        let told = doing.clone();
        let host = Arc::clone(&self.host);
        let pieces = futures_util::stream::try_unfold((0u64, seat), move |(at, seat)| {
            let (host, path, doing) = (Arc::clone(&host), path.clone(), doing.clone());
            async move {
                if at >= size {
                    let _ = seat.link.raw.close(&seat.handle).await;
                    return Ok(None);
                }
                let end = size.min(at.saturating_add(PIECE));
                let take = |link| {
                    let (seat, path) = (seat.clone(), path.clone());
                    async move {
                        let seat = seat.over(link, &path, OpenFlags::READ).await?;
                        let piece = seat.link.read_piece(&seat.handle, at, end).await?;
                        Ok((piece, seat))
                    }
                };
                let (piece, seat) = host.again(&doing, take).await?;
                if piece.len() as u64 != end.saturating_sub(at) {
                    let what = "it shrank while it was being read";
                    return Err(Failure::new(Kind::Store, what).doing(doing));
                }
                Ok(Some((piece, (end, seat))))
            }
        });
        Ok(Some(bounded(pieces.boxed(), told, most)))
    }

    async fn stage(&self, name: &str, _size: u64) -> Result<Box<dyn Upload>> {
        Ok(Box::new(self.begin(name).await?))
    }

    async fn claim(&self, name: &str, content: Bytes) -> Result<bool> {
        let mut part = self.begin(name).await?;
        let written = match part.write(content).await {
            Ok(()) => part.finish().await,
            failed => failed,
        };
        if let Err(failure) = written {
            part.give_up().await;
            return Err(failure);
        }
        // Where the answer is lost and it is asked again, the name is taken: what is there decides.
        let rename = |link: Arc<Link>| {
            let (from, to) = (part.path.clone(), part.to.clone());
            async move {
                match link.raw.rename(from, to.clone()).await {
                    Ok(_) => Ok(true),
                    // Version 3 has no code of its own for a name that is taken.
                    Err(Error::Status(_)) if link.raw.stat(to).await.is_ok() => Ok(false),
                    Err(cause) => Err(cause),
                }
            }
        };
        let renamed = self.host.again(&part.doing, rename).await;
        match &renamed {
            Ok(true) => self.sync_dir(parent(&part.to)).await,
            _ => part.give_up().await,
        }
        renamed
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        self.drop_entry(&path, false).await?;
        self.sync_dir(parent(&path)).await;
        Ok(())
    }

    async fn remove_folder(&self, folder: &str) -> Result<()> {
        let mut dirs = vec![(self.path(folder)?, 1)];
        let mut empty = Vec::new();
        while let Some((dir, depth)) = dirs.pop() {
            if depth > MAX_DEPTH {
                let what = "its folders are nested deeper than a backup's";
                let doing = format!("removing {}/{folder}", self.url);
                return Err(Failure::new(Kind::Store, what).doing(doing));
            }
            let Some(entries) = self.entries(&dir, false).await? else {
                continue;
            };
            for (name, is_dir, ..) in entries {
                let path = format!("{dir}/{name}");
                if is_dir {
                    dirs.push((path, depth + 1));
                } else {
                    self.drop_entry(&path, false).await?;
                }
            }
            empty.push(dir);
        }
        // The deepest were found last, and must go first.
        for dir in empty.into_iter().rev() {
            self.drop_entry(&dir, true).await?;
        }
        Ok(())
    }
}

/// An object being written beside its name.
struct Part {
    host: Arc<Host>,
    doing: String,
    path: String,
    to: String,
    seat: Seat,
    /// Whether the seat's handle was given back. A server gives its number to the next file that is
    /// opened: a second close would close that one.
    closed: bool,
    offset: u64,
}

impl Part {
    /// Makes the content durable and closes it.
    async fn finish(&mut self) -> Result<()> {
        self.closed = true;
        let finish = |link| {
            let (seat, path) = (self.seat.clone(), self.path.clone());
            async move {
                let seat = seat.over(link, &path, WRITING).await?;
                let synced = match seat.link.raw.fsync(&seat.handle).await {
                    Err(cause) if is_broken(&cause) => return Err(cause),
                    Err(cause) if is(&cause, StatusCode::OpUnsupported) => Ok(()),
                    other => other.map(drop),
                };
                let closed = seat.link.raw.close(&seat.handle).await.map(drop);
                synced.and(closed)
            }
        };
        self.host.again(&self.doing, finish).await
    }

    /// Removes what was written. A hidden rest that stays is never listed, and goes with its folder.
    async fn give_up(&self) {
        if !self.closed {
            // The handle is the seat's connection's; the one in use now may be another.
            let _ = self.seat.link.raw.close(&self.seat.handle).await;
        }
        let _ = self.host.link().await.raw.remove(&self.path).await;
    }

    /// Renames over what is there.
    async fn replace(&self) -> Result<()> {
        let replace = |link: Arc<Link>| {
            let (from, to, size) = (self.path.clone(), self.to.clone(), self.offset);
            async move {
                match link.replace(&from, &to).await {
                    // The answer to the first try was lost, and not what it did.
                    Err(cause) if is(&cause, StatusCode::NoSuchFile) => {
                        let there = link.raw.stat(to).await.map(|there| there.attrs.size);
                        match there {
                            Ok(Some(there)) if there == size => Ok(()),
                            _ => Err(cause),
                        }
                    }
                    other => other,
                }
            }
        };
        self.host.again(&self.doing, replace).await
    }
}

#[async_trait]
impl Upload for Part {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        let write = |link| {
            let (seat, path) = (self.seat.clone(), self.path.clone());
            let (at, bytes) = (self.offset, bytes.clone());
            async move {
                let seat = seat.over(link, &path, WRITING).await?;
                seat.link.write_piece(&seat.handle, at, &bytes).await?;
                Ok(seat)
            }
        };
        self.seat = self.host.again(&self.doing, write).await?;
        self.offset = self.offset.saturating_add(length);
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let done = match self.finish().await {
            Ok(()) => self.replace().await,
            failed => failed,
        };
        match done {
            Ok(()) => self.host.link().await.sync_dir(parent(&self.to)).await,
            Err(_) => self.give_up().await,
        }
        done
    }

    async fn abort(self: Box<Self>) {
        self.give_up().await;
    }
}
