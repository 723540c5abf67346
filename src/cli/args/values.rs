//! What several options take: times, sizes, time zones.

use std::time::Duration;

use jiff::tz::TimeZone;

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
}
