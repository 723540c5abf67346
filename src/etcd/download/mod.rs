//! Takes a snapshot's stream to a file: received, hashed and written at the same time, in bounded
//! memory, and checked for completeness by its own trailer rather than by how the stream ended.
//!
//! The file is `database ++ SHA-256(database)`; the database's length is a multiple of 512, as
//! `etcdutl snapshot restore` expects before it looks for the trailer. A server announces the
//! database's length with its first message (`remaining_bytes` does not count the trailer); from
//! 3.6 on it also says its storage version. Both are accepted
//! (etcd's `server/etcdserver/api/v3rpc/maintenance.go`).

mod flow;
mod message;
mod pace;
mod sink;
mod trailer;
mod writer;

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use self::sink::{SnapshotSink, write_behind};

use self::flow::Flow;
use self::message::{Announced, Messages};
use self::pace::Pace;
use self::trailer::{Hashed, TRAILER};
use self::writer::Writer;
use crate::error::{Failure, Kind, Result};
use crate::etcd::client::{Connection, SnapshotReply};

/// The unit that a database's length must be a multiple of.
const SECTOR: u64 = 512;

/// How to download.
#[derive(Clone)]
#[non_exhaustive]
pub struct DownloadOptions {
    /// With next to none of the database for so long, the stream is given up, whatever else keeps
    /// the connection busy; so is a sink that takes nothing.
    pub stall_timeout: Duration,
    /// The most bytes per second; the server may be ahead by the connection's window.
    pub max_rate: Option<NonZeroU64>,
    /// Told of every batch that arrived, on the task that receives: it must not block.
    pub on_progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    /// Asked once the server has announced how many bytes the file will have; its failure ends the
    /// download.
    pub on_announced: Option<Arc<dyn Fn(u64) -> Result<()> + Send + Sync>>,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self {
            stall_timeout: Duration::from_secs(60),
            max_rate: None,
            on_progress: None,
            on_announced: None,
        }
    }
}

impl fmt::Debug for DownloadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadOptions")
            .field("stall_timeout", &self.stall_timeout)
            .field("max_rate", &self.max_rate)
            .finish_non_exhaustive()
    }
}

/// How far a download has come, in bytes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Received.
    pub received: u64,
    /// Expected in all, once the server has said so.
    pub total: Option<u64>,
}

/// A complete snapshot: its trailer has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Downloaded {
    /// Length of the file in bytes, trailer included.
    pub size: u64,
    /// SHA-256 of the whole file, trailer included, as `sha256sum` gives it.
    #[serde(serialize_with = "as_hex")]
    pub file_sha256: [u8; 32],
    /// SHA-256 of the database, which the trailer holds.
    #[serde(serialize_with = "as_hex")]
    pub database_sha256: [u8; 32],
    /// The server's storage version, from 3.6 on.
    pub storage_version: Option<String>,
    /// From asking for the snapshot until all was handed to the sink.
    pub elapsed: Duration,
    /// The part of it spent waiting for the server.
    pub waited_for_server: Duration,
    /// The part of it spent waiting for the sink.
    pub waited_for_sink: Duration,
}

fn as_hex<S: serde::Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

