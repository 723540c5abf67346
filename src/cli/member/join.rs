//! `member-add --join` on this node: the plan, the question, the run and its result.

use std::fmt::Write as _;

use serde_json::json;

use super::super::args::MemberAddArgs;
use super::super::operation::{self, Words, named};
use super::super::output::confirm::confirm;
use super::super::output::words::{clean, places};
use super::super::output::{json, members};
use super::super::session::{Session, Shown};
use super::super::{allow, target};
use crate::change::member::ALLOWABLE;
use crate::change::member::join::info::JoinInfo;
use crate::change::member::join::journalled::{Join, Joined};
use crate::change::member::join::plan::{self as joining, JoinPlan, Request, how_it_starts};
use crate::change::transaction::rollback::Returned;
use crate::change::transaction::runner::{self, Done, Transaction};
use crate::change::transaction::unsettled::{JOIN, current};
use crate::error::Result;
use crate::journal::{State, Step};
use crate::node::layout::NodeLayout;

/// The schema's name of the results, as of the command.
const DOCUMENT: &str = "member-add";

/// Does what the flags ask for.
pub(super) fn run(session: &Session, args: &MemberAddArgs) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    if let Some(id) = &args.status {
        let found = current(&layout, JOIN, named(id))?;
        let words = Words {
            document: DOCUMENT,
            facts: Vec::new(),
            when_completed: format!(
                "to delete what was kept: etcd-dr member-add --join --commit {}",
                found.id
            ),
        };
        return operation::standing(session, &found.dir, &found.progress?, &words);
    }
    if args.resume {
        let mut join = open(session, None, "--resume")?;
        session.block_on(join.resume())?;
        return carry_out(session, join);
    }
    if let Some(id) = &args.rollback {
        return roll_back(session, args, named(id));
    }
    if let Some(id) = &args.commit {
        return commit(session, args, named(id));
    }
    let request = request(session, args)?;
    let context = &session.context;
    if args.dry_run {
        let plan = session.block_on(joining::plan(context, &request))?;
        let steps: Vec<_> = plan
            .plan
            .steps
            .iter()
            .map(|step| json!({"name": step.name(), "about": step.describe(), "step": step}))
            .collect();
        let json = json!({
            "dryRun": true,
            "about": plan.plan.info,
            "plan": plan.addition,
            "steps": steps,
        });
        let text = planned(&plan);
        return Ok(Shown::done(text, json::document(DOCUMENT, &json)));
    }
    let locked = runner::lock::<Join>(context, &layout)?;
    let plan = session.block_on(joining::plan(context, &request))?;
    let question = format!("Join the cluster as {}?", plan.plan.info.etcd.member);
    confirm(&planned(&plan), &question, args.yes)?;
    let version = env!("CARGO_PKG_VERSION");
    let join = Transaction::begin(context, &layout, locked, &plan.plan, version)?;
    carry_out(session, join)
}

fn request(session: &Session, args: &MemberAddArgs) -> Result<Request> {
    let allowable = [ALLOWABLE.as_slice(), &joining::ALLOWABLE].concat();
    Ok(Request {
        target: target::target(session)?,
        name: args.name.clone(),
        wait: args.wait,
        allow: allow::check(&args.allow, &allowable)?,
    })
}

fn open(session: &Session, id: Option<&str>, flag: &str) -> Result<Transaction<Join>> {
    let layout = NodeLayout::new(&session.root);
    Transaction::open(&session.context, &layout, id, flag)
}

fn carry_out(session: &Session, mut join: Transaction<Join>) -> Result<Shown> {
    session.log().open(join.dir());
    let done = session.block_on_uninterruptible(join.run(false))?;
    let found = Joined::of(&done.known);
    let json = json!({
        "id": done.id,
        "state": State::Completed.word(),
        "about": done.info,
        "memberId": found.member_id,
        "etcdVersion": found.etcd_version,
        "hashRevision": found.hash_revision,
    });
    Ok(Shown::done(
        joined(&done, &found),
        json::document(DOCUMENT, &json),
    ))
}

fn roll_back(session: &Session, args: &MemberAddArgs, id: Option<&str>) -> Result<Shown> {
    let mut join = open(session, id, "--rollback")?;
    let progress = join.progress();
    if progress.state == State::Completed {
        let question = format!("Restore the data from before {}?", progress.begin.id);
        confirm("", &question, args.yes)?;
    }
    session.log().open(join.dir());
    let done = session.block_on_uninterruptible(join.rollback())?;
    let returned = Returned::of(&done.known).sentence();
    let mut text = format!("rolled back {}: {returned}\n", done.id);
    if done.known.completed {
        let _ = writeln!(
            text,
            "the member's data is kept in {}; delete it with: etcd-dr member-add --join --commit",
            places(&done.info.safety)
        );
    }
    let json = json!({"id": done.id, "state": State::RolledBack.word(), "about": done.info});
    Ok(Shown::done(text, json::document(DOCUMENT, &json)))
}

fn commit(session: &Session, args: &MemberAddArgs, id: Option<&str>) -> Result<Shown> {
    let mut join = open(session, id, "--commit")?;
    let progress = join.progress();
    let (id, state) = (progress.begin.id.clone(), State::Committed.word());
    if progress.state == State::Committed {
        let json = json::document(DOCUMENT, &json!({"id": id, "state": state}));
        return Ok(Shown::done(format!("{id} is committed already\n"), json));
    }
    let question = format!("Delete what {id} kept, the data from before it?");
    confirm("", &question, args.yes)?;
    let removed = join.commit()?;
    let mut text = format!("committed {id}\n");
    for path in &removed {
        let _ = writeln!(text, "  removed {}", path.display());
    }
    let json = json!({"id": id, "state": state, "removed": removed});
    Ok(Shown::done(text, json::document(DOCUMENT, &json)))
}

/// The plan: who, where, how, and each step.
fn planned(plan: &JoinPlan) -> String {
    let (info, addition) = (&plan.plan.info, &plan.addition);
    let mut text = members::table(&addition.members);
    let _ = writeln!(
        text,
        "{} would join cluster {} at {}; {}",
        info.etcd.member,
        info.cluster.id,
        info.etcd.peer_urls.join(","),
        how_it_starts(info)
    );
    members::votes(&mut text, &addition.when_added.before, &addition.when_done);
    let _ = writeln!(text, "  waits:  at most {} s each", info.wait_seconds);
    let _ = writeln!(text, "  keeps:  {}", places(&info.safety));
    text.push_str("Steps; each is written to the journal before and after it is done:\n");
    for (number, step) in plan.plan.steps.iter().enumerate() {
        let _ = writeln!(text, "  {:>2}. {}", number + 1, step.describe());
    }
    clean(&text)
}

/// What is true at the end.
fn joined(done: &Done<JoinInfo>, found: &Joined) -> String {
    let info = &done.info;
    let mut text = format!(
        "{} ({}) has joined cluster {} and votes\n",
        info.etcd.member,
        found.member_id.as_deref().unwrap_or("-"),
        info.cluster.id
    );
    if let Some(version) = &found.etcd_version {
        let _ = writeln!(text, "  etcd    {version} at {}", info.etcd.endpoint);
    }
    if let Some(revision) = found.hash_revision {
        let _ = writeln!(
            text,
            "  data    same as another member's at revision {revision}, by HashKV"
        );
    }
    let _ = writeln!(
        text,
        "  kept    the previous data, in {}; delete it with: etcd-dr member-add --join --commit",
        places(&info.safety)
    );
    clean(&text)
}
