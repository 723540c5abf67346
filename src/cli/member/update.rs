//! `member-update`: other peer URLs for a member.

use std::fmt::Write as _;

use serde_json::json;

use super::super::args::MemberUpdateArgs;
use super::super::output::confirm::confirm_if_possible;
use super::super::output::{json, members, words};
use super::super::session::{Session, Shown};
use super::super::{allow, target};
use crate::change::member::ALLOWABLE;
use crate::change::member::update::{self, UpdateRequest};
use crate::cluster::select;
use crate::error::Result;
use crate::sys::quote::printable;

/// `member-update`
pub(crate) fn run(session: &Session, args: &MemberUpdateArgs) -> Result<Shown> {
    let request = UpdateRequest {
        target: target::target(session)?,
        member: args.member.clone(),
        peer_urls: args.peer_urls.clone(),
        allow: allow::check(&args.allow, &ALLOWABLE)?,
    };
    session.block_on(async {
        let context = &session.context;
        let plan = update::plan(context, &request).await?;
        let plan = match args.ask.dry_run {
            true => plan,
            false => {
                let question = format!("Update member {}?", select::described(&plan.member));
                let idle = args.ask.yes || plan.unchanged;
                confirm_if_possible(&update_text(&plan, true), &printable(question), idle)?;
                update::carry_out(context, &request, plan).await?
            }
        };
        let text = update_text(&plan, args.ask.dry_run);
        let document = json!({"dryRun": args.ask.dry_run, "plan": plan});
        let json = json::document("member-update", &document);
        Ok(Shown::done(text, json))
    })
}

fn update_text(plan: &update::Plan, planned: bool) -> String {
    let word = match (plan.unchanged, planned) {
        (true, _) => "already has them",
        (false, true) => "would be updated",
        (false, false) => "moved",
    };
    let mut text = if planned {
        members::table(&plan.members)
    } else {
        String::new()
    };
    let _ = writeln!(
        text,
        "{} {word}: {}",
        select::described(&plan.member),
        plan.peer_urls.join(",")
    );
    for url in &plan.silent {
        let _ = writeln!(text, "  nothing listens at {url} yet");
    }
    members::votes(&mut text, &plan.votes.before, &plan.votes.after);
    words::clean(&text)
}
