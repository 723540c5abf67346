//! The question before something is destroyed: on a terminal only, elsewhere `--yes` is needed.

use std::io::{BufRead, IsTerminal};

use super::human;
use crate::error::{Doing, Fact, Failure, Kind, Result};

/// Shows what would be done and asks; passes at once with `yes`.
///
/// # Errors
/// [`Kind::Usage`] with [`Fact::Missing`] `yes` where nobody can be asked, [`Kind::Interrupted`]
/// where the answer is no, and the end of input is one.
pub(super) fn confirm(what: &str, question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        let why = format!("nobody is here to be asked: {question}");
        return Err(Failure::new(Kind::Usage, why).with(Fact::Missing("yes")));
    }
    human::tell(&format!("{what}{question} [y/N] "));
    let mut answer = String::new();
    stdin
        .lock()
        .read_line(&mut answer)
        .doing(Kind::Unexpected, || "reading the answer from the terminal")?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(
            Kind::Interrupted,
            "not confirmed: nothing has changed",
        )),
    }
}
