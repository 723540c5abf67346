//! The loop: asks what is due, waits, runs, and goes on whatever came of it.

use std::time::Duration;

use jiff::Timestamp;

use super::cron::Period;
use super::pace::{Due, Pace};
use crate::error::Result;
use crate::ops::Cancel;

/// How long a run that was asked to stop may take to do so, before it is left alone: what it has
/// staged is no backup, and the next run removes it.
pub const GRACE: Duration = Duration::from_secs(20);
/// The longest sleep: the clock may be set, or the machine suspended, meanwhile.
const NAP: Duration = Duration::from_secs(30);

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Counted from 1 since the process began.
    pub number: u64,
    /// The period whose backup it is to take.
    pub period: Period,
}

/// What the loop needs of the world.
pub trait Work {
    /// The time.
    fn now(&self) -> Timestamp;

    /// When the newest whole set was begun; none too where the store cannot be read, which the run
    /// that follows will say.
    fn newest(&mut self) -> impl Future<Output = Option<Timestamp>>;

    /// Takes the period's backup, tells of it, and says whether there is one now.
    fn run(&mut self, run: Run) -> impl Future<Output = bool>;

    /// Told that nothing is due before a moment.
    fn waits(&mut self, until: Timestamp);

    /// Sleeps.
    fn sleep(&mut self, time: Duration) -> impl Future<Output = ()>;
}

/// Runs until it is asked to stop; a run under way then is given a grace to end, as [`GRACE`].
///
/// # Errors
/// Only where times can no longer be reckoned. A run that fails is none.
pub async fn run<W: Work>(
    cancel: &Cancel,
    pace: &mut Pace,
    work: &mut W,
    grace: Duration,
) -> Result<()> {
    let mut number = 0;
    let mut told = None;
    while !cancel.is_cancelled() {
        let newest = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            newest = work.newest() => newest,
        };
        let now = work.now();
        match pace.due(now, newest)? {
            Due::Run(period) => {
                number += 1;
                let good = tokio::select! {
                    biased;
                    good = work.run(Run { number, period }) => good,
                    () = abandoned(cancel, grace) => break,
                };
                pace.ended(work.now(), period, good);
                told = None;
            }
            Due::Wait(until) => {
                if told != Some(until) {
                    work.waits(until);
                    told = Some(until);
                }
                let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                // A moment more, so that it is not woken just before.
                let nap = (left + Duration::from_millis(1)).min(NAP);
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => break,
                    () = work.sleep(nap) => {}
                }
            }
        }
    }
    Ok(())
}

/// The end of the grace after a wish to stop.
async fn abandoned(cancel: &Cancel, grace: Duration) {
    cancel.cancelled().await;
    tokio::time::sleep(grace).await;
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use jiff::{SignedDuration, ToSpan as _};

    use super::*;
    use crate::ops::schedule::Schedule;

    /// A clock that goes on only when it is read or slept on.
    struct Fake {
        now: Timestamp,
        runs: Vec<Timestamp>,
        waits: Vec<Timestamp>,
        cancel: Cancel,
        stop_after: usize,
        fails: bool,
    }

    impl Work for Fake {
        fn now(&self) -> Timestamp {
            self.now
        }

        async fn newest(&mut self) -> Option<Timestamp> {
            if self.fails {
                None
            } else {
                self.runs.last().copied()
            }
        }

        async fn run(&mut self, run: Run) -> bool {
            assert_eq!(run.number, self.runs.len() as u64 + 1);
            self.runs.push(self.now);
            self.now += 1.second();
            if self.runs.len() == self.stop_after {
                self.cancel.cancel();
            }
            !self.fails
        }

        fn waits(&mut self, until: Timestamp) {
            self.waits.push(until);
        }

        async fn sleep(&mut self, time: Duration) {
            self.now += SignedDuration::try_from(time).unwrap();
        }
    }

    async fn go(fails: bool, stop_after: usize) -> Fake {
        let schedule = Schedule::parse("@hourly", &TimeZone::UTC, 0).unwrap();
        let mut pace = Pace::new(schedule, 0.0, Duration::ZERO);
        let mut fake = Fake {
            now: "2026-11-21T06:15:00Z".parse().unwrap(),
            runs: Vec::new(),
            waits: Vec::new(),
            cancel: Cancel::default(),
            stop_after,
            fails,
        };
        let cancel = fake.cancel.clone();
        run(&cancel, &mut pace, &mut fake, GRACE).await.unwrap();
        fake
    }

    #[tokio::test]
    async fn it_goes_on_for_two_hundred_periods_and_through_failures() {
        let fake = go(false, 200).await;
        assert_eq!(fake.runs.len(), 200);
        let last = fake.runs[199].duration_since(fake.runs[1]);
        assert_eq!(last, SignedDuration::from_hours(198));
        let fake = go(true, 200).await;
        assert_eq!(fake.runs.len(), 200);
    }

    /// A run that does not listen.
    struct Deaf(Timestamp);

    impl Work for Deaf {
        fn now(&self) -> Timestamp {
            self.0
        }

        async fn newest(&mut self) -> Option<Timestamp> {
            None
        }

        async fn run(&mut self, _run: Run) -> bool {
            std::future::pending().await
        }

        fn waits(&mut self, _until: Timestamp) {}

        async fn sleep(&mut self, _time: Duration) {}
    }

    #[tokio::test]
    async fn a_run_that_does_not_stop_is_left() {
        let schedule = Schedule::parse("@hourly", &TimeZone::UTC, 0).unwrap();
        let mut pace = Pace::new(schedule, 0.0, Duration::ZERO);
        let cancel = Cancel::default();
        cancel.cancel();
        let mut deaf = Deaf(Timestamp::UNIX_EPOCH);
        run(&cancel, &mut pace, &mut deaf, Duration::ZERO)
            .await
            .unwrap();
        let cancel = Cancel::default();
        let wish = cancel.clone();
        tokio::spawn(async move { wish.cancel() });
        let grace = Duration::from_millis(10);
        run(&cancel, &mut pace, &mut deaf, grace).await.unwrap();
    }
}
