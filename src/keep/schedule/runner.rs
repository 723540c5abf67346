//! The loop: asks what is due, waits, runs, and continues whatever the outcome.

use std::time::Duration;

use jiff::Timestamp;

use super::cron::Period;
use super::pace::{Due, Pace};
use crate::context::Cancel;
use crate::error::Result;

/// How long a run that was asked to stop may take to do so, before it is left alone: what it has
/// staged is not a backup, and the next run removes it.
pub const GRACE: Duration = Duration::from_secs(20);
/// The longest sleep: the clock may be set, or the machine suspended, in the meantime.
const NAP: Duration = Duration::from_secs(30);
/// How often a suspended schedule checks whether to continue.
const SUSPENDED_NAP: Duration = Duration::from_secs(1);

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Counted from 1 since the process began.
    pub number: u64,
    /// The period whose backup it is to take.
    pub period: Period,
    /// Whether it let the other members go first, because its own led them.
    pub gave_way: bool,
}

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Whether the period has a backup now.
    pub backup: bool,
    /// Whether no copy is owed.
    pub copies: bool,
}

/// What the loop needs of the world.
pub trait Work {
    /// The time.
    fn now(&self) -> Timestamp;

    /// When the newest whole set was begun; none too where the store cannot be read, which the run
    /// that follows will say.
    fn newest(&mut self) -> impl Future<Output = Option<Timestamp>>;

    /// Whether no run is to begin, by the operator's wish.
    fn suspended(&mut self) -> bool;

    /// Whether this node's member leads others; what cannot be found out is no reason to wait.
    fn leads(&mut self) -> impl Future<Output = bool>;

    /// Takes the period's backup, with its copies, and tells of it.
    fn run(&mut self, run: Run) -> impl Future<Output = Ended>;

    /// Makes the copies that are owed, tells of it, and says whether none is owed any more; none
    /// if there was none, and nothing was reported.
    fn copy(&mut self, run: Run) -> impl Future<Output = Option<bool>>;

    /// Told that nothing is due before a moment.
    fn waits(&mut self, until: Timestamp);

    /// Sleeps.
    fn sleep(&mut self, time: Duration) -> impl Future<Output = ()>;
}

/// Runs until it is asked to stop; a run under way then is given a grace to end, as [`GRACE`].
///
/// # Errors
/// Only where times can no longer be reckoned. A run that fails is not one.
pub async fn run<W: Work>(
    cancel: &Cancel,
    pace: &mut Pace,
    work: &mut W,
    grace: Duration,
) -> Result<()> {
    let mut number = 0;
    let mut told = None;
    while !cancel.is_cancelled() {
        if work.suspended() {
            told = None;
            if !slept(cancel, work, SUSPENDED_NAP).await {
                break;
            }
            continue;
        }
        let newest = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            newest = work.newest() => newest,
        };
        let now = work.now();
        let due = pace.due(now, newest)?;
        if let Due::Wait(until) = due {
            if told != Some(until) {
                work.waits(until);
                told = Some(until);
            }
            let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
            // A moment more, so that it is not woken just before.
            let nap = (left + Duration::from_millis(1)).min(NAP);
            if !slept(cancel, work, nap).await {
                break;
            }
            continue;
        }
        told = None;
        let begun = begin(pace, work, due, number + 1);
        tokio::select! {
            biased;
            counts = begun => number += u64::from(counts),
            () = abandoned(cancel, grace) => break,
        }
    }
    Ok(())
}

/// Does what is due; whether it was a run that was reported.
async fn begin<W: Work>(pace: &mut Pace, work: &mut W, due: Due, number: u64) -> bool {
    let run = |pace: &Pace, period| Run {
        number,
        period,
        gave_way: pace.gave_way_in(period),
    };
    match due {
        Due::Run(period) => {
            if pace.can_give_way(work.now(), period) && work.leads().await {
                pace.give_way(period);
                return false;
            }
            let ended = work.run(run(pace, period)).await;
            let now = work.now();
            pace.ended(now, period, ended.backup);
            // Without a backup there was no try at copies either.
            if ended.backup {
                pace.copied(now, period, ended.copies);
            }
            true
        }
        Due::Copy(period) => {
            let all = work.copy(run(pace, period)).await;
            pace.copied(work.now(), period, all.unwrap_or(true));
            all.is_some()
        }
        Due::Wait(_) => false,
    }
}

/// Sleeps, unless asked to stop in the meantime.
async fn slept<W: Work>(cancel: &Cancel, work: &mut W, nap: Duration) -> bool {
    tokio::select! {
        biased;
        () = cancel.cancelled() => false,
        () = work.sleep(nap) => true,
    }
}

