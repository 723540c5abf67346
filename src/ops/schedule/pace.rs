//! What is due now: a pure function of the time, the newest set, and what was tried before.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::cron::{Period, Schedule};
use crate::error::Result;

/// The first pause before a failed run is tried again; it doubles each time.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// The longest.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(10);
/// A pause is at most this part of the period, and at least a second.
const PAUSES_IN_A_PERIOD: i32 = 8;
/// A node's own delay is at most this part of the period.
const DELAYS_IN_A_PERIOD: i32 = 10;

/// What is to be done at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// This period has no backup yet.
    Run(Period),
    /// Nothing before then.
    Wait(Timestamp),
}

/// Decides when the next run is due.
#[derive(Debug, Clone)]
pub struct Pace {
    schedule: Schedule,
    /// Between 0 and 1.
    spread: f64,
    longest_delay: SignedDuration,
    served: Option<Timestamp>,
    failed: Option<Failed>,
}

/// Runs of one period that failed.
#[derive(Debug, Clone, Copy)]
struct Failed {
    start: Timestamp,
    times: u32,
    again: Timestamp,
}

/// A number from 0 up to 1, evenly spread over names and always the same for one.
pub fn spread(name: &str) -> f64 {
    let digest = Sha256::digest(name.as_bytes());
    let head = digest
        .iter()
        .take(4)
        .fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
    f64::from(head) / (f64::from(u32::MAX) + 1.0)
}

impl Pace {
    /// A node that starts each period `spread` times `longest_delay` late, or a tenth of the period
    /// where that is shorter.
    pub fn new(schedule: Schedule, spread: f64, longest_delay: Duration) -> Self {
        Self {
            schedule,
            spread: spread.clamp(0.0, 1.0),
            longest_delay: SignedDuration::try_from(longest_delay).unwrap_or(SignedDuration::MAX),
            served: None,
            failed: None,
        }
    }

    /// What is due, given when the newest whole set was begun.
    ///
    /// # Errors
    /// Those of [`Schedule::period`].
    pub fn due(&self, now: Timestamp, newest: Option<Timestamp>) -> Result<Due> {
        let period = self.current(now)?;
        // A set from the future says nothing of this period.
        let there = newest.is_some_and(|taken| taken >= period.start && taken <= now);
        if there || self.served == Some(period.start) {
            return Ok(Due::Wait(self.next(period)?));
        }
        match self.failed {
            Some(failed) if failed.start == period.start && failed.again > now => {
                Ok(Due::Wait(failed.again.min(self.next(period)?)))
            }
            _ => Ok(Due::Run(period)),
        }
    }

    /// Tells that a run of a period ended at `now`, and whether there is a backup.
    pub fn ended(&mut self, now: Timestamp, period: Period, good: bool) {
        if good {
            self.served = Some(period.start);
            self.failed = None;
            return;
        }
        let before = self.failed.filter(|failed| failed.start == period.start);
        let times = before.map_or(0, |failed| failed.times);
        let length = period.end.duration_since(period.start);
        let doubled =
            FIRST_PAUSE.saturating_mul(1_i32.checked_shl(times).unwrap_or(i32::MAX).max(1));
        let pause = doubled
            .min(LONGEST_PAUSE)
            .min(length / PAUSES_IN_A_PERIOD)
            .max(SignedDuration::from_secs(1));
        self.failed = Some(Failed {
            start: period.start,
            times: times.saturating_add(1).min(20),
            again: now.checked_add(pause).unwrap_or(now),
        });
    }

    /// The period whose run may begin: the one before, until this node's delay has passed.
    fn current(&self, now: Timestamp) -> Result<Period> {
        let period = self.schedule.period(now)?;
        if now >= self.begins(period) {
            return Ok(period);
        }
        let before = period.start.checked_sub(SignedDuration::from_nanos(1));
        before.map_or(Ok(period), |before| self.schedule.period(before))
    }

    /// When the run of the period after this one may begin.
    fn next(&self, period: Period) -> Result<Timestamp> {
        Ok(self.begins(self.schedule.period(period.end)?))
    }