impl Downloaded {
    /// Bytes per second over the whole time.
    pub fn rate(&self) -> u64 {
        let nanos = self.elapsed.as_nanos().max(1);
        let rate = u128::from(self.size).saturating_mul(1_000_000_000) / nanos;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

/// Downloads a snapshot into a sink, and gives the sink back for the fsync.
///
/// There is no bound on the whole, only on standing still. Dropping the future ends it at once;
/// its thread stops after the write it is in.
///
/// # Errors
/// - [`Kind::Unreachable`]: the stream broke, stalled, ended early, or is not etcd's;
/// - [`Kind::BadBackup`]: it is complete, but without a trailer, with a wrong one, or of another
///   length than announced;
/// - [`Kind::Store`]: the sink failed, or took nothing for as long as the stall timeout.
pub async fn download<S: SnapshotSink>(
    connection: &Connection,
    sink: S,
    options: &DownloadOptions,
) -> Result<(S, Downloaded)> {
    let start = Instant::now();
    let reply = connection.snapshot().await?;
    let doing = format!("downloading the snapshot from {}", reply.endpoint());
    let receiver = Receiver {
        writer: Writer::start(sink, options.stall_timeout)?,
        pace: options
            .max_rate
            .map(|rate| Pace::new(rate, tokio::time::Instant::now())),
        reply,
        options,
        messages: Messages::default(),
        flow: Flow::new(options.stall_timeout),
        announced: false,
        received: 0,
        waited_for_server: Duration::ZERO,
        waited_for_sink: Duration::ZERO,
    };
    let received = receiver.run(start).await;
    received.map_err(|failure| failure.doing(doing))
}

/// The task's side of a download.
struct Receiver<'o, S> {
    reply: SnapshotReply,
    writer: Writer<S>,
    options: &'o DownloadOptions,
    messages: Messages,
    flow: Flow,
    /// Whether it was asked about the announced size.
    announced: bool,
    pace: Option<Pace>,
    received: u64,
    waited_for_server: Duration,
    waited_for_sink: Duration,
}

impl<S: SnapshotSink> Receiver<'_, S> {
    async fn run(mut self, start: Instant) -> Result<(S, Downloaded)> {
        let received = self.receive().await;
        received.map_err(|failure| match failure.kind() {
            Kind::Unreachable => failure.doing(self.how_far()),
            _ => failure,
        })?;
        let how_far = self.how_far();
        let finishing = Instant::now();
        let (sink, hashed) = self.writer.finish().await?;
        if !self.messages.is_between() {
            return Err(cut("within a message").doing(how_far));
        }
        let announced = self.messages.announced();
        check(&hashed, announced).map_err(|failure| failure.doing(how_far))?;
        let Some(database_sha256) = hashed.body else {
            return Err(no_trailer());
        };
        let downloaded = Downloaded {
            size: hashed.total,
            file_sha256: hashed.file,
            database_sha256,
            storage_version: announced.version.clone(),
            elapsed: start.elapsed(),
            waited_for_server: self.waited_for_server,
            waited_for_sink: self.waited_for_sink + finishing.elapsed(),
        };
        Ok((sink, downloaded))
    }

    async fn receive(&mut self) -> Result<()> {
        while let Some(piece) = self.next().await? {
            let mut full = false;
            let mut arrived = 0_u64;
            let writer = &mut self.writer;
            self.messages.take(piece, |blob| {
                arrived = arrived.saturating_add(blob.len() as u64);
                full = writer.add(blob);
            })?;
            self.received = self.received.saturating_add(arrived);
            self.flow.came(arrived);
            self.ask_about_the_size()?;
            if self.total().is_some_and(|total| self.received > total) {
                return Err(self.excess());
            }
            if full {
                let before = Instant::now();
                self.writer.send().await?;
                self.waited_for_sink += before.elapsed();
                self.tell();
            }
            if let Some(pace) = &mut self.pace
                && let Some(due) = pace.until(arrived, tokio::time::Instant::now())
            {
                tokio::time::sleep_until(due).await;
            }
        }
        self.tell();
        Ok(())
    }

    /// Asks, once, whether there is room for what the server announces.
    fn ask_about_the_size(&mut self) -> Result<()> {
        let Some(total) = self.total().filter(|_| !self.announced) else {
            return Ok(());
        };
        self.announced = true;
        match &self.options.on_announced {
            Some(ask) => ask(total),
            None => Ok(()),
        }
    }

    /// The stream's next piece. What is not the database, as empty messages and HTTP/2's pings, is no
    /// progress.
    async fn next(&mut self) -> Result<Option<bytes::Bytes>> {
        let before = Instant::now();
        let next = tokio::time::timeout(self.flow.left(), self.reply.next()).await;
        self.waited_for_server += before.elapsed();
        self.flow.waited(before.elapsed());
        match next {
            Ok(Ok(None)) => Ok(None),
            Ok(next) if !self.flow.is_stalled() => next,
            _ => Err(Failure::new(Kind::Unreachable, self.flow.to_string())),
        }
    }

