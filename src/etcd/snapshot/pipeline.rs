//! The key pass on two threads: one walks the tree and decodes its leaves, the other follows the
//! keys. With millions of small objects both have about the same to do, so that the pass takes half
//! the time. A file in which anything is found is walked again on one thread ([`super::walk`]): the
//! findings, their words and their order are that pass's, whatever the threads do.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::batch::{Batch, Decoder};
use super::keys::KeyPass;
use super::skeleton::Skeleton;
use crate::etcd::bbolt::{Known, Large, Leaf, Nested, Order, ReadAt, Root, Visitor, Walker};
use crate::finding::Findings;

/// Entries after which a batch is handed on. A batch stays within a second-level cache.
const FULL: usize = 1024;
/// Batches under way.
const DEPTH: usize = 4;

/// Where the pass reads.
pub(super) struct From<'a> {
    pub(super) source: &'a dyn ReadAt,
    pub(super) page_size: u64,
    pub(super) root: Root,
    /// Leaves that were decoded before, by the same decoder.
    pub(super) skeleton: Option<&'a Mutex<Skeleton>>,
}

/// Runs the pass over a bucket. Nothing comes back if anything was found.
pub(super) fn run<'p>(
    walker: &mut Walker<'_>,
    from: &From<'_>,
    decoder: Decoder,
    pass: KeyPass<'p>,
) -> io::Result<Option<KeyPass<'p>>> {
    let (source, page_size) = (from.source, from.page_size);
    let (full, work) = sync_channel(DEPTH);
    // Room for those under way and for the one that each thread holds.
    let (back, empty) = sync_channel(DEPTH + 2);
    let mut findings = Findings::keeping(0);
    let (walked, followed) = std::thread::scope(|scope| {
        let follower = scope.spawn(move || follow(pass, &work, &back, source, page_size));
        let mut sender = Sender {
            decoder,
            batch: Batch::default(),
            full,
            empty,
            skeleton: from.skeleton,
        };
        let walked = walker
            .walk(
                from.root,
                Order::Descending,
                Nested::Check,
                &mut sender,
                &mut findings,
            )
            .and_then(|()| sender.hand_on());
        // The far end stops once the near one is gone.
        let Sender { decoder, full, .. } = sender;
        drop(full);
        (walked.map(|()| decoder), follower.join())
    });
    // Its error first: if it has failed, the walk was ended because of that.
    let followed =
        followed.map_err(|_| io::Error::other("the thread of the keys ended early"))??;
    let decoder = match walked {
        Err(error) if is_unusual(&error) => return Ok(None),
        walked => walked?,
    };
    Ok(followed
        .filter(|_| findings.is_empty() && walker.is_whole())
        .map(|mut pass| {
            pass.prefixes = std::mem::take(&mut pass.prefixes).named(decoder.names());
            pass
        }))
}

fn follow<'p>(
    mut pass: KeyPass<'p>,
    work: &Receiver<Batch>,
    back: &SyncSender<Batch>,
    source: &dyn ReadAt,
    page_size: u64,
) -> io::Result<Option<KeyPass<'p>>> {
    while let Ok(mut batch) = work.recv() {
        if !pass.take_batch(&batch, source, page_size)? {
            return Ok(None);
        }
        batch.clear();
        // There is room for all; without it, a new one is made.
        let _ = back.try_send(batch);
    }
    let mut findings = Findings::keeping(0);
    let (suspects, more) = pass.finish(&mut findings);
    let sound = suspects.is_empty() && more == 0 && findings.is_empty();
    Ok(sound.then_some(pass))
}

/// The near end: decodes what the walk shows.
struct Sender<'s> {
    skeleton: Option<&'s Mutex<Skeleton>>,
    decoder: Decoder,
    batch: Batch,
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
}

impl Sender<'_> {
    fn hand_on(&mut self) -> io::Result<()> {
        let empty = self.empty.try_recv().unwrap_or_default();
        let batch = std::mem::replace(&mut self.batch, empty);
        // The far end is gone: it has found something, or could not read.
        self.full.send(batch).map_err(|_| unusual())
    }

    fn taken(&mut self, findings: &Findings) -> io::Result<()> {
        if !findings.is_empty() {
            return Err(unusual());
        }
        if self.batch.entries.len() >= FULL {
            self.hand_on()?;
        }
        Ok(())
    }
}

impl Visitor for Sender<'_> {
    fn leaf(&mut self, leaf: &Leaf<'_>, findings: &mut Findings) -> io::Result<()> {
        self.decoder.leaf(leaf, &mut self.batch, findings);
        self.taken(findings)
    }

    fn large(&mut self, element: &Large<'_>, findings: &mut Findings) -> io::Result<()> {
        self.decoder.large(element, &mut self.batch, findings)?;
        self.taken(findings)
    }

    fn known(&mut self, page: u64) -> io::Result<Option<Known>> {
        let Some(skeleton) = self.skeleton else {
            return Ok(None);
        };
        let mut skeleton = skeleton.lock().unwrap_or_else(PoisonError::into_inner);
        let leaf = skeleton.leaf(page, &mut self.batch);
        // The scratch file is not what is judged: the snapshot is read instead.
        let leaf = leaf.map_err(|_| unusual())?;
        Ok(leaf.map(|leaf| Known {
            overflow: leaf.overflow,
            first: leaf.first,
            last: leaf.last,
        }))
    }

    fn take_known(&mut self, findings: &mut Findings) -> io::Result<()> {
        self.taken(findings)
    }
}

/// Ends a walk that is of no use any more.
#[derive(Debug)]
struct Unusual;

impl std::fmt::Display for Unusual {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("something was found")
    }
}

impl std::error::Error for Unusual {}

pub(super) fn unusual() -> io::Error {
    io::Error::other(Unusual)
}

pub(super) fn is_unusual(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Unusual>())
}
