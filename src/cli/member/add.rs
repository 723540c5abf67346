//! `member-add`: a learner first, promoted once it has caught up.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::json;

use super::super::args::{MemberAddArgs, OutputArg, PrintArg};
use super::super::output::confirm::confirm_if_possible;
use super::super::output::{json, members, words};
use super::super::session::{Session, Shown};
use super::super::{allow, target};
use super::join;
use crate::change::member::ALLOWABLE;
use crate::change::member::add::{self, Action, AddRequest, AddResult};
use crate::change::member::start::StartWith;
use crate::error::{Doing, Kind, Result};
use crate::event::Event;
use crate::sys::quote::printable;

/// `member-add`
pub(crate) fn run(session: &Session, args: &MemberAddArgs) -> Result<Shown> {
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
        allow: allow::check(&args.allow, &ALLOWABLE)?,
    };
    session.block_on(async {
        let context = &session.context;
        let plan = add::plan(context, &request).await?;
        if args.dry_run {
            return Ok(Shown::done(
                planned_addition(&plan),
                json::document("member-add", &json!({"dryRun": true, "plan": plan})),
            ));
        }
        let idle = matches!(plan.action, Action::Nothing(_));
        // As text, the result has the settings itself.
        let in_result = !request.promote && session.global.output == OutputArg::Text;
        let question = format!("Add member {}?", request.name);
        let planned = planned_addition(&plan);
        confirm_if_possible(&planned, &printable(question), args.yes || idle)?;
        let added = add::begin(context, &request, plan).await?;
        match args.print {
            // Before the wait: it is for the start of the member that is waited for.
            Some(form) if session.global.output == OutputArg::Text => {
                print_now(&printed(&added.start, form))?;
            }
            _ if !idle && !in_result => context.tell(Event::MustStart {
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
        let json = json::document("member-add", &document);
        Ok(match args.print {
            None => Shown::done(text, json),
            Some(_) => Shown {
                remark: Some(text.trim_end().to_owned()),
                ..Shown::done(String::new(), json)
            },
        })
    })
}

fn printed(start: &StartWith, form: PrintArg) -> String {
    match form {
        PrintArg::Env => start.env(),
        PrintArg::Flags => start.flags(),
        PrintArg::Pod => start.pod(),
    }
}

fn print_now(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(words::clean(text).as_bytes())
        .and_then(|()| out.flush())
        .doing(Kind::Unexpected, || "writing the new member's settings")
}

fn planned_addition(plan: &add::Plan) -> String {
    let mut text = members::table(&plan.members);
    let (name, urls) = (&plan.name, plan.peer_urls.join(","));
    let _ = match plan.action {
        Action::AddLearner => writeln!(
            text,
            "{name} would be added at {urls} as a learner, and promoted once it has caught up"
        ),
        Action::AddVoter => writeln!(text, "{name} would be added at {urls} as a voting member"),
        Action::GoOn(id) => writeln!(
            text,
            "{name} was already added at {urls} ({id}), and this run would wait for it"
        ),
        Action::Nothing(id) => writeln!(text, "{name} ({id}) is already a voting member"),
    };
    let _ = writeln!(
        text,
        "  now:        {}",
        members::tally(&plan.when_added.before)
    );
    let _ = writeln!(
        text,
        "  when added: {}",
        members::tally(&plan.when_added.after)
    );
    let _ = writeln!(text, "  in the end: {}", members::tally(&plan.when_done));
    words::clean(&text)
}

fn addition(outcome: &add::Outcome) -> String {
    let what = match outcome.result {
        AddResult::Promoted => "has caught up and was promoted",
        AddResult::Votes => "votes",
        AddResult::Learner => "is a learner",
        AddResult::VoterNotStarted => "was added as a voting member",
    };
    let mut text = format!("{} ({}) {what}\n", outcome.name, outcome.id);
    members::votes(&mut text, &outcome.before, &outcome.after);
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
                "then, to promote it: etcd-dr member-add {} --peer-urls {}",
                outcome.name,
                outcome.peer_urls.join(",")
            );
        }
    }
    words::clean(&text)
}
