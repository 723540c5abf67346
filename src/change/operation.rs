//! An operation on a node that has a journal, whichever it is: how it is begun, given up, gone back
//! from, and how what it kept is removed in the end. The steps, and what they act upon, are the
//! operation's own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bounds;
use super::restore::folders::HIDDEN;
use super::restore::switch;
use crate::context::Context;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::event::Event;
use crate::node::layout::NodeLayout;
use crate::plan::registry::{self, Found};
use crate::plan::{Begin, Clock, Known, Operation, Progress, Step, StepState, journal};
use crate::sys::fs;

/// Refuses a further change of the node while an earlier one is unfinished, or is done and neither
/// committed nor rolled back: two changes on top of each other would leave a way back to the state
/// between them, and none to the first. `disable` keeps nothing but a manifest, and is no such
/// change.
///
/// # Errors
/// [`Kind::Busy`] with [`Fact::Unfinished`] or [`Fact::Unsettled`] that names it.
pub(crate) fn refuse_while_unsettled(layout: &NodeLayout) -> Result<()> {
    registry::refuse_while_unfinished(&layout.state())?;
    let all = registry::list(&layout.state())?;
    match all
        .iter()
        .rfind(|found| found.is_uncommitted() && !is_switch(found))
    {
        Some(found) => Err(registry::must_settle(
            found,
            "another change would make its rollback impossible",
        )),
        None => Ok(()),
    }
}

fn is_switch(found: &Found) -> bool {
    let progress = found.progress.as_ref();
    progress.is_ok_and(|progress| progress.begin.kind == switch::KIND)
}

/// Refuses to roll back what a later operation was built upon, until that one is settled.
///
/// # Errors
/// [`Kind::Busy`] with [`Fact::Unsettled`].
pub(crate) fn refuse_under_later(layout: &NodeLayout, progress: &Progress) -> Result<()> {
    let all = registry::list(&layout.state())?;
    let later = all
        .iter()
        .rev()
        .take_while(|found| found.id != progress.begin.id);
    for found in later {
        if found.blocks() {
            registry::refuse_while_unfinished(&layout.state())?;
        }
        let in_force = found.is_uncommitted()
            && !(is_switch(found) && switch::undone_by_others(layout, found)?);
        if in_force {
            let what = format!(
                "it was made after {}, so settle it first",
                progress.begin.id
            );
            return Err(registry::must_settle(found, what));
        }
    }
    Ok(())
}

/// Folders of this tool that keep something and whose operation is not known any more.
///
/// # Errors
/// Those of listing them.
pub fn strays(layout: &NodeLayout) -> Result<Vec<PathBuf>> {
    const PREFIXES: [&str; 3] = ["restore-", "member-join-", "disable-"];
    let state = layout.state();
    let mut found = registry::strays(&state, &PREFIXES)?;
    let known: Vec<String> = registry::list(&state)?
        .into_iter()
        .map(|found| found.id)
        .collect();
    let hidden = [layout.kubernetes(), layout.default_data_dir()];
    for folder in hidden.iter().map(|dir| dir.join(HIDDEN)) {
        let kept = registry::strays(&folder, &PREFIXES)?;
        found.extend(kept.into_iter().filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !known.iter().any(|id| *id == name)
        }));
    }
    Ok(found)
}

/// The folders in which an operation still keeps something, as host paths; of one that cannot be
/// read, none.
pub fn kept(layout: &NodeLayout, found: &Found) -> Vec<PathBuf> {
    let Ok(progress) = &found.progress else {
        return Vec::new();
    };
    let safety = progress.begin.about.get("safety").cloned();
    let safety: Vec<PathBuf> = safety
        .and_then(|safety| serde_json::from_value(safety).ok())
        .unwrap_or_default();
    let folders = safety.iter().map(|folder| layout.host(folder));
    folders
        .filter(|folder| match std::fs::read_dir(folder) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => folder.symlink_metadata().is_ok(),
        })
        .collect()
}

/// A name for an operation of a kind that no folder bears yet.
pub(crate) fn free_name(context: &Context, layout: &NodeLayout, kind: &str) -> String {
    let stamp = context.now.strftime("%Y-%m-%d_%H%M%S");
    registry::free_id(&layout.state(), &format!("{kind}-{stamp}"))
}

/// What a plan needs besides its steps.
pub(crate) struct Plan<'a, A, S> {
    /// The kind of operation.
    pub(crate) kind: &'a str,
    /// Its name, which no folder bears yet.
    pub(crate) id: String,
    /// What its journal keeps to go on, to go back and to tell.
    pub(crate) about: A,
    /// The steps.
    pub(crate) steps: Vec<S>,
}

/// Makes a plan's journal durable; nothing else has changed then. What earlier ones left that came
/// to no journal is removed, and told.
///
/// # Errors
/// [`Kind::Store`].
pub(crate) fn begin<A: Serialize, S: Step>(
    context: &Context,
    layout: &NodeLayout,
    plan: Plan<'_, A, S>,
    tool_version: &str,
    clock: Clock,
) -> Result<Operation<S>> {
    let state = layout.state();
    fs::mkdir_all(&state)?;
    for left in registry::sweep(&state, &format!("{}-", plan.kind))? {
        context.tell(Event::LeftoverRemoved(left));
    }
    let dir = state.join(&plan.id);
    fs::mkdir(&dir)?;
    fs::sync_dir(&state)?;
    let about =
        serde_json::to_value(&plan.about).doing(Kind::Unexpected, || "writing the plan as JSON")?;
    let begin = Begin {
        schema: journal::SCHEMA,
        tool: tool_version.to_owned(),
        id: plan.id,
        kind: plan.kind.to_owned(),
        about,
        steps: Vec::new(),
    };
    Operation::begin(
        &dir,
        begin,
        plan.steps,
        Arc::clone(&context.observer),
        clock,
    )
}

