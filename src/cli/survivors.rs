//! What a member's own files are worth, and what can be made of them: `verify --data-dir`,
//! `verify --compare`, `restore --from-data-dir`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::args::RestoreArgs;
use super::run::{Session, Shown};
use super::verify::{describe, head, layers};
use super::{human, machine, restore as restoring};
use crate::change::survivor;
use crate::change::survivor::{Outcome, Request};
use crate::error::{Result, exit};
use crate::etcd::finding::printable;
use crate::inspect::compare::{Ranked, Verdict};
use crate::inspect::data_dir::{Distance, Report, Role};
use crate::inspect::{compare, data_dir};
use crate::keep::catalog;
use crate::store::LocalStore;

/// Checks a member's own files.
pub(super) fn data_dir(
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
        .blocking(move |context| data_dir::run(&context, &dir, wal_dir.as_deref(), &backups))
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
        json: machine::document("verify", &report),
        remark: remark.map(printable),
        status,
    })
}

/// Whose files they are and how far they reach.
fn standing(text: &mut String, report: &Report, session: &Session) {
    if let Some(own) = &report.member {
        let role = match own.role {
            Role::Voter => "a voter",
            Role::Learner => "a learner",
            Role::None => "no member by its own log",
            Role::Unknown => "of an unknown role",
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
    let wal = |name: &str| report.wal.get(name).cloned().unwrap_or_default();
    let _ = writeln!(
        text,
        "  the log ends with entry {} of term {}; term {}, commit {} written down",
        wal("lastIndex"),
        wal("lastTerm"),
        wal("term"),
        wal("commit")
    );
    let beyond = wal("beyondDatabase");
    if !beyond.is_null() {
        let _ = writeln!(
            text,
            "  it holds {} committed and {} uncommitted entries beyond the database, {} of which write keys",
            beyond["committed"], beyond["uncommitted"], beyond["keyWrites"]
        );
    }
    if let Some(revisions) = &report.revisions {
        let _ = writeln!(
            text,
            "  revision {}, with the log {} at most",
            revisions.database, revisions.at_most
        );
    }
    if let Some(time) = report.last_written {
        let _ = writeln!(
            text,
            "  last written to at {}, {} ago",
            time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            human::age(time, session.context.now)
        );
    }
    if let Some(distance) = &report.newest_backup {
        let _ = writeln!(text, "  {}", printable(sentence(distance)));
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
            "{backup}, the newest backup, is of another cluster: no revision can be compared"
        );
    }
    let count = |number: &i64| grouped(number.unsigned_abs());
    match (ahead, ahead_at_most) {
        (0, 0) => format!("this disk is at the revision of {backup}"),
        (low, high) if *low >= 0 && low == high => {
            format!("this disk is {} revisions ahead of {backup}", count(low))
        }
        (low, high) if *low >= 0 => format!(
            "this disk is {} revisions ahead of {backup}, with its log up to {}",
            count(low),
            count(high)
        ),
        (low, high) if *high <= 0 && low == high => {
            format!("this disk is {} revisions behind {backup}", count(low))
        }
        (low, high) if *high <= 0 => format!(
            "this disk is {} revisions behind {backup}, with its log at least {}",
            count(low),
            count(high)
        ),
        (low, high) => format!(
            "this disk's database is {} revisions behind {backup}, with its log it is up to {} ahead",
            count(low),
            count(high)
        ),
    }
}

/// Compares reports.
pub(super) fn compare(paths: &[PathBuf]) -> Result<Shown> {
    let verdict = compare::run(paths)?;
    Ok(Shown {
        text: table(&verdict),
        json: machine::document("verify", &verdict),
        remark: None,
        status: if verdict.may_lack_writes {
            exit::DIFFERS
        } else {
            exit::DONE
        },
    })
}

fn table(verdict: &Verdict) -> String {
    let mut text = String::new();
    if let Some(best) = verdict.ranking.first() {
        let _ = writeln!(
            text,
            "the best survivor: {} {}",
            best.id,
            printable(best.name.clone())
        );
    }
    let _ = writeln!(text, "  why: {}", printable(verdict.reason.clone()));
    let _ = writeln!(text, "  lost: {}", printable(verdict.loss.clone()));
    for disk in &verdict.ranking {
        let _ = writeln!(text, "  {}", printable(row(disk)));
    }
    text
}

fn row(disk: &Ranked) -> String {
    let revisions = disk.revisions.map_or_else(String::new, |revisions| {
        format!(", revision {} to {}", revisions.database, revisions.at_most)
    });
    let unfit = disk.unfit.map_or_else(String::new, |unfit| {
        format!("; not to be chosen: {}", unfit.words())
    });
    format!(
        "{} {}: last entry {} of term {}{revisions}{unfit}",
        disk.id, disk.name, disk.last_index, disk.last_term
    )
}

/// Makes a cluster of one from a member's own files.
pub(super) fn restore(session: &Session, args: &RestoreArgs, from: &Path) -> Result<Shown> {
    restoring::check_allowed(args)?;
    // What backups say of the revision is worth knowing, also of another cluster's.
    let store = session.store_to_read(args.store.as_deref())?;
    let request = Request {
        bump: restoring::bump(args),
        mark_compacted: args.mark_compacted,
        evidence: restoring::evidence(session, &store)?,
        allow: args.allow.clone(),
        from: session.readable(from),
        from_wal: args
            .from_wal_dir
            .as_deref()
            .map(|dir| session.readable(dir)),
        data_dir: restoring::data_dir(args)?,
        wal_dir: args.wal_dir.clone(),
        name: args.name.clone(),
        peer_urls: args.initial_advertise_peer_urls.clone(),
        cluster_id: None,
        random: restoring::random()?,
    };
    let outcome = session.blocking(move |context| survivor::run(&context, &request))?;
    Ok(Shown::done(
        made(&outcome),
        machine::document("restore", &outcome),
    ))
}

fn made(outcome: &Outcome) -> String {
    let mut text = format!(
        "made {} from {}\n",
        outcome.data_dir.display(),
        outcome.source.display()
    );
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10} {}", printable(value));
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
            "{} committed and {} uncommitted entries beyond the database, all kept; ends with entry {} of term {}",
            outcome.tail_committed,
            outcome.tail_uncommitted,
            outcome.source_index,
            outcome.source_term
        ),
    );
    if let (Some(entries), Some(revision)) = (outcome.applied, outcome.applied_revision) {
        line(
            "applied",
            format!("{entries} entries of the log, up to revision {revision}"),
        );
    }
    line(
        "revision",
        match outcome.revision_at_most {
            most if most == outcome.revision => most.to_string(),
            most => format!(
                "{}, and up to {most} once etcd has applied the log",
                outcome.revision
            ),
        },
    );
    for reason in &outcome.reasons {
        line("", reason.clone());
    }
    text
}
