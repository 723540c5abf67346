//! What every operation is given: who watches, what time it is, and whether to stop.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::error::{Failure, Kind, Result};
use crate::event::{Event, Observer};
use crate::sys::fs;

/// Warns where a directory that was just made for its owner alone is open to others: FAT, exFAT and
/// some network shares keep no modes.
pub(crate) fn warn_of_modes(context: &Context, dir: &Path) {
    if fs::is_open_to_others(dir) {
        let what = format!(
            "the file system of {} has no file modes: everyone who can reach it can read the private keys in the backups there; mount it with umask=077, or keep only encrypted copies there (--recipient)",
            dir.display()
        );
        context.warn("modes-not-kept", what);
    }
}

/// What every operation is given: who watches, what time it is, and whether to stop.
#[derive(Clone)]
pub struct Context {
    /// Receives the events.
    pub observer: Arc<dyn Observer>,
    /// The time the operation began; stamps and ages are reckoned from it.
    pub now: Timestamp,
    /// Set when the operator wants it to stop.
    pub cancel: Cancel,
}

impl Context {
    /// The same context, out of reach of a request to stop: for work that must be finished.
    pub fn unstopped(&self) -> Self {
        Self {
            cancel: Cancel::default(),
            ..self.clone()
        }
    }

    /// Sends an event.
    pub fn tell(&self, event: Event) {
        self.observer.event(event);
    }

    /// Sends a warning.
    pub fn warn(&self, name: &'static str, message: impl Into<String>) {
        self.tell(Event::Warning {
            name,
            message: message.into(),
        });
    }
}

/// Set once, from a signal or another thread; never unset.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    set: AtomicBool,
    notify: Notify,
}

impl Cancel {
    /// Asks the operation to stop.
    pub fn cancel(&self) {
        self.0.set.store(true, Ordering::SeqCst);
        self.0.notify.notify_waiters();
    }

    /// Whether it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// Fails with [`Kind::Interrupted`] once it was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            Err(interrupted())
        } else {
            Ok(())
        }
    }

    /// Waits until it is asked to stop.
    pub async fn cancelled(&self) {
        loop {
            let notified = self.0.notify.notified();
            tokio::pin!(notified);
            // Before the look, so that a request in between is not missed.
            notified.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }

    /// Runs a future unless the request to stop comes first.
    pub async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            // Work that is always ready must not hide the request.
            biased;
            () = self.cancelled() => Err(interrupted()),
            done = work => done,
        }
    }

    /// A writer that fails once it was asked to stop.
    pub fn writer<W: Write>(&self, inner: W) -> CancelWriter<W> {
        CancelWriter {
            inner,
            cancel: self.clone(),
        }
    }
}

/// See [`Cancel::writer`].
#[derive(Debug)]
pub struct CancelWriter<W> {
    inner: W,
    cancel: Cancel,
}

impl<W> CancelWriter<W> {
    /// The writer within.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for CancelWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        self.inner.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The failure of an operation that was asked to stop.
pub fn interrupted() -> Failure {
    Failure::new(Kind::Interrupted, "interrupted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wish_made_before_or_after_is_seen() {
        let cancel = Cancel::default();
        assert!(cancel.check().is_ok());
        let waiting = tokio::spawn({
            let cancel = cancel.clone();
            async move { cancel.guard(std::future::pending::<Result<()>>()).await }
        });
        tokio::task::yield_now().await;
        cancel.cancel();
        assert_eq!(
            waiting.await.unwrap().unwrap_err().kind(),
            Kind::Interrupted
        );
        cancel.cancelled().await;
        assert!(cancel.writer(Vec::new()).write_all(b"x").is_err());
    }
}
