//! The outermost layer of a stored value: how it is encoded, and what it says of its kind.
//!
//! | first bytes | encoding | source (k8s.io/apimachinery, `pkg/runtime/serializer`) |
//! | --- | --- | --- |
//! | `k8s\0` | protobuf `runtime.Unknown`: typeMeta=1 {apiVersion=1, kind=2}, raw=2, contentEncoding=3, contentType=4 | `protobuf/protobuf.go` |
//! | `k8s:enc:` | encrypted at rest, see [`super::atrest`] | k8s.io/apiserver, `pkg/storage/value` |
//! | `d9 d9 f7` | CBOR, self-described | `cbor/cbor.go` |
//! | `{` after white space | JSON | `json/json.go` |
//! | `apiVersion:` or `kind:` at the start of a line | YAML | `json/json.go` |

use prost::Message;

/// What a value in Kubernetes protobuf begins with.
pub const PROTOBUF: &[u8] = b"k8s\0";
/// What an encrypted value begins with.
pub const ENCRYPTED: &[u8] = b"k8s:enc:";
/// What a value in CBOR begins with: tag 55799, "self-described CBOR" (RFC 8949, section 3.4.6).
pub const CBOR: &[u8] = b"\xd9\xd9\xf7";

/// A stored value without its outermost layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Envelope<'a> {
    /// A message of a built-in kind.
    Protobuf(Typed),
    /// A JSON text.
    Json(&'a [u8]),
    /// A YAML text.
    Yaml(&'a [u8]),
    /// A CBOR data item, with its mark.
    Cbor(&'a [u8]),
    /// An encrypted value, with its prefix.
    Encrypted(&'a [u8]),
    /// Nothing that an API server stores as an object.
    Other,
}

/// A message with its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// `GROUP/VERSION`, or `v1`.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The message.
    pub raw: Vec<u8>,
    /// How `raw` is encoded: empty for protobuf.
    pub content_type: String,
    /// How `raw` is compressed: always empty so far.
    pub content_encoding: String,
}

impl<'a> Envelope<'a> {
    /// Looks at a stored value.
    ///
    /// # Errors
    /// If it has the mark of Kubernetes protobuf and is not that.
    pub fn parse(value: &'a [u8]) -> Result<Self, prost::DecodeError> {
        if let Some(message) = value.strip_prefix(PROTOBUF) {
            let unknown = Unknown::decode(message)?;
            let type_meta = unknown.type_meta.unwrap_or_default();
            return Ok(Self::Protobuf(Typed {
                api_version: type_meta.api_version,
                kind: type_meta.kind,
                raw: unknown.raw,
                content_type: unknown.content_type,
                content_encoding: unknown.content_encoding,
            }));
        }
        if value.starts_with(ENCRYPTED) {
            return Ok(Self::Encrypted(value));
        }
        if value.starts_with(CBOR) {
            return Ok(Self::Cbor(value));
        }
        Ok(
            match value.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'{') => Self::Json(value),
                _ if is_yaml(value) => Self::Yaml(value),
                _ => Self::Other,
            },
        )
    }
}

/// An object's YAML has these at the top level; sorted, apiVersion comes first.
fn is_yaml(value: &[u8]) -> bool {
    let mut lines = value.split(|byte| *byte == b'\n').take(MAX_LINES);
    lines.any(|line| line.starts_with(b"apiVersion:") || line.starts_with(b"kind:"))
}

/// Lines in which the type of a YAML object is looked for.
const MAX_LINES: usize = 64;

#[derive(Clone, PartialEq, prost::Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
    #[prost(string, tag = "3")]
    content_encoding: String,
    #[prost(string, tag = "4")]
    content_type: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_told_by_the_first_bytes() {
        let mut value = PROTOBUF.to_vec();
        value.extend(b"\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x01x\x1a\x00\x22\x00");
        let Ok(Envelope::Protobuf(typed)) = Envelope::parse(&value) else {
            panic!("expected protobuf")
        };
        assert_eq!(
            (typed.api_version.as_str(), typed.kind.as_str()),
            ("v1", "Pod")
        );
        assert_eq!(typed.raw, b"x");
        assert!(Envelope::parse(b"k8s\0\xff").is_err());
        for (value, expected) in [
            (&b" {\"a\":1}"[..], Envelope::Json(b" {\"a\":1}")),
            (
                b"data: {}\nkind: A\n",
                Envelope::Yaml(b"data: {}\nkind: A\n"),
            ),
            (b"\xd9\xd9\xf7\xa0", Envelope::Cbor(b"\xd9\xd9\xf7\xa0")),
            (b"k8s:enc:x", Envelope::Encrypted(b"k8s:enc:x")),
            (b"123", Envelope::Other),
            (b"", Envelope::Other),
        ] {
            assert_eq!(Envelope::parse(value).unwrap(), expected);
        }
    }
}
