//! `enable`: lets etcd's static pod of this node run again.

use serde_json::json;

use super::args::EnableArgs;
use super::output::confirm::confirm_if_possible;
use super::output::json;
use super::session::{Session, Shown};
use super::target;
use crate::change::disable;
use crate::change::transaction::commit::settle_disablings;
use crate::change::transaction::lock::Locked;
use crate::change::transaction::runner::Transaction;
use crate::change::transaction::unsettled::{disabling, superseded_by, undone_by_others};
use crate::error::Result;
use crate::node::layout::NodeLayout;

/// Lets etcd's pod run again.
pub(super) fn run(session: &Session, args: &EnableArgs) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    let context = &session.context;
    let locked = Locked::take(context, &layout, "enable")?;
    let Some(found) = disabling(&layout)? else {
        return enabled_already(session, args);
    };
    if args.ask.dry_run {
        let text = "etcd's manifest would be restored; then this command would wait for etcd\n";
        return Ok(planned(Some(&found.id), text));
    }
    let question = "Restore etcd's manifest and start etcd on this node?";
    confirm_if_possible("", question, args.ask.yes)?;
    let mut disabled = Transaction::open_found(context, &layout, locked, &found)?;
    session.log().open(disabled.dir());
    if let Some(later) = superseded_by(&layout, &found)? {
        settle_disablings(context, &layout)?;
        let text = format!("{} has restored etcd's manifest: nothing to do\n", later.id);
        return Ok(shown(&found.id, &text));
    }
    if undone_by_others(&layout, &found)? {
        disabled.commit()?;
        let text = "etcd's manifest is already in place; nothing to do\n";
        return Ok(shown(&found.id, text));
    }
    let target = target::target(session)?;
    session.block_on(disable::refuse_beside_restored(context, &target))?;
    session.block_on_uninterruptible(disable::enable(
        context,
        &layout,
        &mut disabled,
        args.wait,
    ))?;
    Ok(shown(&found.id, "etcd serves on this node again\n"))
}

/// It may be repeated, as by a playbook: then it only looks.
fn enabled_already(session: &Session, args: &EnableArgs) -> Result<Shown> {
    let target = target::target(session)?;
    if args.ask.dry_run {
        let text = "etcd is not disabled on this node: nothing to do\n";
        return Ok(planned(None, text));
    }
    let looked = disable::enabled_already(&session.context, &target, args.wait);
    let text = match session.block_on(looked)? {
        true => "etcd is not disabled on this node, and serves\n",
        false => "etcd is not disabled on this node: nothing to do\n",
    };
    let document = json!({"id": null, "disabled": false});
    Ok(Shown::done(
        text.to_owned(),
        json::document("enable", &document),
    ))
}

fn planned(id: Option<&str>, text: &str) -> Shown {
    let document = json!({"dryRun": true, "id": id, "disabled": id.is_some()});
    Shown::done(text.to_owned(), json::document("enable", &document))
}

fn shown(id: &str, text: &str) -> Shown {
    let document = json!({"id": id, "disabled": false});
    Shown::done(text.to_owned(), json::document("enable", &document))
}
