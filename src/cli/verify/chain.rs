//! `verify --chain`: whether the backups of a store are the ones that were put there.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::super::args::VerifyArgs;
use super::super::output::json;
use super::super::session::{Session, Shown};
use super::super::{remote, sign};
use crate::error::{Failure, Kind, Result, exit};
use crate::finding::{Severity, printable};
use crate::keep::catalog::{self, BackupSet};
use crate::keep::chain::check::{self, ChainReport};
use crate::keep::chain::local;
use crate::keep::chain::record::Records;
use crate::keep::remote as sets;
use crate::keep::trust::Trust;
use crate::store::{Address, objects};

/// Follows the chains of a store: the one that is named, or this node's.
pub(super) fn run(session: &Session, args: &VerifyArgs) -> Result<Shown> {
    let trust = sign::trust_only(session, &args.source.trust)?;
    let named = match args.sets.as_slice() {
        [] => args.source.store.as_deref(),
        [store] => Some(Path::new(store)),
        _ => return Err(Failure::new(Kind::Usage, "--chain takes one store")),
    };
    let (place, mut found, records) = match remote::url(session, named)? {
        Some(address) => away(session, args, &address, &trust)?,
        None => {
            let store = session.existing_store(named)?;
            let records = local::read(store.dir(), &trust)?.0;
            let place = store.dir().display().to_string();
            (place, catalog::list(&store)?, records)
        }
    };
    trust.mark(&mut found);
    let chains = check::check(&found, &records);
    let good = chains.iter().all(|chain| chain.good);
    let json = json!({"good": good, "store": place, "chains": chains});
    Ok(Shown {
        status: match good {
            true => exit::DONE,
            false => exit::DIFFERS,
        },
        ..Shown::done(text(&place, &chains), json::document("verify", &json))
    })
}

fn away(
    session: &Session,
    args: &VerifyArgs,
    address: &Address,
    trust: &Trust,
) -> Result<(String, Vec<BackupSet>, Records)> {
    let settings = remote::settings(session, &args.source.remote)?;
    let (found, records) = session.block_on(async {
        let store = objects::open(address, &settings).await?;
        let found = sets::chains(store.as_ref(), "", trust);
        session.context.cancel.guard(found).await
    })?;
    Ok((address.to_string(), found, records))
}

fn text(place: &str, chains: &[ChainReport]) -> String {
    if chains.is_empty() {
        return format!("no backups in {place}\n");
    }
    let mut text = String::new();
    for chain in chains {
        let state = if chain.good { "whole" } else { "BROKEN" };
        let of = printable(format!("{}/{}", chain.cluster, chain.node));
        let _ = writeln!(
            text,
            "{of}: {state}  {} backups, {} of them without a chain, {} pruned between them",
            chain.backups, chain.unchained, chain.pruned
        );
        for found in &chain.findings {
            let mark = match found.severity {
                Severity::Error => "",
                Severity::Warning => "warning: ",
            };
            let line = format!("  {mark}{}: {} [{}]", found.set, found.detail, found.name);
            let _ = writeln!(text, "{}", printable(line));
        }
    }
    text
}