/// What a journal is about.
///
/// # Errors
/// [`Kind::Busy`] where another version wrote it.
pub(crate) fn about<A: DeserializeOwned>(progress: &Progress) -> Result<A> {
    serde_json::from_value(progress.begin.about.clone()).map_err(|cause| {
        let what = format!("reading the plan of {}", progress.begin.id);
        Failure::wrap(Kind::Busy, cause, what)
    })
}

/// Whether a rollback has undone everything without its journal knowing of it: steps act only once the
/// folders are there that keep what they replace, and undoing the first step removes those folders.
///
/// To undo again would take the node apart: the original files would be taken for restored ones.
pub(crate) fn is_undone(layout: &NodeLayout, progress: &Progress, safety: &[PathBuf]) -> bool {
    progress.state.is_unfinished()
        // Its own undoing is recorded before it begins, where anything can be.
        && progress.steps.first() == Some(&StepState::Done)
        && !safety.is_empty()
        && safety
            .iter()
            .all(|folder| layout.host(folder).symlink_metadata().is_err())
}

/// Refuses to resume what is undone without a record of it: the steps would be taken for done.
///
/// # Errors
/// [`Kind::Busy`].
pub(crate) fn refuse_if_undone<S: Step>(
    layout: &NodeLayout,
    operation: &Operation<S>,
    safety: &[PathBuf],
) -> Result<()> {
    let progress = operation.progress();
    if is_undone(layout, progress, safety) {
        let what = format!(
            "{} cannot be resumed: it was rolled back, but its journal could not record that",
            progress.begin.id
        );
        return Err(Failure::new(Kind::Busy, what).with(operation.unfinished()));
    }
    Ok(())
}

/// Undoes everything. The world must be one that the wish to stop does not reach.
///
/// # Errors
/// [`Kind::RollbackFailed`].
pub(crate) async fn go_back<S: Step>(
    operation: &mut Operation<S>,
    unstopped: &S::World,
    why: &str,
) -> Result<()> {
    let undone = operation.roll_back(unstopped, why).await;
    undone.map_err(|failure| {
        let unfinished = operation.unfinished();
        failure.as_kind(Kind::RollbackFailed).with(unfinished)
    })
}

/// Goes back after a failure, and makes of it the one to end with: [`Kind::Interrupted`] where the
/// operator wanted it to stop, [`Kind::RolledBack`] otherwise, both with what is as before;
/// [`Kind::RollbackFailed`] where the way back failed too.
pub(crate) async fn give_up<S: Step>(
    context: &Context,
    operation: &mut Operation<S>,
    unstopped: &S::World,
    failed: Failure,
    as_before: impl Fn(&Known) -> String,
) -> Failure {
    context.warn("rolling-back", failed.to_string());
    if let Err(second) = go_back(operation, unstopped, &failed.to_string()).await {
        return second.doing(format!("rolling back after: {failed}"));
    }
    let kind = match failed.kind() {
        Kind::Interrupted => Kind::Interrupted,
        _ => Kind::RolledBack,
    };
    failed
        .as_kind(kind)
        .doing(as_before(&operation.progress().known))
}

/// Refuses to go back where nothing is kept for that any more.
pub(crate) fn refuse_without_way_back(progress: &Progress) -> Result<()> {
    if progress.state.can_roll_back() {
        return Ok(());
    }
    let what = format!(
        "cannot roll back {}: it is {}",
        progress.begin.id,
        progress.state.word()
    );
    let refusal = Fact::Refusal {
        name: "not-revertible",
        allowable: false,
    };
    Err(Failure::new(Kind::Refused, what).with(refusal))
}

/// Removes what was kept for the way back in these folders of the node, and says what that was.
///
/// # Errors
/// [`Kind::Busy`] where it is unfinished; [`Kind::Store`].
pub(crate) fn commit<S: Step>(
    layout: &NodeLayout,
    operation: &mut Operation<S>,
    safety: &[PathBuf],
) -> Result<Vec<PathBuf>> {
    let progress = operation.progress();
    if progress.state.is_unfinished() {
        let what = format!("{} is {}", progress.begin.id, progress.state.word());
        return Err(Failure::new(Kind::Busy, what).with(operation.unfinished()));
    }
    bounds::check(layout, progress)?;
    let mut removed = Vec::new();
    operation.commit(|| {
        for folder in safety {
            let folder = layout.host(folder);
            if folder.symlink_metadata().is_ok() {
                fs::remove_tree(&folder)?;
                fs::sync_dir(fs::parent(&folder))?;
                removed.push(folder.clone());
            }
            remove_hidden(&folder)?;
        }
        Ok(())
    })?;
    Ok(removed)
}

/// The hidden directory, and the operation's own in it, go with the last that was in them.
fn remove_hidden(folder: &Path) -> Result<()> {
    let is_hidden = |path: &Path| path.file_name().is_some_and(|name| name == HIDDEN);
    let above: Vec<&Path> = folder.ancestors().skip(1).take(2).collect();
    let hidden = above.iter().position(|path| is_hidden(path));
    for path in above.iter().take(hidden.map_or(0, |at| at + 1)) {
        fs::remove_empty_dir(path)?;
    }
    Ok(())
}
