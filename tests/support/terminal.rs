//! A real terminal: tmux holds a screen, keys are typed into it, and what it shows is read back.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::process::expect_success;

/// How long a screen may take to show what is waited for, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A terminal with one program in it, gone with the value; the program ends after three minutes
/// even if the test process is killed.
pub struct Terminal {
    server: String,
}

impl Terminal {
    /// Whether there is a tmux.
    pub fn is_there() -> bool {
        Command::new("tmux").arg("-V").output().is_ok()
    }

    /// Starts a program in a terminal of so many columns and rows, with these variables and no
    /// others but `PATH`, `HOME` and tmux's own.
    pub fn start<S: AsRef<OsStr>>(size: (u16, u16), env: &[(&str, &str)], program: &[S]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let server = format!("etcd-dr-test-{}-{number}", std::process::id());
        let utf8 = env.iter().any(|(_, value)| value.contains("UTF-8"));
        let mut command = Command::new("tmux");
        command.args(["-L", &server, "-f", "/dev/null"]);
        if utf8 {
            command.arg("-u");
        }
        command
            .args([
                "new-session",
                "-d",
                "-x",
                &size.0.to_string(),
                "-y",
                &size.1.to_string(),
            ])
            .args(["--", "timeout", "180", "env", "-i", "TERM=screen-256color"])
            .arg(format!(
                "PATH={}",
                std::env::var("PATH").unwrap_or_default()
            ))
            .arg("HOME=/nonexistent")
            .args(env.iter().map(|(name, value)| format!("{name}={value}")))
            .args(program)
            .env_remove("TMUX");
        let output = command.output().expect("running tmux");
        expect_success("tmux new-session", &output);
        Self { server }
    }

    fn tmux(&self, args: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.server]).args(args);
        command.output().expect("running tmux")
    }

    /// Types keys, by tmux's names for them where they are not text.
    pub fn keys(&self, keys: &[&str]) {
        expect_success(
            "tmux send-keys",
            &self.tmux(&[&["send-keys"], keys].concat()),
        );
    }

    /// What is on the screen, with what has scrolled off it; lines that were wrapped are wrapped.
    pub fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p", "-S", "-500"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same with its colours, as escape sequences.
    pub fn painted(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p", "-e", "-S", "-500"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the screen is as it should be, and gives it back.
    #[track_caller]
    pub fn wait(&self, what: &str, done: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if done(&screen) {
                return screen;
            }
            assert!(began.elapsed() < LIMIT, "{what} was not shown:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended by itself where its program has.
        let _ = Command::new("tmux")
            .args(["-L", &self.server, "kill-server"])
            .output();
    }
}

/// The folder of a program, in front of everything else that is looked for.
pub fn path_with(program: &Path) -> String {
    let folder = program.parent().expect("its folder").display();
    format!("{folder}:{}", std::env::var("PATH").unwrap_or_default())
}
