//! The connection that a store has, and the next one when it breaks.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error;
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};
use tokio::sync::Mutex;

use super::connect;
use super::protocol::{AT_A_TIME, Entry, REQUEST, failed, is, parent};
use crate::error::Result;
use crate::store::objects::address::Address;
use crate::store::objects::contract::MAX_OBJECTS;
use crate::store::objects::settings::Settings;

/// The pause before the first connection that replaces one; it doubles with each that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The longest name that a file system has.
const NAME_MAX: usize = 255;
/// Bytes of all names of a directory that are read: as many as ordinary ones could have.
const MAX_NAMES: usize = MAX_OBJECTS * NAME_MAX;

/// A connection, which lasts as long as anything uses it.
pub(super) struct Link {
    pub(super) raw: RawSftpSession,
    session: connect::Session,
}

/// A host, and the connection to it that is in use.
pub(super) struct Host {
    address: Address,
    settings: Settings,
    current: Mutex<Arc<Link>>,
}

/// Whether it is the connection that failed, and not what was asked.
pub(super) fn is_broken(cause: &Error) -> bool {
    match cause {
        Error::IO(_) | Error::Timeout | Error::UnexpectedBehavior(_) => true,
        Error::Status(status) => matches!(
            status.status_code,
            StatusCode::ConnectionLost | StatusCode::NoConnection
        ),
        Error::Limited(_) | Error::UnexpectedPacket => false,
    }
}

impl Host {
    /// Connects; a host that cannot be reached at first is not waited for.
    pub(super) async fn open(address: &Address, settings: &Settings) -> Result<Self> {
        let link = Self::connect(address, settings).await?;
        Ok(Self {
            address: address.clone(),
            settings: settings.clone(),
            current: Mutex::new(Arc::new(link)),
        })
    }

    async fn connect(address: &Address, settings: &Settings) -> Result<Link> {
        let (raw, session) = connect::connect(address, settings).await?;
        Ok(Link { raw, session })
    }

    /// The connection in use.
    pub(super) async fn link(&self) -> Arc<Link> {
        Arc::clone(&*self.current.lock().await)
    }

    /// Does something over the connection. If the connection breaks it is done again over a new
    /// one: what is done must bear that. No new one is looked for once the settings' patience has
    /// passed without any success.
    pub(super) async fn again<T, F>(
        &self,
        doing: &str,
        work: impl Fn(Arc<Link>) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, Error>> + Send,
    {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut link = self.link().await;
        loop {
            let cause = match work(Arc::clone(&link)).await {
                Err(cause) if is_broken(&cause) => cause,
                other => return other.map_err(|cause| failed(doing, &cause)),
            };
            // It would come again.
            if let Some(problem) = link.session.too_long.problem() {
                return Err(failed(doing, &Error::Limited(problem)));
            }
            loop {
                if begun.elapsed() + pause > self.settings.patience {
                    return Err(failed(doing, &cause));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                // What broke says why, once patience ends.
                if let Ok(next) = self.instead_of(&link).await {
                    link = next;
                    break;
                }
            }
        }
    }

    /// A connection in a broken one's stead; several who lost the same one share the next.
    async fn instead_of(&self, broken: &Arc<Link>) -> Result<Arc<Link>> {
        let mut current = self.current.lock().await;
        if Arc::ptr_eq(&current, broken) {
            *current = Arc::new(Self::connect(&self.address, &self.settings).await?);
        }
        Ok(Arc::clone(&current))
    }
}

/// A file that is open, and over which connection.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) link: Arc<Link>,
    pub(super) handle: String,
}

impl Seat {
    /// Opens a file.
    pub(super) async fn open(
        link: Arc<Link>,
        path: &str,
        flags: OpenFlags,
    ) -> std::result::Result<Self, Error> {
        let attrs = FileAttributes {
            permissions: flags
                .contains(OpenFlags::CREATE)
                .then_some(crate::sys::fs::FILE_MODE),
            ..FileAttributes::empty()
        };
        let handle = link.raw.open(path, flags, attrs).await?.handle;
        Ok(Self { link, handle })
    }

