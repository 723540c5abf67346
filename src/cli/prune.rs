//! `prune`: the plan, the question, and what was done.

use std::fmt::Write as _;

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::args::PruneArgs;
use super::confirm::confirm;
use super::run::{Session, Shown};
use super::{machine, remote};
use crate::backup::retention::Verdict;
use crate::error::{Result, exit};
use crate::etcd::finding::printable;
use crate::keep::prune::{Decided, PrunePlan, PruneRequest, Pruned, Selection};
use crate::keep::{in_use, prune, remote as sets};
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
        return Ok(Shown::done(
            told(&plan, args),
            machine::document("prune", &document(&plan, None)),
        ));
    }
    // Even with nothing to remove it runs: what an earlier run left is cleaned up.
    if plan.removals().next().is_some() {
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
        let plan = sets::plan(&session.context, store.as_ref(), request);
        session.context.cancel.guard(plan).await
    })?;
    if args.dry_run {
        return Ok(Shown::done(
            told(&plan, args),
            machine::document("prune", &document(&plan, None)),
        ));
    }
    if plan.removals().next().is_some() {
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

/// What is asked for: the rules of the arguments, or where there are none the configuration's.
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
    })
}

/// Shows the plan, and asks.
fn agree(plan: &PrunePlan, args: &PruneArgs) -> Result<()> {
    let question = format!("Remove {} backups?", plan.removals().count());
    confirm(&told(plan, args), &question, args.yes)
}

/// What was done, as a result.
pub(super) fn shown(done: &Pruned, args: &PruneArgs) -> Shown {
    let mut text = String::new();
    if args.explain {
        text.push_str(&told(&done.plan, args));
    }
    text.push_str(&summary(done));
    Shown {
        text,
        json: machine::document("prune", &document(&done.plan, Some(done))),
        remark: (!done.problems.is_empty()).then(|| problems(done)),
        status: if done.problems.is_empty() {
            exit::DONE
        } else if done.removed.is_empty() {
            exit::STORE
        } else {
            exit::PARTIAL
        },
    }
}

/// What stopped a removal, a line each.
pub(super) fn problems(done: &Pruned) -> String {
    let line = |problem: &String| printable(format!("error: pruning: {problem}"));
    done.problems
        .iter()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What is gone.
pub(super) fn summary(done: &Pruned) -> String {
    let mut text = String::new();
    for name in &done.removed {
        let _ = writeln!(text, "removed {}", printable(name.clone()));
    }
    let _ = writeln!(
        text,
        "{} removed ({}), {} kept",
        done.removed.len(),
        HumanBytes(done.freed),
        done.plan.decisions.len().saturating_sub(done.removed.len())
    );
    if done.versions_kept {
        text.push_str(
            "The bucket keeps earlier versions: what was removed is hidden there, and takes up room until \
             the bucket's own rules end it.\n",
        );
    }
    text
}

/// The plan: what goes, and with `--explain` what stays; each with its reasons.
pub(super) fn told(plan: &PrunePlan, args: &PruneArgs) -> String {
    let mut text = String::new();
    let shown = |decided: &&Decided| args.explain || decided.decision.verdict == Verdict::Remove;
    for decided in plan.decisions.iter().filter(shown) {
        let decision = &decided.decision;
        let verdict = match decision.verdict {
            Verdict::Keep => "keep  ",
            Verdict::Remove => "remove",
        };
        let reasons: Vec<String> = decision
            .reasons
            .iter()
            .map(|reason| format!("{} [{}]", reason.detail, reason.rule))
            .collect();
        let created = decided
            .created
            .map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string());
        let line = format!(
            "{verdict} {}  {}  {}",
            decision.name,
            created.unwrap_or_else(|| "-".to_owned()),
            reasons.join("; ")
        );
        let _ = writeln!(text, "{}", printable(line));
    }
    let gone = plan.removals().count();
    let freed = plan
        .removals()
        .fold(0u64, |sum, decided| sum.saturating_add(decided.size));
    let _ = writeln!(
        text,
        "{gone} to remove ({}), {} to keep",
        HumanBytes(freed),
        plan.decisions.len().saturating_sub(gone)
    );
    text
}

fn document(plan: &PrunePlan, done: Option<&Pruned>) -> Value {
    json!({
        "dryRun": done.is_none(),
        "decisions": plan.decisions,
        "removed": done.map(|done| done.removed.clone()).unwrap_or_default(),
        "freed": done.map_or(0, |done| done.freed),
        "problems": done.map(|done| done.problems.clone()).unwrap_or_default(),
        "versionsKept": done.is_some_and(|done| done.versions_kept),
    })
}
