//! When a period begins: five cron fields, `@hourly` and its like, or `@every TIME`.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::error::{Doing, Failure, Kind, Result};

/// The short names, as cron(8) of Debian and Kubernetes' CronJob know them.
const NAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// How far back the beginning of the period is looked for, one after the other: each window is
/// small beside the distance between beginnings that the one before it has not held.
const WINDOWS: [SignedDuration; 6] = [
    SignedDuration::from_mins(1),
    SignedDuration::from_hours(1),
    SignedDuration::from_hours(24),
    SignedDuration::from_hours(24 * 32),
    SignedDuration::from_hours(24 * 367),
    SignedDuration::from_hours(24 * 366 * 4),
];

/// One period: a backup belongs to it that was begun at `start` or later, and before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Its first moment.
    pub start: Timestamp,
    /// The first moment of the next one.
    pub end: Timestamp,
}

impl Period {
    /// From one to the next.
    pub fn length(self) -> SignedDuration {
        self.end.duration_since(self.start)
    }
}

/// When periods begin.
#[derive(Debug, Clone)]
pub struct Schedule(Form);

#[derive(Debug, Clone)]
enum Form {
    Cron(Box<cronexpr::Crontab>),
    /// Counted from 1970 on, so that a restart does not move them.
    Every(SignedDuration),
}

impl Schedule {
    /// Reads `0 * * * *`, `@hourly` or `@every 90m`. `H` in a field is a number made from `seed`,
    /// the same each time.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it is not one of them, or never comes.
    pub fn parse(text: &str, zone: &TimeZone, seed: u64) -> Result<Self> {
        let doing = || format!("reading the schedule {text:?}");
        let usage = |what: &str| Failure::new(Kind::Usage, what.to_owned()).doing(doing());
        let text = text.trim();
        if let Some(time) = text.strip_prefix("@every ") {
            let span: jiff::Span = time.trim().parse().doing(Kind::Usage, doing)?;
            let days = jiff::SpanRelativeTo::days_are_24_hours();
            let every = span.to_duration(days).doing(Kind::Usage, doing)?;
            if every < SignedDuration::from_secs(1) {
                return Err(usage("expected a second or more"));
            }
            return Ok(Self(Form::Every(every)));
        }
        let named = NAMES.iter().find(|(name, _)| *name == text);
        let fields = match named {
            Some((_, fields)) => (*fields).to_owned(),
            None if text.starts_with('@') => {
                let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                let known = known.join(", ");
                return Err(usage(&format!("expected {known} or @every TIME")));
            }
            None => cronexpr::normalize_crontab(text),
        };
        if fields.split(' ').count() != 5 {
            return Err(usage(
                "expected five fields: minute, hour, day of month, month, day of week",
            ));
        }
        let zone = match (zone.iana_name(), zone.to_fixed_offset()) {
            (Some(name), _) => name.to_owned(),
            (None, Ok(offset)) => offset.to_string(),
            (None, Err(_)) => return Err(usage("the time zone has no name")),
        };
        let mut options = cronexpr::ParseOptions::default();
        options.hashed_value = Some(seed);
        let crontab = cronexpr::parse_crontab_with(&format!("{fields} {zone}"), options);
        let crontab = crontab.map_err(|error| usage(&error.to_string()))?;
        // Fields can be right and mean no day: 30 February.
        let schedule = Self(Form::Cron(Box::new(crontab)));
        schedule.after(Timestamp::UNIX_EPOCH).map_err(|failure| {
            failure
                .as_kind(Kind::Usage)
                .doing("finding a day on which it is due")
        })?;
        Ok(schedule)
    }

    /// The first beginning after a moment.
    fn after(&self, moment: Timestamp) -> Result<Timestamp> {
        match &self.0 {
            Form::Cron(crontab) => {
                let next = crontab.find_next(cronexpr::MakeTimestamp(moment));
                Ok(next
                    .doing(Kind::Unexpected, || "computing the next time")?
                    .timestamp())
            }
            Form::Every(every) => {
                let step = every.as_nanos();
                let nanos = moment.as_nanosecond().div_euclid(step).saturating_add(1);
                Timestamp::from_nanosecond(nanos.saturating_mul(step))
                    .doing(Kind::Unexpected, || "computing the next time")
            }
        }
    }

