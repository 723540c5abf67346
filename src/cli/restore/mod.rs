//! `restore`: a data directory, a node, or what became of a restore.

mod data_dir;
mod follow;
mod next;
mod node;
mod text;

pub(super) use self::data_dir::{bump, check_allowed, data_dir, evidence};

use std::path::{Path, PathBuf};

use super::args::RestoreArgs;
use super::remote;
use super::run::{Session, Shown};
use crate::error::{Fact, Failure, Kind, Result};
use crate::keep::catalog::BackupSet;
use crate::keep::{backup, catalog, remote as sets};
use crate::node::layout::NodeLayout;
use crate::store::{Address, LocalStore};
use crate::sys::scratch::Scratch;

/// Where scratch folders are made unless another place is named.
const SCRATCH: &str = "/var/tmp";
/// The command that operations of this kind are gone on with.
pub(super) const COMMAND: &str = "restore";

/// Does what the flags ask for.
pub(super) fn run(session: &Session, args: &RestoreArgs) -> Result<Shown> {
    if args.data_dir.is_some() {
        return data_dir::run(session, args);
    }
    if let Some(id) = &args.status {
        return follow::status(session, named(id));
    }
    if args.resume {
        return node::resume(session, args);
    }
    if let Some(id) = &args.rollback {
        return node::roll_back(session, args, named(id));
    }
    if let Some(id) = &args.commit {
        return node::commit(session, args, named(id));
    }
    node::run(session, args)
}

/// The name that was given to a flag which may stand alone.
pub(super) fn named(id: &str) -> Option<&str> {
    (!id.is_empty()).then_some(id)
}

/// The set that is named.
fn set(args: &RestoreArgs) -> Result<&str> {
    args.set
        .as_deref()
        .ok_or_else(|| Failure::new(Kind::Usage, "no backup is named").with(Fact::Missing("set")))
}

/// A set that is named, and the folder it was brought to for this run only.
pub(super) struct Named {
    pub(super) set: BackupSet,
    _brought: Option<Scratch>,
}

/// Finds the set that is named. One in another store is brought here: to this node's own store,
/// where `keep` is wanted, or to a folder that goes with this run.
fn find(session: &Session, args: &RestoreArgs, keep: bool) -> Result<Named> {
    let word = set(args)?;
    if !Address::is_url(word) {
        let store = session.store_to_read(args.store.as_deref())?;
        return Ok(Named {
            set: catalog::resolve(&store, word)?,
            _brought: None,
        });
    }
    let address = Address::parse(word)?;
    let settings = remote::settings(session, &args.remote)?;
    let identities = remote::identities(&args.identity)?;
    let context = &session.context;
    if keep {
        let store = session.store_to_read(args.store.as_deref())?;
        if args.store.is_none() && session.config.store.is_none() {
            backup::make_default_store(&NodeLayout::new(&session.root))?;
        }
        let id = session.block_on(async {
            let (from, set) = remote::resolve(session, &address, &settings).await?;
            sets::import(context, from.as_ref(), &set.name, &store, identities).await
        })?;
        return Ok(Named {
            set: catalog::resolve(&store, &id.to_string())?,
            _brought: None,
        });
    }
    let scratch = scratch(args.scratch.as_deref());
    let here = Scratch::make(&scratch, "fetch")?;
    session.block_on(async {
        let (from, set) = remote::resolve(session, &address, &settings).await?;
        sets::fetch(context, from.as_ref(), &set.name, here.path(), identities)
            .await
            .map(|_| ())
    })?;
    let path = here.path().display().to_string();
    Ok(Named {
        set: BackupSet {
            name: address.to_string(),
            ..catalog::resolve(&LocalStore::at(&scratch), &path)?
        },
        _brought: Some(here),
    })
}

/// Where what is brought or unpacked only to be looked at goes: not to /tmp, which may be memory.
/// A machine without that folder still has a temporary one.
pub(super) fn scratch(given: Option<&Path>) -> PathBuf {
    let usual = Path::new(SCRATCH);
    match given {
        Some(given) => given.to_owned(),
        None if usual.is_dir() => usual.to_owned(),
        None => std::env::temp_dir(),
    }
}

/// Refuses names that are no refusals of this command.
fn check_names(names: &[String], known: &[&str]) -> Result<()> {
    for name in names {
        if !known.contains(&name.as_str()) {
            return Err(Failure::new(
                Kind::Usage,
                format!("there is no refusal {name:?} to be let pass"),
            )
            .with(Fact::Candidates(
                known.iter().map(|name| (*name).to_owned()).collect(),
            )));
        }
    }
    Ok(())
}

/// 128 bits from the kernel.
pub(super) fn random() -> Result<u128> {
    Ok(u128::from_ne_bytes(crate::sys::random::bytes()?))
}
