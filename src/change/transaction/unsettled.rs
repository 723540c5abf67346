//! The changes of this node that are not settled (unfinished, or completed and neither committed
//! nor rolled back), and what each still keeps.

use std::path::PathBuf;

use super::folders::HIDDEN;
use super::steps::NodeStep;
use crate::context::Context;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::journal::registry::{self, Found};
use crate::journal::{Progress, State, StepState};
use crate::node::layout::NodeLayout;

/// The kind of a restore, in journals.
pub const RESTORE: &str = "restore";
/// The kind of a `disable`.
pub const DISABLE: &str = "disable";
/// The kind of a join.
pub const JOIN: &str = "member-join";

/// Refuses another change of the node while an earlier one is not settled: the rollback of the
/// second would lead to the state between them, and none to the first. `disable` does not count,
/// since it keeps only a manifest.
///
/// # Errors
/// [`Kind::Busy`] with [`Fact::Unfinished`] or [`Fact::Unsettled`] that names it.
pub(crate) fn refuse_while_unsettled(layout: &NodeLayout) -> Result<()> {
    registry::refuse_while_unfinished(&layout.state())?;
    let all = registry::list(&layout.state())?;
    match all
        .iter()
        .rfind(|found| found.is_uncommitted() && !is_disabling(found))
    {
        Some(found) => Err(registry::must_settle(
            found,
            "another change would make its rollback impossible",
        )),
        None => Ok(()),
    }
}

fn is_disabling(found: &Found) -> bool {
    let progress = found.progress.as_ref();
    progress.is_ok_and(|progress| progress.begin.kind == DISABLE)
}

/// A name for an operation of a kind that no folder has yet.
pub(crate) fn free_name(context: &Context, layout: &NodeLayout, kind: &str) -> String {
    let stamp = context.now.strftime("%Y-%m-%d_%H%M%S");
    registry::free_id(&layout.state(), &format!("{kind}-{stamp}"))
}

/// Refuses to roll back an operation while a later one, which builds on it, is not settled.
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
        let in_force =
            found.is_uncommitted() && !(is_disabling(found) && undone_by_others(layout, found)?);
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

/// Refuses to roll back if nothing is kept for that any longer.
pub(crate) fn refuse_without_rollback(progress: &Progress) -> Result<()> {
    if progress.state.can_roll_back() {
        return Ok(());
    }
    let what = format!(
        "cannot roll back {}: it is {}",
        progress.begin.id,
        progress.state.word()
    );
    Err(Failure::refused_for_good("not-revertible", what))
}

/// Whether etcd's manifest has come back although it was moved away.
pub fn undone_by_others(layout: &NodeLayout, found: &Found) -> Result<bool> {
    let Ok(progress) = &found.progress else {
        return Ok(false);
    };
    let steps: Vec<NodeStep> = progress
        .begin
        .steps
        .iter()
        // A step that this version does not know is not the one that is looked for.
        .filter_map(|step| serde_json::from_value(step.clone()).ok())
        .collect();
    Ok(progress.state == State::Completed
        && steps.iter().any(|step| match step {
            NodeStep::StopPods { moves } => moves
                .iter()
                .any(|exchange| layout.host(&exchange.place).symlink_metadata().is_ok()),
            _ => false,
        }))
}

/// The later operation that has put etcd's manifest back, as a restore does: etcd runs again
/// because of etcd-dr itself.
///
/// # Errors
/// Those of listing the operations.
pub fn superseded_by(layout: &NodeLayout, disabled: &Found) -> Result<Option<Found>> {
    if !undone_by_others(layout, disabled)? {
        return Ok(None);
    }
    let all = registry::list(&layout.state())?;
    let later = all.into_iter().skip_while(|found| found.id != disabled.id);
    let starts = later.skip(1).filter(|found| match &found.progress {
        Ok(progress) => {
            progress.begin.kind != DISABLE
                && (progress.state.is_uncommitted() || progress.state == State::Committed)
        }
        Err(_) => false,
    });
    Ok(starts.last())
}

/// The disabling that is in force or unfinished on this node.
pub fn disabling(layout: &NodeLayout) -> Result<Option<Found>> {
    let all = registry::list(&layout.state())?;
    let ours = |found: &Found| match &found.progress {
        Ok(progress) => {
            progress.begin.kind == DISABLE
                && matches!(
                    progress.state,
                    State::Completed | State::Running | State::RollingBack
                )
        }
        Err(_) => found.id.starts_with(DISABLE),
    };
    Ok(all.into_iter().rfind(ours))
}

