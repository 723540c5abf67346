//! `prune`: the plan, the question, and what was done.

use super::args::PruneArgs;
use super::output::confirm::confirm;
use super::output::{json, prune as show};
use super::session::{Session, Shown};
use super::{remote, sign};
use crate::error::{Result, exit};
use crate::keep::prune::{self, PrunePlan, PruneRequest, Pruned, Selection};
use crate::keep::{in_use, remote as sets};
use crate::node::layout::NodeLayout;
use crate::store::{Address, objects};

/// Removes what no rule wants.
pub(super) fn run(session: &Session, args: &PruneArgs) -> Result<Shown> {
    let request = request(session, args)?;
    if let Some(address) = remote::url(session, args.store.as_deref())? {
        return away(session, args, &request, &address);
    }
    let store = session.existing_store(args.store.as_deref())?;
    let layout = NodeLayout::new(&session.root);
    let request = PruneRequest {
        in_use: in_use::sets(&layout, store.dir())?,
        ..request
    };
    let now = store.clone();
    let asked = request.clone();
    let plan = session.blocking(move |context| prune::plan(&context, &now, &asked))?;
    if args.dry_run {
        return Ok(planned(&plan, args));
    }
    // Even with nothing to remove it runs: what an earlier run left is cleaned up.
    if plan.removes() {
        agree(&plan, args)?;
    }
    let names = plan.names();
    let done = session
        .blocking(move |context| prune::run(&context, &store, &request, Some(&names)))
        .map_err(|failure| failure.doing("pruning"))?;
    Ok(shown(&done, args))
}

/// The same in a store away from the node.
fn away(
    session: &Session,
    args: &PruneArgs,
    request: &PruneRequest,
    address: &Address,
) -> Result<Shown> {
    let settings = remote::settings(session, &args.remote)?;
    let plan = session.block_on(async {
        let store = objects::open(address, &settings).await?;
        let plan = sets::plan_prune(&session.context, store.as_ref(), request);
        session.context.cancel.guard(plan).await
    })?;
    if args.dry_run {
        return Ok(planned(&plan, args));
    }
    if plan.removes() {
        agree(&plan, args)?;
    }
    let names = plan.names();
    let done = session.block_on(async {
        let store = objects::open(address, &settings).await?;
        sets::prune(&session.context, store.as_ref(), request, Some(&names)).await
    });
    let done = done.map_err(|failure| failure.doing("pruning"))?;
    Ok(shown(&done, args))
}

/// The rules of the arguments or, without any, those of the configuration.
fn request(session: &Session, args: &PruneArgs) -> Result<PruneRequest> {
    let selection = match &args.cluster {
        Some(id) => Selection::Cluster(id.clone()),
        None => {
            let rules = if args.keep.is_given() {
                args.keep.rules()
            } else {
                let zone = args.keep.time_zone.as_ref();
                session.config.keep.rules(zone)
            };
            rules.check()?;
            Selection::Rules(rules)
        }
    };
    Ok(PruneRequest {
        selection,
        in_use: Vec::new(),
        trust: sign::trust_only(session, &args.trust)?,
        sign: sign::key(
            session,
            args.sign_key.as_deref(),
            args.sign_passphrase_file.as_deref(),
        )?,
    })
}

/// The plan, as a result.
fn planned(plan: &PrunePlan, args: &PruneArgs) -> Shown {
    Shown::done(
        show::plan(plan, args.explain),
        json::document("prune", &show::document(plan, None)),
    )
}

/// Shows the plan, and asks.
fn agree(plan: &PrunePlan, args: &PruneArgs) -> Result<()> {
    let backups = plan.removals().count();
    let question = match plan.segments() {
        0 => format!("Remove {backups} backups?"),
        segments => format!("Remove {backups} backups and {segments} segments?"),
    };
    confirm(&show::plan(plan, args.explain), &question, args.yes)
}

/// What was done, as a result.
pub(super) fn shown(done: &Pruned, args: &PruneArgs) -> Shown {
    let mut text = String::new();
    if args.explain {
        text.push_str(&show::plan(&done.plan, args.explain));
    }
    text.push_str(&show::summary(done));
    let json = json::document("prune", &show::document(&done.plan, Some(done)));
    let mut shown = Shown::in_part(text, json, show::problems(done).collect());
    if shown.status == exit::PARTIAL && done.removed.is_empty() {
        shown.status = exit::STORE;
    }
    shown
}
