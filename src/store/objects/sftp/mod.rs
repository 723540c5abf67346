//! A directory on another host, reached by SFTP (draft-ietf-secsh-filexfer-02, version 3, with
//! OpenSSH's extensions as in its PROTOCOL file), without an ssh program.
//!
//! An object is written beside its name, fsynced where the server can (`fsync@openssh.com`) and
//! renamed over what was there (`posix-rename@openssh.com`). A claim is renamed by the protocol's
//! own rename, which does not replace.

mod connect;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error;
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};

use super::{Address, Body, Listed, Settings, Store, Upload, check_name};
use crate::error::{Doing, Failure, Kind, Result};

/// Bytes of one request; every server takes as many.
const REQUEST: usize = 32 << 10;
/// Requests on their way at a time.
const AT_A_TIME: usize = 32;
/// Bytes of a piece that is read.
const PIECE: u64 = 1 << 20;
/// What the names of objects that are being written begin with.
const PART_PREFIX: &str = ".part-";

/// A connection, which lasts as long as anything uses it.
struct Link {
    raw: RawSftpSession,
    _session: connect::Session,
}

/// A directory on another host.
pub(super) struct Sftp {
    url: String,
    dir: String,
    link: Arc<Link>,
}

impl std::fmt::Debug for Sftp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sftp({})", self.url)
    }
}

fn failed(doing: impl std::fmt::Display, cause: &Error) -> Failure {
    Failure::new(Kind::Store, cause.to_string()).doing(doing.to_string())
}

fn is(cause: &Error, code: StatusCode) -> bool {
    matches!(cause, Error::Status(status) if status.status_code == code)
}

impl Sftp {
    /// Connects, and finds the directory, which must be there.
    pub(super) async fn open(address: &Address, settings: &Settings) -> Result<Self> {
        let (raw, session) = connect::connect(address, settings).await?;
        // `/~/x` is below the home directory.
        let path = address.path().display().to_string();
        let asked = match path.strip_prefix("/~") {
            Some(rest) => format!(".{rest}"),
            None => path,
        };
        let url = address.to_string();
        let doing = || format!("opening {url}");
        let real = raw.realpath(asked).await.map_err(|e| failed(doing(), &e))?;
        let dir = real
            .files
            .first()
            .map(|file| file.filename.clone())
            .unwrap_or_default();
        let attrs = raw.stat(&dir).await.map_err(|e| failed(doing(), &e))?;
        if !attrs.attrs.is_dir() {
            return Err(Failure::new(Kind::Store, "there is no such directory").doing(doing()));
        }
        let link = Arc::new(Link {
            raw,
            _session: session,
        });
        Ok(Self { url, dir, link })
    }

    fn path(&self, name: &str) -> Result<String> {
        check_name(name)?;
        Ok(format!("{}/{name}", self.dir))
    }

    fn part(&self, path: &str) -> Result<String> {
        let mut random = [0u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(std::io::Error::from)
            .doing(Kind::Unexpected, || "asking for random bytes")?;
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
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let attrs = FileAttributes {
            permissions: Some(crate::sys::fs::FILE_MODE),
            ..FileAttributes::empty()
        };
        let doing = format!("writing {}/{name}", self.url);
        let opened = self.link.raw.open(&path, flags, attrs).await;
        let handle = opened.map_err(|e| failed(&doing, &e))?.handle;
        Ok(Part {
            link: Arc::clone(&self.link),
            doing,
            path,
            to,
            handle,
            offset: 0,
        })
    }

    /// Makes the directories below the store's that are missing.
    async fn mkdirs(&self, dir: &str) -> Result<()> {
        let below = dir.strip_prefix(self.dir.as_str()).unwrap_or_default();
        let mut at = self.dir.clone();
        for part in below.split('/').filter(|part| !part.is_empty()) {
            at = format!("{at}/{part}");
            if self.link.raw.stat(&at).await.is_ok() {
                continue;
            }
            let attrs = FileAttributes {
                permissions: Some(crate::sys::fs::DIR_MODE),
                ..FileAttributes::empty()
            };
            match self.link.raw.mkdir(&at, attrs).await {
                // Another one was faster.
                Err(_) if self.link.raw.stat(&at).await.is_ok() => {}
                made => {
                    made.map_err(|e| failed(format!("making {at}"), &e))?;
                    self.link.sync_dir(parent(&at)).await;
                }
            }
        }
        Ok(())
    }

    /// What is in a directory: names, whether it is one itself, and sizes; `None` where it is not.
    async fn entries(&self, dir: &str) -> Result<Option<Vec<(String, bool, u64)>>> {
        let raw = &self.link.raw;
        let doing = || format!("listing {dir}");
        let handle = match raw.opendir(dir).await {
            Err(cause) if is(&cause, StatusCode::NoSuchFile) => return Ok(None),
            other => other.map_err(|e| failed(doing(), &e))?.handle,
        };
        let mut found = Vec::new();
        let read = loop {
            match raw.readdir(&handle).await {
                Ok(names) => found.extend(
                    names
                        .files
                        .into_iter()
                        .filter(|file| file.filename != "." && file.filename != "..")
                        .map(|file| {
                            let size = file.attrs.size.unwrap_or(0);
                            (file.filename, file.attrs.is_dir(), size)
                        }),
                ),
                Err(cause) if is(&cause, StatusCode::Eof) => break Ok(()),
                Err(cause) => break Err(failed(doing(), &cause)),
            }
        };
        // The server closes what is left open.
        let _ = raw.close(&handle).await;
        read.map(|()| Some(found))
    }
}

/// The directory that an absolute path lies in.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Link {
    /// Makes a directory's entries durable, where the server opens directories as files.
    async fn sync_dir(&self, dir: &str) {
        let opened = self
            .raw
            .open(dir, OpenFlags::READ, FileAttributes::empty())
            .await;
        if let Ok(handle) = opened {
            // Not every server can; none says more than that.
            let _ = self.raw.fsync(&handle.handle).await;
            let _ = self.raw.close(&handle.handle).await;
        }
    }

