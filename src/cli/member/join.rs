//! `member-add --join` on this node: the plan, the question, the run, and what came of it.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::json;

use super::super::args::MemberAddArgs;
use super::super::operation::{self, Words, named};
use super::super::output::confirm::confirm;
use super::super::output::words::{clean, places};
use super::super::output::{json, members};
use super::super::session::{Session, Shown};
use super::super::{allow, target};
use crate::change::member::ALLOWABLE;
use crate::change::member::join::{self, Done, Draft, JoinStep, KIND, Request};
use crate::change::restore;
use crate::error::Result;
use crate::node::layout::NodeLayout;
use crate::plan::{Operation, State, Step, registry};

/// The schema's name of the results, as of the command.
const DOCUMENT: &str = "member-add";

/// Does what the flags ask for.
pub(super) fn run(session: &Session, args: &MemberAddArgs) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    if let Some(id) = &args.status {
        let found = operation::current(&layout, KIND, named(id))?;
        let words = Words {
            document: DOCUMENT,
            facts: Vec::new(),
            when_completed: format!(
                "to delete what was kept: etcd-dr member-add --join --commit {}",
                found.id
            ),
        };
        return operation::standing::<JoinStep>(session, &found.dir, &found.progress?, &words);
    }
    if args.resume {
        return resume(session, &layout);
    }
    if let Some(id) = &args.rollback {
        return roll_back(session, args, &layout, named(id));
    }
    if let Some(id) = &args.commit {
        return commit(session, args, &layout, named(id));
    }
    let request = request(session, args)?;
    let context = &session.context;
    if args.dry_run {
        let draft = session.block_on(join::draft(context, &request))?;
        let steps: Vec<_> = draft
            .steps
            .iter()
            .map(|step| json!({"name": step.name(), "about": step.describe(), "step": step}))
            .collect();
        let json = json!({
            "dryRun": true,
            "about": draft.about,
            "plan": draft.addition,
            "steps": steps,
        });
        let text = planned(&draft);
        return Ok(Shown::done(text, json::document(DOCUMENT, &json)));
    }
    registry::refuse_while_unfinished(&layout.state())?;
    let _locked = restore::lock(&session.context, &layout, "member-add --join")?;
    let draft = session.block_on(join::draft(context, &request))?;
    let question = format!("Join the cluster as {}?", draft.about.etcd.member);
    confirm(&planned(&draft), &question, args.yes)?;
    let version = env!("CARGO_PKG_VERSION");
    let log = session.log();
    let mut operation = join::begin(context, &layout, draft, version, Timestamp::now)?;
    log.open(operation.dir());
    go_on(session, &layout, &mut operation)
}

fn request(session: &Session, args: &MemberAddArgs) -> Result<Request> {
    let allowable = [ALLOWABLE.as_slice(), &join::ALLOWABLE].concat();
    Ok(Request {
        target: target::target(session)?,
        name: args.name.clone(),
        wait: args.wait,
        allow: allow::check(&args.allow, &allowable)?,
    })
}

fn resume(session: &Session, layout: &NodeLayout) -> Result<Shown> {
    let _locked = restore::lock(&session.context, layout, "member-add --join --resume")?;
    let log = session.log();
    let mut operation = operation::open::<JoinStep>(session, layout, KIND, None)?;
    operation::can_go_on(&operation)?;
    log.open(operation.dir());
    operation.resumed()?;
    go_on(session, layout, &mut operation)
}

fn go_on(
    session: &Session,
    layout: &NodeLayout,
    operation: &mut Operation<JoinStep>,
) -> Result<Shown> {
    let context = &session.context;
    let done = session.block_on_to_the_end(join::go_on(context, layout, operation))?;
    let json = json!({
        "id": done.id,
        "state": State::Completed.word(),
        "about": done.about,
        "memberId": done.member_id,
        "etcdVersion": done.etcd_version,
        "hashRevision": done.hash_revision,
    });
    Ok(Shown::done(joined(&done), json::document(DOCUMENT, &json)))
}

