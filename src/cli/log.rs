//! `log`: what happened in a backup's own history, and in the changes recorded after it.

use std::fmt::Write as _;

use indicatif::HumanCount;
use jiff::Timestamp;
use serde_json::json;

use super::args::LogArgs;
use super::brought::{Reached, bring};
use super::output::json;
use super::recorded::chains;
use super::session::{Session, Shown};
use super::sign;
use crate::error::Result;
use crate::etcd::history::log::{Filter, Group, groups};
use crate::etcd::history::{Reach, moments, revision_since};
use crate::finding::printable;
use crate::keep::catalog::{self, BackupSet};
use crate::keep::ranges::{Continuation, continuation};
use crate::keep::{reach, remote as sets};
use crate::store::Address;
use crate::sys::scratch::Scratch;

/// Shows the changes in a backup.
pub(super) fn run(session: &Session, args: &LogArgs) -> Result<Shown> {
    let (set, _brought) = find(session, args)?;
    let continued = continued(session, args, &set)?;
    let history = reach::open(&set, continued.as_ref())?;
    let moments = moments(&history)?;
    let above = match args.since {
        Some(since) => {
            let time = since.time(session.context.now);
            Some(revision_since(&history, moments.as_ref(), time)?)
        }
        None => None,
    };
    let filter = Filter {
        above,
        deletes: args.deletes,
        prefix: args.prefix.clone(),
        kind: args.kind.clone(),
        namespace: args.namespace.clone(),
    };
    let groups = groups(&history, moments.as_ref(), &filter)?;
    let reachable = Reach::of(history.span(), moments.as_ref());
    Ok(Shown::done(
        text(&set, &reachable, &groups),
        json::document(
            "log",
            &json!({"set": set.name, "reachable": reachable, "groups": groups}),
        ),
    ))
}

/// The changes that were recorded after the set, up to the next one.
fn continued(session: &Session, args: &LogArgs, set: &BackupSet) -> Result<Option<Continuation>> {
    let store = session.store_to_read(args.source.store.as_deref())?;
    let chains = chains(session, &store)?;
    if chains.is_empty() {
        return Ok(None);
    }
    let continued = continuation(&chains, &catalog::list(&store)?, set);
    Ok(continued.map(|continued| continued.to_next()))
}

/// The set that is named; one in another store is brought to a folder that goes with this run.
fn find(session: &Session, args: &LogArgs) -> Result<(BackupSet, Option<Scratch>)> {
    let trust = sign::trust_only(session, &args.source.trust)?;
    if !Address::is_url(&args.set) {
        let store = session.store_to_read(args.source.store.as_deref())?;
        return Ok((trust.resolve(&store, &args.set)?, None));
    }
    let address = Address::parse(&args.set)?;
    let reached = Reached::of(&args.source, &trust);
    let brought = bring(session, &address, &reached, sets::Part::Data, "log")?;
    Ok((brought.set, Some(brought.here)))
}

fn text(set: &BackupSet, reachable: &Reach, groups: &[Group]) -> String {
    let mut text = format!("{}: {reachable}\n", printable(set.name.clone()));
    if let Some(clock) = reachable.clock {
        let _ = writeln!(text, "times {clock}");
    }
    for group in groups {
        let _ = writeln!(text, "{}", printable(line(group)));
    }
    if groups.is_empty() {
        text.push_str("no such change\n");
    }
    text
}

/// `12:03:07Z revision 48211: 1,204 deletes under /registry/pods/prod`
fn line(group: &Group) -> String {
    let time = |time: Timestamp| time.strftime("%H:%M:%SZ").to_string();
    let mut line = String::new();
    if let Some(first) = group.first_time {
        line.push_str(&time(first));
        line.push(' ');
    }
    let _ = write!(line, "revision {}", group.first_revision);
    if group.last_revision > group.first_revision {
        let _ = write!(line, " to {}", group.last_revision);
        let until = group
            .last_time
            .filter(|last| Some(*last) != group.first_time);
        if let Some(last) = until {
            let _ = write!(line, " ({})", time(last));
        }
    }
    let what = match group.changes {
        1 => group.act.singular(),
        _ => group.act.plural(),
    };
    let (count, key) = (HumanCount(group.changes), &group.key);
    let _ = match key.strip_suffix('/') {
        Some(parent) => write!(line, ": {count} {what} under {parent}"),
        None if key.is_empty() => write!(line, ": {count} {what} of keys without a slash"),
        None => write!(line, ": {count} {what} of {key}"),
    };
    line
}
