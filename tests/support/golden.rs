//! Runs the built binary and compares arguments, status, stdout and stderr with one file.
//!
//! What differs from run to run is replaced by placeholders first: what the test names itself
//! (folders, addresses), then times, sizes, durations and long hexadecimal numbers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// One finished run of `etcd-dr`.
#[derive(Debug, Clone)]
pub struct Run {
    /// The arguments.
    pub args: Vec<String>,
    /// Its exit status; none when a signal ended it.
    pub status: Option<i32>,
    /// What went to stdout.
    pub stdout: String,
    /// What went to stderr.
    pub stderr: String,
}

impl Run {
    /// stdout as one JSON document, which its schema has described.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let document = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not JSON ({error}): {self}"));
        crate::schema::check_output(&document);
        document
    }

    /// The same, after the status was compared.
    #[track_caller]
    pub fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self}");
        self
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self
            .status
            .map_or_else(|| "killed".to_owned(), |code| code.to_string());
        writeln!(f, "$ etcd-dr {}", self.args.join(" "))?;
        writeln!(f, "status: {status}")?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            writeln!(f, "---- {name}")?;
            f.write_str(text)?;
            if !text.is_empty() && !text.ends_with('\n') {
                writeln!(f, "[no newline]")?;
            }
        }
        Ok(())
    }
}

/// Where the binary is: `ETCD_DR_TEST_BINARY`, a copy that no rebuild disturbs, or the one that Cargo
/// built for the suites.
pub fn binary() -> &'static Path {
    static CHOSEN: LazyLock<PathBuf> =
        LazyLock::new(|| std::env::var_os("ETCD_DR_TEST_BINARY").map_or_else(built, PathBuf::from));
    &CHOSEN
}

/// Cargo lays the binary beside the folder of the suites' programs. It tells a suite alone where
/// that is (`CARGO_BIN_EXE_etcd-dr`), not a library that suites share.
fn built() -> PathBuf {
    let suite = crate::this_program();
    let folder = suite.ancestors().nth(2).expect("a suite in target/…/deps");
    let binary = folder.join("etcd-dr");
    assert!(
        binary.is_file(),
        "no {}: only suites find it",
        binary.display()
    );
    binary
}

/// A command that runs the binary with an environment of our own: no variable of the caller's
/// that it would read, no colours, times in UTC.
pub fn etcd_dr() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD") {
            command.env_remove(name);
        }
    }
    command
        .env("NO_COLOR", "1")
        .env("TZ", "UTC")
        .env("COLUMNS", "100")
        .stdin(Stdio::null());
    command
}

/// Bytes of private memory that any command of the suites may use, whatever a peer sends it: above this
/// an allocation fails and the command aborts. Threads' stacks of 2 MiB are among them.
const MEMORY: u64 = 256 << 20;

/// Runs it with arguments and further variables; at most five minutes, and within [`MEMORY`].
pub fn run<S: AsRef<str>>(args: &[S], env: &[(&str, String)]) -> Run {
    run_within(args, env, MEMORY)
}

/// The same within so many bytes of private memory.
pub fn run_within<S: AsRef<str>>(args: &[S], env: &[(&str, String)], memory: u64) -> Run {
    let mut command = etcd_dr();
    let args: Vec<String> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
    command
        .args(&args)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("starting etcd-dr");
    bound_memory(&child, memory);
    let (pid, done) = (child.id(), std::sync::mpsc::channel::<()>());
    let (finished, watch) = done;
    let started = Instant::now();
    let watchdog = std::thread::spawn(move || {
        if watch.recv_timeout(Duration::from_secs(300)).is_err() {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // It may have ended just now.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    });
    let output = child.wait_with_output().expect("waiting for etcd-dr");
    // A watchdog that has fired no longer listens.
    let _ = finished.send(());
    watchdog.join().expect("the watchdog ends");
    let run = Run {
        args,
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert!(
        started.elapsed() < Duration::from_secs(300),
        "etcd-dr did not end in time: {run}"
    );
    run
}

/// Lowers a child's RLIMIT_DATA, setrlimit(2).
fn bound_memory(child: &std::process::Child, memory: u64) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let limit = Rlimit {
        current: Some(memory),
        maximum: Some(memory),
    };
    // It may have ended already.
    let _ = prlimit(pid, Resource::Data, limit);
}

/// What is replaced before a comparison.
#[derive(Debug, Clone, Default)]
pub struct Placeholders(Vec<(String, String)>);

impl Placeholders {
    /// Replaces a text wherever it is found by `[NAME]`; longer texts go first.
    pub fn with(mut self, text: impl Into<String>, name: &str) -> Self {
        let text = text.into();
        assert!(!text.is_empty(), "[{name}] would replace nothing");
        self.0.push((text, format!("[{name}]")));
        self.0
            .sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        self
    }

    /// The text with everything that differs from run to run replaced.
    pub fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.0 {
            text = text.replace(from, to);
        }
        replace_patterns(&text)
    }
}

/// Compares a run with `tests/<suite>/golden/<name>.txt`; `UPDATE_GOLDEN=1` writes that file.
#[track_caller]
pub fn assert_golden(suite: &str, name: &str, run: &Run, placeholders: &Placeholders) {
    let path = crate::project()
        .join("tests")
        .join(suite)
        .join("golden")
        .join(format!("{name}.txt"));
    let actual = placeholders.apply(&run.to_string());
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("a golden has a folder"))
            .and_then(|()| std::fs::write(&path, &actual))
            .unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "reading {}: {error} (UPDATE_GOLDEN=1 writes it)\n{actual}",
            path.display()
        )
    });
    assert!(
        expected == actual,
        "{} differs (UPDATE_GOLDEN=1 accepts it):\n{}",
        path.display(),
        differences(&expected, &actual)
    );
}

