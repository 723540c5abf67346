//! `restore SET` on this node: the plan, the question, the run, and what came of it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;

use super::super::args::{DetachArg, RestoreArgs, ScopeArg};
use super::super::output::confirm::confirm;
use super::super::output::words::{numbered, places};
use super::super::output::{error, error_json, json, terminal};
use super::super::session::{Session, Shown, scratch};
use super::super::{operation, target};
use super::request::{self as asked, check_names, find, random};
use super::{follow, next, text};
use crate::change::restore::{self, ALLOWABLE, Draft, NodeStep, Request, Scope, survivor};
use crate::error::Result;
use crate::etcd::restore::{Bump, SLACK};
use crate::keep::catalog::BackupSet;
use crate::node::layout::NodeLayout;
use crate::plan::{Operation, State, registry};

/// The command, as documents and hints call it.
const COMMAND: &str = "restore";

/// Restores the node.
pub(super) fn run(session: &Session, args: &RestoreArgs) -> Result<Shown> {
    check_names(&args.allow, &ALLOWABLE)?;
    let layout = NodeLayout::new(&session.root);
    if args.dry_run {
        return Ok(planned(&draft(session, args, false)?, session.context.now));
    }
    registry::refuse_while_unfinished(&layout.state())?;
    let locked = restore::lock(&session.context, &layout, "restore")?;
    let draft = draft(session, args, true)?;
    terminal::plan(&text::plan(&draft, session.context.now));
    let question = format!("Restore {} to this node?", draft.about.set.name);
    confirm("", &question, args.yes)?;
    let log = session.log();
    let mut operation = restore::begin(
        &session.context,
        &layout,
        restore::KIND,
        draft,
        env!("CARGO_PKG_VERSION"),
        Timestamp::now,
    )?;
    if wants_to_detach(args) {
        let dir = operation.dir().to_owned();
        drop(operation);
        drop(locked);
        return follow::detached(session, &dir, args);
    }
    log.open(operation.dir());
    go_on(session, &layout, &mut operation, args)
}

/// The plan, from a backup or from a member's own data. A set from another store is kept here where
/// the plan will be carried out.
fn draft(session: &Session, args: &RestoreArgs, keep: bool) -> Result<Draft> {
    let context = &session.context;
    match &args.from_data_dir {
        Some(from) => {
            let request = surviving(session, args, from)?;
            session.block_on(survivor::draft(context, &request))
        }
        None => {
            let named = find(session, args, keep)?;
            let request = request(session, args, named.set.clone())?;
            session.block_on(restore::draft(context, &request))
        }
    }
}

/// What a dry run shows.
fn planned(draft: &Draft, now: Timestamp) -> Shown {
    let shown = plan_alone(draft, now);
    let Some(refused) = &draft.refused else {
        return shown;
    };
    // As the restore itself would end, with the plan besides.
    let mut json = error_json::render(COMMAND, refused);
    json["plan"] = shown.json;
    Shown {
        text: shown.text,
        json,
        remark: Some(error::render(COMMAND, refused)),
        status: refused.kind().exit_code(),
    }
}

fn plan_alone(draft: &Draft, now: Timestamp) -> Shown {
    let next = next::steps(&draft.about);
    let mut text = text::plan(draft, now);
    text.push_str(&numbered("After the restore:", &next));
    let json = json!({
        "dryRun": true,
        "about": draft.about,
        "steps": text::steps(&draft.steps),
        "notes": draft.notes,
        "nextSteps": next,
    });
    Shown::done(text, json::document("restore", &json))
}

/// Resumes an interrupted restore.
pub(super) fn resume(session: &Session, args: &RestoreArgs) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    let _locked = restore::lock(&session.context, &layout, "restore --resume")?;
    let log = session.log();
    let mut operation = open(session, &layout, None)?;
    operation::can_go_on(&operation)?;
    let context = &session.context;
    session.block_on(restore::refuse_beside_others(context, &layout, &operation))?;
    log.open(operation.dir());
    operation.resumed()?;
    go_on(session, &layout, &mut operation, args)
}

fn go_on(
    session: &Session,
    layout: &NodeLayout,
    operation: &mut Operation<NodeStep>,
    args: &RestoreArgs,
) -> Result<Shown> {
    let context = &session.context;
    let done = session.block_on_to_the_end(restore::go_on(
        context,
        layout,
        operation,
        args.keep_failed,
    ))?;
    Ok(text::restored(&done))
}

