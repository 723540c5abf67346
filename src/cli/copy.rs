//! `copy`: a set to another store, or from one.

use std::path::Path;

use serde_json::{Value, json};

use super::args::CopyArgs;
use super::output::{backup, json, prune as pruning};
use super::session::{Session, Shown, host_name};
use super::{remote, sign};
use crate::error::{Failure, Kind, Result};
use crate::keep::catalog::{self, BackupSet};
use crate::keep::prune::{self, PruneRequest, Pruned, Selection};
use crate::keep::remote::Copied;
use crate::keep::trust::Trust;
use crate::keep::{in_use, remote as sets};
use crate::node::layout::NodeLayout;
use crate::store::{Address, LocalStore, objects};

/// Copies what is meant to where it is meant.
pub(super) fn run(session: &Session, args: &CopyArgs) -> Result<Shown> {
    match (Address::is_url(&args.set), Address::is_url(&args.to)) {
        (false, true) => to(session, args),
        (true, false) => from(session, args),
        (true, true) => Err(Failure::new(
            Kind::Usage,
            "cannot copy from one URL to another: copy into a directory first",
        )),
        (false, false) => Err(Failure::new(
            Kind::Usage,
            "expected one of the two to be a URL (file:///PATH for a directory)",
        )),
    }
}

fn to(session: &Session, args: &CopyArgs) -> Result<Shown> {
    let address = Address::parse(&args.to)?;
    let (settings, form) = (
        remote::settings(session, &args.remote)?,
        remote::form(session, &args.form, &args.sign)?,
    );
    let trust = sign::trust_only(session, &args.trust)?;
    let rules = rules(session, args, &trust)?;
    let store = session.store_to_read(args.store.as_deref())?;
    let set = trust.resolve(&store, &args.set)?;
    let host = host_name();
    let (copied, pruned) = session.block_on(async {
        let store = objects::open(&address, &settings).await?;
        let copied =
            sets::copy_backup(&session.context, &set, store.as_ref(), &form, &host).await?;
        let pruned = match (&rules, &set.manifest) {
            (Some(rules), Some(manifest)) => {
                let there = store.as_ref();
                Some(sets::prune_beside(&session.context, there, rules, manifest).await)
            }
            _ => None,
        };
        Ok((copied, pruned))
    })?;
    Ok(shown(backup::copied(&copied), document(&copied), pruned))
}

fn from(session: &Session, args: &CopyArgs) -> Result<Shown> {
    remote::refuse_recipients(
        &args.form,
        "a backup copied into a directory is neither compressed nor encrypted",
    )?;
    let address = Address::parse(&args.set)?;
    let settings = remote::settings(session, &args.remote)?;
    let identities = remote::identities(&args.identity)?;
    let trust = sign::trust_only(session, &args.trust)?;
    let rules = rules(session, args, &trust)?;
    let into = LocalStore::at(&args.to);
    let (name, there) = session.block_on(async {
        let (store, set) = remote::resolve(session, &address, &settings, &trust).await?;
        if let Some(name) = same(&into, &set)? {
            return Ok((name, true));
        }
        let id = sets::import(
            &session.context,
            store.as_ref(),
            &set.name,
            &into,
            identities,
            &trust,
        )
        .await?;
        Ok((id.to_string(), false))
    })?;
    let pruned = rules.map(|rules| {
        let request = PruneRequest {
            in_use: in_use::sets(&NodeLayout::new(&session.root), into.dir())?,
            ..rules
        };
        let into = into.clone();
        session.blocking(move |context| prune::run(&context, &into, &request, None))
    });
    let dir = Path::new(&args.to).join(&name);
    let (text, result) = match there {
        true => (
            format!("{name} in {} is that backup already\n", args.to),
            "already-there",
        ),
        false => (format!("{name} in {}\n", dir.display()), "fetched"),
    };
    let json = json!({"result": result, "set": name, "directory": dir});
    Ok(shown(text, json, pruned))
}

/// The set of a directory that a copy is of, if there is one: it is not brought twice.
fn same(into: &LocalStore, set: &BackupSet) -> Result<Option<String>> {
    if !into.dir().is_dir() || set.manifest.is_none() {
        return Ok(None);
    }
    let sets = catalog::list(into)?;
    let whole = |there: &&BackupSet| there.problems.is_empty() && there.manifest == set.manifest;
    Ok(sets.iter().find(whole).map(|there| there.name.clone()))
}

/// What is to stay where the copy goes.
fn rules(session: &Session, args: &CopyArgs, trust: &Trust) -> Result<Option<PruneRequest>> {
    if !args.keep.is_given() {
        return Ok(None);
    }
    let rules = args.keep.rules();
    rules.check()?;
    Ok(Some(PruneRequest {
        selection: Selection::Rules(rules),
        in_use: Vec::new(),
        trust: trust.clone(),
        sign: sign::key(
            session,
            args.sign.sign_key.as_deref(),
            args.sign.sign_passphrase_file.as_deref(),
        )?,
    }))
}

/// The copy, and what was removed after it: what fails there leaves the copy as it is.
fn shown(mut text: String, mut document: Value, pruned: Option<Result<Pruned>>) -> Shown {
    let pruned = pruned.map(|pruned| {
        pruned.unwrap_or_else(|failure| Pruned {
            problems: vec![failure.to_string()],
            ..Pruned::default()
        })
    });
    let mut problems = Vec::new();
    if let Some(pruned) = &pruned {
        text.push_str(&pruning::summary(pruned));
        document["pruned"] = json!(pruned);
        problems.extend(pruning::problems(pruned));
    }
    Shown::in_part(text, json::document("copy", &document), problems)
}

fn document(copied: &Copied) -> Value {
    json!({"result": "copied", "copy": copied})
}
