//! `list --ranges` and `verify --ranges`: what of the past can be restored.

mod away;

use std::fmt::Write as _;
use std::path::Path;

use indicatif::HumanCount;
use jiff::Timestamp;
use serde_json::json;

use super::args::{ListArgs, VerifyArgs};
use super::output::json;
use super::recorded::chains;
use super::session::{Session, Shown, scratch};
use super::{remote, sign};
use crate::error::{Failure, Kind, Result, exit};
use crate::inspect::ranges::{self, RangesFound};
use crate::keep::catalog;
use crate::keep::ranges::{HashKvFound, Reachable, reachable};
use crate::keep::trust::Trust;
use crate::store::LocalStore;
use crate::sys::quote::printable;

/// Shows what can be reached.
pub(super) fn list(session: &Session, args: &ListArgs) -> Result<Shown> {
    let trust = sign::trust(session, &args.signers, &[])?;
    let named = args.store.as_deref();
    let (place, found) = match remote::url(session, named)? {
        Some(address) => {
            let reached = (&args.remote, &args.identity);
            let found = away::look(session, &address, reached, &trust)?;
            (address.to_string(), found)
        }
        None => {
            let store = session.existing_store(named)?;
            let found = look(session, &store, &trust)?;
            (store.dir().display().to_string(), found)
        }
    };
    let document = json!({"store": place, "clusters": found});
    Ok(Shown::done(
        text(&place, &found),
        json::document("list", &document),
    ))
}

fn look(session: &Session, store: &LocalStore, trust: &Trust) -> Result<Vec<Reachable>> {
    let mut sets = catalog::list(store)?;
    trust.mark(&mut sets);
    Ok(reachable(&chains(session, store)?, &sets))
}

fn text(place: &str, found: &[Reachable]) -> String {
    let mut text = String::new();
    for cluster in found {
        let node = cluster.node.as_ref();
        let node = node.map_or_else(String::new, |node| format!(" in {node}"));
        let line = format!("cluster {}{node}", cluster.cluster_id);
        let _ = writeln!(text, "{}", printable(line));
        if cluster.ranges.is_empty() {
            text.push_str("  nothing can be restored: no good backup is of it yet\n");
        }
        for (at, range) in cluster.ranges.iter().enumerate() {
            let time = |time: Option<Timestamp>| match time {
                Some(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
                None => "?".to_owned(),
            };
            let names = match range.backups.as_slice() {
                [one] => one.clone(),
                [first, .., last] => format!("{first} to {last}"),
                [] => String::new(),
            };
            let recorded = if range.recorded {
                ", recorded changes"
            } else {
                ""
            };
            let line = format!(
                "  revisions {} to {}  {} to {}  {names}{recorded}",
                range.from,
                range.to,
                time(range.from_time),
                time(range.to_time)
            );
            let _ = writeln!(text, "{}", printable(line));
            if let Some(gap) = cluster.gaps.get(at) {
                let (from, until) = (gap.after.saturating_add(1), gap.until.saturating_sub(1));
                let _ = writeln!(
                    text,
                    "  GAP: revisions {from} to {until}: {}",
                    gap.cause.sentence()
                );
            }
        }
    }
    if found.is_empty() {
        let _ = writeln!(text, "no backups in {place}");
    }
    text
}

/// Checks the recorded changes of a store.
pub(super) fn verify(session: &Session, args: &VerifyArgs) -> Result<Shown> {
    let named = match args.sets.as_slice() {
        [] => args.source.store.as_deref(),
        [store] => Some(Path::new(store)),
        _ => return Err(Failure::new(Kind::Usage, "--ranges takes one store")),
    };
    let trust = sign::trust_only(session, &args.source.trust)?;
    let (place, found) = match remote::url(session, named)? {
        Some(address) => {
            let found = away::verify(session, &address, args, &trust)?;
            (address.to_string(), found)
        }
        None => {
            let store = session.existing_store(named)?;
            let chains = chains(session, &store)?;
            let mut sets = catalog::list(&store)?;
            trust.mark(&mut sets);
            let scratch = scratch(args.source.scratch.as_deref());
            let found =
                session.blocking(move |context| ranges::run(&context, &chains, &sets, &scratch))?;
            (store.dir().display().to_string(), found)
        }
    };
    let document = json!({
        "good": found.good,
        "store": place,
        "recordedChains": found.chains,
        "proofs": found.proofs,
    });
    Ok(Shown {
        status: match found.good {
            true => exit::DONE,
            false => exit::DIFFERS,
        },
        ..Shown::done(
            found_text(&place, &found),
            json::document("verify", &document),
        )
    })
}

fn found_text(place: &str, found: &RangesFound) -> String {
    if found.chains.is_empty() {
        return format!("no recorded changes in {place}\n");
    }
    let mut text = String::new();
    for chain in &found.chains {
        let state = match chain.findings.is_empty() {
            true => "whole",
            false => "BROKEN",
        };
        let line = format!(
            "{}: {state}  revisions {} to {}, {} changes in {} segments",
            chain.chain,
            chain.from,
            chain.to,
            HumanCount(chain.changes),
            chain.segments
        );
        let _ = writeln!(text, "{}", printable(line));
        for finding in &chain.findings {
            let _ = writeln!(text, "  {}", printable(finding.clone()));
        }
    }
    for proof in &found.proofs {
        let of = format!(
            "{}: changes of revisions {} to {}",
            proof.base,
            proof.from + 1,
            proof.to
        );
        let why = proof.why.as_deref().unwrap_or_default();
        let backup = proof.backup.as_deref().unwrap_or_default();
        let line = match proof.hashkv {
            HashKvFound::Equal => match proof.etcd_revision {
                Some(at) => format!("{of}: hashkv: equal to etcd's own at revision {at}"),
                None => format!("{of}: hashkv: equal to that of {backup}"),
            },
            HashKvFound::Different => format!("{of}: hashkv: DIFFERENT: {why}"),
            HashKvFound::NotChecked => format!("{of}: hashkv: notChecked ({why})"),
        };
        let _ = writeln!(text, "{}", printable(line));
    }
    text
}