fn roll_back(
    session: &Session,
    args: &MemberAddArgs,
    layout: &NodeLayout,
    id: Option<&str>,
) -> Result<Shown> {
    let _locked = restore::lock(&session.context, layout, "member-add --join --rollback")?;
    let log = session.log();
    let mut operation = operation::open::<JoinStep>(session, layout, KIND, id)?;
    let progress = operation.progress();
    if progress.state == State::Completed {
        let question = format!("Restore the data from before {}?", progress.begin.id);
        confirm("", &question, args.yes)?;
    }
    log.open(operation.dir());
    let context = &session.context;
    let done = session.block_on_to_the_end(join::take_back(context, layout, &mut operation))?;
    let mut text = format!("rolled back {}: the node is as before\n", done.id);
    if operation.progress().known.completed {
        let _ = writeln!(
            text,
            "the member's data is kept in {}; delete it with: etcd-dr member-add --join --commit",
            places(&done.about.safety)
        );
    }
    let json = json!({"id": done.id, "state": State::RolledBack.word(), "about": done.about});
    Ok(Shown::done(text, json::document(DOCUMENT, &json)))
}

fn commit(
    session: &Session,
    args: &MemberAddArgs,
    layout: &NodeLayout,
    id: Option<&str>,
) -> Result<Shown> {
    let _locked = restore::lock(&session.context, layout, "member-add --join --commit")?;
    let mut operation = operation::open::<JoinStep>(session, layout, KIND, id)?;
    let id = operation.progress().begin.id.clone();
    let state = State::Committed.word();
    if operation.progress().state == State::Committed {
        let json = json::document(DOCUMENT, &json!({"id": id, "state": state}));
        return Ok(Shown::done(format!("{id} is committed already\n"), json));
    }
    let question = format!("Delete what {id} kept, the data from before it?");
    confirm("", &question, args.yes)?;
    let removed = join::commit(&session.context, layout, &mut operation)?;
    let mut text = format!("committed {id}\n");
    for path in &removed {
        let _ = writeln!(text, "  removed {}", path.display());
    }
    let json = json!({"id": id, "state": state, "removed": removed});
    Ok(Shown::done(text, json::document(DOCUMENT, &json)))
}

/// The plan: who, where, how, and each step.
fn planned(draft: &Draft) -> String {
    let (about, addition) = (&draft.about, &draft.addition);
    let mut text = members::table(&addition.members);
    let _ = writeln!(
        text,
        "{} would join cluster {} at {}; {}",
        about.etcd.member,
        about.cluster.id,
        about.etcd.peer_urls.join(","),
        join::how_it_starts(about)
    );
    members::votes(&mut text, &addition.when_added.before, &addition.when_done);
    let _ = writeln!(text, "  waits:  at most {} s each", about.wait_seconds);
    let _ = writeln!(text, "  keeps:  {}", places(&about.safety));
    text.push_str("Steps; each is written to the journal before and after it is done:\n");
    for (number, step) in draft.steps.iter().enumerate() {
        let _ = writeln!(text, "  {:>2}. {}", number + 1, step.describe());
    }
    clean(&text)
}

/// What is true at the end.
fn joined(done: &Done) -> String {
    let about = &done.about;
    let mut text = format!(
        "{} ({}) has joined cluster {} and votes\n",
        about.etcd.member,
        done.member_id.as_deref().unwrap_or("-"),
        about.cluster.id
    );
    if let Some(version) = &done.etcd_version {
        let _ = writeln!(text, "  etcd    {version} at {}", about.etcd.endpoint);
    }
    if let Some(revision) = done.hash_revision {
        let _ = writeln!(
            text,
            "  data    same as another member's at revision {revision}, by HashKV"
        );
    }
    let _ = writeln!(
        text,
        "  kept    the previous data, in {}; delete it with: etcd-dr member-add --join --commit",
        places(&about.safety)
    );
    clean(&text)
}
