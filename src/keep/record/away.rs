//! Copies of segments away from the node, made as they are sealed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::etcd::segment::Name;
use crate::event::Event;
use crate::keep::catalog;
use crate::keep::ranges;
use crate::keep::remote::{self, Form, Place};
use crate::store::objects::{self, Store};
use crate::store::{Address, LocalStore, Settings};

/// How long is waited for something new, and after a failure.
const PAUSE: Duration = Duration::from_secs(10);
/// Segments that wait for being copied; with more, the store is looked through again.
const QUEUE: usize = 1024;

/// Told up to when everything that was sealed is in a store; must not block.
pub type OnCopied = Arc<dyn Fn(&Address, Timestamp) + Send + Sync>;

/// Where segments are copied to.
#[derive(Clone)]
pub struct Away {
    /// The stores.
    pub to: Vec<Address>,
    /// How they are reached.
    pub settings: Settings,
    /// How segments are stored.
    pub form: Form,
    /// Told how far the copies are.
    pub on_copied: Option<OnCopied>,
}

impl Away {
    fn tell(&self, copying: &Copying, until: Timestamp) {
        if let Some(told) = &self.on_copied {
            told(&copying.address, until);
        }
    }
}

/// What was sealed, on its way to who copies it.
#[derive(Debug)]
pub(super) struct Sealed {
    segments: mpsc::Sender<PathBuf>,
    missed: Arc<AtomicBool>,
}

/// The other end.
#[derive(Debug)]
pub(super) struct Queue {
    segments: mpsc::Receiver<PathBuf>,
    /// Whether one was left out because too many wait.
    missed: Arc<AtomicBool>,
}

impl Sealed {
    /// Both ends.
    pub(super) fn channel() -> (Self, Queue) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let missed: Arc<AtomicBool> = Arc::default();
        let queue = Queue {
            segments: receiver,
            missed: Arc::clone(&missed),
        };
        let sealed = Self {
            segments: sender,
            missed,
        };
        (sealed, queue)
    }

    /// Hands on a segment; never waits.
    pub(super) fn tell(&self, segment: PathBuf) {
        if self.segments.try_send(segment).is_err() {
            self.missed.store(true, Ordering::Relaxed);
        }
    }
}

/// Copies what is sealed, until the other end of the queue is gone and it is empty. What fails is tried
/// again, with a warning.
pub(super) async fn copy_along(context: Context, store: LocalStore, away: Away, mut queue: Queue) {
    let mut stores: Vec<Copying> = away.to.iter().cloned().map(Copying::to).collect();
    loop {
        let missed = queue.missed.swap(false, Ordering::Relaxed);
        for copying in &mut stores {
            copying.behind |= missed;
            if copying.behind
                && let Err(failure) = copying.catch_up(&store, &away).await
            {
                copying.warn(&context, &failure);
            }
        }
        let behind = stores.iter().any(|copying| copying.behind);
        if behind {
            // What waits is found again in the store.
            while queue.segments.try_recv().is_ok() {}
            stores.iter_mut().for_each(|copying| copying.behind = true);
        }
        let segment = tokio::select! {
            biased;
            segment = queue.segments.recv(), if !behind => segment,
            // Otherwise it ends with the queue: what is sealed after the request to stop is copied,
            // too.
            () = context.cancel.cancelled(), if behind => None,
            () = tokio::time::sleep(PAUSE) => {
                queue.tell(&stores, &away);
                continue;
            }
        };
        let Some(segment) = segment else { return };
        for copying in &mut stores {
            if let Err(failure) = copying.put(&segment, &away).await {
                copying.warn(&context, &failure);
            }
        }
        queue.tell(&stores, &away);
    }
}

impl Queue {
    /// Tells that the stores have everything that was sealed by now, if nothing waits.
    fn tell(&self, stores: &[Copying], away: &Away) {
        let now = Timestamp::now();
        if !self.segments.is_empty() || self.missed.load(Ordering::Relaxed) {
            return;
        }
        for copying in stores.iter().filter(|copying| !copying.behind) {
            away.tell(copying, now);
        }
    }
}

/// One store, and what is known to be there.
struct Copying {
    address: Address,
    there: Option<There>,
    /// Whether segments may lack there that are not on their way.
    behind: bool,
    warned: bool,
}

/// A store that was listed.
struct There {
    store: Arc<dyn Store>,
    /// The folder of this node.
    node: String,
    segments: BTreeSet<remote::ChangePlace>,
}

impl Copying {
    fn to(address: Address) -> Self {
        Self {
            address,
            there: None,
            behind: true,
            warned: false,
        }
    }

    /// Copies every segment that is not there.
    async fn catch_up(&mut self, store: &LocalStore, away: &Away) -> Result<()> {
        if self.there.is_none() {
            let Some(node) = node(store)? else {
                // Where they belong is what a backup says.
                return Ok(());
            };
            let opened = objects::open(&self.address, &away.settings).await?;
            let listed = remote::list_changes(opened.as_ref(), &node).await?;
            self.there = Some(There {
                store: opened,
                node,
                segments: listed.into_keys().collect(),
            });
        }
        // What precedes the oldest one there was pruned there: segments are put in their order.
        let oldest = self
            .there
            .as_ref()
            .and_then(|there| there.segments.first().cloned());
        for chain in ranges::chains(store)?.0 {
            for segment in &chain.segments {
                let path = chain.dir.join(segment.to_string());
                if place(&path) >= oldest {
                    self.put(&path, away).await?;
                }
            }
        }
        self.behind = false;
        self.warned = false;
        Ok(())
    }

    /// Copies one segment, if it is not there.
    async fn put(&mut self, segment: &Path, away: &Away) -> Result<()> {
        let (Some(place), Some(there)) = (place(segment), &mut self.there) else {
            return Ok(());
        };
        if there.segments.contains(&place) {
            return Ok(());
        }
        let (store, node) = (there.store.as_ref(), &there.node);
        let put = remote::put_change(store, node, &place, segment, &away.form).await;
        match put {
            Ok(_) => {
                there.segments.insert(place);
                Ok(())
            }
            // It was pruned in the meantime.
            Err(_) if segment.symlink_metadata().is_err() => Ok(()),
            Err(failure) => {
                // Another listing tells what has arrived.
                self.there = None;
                self.behind = true;
                Err(failure)
            }
        }
    }

    /// Warns once of each time that it fails.
    fn warn(&mut self, context: &Context, failure: &Failure) {
        let what = format!("copying recorded changes to {}: {failure}", self.address);
        match std::mem::replace(&mut self.warned, true) {
            true => context.tell(Event::Note(what)),
            false => context.warn("changes-not-copied", what),
        }
    }
}

/// The chain and the name of a segment.
fn place(segment: &Path) -> Option<remote::ChangePlace> {
    let name = Name::parse(segment.file_name()?.to_str()?)?;
    let chain = segment.parent()?.file_name()?.to_str()?;
    Some((chain.to_owned(), name))
}

/// The folder of this node in a store: that of its newest backup.
fn node(store: &LocalStore) -> Result<Option<String>> {
    let sets = match store.dir().is_dir() {
        true => catalog::list(store)?,
        false => return Err(Failure::new(Kind::Store, "the store is not there")),
    };
    let newest = sets
        .iter()
        .filter(|set| set.is_good())
        .max_by_key(|set| set.created);
    let manifest = newest.and_then(|set| set.manifest.as_ref());
    Ok(manifest.map(|manifest| Place::of(manifest).to_string()))
}
