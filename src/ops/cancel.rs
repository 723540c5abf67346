//! The wish to stop, seen by every thread of an operation.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::error::{Failure, Kind, Result};

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
            notified.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }

    /// Runs a future unless the wish to stop comes first.
    pub async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
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