/// The disabling that keeps etcd from running, if there is one.
///
/// # Errors
/// As those of [`disabling`].
pub fn in_force(layout: &NodeLayout) -> Result<Option<String>> {
    let Some(found) = disabling(layout)? else {
        return Ok(None);
    };
    let completed = matches!(&found.progress, Ok(progress) if progress.state == State::Completed);
    Ok((completed && !undone_by_others(layout, &found)?).then_some(found.id))
}

/// Folders of etcd-dr that keep something and whose operation is no longer known.
///
/// # Errors
/// Those of listing them.
pub fn strays(layout: &NodeLayout) -> Result<Vec<PathBuf>> {
    let prefixes = [RESTORE, JOIN, DISABLE].map(|kind| format!("{kind}-"));
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let state = layout.state();
    let mut found = registry::strays(&state, &prefixes)?;
    let known: Vec<String> = registry::list(&state)?
        .into_iter()
        .map(|found| found.id)
        .collect();
    let hidden = [layout.kubernetes(), layout.default_data_dir()];
    for folder in hidden.iter().map(|dir| dir.join(HIDDEN)) {
        let kept = registry::strays(&folder, &prefixes)?;
        found.extend(kept.into_iter().filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !known.iter().any(|id| *id == name)
        }));
    }
    Ok(found)
}

/// The folders in which an operation keeps what it replaced, as node paths.
///
/// # Errors
/// [`Kind::Busy`] if another version wrote the journal.
pub(crate) fn safety(progress: &Progress) -> Result<Vec<PathBuf>> {
    let safety = progress.begin.about.get("safety").cloned();
    serde_json::from_value(safety.unwrap_or_default()).doing(Kind::Busy, || {
        format!("reading what {} keeps", progress.begin.id)
    })
}

/// The folders in which an operation still keeps something, as host paths; empty if its journal
/// cannot be read.
pub fn kept(layout: &NodeLayout, found: &Found) -> Vec<PathBuf> {
    let Ok(progress) = &found.progress else {
        return Vec::new();
    };
    let safety = safety(progress).unwrap_or_default();
    let folders = safety.iter().map(|folder| layout.host(folder));
    folders
        .filter(|folder| match std::fs::read_dir(folder) {
            Ok(mut entries) => entries.next().is_some(),
            // A folder that cannot be read may still keep something.
            Err(_) => folder.symlink_metadata().is_ok(),
        })
        .collect()
}

/// Whether a rollback has undone everything without a record in the journal. Steps act only once
/// their safety folders exist, and undoing the first step removes those folders.
///
/// To undo again would destroy the node: the original files would be taken for restored ones.
pub(crate) fn is_undone(layout: &NodeLayout, progress: &Progress) -> Result<bool> {
    let safety = safety(progress)?;
    Ok(progress.state.is_unfinished()
        // The undoing of a step is recorded before it begins, if the disk lets us write.
        && progress.steps.first() == Some(&StepState::Done)
        && !safety.is_empty()
        && safety
            .iter()
            .all(|folder| layout.host(folder).symlink_metadata().is_err()))
}

/// The kind of an operation, even if its journal cannot be read.
fn is_of(found: &Found, kind: &str) -> bool {
    match &found.progress {
        Ok(progress) => progress.begin.kind == kind,
        Err(_) => found.id.starts_with(kind),
    }
}

/// Refuses while an operation of another kind is unfinished: the hint names its command.
pub fn refuse_of_other_kind(layout: &NodeLayout, kind: &str) -> Result<()> {
    let all = registry::list(&layout.state())?;
    if all
        .iter()
        .any(|found| found.blocks() && !is_of(found, kind))
    {
        registry::refuse_while_unfinished(&layout.state())?;
    }
    Ok(())
}

/// The operation that a flag such as `--rollback` means: the one with this name; otherwise the
/// unfinished one, the newest that is not committed or still keeps something, or the newest.
///
/// # Errors
/// [`Kind::Busy`] if one of another kind is unfinished; [`Kind::Usage`] if there is no such
/// operation.
pub fn current(layout: &NodeLayout, kind: &str, id: Option<&str>) -> Result<Found> {
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
            .rposition(|found| !kept(layout, found).is_empty())
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

/// The operations of this node that are unfinished, or still keep something.
///
/// # Errors
/// Those of listing them.
pub fn unsettled(layout: &NodeLayout) -> Result<Vec<Found>> {
    let mut all = registry::list(&layout.state())?;
    all.retain(|found| found.blocks() || found.is_uncommitted() || !kept(layout, found).is_empty());
    Ok(all)
}
