//! `disable`: stops etcd's static pod of this node.

use serde_json::{Value, json};

use super::args::DisableArgs;
use super::output::confirm::confirm_if_possible;
use super::output::{json, members};
use super::session::{Session, Shown};
use super::target;
use crate::change::disable;
use crate::change::transaction::commit::settle_disablings;
use crate::change::transaction::lock::Locked;
use crate::change::transaction::runner::Transaction;
use crate::change::transaction::steps::NodeStep;
use crate::change::transaction::unsettled::{disabling, undone_by_others};
use crate::cluster::connect::Target;
use crate::cluster::quorum::{Against, Change, WOULD_LOSE_QUORUM};
use crate::error::{Kind, Result};
use crate::journal::{State, Step};
use crate::node::layout::NodeLayout;
use crate::sys::quote::printable;

/// Stops etcd's pod and keeps it stopped.
pub(super) fn run(session: &Session, args: &DisableArgs) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    let context = &session.context;
    let locked = Locked::take(context, &layout, "disable")?;
    if let Some(found) = disabling(&layout)? {
        let in_force =
            matches!(&found.progress, Ok(progress) if progress.state == State::Completed);
        if in_force && !undone_by_others(&layout, &found)? {
            return Ok(shown(&found.id, "etcd is disabled already\n"));
        }
    }
    let target = target::target(session)?;
    let planned = session.block_on(disable::plan(context, &target, args.wait))?;
    let plan = Plan::of(session, &target, &planned.steps)?;
    if args.ask.dry_run {
        let mut json = json!({"dryRun": true, "about": planned.info});
        plan.votes_into(&mut json);
        return Ok(Shown::done(plan.text(), json::document("disable", &json)));
    }
    confirm_if_possible(&plan.text(), &plan.question(), args.ask.yes)?;
    plan.warn(session);
    let version = env!("CARGO_PKG_VERSION");
    let mut disable = Transaction::begin(context, &layout, locked, &planned, version)?;
    session.log().open(disable.dir());
    let done = session.block_on_uninterruptible(disable.run(false))?;
    settle_disablings(context, &layout)?;
    let text = "etcd is disabled on this node: its manifest is kept, and none of its containers run\nto start it again: etcd-dr enable\n";
    Ok(shown(&done.id, text))
}

/// What disabling does to the node, and to the cluster.
struct Plan {
    steps: String,
    /// The votes, or why they are not known.
    votes: std::result::Result<(Change, Option<Against>), String>,
}

impl Plan {
    fn of(session: &Session, target: &Target, steps: &[NodeStep]) -> Result<Self> {
        let mut text = String::new();
        for (number, step) in steps.iter().enumerate() {
            text.push_str(&format!("  {:>2}. {}\n", number + 1, step.describe()));
        }
        let votes = match session.block_on(disable::votes(&session.context, target)) {
            Ok(votes) => Ok(votes),
            Err(failure) if failure.kind() == Kind::Interrupted => return Err(failure),
            Err(failure) => Err(printable(failure.to_string())),
        };
        Ok(Self { steps: text, votes })
    }

    /// Whether it is this that takes the quorum away.
    fn costs_the_quorum(&self) -> bool {
        matches!(&self.votes, Ok((_, Some(against))) if *against != Against::NoQuorum)
    }

    fn text(&self) -> String {
        let votes = match &self.votes {
            Ok((change, _)) => format!(
                "  now:   {}\n  after: {}\n",
                members::tally(&change.before),
                members::tally(&change.after)
            ),
            Err(why) => format!("  its effect on quorum is not known: {why}\n"),
        };
        format!("{}{votes}", self.steps)
    }

    fn question(&self) -> String {
        let lost = "The cluster loses quorum, and serves nothing until etcd runs again.";
        match self.costs_the_quorum() {
            true => format!("{lost}\nStop etcd on this node?"),
            false => "Stop etcd on this node?".to_owned(),
        }
    }

    /// If no terminal was there to ask on, a warning says so.
    fn warn(&self, session: &Session) {
        if self.costs_the_quorum() {
            let what = "the cluster loses quorum, and serves nothing until etcd runs again";
            session.context.warn(WOULD_LOSE_QUORUM, what);
        }
    }

    fn votes_into(&self, json: &mut Value) {
        if let Ok((change, _)) = &self.votes {
            json["votes"] = json!(change);
        }
    }
}

fn shown(id: &str, text: &str) -> Shown {
    let document = json!({"id": id, "disabled": true});
    Shown::done(text.to_owned(), json::document("disable", &document))
}
