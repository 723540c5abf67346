//! What a stored object says of its times.
//!
//! Built-in kinds are `k8s\0` and protobuf `runtime.Unknown`, whose raw=2 is the object with its
//! metadata=1 (k8s.io/apimachinery, `pkg/runtime/generated.proto`); custom resources are JSON. Of the
//! metadata: creationTimestamp=8, deletionTimestamp=9, managedFields=17 {time=4} (`meta/v1`). Of a
//! Lease: spec=2 {renewTime=4} (`coordination/v1`). A time is seconds=1, nanos=2 since 1970.

use jiff::Timestamp;
use serde::Deserialize;

use crate::etcd::proto::{Fields, WireError};

/// What a built-in kind's stored bytes begin with.
const PROTOBUF_MAGIC: &[u8] = b"k8s\0";

/// The times in an object, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamps {
    /// When it was created.
    pub(super) created: Option<i64>,
    /// When its fields were last managed.
    pub(super) managed: Option<i64>,
    /// When it was renewed, if it is a Lease.
    pub(super) renewed: Option<i64>,
    /// Whether its deletion has been asked for: it waits for finalizers or a grace period.
    pub(super) deleting: bool,
}

impl Stamps {
    /// Reads a stored value; nothing if it is encrypted, or not an object. `lease` tells whether the
    /// key is a Lease's.
    pub(super) fn of(value: &[u8], lease: bool) -> Option<Self> {
        if let Some(message) = value.strip_prefix(PROTOBUF_MAGIC) {
            return protobuf(message, lease).ok().flatten();
        }
        if !value.starts_with(b"{") {
            return None;
        }
        let object: Object = serde_json::from_slice(value).ok()?;
        let metadata = object.metadata?;
        let micros = |time: Timestamp| time.as_microsecond();
        let managed = metadata
            .managed_fields
            .iter()
            .filter_map(|entry| entry.time);
        Some(Self {
            created: metadata.creation_timestamp.map(micros),
            managed: managed.max().map(micros),
            renewed: object.spec.and_then(|spec| spec.renew_time).map(micros),
            deleting: metadata.deletion_timestamp.is_some(),
        })
    }
}

fn protobuf(message: &[u8], lease: bool) -> Result<Option<Stamps>, WireError> {
    let mut stamps = None;
    for field in Fields::new(message) {
        let field = field?;
        if field.number != 2 {
            continue;
        }
        for field in field.message()? {
            let field = field?;
            match field.number {
                1 => metadata(field.message()?, stamps.get_or_insert_with(Stamps::default))?,
                2 if lease => {
                    let renewed = renewed(field.message()?)?;
                    stamps.get_or_insert_with(Stamps::default).renewed = renewed;
                }
                _ => {}
            }
        }
    }
    Ok(stamps)
}

fn metadata(fields: Fields<'_>, stamps: &mut Stamps) -> Result<(), WireError> {
    for field in fields {
        let field = field?;
        match field.number {
            8 => stamps.created = time(field.message()?)?,
            9 => stamps.deleting = time(field.message()?)?.is_some(),
            17 => {
                for entry in field.message()? {
                    let entry = entry?;
                    if entry.number == 4 {
                        stamps.managed = stamps.managed.max(time(entry.message()?)?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn renewed(spec: Fields<'_>) -> Result<Option<i64>, WireError> {
    let mut renewed = None;
    for field in spec {
        let field = field?;
        if field.number == 4 {
            renewed = time(field.message()?)?;
        }
    }
    Ok(renewed)
}

/// Microseconds since 1970; nothing for Go's zero time, which is written without fields.
fn time(fields: Fields<'_>) -> Result<Option<i64>, WireError> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for field in fields {
        let field = field?;
        match field.number {
            1 => seconds = field.i64()?,
            2 => nanos = field.i64()?,
            _ => {}
        }
    }
    let micros = seconds.checked_mul(1_000_000);
    Ok(micros
        .and_then(|micros| micros.checked_add(nanos / 1000))
        .filter(|micros| *micros > 0))
}

#[derive(Deserialize)]
struct Object {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    creation_timestamp: Option<Timestamp>,
    #[serde(default)]
    deletion_timestamp: Option<Timestamp>,
    #[serde(default)]
    managed_fields: Vec<Managed>,
}

#[derive(Deserialize)]
struct Managed {
    #[serde(default)]
    time: Option<Timestamp>,
}

/// Any object's spec; only a Lease's has this field as a time.
#[derive(Deserialize)]
struct Spec {
    #[serde(rename = "renewTime", default, deserialize_with = "lenient")]
    renew_time: Option<Timestamp>,
}

fn lenient<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(value.as_str().and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_custom_resource() {
        let json = br#"{"metadata":{"creationTimestamp":"2026-01-02T03:04:05Z","managedFields":
            [{"time":"2026-01-02T03:04:06Z"},{"time":"2026-01-02T03:04:09Z"},{}]},"spec":{"renewTime":7}}"#;
        let stamps = Stamps::of(json, false).unwrap();
        assert_eq!(stamps.created, Some(1_767_323_045_000_000));
        assert_eq!(stamps.managed, Some(1_767_323_049_000_000));
        assert_eq!((stamps.renewed, stamps.deleting), (None, false));
        let json = br#"{"metadata":{"deletionTimestamp":"2026-01-02T03:04:05Z"},"spec":{"renewTime":"2026-01-02T03:04:05.250000Z"}}"#;
        let stamps = Stamps::of(json, false).unwrap();
        assert_eq!(stamps.renewed, Some(1_767_323_045_250_000));
        assert!(stamps.deleting);
        for other in [
            &b"k8s:enc:aescbc:v1:k:x"[..],
            b"",
            b"{",
            b"k8s\0\x12",
            b"[]",
            b"plain",
        ] {
            assert_eq!(Stamps::of(other, true), None);
        }
    }

    #[test]
    fn times_of_a_stored_lease() {
        // Unknown{raw=2: Lease{metadata=1{creationTimestamp=8, deletionTimestamp=9}, spec=2{renewTime=4}}}
        let time = |seconds: u8| vec![0x08, seconds, 0x10, 0x80, 0xf1, 0x04];
        let field = |number: u8, body: Vec<u8>| {
            let mut bytes = vec![number << 3 | 2, body.len() as u8];
            bytes.extend(body);
            bytes
        };
        let metadata = [field(8, time(5)), field(9, time(6))].concat();
        let spec = field(4, time(7));
        let object = [field(1, metadata), field(2, spec)].concat();
        let mut value = PROTOBUF_MAGIC.to_vec();
        value.extend(field(2, object));
        let stamps = Stamps::of(&value, true).unwrap();
        assert_eq!(stamps.created, Some(5_000_080));
        assert_eq!(stamps.renewed, Some(7_000_080));
        assert!(stamps.deleting);
        // Of another kind field 2 is not a Lease's spec.
        assert_eq!(Stamps::of(&value, false).unwrap().renewed, None);
        for cut in 0..value.len() {
            let _ = Stamps::of(&value[..cut], true);
        }
    }
}
