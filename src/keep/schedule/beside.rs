//! Work on its own threads: with a deadline, and beside the schedule.
//!
//! What is owed on the node does not wait for what is remote or optional. Copies and verification
//! have until the period's end; then the next backup is due. What has sent nothing by then is
//! cancelled, and the next run tries it again. A copy that is merely slow is left to itself: one that
//! takes longer than a period would otherwise never end. So is one that began shortly before the
//! period's end: that it has sent nothing yet says nothing about its store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::context::{Cancel, Context};
use crate::error::{Doing, Failure, Kind, Result};
use crate::event::{Event, Observer};

/// How long what was cancelled may take to end before it is left alone.
const GIVE_UP: Duration = Duration::from_secs(3);
/// So many that were left alone and have not ended are too many for another.
const MAX_ABANDONED: usize = 4;

/// Runs what may block or hang on a thread, with its own runtime, so that the loop continues.
pub async fn on_a_thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    joined(thread(work).await)
}

fn thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> JoinHandle<Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing(Kind::Unexpected, || "starting the runtime")?;
        let came = runtime.block_on(work());
        // Not waited for: what blocks there would hang this thread, too.
        runtime.shutdown_background();
        came
    })
}

fn joined<T>(ended: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    ended.doing(Kind::Unexpected, || "running a thread")?
}

/// Does work that is stopped after a time, or earlier on request.
///
/// # Errors
/// Those of the work; [`Kind::Unreachable`] if it was over time. Then, if it has not ended
/// either, with a token that lives as long as it does.
pub async fn bounded<T, F>(
    context: &Context,
    limit: Duration,
    work: impl FnOnce(Context) -> F + Send + 'static,
) -> (Result<T>, Option<Weak<()>>)
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let cancel = Cancel::default();
    let token = Arc::new(());
    let alive = Arc::downgrade(&token);
    let own = Context {
        cancel: cancel.clone(),
        ..context.clone()
    };
    let mut thread = thread(move || async move {
        let _alive = token;
        work(own).await
    });
    tokio::select! {
        // A result that is there counts, even if the request to stop comes at the same moment.
        biased;
        ended = &mut thread => return (joined(ended), None),
        () = context.cancel.cancelled() => {
            cancel.cancel();
            return (joined(thread.await), None);
        }
        () = tokio::time::sleep(limit) => cancel.cancel(),
    }
    let what = format!(
        "the run did not finish within {} s and was abandoned",
        limit.as_secs()
    );
    let late = Failure::new(Kind::Unreachable, what);
    match tokio::time::timeout(GIVE_UP, &mut thread).await {
        // It came to its end in the last moment: there is a backup, however late.
        Ok(Ok(Ok(came))) => (Ok(came), None),
        Ok(_) => (Err(late), None),
        Err(_) => (Err(late), Some(alive)),
    }
}

/// Counts reported progress.
struct Counting {
    observer: Arc<dyn Observer>,
    moved: Arc<AtomicU64>,
}

impl Observer for Counting {
    fn event(&self, event: Event) {
        // A wait that is announced has its own limit.
        let moves = matches!(
            event,
            Event::PhaseProgress { .. } | Event::PhaseDone { .. } | Event::Waiting { .. }
        );
        if moves {
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        self.observer.event(event);
    }
}

/// What is done beside the schedule, one thing at a time.
#[derive(Debug)]
pub struct Beside<T> {
    running: Option<Running<T>>,
    abandoned: Vec<JoinHandle<Result<T>>>,
}

#[derive(Debug)]
struct Running<T> {
    thread: JoinHandle<Result<T>>,
    cancel: Cancel,
    moved: Arc<AtomicU64>,
    /// How much had moved when it was last looked at.
    seen: u64,
    /// When that was, or when it began.
    since: Instant,
}

/// The result of waiting.
#[derive(Debug)]
pub enum Waited<T> {
    /// Nothing was running.
    Idle,
    /// It has ended; whether it was cancelled for sending nothing.
    Ended(Result<T>, bool),
    /// It continues.
    GoesOn,
    /// It was cancelled, did not end, and is left alone.
    Abandoned,
}

impl<T> Default for Beside<T> {
    fn default() -> Self {
        Self {
            running: None,
            abandoned: Vec::new(),
        }
    }
}

impl<T: Send + 'static> Beside<T> {
    /// Whether something is still done.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins something, unless something is still done, or too much hangs; says whether it did.
    pub fn start<F>(
        &mut self,
        context: &Context,
        work: impl FnOnce(Context) -> F + Send + 'static,
    ) -> bool
    where
        F: Future<Output = Result<T>>,
    {
        self.abandoned.retain(|thread| !thread.is_finished());
        if self.is_running() || self.abandoned.len() >= MAX_ABANDONED {
            return false;
        }
        let (cancel, moved) = (Cancel::default(), Arc::new(AtomicU64::new(0)));
        let own = Context {
            observer: Arc::new(Counting {
                observer: Arc::clone(&context.observer),
                moved: Arc::clone(&moved),
            }),
            cancel: cancel.clone(),
            ..context.clone()
        };
        self.running = Some(Running {
            thread: thread(move || work(own)),
            cancel,
            moved,
            seen: 0,
            since: Instant::now(),
        });
        true
    }

