//! CBOR as API servers store custom resources in it (k8s.io/apimachinery, `pkg/runtime/serializer/cbor`).
//!
//! Text is a byte string. Bytes are a byte string under tag 22, "expected to become base64" (RFC 8949, section
//! 3.4.5.2), and are base64 in JSON; tags 21 and 23 stand for base64url and hexadecimal in the same way.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ciborium::Value as Item;
use serde_json::{Map, Number, Value};

use super::envelope::CBOR;
use super::walk::float;

/// Levels of lists and maps; an API server refuses more than 64.
const MAX_DEPTH: usize = 64;

/// Reads a value with its mark.
///
/// # Errors
/// What was expected and found, in a sentence.
pub(super) fn json(value: &[u8]) -> Result<Value, String> {
    let mut rest = value.strip_prefix(CBOR).unwrap_or(value);
    let item: Item = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|error| format!("expected CBOR: {error}"))?;
    if !rest.is_empty() {
        return Err(format!(
            "expected one CBOR item, found {} bytes more",
            rest.len()
        ));
    }
    convert(item)
}

fn convert(item: Item) -> Result<Value, String> {
    Ok(match item {
        Item::Null => Value::Null,
        Item::Bool(value) => Value::Bool(value),
        Item::Float(value) if value.is_finite() => float(value),
        Item::Integer(value) => {
            let value = i128::from(value);
            let number = i64::try_from(value).map(Number::from);
            let number = number.or_else(|_| u64::try_from(value).map(Number::from));
            Value::Number(number.map_err(|_| format!("expected a 64-bit number, found {value}"))?)
        }
        Item::Text(text) => Value::String(text),
        Item::Bytes(bytes) => Value::String(utf8(bytes)?),
        Item::Array(items) => {
            Value::Array(items.into_iter().map(convert).collect::<Result<_, _>>()?)
        }
        Item::Map(pairs) => {
            let mut object = Map::new();
            for (key, value) in pairs {
                let key = match key {
                    Item::Bytes(bytes) => utf8(bytes)?,
                    Item::Text(text) => text,
                    other => return Err(format!("expected a key of text, found {}", name(&other))),
                };
                object.insert(key, convert(value)?);
            }
            Value::Object(object)
        }
        Item::Tag(tag, inner) => tagged(tag, *inner)?,
        other => {
            return Err(format!(
                "expected what JSON can hold, found {}",
                name(&other)
            ));
        }
    })
}

fn tagged(tag: u64, inner: Item) -> Result<Value, String> {
    match (tag, inner) {
        (21, Item::Bytes(bytes)) => Ok(Value::String(URL_SAFE_NO_PAD.encode(bytes))),
        (22, Item::Bytes(bytes)) => Ok(Value::String(STANDARD.encode(bytes))),
        (23, Item::Bytes(bytes)) => Ok(Value::String(hex::encode(bytes))),
        (_, inner) => convert(inner),
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| "expected UTF-8 in a string, found other bytes".to_owned())
}

fn name(item: &Item) -> &'static str {
    match item {
        Item::Float(_) => "a number that is not finite",
        Item::Integer(_) => "a number",
        Item::Array(_) => "a list",
        Item::Map(_) => "a map",
        Item::Tag(..) => "a tag",
        _ => "another value",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_are_bytes_and_bytes_are_tagged() {
        // {"a": h'6869' as text, "b": 22(h'00ff'), "n": [1, -2, 1.5, null, true]}
        let value =
            hex::decode("d9d9f7a3416142686941 62d64200ff416e8501 21f93e00f6f5".replace(' ', ""));
        let read = json(&value.unwrap()).unwrap();
        assert_eq!(
            read,
            json!({"a": "hi", "b": "AP8=", "n": [1, -2, 1.5, null, true]})
        );
    }

    #[test]
    fn what_json_cannot_hold_is_refused() {
        for bad in [
            "",
            "d9d9f7",
            "d9d9f7a10102",
            "d9d9f7f97e00",
            "d9d9f741ff",
            "d9d9f70000",
        ] {
            assert!(json(&hex::decode(bad).unwrap()).is_err(), "{bad}");
        }
        let deep = [vec![0x81; 100], vec![0x00]].concat();
        assert!(json(&deep).is_err());
    }
}
