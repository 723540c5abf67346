//! Text as a word of another language: each target's quoting in one place.
//!
//! Names of members, URLs and paths come from a cluster, a store or a node, and may hold anything. What
//! is printed for a shell, for systemd or for a YAML file must be read back there as the same text.

use std::fmt::Write as _;

/// A file's own words may be meant for the terminal rather than the reader: control characters
/// are written as escapes.
pub fn printable(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let shown = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(shown).collect()
}

/// A word as a POSIX shell reads it back. A zero byte cannot be part of a word and is left out.
pub fn shell(text: &str) -> String {
    let text = text.replace('\0', "");
    // It fails for a zero byte only.
    shlex::try_quote(&text)
        .map(|quoted| quoted.into_owned())
        .unwrap_or_default()
}

/// A value in double quotes as both a POSIX shell and systemd's `EnvironmentFile=` read it back
/// (systemd.exec(5): in double quotes a backslash escapes `"`, `\`, `$` and a backtick).
pub fn env(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars().filter(|c| *c != '\0') {
        if matches!(c, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// A double-quoted YAML scalar. JSON's strings are YAML's (YAML 1.2, chapter 1.3), but YAML lets only
/// printable characters stand as they are: all beyond ASCII are escaped.
pub fn yaml(text: &str) -> String {
    let mut quoted = String::new();
    for c in serde_json::Value::from(text).to_string().chars() {
        if matches!(c, ' '..='~') {
            quoted.push(c);
        } else {
            let _ = write!(quoted, "\\U{:08X}", u32::from(c));
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const HOSTILE: [&str; 14] = [
        "master-0",
        "",
        "a b",
        "e\";touch pwned;\"",
        "e';touch pwned;'",
        "$(touch pwned)",
        "`touch pwned`",
        "${HOME}",
        "back\\slash\\",
        "new\nline",
        "*?[a]~!#&|<>",
        "ä \u{202e}\u{7f}",
        "- {a: [b, *c, &d]}",
        "--name=x",
    ];

    fn sh(script: &str) -> String {
        let out = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(out.status.success(), "{script}");
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn a_shell_reads_each_word_back() {
        for text in HOSTILE {
            assert_eq!(sh(&format!("printf %s {}", shell(text))), text);
            assert_eq!(sh(&format!("X={}; printf %s \"$X\"", env(text))), text);
        }
        assert_eq!(sh(&format!("printf %s {}", shell("a\0b"))), "ab");
    }

    #[test]
    fn a_yaml_parser_reads_each_scalar_back() {
        for text in HOSTILE {
            let items = format!("- {}\n- {}\n", yaml(text), yaml("next"));
            let read: Vec<String> = serde_yaml_ng::from_str(&items).unwrap();
            assert_eq!(read, [text, "next"]);
        }
    }
}