    /// The period that contains a moment.
    ///
    /// # Errors
    /// [`Kind::Unexpected`] if no calendar reaches.
    pub fn period(&self, now: Timestamp) -> Result<Period> {
        let end = self.after(now)?;
        if let Form::Every(every) = &self.0 {
            let start = end.checked_sub(*every);
            let start = start.doing(Kind::Unexpected, || "computing the last time")?;
            return Ok(Period { start, end });
        }
        for window in WINDOWS {
            let from = now.checked_sub(window);
            // What begins at the window's own edge counts as well.
            let from = from.and_then(|from| from.checked_sub(SignedDuration::from_nanos(1)));
            let mut start =
                self.after(from.doing(Kind::Unexpected, || "computing the previous time")?)?;
            if start > now {
                continue;
            }
            loop {
                match self.after(start)? {
                    next if next > now => return Ok(Period { start, end }),
                    next => start = next,
                }
            }
        }
        // Rarer than every four years: 29 February of a certain weekday. All before is one period.
        Ok(Period {
            start: Timestamp::UNIX_EPOCH,
            end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn period(schedule: &str, zone: &str, now: &str) -> (String, String) {
        let zone = TimeZone::get(zone).unwrap();
        let period = Schedule::parse(schedule, &zone, 7)
            .unwrap()
            .period(at(now))
            .unwrap();
        (period.start.to_string(), period.end.to_string())
    }

    #[test]
    fn periods_of_cron_and_of_names() {
        for (schedule, zone, now, start, end) in [
            (
                "0 * * * *",
                "UTC",
                "2026-11-21T06:15:30Z",
                "2026-11-21T06:00:00Z",
                "2026-11-21T07:00:00Z",
            ),
            (
                "@hourly",
                "UTC",
                "2026-11-21T06:00:00Z",
                "2026-11-21T06:00:00Z",
                "2026-11-21T07:00:00Z",
            ),
            (
                "@hourly",
                "UTC",
                "2026-11-21T05:59:59.9Z",
                "2026-11-21T05:00:00Z",
                "2026-11-21T06:00:00Z",
            ),
            (
                "@daily",
                "Europe/Berlin",
                "2026-11-21T22:59:59Z",
                "2026-11-20T23:00:00Z",
                "2026-11-21T23:00:00Z",
            ),
            (
                "* 3 * * *",
                "UTC",
                "2026-11-21T12:00:00Z",
                "2026-11-21T03:59:00Z",
                "2026-11-22T03:00:00Z",
            ),
            (
                "@yearly",
                "UTC",
                "2026-11-21T12:00:00Z",
                "2026-01-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                "0 0 29 2 *",
                "UTC",
                "2026-11-21T12:00:00Z",
                "2024-02-29T00:00:00Z",
                "2028-02-29T00:00:00Z",
            ),
            (
                "30 2 * * mon",
                "UTC",
                "2026-11-21T12:00:00Z",
                "2026-11-16T02:30:00Z",
                "2026-11-23T02:30:00Z",
            ),
            (
                "@every 90m",
                "UTC",
                "1970-01-01T02:00:00Z",
                "1970-01-01T01:30:00Z",
                "1970-01-01T03:00:00Z",
            ),
            (
                "@every 2s",
                "UTC",
                "1970-01-01T00:00:04Z",
                "1970-01-01T00:00:04Z",
                "1970-01-01T00:00:06Z",
            ),
        ] {
            assert_eq!(
                period(schedule, zone, now),
                (start.to_owned(), end.to_owned()),
                "{schedule} {now}"
            );
        }
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let schedule = Schedule::parse("@daily", &zone, 0).unwrap();
        assert_eq!(
            schedule.period(at("2026-11-21T23:00:00Z")).unwrap().start,
            at("2026-11-21T22:00:00Z")
        );
    }

    #[test]
    fn periods_follow_each_other_when_clocks_change() {
        // Berlin puts its clocks forward on 29 March 2026 and back on 25 October.
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        for text in [
            "@hourly",
            "30 2 * * *",
            "*/20 1-3 * * *",
            "@daily",
            "H * * * *",
        ] {
            let schedule = Schedule::parse(text, &zone, 1234).unwrap();
            for day in ["2026-03-28T20:00:00Z", "2026-10-24T20:00:00Z"] {
                let mut now = at(day);
                for _ in 0..12 {
                    let period = schedule.period(now).unwrap();
                    assert!(
                        period.start <= now && now < period.end,
                        "{text} {now} {period:?}"
                    );
                    let next = schedule.period(period.end).unwrap();
                    assert_eq!(next.start, period.end, "{text} {now}");
                    let length = period.length();
                    assert!(
                        length <= SignedDuration::from_hours(49),
                        "{text} {period:?}"
                    );
                    now = period.end;
                }
            }
        }
    }

    #[test]
    fn texts_that_are_not_schedules() {
        for text in [
            "",
            "hourly",
            "@often",
            "@every",
            "@every 0s",
            "@every x",
            "60 * * * *",
            "* * * *",
            "0 0 * * * *",
            "0 * * * * Mars/Base",
            "0 0 31 2 *",
            "@every -2h",
        ] {
            let failure = Schedule::parse(text, &TimeZone::UTC, 0).unwrap_err();
            assert_eq!(failure.kind(), Kind::Usage, "{text}: {failure}");
        }
    }
}
