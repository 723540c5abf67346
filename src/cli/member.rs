//! `member-add`, `member-remove`, `member-update`: arguments to requests, results to text and
//! JSON.

mod join;

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::json;

use super::args::{MemberAddArgs, MemberRemoveArgs, MemberUpdateArgs, OutputArg, PrintArg};
use super::confirm::{confirm, confirm_if_possible};
use super::human::Table;
use super::run::{Session, Shown};
use super::{config, machine, target};
use crate::change::member::add::{Action, AddRequest, AddResult};
use crate::change::member::openshift::NextStep;
use crate::change::member::remove::RemoveRequest;
use crate::change::member::start::StartWith;
use crate::change::member::update::UpdateRequest;
use crate::change::member::{ALLOWABLE, add, remove, update};
use crate::cluster::quorum::Tally;
use crate::cluster::select;
use crate::cluster::survey::MemberState;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::finding::printable;
use crate::event::Event;

/// What names of operations of `member-add --join` begin with.
pub(super) const JOIN: &str = crate::change::member::join::KIND;

/// `member-add`
pub(super) fn add(session: &Session, args: &MemberAddArgs) -> Result<Shown> {
    if args.join {
        return join::run(session, args);
    }
    let request = AddRequest {
        target: target::target(session)?,
        name: args.name.clone().unwrap_or_default(),
        peer_urls: args.peer_urls.clone(),
        learner: !args.no_learner,
        promote: !args.no_promote,
        wait: args.wait,
        allow: allowed(&args.allow)?,
    };
    session.block_on(async {
        let context = &session.context;
        let plan = add::plan(context, &request).await?;
        if args.dry_run {
            return Ok(Shown::done(
                planned_addition(&plan),
                machine::document("member-add", &json!({"dryRun": true, "plan": plan})),
            ));
        }
        let idle = matches!(plan.action, Action::Nothing(_));
        let waits = request.promote && !idle;
        let question = format!("Add member {}?", request.name);
        let planned = planned_addition(&plan);
        confirm_if_possible(&planned, &printable(question), args.yes || idle)?;
        let added = add::begin(context, &request, plan).await?;
        match args.print {
            // Before the wait: it is for the start of the member that is waited for.
            Some(form) if session.global.output == OutputArg::Text => {
                print_now(&printed(&added.start, form))?;
            }
            _ if waits => context.tell(Event::MustStart {
                member: request.name.clone(),
                settings: added.start.env().lines().map(str::to_owned).collect(),
            }),
            _ => {}
        }
        let outcome = add::finish(context, &request, added).await?;
        let mut document = json!(outcome);
        if let (Some(form), Some(object)) = (args.print, document.as_object_mut()) {
            object.insert("printed".to_owned(), printed(&outcome.start, form).into());
        }
        let text = addition(&outcome);
        let json = machine::document("member-add", &document);
        Ok(match args.print {
            None => Shown::done(text, json),
            Some(_) => Shown {
                remark: Some(text.trim_end().to_owned()),
                ..Shown::done(String::new(), json)
            },
        })
    })
}

/// `member-remove`
pub(super) fn remove(session: &Session, args: &MemberRemoveArgs) -> Result<Shown> {
    let request = RemoveRequest {
        target: target::target(session)?,
        member: args.member.clone(),
        wait: args.wait,
        allow: allowed(&args.allow)?,
    };
    let context = &session.context;
    let plan = session.block_on(remove::plan(context, &request))?;
    if args.dry_run {
        return Ok(Shown::done(
            planned_removal(&plan),
            machine::document("member-remove", &json!({"dryRun": true, "plan": plan})),
        ));
    }
    let question = format!("Remove member {}?", select::described(&plan.member));
    confirm(&planned_removal(&plan), &printable(question), args.yes)?;
    let outcome = session.block_on(remove::carry_out(context, &request, plan))?;
    let mut text = format!("removed {}\n", select::described(&outcome.member));
    if let Some(leader) = &outcome.next_leader {
        let _ = writeln!(text, "  leadership went to {leader} first");
    }
    let _ = writeln!(
        text,
        "  gone from the list of {}",
        outcome.gone_from.join(", ")
    );
    votes(&mut text, &outcome.before, &outcome.after);
    steps(&mut text, &outcome.next_steps);
    Ok(Shown::done(
        clean(&text),
        machine::document("member-remove", &outcome),
    ))
}

/// `member-update`
pub(super) fn update(session: &Session, args: &MemberUpdateArgs) -> Result<Shown> {
    let request = UpdateRequest {
        target: target::target(session)?,
        member: args.member.clone(),
        peer_urls: args.peer_urls.clone(),
        allow: allowed(&args.allow)?,
    };
    session.block_on(async {
        let context = &session.context;
        let plan = update::plan(context, &request).await?;
        let plan = match args.dry_run {
            true => plan,
            false => {
                let question = format!("Move member {}?", select::described(&plan.member));
                let idle = args.yes || plan.unchanged;
                confirm_if_possible(&update_text(&plan, true), &printable(question), idle)?;
                update::carry_out(context, &request, plan).await?
            }
        };
        let text = update_text(&plan, args.dry_run);
        let document = json!({"dryRun": args.dry_run, "plan": plan});
        let json = machine::document("member-update", &document);
        Ok(Shown::done(text, json))
    })
}

fn update_text(plan: &update::Plan, planned: bool) -> String {
    let word = match (plan.unchanged, planned) {
        (true, _) => "has them already",
        (false, true) => "would be moved",
        (false, false) => "moved",
    };
    let mut text = if planned {
        members(&plan.members)
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
        let _ = writeln!(text, "  nobody listens at {url} yet");
    }
    votes(&mut text, &plan.votes.before, &plan.votes.after);
    clean(&text)
}

