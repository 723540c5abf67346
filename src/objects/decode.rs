//! From a stored value to an object.

use std::fmt;

use prost_reflect::DynamicMessage;
use serde_json::{Map, Value};

use super::atrest::{Keys, Locked};
use super::cbor;
use super::descriptors::descriptors;
use super::envelope::{Envelope, Typed};
use super::walk::Walk;
use crate::sys::yaml;

/// How an object is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// Kubernetes protobuf.
    Protobuf,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// CBOR.
    Cbor,
}

/// An object as the API server answers it, at the version that is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// How it is stored.
    pub encoding: Encoding,
    /// The object. `apiVersion`, `kind` and `metadata` are among its fields.
    pub json: Map<String, Value>,
    /// Fields of the message that the descriptors do not know, as paths that end in a number: `spec.17`. They are
    /// not in `json`.
    pub unknown_fields: Vec<String>,
}

/// Why a value is not shown as an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// It is encrypted, and cannot be decrypted.
    Locked(Locked),
    /// It is protobuf of a kind that has no descriptor.
    UnknownKind {
        /// Its apiVersion.
        api_version: String,
        /// Its kind.
        kind: String,
    },
    /// It is not an object.
    NotAnObject,
    /// It should be an object and cannot be read; what was expected and found.
    Damaged(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(locked) => locked.fmt(f),
            Self::UnknownKind { api_version, kind } => {
                write!(f, "no descriptor for {kind} of {api_version}")
            }
            Self::NotAnObject => f.write_str("not a Kubernetes object"),
            Self::Damaged(what) => f.write_str(what),
        }
    }
}

impl Object {
    /// Its apiVersion; empty if it has none.
    pub fn api_version(&self) -> &str {
        self.text("apiVersion")
    }

    /// Its kind; empty if it has none.
    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    fn text(&self, field: &str) -> &str {
        self.json
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A text of its metadata; empty if it is absent.
    pub fn meta(&self, field: &str) -> &str {
        let metadata = self.json.get("metadata");
        let value = metadata.and_then(|metadata| metadata.get(field));
        value.and_then(Value::as_str).unwrap_or_default()
    }

    /// Sets the resourceVersion, which is the revision at which the key was last changed and is not stored.
    pub fn set_resource_version(&mut self, mod_revision: i64) {
        let metadata = self.json.entry("metadata");
        let metadata = metadata.or_insert_with(|| Value::Object(Map::new()));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert(
                "resourceVersion".to_owned(),
                mod_revision.to_string().into(),
            );
        }
    }
}

/// Reads the value under a key. Encrypted values are decrypted with `keys`.
///
/// # Errors
/// Why it cannot be shown as an object. No key and nothing of the value is in the text.
pub fn decode(key: &[u8], value: &[u8], keys: &Keys) -> Result<Object, Unread> {
    match parse(value)? {
        Envelope::Encrypted(value) => {
            let plain = keys.decrypt(key, value).map_err(Unread::Locked)?;
            match parse(&plain)? {
                Envelope::Encrypted(_) => Err(Unread::Damaged(
                    "expected a plain value, found it encrypted twice".into(),
                )),
                envelope => content(envelope),
            }
        }
        envelope => content(envelope),
    }
}

fn parse(value: &[u8]) -> Result<Envelope<'_>, Unread> {
    Envelope::parse(value).map_err(|_| {
        Unread::Damaged("expected runtime.Unknown after k8s\\0, found something else".into())
    })
}

fn content(envelope: Envelope<'_>) -> Result<Object, Unread> {
    let damaged = |what: String| Unread::Damaged(what);
    let (encoding, value) = match envelope {
        Envelope::Protobuf(typed) => return protobuf(&typed),
        Envelope::Json(text) => (Encoding::Json, json(text)?),
        Envelope::Yaml(text) => {
            // The parser's own words can quote the text.
            let value = yaml::from_slice(text).map_err(|_| damaged("expected YAML".into()))?;
            (Encoding::Yaml, value)
        }
        Envelope::Cbor(item) => (Encoding::Cbor, cbor::json(item).map_err(damaged)?),
        Envelope::Encrypted(_) | Envelope::Other => return Err(Unread::NotAnObject),
    };
    let Value::Object(json) = value else {
        return Err(Unread::NotAnObject);
    };
    let text = |field: &str| json.get(field).is_some_and(Value::is_string);
    if !(text("apiVersion") && text("kind")) {
        return Err(Unread::NotAnObject);
    }
    Ok(Object {
        encoding,
        json,
        unknown_fields: Vec::new(),
    })
}

fn json(text: &[u8]) -> Result<Value, Unread> {
    serde_json::from_slice(text).map_err(|error| {
        Unread::Damaged(format!(
            "expected JSON, found an error at line {} column {}",
            error.line(),
            error.column()
        ))
    })
}

fn protobuf(typed: &Typed) -> Result<Object, Unread> {
    let Typed {
        api_version, kind, ..
    } = typed;
    if !typed.content_encoding.is_empty() {
        let what = format!(
            "expected no content encoding, found {:?}",
            typed.content_encoding
        );
        return Err(Unread::Damaged(what));
    }
    // An API server that is given JSON for a kind of its own may wrap it as it is.
    if typed.content_type == "application/json" {
        return content(Envelope::Json(&typed.raw));
    }
    let unknown = || Unread::UnknownKind {
        api_version: api_version.clone(),
        kind: kind.clone(),
    };
    let descriptors = descriptors().ok_or_else(unknown)?;
    let descriptor = descriptors.of_kind(api_version, kind).ok_or_else(unknown)?;
    let message = DynamicMessage::decode(descriptor, typed.raw.as_slice()).map_err(|_| {
        Unread::Damaged(format!(
            "expected the message of a {kind}, found something else"
        ))
    })?;
    let mut walk = Walk::new(descriptors);
    let mut json = walk.object(&message).map_err(Unread::Damaged)?;
    json.insert("apiVersion".to_owned(), api_version.clone().into());
    json.insert("kind".to_owned(), kind.clone().into());
    Ok(Object {
        encoding: Encoding::Protobuf,
        json,
        unknown_fields: walk.unknown,
    })
}
