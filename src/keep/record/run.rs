//! The recorder: watches, again and again, until it is asked to stop.

use std::time::Duration;

use super::away::{self, Sealed};
use super::request::{RecordRequest, Recorded};
use super::watching::{Ended, Watching};
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::keep::backup::make_default_store;

/// The pause before another try, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// How long the last copies may take once it is asked to stop.
const LAST_COPIES: Duration = Duration::from_secs(10);
/// The pause after a failure that is not the connection's.
const LATER: Duration = Duration::from_secs(60);

/// Records until it is asked to stop.
///
/// # Errors
/// [`Kind::Usage`], [`Kind::Refused`] and [`Kind::Busy`]; everything else is tried again, with a warning.
pub async fn run(context: &Context, request: &RecordRequest) -> Result<Recorded> {
    if request.default_store {
        make_default_store(&request.target.layout)?;
    }
    request.store.ensure()?;
    let (sealed, queue) = Sealed::channel();
    let mut watching = Watching::open(context, request, sealed)?;
    let copying = request
        .away
        .clone()
        .filter(|away| !away.to.is_empty())
        .map(|away| {
            let (context, store) = (context.clone(), request.store.clone());
            tokio::spawn(away::copy_along(context, store, away, queue))
        });
    let ended = watch(context, &mut watching).await;
    let recorded = std::mem::take(&mut watching.recorded);
    // Nothing more is sealed: who copies ends with the last segment.
    drop(watching);
    match copying {
        // What was sealed last is copied, too, if the store answers.
        Some(copying) if ended.is_ok() => {
            let _ = tokio::time::timeout(LAST_COPIES, copying).await;
        }
        Some(copying) => copying.abort(),
        None => {}
    }
    ended.map(|()| recorded)
}

/// Watches, again and again.
async fn watch(context: &Context, watching: &mut Watching<'_>) -> Result<()> {
    let mut pause = PAUSES.0;
    loop {
        let before = watching.recorded.segments;
        let ended = watching.follow().await;
        watching.disconnected();
        // A connection that brought something was good: the next failure is a new one.
        if watching.recorded.segments > before {
            pause = PAUSES.0;
        }
        match ended {
            Ok(Ended::Asked) => return Ok(()),
            Ok(Ended::Again) => {}
            Err(failure) => {
                if matches!(failure.kind(), Kind::Usage | Kind::Refused) {
                    return Err(failure);
                }
                watching.recorded.reconnects += 1;
                warn(context, &failure, pause);
            }
        }
        tokio::select! {
            () = context.cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = pause.saturating_mul(2).min(PAUSES.1);
    }
}

/// Records beside other work, until it is asked to stop: what fails for good is tried again later.
///
/// # Errors
/// None.
pub async fn keep_recording(context: &Context, request: &RecordRequest) -> Result<()> {
    loop {
        let Err(failure) = run(context, request).await else {
            return Ok(());
        };
        let what = format!(
            "{failure}; recording is tried again in {} s",
            LATER.as_secs()
        );
        context.warn("recording-failed", what);
        tokio::select! {
            () = context.cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(LATER) => {}
        }
    }
}

fn warn(context: &Context, failure: &Failure, pause: Duration) {
    let what = format!(
        "{failure}; recording resumes in {:.1} s from the last sealed revision",
        pause.as_secs_f64()
    );
    context.warn("recording-interrupted", what);
}
