//! YAML from files that may be hostile.
//!
//! A YAML alias repeats what its anchor names, so that a small file can mean terabytes. No file
//! that is read here needs one; a document that has some is refused before it is parsed.

use std::collections::HashSet;
use std::fmt;

use serde::de::DeserializeOwned;

/// Why a document could not be read.
#[derive(Debug)]
pub enum YamlError {
    /// It repeats this anchor.
    Alias(String),
    /// It is no YAML, or not of the expected shape.
    Parse(serde_yaml_ng::Error),
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias(name) => write!(f, "expected YAML without aliases, found *{name}"),
            Self::Parse(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for YamlError {}

/// Reads one document. The caller bounds its size; nesting is bounded by the parser.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, YamlError> {
    let anchors: HashSet<&[u8]> = marked(text, b'&').collect();
    if let Some(name) = marked(text, b'*').find(|name| anchors.contains(name)) {
        return Err(YamlError::Alias(String::from_utf8_lossy(name).into_owned()));
    }
    serde_yaml_ng::from_slice(text).map_err(YamlError::Parse)
}

/// All that could be names after a mark, wherever the mark stands: in a script that a document
/// holds, `&` and `*` are common, but hardly with one name after both.
fn marked(text: &[u8], mark: u8) -> impl Iterator<Item = &[u8]> {
    let ends_name = |b: &u8| b.is_ascii_whitespace() || b",[]{}".contains(b);
    text.iter().enumerate().filter_map(move |(at, byte)| {
        let rest = text.get(at.checked_add(1)?..).filter(|_| *byte == mark)?;
        let length = rest.iter().position(ends_name).unwrap_or(rest.len());
        rest.get(..length).filter(|name| !name.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_yaml_ng::Value;

    #[test]
    fn aliases_are_refused_and_scripts_are_not() {
        for text in [
            "a: &x 1\nb: *x\n",
            "[&a b, *a]",
            "a: &x [1]\nb: {<<: *x}",
            "a: &x\n  - 1\nb: [*x]",
            "- &\u{e4} 1\n- *\u{e4}\n",
        ] {
            assert!(
                matches!(
                    from_slice::<Value>(text.as_bytes()),
                    Err(YamlError::Alias(_))
                ),
                "{text}"
            );
        }
        let script = "run: |\n  case $1 in a) x && y 2>&1 & ;; *) rm -f *.db;; esac\n";
        assert!(from_slice::<Value>(script.as_bytes()).is_ok());
        assert!(matches!(
            from_slice::<Value>(b"a: ["),
            Err(YamlError::Parse(_))
        ));
    }

    #[test]
    fn a_small_document_cannot_fill_memory() {
        let long = "x".repeat(500_000);
        let many = "*a,".repeat(160_000);
        let text = format!("a: &a {long}\nb: [{many}]\n");
        assert!(from_slice::<Value>(text.as_bytes()).is_err());
    }
}
