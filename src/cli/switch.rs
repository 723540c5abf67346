//! `disable` and `enable`: etcd's static pod of this node.

use jiff::Timestamp;
use serde_json::json;

use super::args::{DisableArgs, EnableArgs};
use super::machine;
use super::run::{Session, Shown};
use super::target;
use crate::error::Result;
use crate::node::layout::NodeLayout;
use crate::ops::restore::{self, NodeStep, switch};
use crate::plan::{Operation, State, Step};

/// Stops etcd's pod and keeps it stopped.
pub(super) fn disable(session: &Session, args: &DisableArgs) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    let _locked = restore::lock(&session.context, &layout, "disable")?;
    if let Some(found) = switch::current(&layout)? {
        let in_force =
            matches!(&found.progress, Ok(progress) if progress.state == State::Completed);
        if in_force && !switch::undone_by_others(&layout, &found)? {
            return Ok(shown(&found.id, "etcd is disabled already\n", true));
        }
    }
    let target = target::target(session)?;
    let draft = session.block_on(switch::draft(&session.context, &target, args.wait))?;
    if args.dry_run {
        let mut text = String::new();
        for (number, step) in draft.steps.iter().enumerate() {
            text.push_str(&format!("  {:>2}. {}\n", number + 1, step.describe()));
        }
        return Ok(Shown::done(
            text,
            machine::document("disable", &json!({"dryRun": true, "about": draft.about})),
        ));
    }
    let mut operation = restore::begin(
        &session.context,
        &layout,
        switch::KIND,
        draft,
        env!("CARGO_PKG_VERSION"),
        Timestamp::now,
    )?;
    session.log().open(operation.dir());
    let context = &session.context;
    let done =
        session.block_on_to_the_end(restore::go_on(context, &layout, &mut operation, false))?;
    switch::settle(context, &layout)?;
    let text = "etcd is disabled on this node: its manifest is kept, and nothing of it runs\nto let it run again: etcd-dr enable\n";
    Ok(shown(&done.id, text, true))
}

/// Lets etcd's pod run again.
pub(super) fn enable(session: &Session, _args: &EnableArgs) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    let _locked = restore::lock(&session.context, &layout, "enable")?;
    let Some(found) = switch::current(&layout)? else {
        return Err(switch::not_disabled());
    };
    let mut operation =
        Operation::<NodeStep>::open(&found.dir, session.context.observer.clone(), Timestamp::now)?;
    session.log().open(operation.dir());
    if let Some(later) = switch::superseded_by(&layout, &found)? {
        switch::settle(&session.context, &layout)?;
        let text = format!("{} has put etcd's manifest back: nothing to do\n", later.id);
        return Ok(shown(&found.id, &text, false));
    }
    if switch::undone_by_others(&layout, &found)? {
        restore::commit(&session.context, &layout, &mut operation)?;
        let text = "etcd's manifest was put back by others meanwhile: nothing to do\n";
        return Ok(shown(&found.id, text, false));
    }
    let context = &session.context;
    let target = target::target(session)?;
    session.block_on(switch::refuse_beside_restored(context, &target))?;
    session.block_on_to_the_end(switch::enable(context, &layout, &mut operation))?;
    Ok(shown(&found.id, "etcd serves on this node again\n", false))
}

fn shown(id: &str, text: &str, disabled: bool) -> Shown {
    Shown::done(
        text.to_owned(),
        machine::document(
            if disabled { "disable" } else { "enable" },
            &json!({"id": id, "disabled": disabled}),
        ),
    )
}

/// What `list` says while etcd is disabled.
pub(super) fn remark(layout: &NodeLayout) -> Result<Option<String>> {
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
            "etcd is disabled on this node ({}); to let it run again: etcd-dr enable",
            found.id
        )
    }))
}
