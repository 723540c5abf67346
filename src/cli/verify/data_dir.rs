//! `verify --data-dir`: what a member's own files are worth.

use std::fmt::Write as _;
use std::path::Path;

use super::super::output::layers::{describe, head, layers};
use super::super::output::{hints, json, words};
use super::super::session::{Session, Shown};
use crate::error::{Result, exit};
use crate::inspect::data_dir::{self as inspected, Distance, Report, Role, RollForward};
use crate::keep::catalog;
use crate::store::LocalStore;
use crate::sys::quote::printable;

/// Checks a member's own files.
pub(super) fn run(
    session: &Session,
    dir: &Path,
    wal_dir: Option<&Path>,
    store: &LocalStore,
) -> Result<Shown> {
    // The files are what is asked for: a store that cannot be read must not hide them.
    let backups = match store.dir().is_dir() {
        true => catalog::list(store),
        false => Ok(Vec::new()),
    };
    let (backups, remark) = match backups {
        Ok(backups) => (backups, None),
        Err(failure) => (Vec::new(), Some(format!("not compared: {failure}"))),
    };
    let dir = session.readable(dir);
    let wal_dir = wal_dir.map(|dir| session.readable(dir));
    let report = session
        .blocking(move |context| inspected::run(&context, &dir, wal_dir.as_deref(), &backups))
        .map_err(|failure| failure.doing("verifying the data directory"))?;
    let mut text = head(&report.data_dir, report.good);
    layers(&mut text, &report.layers, &report.findings);
    standing(&mut text, &report, session);
    if let Some(database) = report.database.as_deref() {
        describe(&mut text, database);
    }
    let status = if report.good {
        exit::DONE
    } else {
        exit::BAD_BACKUP
    };
    Ok(Shown {
        text,
        problems: Vec::new(),
        json: json::document("verify", &report),
        remark: remark.map(printable),
        status,
    })
}

/// Whose files they are and how far they reach.
fn standing(text: &mut String, report: &Report, session: &Session) {
    if let Some(own) = &report.member {
        let role = match own.role {
            Role::Voter => "a voting member",
            Role::Learner => "a learner",
            Role::None => "not a member according to its own WAL",
            Role::Unknown => "of unknown role",
        };
        let name = match own.name.as_str() {
            "" => own.id.clone(),
            name => format!("{} ({})", printable(name.to_owned()), own.id),
        };
        let _ = writeln!(
            text,
            "  member {name}, {role}, of cluster {}",
            own.cluster_id
        );
    }
    for member in report.membership.iter().flatten() {
        let learner = if member.learner { ", a learner" } else { "" };
        let line = format!(
            "{} {} {}{learner}",
            member.id,
            member.name,
            member.peer_urls.join(",")
        );
        let _ = writeln!(text, "    {}", printable(line));
    }
    log(text, report);
    if let Some(revisions) = &report.revisions {
        let _ = writeln!(
            text,
            "  revision {}, with the WAL at most {}",
            revisions.database, revisions.at_most
        );
    }
    if let Some(time) = report.last_written {
        let _ = writeln!(
            text,
            "  last written at {}, {} ago",
            time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            words::age(time, session.context.now)
        );
    }
    if let Some(distance) = &report.newest_backup {
        let _ = writeln!(text, "  {}", printable(sentence(distance)));
    }
    if let Some(RollForward { backup, from }) = &report.roll_forward {
        let from = from.display().to_string();
        let command = hints::to_roll_forward("verify", backup, &from);
        let line = format!("the WAL is whole; to restore up to the last write: {command}");
        let _ = writeln!(text, "  {}", printable(line));
    }
}

/// How far the WAL reaches.
fn log(text: &mut String, report: &Report) {
    let wal = |name: &str| report.wal.get(name).cloned().unwrap_or_default();
    let _ = writeln!(
        text,
        "  last WAL entry {} (term {}); recorded: term {}, committed up to {}",
        wal("lastIndex"),
        wal("lastTerm"),
        wal("term"),
        wal("commit")
    );
    let beyond = wal("beyondDatabase");
    if !beyond.is_null() {
        let _ = writeln!(
            text,
            "  {} committed and {} uncommitted entries beyond the database, {} of which write keys",
            beyond["committed"], beyond["uncommitted"], beyond["keyWrites"]
        );
    }
}

/// A number with its thousands parted.
fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

fn sentence(distance: &Distance) -> String {
    let Distance {
        backup,
        ahead,
        ahead_at_most,
        ..
    } = distance;
    if !distance.same_cluster {
        return format!(
            "{backup}, the newest backup, belongs to another cluster: revisions cannot be compared"
        );
    }
    let count = |number: &i64| grouped(number.unsigned_abs());
    match (ahead, ahead_at_most) {
        (0, 0) => format!("this disk is at the revision of {backup}"),
        (low, high) if *low >= 0 && low == high => {
            format!("this disk is {} revisions ahead of {backup}", count(low))
        }
        (low, high) if *low >= 0 => format!(
            "this disk is {} revisions ahead of {backup}, with its WAL up to {}",
            count(low),
            count(high)
        ),
        (low, high) if *high <= 0 && low == high => {
            format!("this disk is {} revisions behind {backup}", count(low))
        }
        (low, high) if *high <= 0 => format!(
            "this disk is {} revisions behind {backup}, with its WAL at least {}",
            count(low),
            count(high)
        ),
        (low, high) => format!(
            "this disk's database is {} revisions behind {backup}; with its WAL it is up to {} ahead",
            count(low),
            count(high)
        ),
    }
}
