//! Children that never outlive the test, waits that end, and private files.

use std::fmt::Display;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Starts a program that is killed when this process ends, however it ends.
///
/// `setpriv --pdeathsig` asks the kernel for that. The kernel watches the *thread* that forked,
/// not the process, and a test's thread ends with its test: so one thread that never ends
/// starts them all.
pub fn spawn_bound(command: Command) -> std::io::Result<Child> {
    type Request = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (mut command, answer) in requests {
                    // The thread that asked may have panicked in the meantime.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("starting the thread that starts servers");
        Mutex::new(sender)
    });
    let (answer, child) = channel();
    spawner
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .send((command, answer))
        .expect("the spawner never ends");
    child.recv().expect("the spawner always answers")
}

/// Whether this machine has util-linux's `setpriv`.
pub fn has_setpriv() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

/// A command for [`spawn_bound`]. Without `setpriv` it is an ordinary one, which only the
/// orderly end of a test ends.
pub fn bound_command(program: &Path) -> Command {
    if !has_setpriv() {
        return Command::new(program);
    }
    // The kernel's promise begins when setpriv asks for it; should we have died before that, the
    // shell has another parent, and starts nothing.
    let only_below_us = r#"[ "$PPID" = "$0" ] && exec "$@""#;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "sh", "-c", only_below_us])
        .arg(std::process::id().to_string())
        .arg(program);
    command
}

/// Polls until `check` yields a value; what it says in the meantime is shown when time runs out.
pub fn wait_for<T, E: Display>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<T, E>,
) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!("waited {limit:?} for {what}: {error}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Output as text, or a panic that shows all of it.
pub fn expect_success(what: &str, output: &Output) -> String {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes a file of mode 0600.
pub fn write_private(path: &Path, bytes: &[u8]) {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
}

/// Makes a directory of mode 0700 with its parents.
pub fn private_dir(path: &Path) {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .unwrap_or_else(|error| panic!("making {}: {error}", path.display()));
}

/// The last lines of a file, for messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// etcd and etcdctl take flags from the environment too, and complain about unknown ones.
pub fn without_etcd_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD") {
            command.env_remove(name);
        }
    }
}

/// Kills a process that this one started, by its id.
pub fn kill_pid(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Asks a process that this one started to end.
pub fn terminate(pid: u32) {
    signal(pid, Signal::TERM);
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id is positive"), signal).expect("signalling a process");
}
