//! What several options take: times, sizes, time zones.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Reads `90s`, `30m`, `1h30m`, `2d`; a day is 24 hours.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text
        .parse()
        .map_err(|_| format!("expected a time such as 90s, 30m, 1h or 2d, found {text:?}"))?;
    let whole = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| format!("expected a time in days or smaller units, found {text:?}"))?;
    Duration::try_from(whole).map_err(|_| format!("expected a time above zero, found {text:?}"))
}

/// A moment: a time, or how long ago it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// This time.
    At(Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl When {
    /// The time that it is.
    pub fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(age) => SignedDuration::try_from(age)
                .ok()
                .and_then(|age| now.checked_sub(age).ok())
                .unwrap_or(Timestamp::MIN),
        }
    }
}

/// Reads `2026-11-30T12:03:07Z`, or `15m`.
pub fn parse_when(text: &str) -> Result<When, String> {
    if let Ok(time) = text.parse() {
        return Ok(When::At(time));
    }
    parse_duration(text).map(When::Ago).map_err(|_| {
        format!(
            "expected a time such as 2026-11-30T12:03:07Z, or an age such as 15m, found {text:?}"
        )
    })
}

/// Reads `1048576`, `50MB`, `50MiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
        _ => Err(format!(
            "expected a size above zero such as 50MiB, found {text:?}"
        )),
    }
}

/// Reads `UTC`, an IANA name, or an offset such as `+01:00`.
pub fn parse_zone(text: &str) -> Result<TimeZone, String> {
    let offset = jiff::fmt::strtime::parse("%:z", text)
        .ok()
        .and_then(|parsed| parsed.offset());
    match offset {
        Some(offset) => Ok(TimeZone::fixed(offset)),
        None => TimeZone::get(text).map_err(|_| {
            format!("expected a zone such as UTC, Europe/Berlin or +01:00, found {text:?}")
        }),
    }
}

/// Help that ends with the names that an option takes.
pub(super) fn with_names(help: &str, names: &[&str]) -> String {
    format!("{help}\n\nNames: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(172_800)));
        assert!(
            parse_duration("-1h").is_err()
                && parse_duration("1y").is_err()
                && parse_duration("").is_err()
        );
        assert_eq!(parse_size("50MiB"), Ok(50 << 20));
        assert!(parse_size("0").is_err() && parse_size("x").is_err());
    }

    #[test]
    fn moments() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let read = |text: &str| parse_when(text).unwrap().time(now).to_string();
        assert_eq!(read("15m"), "2026-11-30T11:45:00Z");
        assert_eq!(read("2026-11-30T12:03:07+01:00"), "2026-11-30T11:03:07Z");
        for bad in ["", "yesterday", "2026-11-30", "12:00", "-15m"] {
            assert!(parse_when(bad).is_err(), "{bad}");
        }
    }
}