    /// Reads up to a piece's bytes at an offset, in requests of their own.
    async fn read_piece(
        &self,
        handle: &str,
        from: u64,
        to: u64,
    ) -> std::result::Result<Bytes, Error> {
        let starts = (from..to).step_by(REQUEST);
        let requests = starts.map(|start| {
            let end = to.min(start.saturating_add(REQUEST as u64));
            async move {
                let mut got = Vec::new();
                // A server may answer with less than was asked for.
                while start.saturating_add(got.len() as u64) < end {
                    let at = start.saturating_add(got.len() as u64);
                    let left = u32::try_from(end.saturating_sub(at)).unwrap_or(u32::MAX);
                    let data = self.raw.read(handle, at, left).await?.data;
                    if data.is_empty() {
                        break;
                    }
                    got.extend_from_slice(&data);
                }
                Ok::<_, Error>(got)
            }
        });
        let pieces: Vec<Vec<u8>> = futures_util::stream::iter(requests)
            .buffered(AT_A_TIME)
            .try_collect()
            .await?;
        Ok(Bytes::from(pieces.concat()))
    }

    /// Renames over what is there.
    async fn replace(&self, from: &str, to: &str) -> std::result::Result<(), Error> {
        let mut data = Vec::new();
        for path in [from, to] {
            let length = u32::try_from(path.len()).unwrap_or(u32::MAX);
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(path.as_bytes());
        }
        match self.raw.extended("posix-rename@openssh.com", data).await? {
            Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
            Packet::Status(status) if status.status_code == StatusCode::OpUnsupported => {
                // Without it a moment is left in which there is none; a set's Manifest is never
                // replaced, and everything before it may be sent again.
                let _ = self.raw.remove(to).await;
                self.raw.rename(from, to).await.map(drop)
            }
            Packet::Status(status) => Err(Error::Status(status)),
            _ => Err(Error::UnexpectedPacket),
        }
    }
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
        let mut dirs = vec![from];
        while let Some(dir) = dirs.pop() {
            for (name, is_dir, size) in self.entries(&dir).await?.unwrap_or_default() {
                let path = format!("{dir}/{name}");
                let below = path
                    .get(self.dir.len() + 1..)
                    .unwrap_or_default()
                    .to_owned();
                // Hidden names are parts, and what others keep here.
                if check_name(&below).is_err() {
                    continue;
                }
                if is_dir {
                    dirs.push(path);
                } else {
                    found.push(Listed { name: below, size });
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn read(&self, name: &str) -> Result<Option<Body>> {
        let path = self.path(name)?;
        let doing = format!("reading {}/{name}", self.url);
        let raw = &self.link.raw;
        let opened = raw
            .open(&path, OpenFlags::READ, FileAttributes::empty())
            .await;
        let handle = match opened {
            Err(cause) if is(&cause, StatusCode::NoSuchFile) => return Ok(None),
            other => other.map_err(|e| failed(&doing, &e))?.handle,
        };
        let attrs = raw.fstat(&handle).await.map_err(|e| failed(&doing, &e))?;
        let size = attrs.attrs.size.unwrap_or(0);
        let link = Arc::clone(&self.link);
        let pieces = futures_util::stream::try_unfold(0u64, move |at| {
            let (link, handle, doing) = (Arc::clone(&link), handle.clone(), doing.clone());
            async move {
                if at >= size {
                    let _ = link.raw.close(&handle).await;
                    return Ok(None);
                }
                let end = size.min(at.saturating_add(PIECE));
                let piece = link.read_piece(&handle, at, end).await;
                let piece = piece.map_err(|e| failed(&doing, &e))?;
                if piece.len() as u64 != end.saturating_sub(at) {
                    let what = "it became shorter while it was read";
                    return Err(Failure::new(Kind::Store, what).doing(doing));
                }
                Ok(Some((piece, end)))
            }
        });
        Ok(Some(pieces.boxed()))
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
        let renamed = match written {
            Ok(()) => self.link.raw.rename(&part.path, &part.to).await,
            Err(failure) => {
                part.give_up().await;
                return Err(failure);
            }
        };
        let Err(cause) = renamed else {
            self.link.sync_dir(parent(&part.to)).await;
            return Ok(true);
        };
        part.give_up().await;
        // Version 3 has no code of its own for a name that is taken.
        match self.link.raw.stat(&part.to).await {
            Ok(_) => Ok(false),
            Err(_) => Err(failed(&part.doing, &cause)),
        }
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        match self.link.raw.remove(&path).await {
            Err(cause) if is(&cause, StatusCode::NoSuchFile) => return Ok(()),
            other => other.map_err(|e| failed(format!("removing {}/{name}", self.url), &e))?,
        };
        self.link.sync_dir(parent(&path)).await;
        Ok(())
    }

    async fn remove_folder(&self, folder: &str) -> Result<()> {
        let mut dirs = vec![self.path(folder)?];
        let mut empty = Vec::new();
        while let Some(dir) = dirs.pop() {
            let Some(entries) = self.entries(&dir).await? else {
                continue;
            };
            for (name, is_dir, _) in entries {
                let path = format!("{dir}/{name}");
                if is_dir {
                    dirs.push(path);
                } else {
                    let removed = self.link.raw.remove(&path).await;
                    removed.map_err(|e| failed(format!("removing {path}"), &e))?;
                }
            }
            empty.push(dir);
        }
        for dir in empty.into_iter().rev() {
            let removed = self.link.raw.rmdir(&dir).await;
            removed.map_err(|e| failed(format!("removing {dir}"), &e))?;
        }
        Ok(())
    }
}

/// An object being written beside its name.
struct Part {
    link: Arc<Link>,
    doing: String,
    path: String,
    to: String,
    handle: String,
    offset: u64,
}

impl Part {
    /// Makes the content durable and closes it.
    async fn finish(&self) -> Result<()> {
        match self.link.raw.fsync(&self.handle).await {
            Err(cause) if is(&cause, StatusCode::OpUnsupported) => {}
            other => drop(other.map_err(|e| failed(&self.doing, &e))?),
        }
        let closed = self.link.raw.close(&self.handle).await;
        closed.map(drop).map_err(|e| failed(&self.doing, &e))
    }

    async fn give_up(&self) {
        // A hidden rest is never listed, and goes with its folder.
        let _ = self.link.raw.close(&self.handle).await;
        let _ = self.link.raw.remove(&self.path).await;
    }
}

#[async_trait]
impl Upload for Part {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let start = self.offset;
        let pieces = (0..bytes.len()).step_by(REQUEST);
        let requests = pieces.map(|from| {
            let at = start.saturating_add(from as u64);
            let to = bytes.len().min(from.saturating_add(REQUEST));
            let piece = bytes.slice(from..to).to_vec();
            self.link.raw.write(&self.handle, at, piece)
        });
        let sent: std::result::Result<Vec<_>, Error> = futures_util::stream::iter(requests)
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await;
        sent.map_err(|e| failed(&self.doing, &e))?;
        self.offset = start.saturating_add(bytes.len() as u64);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        if let Err(failure) = self.finish().await {
            self.give_up().await;
            return Err(failure);
        }
        if let Err(cause) = self.link.replace(&self.path, &self.to).await {
            self.give_up().await;
            return Err(failed(&self.doing, &cause));
        }
        self.link.sync_dir(parent(&self.to)).await;
        Ok(())
    }

    async fn abort(self: Box<Self>) {
        self.give_up().await;
    }
}
