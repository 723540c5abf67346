//! `restore SET --data-dir DIR`: arguments to a request, its result to text and JSON.

use indicatif::HumanBytes;

use super::super::args::{OWN_WAL, RestoreArgs};
use super::super::output::{json, words};
use super::super::session::{Session, Shown};
use super::from_member;
use super::request::{Named, check_allowed, dir_options, evidence, find};
use super::text::moment;
use crate::change::datadir::{self, AppliedChanges, Outcome, Request, RollForward, RolledForward};
use crate::error::{Failure, Kind, Result};
use crate::keep::advice;
use crate::node::apiserver::ApiServer;

/// Makes a data directory.
pub(super) fn run(session: &Session, args: &RestoreArgs) -> Result<Shown> {
    if let Some(from) = &args.from_data_dir {
        return from_member::run(session, args, from);
    }
    let named = find(session, args, false)?;
    let request = request(session, args, &named)?;
    let outcome = session.blocking(move |context| datadir::run(&context, &request))?;
    Ok(Shown::done(
        text(&outcome),
        json::document("restore", &outcome),
    ))
}

fn request(session: &Session, args: &RestoreArgs, named: &Named) -> Result<Request> {
    check_allowed(args)?;
    let store = session.store_to_read(args.store.as_deref())?;
    let set = &named.set;
    let snapshot = set.files.snapshot.clone().ok_or_else(|| {
        Failure::new(
            Kind::BadBackup,
            format!("restoring {}: it has no snapshot", set.name),
        )
    })?;
    // Other backups of the store are evidence of the revision, whatever is restored.
    let evidence = evidence(session, &store)?;
    for (name, what) in advice::of_set(set.manifest.as_ref(), &ApiServer::default()) {
        session.context.warn(name, what);
    }
    if args
        .roll_forward
        .as_deref()
        .is_some_and(|dir| dir.as_os_str() == OWN_WAL)
    {
        let what = "with --data-dir, give the directory to roll forward from";
        return Err(Failure::new(Kind::Usage, what));
    }
    let target = args.target_version.as_deref().map(str::parse).transpose()?;
    Ok(Request {
        options: dir_options(args, evidence)?,
        snapshot,
        name: args.name.clone().unwrap_or_else(|| "default".to_owned()),
        initial_cluster: args.initial_cluster.clone(),
        advertise_peer_urls: args
            .initial_advertise_peer_urls
            .clone()
            .unwrap_or_else(|| "http://localhost:2380".to_owned()),
        token: args.initial_cluster_token.clone(),
        skip_hash_check: args.skip_hash_check,
        target,
        compact: args.compact,
        authentication_off: false,
        to: named.to.clone(),
        recorded: named.recorded.clone(),
        roll_forward: args.roll_forward.as_deref().map(|dir| RollForward {
            dir: session.readable(dir),
            cluster_id: set.manifest.as_ref().map(|set| set.cluster.etcd_id.clone()),
        }),
    })
}

fn text(outcome: &Outcome) -> String {
    let mut text = format!(
        "built {} from {}\n",
        outcome.data_dir.display(),
        outcome.snapshot.display()
    );
    let mut line = |name: &str, value: String| {
        words::fact(&mut text, name, &value);
    };
    line(
        "cluster",
        format!("{}, token {}", outcome.cluster_id, outcome.token),
    );
    for member in &outcome.members {
        let own = if member.id == outcome.member_id {
            ", this one"
        } else {
            ""
        };
        line(
            "member",
            format!(
                "{} {} {}{own}",
                member.id,
                member.name,
                member.peer_urls.join(",")
            ),
        );
    }
    if let Some(restored) = &outcome.moment {
        for (name, value) in moment(&restored.moment) {
            line(name, value);
        }
        line(
            "hashkv",
            format!("equal at revision {}", restored.moment.revision),
        );
    }
    for (name, value) in outcome.recorded.iter().flat_map(recorded) {
        line(name, value);
    }
    for (name, value) in outcome.roll_forward.iter().flat_map(rolled_forward) {
        line(name, value);
    }
    line("revision", outcome.revision.to_string());
    for reason in &outcome.reasons {
        line("", reason.clone());
    }
    line(
        "database",
        format!(
            "{} keys, {}",
            outcome.keys,
            HumanBytes(outcome.database_size)
        ),
    );
    text
}

/// What was applied of recorded changes, as names and values.
fn recorded(applied: &AppliedChanges) -> Vec<(&'static str, String)> {
    let what = format!(
        "changes of revisions {} to {} applied, from {} segments in {}",
        applied.from_revision + 1,
        applied.to_revision,
        applied.segments,
        applied.dir.display()
    );
    let proof = match (&applied.backup, applied.etcd_revision) {
        (Some(backup), _) => format!("hashkv: equal to that of {backup}"),
        (None, Some(at)) => format!("hashkv: equal to etcd's own at revision {at}"),
        (None, None) => format!("hashkv: notChecked ({})", applied.why.unwrap_or_default()),
    };
    let notes = applied.notes.iter().map(|note| ("", note.clone()));
    [("recorded", what), ("", proof)]
        .into_iter()
        .chain(notes)
        .collect()
}

/// What was applied of a WAL, as names and values.
fn rolled_forward(rolled: &RolledForward) -> Vec<(&'static str, String)> {
    let mut lines = vec![(
        "rolled",
        format!(
            "forward from revision {} to {}: {} entries of {}, up to entry {} of term {}",
            rolled.from_revision,
            rolled.to_revision,
            rolled.entries,
            rolled.wal_dir.display(),
            rolled.last_index,
            rolled.last_term
        ),
    )];
    if rolled.uncommitted > 0 {
        let what = "of them not recorded as committed; a write that was acknowledged may be among them, so all are kept";
        lines.push(("", format!("{} {what}", rolled.uncommitted)));
    }
    if rolled.torn {
        let what = "the WAL ends in a torn write, which is left out";
        lines.push(("", what.to_owned()));
    }
    lines
}
