//! What the commands with journals share: the command of an operation, what can be done about it,
//! and its status.

use std::path::Path;

use serde_json::{Value, json};

use super::output::hints::command_of;
use super::output::json;
use super::output::words::{self, clean};
use super::session::{Session, Shown};
use crate::change::transaction::steps::NodeStep;
use crate::change::transaction::unsettled::{self, DISABLE, unsettled};
use crate::error::{Result, exit};
use crate::journal::registry::{self, Found};
use crate::journal::{self, Progress, State, Step, StepState};
use crate::node::layout::NodeLayout;
use crate::sys::lock::Lock;

/// The name that was given to a flag which may stand alone.
pub(super) fn named(id: &str) -> Option<&str> {
    (!id.is_empty()).then_some(id)
}

/// What can be done about an operation: whole commands, the one that keeps the present state first.
fn commands(found: &Found) -> Vec<String> {
    let (id, command) = (&found.id, command_of(&found.id));
    if id.starts_with(DISABLE) {
        return vec!["etcd-dr enable".to_owned()];
    }
    let with = |flag: &str| format!("etcd-dr {command} --{flag} {id}");
    match found.progress.as_ref().map(|progress| progress.state) {
        Ok(State::Running) => vec![format!("etcd-dr {command} --resume"), with("rollback")],
        Ok(State::RollingBack) => vec![with("rollback")],
        Ok(State::Completed) => vec![with("commit"), with("rollback")],
        Ok(State::Committing | State::RolledBack | State::Committed) => vec![with("commit")],
        Err(_) => Vec::new(),
    }
}

/// The list of what is not settled, as JSON.
pub(super) fn unsettled_json(layout: &NodeLayout) -> Result<Vec<Value>> {
    let all = unsettled(layout)?;
    let one = |found: &Found| {
        let progress = found.progress.as_ref().ok();
        json!({
            "id": found.id,
            "kind": progress.map(|progress| progress.begin.kind.clone()),
            "state": progress.map(|progress| progress.state.word()),
            "began": progress.map(|progress| progress.began),
            "kept": unsettled::kept(layout, found),
            "commands": commands(found),
        })
    };
    Ok(all.iter().map(one).collect())
}

/// A text on the other operations that are not settled.
pub(super) fn others(layout: &NodeLayout, but: &str) -> Result<String> {
    let mut text = String::new();
    for found in unsettled(layout)?.iter().filter(|found| found.id != but) {
        let state = match &found.progress {
            Ok(progress) => progress.state.word().to_owned(),
            Err(failure) => failure.to_string(),
        };
        let places: Vec<String> = unsettled::kept(layout, found)
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        text.push_str(&format!("also {}: {state}\n", found.id));
        if !places.is_empty() {
            text.push_str(&format!("  kept in    {}\n", places.join(", ")));
        }
        for command in commands(found) {
            text.push_str(&format!("  {command}\n"));
        }
    }
    for stray in unsettled::strays(layout)? {
        text.push_str(&format!(
            "also {}: its journal is missing, so it cannot be rolled back; inspect it, and remove it by hand\n",
            stray.display()
        ));
    }
    Ok(text)
}

/// What `list` says while etcd is disabled.
pub(super) fn disabled(layout: &NodeLayout) -> Result<Option<String>> {
    let Some(found) = unsettled::disabling(layout)? else {
        return Ok(None);
    };
    if !matches!(&found.progress, Ok(progress) if progress.state == State::Completed) {
        return Ok(None);
    }
    if unsettled::superseded_by(layout, &found)?.is_some() {
        return Ok(None);
    }
    Ok(Some(if unsettled::undone_by_others(layout, &found)? {
        format!(
            "etcd was disabled ({}), but its manifest is back; to stop it again: etcd-dr disable",
            found.id
        )
    } else {
        format!(
            "etcd is disabled on this node ({}); to start it again: etcd-dr enable",
            found.id
        )
    }))
}

/// What `list` says of operations that are done and not committed.
pub(super) fn uncommitted(layout: &NodeLayout) -> Result<Option<String>> {
    let mut all = registry::list(&layout.state())?;
    all.retain(|found| found.is_uncommitted() && !found.id.starts_with(DISABLE));
    let lines: Vec<String> = all
        .iter()
        .map(|found| {
            format!(
                "{} is not committed: {}",
                found.id,
                commands(found).join(", or ")
            )
        })
        .collect();
    Ok((!lines.is_empty()).then(|| lines.join("\n")))
}

/// What a command adds to how its own operation stands.
pub(super) struct Words {
    /// The command in a document.
    pub(super) document: &'static str,
    /// Lines of a name and a value.
    pub(super) facts: Vec<(&'static str, String)>,
    /// What can be done about a completed one, a line.
    pub(super) when_completed: String,
}

/// How an operation stands: its steps, and the next command.
pub(super) fn standing(
    session: &Session,
    dir: &Path,
    progress: &Progress,
    words: &Words,
) -> Result<Shown> {
    let held = Lock::is_held(&NodeLayout::new(&session.root).lock());
    let unfinished = progress.state.is_unfinished();
    let command = command_of(&progress.begin.id);
    let mut text = format!(
        "{}: {}{}\n",
        progress.begin.id,
        progress.state.word(),
        match (unfinished, held) {
            (true, true) => ", in progress",
            (true, false) => ", no process is running it",
            _ => "",
        },
    );
    let mut fact = |name: &str, value: &str| words::fact(&mut text, name, value);
    for (name, value) in &words.facts {
        fact(name, value);
    }
    fact("journal", &dir.join(journal::FILE).display().to_string());
    if let Some(why) = &progress.why {
        fact("was undone", why);
    }
    let steps = steps(progress, &mut text);
    match progress.state {
        State::Running if !held => text.push_str(&format!(
            "to resume: etcd-dr {command} --resume\nto roll back: etcd-dr {command} --rollback\n"
        )),
        State::RollingBack if !held => text.push_str(&format!(
            "to continue the rollback: etcd-dr {command} --rollback\n"
        )),
        State::Completed => text.push_str(&format!("{}\n", words.when_completed)),
        _ => {}
    }
    let layout = NodeLayout::new(&session.root);
    text.push_str(&others(&layout, &progress.begin.id)?);
    let json: Value = json!({
        "id": progress.begin.id,
        "state": progress.state.word(),
        "running": held && unfinished,
        "began": progress.began,
        "last": progress.last,
        "why": progress.why,
        "about": progress.begin.about,
        "journal": dir.join(journal::FILE),
        "steps": steps,
        "unsettled": unsettled_json(&layout)?,
    });
    Ok(Shown {
        status: if unfinished && !held {
            exit::BUSY
        } else {
            exit::DONE
        },
        ..Shown::done(clean(&text), json::document(words.document, &json))
    })
}

/// The steps and their states, as lines of text and as JSON. A step of another release that this one
/// does not know is left out.
fn steps(progress: &Progress, text: &mut String) -> Vec<Value> {
    let mut steps = Vec::new();
    for (number, (step, state)) in progress.begin.steps.iter().zip(&progress.steps).enumerate() {
        let Ok(read) = serde_json::from_value::<NodeStep>(step.clone()) else {
            continue;
        };
        let about = read.describe();
        text.push_str(&format!("  {} {:>2}. {about}\n", mark(*state), number + 1));
        steps.push(json!({"name": read.name(), "about": about, "step": step, "state": state}));
    }
    steps
}

/// The word for a step's state, in a column.
fn mark(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "       ",
        StepState::Doing => "doing  ",
        StepState::Done => "done   ",
        StepState::Undoing => "undoing",
        StepState::Undone => "undone ",
    }
}