fn differences(expected: &str, actual: &str) -> String {
    let (mut old, mut new) = (expected.lines(), actual.lines());
    let mut shown = String::new();
    loop {
        match (old.next(), new.next()) {
            (None, None) => return shown,
            (old, new) if old == new => {
                shown.push_str(&format!("  {}\n", old.unwrap_or_default()));
            }
            (old, new) => {
                for (sign, line) in [('-', old), ('+', new)] {
                    if let Some(line) = line {
                        shown.push_str(&format!("{sign} {line}\n"));
                    }
                }
            }
        }
    }
}

/// Shapes: `0` is a digit, `0+` one or more, `x` a lower-case hexadecimal digit, the rest itself.
/// The first that fits wins, so the longer come first.
const PATTERNS: [(&str, &str); 25] = [
    ("0000-00-00T00:00:00.0+Z", "[TIME]"),
    ("0000-00-00T00:00:00Z", "[TIME]"),
    ("0000-00-00 00:00:00 UTC", "[TIME]"),
    ("0000-00-00 00:00:00", "[TIME]"),
    ("0000-00-00 00:00", "[TIME]"),
    ("0000-00-00_000000", "[STAMP]"),
    ("0000-00-00", "[DATE]"),
    (
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "[SHA256]",
    ),
    ("xxxxxxxxxxxxxxxx", "[ID]"),
    ("0+.0+ KiB", "[SIZE]"),
    ("0+.0+ MiB", "[SIZE]"),
    ("0+.0+ GiB", "[SIZE]"),
    ("0+ KiB", "[SIZE]"),
    ("0+ MiB", "[SIZE]"),
    ("0+ GiB", "[SIZE]"),
    ("0+ bytes", "[SIZE]"),
    ("0+ B", "[SIZE]"),
    ("0+.0+s", "[DURATION]"),
    ("0+d 0+h", "[DURATION]"),
    ("0+h 0+m", "[DURATION]"),
    ("0+m 0+s", "[DURATION]"),
    ("0+ms", "[DURATION]"),
    ("0+d", "[DURATION]"),
    ("0+m", "[DURATION]"),
    ("0+s", "[DURATION]"),
];

fn replace_patterns(text: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    let mut inside_word = false;
    while let Some(first) = rest.chars().next() {
        let found = PATTERNS
            .iter()
            .filter(|_| !inside_word)
            .find_map(|(pattern, name)| Some((length_of(pattern, rest)?, name)));
        if let Some((length, name)) = found {
            replaced.push_str(name);
            rest = &rest[length..];
        } else {
            replaced.push(first);
            rest = &rest[first.len_utf8()..];
            // An underscore begins a stamp in a file name.
            inside_word = first.is_ascii_alphanumeric();
        }
    }
    replaced
}

/// How much of the text's beginning a pattern covers, if a word ends there.
fn length_of(pattern: &str, text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        bytes[from..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let mut at = 0;
    let mut shape = pattern.bytes().peekable();
    while let Some(expected) = shape.next() {
        if expected == b'0' && shape.next_if_eq(&b'+').is_some() {
            match digits(at) {
                0 => return None,
                many => at += many,
            }
            continue;
        }
        let byte = *bytes.get(at)?;
        let fits = match expected {
            b'0' => byte.is_ascii_digit(),
            b'x' => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            other => byte == other,
        };
        if !fits {
            return None;
        }
        at += 1;
    }
    let ends_word = bytes
        .get(at)
        .is_none_or(|byte| !byte.is_ascii_alphanumeric());
    ends_word.then_some(at)
}
