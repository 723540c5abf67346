//! A program that ends with this process, however that ends.
//!
//! The kernel kills a process when the thread that started it dies, if the process has asked for that
//! (`PR_SET_PDEATHSIG`, prctl(2)). It can ask only for itself. So this program starts itself first:
//! [`become_program`] asks, and then becomes the other program. The thread that starts it waits for its end.
//!
//! ```text
//! [0] any   [1] run-bound   [2] id of the process that starts it   [3] LD_LIBRARY_PATH or empty
//! [4] the program's path    [5…] its arguments
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getppid, nice, set_parent_process_death_signal};

/// The first argument of this program when it is to become another.
const WORD: &str = "run-bound";
/// This program itself, also where its file was replaced (proc(5)).
const SELF: &str = "/proc/self/exe";
/// How often a program is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);
/// How long a killed program may take to be gone: one that waits for a dead disk is left to itself.
const DEATH: Duration = Duration::from_secs(10);
/// How much less of the processor it gets than others (nice(2)).
const NICE: i32 = 10;
/// The first that the kernel ends where memory is short (proc(5), `oom_score_adj`).
const FIRST_TO_GO: &str = "1000";
/// Where scripts look for programs: nothing of this process's environment is passed on.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

type Shared = Arc<Mutex<Child>>;

/// The programs that run.
static LIVE: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to be run.
#[derive(Debug)]
pub struct Spec<'a> {
    /// The program's absolute path.
    pub program: &'a Path,
    /// Its `LD_LIBRARY_PATH`; empty: none.
    pub libraries: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where it runs.
    pub dir: &'a Path,
    /// Receives what it prints.
    pub output: File,
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Bound {
    child: Shared,
    waiter: JoinHandle<()>,
}

impl Bound {
    /// Starts a program, in a process group of its own: a Ctrl-C is for this process alone.
    ///
    /// # Errors
    /// If this program cannot be started again. That the other one cannot be, it prints, and ends.
    pub fn start(spec: Spec<'_>) -> io::Result<Self> {
        let mut command = Command::new(SELF);
        command
            .arg(WORD)
            .arg(std::process::id().to_string())
            .arg(spec.libraries)
            .arg(spec.program)
            .args(spec.arguments)
            .env_clear()
            .current_dir(spec.dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(spec.output.try_clone()?)
            .stderr(spec.output);
        let (tell, told) = mpsc::channel();
        let waiter = thread::Builder::new()
            .name("bound".to_owned())
            .spawn(move || wait_for(command, &tell))?;
        let child = told
            .recv()
            .map_err(|_| io::Error::other("the thread that starts it has ended"))??;
        Ok(Self { child, waiter })
    }

    /// How it ended; `None` while it runs.
    pub fn exited(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        kill(std::slice::from_ref(&self.child));
        let until = Instant::now() + DEATH;
        while !self.waiter.is_finished() && Instant::now() < until {
            thread::sleep(POLL);
        }
    }
}

/// Starts a program on this thread, and stays until it has ended: the kernel would kill it with the thread.
fn wait_for(mut command: Command, tell: &mpsc::Sender<io::Result<Shared>>) {
    let child = match command.spawn() {
        Ok(child) => Arc::new(Mutex::new(child)),
        Err(error) => {
            // Whoever waits for it is still there.
            let _ = tell.send(Err(error));
            return;
        }
    };
    lock(&LIVE).push(Arc::clone(&child));
    let _ = tell.send(Ok(Arc::clone(&child)));
    // Asked again and again: a `wait` would keep the lock that `kill` needs.
    while matches!(lock(&child).try_wait(), Ok(None)) {
        thread::sleep(POLL);
    }
    lock(&LIVE).retain(|other| !Arc::ptr_eq(other, &child));
}

/// Kills programs, and waits until they are gone.
fn kill(children: &[Shared]) {
    for child in children {
        // One that has ended already needs no signal.
        let _ = lock(child).kill();
    }
    let until = Instant::now() + DEATH;
    let runs = |child: &Shared| matches!(lock(child).try_wait(), Ok(None));
    while children.iter().any(runs) && Instant::now() < until {
        thread::sleep(POLL);
    }
}

/// Ends the programs of this process, before it exits without dropping them.
pub fn kill_all() {
    let children: Vec<Shared> = lock(&LIVE).clone();
    kill(&children);
}

/// Becomes the program that the command line asks for; returns only if it asks for none (`None`), or where
/// that failed.
pub fn become_program(arguments: &[OsString]) -> Option<io::Error> {
    let [_, word, parent, libraries, program, rest @ ..] = arguments else {
        return None;
    };
    if word != WORD {
        return None;
    }
    if let Err(error) = bind(parent) {
        return Some(error);
    }
    let program = PathBuf::from(program);
    let mut command = Command::new(&program);
    command.args(rest).env_clear().env("PATH", PATH);
    if !libraries.is_empty() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    if let Some(architecture) = UNSUPPORTED {
        command.env("ETCD_UNSUPPORTED_ARCH", architecture);
    }
    let error = command.exec();
    let what = format!("running {}: {error}", program.display());
    Some(io::Error::new(error.kind(), what))
}

/// Go's name of this machine's architecture, where some releases of etcd start only if they are told it.
const UNSUPPORTED: Option<&str> = if cfg!(target_arch = "aarch64") {
    Some("arm64")
} else if cfg!(target_arch = "s390x") {
    Some("s390x")
} else if cfg!(target_arch = "powerpc64") {
    Some("ppc64le")
} else {
    None
};

/// Binds this process to its parent, and makes it yield to everything else on the machine.
fn bind(parent: &OsString) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before that call.
    let is_parent = getppid().is_some_and(|pid| *parent == *pid.as_raw_nonzero().to_string());
    if !is_parent {
        return Err(io::Error::other("the process that started it is gone"));
    }
    // Without them it runs as everything else does.
    let _ = nice(NICE);
    let _ = fs::write("/proc/self/oom_score_adj", FIRST_TO_GO);
    Ok(())
}