/// Takes a restore back.
pub(super) fn roll_back(session: &Session, args: &RestoreArgs, id: Option<&str>) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    let _locked = restore::lock(&session.context, &layout, "restore --rollback")?;
    let log = session.log();
    let mut operation = open(session, &layout, id)?;
    let progress = operation.progress();
    if progress.state == State::Completed {
        let about = restore::about(progress)?;
        let question = format!(
            "Roll back {}? Data written since {} is set aside. The previous data comes back with its revision bumped above all that was served, so that clients re-list.",
            progress.begin.id, about.set.name
        );
        confirm("", &question, args.yes)?;
    }
    log.open(operation.dir());
    let context = &session.context;
    let done = session.block_on_to_the_end(restore::take_back(context, &layout, &mut operation))?;
    let kept = operation.progress().known.completed;
    let returned = &done.returned;
    let mut text = format!("rolled back {}: the node is as before\n", done.id);
    for detail in returned.details() {
        text.push_str(&format!("{detail}\n"));
    }
    if kept {
        text.push_str(&format!(
            "the data written after the restore is kept in {}; delete it with: etcd-dr restore --commit {}\n",
            places(&done.about.safety),
            done.id
        ));
    }
    text.push_str(&operation::others(&layout, &done.id)?);
    let json = json!({
        "id": done.id,
        "state": State::RolledBack.word(),
        "about": done.about,
        "served": returned.served,
        "bumpedTo": returned.bumped_to,
        "notBumped": returned.not_bumped,
        "notServing": returned.not_serving,
    });
    Ok(Shown::done(text, json::document("restore", &json)))
}

/// Commits: no rollback after this.
pub(super) fn commit(session: &Session, args: &RestoreArgs, id: Option<&str>) -> Result<Shown> {
    let layout = NodeLayout::new(&session.root);
    let _locked = restore::lock(&session.context, &layout, "restore --commit")?;
    let mut operation = open(session, &layout, id)?;
    let rolled_back = operation.progress().state == State::RolledBack;
    let id = operation.progress().begin.id.clone();
    if operation.progress().state == State::Committed {
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
    let removed = restore::commit(&session.context, &layout, &mut operation)?;
    let mut text = if rolled_back {
        format!("deleted what {id} had kept; the node stays as it is\n")
    } else {
        format!("committed {id}\n")
    };
    for path in &removed {
        text.push_str(&format!("  removed {}\n", path.display()));
    }
    text.push_str(&operation::others(&layout, &id)?);
    let json = json!({"id": id, "state": State::Committed.word(), "removed": removed});
    Ok(Shown::done(text, json::document("restore", &json)))
}

fn open(session: &Session, layout: &NodeLayout, id: Option<&str>) -> Result<Operation<NodeStep>> {
    operation::open(session, layout, restore::KIND, id)
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

fn surviving(session: &Session, args: &RestoreArgs, from: &Path) -> Result<survivor::Request> {
    let store = session.store_to_read(args.store.as_deref())?;
    Ok(survivor::Request {
        target: target::target(session)?,
        from: session.readable(from),
        peer_urls: peer_urls(args),
        store: store.dir().is_dir().then(|| store.dir().to_owned()),
        scope: scope(args),
        bump: asked::bump(args).unwrap_or(Bump::Auto { slack: SLACK }),
        allow: args.allow.clone(),
        wait: args.wait,
        grace: args.grace,
        privileged: rustix::process::geteuid().is_root(),
        random: random()?,
        rehearsal: args.dry_run,
    })
}

fn peer_urls(args: &RestoreArgs) -> Option<Vec<String>> {
    let urls = args.initial_advertise_peer_urls.as_deref();
    urls.map(|urls| urls.split(',').map(|url| url.trim().to_owned()).collect())
}

fn request(session: &Session, args: &RestoreArgs, set: BackupSet) -> Result<Request> {
    let store = session.store_to_read(args.store.as_deref())?;
    Ok(Request {
        target: target::target(session)?,
        set,
        store: store.dir().is_dir().then(|| store.dir().to_owned()),
        scope: scope(args),
        bump: asked::bump(args).unwrap_or(Bump::Auto { slack: SLACK }),
        allow: args.allow.clone(),
        wait: args.wait,
        grace: args.grace,
        scratch: scratch(args.scratch.as_deref()),
        privileged: rustix::process::geteuid().is_root(),
        random: random()?,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        peer_urls: peer_urls(args),
        rehearsal: args.dry_run,
    })
}
