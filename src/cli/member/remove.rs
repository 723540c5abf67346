//! `member-remove`, as far as the quorum allows.

use std::fmt::Write as _;

use serde_json::json;

use super::super::args::MemberRemoveArgs;
use super::super::output::confirm::confirm;
use super::super::output::{json, members, words};
use super::super::session::{Session, Shown};
use super::super::{allow, target};
use crate::change::member::ALLOWABLE;
use crate::change::member::openshift::NextStep;
use crate::change::member::remove::{self, RemoveRequest};
use crate::cluster::select;
use crate::error::Result;
use crate::sys::quote::printable;

/// `member-remove`
pub(crate) fn run(session: &Session, args: &MemberRemoveArgs) -> Result<Shown> {
    let request = RemoveRequest {
        target: target::target(session)?,
        member: args.member.clone(),
        wait: args.wait,
        allow: allow::check(&args.allow, &ALLOWABLE)?,
    };
    let context = &session.context;
    let plan = session.block_on(remove::plan(context, &request))?;
    if args.dry_run {
        return Ok(Shown::done(
            planned_removal(&plan),
            json::document("member-remove", &json!({"dryRun": true, "plan": plan})),
        ));
    }
    let question = format!("Remove member {}?", select::described(&plan.member));
    confirm(&planned_removal(&plan), &printable(question), args.yes)?;
    let outcome = session.block_on(remove::carry_out(context, &request, plan))?;
    let mut text = format!("removed {}\n", select::described(&outcome.member));
    if let Some(leader) = &outcome.next_leader {
        let _ = writeln!(text, "  leadership was moved to {leader} first");
    }
    let _ = writeln!(
        text,
        "  no longer listed by {}",
        outcome.gone_from.join(", ")
    );
    members::votes(&mut text, &outcome.before, &outcome.after);
    steps(&mut text, &outcome.next_steps);
    Ok(Shown::done(
        words::clean(&text),
        json::document("member-remove", &outcome),
    ))
}

fn planned_removal(plan: &remove::Plan) -> String {
    let mut text = members::table(&plan.members);
    let _ = writeln!(text, "{} would be removed", select::described(&plan.member));
    if let Some(leader) = &plan.next_leader {
        let _ = writeln!(
            text,
            "  it is the leader; leadership would be moved to {leader} first"
        );
    }
    members::votes(&mut text, &plan.votes.before, &plan.votes.after);
    steps(&mut text, &plan.next_steps);
    words::clean(&text)
}

fn steps(text: &mut String, steps: &[NextStep]) {
    if !steps.is_empty() {
        let _ = writeln!(text, "remaining steps:");
    }
    for step in steps {
        let _ = writeln!(text, "  # {}\n  {}", step.what, step.command);
    }
}
