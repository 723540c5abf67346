//! What is common to the commands whose operations have a journal: which command an operation is
//! of, which one is meant, whether it can go on, and how it stands.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::run::{Session, Shown};
use super::{machine, member, restore};
use crate::error::{Fact, Failure, Kind, Result, exit};
use crate::node::layout::NodeLayout;
use crate::plan::lock::Lock;
use crate::plan::registry::{self, Found};
use crate::plan::{Operation, Progress, State, Step, StepState, journal};

/// The command that goes on with an operation, by the kind that its name begins with.
pub(super) fn command_of(id: &str) -> &'static str {
    if id.starts_with(member::JOIN) {
        "member-add --join"
    } else {
        restore::COMMAND
    }
}

/// The kind of an operation, also where its journal cannot be read.
fn is_of(found: &Found, kind: &str) -> bool {
    match &found.progress {
        Ok(progress) => progress.begin.kind == kind,
        Err(_) => found.id.starts_with(kind),
    }
}

/// Refuses while an operation of another kind is unfinished: the hint names its command.
pub(super) fn refuse_of_other_kind(layout: &NodeLayout, kind: &str) -> Result<()> {
    let all = registry::list(&layout.state())?;
    if all
        .iter()
        .any(|found| found.blocks() && !is_of(found, kind))
    {
        registry::refuse_while_unfinished(&layout.state())?;
    }
    Ok(())
}

/// The operation of a kind that a flag such as `--resume` means: the one that is not settled, or
/// the newest.
///
/// # Errors
/// [`Kind::Busy`] where one of another kind is unfinished; [`Kind::Usage`] where there is none.
pub(super) fn current(layout: &NodeLayout, kind: &str) -> Result<Found> {
    refuse_of_other_kind(layout, kind)?;
    let mut all: Vec<Found> = registry::list(&layout.state())?
        .into_iter()
        .filter(|found| is_of(found, kind))
        .collect();
    let meant = match all.iter().position(Found::blocks) {
        Some(at) => Some(all.swap_remove(at)),
        None => all.pop(),
    };
    meant.ok_or_else(|| {
        Failure::new(
            Kind::Usage,
            format!(
                "no {kind} was begun on this node: {} holds none",
                layout.state().display()
            ),
        )
    })
}

/// Takes up the one that is meant.
pub(super) fn open<S: Step>(
    session: &Session,
    layout: &NodeLayout,
    kind: &str,
) -> Result<Operation<S>> {
    let found = current(layout, kind)?;
    Operation::open(&found.dir, session.context.observer.clone(), Timestamp::now)
}

/// Refuses to go on with what goes back, or is settled.
pub(super) fn can_go_on<S: Step>(operation: &Operation<S>) -> Result<()> {
    let progress = operation.progress();
    let id = progress.begin.id.clone();
    match progress.state {
        State::Running => Ok(()),
        State::RollingBack => Err(Failure::new(Kind::Busy, format!("{id} goes back already"))
            .with(Fact::Unfinished {
                id,
                journal: operation.dir().join(journal::FILE),
                goes_back: true,
            })),
        state => Err(Failure::new(
            Kind::Usage,
            format!("there is nothing to go on with: {id} is {}", state.word()),
        )),
    }
}

/// What a command adds to how an operation of its own stands.
pub(super) struct Words {
    /// The command in a document.
    pub(super) document: &'static str,
    /// Lines of a name and a value.
    pub(super) facts: Vec<(&'static str, String)>,
    /// What can be done about a completed one, a line.
    pub(super) when_completed: &'static str,
}

/// How an operation stands: its steps, and the next command.
pub(super) fn standing<S: Step>(
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
            (true, true) => ", and a process is at it",
            (true, false) => ", and no process is at it",
            _ => "",
        },
    );
    let mut fact = |name: &str, value: &str| text.push_str(&format!("  {name:<10} {value}\n"));
    for (name, value) in &words.facts {
        fact(name, value);
    }
    fact("journal", &dir.join(journal::FILE).display().to_string());
    if let Some(why) = &progress.why {
        fact("went back", why);
    }
    let mut steps = Vec::new();
    for (number, (step, state)) in progress.begin.steps.iter().zip(&progress.steps).enumerate() {
        let Ok(read) = serde_json::from_value::<S>(step.clone()) else {
            continue;
        };
        let about = read.describe();
        text.push_str(&format!("  {} {:>2}. {about}\n", mark(*state), number + 1));
        steps.push(json!({"name": read.name(), "about": about, "step": step, "state": state}));
    }
    match progress.state {
        State::Running if !held => text.push_str(&format!(
            "to go on: etcd-dr {command} --resume\nto go back: etcd-dr {command} --rollback\n"
        )),
        State::RollingBack if !held => text.push_str(&format!(
            "to go on going back: etcd-dr {command} --rollback\n"
        )),
        State::Completed => text.push_str(&format!("{}\n", words.when_completed)),
        _ => {}
    }
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
    });
    Ok(Shown {
        status: if unfinished && !held {
            exit::BUSY
        } else {
            exit::DONE
        },
        ..Shown::done(
            member::clean(&text),
            machine::document(words.document, &json),
        )
    })
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
