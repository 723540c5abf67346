//! The question before something is destroyed: on a terminal only, elsewhere `--yes` is needed.

use std::io::{BufRead, IsTerminal, Write};

use crate::error::{Doing, Fact, Failure, Kind, Result};

/// Shows what would be done and asks; passes at once with `yes`.
///
/// # Errors
/// [`Kind::Refused`] where nobody can be asked, [`Kind::Interrupted`] where the answer is no.
pub(super) fn confirm(what: &str, question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    let (stdin, stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        let why = format!("{question} Nobody can be asked here: this is no terminal");
        return Err(Failure::new(Kind::Refused, why)
            .with(Fact::Refusal {
                name: "not-confirmed",
                allowable: false,
            })
            .with(Fact::Missing("yes")));
    }
    let asking = || "asking on the terminal";
    let mut out = stderr.lock();
    write!(out, "{what}{question} [y/N] ").doing(Kind::Unexpected, asking)?;
    out.flush().doing(Kind::Unexpected, asking)?;
    let mut answer = String::new();
    stdin
        .lock()
        .read_line(&mut answer)
        .doing(Kind::Unexpected, asking)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(
            Kind::Interrupted,
            "not confirmed: nothing has changed",
        )),
    }
}
