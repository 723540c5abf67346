//! The question before something is changed: on a terminal only, elsewhere `--yes` is needed.

use std::io::{BufRead, IsTerminal};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::terminal;
use crate::error::{Doing, Fact, Failure, Kind, Result};

/// Shows what would be done and asks; passes at once with `yes`.
///
/// # Errors
/// [`Kind::Usage`] with [`Fact::Missing`] `yes` if nobody can be asked, [`Kind::Interrupted`]
/// where the answer is no, or a signal comes instead of one; the end of input is a no.
pub(crate) fn confirm(what: &str, question: &str, yes: bool) -> Result<()> {
    if !yes && !is_terminal() {
        let why = format!("confirmation needed, but there is no terminal: {question}");
        return Err(Failure::new(Kind::Usage, why).with(Fact::Missing("yes")));
    }
    confirm_if_possible(what, question, yes)
}

/// The same for commands that never needed `--yes`: where nobody can be asked they go ahead.
///
/// # Errors
/// [`Kind::Interrupted`], as of [`confirm`].
pub(crate) fn confirm_if_possible(what: &str, question: &str, yes: bool) -> Result<()> {
    if yes || !is_terminal() {
        return Ok(());
    }
    let answer = asked(|| terminal::ask(what, question))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(
            Kind::Interrupted,
            "not confirmed: nothing was changed",
        )),
    }
}

/// Asks for what must not be seen while it is typed; without the end of the line.
///
/// # Errors
/// [`Kind::Interrupted`] if a signal comes instead; [`Kind::Unexpected`] if the terminal cannot be set or read.
pub(crate) fn secret(question: &str) -> Result<String> {
    let hidden = Hidden::start().doing(Kind::Unexpected, || "turning off the terminal's echo")?;
    let line = asked(|| terminal::ask_secret(question))?;
    drop(hidden);
    // The end of the line was not shown either.
    terminal::tell_line("");
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed; with the value's end it is as before, after a signal, too.
struct Hidden(Termios);

impl Hidden {
    fn start() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut without = before.clone();
        without.local_modes.remove(LocalModes::ECHO);
        // What was typed before the question is no answer to it.
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &without)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that has gone needs no echo.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Asks, and waits for a line or a signal.
fn asked(ask: impl FnOnce()) -> Result<String> {
    let (heard, hears) = channel();
    listen(heard.clone());
    // Only what is listened for can end the question.
    if let Ok(Heard::Failed(failure)) = hears.recv() {
        return Err(failure);
    }
    ask();
    read(heard);
    answer(&hears)
}

/// Whether there is a terminal to ask on.
pub(crate) fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// What comes while a question stands.
enum Heard {
    /// Signals are listened for.
    Listening,
    /// They cannot be.
    Failed(Failure),
    /// One came.
    Signal,
    /// A line was read.
    Line(std::io::Result<String>),
}

fn answer(hears: &Receiver<Heard>) -> Result<String> {
    let reading = || "reading the answer from the terminal";
    match hears.recv().doing(Kind::Unexpected, reading)? {
        Heard::Line(line) => line.doing(Kind::Unexpected, reading),
        Heard::Failed(failure) => Err(failure),
        Heard::Signal | Heard::Listening => {
            // The cursor is behind the question.
            terminal::tell_line("");
            Err(Failure::new(
                Kind::Interrupted,
                "interrupted: nothing was changed",
            ))
        }
    }
}

/// A read of the terminal that has begun is not to be ended: a signal's handler leaves it waiting.
/// It is left to a thread, which ends with the process.
fn read(heard: Sender<Heard>) {
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        // Nobody listens any more where a signal came first.
        let _ = heard.send(Heard::Line(read.map(|_| line)));
    });
}

/// Signals are caught by handlers that earlier work has left; without a listener they do nothing.
fn listen(heard: Sender<Heard>) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing(Kind::Unexpected, || "starting the runtime");
        let waited = runtime.and_then(|runtime| {
            runtime.block_on(async {
                let signals = signals().doing(Kind::Unexpected, || "listening for signals")?;
                let _ = heard.send(Heard::Listening);
                any(signals).await;
                Ok(())
            })
        });
        let _ = heard.send(match waited {
            Ok(()) => Heard::Signal,
            Err(failure) => Heard::Failed(failure),
        });
    });
}

fn signals() -> std::io::Result<[Signal; 3]> {
    Ok([
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ])
}

async fn any([mut interrupt, mut terminate, mut hangup]: [Signal; 3]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
