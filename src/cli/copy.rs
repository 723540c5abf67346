//! `copy`: a set to another store, or from one.

use std::path::Path;

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::args::CopyArgs;
use super::run::{Session, Shown};
use super::{machine, remote};
use crate::error::{Failure, Kind, Result};
use crate::ops::catalog;
use crate::ops::remote::{self as sets, Copied};
use crate::store::{Address, LocalStore, objects};

/// Copies what is meant to where it is meant.
pub(super) fn run(session: &Session, args: &CopyArgs) -> Result<Shown> {
    match (Address::is_url(&args.set), Address::is_url(&args.to)) {
        (false, true) => to(session, args),
        (true, false) => from(session, args),
        (true, true) => Err(Failure::new(
            Kind::Usage,
            "copying from one URL to another goes by way of a directory: two copies",
        )),
        (false, false) => Err(Failure::new(
            Kind::Usage,
            "expected one of the two to be a URL (a directory's is file:///PATH)",
        )),
    }
}

fn to(session: &Session, args: &CopyArgs) -> Result<Shown> {
    let address = Address::parse(&args.to)?;
    let (settings, form) = (
        remote::settings(session, &args.remote)?,
        remote::form(session, &args.form)?,
    );
    let store = session.store(args.store.as_deref())?;
    let set = catalog::resolve(&store, &args.set)?;
    let host = super::backup::host_name();
    let copied = session.block_on(async {
        let store = objects::open(&address, &settings).await?;
        sets::copy(&session.context, &set, store.as_ref(), &form, &host).await
    })?;
    Ok(Shown::done(
        text(&copied),
        machine::document("copy", &document(&copied)),
    ))
}

fn from(session: &Session, args: &CopyArgs) -> Result<Shown> {
    let address = Address::parse(&args.set)?;
    let settings = remote::settings(session, &args.remote)?;
    let identities = remote::identities(&args.identity)?;
    let into = LocalStore::at(&args.to);
    let id = session.block_on(async {
        let (store, set) = remote::resolve(session, &address, &settings).await?;
        sets::import(
            &session.context,
            store.as_ref(),
            &set.name,
            &into,
            identities,
        )
        .await
    })?;
    let dir = Path::new(&args.to).join(id.to_string());
    let text = format!("{id} in {}\n", dir.display());
    let json = json!({"result": "fetched", "set": id.to_string(), "directory": dir});
    Ok(Shown::done(text, machine::document("copy", &json)))
}

/// What came of a copy, for people.
pub(super) fn text(copied: &Copied) -> String {
    if copied.already_there {
        return format!("{} is there already\n", copied.url);
    }
    let resumed = match copied.resumed {
        0 => String::new(),
        n => format!(", {n} of its files were there already"),
    };
    format!(
        "copied to {} ({} sent{resumed})\n",
        copied.url,
        HumanBytes(copied.sent)
    )
}

fn document(copied: &Copied) -> Value {
    json!({"result": "copied", "copy": copied})
}
