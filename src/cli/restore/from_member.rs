//! `restore --from-data-dir DIR --data-dir DIR`: a cluster of one from a member's own files.

use std::path::Path;

use super::super::args::RestoreArgs;
use super::super::output::{json, words};
use super::super::session::{Session, Shown};
use super::request as asked;
use crate::change::survivor::{self, Outcome, Request};
use crate::error::Result;
use crate::inspect::data_dir;

/// Makes a cluster of one from a member's own files.
pub(super) fn run(session: &Session, args: &RestoreArgs, from: &Path) -> Result<Shown> {
    asked::check_allowed(args)?;
    // The store's backups are evidence of the revision, even those of another cluster.
    let store = session.store_to_read(args.store.as_deref())?;
    let request = Request {
        options: asked::dir_options(args, asked::evidence(session, &store)?)?,
        from: session.readable(from),
        from_wal: args
            .from_wal_dir
            .as_deref()
            .map(|dir| session.readable(dir)),
        name: args.name.clone(),
        peer_urls: args.initial_advertise_peer_urls.clone(),
        cluster_id: None,
    };
    let outcome = session.blocking(move |context| survivor::run(&context, &request))?;
    Ok(Shown::done(
        made(&outcome),
        json::document("restore", &outcome),
    ))
}

fn made(outcome: &Outcome) -> String {
    let mut text = format!(
        "built {} from {}\n",
        outcome.data_dir.display(),
        outcome.source.display()
    );
    let mut line = |name: &str, value: String| {
        words::fact(&mut text, name, &value);
    };
    line(
        "cluster",
        format!(
            "{}, formerly {}",
            outcome.cluster_id, outcome.former_cluster_id
        ),
    );
    let member = |member: &data_dir::Known| {
        format!(
            "{} {} {}",
            member.id,
            member.name,
            member.peer_urls.join(",")
        )
    };
    line("member", member(&outcome.member));
    for gone in &outcome.removed {
        line("removed", member(gone));
    }
    line(
        "log",
        format!(
            "{} committed and {} uncommitted entries beyond the database, all kept; last entry {} of term {}",
            outcome.tail_committed,
            outcome.tail_uncommitted,
            outcome.source_index,
            outcome.source_term
        ),
    );
    if let (Some(entries), Some(revision)) = (outcome.applied, outcome.applied_revision) {
        line(
            "applied",
            format!("{entries} entries of the WAL, up to revision {revision}"),
        );
    }
    line(
        "revision",
        match outcome.revision_at_most {
            most if most == outcome.revision => most.to_string(),
            most => format!(
                "{}, and up to {most} once etcd has applied the WAL",
                outcome.revision
            ),
        },
    );
    for reason in &outcome.reasons {
        line("", reason.clone());
    }
    text
}