    /// The same file over this connection: it is opened again where the connection is another.
    pub(super) async fn over(
        self,
        link: Arc<Link>,
        path: &str,
        flags: OpenFlags,
    ) -> std::result::Result<Self, Error> {
        if Arc::ptr_eq(&self.link, &link) {
            return Ok(self);
        }
        Self::open(link, path, flags).await
    }
}

impl Link {
    /// Makes a directory's entries durable, where the server opens directories as files.
    pub(super) async fn sync_dir(&self, dir: &str) {
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

    /// Reads up to a piece's bytes at an offset, in their own requests.
    pub(super) async fn read_piece(
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
                    if data.len() as u64 > u64::from(left) {
                        let what = "the server sent more than was requested".to_owned();
                        return Err(Error::Limited(what));
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

    /// Writes a piece at an offset, in their own requests.
    pub(super) async fn write_piece(
        &self,
        handle: &str,
        start: u64,
        bytes: &Bytes,
    ) -> std::result::Result<(), Error> {
        let requests = (0..bytes.len()).step_by(REQUEST).map(|from| {
            let at = start.saturating_add(from as u64);
            let to = bytes.len().min(from.saturating_add(REQUEST));
            self.raw.write(handle, at, bytes.slice(from..to).to_vec())
        });
        futures_util::stream::iter(requests)
            .buffer_unordered(AT_A_TIME)
            .try_for_each(|_| async { Ok(()) })
            .await
    }

    /// Makes a directory unless it is there.
    pub(super) async fn mkdir(&self, at: &str) -> std::result::Result<(), Error> {
        if self.raw.stat(at).await.is_ok() {
            return Ok(());
        }
        let attrs = FileAttributes {
            permissions: Some(crate::sys::fs::DIR_MODE),
            ..FileAttributes::empty()
        };
        match self.raw.mkdir(at, attrs).await {
            // Another one was faster.
            Err(_) if self.raw.stat(at).await.is_ok() => Ok(()),
            Err(cause) => Err(cause),
            Ok(_) => {
                self.sync_dir(parent(at)).await;
                Ok(())
            }
        }
    }

    /// What is in a directory. A name is one part: what a host calls `a/b` is not an entry of it.
    pub(super) async fn entries(&self, dir: &str) -> std::result::Result<Vec<Entry>, Error> {
        let handle = self.raw.opendir(dir).await?.handle;
        let mut found = Vec::new();
        // Each answer counts, as one without names is one too, and each name, also one that is passed
        // over: a hostile host could continue with those for ever.
        let (mut seen, mut bytes) = (0usize, 0usize);
        let read = loop {
            let names = match self.raw.readdir(&handle).await {
                Ok(names) => names,
                Err(cause) if is(&cause, StatusCode::Eof) => break Ok(()),
                Err(cause) => break Err(cause),
            };
            let lengths = names.files.iter().map(|file| file.filename.len());
            bytes = lengths.fold(bytes, usize::saturating_add);
            seen = seen.saturating_add(1).saturating_add(names.files.len());
            if seen > MAX_OBJECTS || bytes > MAX_NAMES {
                let what = format!("it has more than {MAX_OBJECTS} entries, or enormous names");
                break Err(Error::Limited(what));
            }
            let one = |name: &str| {
                name.len() <= NAME_MAX && !name.contains('/') && !["", ".", ".."].contains(&name)
            };
            let files = names.files.into_iter();
            found.extend(files.filter(|file| one(&file.filename)).map(|file| {
                let size = file.attrs.size.unwrap_or(0);
                let modified = file.attrs.mtime.map(i64::from);
                let modified = modified.and_then(|time| Timestamp::from_second(time).ok());
                (file.filename, file.attrs.is_dir(), size, modified)
            }));
        };
        // The server closes what is left open.
        let _ = self.raw.close(&handle).await;
        read.map(|()| found)
    }

    /// Renames over what is there.
    pub(super) async fn replace(&self, from: &str, to: &str) -> std::result::Result<(), Error> {
        let mut data = Vec::new();
        for path in [from, to] {
            let length = u32::try_from(path.len()).unwrap_or(u32::MAX);
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(path.as_bytes());
        }
        match self.raw.extended("posix-rename@openssh.com", data).await? {
            Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
            Packet::Status(status) if status.status_code == StatusCode::OpUnsupported => {
                // Without it there would be a moment without any; a set's Manifest is never
                // replaced, and everything before it may be sent again.
                let _ = self.raw.remove(to).await;
                self.raw.rename(from, to).await.map(drop)
            }
            Packet::Status(status) => Err(Error::Status(status)),
            _ => Err(Error::UnexpectedPacket),
        }
    }
}