/// The names that may be let pass.
fn allowed(names: &[String]) -> Result<Vec<String>> {
    allowed_of(names, &ALLOWABLE)
}

/// The same, of these.
fn allowed_of(names: &[String], allowable: &[&str]) -> Result<Vec<String>> {
    for name in names {
        if !allowable.contains(&name.as_str()) {
            let known = match config::nearest(name, allowable) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("those are {}", allowable.join(", ")),
            };
            let what = format!("there is no refusal {name:?} to be let pass; {known}");
            return Err(Failure::new(Kind::Usage, what));
        }
    }
    Ok(names.to_vec())
}

fn printed(start: &StartWith, form: PrintArg) -> String {
    match form {
        PrintArg::Env => start.env(),
        PrintArg::Flags => start.flags(),
        PrintArg::Pod => start.pod(),
    }
}

/// What names and URLs hold goes to a terminal: no control characters but the lines' ends.
pub(super) fn clean(text: &str) -> String {
    text.lines()
        .map(|line| printable(line.to_owned()) + "\n")
        .collect()
}

fn print_now(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(clean(text).as_bytes())
        .and_then(|()| out.flush())
        .doing(Kind::Unexpected, || "writing what the member starts with")
}

pub(super) fn members(states: &[MemberState]) -> String {
    let mut table = Table::new(&["MEMBER", "ID", "PEER URLS", "VOTES", "STATE"]);
    for state in states {
        let member = &state.member;
        let leads = state
            .status
            .as_ref()
            .is_some_and(|status| status.is_leader());
        let standing = match &state.trouble {
            None if leads => "leads".to_owned(),
            None => "healthy".to_owned(),
            Some(_) if !state.has_started() => "not started".to_owned(),
            Some(why) => why.clone(),
        };
        table.row(vec![
            if state.has_started() {
                member.name.clone()
            } else {
                "-".to_owned()
            },
            member.id.to_string(),
            member.peer_urls.join(","),
            if member.is_learner { "no" } else { "yes" }.to_owned(),
            standing,
        ]);
    }
    table.render(super::human::terminal_width())
}

fn votes(text: &mut String, before: &Tally, after: &Tally) {
    let _ = writeln!(text, "  before: {}", tally(before));
    let _ = writeln!(text, "  after:  {}", tally(after));
}

pub(super) fn tally(tally: &Tally) -> String {
    let tolerance = match tally.tolerance {
        None => "the quorum is LOST".to_owned(),
        Some(0) => "none more may fail".to_owned(),
        Some(1) => "1 more may fail".to_owned(),
        Some(more) => format!("{more} more may fail"),
    };
    let learners = match tally.learners {
        0 => String::new(),
        1 => ", 1 learner".to_owned(),
        more => format!(", {more} learners"),
    };
    format!(
        "{} of {} voting members healthy, quorum {}, {tolerance}{learners}",
        tally.healthy, tally.voters, tally.quorum
    )
}

fn steps(text: &mut String, steps: &[NextStep]) {
    if !steps.is_empty() {
        let _ = writeln!(text, "what remains to be done:");
    }
    for step in steps {
        let _ = writeln!(text, "  # {}\n  {}", step.what, step.command);
    }
}

fn planned_addition(plan: &add::Plan) -> String {
    let mut text = members(&plan.members);
    let (name, urls) = (&plan.name, plan.peer_urls.join(","));
    let _ = match plan.action {
        Action::AddLearner => writeln!(
            text,
            "{name} would be added at {urls} as a learner, and promoted once it has caught up"
        ),
        Action::AddVoter => writeln!(text, "{name} would be added at {urls} with a vote"),
        Action::GoOn(id) => writeln!(
            text,
            "{name} was added at {urls} before ({id}), and would be waited for"
        ),
        Action::Nothing(id) => writeln!(text, "{name} ({id}) votes already"),
    };
    let _ = writeln!(text, "  now:        {}", tally(&plan.when_added.before));
    let _ = writeln!(text, "  when added: {}", tally(&plan.when_added.after));
    let _ = writeln!(text, "  in the end: {}", tally(&plan.when_done));
    clean(&text)
}

fn addition(outcome: &add::Outcome) -> String {
    let what = match outcome.result {
        AddResult::Promoted => "has caught up and votes",
        AddResult::Votes => "votes",
        AddResult::Learner => "is a learner",
        AddResult::VoterNotStarted => "was added with a vote",
    };
    let mut text = format!("{} ({}) {what}\n", outcome.name, outcome.id);
    votes(&mut text, &outcome.before, &outcome.after);
    if matches!(
        outcome.result,
        AddResult::Learner | AddResult::VoterNotStarted
    ) {
        let _ = writeln!(text, "start it with an empty data directory and");
        for line in outcome.start.env().lines() {
            let _ = writeln!(text, "  {line}");
        }
        if outcome.result == AddResult::Learner {
            let _ = writeln!(
                text,
                "then, for its vote: etcd-dr member-add {} --peer-urls {}",
                outcome.name,
                outcome.peer_urls.join(",")
            );
        }
    }
    clean(&text)
}

fn planned_removal(plan: &remove::Plan) -> String {
    let mut text = members(&plan.members);
    let _ = writeln!(text, "{} would be removed", select::described(&plan.member));
    if let Some(leader) = &plan.next_leader {
        let _ = writeln!(text, "  it leads; leadership would go to {leader} first");
    }
    votes(&mut text, &plan.votes.before, &plan.votes.after);
    steps(&mut text, &plan.next_steps);
    clean(&text)
}
