//! Values that Kubernetes writes in JSON otherwise than protobuf's own mapping does (k8s.io/apimachinery,
//! `pkg/apis/meta/v1`, `pkg/util/intstr`, `pkg/api/resource`).

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use prost_reflect::{DynamicMessage, Value as Field};
use serde_json::Value;

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.";

/// A message that is not an object in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// JSON that is stored as it is.
    Raw,
}

impl Special {
    /// By a message's full name.
    pub(super) fn of(name: &str) -> Option<Self> {
        if let Some(name) = name.strip_prefix(META) {
            return match name {
                "Time" => Some(Self::Time),
                "MicroTime" => Some(Self::MicroTime),
                "Duration" => Some(Self::Duration),
                "FieldsV1" => Some(Self::Raw),
                _ => None,
            };
        }
        match name {
            "k8s.io.apimachinery.pkg.api.resource.Quantity" => Some(Self::Quantity),
            "k8s.io.apimachinery.pkg.util.intstr.IntOrString" => Some(Self::IntOrString),
            "k8s.io.apimachinery.pkg.runtime.RawExtension" => Some(Self::Raw),
            _ => None,
        }
    }

    /// The JSON of a message.
    ///
    /// # Errors
    /// What was expected and found, in a sentence.
    pub(super) fn json(self, message: &DynamicMessage) -> Result<Value, String> {
        match self {
            Self::Time => time(message, "%Y-%m-%dT%H:%M:%SZ"),
            Self::MicroTime => time(message, "%Y-%m-%dT%H:%M:%S.%6fZ"),
            Self::Duration => Ok(Value::String(duration(number(message, 1)))),
            Self::Quantity => Ok(Value::String(match text(message, 1) {
                empty if empty.is_empty() => "0".to_owned(),
                text => text,
            })),
            Self::IntOrString => Ok(match number(message, 1) {
                0 => number(message, 2).into(),
                _ => Value::String(text(message, 3)),
            }),
            Self::Raw => raw(message),
        }
    }
}

fn get(message: &DynamicMessage, number: u32) -> Option<Cow<'_, Field>> {
    message
        .has_field_by_number(number)
        .then(|| message.get_field_by_number(number))?
}

fn number(message: &DynamicMessage, field: u32) -> i64 {
    match get(message, field).as_deref() {
        Some(Field::I64(number)) => *number,
        Some(Field::I32(number)) => i64::from(*number),
        _ => 0,
    }
}

fn text(message: &DynamicMessage, field: u32) -> String {
    match get(message, field).as_deref() {
        Some(Field::String(text)) => text.clone(),
        _ => String::new(),
    }
}

/// A zero time is an empty message. Time has whole seconds and MicroTime microseconds, whatever the message has.
fn time(message: &DynamicMessage, format: &str) -> Result<Value, String> {
    if !message.has_field_by_number(1) && !message.has_field_by_number(2) {
        return Ok(Value::Null);
    }
    let (seconds, nanos) = (number(message, 1), number(message, 2));
    let out_of_range = || format!("expected a time, found second {seconds}");
    let nanos = i32::try_from(nanos).map_err(|_| out_of_range())?;
    let time = Timestamp::new(seconds, nanos).map_err(|_| out_of_range())?;
    let time = time.to_zoned(TimeZone::UTC);
    strtime::format(format, &time)
        .map(Value::String)
        .map_err(|_| out_of_range())
}

/// As Go's `time.Duration` prints itself: `1h0m0s`, `1.5s`, `100ms`, `0s`.
fn duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let all = nanos.unsigned_abs();
    let fraction = |value: u64, digits: usize| {
        let unit = 10_u64.pow(digits as u32);
        let rest = format!("{:0digits$}", value % unit);
        let rest = rest.trim_end_matches('0');
        match rest {
            "" => format!("{}", value / unit),
            rest => format!("{}.{rest}", value / unit),
        }
    };
    match all {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{all}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(all, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(all, 6)),
        _ => {
            let seconds = all / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = fraction(all % 60_000_000_000, 9);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{rest}s"),
                (0, _) => format!("{sign}{minutes}m{rest}s"),
                _ => format!("{sign}{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

fn raw(message: &DynamicMessage) -> Result<Value, String> {
    match get(message, 1).as_deref() {
        Some(Field::Bytes(bytes)) if !bytes.is_empty() => serde_json::from_slice(bytes)
            .map_err(|error| format!("expected JSON in a raw field: {error}")),
        _ => Ok(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_000_000, "2ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (-90_000_000_000, "-1m30s"),
            (86_400_000_000_001, "24h0m0.000000001s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(duration(nanos), text);
        }
    }
}