/// The end of the grace period after a request to stop.
async fn abandoned(cancel: &Cancel, grace: Duration) {
    cancel.cancelled().await;
    tokio::time::sleep(grace).await;
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use jiff::{SignedDuration, ToSpan as _};

    use super::*;
    use crate::keep::schedule::Schedule;

    /// A clock that advances only when it is read or slept on.
    struct Fake {
        now: Timestamp,
        runs: Vec<Timestamp>,
        waits: Vec<Timestamp>,
        cancel: Cancel,
        stop_after: usize,
        fails: bool,
        /// When it led.
        leads: Option<Timestamp>,
        suspended_until: Option<Timestamp>,
        /// When copies were tried; so many times they fail.
        copies: Vec<Timestamp>,
        copies_fail: usize,
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

        fn suspended(&mut self) -> bool {
            self.suspended_until.is_some_and(|until| self.now < until)
        }

        async fn leads(&mut self) -> bool {
            self.leads = Some(self.now);
            true
        }

        async fn run(&mut self, run: Run) -> Ended {
            let before = self.runs.len() + self.copies.len();
            assert_eq!(run.number, before as u64 + 1);
            assert_eq!(run.gave_way, self.leads.is_some());
            self.runs.push(self.now);
            self.now += 1.second();
            if self.runs.len() == self.stop_after {
                self.cancel.cancel();
            }
            Ended {
                backup: !self.fails,
                copies: self.copies_fail == 0,
            }
        }

        async fn copy(&mut self, _run: Run) -> Option<bool> {
            self.copies.push(self.now);
            self.copies_fail -= 1;
            Some(self.copies_fail == 0)
        }

        fn waits(&mut self, until: Timestamp) {
            self.waits.push(until);
        }

        async fn sleep(&mut self, time: Duration) {
            self.now += SignedDuration::try_from(time).unwrap();
        }
    }

    impl Fake {
        fn new(stop_after: usize) -> Self {
            Self {
                now: "2026-11-21T06:15:00Z".parse().unwrap(),
                runs: Vec::new(),
                waits: Vec::new(),
                cancel: Cancel::default(),
                stop_after,
                fails: false,
                leads: None,
                suspended_until: None,
                copies: Vec::new(),
                copies_fail: 0,
            }
        }

        async fn goes(mut self, jitter: Duration) -> Self {
            let schedule = Schedule::parse("@hourly", &TimeZone::UTC, 0).unwrap();
            let mut pace = Pace::new(schedule, 0.0, jitter);
            let cancel = self.cancel.clone();
            run(&cancel, &mut pace, &mut self, GRACE).await.unwrap();
            self
        }
    }

    async fn go(fails: bool, stop_after: usize) -> Fake {
        let fake = Fake {
            fails,
            ..Fake::new(stop_after)
        };
        fake.goes(Duration::ZERO).await
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_leader_is_asked_for_once_a_period_and_runs_after_the_others() {
        let fake = Fake {
            now: at("2026-11-21T06:00:00Z"),
            ..Fake::new(2)
        };
        let fake = fake.goes(Duration::from_secs(300)).await;
        assert_eq!(fake.leads, Some(at("2026-11-21T07:00:00.001Z")));
        let turns: Vec<String> = fake.runs.iter().map(Timestamp::to_string).collect();
        assert_eq!(turns, ["2026-11-21T06:05:00Z", "2026-11-21T07:05:00.001Z"]);
    }

    #[tokio::test]
    async fn a_suspended_schedule_begins_nothing_and_then_catches_up_once() {
        let fake = Fake {
            suspended_until: Some(at("2026-11-21T09:10:00Z")),
            ..Fake::new(2)
        };
        let fake = fake.goes(Duration::ZERO).await;
        assert_eq!(fake.runs[0], at("2026-11-21T09:10:00Z"));
        assert_eq!(fake.runs[1], at("2026-11-21T10:00:00.001Z"));
    }

    #[tokio::test]
    async fn copies_that_failed_are_made_between_the_runs() {
        let fake = Fake {
            copies_fail: 4,
            ..Fake::new(2)
        };
        let fake = fake.goes(Duration::ZERO).await;
        let waits: Vec<i64> = fake
            .copies
            .iter()
            .map(|at| at.duration_since(fake.runs[0]).as_secs())
            .collect();
        // 30 s after the run, which took one, and 1, 2, 4 minutes after each other.
        assert_eq!(waits, [31, 91, 211, 451]);
        assert_eq!(fake.runs.len(), 2);
    }

    #[tokio::test]
    async fn the_loop_runs_for_two_hundred_periods_and_through_failures() {
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

        fn suspended(&mut self) -> bool {
            false
        }

        async fn leads(&mut self) -> bool {
            std::future::pending().await
        }

        async fn run(&mut self, _run: Run) -> Ended {
            std::future::pending().await
        }

        async fn copy(&mut self, _run: Run) -> Option<bool> {
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
