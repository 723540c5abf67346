//! The command that a container's shell runs, where its script is plain: one program with flags,
//! after others that have none.
//!
//! Nothing is executed. A script that chooses between programs, or whose flags depend on what only
//! a shell knows, tells less than it seems to, and is not read.

/// The shells that containers have.
const SHELLS: [&str; 4] = ["sh", "bash", "ash", "dash"];
/// Words that make what follows depend on something.
const CONDITIONS: [&str; 6] = ["if", "case", "for", "while", "until", "function"];

/// The script of a command that is a shell's.
pub(super) fn script(words: &[String]) -> Option<&str> {
    let (program, rest) = words.split_first()?;
    let name = program.rsplit('/').next().unwrap_or(program);
    if !SHELLS.contains(&name) {
        return None;
    }
    let at = rest.iter().position(|word| {
        let flags = word.strip_prefix('-');
        flags.is_some_and(|flags| !flags.starts_with('-') && flags.ends_with('c'))
    })?;
    rest.get(at + 1).map(String::as_str)
}

/// The words of the one command with flags. A word that uses a variable of the shell's has its
/// value, or, where `value` does not know it, is left out.
pub(super) fn command(script: &str, value: impl Fn(&str) -> Option<String>) -> Option<Vec<String>> {
    let commands = commands(script)?;
    let conditional = commands.iter().any(|words| {
        let first = words.first().map(|word| word.text.as_str());
        first.is_some_and(|first| CONDITIONS.contains(&first))
    });
    let mut with_flags = commands
        .into_iter()
        .filter(|words| words.iter().any(|word| word.text.starts_with("--")));
    let found = with_flags.next()?;
    if conditional || with_flags.next().is_some() {
        return None;
    }
    Some(
        found
            .iter()
            .filter_map(|word| word.resolved(&value))
            .collect(),
    )
}

/// A word; what a shell would replace in it is marked.
#[derive(Default)]
struct Word {
    text: String,
    /// Where in `text` a variable's name is, to be replaced by its value.
    variables: Vec<(usize, String)>,
    /// Whether it holds what only a shell can tell.
    unknown: bool,
}

impl Word {
    fn resolved(&self, value: impl Fn(&str) -> Option<String>) -> Option<String> {
        if self.unknown {
            return None;
        }
        let mut text = self.text.clone();
        // From the back, because an insertion moves what follows.
        for (at, name) in self.variables.iter().rev() {
            text.insert_str(*at, &value(name)?);
        }
        Some(text)
    }
}

/// The simple commands of a script; nothing if a quote does not end.
fn commands(script: &str) -> Option<Vec<Vec<Word>>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<Word> = None;
    let mut chars = script.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().text.push(c),
            },
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.text.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            '\n' => {}
                            c @ ('"' | '\\' | '$' | '`') => word.text.push(c),
                            c => word.text.extend(['\\', c]),
                        },
                        '$' => variable(&mut chars, word),
                        '`' => word.unknown = true,
                        c => word.text.push(c),
                    }
                }
            }
            '$' => variable(&mut chars, word.get_or_insert_default()),
            '`' | '*' | '?' => word.get_or_insert_default().unknown = true,
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            ';' | '&' | '|' | '(' | ')' | '<' | '>' | '\n' => {
                commands.last_mut()?.extend(word.take());
                commands.push(Vec::new());
            }
            c if c.is_whitespace() => commands.last_mut()?.extend(word.take()),
            c => word.get_or_insert_default().text.push(c),
        }
    }
    commands.last_mut()?.extend(word);
    Some(commands)
}

/// Reads what follows a dollar sign.
fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut Word) {
    let named = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let mut name = String::new();
    if chars.next_if_eq(&'{').is_some() {
        while let Some(c) = chars.next_if(named) {
            name.push(c);
        }
        if chars.next_if_eq(&'}').is_none() {
            word.unknown = true;
        }
    } else {
        while let Some(c) = chars.next_if(named) {
            name.push(c);
        }
    }
    if name.is_empty() {
        word.unknown = true;
    } else {
        word.variables.push((word.text.len(), name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<String>> {
        command(text, |name| (name == "IP").then(|| "10.0.0.1".to_owned()))
    }

    #[test]
    fn a_plain_script_tells_the_programs_flags() {
        for text in [
            "exec etcd --name=a --url 'https://10.0.0.1:2380'",
            "set -e\n# starts --etcd\nulimit -n 65536; exec etcd \\\n  --name=\"a\" \\\n  --url https://$IP:2380\n",
            "exec nice -n -19 etcd --name=a --url=https://${IP}:2380 2>&1 | tee /var/log/etcd",
        ] {
            let words = read(text).unwrap().join(" ").replace("--url=", "--url ");
            assert!(
                words.contains("etcd --name=a --url https://10.0.0.1:2380"),
                "{words}"
            );
        }
        assert_eq!(
            read("etcd --name=$HOSTNAME --x=1").unwrap(),
            ["etcd", "--x=1"]
        );
        assert_eq!(read("etcd --name=$(hostname) --x=1"), None);
        for text in [
            "exec etcd",
            "etcdctl --x; etcd --name=a",
            "if true; then etcd --name=a; fi",
            "etcd --name='a",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn only_a_shell_has_a_script() {
        let script = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            super::script(&words).map(str::to_owned)
        };
        assert_eq!(script(&["/bin/sh", "-ec", "x"]).unwrap(), "x");
        assert_eq!(script(&["bash", "-e", "-c", "x", "y"]).unwrap(), "x");
        assert_eq!(script(&["etcd", "-c", "x"]), None);
        assert_eq!(script(&["sh", "/start.sh"]), None);
    }
}
