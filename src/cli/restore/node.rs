//! `restore SET` on this node: the plan, the question, the run and its result.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::args::{DetachArg, OWN_WAL, RestoreArgs, ScopeArg};
use super::super::output::confirm::{confirm, is_terminal};
use super::super::output::words::{numbered, places};
use super::super::output::{error, error_json, json, terminal};
use super::super::session::{Session, Shown, scratch};
use super::super::{allow, operation, target};
use super::request::{self as asked, Named, find, random};
use super::{follow, loss, next, text};
use crate::change::restore::journalled::Restore;
use crate::change::restore::plan::RestorePlan;
use crate::change::restore::refusals::ALLOWABLE;
use crate::change::restore::request::{NodeOptions, Request};
use crate::change::restore::{from_backup, from_member};
use crate::change::transaction::info::Scope;
use crate::change::transaction::rollback::Returned;
use crate::change::transaction::runner::{self, Transaction};
use crate::error::Result;
use crate::etcd::restore::{Bump, SLACK};
use crate::journal::State;
use crate::node::layout::NodeLayout;

/// The command, as documents and hints call it.
const COMMAND: &str = "restore";

/// Restores the node.
pub(super) fn run(session: &Session, args: &RestoreArgs) -> Result<Shown> {
    allow::check(&args.allow, &ALLOWABLE)?;
    let layout = NodeLayout::new(&session.root);
    let context = &session.context;
    if args.dry_run {
        let (plan, named) = plan(session, args, false)?;
        let lost = named.map(|named| loss::of(session, args, &named, None));
        return Ok(planned(&plan, lost.as_ref(), context.now));
    }
    let locked = runner::lock::<Restore>(context, &layout)?;
    let (plan, named) = plan(session, args, true)?;
    terminal::plan(&text::plan(&plan, context.now));
    // Whoever is not asked does not wait for it.
    if let Some(named) = named.filter(|_| !args.yes && is_terminal()) {
        let lost = loss::of(session, args, &named, Some(loss::LIMIT));
        terminal::plan(&loss::short(&lost, args));
    }
    let question = format!("Restore {} to this node?", plan.plan.info.source_name());
    confirm("", &question, args.yes)?;
    let version = env!("CARGO_PKG_VERSION");
    let restore = Transaction::begin(context, &layout, locked, &plan.plan, version)?;
    if wants_to_detach(args) {
        let dir = restore.dir().to_owned();
        drop(restore);
        return follow::detached(session, &dir, args);
    }
    carry_out(session, restore, args)
}

/// The plan, from a backup, which comes with it, or from a member's own data. A backup from another store is kept
/// here where the plan will be carried out.
fn plan(session: &Session, args: &RestoreArgs, keep: bool) -> Result<(RestorePlan, Option<Named>)> {
    let context = &session.context;
    match &args.from_data_dir {
        Some(from) => {
            let request = from_member::Request {
                options: options(session, args)?,
                from: session.readable(from),
            };
            let plan = session.block_on(from_member::plan(context, &request))?;
            Ok((plan, None))
        }
        None => {
            let named = find(session, args, keep)?;
            let request = request(session, args, &named)?;
            let plan = session.block_on(from_backup::plan(context, &request))?;
            Ok((plan, Some(named)))
        }
    }
}

/// What a dry run shows.
fn planned(plan: &RestorePlan, lost: Option<&Value>, now: Timestamp) -> Shown {
    let shown = plan_alone(plan, lost, now);
    let Some(refused) = &plan.refused else {
        return shown;
    };
    // As the restore itself would end, with the plan besides.
    let mut json = error_json::render(COMMAND, refused);
    json["plan"] = shown.json;
    Shown {
        text: shown.text,
        problems: Vec::new(),
        json,
        remark: Some(error::render(COMMAND, refused)),
        status: refused.kind().exit_code(),
    }
}

fn plan_alone(plan: &RestorePlan, lost: Option<&Value>, now: Timestamp) -> Shown {
    let next = next::steps(&plan.plan.info);
    let mut text = text::plan(plan, now);
    text.push_str(&numbered("After the restore:", &next));
    if let Some(lost) = lost {
        text.push('\n');
        text.push_str(&loss::text(lost));
    }
    let mut json = json!({
        "dryRun": true,
        "about": plan.plan.info,
        "steps": text::steps(&plan.plan.steps),
        "notes": plan.notes,
        "nextSteps": next,
    });
    if let Some(lost) = lost {
        json["loss"] = lost.clone();
    }
    Shown::done(text, json::document("restore", &json))
}

/// Resumes a restore that was interrupted.
pub(super) fn resume(session: &Session, args: &RestoreArgs) -> Result<Shown> {
    let mut restore = open(session, None, "--resume")?;
    session.block_on(restore.resume())?;
    carry_out(session, restore, args)
}

fn carry_out(
    session: &Session,
    mut restore: Transaction<Restore>,
    args: &RestoreArgs,
) -> Result<Shown> {
    session.log().open(restore.dir());
    let done = session.block_on_uninterruptible(restore.run(args.keep_failed))?;
    Ok(text::restored(&done))
}

