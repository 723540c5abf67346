//! Writing objects as YAML that kubectl reads as they are.
//!
//! kubectl reads YAML 1.1, in which `yes`, `on`, `0o17`, `1_000` and `12:30` are not strings. The emitter of serde_yaml_ng
//! follows YAML 1.2 and writes them without quotes, so that a ConfigMap's `yes` would become a boolean. Here a string
//! is plain only where every version of YAML takes it for one. Like kubectl: keys sorted, lists not indented,
//! texts of several lines as literal blocks.

use std::fmt::Write;

use serde_json::{Map, Value};

/// Appends a value as a YAML document, without `---`.
pub fn write(out: &mut String, value: &Value) {
    match value {
        Value::Object(map) if !map.is_empty() => mapping(out, map, 0, false),
        Value::Array(list) if !list.is_empty() => sequence(out, list, 0),
        other => {
            scalar(out, other, 1);
            out.push('\n');
        }
    }
}

/// Appends a list's item, as `- ` with its fields below each other.
pub fn write_item(out: &mut String, value: &Value) {
    item(out, value, 0);
}

fn indent(out: &mut String, level: usize) {
    for _ in 0..level {
        out.push_str("  ");
    }
}

/// `inline`: the first key continues a line that has been begun.
fn mapping(out: &mut String, map: &Map<String, Value>, level: usize, mut inline: bool) {
    for (key, value) in map {
        if !inline {
            indent(out, level);
        }
        inline = false;
        // A key of several lines must not become a block.
        string_in_line(out, key);
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                mapping(out, map, level + 1, false);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push('\n');
                sequence(out, list, level);
            }
            other => {
                out.push(' ');
                scalar(out, other, level + 1);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, list: &[Value], level: usize) {
    for value in list {
        item(out, value, level);
    }
}

fn item(out: &mut String, value: &Value, level: usize) {
    indent(out, level);
    out.push_str("- ");
    match value {
        Value::Object(map) if !map.is_empty() => mapping(out, map, level + 1, true),
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            sequence(out, list, level + 1);
        }
        other => {
            scalar(out, other, level + 1);
            out.push('\n');
        }
    }
}

fn scalar(out: &mut String, value: &Value, level: usize) {
    match value {
        Value::String(text) if is_block(text) => block(out, text, level),
        Value::String(text) => string_in_line(out, text),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// Whether a text is written line by line.
fn is_block(text: &str) -> bool {
    let first = text.chars().next();
    text.contains('\n')
        // A block takes its indentation from its first line.
        && !matches!(first, Some(' ' | '\n' | '\t'))
        && !text.lines().any(|line| line.ends_with([' ', '\t']))
        && text
            .chars()
            .all(|c| c == '\n' || c == '\t' || is_printable(c))
}

fn block(out: &mut String, text: &str, level: usize) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, level);
            out.push_str(line);
        }
    }
    for _ in 1..text.len() - body.len() {
        out.push('\n');
    }
}

fn string_in_line(out: &mut String, text: &str) {
    match is_plain(text) {
        true => out.push_str(text),
        false => quoted(out, text),
    }
}

/// Whether no version of YAML takes a text for anything but the string that it is.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_./-,()=+@% :".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    begins
        && text.chars().all(allowed)
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// What a YAML stream may contain as it is (YAML 1.1, section 5.1), short of what editors hide.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}'
        )
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::sys::yaml::from_slice;

    fn text(value: &Value) -> String {
        let mut out = String::new();
        write(&mut out, value);
        out
    }

    #[test]
    fn it_looks_as_kubectl_writes_it() {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {}},
            "data": {"script": "#!/bin/sh\necho hi\n", "answer": "yes", "port": "080", "none": null, "n": 1},
            "list": [{"a": 1, "b": [1, 2]}, "x y", []]});
        let expected = "apiVersion: v1\ndata:\n  answer: \"yes\"\n  \"n\": 1\n  none: null\n  port: \"080\"\n  script: |\n    #!/bin/sh\n    echo hi\nkind: ConfigMap\nlist:\n- a: 1\n  b:\n  - 1\n  - 2\n- x y\n- []\nmetadata:\n  labels: {}\n  name: a\n";
        assert_eq!(text(&value), expected);
    }

    #[test]
    fn what_yaml_1_1_takes_for_something_else_is_quoted() {
        for trap in [
            "yes",
            "On",
            "NULL",
            "~",
            "",
            "1e3",
            "0x1f",
            "12:30:45",
            "1_000",
            ".inf",
            "=",
            "<<",
            "2026-01-01",
            "- a",
            "a: b",
            "a #b",
            "!x",
            "&a",
            "*a",
            "y",
        ] {
            let written = text(&json!({"k": trap}));
            assert!(written.starts_with("k: \""), "{written}");
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[a-z :#\\-\n\t\"']{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-z :\n\"#]{0,8}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn everything_reads_back(value in tree()) {
            let written = text(&value);
            let read: Value = from_slice(written.as_bytes()).map_err(|e| TestCaseError::fail(format!("{e}: {written}")))?;
            prop_assert_eq!(read, value, "{}", written);
        }
    }
}