    /// Waits for it, so long. What has moved nothing by then is cancelled, if it has had `fair` to move
    /// anything. Once `stop` is asked for it is cancelled, and waited for to its end.
    pub async fn wait(&mut self, stop: &Cancel, time: Duration, fair: Duration) -> Waited<T> {
        let Some(running) = &mut self.running else {
            return Waited::Idle;
        };
        let ended = tokio::select! {
            biased;
            ended = &mut running.thread => Some(ended),
            () = stop.cancelled() => {
                running.cancel.cancel();
                Some((&mut running.thread).await)
            }
            () = tokio::time::sleep(time) => None,
        };
        if let Some(ended) = ended {
            self.running = None;
            return Waited::Ended(joined(ended), false);
        }
        let moved = running.moved.load(Ordering::Relaxed);
        if moved != running.seen {
            running.seen = moved;
            running.since = Instant::now();
            return Waited::GoesOn;
        }
        if running.since.elapsed() < fair {
            return Waited::GoesOn;
        }
        running.cancel.cancel();
        let ended = tokio::time::timeout(GIVE_UP, &mut running.thread).await;
        let running = self.running.take();
        match ended {
            Ok(ended) => Waited::Ended(joined(ended), true),
            Err(_) => {
                self.abandoned.extend(running.map(|running| running.thread));
                Waited::Abandoned
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;

    fn context() -> Context {
        Context {
            observer: Arc::new(Silent),
            now: jiff::Timestamp::UNIX_EPOCH,
            cancel: Cancel::default(),
        }
    }

    const MOMENT: Duration = Duration::from_millis(20);
    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn work_that_moves_nothing_is_cancelled_and_work_that_moves_continues() {
        let mut beside = Beside::default();
        let stop = Cancel::default();
        assert!(matches!(
            beside.wait(&stop, MOMENT, MOMENT).await,
            Waited::Idle
        ));
        let hangs = |context: Context| async move {
            context
                .cancel
                .guard(std::future::pending::<Result<u8>>())
                .await
        };
        assert!(beside.start(&context(), hangs));
        assert!(!beside.start(&context(), hangs), "one thing at a time");
        let waited = beside.wait(&stop, MOMENT, HOUR).await;
        assert!(
            matches!(waited, Waited::GoesOn),
            "it has just begun: {waited:?}"
        );
        let waited = beside.wait(&stop, MOMENT, MOMENT).await;
        assert!(matches!(waited, Waited::Ended(Err(_), true)), "{waited:?}");

        let slow = |context: Context| async move {
            for done in 0..2 {
                context.tell(Event::PhaseProgress {
                    phase: "copy",
                    done,
                });
                tokio::time::sleep(MOMENT * 30).await;
            }
            Ok(7)
        };
        assert!(beside.start(&context(), slow));
        let waited = beside.wait(&stop, MOMENT * 10, MOMENT).await;
        assert!(matches!(waited, Waited::GoesOn), "{waited:?}");
        let waited = beside.wait(&stop, HOUR, HOUR).await;
        assert!(matches!(waited, Waited::Ended(Ok(7), false)), "{waited:?}");

        // Asked to stop, it is cancelled at once.
        assert!(beside.start(&context(), hangs));
        stop.cancel();
        let waited = beside.wait(&stop, HOUR, HOUR).await;
        assert!(matches!(waited, Waited::Ended(Err(_), false)), "{waited:?}");
    }

    #[tokio::test]
    async fn a_run_has_a_deadline_and_one_that_hangs_is_known() {
        let context = context();
        let (came, alive) = bounded(&context, Duration::from_secs(60), async |_| Ok(1)).await;
        assert_eq!((came.unwrap(), alive.is_none()), (1, true));
        let waits = |context: Context| async move {
            context
                .cancel
                .guard(std::future::pending::<Result<u8>>())
                .await
        };
        let (came, alive) = bounded(&context, MOMENT, waits).await;
        assert_eq!(came.unwrap_err().kind(), Kind::Unreachable);
        assert!(alive.is_none(), "it heard that it was to stop");
        // As on a disk that is gone.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let hangs = move |_: Context| async move {
            let _ = held.recv();
            Ok(1)
        };
        let (came, alive) = bounded(&context, MOMENT, hangs).await;
        assert_eq!(came.unwrap_err().kind(), Kind::Unreachable);
        let alive = alive.unwrap();
        assert_eq!(alive.strong_count(), 1);
        drop(release);
        while alive.strong_count() > 0 {
            tokio::time::sleep(MOMENT).await;
        }
    }
}
