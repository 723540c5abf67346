//! YAML as Kubernetes reads it, from files that may be hostile.
//!
//! Kubernetes turns YAML into JSON by a port of libyaml, and reads that (sigs.k8s.io/yaml). So does
//! this: a byte order mark is skipped, of several documents the first counts, of equal keys the
//! last, `<<` merges, tags of unknown kinds change nothing, and JSON is read as such. What libyaml
//! takes more than linear time for is bounded here (directives, open brackets), and so is what it is
//! asked for: an alias repeats what its anchor names, so that a small file could mean terabytes.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde_json::{Map, Number, Value};

/// What a node counts, besides the length of its text.
const NODE: usize = 8;
/// How many times longer than the document its content may be, aliases replaced.
const GROWTH: usize = 16;
/// How much longer a short one's may be.
const SLACK: usize = 4096;
/// libyaml compares each directive with all before it.
const MAX_DIRECTIVES: usize = 16;

/// For each token libyaml goes through all brackets that are open, and serde_yaml reads no more than 128 levels.
const MAX_OPEN: usize = 512;

/// Why a document could not be read.
#[derive(Debug)]
pub enum YamlError {
    /// Too many of its brackets are open at once.
    Brackets,
    /// Its aliases stand for too much.
    Aliases,
    /// It has too many directives.
    Directives,
    /// It is in UTF-16, and broken.
    Encoding,
    /// It is no YAML.
    Parse(serde_yaml_ng::Error),
    /// It is not of the expected shape.
    Shape(serde_json::Error),
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aliases => write!(
                f,
                "expected YAML whose aliases expand it at most {GROWTH} times, found more"
            ),
            Self::Brackets => write!(
                f,
                "expected YAML with at most {MAX_OPEN} brackets open at once, found more"
            ),
            Self::Directives => write!(
                f,
                "expected YAML with at most {MAX_DIRECTIVES} directives, found more"
            ),
            Self::Encoding => f.write_str("expected UTF-16 after its mark, found something else"),
            Self::Parse(error) => error.fmt(f),
            Self::Shape(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for YamlError {}

/// Reads the first document. The caller bounds its size; nesting is bounded by the parser.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, YamlError> {
    serde_json::from_value(value(text)?).map_err(YamlError::Shape)
}

fn value(text: &[u8]) -> Result<Value, YamlError> {
    let text = without_mark(text)?;
    let first = text.iter().find(|b| !b.is_ascii_whitespace());
    if first == Some(&b'{')
        && let Ok(value) = serde_json::from_slice(&text)
    {
        return Ok(value);
    }
    let lines = text.split(|byte| *byte == b'\n');
    if lines.filter(|line| line.starts_with(b"%")).count() > MAX_DIRECTIVES {
        return Err(YamlError::Directives);
    }
    if most_open(&text) > MAX_OPEN {
        return Err(YamlError::Brackets);
    }
    let left = Cell::new(text.len().saturating_mul(GROWTH).saturating_add(SLACK));
    let node = Node { left: &left };
    match serde_yaml_ng::Deserializer::from_slice(&text).next() {
        None => Ok(Value::Null),
        Some(document) => node
            .deserialize(document)
            .map_err(|error| match left.get() {
                0 => YamlError::Aliases,
                _ => YamlError::Parse(error),
            }),
    }
}

/// The most brackets that are open at one place. Those in strings and comments count too, as only libyaml
/// could tell; in what Kubernetes writes they are closed again.
fn most_open(text: &[u8]) -> usize {
    let mut open = 0usize;
    let levels = text.iter().map(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open
    });
    levels.max().unwrap_or_default()
}

/// Reads a unit of UTF-16 in the order that a byte order mark tells.
type Unit = fn([u8; 2]) -> u16;

/// The text without its byte order mark; in UTF-8 if the mark says UTF-16.
fn without_mark(text: &[u8]) -> Result<Cow<'_, [u8]>, YamlError> {
    let (wide, unit): (&[u8], Unit) = match text {
        [0xef, 0xbb, 0xbf, rest @ ..] => return Ok(Cow::Borrowed(rest)),
        [0xff, 0xfe, rest @ ..] => (rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => (rest, u16::from_be_bytes),
        _ => return Ok(Cow::Borrowed(text)),
    };
    let (units, odd) = wide.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(YamlError::Encoding);
    }
    let text: Result<String, _> = char::decode_utf16(units.iter().copied().map(unit)).collect();
    let text = text.map_err(|_| YamlError::Encoding)?;
    Ok(Cow::Owned(text.into_bytes()))
}

/// Reads one node and all below it, as long as there is something left of what may be read.
#[derive(Clone, Copy)]
struct Node<'a> {
    left: &'a Cell<usize>,
}

impl Node<'_> {
    fn takes<E: Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.left.get().saturating_sub(NODE.saturating_add(bytes));
        self.left.set(left);
        match left {
            0 => Err(E::custom("the aliases expand to too much")),
            _ => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML node")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.takes(0).map(|()| Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.takes(0).map(|()| value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.takes(0).map(|()| value.into())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        self.visit_string(value.to_string())
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        self.visit_string(value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).map_or(Value::Null, Value::Number);
        self.takes(0).map(|()| number)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.takes(value.len()).map(|()| value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.takes(0).map(|()| Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        self.deserialize(inner)
    }

    /// A tagged node, without its tag.
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Value, A::Error> {
        let (_, node) = tagged.variant::<String>()?;
        node.newtype_variant_seed(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut nodes: A) -> Result<Value, A::Error> {
        self.takes(0)?;
        let mut list = Vec::new();
        while let Some(node) = nodes.next_element_seed(self)? {
            list.push(node);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        self.takes(0)?;
        let (mut own, mut merged) = (Map::new(), Map::new());
        while let Some(key) = pairs.next_key_seed(self)? {
            let value = pairs.next_value_seed(self)?;
            match (key_of(key)?, value) {
                (key, Value::Object(map)) if key == MERGE => merge(&mut merged, map),
                (key, Value::Array(maps)) if key == MERGE => {
                    for map in maps {
                        if let Value::Object(map) = map {
                            merge(&mut merged, map);
                        }
                    }
                }
                (key, value) => drop(own.insert(key, value)),
            }
        }
        merge(&mut own, merged);
        Ok(Value::Object(own))
    }
}

/// The key whose maps are merged into its own (YAML's type repository, "Merge Key").
const MERGE: &str = "<<";

/// Adds what is not there yet.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        into.entry(key).or_insert(value);
    }
}

/// A key as JSON has it: a text.
fn key_of<E: Error>(key: Value) -> Result<String, E> {
    match key {
        Value::String(text) => Ok(text),
        Value::Null => Ok("null".to_owned()),
        Value::Bool(_) | Value::Number(_) => Ok(key.to_string()),
        Value::Array(_) | Value::Object(_) => {
            Err(E::custom("expected a text as a key, found a list or a map"))
        }
    }
}

#[cfg(test)]
mod tests;
