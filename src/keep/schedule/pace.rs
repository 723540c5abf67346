//! What is due now: a pure function of the time, the newest set, and what was tried before.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::cron::{Period, Schedule};
use crate::backup::newest::is_future;
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
    /// It has one, but copies are owed.
    Copy(Period),
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
    /// The start of the period in which the others go first.
    gave_way: Option<Timestamp>,
    failed: Option<Failed>,
    /// Copies that are owed.
    owed: Option<Failed>,
}

/// What failed in one period, and when it is tried again.
#[derive(Debug, Clone, Copy)]
struct Failed {
    start: Timestamp,
    times: u32,
    again: Timestamp,
}

impl Failed {
    /// Once more in a period: the pause doubles from one time to the next.
    fn once_more(before: Option<Self>, now: Timestamp, period: Period) -> Self {
        let before = before.filter(|failed| failed.start == period.start);
        let times = before.map_or(0, |failed| failed.times);
        let length = period.length();
        let doubled =
            FIRST_PAUSE.saturating_mul(1_i32.checked_shl(times).unwrap_or(i32::MAX).max(1));
        let pause = doubled
            .min(LONGEST_PAUSE)
            .min(length / PAUSES_IN_A_PERIOD)
            .max(SignedDuration::from_secs(1));
        Self {
            start: period.start,
            // The pause has long reached its bound by then, and the shift stays small.
            times: times.saturating_add(1).min(20),
            again: now.checked_add(pause).unwrap_or(now),
        }
    }
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
            gave_way: None,
            failed: None,
            owed: None,
        }
    }

    /// The same for a schedule that makes copies: whether any is owed from before is not known, so
    /// that it is looked for at once.
    pub fn with_copies(mut self) -> Self {
        self.owed = Some(Failed {
            start: Timestamp::UNIX_EPOCH,
            times: 0,
            again: Timestamp::UNIX_EPOCH,
        });
        self
    }

    /// What is due, given when the newest whole set was begun.
    ///
    /// # Errors
    /// Those of [`Schedule::period`].
    pub fn due(&self, now: Timestamp, newest: Option<Timestamp>) -> Result<Due> {
        let period = self.current(now)?;
        // A set from the future says nothing of this period.
        let counts = |taken: Timestamp| taken >= period.start && !is_future(taken, now);
        let there = newest.is_some_and(counts);
        if there || self.served == Some(period.start) {
            return match self.owed {
                Some(owed) if owed.again <= now => Ok(Due::Copy(period)),
                Some(owed) => Ok(Due::Wait(owed.again.min(self.next(period)?))),
                None => Ok(Due::Wait(self.next(period)?)),
            };
        }
        let failed = self.failed.filter(|failed| failed.start == period.start);
        let again = failed.map(|failed| failed.again);
        let turn = self.gave_way_in(period).then(|| self.last_turn(period));
        match again.max(turn) {
            Some(then) if then > now => Ok(Due::Wait(then.min(self.next(period)?))),
            _ => Ok(Due::Run(period)),
        }
    }

    /// Whether a leader's run of a period should wait for the others': it can once a period, as
    /// long as its own turn, a second window after theirs, has not come.
    pub fn can_give_way(&self, now: Timestamp, period: Period) -> bool {
        !self.gave_way_in(period) && now < self.last_turn(period)
    }

    /// Whether the others went first in a period.
    pub fn gave_way_in(&self, period: Period) -> bool {
        self.gave_way == Some(period.start)
    }

    /// The others go first in this period.
    pub fn give_way(&mut self, period: Period) {
        self.gave_way = Some(period.start);
    }

    /// Tells that a run of a period ended at `now`, and whether there is a backup.
    pub fn ended(&mut self, now: Timestamp, period: Period, good: bool) {
        if good {
            self.served = Some(period.start);
            self.failed = None;
            return;
        }
        self.failed = Some(Failed::once_more(self.failed, now, period));
    }

    /// Tells that copies were made at `now`, and whether none is owed any more.
    pub fn copied(&mut self, now: Timestamp, period: Period, all: bool) {
        self.owed = (!all).then(|| Failed::once_more(self.owed, now, period));
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
        let delay = self.window(period).mul_f64(self.spread);
        period.start.checked_add(delay).unwrap_or(period.start)
    }

    /// When it begins where the node's member leads the others: as late in a second window, which
    /// follows the one in which they all begin.
    fn last_turn(&self, period: Period) -> Timestamp {
        let begins = self.begins(period);
        begins.checked_add(self.window(period)).unwrap_or(begins)
    }

    /// The time in which the nodes' runs begin.
    fn window(&self, period: Period) -> SignedDuration {
        self.longest_delay.min(period.length() / DELAYS_IN_A_PERIOD)
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
                Due::Copy(_) => panic!("there are no copies"),
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

    #[test]
    fn a_leader_goes_last_and_waits_once() {
        // Two windows of five minutes: others begin in the first, a leader in the second.
        let mut pace = hourly(0.5);
        let period = Period {
            start: at("2026-11-21T06:00:00Z"),
            end: at("2026-11-21T07:00:00Z"),
        };
        let now = at("2026-11-21T06:02:30Z");
        assert_eq!(pace.due(now, None).unwrap(), Due::Run(period));
        assert!(pace.can_give_way(now, period));
        pace.give_way(period);
        assert!(!pace.can_give_way(now, period));
        let turn = at("2026-11-21T06:07:30Z");
        assert_eq!(pace.due(now, None).unwrap(), Due::Wait(turn));
        assert_eq!(pace.due(turn, None).unwrap(), Due::Run(period));
        // A run that failed before is not tried sooner for it.
        pace.ended(turn, period, false);
        let again = turn + SignedDuration::from_secs(30);
        assert_eq!(pace.due(turn, None).unwrap(), Due::Wait(again));
        assert_eq!(pace.due(again, None).unwrap(), Due::Run(period));
        // A missed run is not put off any more, and without a window nothing is.
        let mut pace = hourly(0.5);
        assert!(!pace.can_give_way(at("2026-11-21T06:15:00Z"), period));
        pace.longest_delay = SignedDuration::ZERO;
        assert!(!pace.can_give_way(period.start, period));
        // The slot of the last leader ends before that of no other node's next period begins.
        for spread in [0.0, 0.3, 0.999] {
            let pace = hourly(spread);
            let others = period.start + SignedDuration::from_mins(5);
            assert!(pace.last_turn(period) >= others && pace.last_turn(period) < period.end);
        }
    }

    #[test]
    fn owed_copies_are_tried_with_pauses_and_again_in_the_next_period() {
        let mut pace = hourly(0.0).with_copies();
        let period = Period {
            start: at("2026-11-21T06:00:00Z"),
            end: at("2026-11-21T07:00:00Z"),
        };
        let taken = Some(at("2026-11-21T06:00:01Z"));
        let mut now = at("2026-11-21T06:00:02Z");
        // What was owed when the process began is not known.
        assert_eq!(pace.due(now, taken).unwrap(), Due::Copy(period));
        let mut pauses = Vec::new();
        while now < period.end {
            match pace.due(now, taken).unwrap() {
                Due::Copy(of) => pace.copied(now, of, false),
                Due::Wait(until) => {
                    pauses.push(until.duration_since(now).as_secs());
                    now = until;
                }
                Due::Run(_) => panic!("there is a backup"),
            }
        }
        assert_eq!(pauses[..6], [30, 60, 120, 240, 450, 450], "{pauses:?}");
        // The next period's backup goes first; the pauses start over with it.
        let next = Period {
            start: period.end,
            end: at("2026-11-21T08:00:00Z"),
        };
        assert_eq!(pace.due(now, taken).unwrap(), Due::Run(next));
        pace.ended(now, next, true);
        pace.copied(now, next, false);
        let again = now + SignedDuration::from_secs(30);
        assert_eq!(pace.due(now, Some(now)).unwrap(), Due::Wait(again));
        assert_eq!(pace.due(again, Some(now)).unwrap(), Due::Copy(next));
        pace.copied(again, next, true);
        assert_eq!(pace.due(again, Some(now)).unwrap(), Due::Wait(next.end));
    }
}
