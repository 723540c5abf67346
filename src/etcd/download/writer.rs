//! The thread that hashes and writes, so that the network is read in the meantime.

use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::sink::SnapshotSink;
use super::trailer::{Hashed, Trailing};
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::client::seconds;

/// How many bytes are written at once.
const BATCH: usize = 512 << 10;

/// The most pieces in one batch; within what `writev` takes at once (`IOV_MAX` is 1024).
const PIECES: usize = 512;

/// Batches under way between the network and the disk.
const QUEUE: usize = 8;

/// After how many bytes the sink is asked to begin with writing them out.
const SETTLE: u64 = 8 << 20;

type Ended<S> = Result<(S, Hashed)>;

/// The near end of the thread. Dropping it stops the thread before its next batch, and waits for
/// nothing.
pub(super) struct Writer<S> {
    queue: Option<mpsc::Sender<Vec<Bytes>>>,
    batch: Vec<Bytes>,
    bytes: usize,
    ended: oneshot::Receiver<Ended<S>>,
    shared: Arc<Shared>,
    patience: Duration,
}

#[derive(Default)]
struct Shared {
    abandoned: AtomicBool,
    written: AtomicU64,
}

impl<S> Drop for Writer<S> {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
    }
}

impl<S: SnapshotSink> Writer<S> {
    /// Starts the thread. A sink that takes nothing for as long as `patience` is an error.
    pub(super) fn start(sink: S, patience: Duration) -> Result<Self> {
        let (queue, work) = mpsc::channel(QUEUE);
        let (end, ended) = oneshot::channel();
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            sink,
            hash: Trailing::default(),
            settled: 0,
            written: 0,
            shared: shared.clone(),
        };
        thread::Builder::new()
            .name("snapshot-writer".to_owned())
            .spawn(move || {
                // Nobody to tell, if the near end is gone.
                let _ = end.send(worker.run(work));
            })
            .doing(Kind::Unexpected, || "starting the thread that writes")?;
        Ok(Self {
            queue: Some(queue),
            batch: Vec::new(),
            bytes: 0,
            ended,
            shared,
            patience,
        })
    }

    /// Adds to the current batch; true if it is now to be [sent](Self::send).
    pub(super) fn add(&mut self, piece: Bytes) -> bool {
        if !piece.is_empty() {
            self.bytes = self.bytes.saturating_add(piece.len());
            self.batch.push(piece);
        }
        self.bytes >= BATCH || self.batch.len() >= PIECES
    }

    /// Hands the batch to the thread, waiting for room.
    pub(super) async fn send(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let Some(queue) = self.queue.as_ref().filter(|_| !batch.is_empty()) else {
            return Ok(());
        };
        match queue.send_timeout(batch, self.patience).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(self.stuck()),
            // The thread has ended before its time, so it has an error to tell.
            Err(mpsc::error::SendTimeoutError::Closed(_)) => match self.join().await {
                Err(failure) => Err(failure),
                Ok(_) => Err(Failure::new(Kind::Unexpected, "the writer ended early")),
            },
        }
    }

    /// Writes what is left, and gives the sink back.
    pub(super) async fn finish(mut self) -> Ended<S> {
        self.send().await?;
        self.join().await
    }

    async fn join(&mut self) -> Ended<S> {
        // The thread ends with its queue.
        self.queue = None;
        loop {
            let before = self.shared.written.load(Ordering::Relaxed);
            match tokio::time::timeout(self.patience, &mut self.ended).await {
                Ok(Ok(ended)) => return ended,
                Ok(Err(_)) => {
                    return Err(Failure::new(Kind::Unexpected, "the writer's thread died"));
                }
                // Slow, but not stuck.
                Err(_) if self.shared.written.load(Ordering::Relaxed) != before => {}
                Err(_) => return Err(self.stuck()),
            }
        }
    }

    fn stuck(&self) -> Failure {
        Failure::new(
            Kind::Store,
            format!(
                "writing the snapshot: the disk has accepted nothing for {}, after {} bytes",
                seconds(self.patience),
                self.shared.written.load(Ordering::Relaxed)
            ),
        )
    }
}

struct Worker<S> {
    sink: S,
    hash: Trailing,
    settled: u64,
    written: u64,
    shared: Arc<Shared>,
}

impl<S: SnapshotSink> Worker<S> {
    fn run(mut self, mut work: mpsc::Receiver<Vec<Bytes>>) -> Ended<S> {
        while let Some(batch) = work.blocking_recv() {
            if self.shared.abandoned.load(Ordering::Relaxed) {
                return Err(Failure::new(Kind::Interrupted, "the download was aborted"));
            }
            self.batch(&batch).doing(Kind::Store, || {
                format!("writing the snapshot, after {} bytes", self.written)
            })?;
        }
        self.sink
            .flush()
            .doing(Kind::Store, || "writing the snapshot's end")?;
        Ok((self.sink, self.hash.finish()))
    }

    fn batch(&mut self, batch: &[Bytes]) -> io::Result<()> {
        write_all(&mut self.sink, batch)?;
        for piece in batch {
            self.hash.update(piece);
            self.written = self.written.saturating_add(piece.len() as u64);
        }
        self.shared.written.store(self.written, Ordering::Relaxed);
        if self.written.saturating_sub(self.settled) >= SETTLE {
            self.sink.settle(self.settled, self.written)?;
            self.settled = self.written;
        }
        Ok(())
    }
}

/// Writes pieces in as few calls as the sink allows.
fn write_all(sink: &mut impl Write, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        match sink.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            // A sink that claims more than it was given must not make us panic.
            Ok(count) if count <= slices.iter().map(|slice| slice.len()).sum() => {
                IoSlice::advance_slices(&mut slices, count);
            }
            Ok(_) => return Err(io::Error::other("the sink took more than it was given")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