    /// When this node's run of a period may begin.
    fn begins(&self, period: Period) -> Timestamp {
        let length = period.end.duration_since(period.start);
        let longest = self.longest_delay.min(length / DELAYS_IN_A_PERIOD);
        let delay = longest.mul_f64(self.spread);
        period.start.checked_add(delay).unwrap_or(period.start)
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hourly(spread: f64) -> Pace {
        let schedule = Schedule::parse("@hourly", &TimeZone::UTC, 0).unwrap();
        Pace::new(schedule, spread, Duration::from_secs(300))
    }

    #[test]
    fn a_missed_run_is_caught_up_once() {
        let pace = hourly(0.5);
        let now = at("2026-11-21T06:15:30Z");
        let run = Due::Run(Period {
            start: at("2026-11-21T06:00:00Z"),
            end: at("2026-11-21T07:00:00Z"),
        });
        assert_eq!(pace.due(now, None).unwrap(), run);
        assert_eq!(
            pace.due(now, Some(at("2026-11-20T06:00:00Z"))).unwrap(),
            run
        );
        assert_eq!(
            pace.due(now, Some(at("2026-11-21T08:00:00Z"))).unwrap(),
            run
        );
        let wait = Due::Wait(at("2026-11-21T07:02:30Z"));
        assert_eq!(
            pace.due(now, Some(at("2026-11-21T06:00:00Z"))).unwrap(),
            wait
        );
    }

    /// Goes through time as the loop does; `works` says whether a run that begins then succeeds.
    fn simulate(
        pace: &mut Pace,
        from: &str,
        hours: i64,
        works: impl Fn(Timestamp) -> bool,
    ) -> (Vec<Timestamp>, usize) {
        let mut now = at(from);
        let end = now + SignedDuration::from_hours(hours);
        let (mut taken, mut failures) = (Vec::new(), 0);
        while now < end {
            match pace.due(now, taken.last().copied()).unwrap() {
                Due::Wait(until) => {
                    assert!(until > now, "it would spin at {now}");
                    now = until;
                }
                Due::Run(period) => {
                    let good = works(now);
                    if good {
                        taken.push(now);
                    } else {
                        failures += 1;
                    }
                    now += SignedDuration::from_secs(20);
                    pace.ended(now, period, good);
                }
            }
        }
        (taken, failures)
    }

    #[test]
    fn one_backup_a_period_for_two_hundred_periods() {
        let mut pace = hourly(0.25);
        let (taken, failures) = simulate(&mut pace, "2026-11-01T00:30:00Z", 200, |_| true);
        assert_eq!((taken.len(), failures), (201, 0));
        for pair in taken.windows(2).skip(1) {
            assert_eq!(
                pair[1].duration_since(pair[0]),
                SignedDuration::from_hours(1)
            );
        }
        assert_eq!(taken[1], at("2026-11-01T01:01:15Z"));
    }

    #[test]
    fn three_periods_without_etcd_lose_three_backups_and_no_more() {
        let (down, up) = (at("2026-11-01T03:00:00Z"), at("2026-11-01T06:10:00Z"));
        let mut pace = hourly(0.0);
        let works = |now| now < down || now >= up;
        let (taken, failures) = simulate(&mut pace, "2026-11-01T00:00:00Z", 10, works);
        // The fourth period's is late: its own pauses are what it waits for, once etcd is back.
        assert_eq!(taken.len(), 7);
        assert!(
            taken[3] >= up && taken[3] < at("2026-11-01T06:20:00Z"),
            "{taken:?}"
        );
        assert_eq!(taken[4], at("2026-11-01T07:00:00Z"));
        // 20 s of trying, then 30 s, 1, 2, 4, 7.5, 7.5 … minutes.
        assert!((24..60).contains(&failures), "{failures}");
    }

    #[test]
    fn names_are_spread_and_stay_where_they_are() {
        let names: Vec<f64> = (0..300).map(|n| spread(&format!("master-{n}"))).collect();
        assert_eq!(names[0], spread("master-0"));
        for third in 0..3 {
            let (low, high) = (f64::from(third) / 3.0, f64::from(third + 1) / 3.0);
            let here = names.iter().filter(|at| (low..high).contains(*at)).count();
            assert!((70..130).contains(&here), "{here} in {low}..{high}");
        }
    }
}