    fn total(&self) -> Option<u64> {
        let database = self.messages.announced().database?;
        Some(database.saturating_add(TRAILER as u64))
    }

    fn tell(&self) {
        if let Some(on_progress) = &self.options.on_progress {
            on_progress(Progress {
                received: self.received,
                total: self.total(),
            });
        }
    }

    fn how_far(&self) -> String {
        match self.total() {
            Some(total) => format!("after {} of {total} bytes", self.received),
            None => format!("after {} bytes", self.received),
        }
    }

    fn excess(&self) -> Failure {
        Failure::new(
            Kind::BadBackup,
            format!(
                "the server announced {} bytes, but sent more",
                self.total().unwrap_or_default()
            ),
        )
    }
}

/// Judges a stream that ended well by what it brought.
fn check(hashed: &Hashed, announced: &Announced) -> Result<()> {
    let total = hashed.total;
    let trailer = TRAILER as u64;
    let Some(database) = announced.database else {
        return Err(cut("before the first message"));
    };
    let bad = |what: String| Err(Failure::new(Kind::BadBackup, what));
    if !hashed.has_trailer() {
        return match total.checked_sub(database) {
            None => Err(cut("before the database's end")),
            Some(0) => Err(no_trailer()),
            Some(part) if part < trailer => Err(cut("within the trailer")),
            Some(_) => bad(format!(
                "the trailer is wrong: expected the SHA-256 of the database received, {}, found {}",
                hashed.body.map(hex::encode).unwrap_or_default(),
                hex::encode(&hashed.tail)
            )),
        };
    }
    // The trailer holds, so nothing is missing; the lengths must still make sense. A server that
    // counts the trailer in is taken at its word.
    if total != database && total.checked_sub(trailer) != Some(database) {
        return bad(format!(
            "the server announced a database of {database} bytes, but sent {}",
            total.saturating_sub(trailer)
        ));
    }
    let length = total.saturating_sub(trailer);
    if length == 0 || !length.is_multiple_of(SECTOR) {
        return bad(format!(
            "the database's length is {length}: expected a multiple of {SECTOR}"
        ));
    }
    Ok(())
}

fn cut(place: &str) -> Failure {
    Failure::new(
        Kind::Unreachable,
        format!("the server ended the stream {place}"),
    )
}

fn no_trailer() -> Failure {
    Failure::new(
        Kind::BadBackup,
        "the snapshot has no trailer: expected 32 bytes of SHA-256 after the database, found the end",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(database: &[u8], tail: &[u8]) -> Hashed {
        let mut trailing = trailer::Trailing::default();
        trailing.update(database);
        trailing.update(tail);
        trailing.finish()
    }

    fn announced(database: u64) -> Announced {
        Announced {
            database: Some(database),
            version: None,
        }
    }

    #[test]
    fn each_wrong_end_is_an_error_of_its_own() {
        let database = vec![7; 1024];
        let good = hashed(&database, &[]).file;
        assert!(check(&hashed(&database, &good), &announced(1024)).is_ok());
        assert!(check(&hashed(&database, &good), &announced(1024 + 32)).is_ok());
        for (tail, size, kind, word) in [
            (
                &good[..],
                2048,
                Kind::BadBackup,
                "announced a database of 2048",
            ),
            (&good[..31], 1024, Kind::Unreachable, "within the trailer"),
            (&[], 1024, Kind::BadBackup, "no trailer"),
            (&[], 4096, Kind::Unreachable, "before the database's end"),
            (&[0; 32], 1024, Kind::BadBackup, "trailer is wrong"),
        ] {
            let failure = check(&hashed(&database, tail), &announced(size)).unwrap_err();
            assert_eq!(failure.kind(), kind, "{failure}");
            assert!(failure.to_string().contains(word), "{failure}");
        }
        let odd = hashed(&[1; 1000], &[]).file;
        let failure = check(&hashed(&[1; 1000], &odd), &announced(1000)).unwrap_err();
        assert!(failure.to_string().contains("multiple of 512"), "{failure}");
        let nothing = check(&hashed(&[], &[]), &Announced::default()).unwrap_err();
        assert_eq!(nothing.kind(), Kind::Unreachable);
    }
}