/// Rolls a restore back.
pub(super) fn roll_back(session: &Session, args: &RestoreArgs, id: Option<&str>) -> Result<Shown> {
    let mut restore = open(session, id, "--rollback")?;
    let progress = restore.progress();
    if progress.state == State::Completed {
        let question = format!(
            "Roll back {}? Data written since {} is set aside. The previous data comes back with its revision bumped above all that was served, so that clients re-list.",
            progress.begin.id,
            restore.info()?.source_name()
        );
        confirm("", &question, args.yes)?;
    }
    session.log().open(restore.dir());
    let done = session.block_on_uninterruptible(restore.rollback())?;
    let returned = Returned::of(&done.known);
    let mut text = format!("rolled back {}: the node is as before\n", done.id);
    for detail in returned.details() {
        text.push_str(&format!("{detail}\n"));
    }
    if done.known.completed {
        text.push_str(&format!(
            "the data written after the restore is kept in {}; delete it with: etcd-dr restore --commit {}\n",
            places(&done.info.safety),
            done.id
        ));
    }
    text.push_str(&operation::others(
        &NodeLayout::new(&session.root),
        &done.id,
    )?);
    let json = json!({
        "id": done.id,
        "state": State::RolledBack.word(),
        "about": done.info,
        "served": returned.served,
        "bumpedTo": returned.bumped_to,
        "notBumped": returned.not_bumped,
        "notServing": returned.not_serving,
    });
    Ok(Shown::done(text, json::document("restore", &json)))
}

/// Commits: no rollback after this.
pub(super) fn commit(session: &Session, args: &RestoreArgs, id: Option<&str>) -> Result<Shown> {
    let mut restore = open(session, id, "--commit")?;
    let progress = restore.progress();
    let rolled_back = progress.state == State::RolledBack;
    let id = progress.begin.id.clone();
    if progress.state == State::Committed {
        return Ok(Shown::done(
            format!("{id} is committed already\n"),
            json::document(
                "restore",
                &json!({"id": id, "state": State::Committed.word()}),
            ),
        ));
    }
    let question = if rolled_back {
        format!("{id} is rolled back. Delete the data written after it?")
    } else {
        format!("Keep {id}, and delete the data and the revisions from before it?")
    };
    confirm("", &question, args.yes)?;
    let removed = restore.commit()?;
    let mut text = if rolled_back {
        format!("deleted what {id} had kept; the node stays as it is\n")
    } else {
        format!("committed {id}\n")
    };
    for path in &removed {
        text.push_str(&format!("  removed {}\n", path.display()));
    }
    text.push_str(&operation::others(&NodeLayout::new(&session.root), &id)?);
    let json = json!({"id": id, "state": State::Committed.word(), "removed": removed});
    Ok(Shown::done(text, json::document("restore", &json)))
}

fn open(session: &Session, id: Option<&str>, flag: &str) -> Result<Transaction<Restore>> {
    let layout = NodeLayout::new(&session.root);
    Transaction::open(&session.context, &layout, id, flag)
}

fn wants_to_detach(args: &RestoreArgs) -> bool {
    match args.detach {
        DetachArg::Never => false,
        DetachArg::Always => true,
        // sd_booted(3)
        DetachArg::Auto => PathBuf::from("/run/systemd/system").is_dir(),
    }
}

fn scope(args: &RestoreArgs) -> Scope {
    match args.scope {
        ScopeArg::ControlPlane => Scope::ControlPlane,
        ScopeArg::Etcd => Scope::Etcd,
    }
}

fn options(session: &Session, args: &RestoreArgs) -> Result<NodeOptions> {
    let store = session.store_to_read(args.store.as_deref())?;
    let urls = args.initial_advertise_peer_urls.as_deref();
    Ok(NodeOptions {
        target: target::target(session)?,
        store: store.dir().is_dir().then(|| store.dir().to_owned()),
        scope: scope(args),
        bump: asked::bump(args).unwrap_or(Bump::Auto { slack: SLACK }),
        allow: args.allow.clone(),
        wait: args.wait,
        grace: args.grace,
        peer_urls: urls.map(|urls| urls.split(',').map(|url| url.trim().to_owned()).collect()),
        privileged: rustix::process::geteuid().is_root(),
        random: random()?,
        rehearsal: args.dry_run,
    })
}

fn request(session: &Session, args: &RestoreArgs, named: &Named) -> Result<Request> {
    let own = |dir: &Path| dir.as_os_str() == OWN_WAL;
    Ok(Request {
        options: options(session, args)?,
        set: named.set.clone(),
        to: named.to.clone(),
        recorded: named.recorded.clone(),
        roll_forward: args.roll_forward.as_deref().map(|dir| match own(dir) {
            true => PathBuf::new(),
            false => session.readable(dir),
        }),
        scratch: scratch(args.scratch.as_deref()),
    })
}
