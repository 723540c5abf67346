//! What is common to the commands whose operations have a journal: which command an operation is
//! of, which one is meant, whether it can be resumed, and its state.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::output::hints::command_of;
use super::output::json;
use super::output::words::clean;
use super::session::{Session, Shown};
use crate::change::operation;
use crate::change::restore::switch;
use crate::error::{Fact, Failure, Kind, Result, exit};
use crate::node::layout::NodeLayout;
use crate::plan::lock::Lock;
use crate::plan::registry::{self, Found};
use crate::plan::{Operation, Progress, State, Step, StepState, journal};

/// The name that was given to a flag which may stand alone.
pub(super) fn named(id: &str) -> Option<&str> {
    (!id.is_empty()).then_some(id)
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

/// The operation of a kind that a flag such as `--rollback` means: the one of this name, or the one
/// that is unfinished, or the newest that is not committed, or that still keeps something, or the
/// newest.
///
/// # Errors
/// [`Kind::Busy`] where one of another kind is unfinished; [`Kind::Usage`] where there is none.
pub(super) fn current(layout: &NodeLayout, kind: &str, id: Option<&str>) -> Result<Found> {
    refuse_of_other_kind(layout, kind)?;
    let mut all: Vec<Found> = registry::list(&layout.state())?
        .into_iter()
        .filter(|found| is_of(found, kind))
        .collect();
    if let Some(id) = id {
        let at = all.iter().position(|found| found.id == id);
        return at.map(|at| all.swap_remove(at)).ok_or_else(|| {
            let known = all.into_iter().map(|found| found.id).collect();
            Failure::new(Kind::Usage, format!("there is no {kind} {id:?}"))
                .with(Fact::Candidates(known))
        });
    }
    let unfinished = all.iter().position(Found::blocks);
    let uncommitted = || all.iter().rposition(Found::is_uncommitted);
    let keeping = || {
        all.iter()
            .rposition(|found| !operation::kept(layout, found).is_empty())
    };
    let meant = match unfinished.or_else(uncommitted).or_else(keeping) {
        Some(at) => Some(all.swap_remove(at)),
        None => all.pop(),
    };
    meant.ok_or_else(|| {
        Failure::new(
            Kind::Usage,
            format!(
                "no {kind} was started on this node: {} contains none",
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
    id: Option<&str>,
) -> Result<Operation<S>> {
    let found = current(layout, kind, id)?;
    Operation::open(&found.dir, session.context.observer.clone(), Timestamp::now)
}

/// Refuses to resume what is being rolled back, or is settled.
pub(super) fn can_go_on<S: Step>(operation: &Operation<S>) -> Result<()> {
    let progress = operation.progress();
    let id = progress.begin.id.clone();
    match progress.state {
        State::Running => Ok(()),
        State::RollingBack => Err(Failure::new(
            Kind::Busy,
            format!("{id} is already being rolled back"),
        )
        .with(Fact::Unfinished {
            id,
            journal: operation.dir().join(journal::FILE),
            goes_back: true,
        })),
        state => Err(Failure::new(
            Kind::Usage,
            format!("nothing to resume: {id} is {}", state.word()),
        )),
    }
}

/// The operations of this node that are unfinished, or still keep something.
pub(super) fn unsettled(layout: &NodeLayout) -> Result<Vec<Found>> {
    let mut all = registry::list(&layout.state())?;
    all.retain(|found| {
        found.blocks() || found.is_uncommitted() || !operation::kept(layout, found).is_empty()
    });
    Ok(all)
}

/// What can be done about an operation: whole commands, the one that keeps what is there first.
fn commands(found: &Found) -> Vec<String> {
    let (id, command) = (&found.id, command_of(&found.id));
    if id.starts_with(switch::KIND) {
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
            "kept": operation::kept(layout, found),
            "commands": commands(found),
        })
    };
    Ok(all.iter().map(one).collect())
}

/// The list of what is not settled besides one operation, for people.
pub(super) fn others(layout: &NodeLayout, but: &str) -> Result<String> {
    let mut text = String::new();
    for found in unsettled(layout)?.iter().filter(|found| found.id != but) {
        let state = match &found.progress {
            Ok(progress) => progress.state.word().to_owned(),
            Err(failure) => failure.to_string(),
        };
        let places: Vec<String> = operation::kept(layout, found)
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
    for stray in operation::strays(layout)? {
        text.push_str(&format!(
            "also {}: its journal is missing, so it cannot be rolled back; inspect it, and remove it by hand\n",
            stray.display()
        ));
    }
    Ok(text)
}

/// What `list` says while etcd is disabled.
pub(super) fn disabled(layout: &NodeLayout) -> Result<Option<String>> {
    let Some(found) = switch::current(layout)? else {
        return Ok(None);
    };
    if !matches!(&found.progress, Ok(progress) if progress.state == State::Completed) {
        return Ok(None);
    }
    if switch::superseded_by(layout, &found)?.is_some() {
        return Ok(None);
    }
    Ok(Some(if switch::undone_by_others(layout, &found)? {
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
    all.retain(|found| found.is_uncommitted() && !found.id.starts_with(switch::KIND));
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

/// What a command adds to how an operation of its own stands.
pub(super) struct Words {
    /// The command in a document.
    pub(super) document: &'static str,
    /// Lines of a name and a value.
    pub(super) facts: Vec<(&'static str, String)>,
    /// What can be done about a completed one, a line.
    pub(super) when_completed: String,
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
            (true, true) => ", in progress",
            (true, false) => ", no process is running it",
            _ => "",
        },
    );
    let mut fact = |name: &str, value: &str| text.push_str(&format!("  {name:<10} {value}\n"));
    for (name, value) in &words.facts {
        fact(name, value);
    }
    fact("journal", &dir.join(journal::FILE).display().to_string());
    if let Some(why) = &progress.why {
        fact("was undone", why);
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
